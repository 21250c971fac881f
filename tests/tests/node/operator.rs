//! The operator as a user installs it: both charts by helm, the images of this checkout, and nothing else.

use std::{
    io::Read,
    net::TcpStream,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use harness::{Cluster, Namespace, round_trip, until, until_within};
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::shared;

const CHARTS: [&str; 2] = ["charts/portlane-crds", "charts/portlane"];
const OPERATOR: &str = "portlane";

/// The cluster with the operator installed, once for all tests.
fn operated() -> &'static Cluster {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let cluster = shared::cluster();
    INSTALLED.get_or_init(|| {
        cluster.kubectl(&["create", "namespace", OPERATOR]).ok();
        // As restricted as Pods can be.
        cluster.kubectl(&["label", "namespace", OPERATOR, "pod-security.kubernetes.io/enforce=restricted"]).ok();
        cluster.helm(&["upgrade", "--install", "portlane-crds", CHARTS[0], "--namespace", OPERATOR, "--wait"]).ok();
        let never = ["--set", "image.pullPolicy=Never", "--set", "proxyImage.pullPolicy=Never"];
        let install = ["install", "portlane", CHARTS[1], "--namespace", OPERATOR, "--wait", "--timeout", "25s"];
        cluster.helm(&[&install[..], &never[..]].concat()).ok();
    });
    cluster
}

#[test]
fn the_charts_lint_and_every_object_of_theirs_is_accepted() {
    let cluster = shared::cluster();
    for chart in CHARTS {
        cluster.helm(&["lint", "--strict", chart]).ok();
    }
    cluster.helm(&["lint", "--strict", CHARTS[1], "--set", "replicas=-1"]).refused();
    let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    for more in [&[][..], &["--set", "watchNamespaces={default,kube-system}"]] {
        for chart in CHARTS {
            if chart == CHARTS[0] && !more.is_empty() {
                continue;
            }
            let template = ["template", "portlane", chart, "--namespace", "default", "--kube-version", "1.34.0"];
            let manifests = cluster.helm(&[&template[..], more].concat()).ok();
            cluster.kubectl_with(&dry_run, &manifests).ok();
            if !more.is_empty() {
                let roles = manifests.matches("\nkind: Role\n").count();
                assert_eq!(roles, 3, "its own, and one in each namespace");
                assert!(!manifests.contains("resources: [namespaces]"), "no cluster-wide look at namespaces");
            }
        }
    }
}

const BACKEND: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: echo
        image: localhost/portlane/echo:0.1.0
        imagePullPolicy: Never
        args: [serve, --address, '0.0.0.0', --port, '8000', --name, 'NAME: ']
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec:
  selector: {app: NAME}
  ports:
  - {name: tcp, port: 80, targetPort: 8000, protocol: TCP}
  - {name: udp, port: 80, targetPort: 8000, protocol: UDP}
";

fn forward(backend: &str) -> String {
    format!(
        "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {{name: web}}
spec:
  placement: {{gateway: {{name: edge}}}}
  listeners:
  - {{name: tcp, protocol: TCP, port: 80, backends: [{{service: {{name: {backend}, port: 80}}}}]}}
  - {{name: udp, protocol: UDP, port: 80, backends: [{{service: {{name: {backend}, port: 80}}}}]}}
"
    )
}

const GATEWAY: &str = "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {replicas: 2, drainSeconds: 5}}";

/// A namespace as restricted as Pods can be, with two backends and a client.
fn shop(purpose: &str) -> Namespace<'static> {
    let namespace = operated().namespace(purpose).for_pods();
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    namespace.cluster().kubectl(&["label", "namespace", namespace.name(), restricted]).ok();
    namespace.apply(&BACKEND.replace("NAME", "web"));
    namespace.apply(&BACKEND.replace("NAME", "other"));
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {terminationGracePeriodSeconds: 0, securityContext: \
         {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: client, image: \
         'localhost/portlane/echo:0.1.0', args: [pause], securityContext: {allowPrivilegeEscalation: false, capabilities: \
         {drop: [ALL]}}}]}}",
    );
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=25s"]).ok();
    namespace
}

fn wait_for(namespace: &Namespace<'_>, object: &str) {
    let said = namespace.kubectl(&["wait", "--for=condition=Ready", object, "--timeout=28s"]);
    if !said.success {
        let story = namespace.kubectl(&["describe", "portlane"]).stdout;
        let log =
            namespace.cluster().kubectl(&["logs", "-n", OPERATOR, "deploy/portlane-operator", "--tail=20"]).stdout;
        panic!("{}\n{story}\n{log}", said.stderr);
    }
}

/// What comes back for a greeting from the client through the gateway's Service.
fn call(namespace: &Namespace<'_>, protocol: &str) -> String {
    let said = namespace.kubectl(&["exec", "client", "--", "/portlane-echo", "call", protocol, "edge:80", "hello"]);
    said.stdout.trim_end().to_owned()
}

#[test]
fn a_fleet_runs_swaps_under_load_outlives_its_operator_scales_and_leaves_nothing() {
    let namespace = shop("fleet");
    namespace.apply(GATEWAY);
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    wait_for(&namespace, "forwardgateway/edge");
    for protocol in ["tcp", "udp"] {
        // A Service routes a moment after its pods are ready.
        until(&format!("{protocol} goes through the Service"), || call(&namespace, protocol) == "web: hello");
    }
    under_load(&namespace, || {
        namespace.apply(&forward("other"));
        until("new sessions go to the other backend", || call(&namespace, "tcp") == "other: hello");
        wait_for(&namespace, "portforward/web");
        // The leader is killed; the other replica goes on.
        let holder = ["get", "lease", "portlane-operator", "-n", OPERATOR, "--output=jsonpath={.spec.holderIdentity}"];
        let holder = namespace.cluster().kubectl(&holder).ok();
        let pod = holder.split('_').next().expect("a pod").to_owned();
        namespace.cluster().kubectl(&["delete", "pod", &pod, "-n", OPERATOR, "--grace-period=0", "--force"]).ok();
        namespace.apply(&forward("web"));
        until_within(std::time::Duration::from_secs(40), "a change flows under the new leader", || {
            call(&namespace, "tcp") == "web: hello"
        });
    });
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    until("one proxy is left", || {
        let proxies = namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
        proxies.lines().count() == 1
    });
    wait_for(&namespace, "portforward/web");
    let table = namespace.kubectl(&["get", "pf"]).ok();
    assert!(table.contains("80/TCP,80/UDP") && table.contains("svc/web:80"), "{table}");
    namespace.kubectl(&["delete", "portforward/web", "forwardgateway/edge"]).ok();
    namespace.until_gone::<Service>("edge");
    until("the fleet is gone", || {
        namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok().is_empty()
    });
}

/// Does something while sessions to every proxy send and receive all the time; none may break.
fn under_load(namespace: &Namespace<'_>, work: impl FnOnce()) {
    let Some(node) = shared::node_with_a_host() else { return work() };
    let names = namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
    let address = |name: &str| {
        let pod = namespace.get::<Pod>(name.trim_start_matches("pod/")).expect("there");
        let ip = pod.status.and_then(|status| status.pod_ip).expect("an address");
        format!("{ip}:80").parse().expect("an address")
    };
    let addresses: Vec<std::net::SocketAddr> = names.lines().map(address).collect();
    assert_eq!(addresses.len(), 2, "{names}");
    let open = |at: usize| greeted(node.connect(addresses[at % addresses.len()]).expect("it listens"));
    let mut sessions: Vec<TcpStream> = (0..40).map(open).collect();
    let (stop, round_trips) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Relaxed) {
                for session in &mut sessions {
                    assert_eq!(round_trip(session, b"load").expect("no session breaks"), b"load");
                    round_trips.fetch_add(1, Relaxed);
                }
            }
        });
        work();
        stop.store(true, Relaxed);
        load.join().expect("no session broke");
    });
    assert!(round_trips.load(Relaxed) > 100, "there was load");
}

/// A session whose backend has said its name.
fn greeted(mut session: TcpStream) -> TcpStream {
    let mut name = [0; 5];
    session.read_exact(&mut name).expect("a greeting");
    assert_eq!(&name, b"web: ");
    session
}

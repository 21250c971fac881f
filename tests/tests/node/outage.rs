//! The API server is away for two minutes, a proxy is killed meanwhile, and traffic is not disturbed.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use harness::{Namespace, Node, assert_reset, connect, until, until_within};
use k8s_openapi::jiff::Timestamp;

use crate::{
    broken::names,
    fleet::{self, GATEWAY, Load, OPERATOR, call, forward, install, proxies, shop, wait_for},
    port_forward::{self, Forwarder},
    shared, troubleshooting,
};

/// Time without an API server.
const OUTAGE: Duration = Duration::from_secs(120);

/// Longest time until `kubectl portlane forward` serves again after the outage.
const FORWARDED: Duration = Duration::from_secs(30);

/// The node is this test's own: an outage would disturb other tests.
#[test]
fn without_an_api_server_for_two_minutes_traffic_continues_and_a_killed_proxy_serves_what_it_had() {
    if !shared::are_nodes_ours() {
        return;
    }
    let node = Node::start();
    install(&node, &[]);
    let namespace = shop(&node, "outage");
    namespace.apply(GATEWAY);
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    until("bytes go through the Service", || call(&namespace, "tcp") == "web: hello");
    let addresses = proxies(&namespace);
    let (spared, killed) = (addresses[0].clone(), addresses[1].clone());
    let load = Load::start(&node, &[spared.1], 40);
    the_leader_is_killed(&namespace);
    let forwarder = Forwarder::start(namespace.cluster().kubeconfig(), &namespace, &["svc/web", ":tcp"]);
    until("the forwarder serves", || is_forwarded(&forwarder));

    let pause = node.pause("kube-apiserver");
    let started = Instant::now();
    // A killed proxy serves its kept configuration again, although no operator can reach it.
    kill_proxy(&node, &killed.0);
    until("the killed proxy serves again", || greets(&node, killed.1));
    // Without the API server no pod can be reached. The client learns that, and does not wait for the end of the outage.
    assert_reset(connect(forwarder.port), b"x");
    while started.elapsed() < OUTAGE {
        assert!(
            greets(&node, killed.1) && greets(&node, spared.1),
            "no new session is accepted after {:?}",
            started.elapsed()
        );
        pause_between_looks();
    }
    drop(pause);

    // With the API server back, a change reaches the proxies, and sessions from before the outage are still open.
    let back = Instant::now();
    until_within(FORWARDED, "the same forwarder serves a new connection", || is_forwarded(&forwarder));
    eprintln!("the forwarder served {:?} after the API server was back", back.elapsed());
    drop(forwarder);
    until("the API server takes a change", || namespace.try_apply(&forward("other")));
    eprintln!("the API server took a change {:?} after it was back", back.elapsed());
    until("new sessions go to the other backend", || call(&namespace, "tcp") == "other: hello");
    eprintln!("a change flowed {:?} after the API server was back", back.elapsed());
    // A node that became unready takes its pods out of the endpoints, which has nothing to do with the operator.
    let unready = ["get", "events", "--all-namespaces", "--field-selector=reason=NodeNotReady"];
    eprintln!("Events of nodes and pods that became unready:\n{}", namespace.cluster().kubectl(&unready).ok());
    namespace.cluster().kubectl(&["delete", "lease", "portlane-operator", "-n", OPERATOR]).ok();
    namespace.apply(&forward("web"));
    until("a change flows under a new Lease", || call(&namespace, "tcp") == "web: hello");
    until("the forward is ready", || {
        namespace.kubectl(&["wait", "--for=condition=Ready", "portforward/web", "--timeout=1s"]).success
    });
    without_an_operator(&node, &namespace);
    the_certificate_rotates(&namespace);
    assert!(load.stop() > 1000, "there was load, and no session broke");
}

/// The other replica of the operator takes over from a leader that is killed.
fn the_leader_is_killed(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let holder = ["get", "lease", "portlane-operator", "-n", OPERATOR, "--output=jsonpath={.spec.holderIdentity}"];
    let holder = cluster.kubectl(&holder).ok();
    let pod = holder.split('_').next().expect("a pod").to_owned();
    cluster.kubectl(&["delete", "pod", &pod, "-n", OPERATOR, "--grace-period=0", "--force"]).ok();
    let (killed, at) = (Instant::now(), Timestamp::now());
    namespace.apply(&forward("other"));
    until("a change flows under the new leader", || call(namespace, "tcp") == "other: hello");
    eprintln!("a change flowed {:?} after the leader was killed", killed.elapsed());
    // 2 s later: the leader released the Lease. 10 to 16 s later: the Lease lapsed. Earlier: the old leader still pushed.
    let acquired = ["get", "lease", "portlane-operator", "-n", OPERATOR, "--output=jsonpath={.spec.acquireTime}"];
    eprintln!("the leader was killed at {at}, and the Lease was acquired at {}", cluster.kubectl(&acquired).ok());
    namespace.apply(&forward("web"));
    until("a change flows back", || call(namespace, "tcp") == "web: hello");
}

/// Kills the proxy in a pod; kubelet starts another one in its place.
pub(crate) fn kill_proxy(node: &Node, pod: &str) {
    let is_of = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == format!("HOSTNAME={pod}").as_bytes())
    };
    let proxy = node.processes("portlane-proxy").into_iter().find(is_of);
    node.kill(proxy.unwrap_or_else(|| panic!("pod {pod} has no proxy")));
}

fn greets(node: &Node, address: SocketAddr) -> bool {
    node.connect(address).and_then(|mut session| fleet::greeting(&mut session)).is_ok()
}

/// Whether a new connection to the forwarder reaches the backend.
fn is_forwarded(forwarder: &Forwarder) -> bool {
    port_forward::open(forwarder.port).is_ok_and(|(_, greeting)| greeting == "web")
}

#[allow(clippy::disallowed_methods, reason = "the outage has to last, and the load runs by itself")]
fn pause_between_looks() {
    thread::sleep(Duration::from_millis(500));
}

/// Pods do not wait for a missing operator, and start uninjected. A namespace that is deleted may wait for the APIs that
/// the operator serves, and is gone once they are removed, as the page says. `status` names what is missing, and the
/// command that brings it back.
fn without_an_operator(node: &Node, namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let scale = |to: &str| cluster.kubectl(&["scale", "deploy/portlane-operator", "-n", OPERATOR, to]).ok();
    scale("--replicas=0");
    until("the operator is gone", || cluster.kubectl(&["get", "pods", "-n", OPERATOR, "-o", "name"]).ok().is_empty());
    let label = "{\"spec\": {\"template\": {\"metadata\": {\"labels\": {\"portlane.dev/inject\": \"enabled\"}}}}}";
    namespace.kubectl(&["patch", "deploy/other", "--patch", label]).ok();
    namespace.kubectl(&["rollout", "status", "deploy/other", "--timeout=180s"]).ok();
    cluster.kubectl(&["create", "namespace", "short-lived"]).ok();
    cluster.kubectl(&["delete", "namespace", "short-lived", "--wait=false"]).ok();
    let (title, object) =
        (format!("Deployment {OPERATOR}/portlane-operator has no replicas"), "deployment portlane-operator");
    let next = format!("kubectl --namespace {OPERATOR} scale {object} --replicas=2");
    let parts = ["× operator", &title, &next, "× Service", "get endpointslices", "× webhook", "no operator answers it"];
    names(namespace, &["status"], &parts);
    namespace.apply(&forward("other"));
    let parts = ["! object", "and the object is at", "check the installation: kubectl portlane status"];
    names(namespace, &["describe", "web"], &parts);
    namespace.apply(&forward("web"));
    troubleshooting::an_api_has_no_operator(node, namespace);
    let is_left = || cluster.kubectl(&["get", "namespace", "short-lived", "--ignore-not-found", "-o", "name"]).ok();
    until("the namespace is gone", || is_left().is_empty());
    let apis = cluster.kubectl(&["get", "apiservices", "--output=name"]).ok();
    assert!(!apis.contains("live.portlane.dev"), "{apis}");
    scale("--replicas=2");
    cluster.kubectl(&["rollout", "status", "deploy/portlane-operator", "-n", OPERATOR, "--timeout=180s"]).ok();
}

/// Certificates of the webhook change every few seconds while pods are created, and each pod gets its proxy.
fn the_certificate_rotates(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let short = |setting: &str| {
        cluster.kubectl(&["set", "env", "deploy/portlane-operator", "-n", OPERATOR, setting]).ok();
        cluster.kubectl(&["rollout", "status", "deploy/portlane-operator", "-n", OPERATOR, "--timeout=180s"]).ok();
    };
    short("PORTLANE_CERTIFICATE_SECONDS=8");
    let (started, mut made) = (Instant::now(), 0);
    // A certificate lasts for eight seconds and is replaced after four. A slow machine takes longer for as many pods.
    while started.elapsed() < Duration::from_secs(20) || made < 6 {
        let name = format!("made-{made}");
        namespace.apply(
            &"{apiVersion: v1, kind: Pod, metadata: {name: NAME, labels: {portlane.dev/inject: enabled}}, spec: \
              {terminationGracePeriodSeconds: 0, securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, \
              containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [pause], securityContext: \
              {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}"
                .replace("NAME", &name),
        );
        let containers = "--output=jsonpath={.spec.initContainers[*].name}";
        assert_eq!(namespace.kubectl(&["get", "pod", &name, containers]).ok(), "portlane-proxy", "pod {made}");
        namespace.kubectl(&["delete", "pod", &name, "--wait=false"]).ok();
        made += 1;
    }
    short("PORTLANE_CERTIFICATE_SECONDS-");
}

//! `examples/sidecar.yaml`: sidecars in a user's pods, by the operator as a user installs it.

use std::net::{IpAddr, SocketAddr};

use harness::{Namespace, until};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    fleet::{self, Load, operated, wait_for},
    shared,
};

const EXAMPLE: &str = include_str!("../../../examples/sidecar.yaml");

/// As restricted as Pods can be.
fn restricted(purpose: &str) -> Namespace<'static> {
    operated().namespace(purpose).for_pods().restricted()
}

/// What the app gets from a door of its pod.
fn call(namespace: &Namespace<'_>, to: &str) -> String {
    let words = ["exec", "deploy/shop", "-c", "app", "--", "/portlane-echo", "call", "tcp", to, "hello"];
    namespace.kubectl(&words).stdout.trim_end().to_owned()
}

/// The pods of the app that stay.
fn pods(namespace: &Namespace<'_>) -> Vec<Pod> {
    let names = namespace.kubectl(&["get", "pods", "-l", "app=shop", "-o", "name"]).ok();
    let all = names.lines().filter_map(|name| namespace.get::<Pod>(name.trim_start_matches("pod/")));
    all.filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

fn address(pod: &Pod, port: u16) -> SocketAddr {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).expect("an address");
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

#[test]
fn one_apply_brings_forward_and_pods_in_either_order() {
    let mut documents: Vec<&str> = EXAMPLE.split("\n---\n").collect();
    for purpose in ["sync-forward-first", "sync-pods-first"] {
        let namespace = restricted(purpose);
        namespace.apply(&documents.join("\n---\n"));
        namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
        wait_for(&namespace, "portforward/db");
        until("the app reaches the database", || call(&namespace, "127.0.0.1:5432") == "db: hello");
        // Another test replaces the leader, which counts proxies again as they connect.
        until("the table has one proxy of one", || {
            let table = namespace.kubectl(&["get", "pf"]).stdout;
            table.contains("1/1") && table.contains("svc/db:5432")
        });
        let injected = "--output=jsonpath={.status.conditions[?(@.type==\"Injected\")].reason}";
        until("every pod is injected", || namespace.kubectl(&["get", "pf", "db", injected]).stdout == "Injected");
        documents.reverse();
    }
}

/// A port of the pod that leads to a port of the app, which listens on loopback only.
fn inside(name: &str, port: u16, to: u16) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: shop}}}}}}}}, listeners: [{{name: tcp, protocol: TCP, bind: All, port: {port}, \
         backends: [{{local: {{port: {to}}}}}]}}]}}}}"
    )
}

#[test]
fn forwards_come_change_and_go_inside_running_pods() {
    let namespace = restricted("hot");
    namespace.apply(EXAMPLE);
    namespace.apply(&inside("web", 80, 8000));
    namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
    wait_for(&namespace, "portforward/web");
    let before = pods(&namespace);
    let web = address(&before[0], 80);
    let load = shared::node_with_a_host().map(|node| Load::start(node, &[web], 20));
    for to in [8000, 8001, 8000] {
        // Another listener of the same pods: made, changed, gone.
        namespace.apply(&inside("more", 81, to));
        wait_for(&namespace, "portforward/more");
    }
    // The listener that is loaded moves: its sessions stay, as onUpdate says nothing else.
    namespace.apply(&inside("web", 82, 8000));
    wait_for(&namespace, "portforward/web");
    if let Some(node) = shared::node_with_a_host() {
        let moved = address(&before[0], 82);
        until("the new port greets", || {
            node.connect(moved).and_then(|mut session| fleet::greeting(&mut session)).is_ok_and(|it| it == "shop: ")
        });
        until("the old port is closed", || node.connect(web).is_err());
    }
    namespace.kubectl(&["delete", "pf", "more", "web"]).ok();
    assert!(load.is_none_or(|load| load.stop() > 100), "there was load, and no session broke");
    // Two that want one port: the younger one loses, in words; the other does not notice.
    namespace.apply(&inside("late", 5432, 8000));
    until("the loser is reported", || {
        let rejected = namespace.kubectl(&["get", "pf", "late", "-o", "jsonpath={.status.dataPlane.rejected}"]).stdout;
        rejected.contains("db")
            || namespace.kubectl(&["get", "pf", "late", "-o", "yaml"]).stdout.contains("PortConflict")
    });
    wait_for(&namespace, "portforward/db");
    assert_eq!(call(&namespace, "127.0.0.1:5432"), "db: hello");
    let after = pods(&namespace);
    let identity = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let all = [status.container_statuses, status.init_container_statuses].into_iter().flatten().flatten();
        (pod.metadata.uid.clone(), all.map(|it| it.restart_count).sum::<i32>())
    };
    assert_eq!(before.iter().map(identity).collect::<Vec<_>>(), after.iter().map(identity).collect::<Vec<_>>());
    assert_eq!(identity(&after[0]).1, 0, "nothing was restarted");
}

#[test]
fn a_job_reaches_the_database_at_its_first_try_and_completes() {
    let namespace = restricted("job");
    namespace.apply(EXAMPLE);
    namespace.kubectl(&["rollout", "status", "deploy/db", "--timeout=180s"]).ok();
    wait_for(&namespace, "portforward/db");
    namespace.apply(
        "{apiVersion: batch/v1, kind: Job, metadata: {name: once}, spec: {backoffLimit: 0, template: {metadata: {labels: {app: \
         shop, portlane.dev/inject: enabled}}, spec: {restartPolicy: Never, securityContext: {runAsNonRoot: true, \
         seccompProfile: {type: RuntimeDefault}}, containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [call, \
         tcp, '127.0.0.1:5432', hello], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}}}",
    );
    let output = namespace.kubectl(&["wait", "--for=condition=Complete", "job/once", "--timeout=180s"]);
    assert!(
        output.success,
        "{}{}",
        output.stderr,
        namespace.kubectl(&["describe", "pods", "-l", "batch.kubernetes.io/job-name=once"]).stdout
    );
    assert_eq!(namespace.kubectl(&["logs", "job/once", "-c", "app"]).ok().trim_end(), "db: hello");
    wait_for(&namespace, "portforward/db");
}

#[test]
fn a_port_that_the_app_itself_has_and_a_pod_on_the_hosts_network_are_reported() {
    let namespace = operated().namespace("taken").for_pods();
    namespace.apply(EXAMPLE);
    // The app listens on 127.0.0.1:8000, before the forward is there.
    namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
    namespace.apply(&inside("web", 8000, 9).replace("bind: All", "bind: Loopback"));
    let rejected = || namespace.kubectl(&["get", "pf", "web", "-o", "jsonpath={.status.dataPlane.rejected}"]).stdout;
    let port = |port: u16| {
        let patch = format!("[{{\"op\": \"replace\", \"path\": \"/spec/listeners/0/port\", \"value\": {port}}}]");
        namespace.kubectl(&["patch", "pf", "web", "--type=json", "-p", &patch]).ok();
    };
    until("the pod is named with the reason", || rejected().contains("in use"));
    port(8001);
    until("the forward heals", || rejected().is_empty());

    // The proxy of a new pod is there before its app: where a container declares its port, the app has it.
    let declares = "{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"name\": \"app\", \"ports\": [{\"containerPort\": \
                    8000}]}]}}}}";
    port(8000);
    namespace.kubectl(&["patch", "deploy/shop", "--patch", declares]).ok();
    namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
    let accepted = "--output=jsonpath={.status.conditions[?(@.type==\"Accepted\")].message}";
    until("the forward names the app as the holder of the port", || {
        namespace.kubectl(&["get", "pf", "web", accepted]).stdout.contains("port 8000/TCP belongs to the app")
    });
    // kubectl may pick the pod of before, which is about to end.
    until("the app still reaches the database", || call(&namespace, "127.0.0.1:5432") == "db: hello");
    port(8001);
    wait_for(&namespace, "portforward/web");

    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: host, labels: {app: shop, portlane.dev/inject: enabled}}, spec: \
         {hostNetwork: true, terminationGracePeriodSeconds: 0, containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', \
         args: [pause]}]}}",
    );
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/host", "--timeout=180s"]).ok();
    let message = "--output=jsonpath={.status.conditions[?(@.type==\"Injected\")].message}";
    until("the forward names hostNetwork", || {
        namespace.kubectl(&["get", "pf", "db", message]).stdout.contains("hostNetwork")
    });
    wait_for(&namespace, "portforward/db");
}

#[test]
fn an_app_whose_undeclared_port_a_listener_has_is_named_and_starts_once_the_port_is_declared() {
    let namespace = restricted("undeclared");
    // The app listens on 127.0.0.1:8000, and no container declares that port: the proxy binds it first.
    namespace.apply(&inside("web", 8000, 9));
    namespace.apply(EXAMPLE);
    let injected = "--output=jsonpath={.status.conditions[?(@.type==\"Injected\")].message}";
    until("the forward names the container and the remedy", || {
        let message = namespace.kubectl(&["get", "pf", "web", injected]).stdout;
        message.contains("container app is in a crash loop") && message.contains("declare its ports")
    });
    let declares = "{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"name\": \"app\", \"ports\": [{\"containerPort\": \
                    8000}]}]}}}}";
    namespace.kubectl(&["patch", "deploy/shop", "--patch", declares]).ok();
    namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
    // A pod without a readiness probe is ready before its app listens.
    until("the app has its port", || call(&namespace, "127.0.0.1:8000") == "shop: hello");
    wait_for(&namespace, "portforward/db");
}

#[test]
fn a_sidecar_serves_its_app_to_the_apps_end() {
    let namespace = restricted("to-the-end");
    namespace.apply(EXAMPLE);
    // An app that keeps working for a while after SIGTERM.
    let lingers = "{\"spec\": {\"template\": {\"spec\": {\"terminationGracePeriodSeconds\": 30, \"containers\": [{\"name\": \"app\", \
                   \"lifecycle\": {\"preStop\": {\"sleep\": {\"seconds\": 12}}}}]}}}}";
    namespace.kubectl(&["patch", "deploy/shop", "--patch", lingers]).ok();
    namespace.kubectl(&["rollout", "status", "deploy/shop", "--timeout=180s"]).ok();
    wait_for(&namespace, "portforward/db");
    until("the app reaches the database", || call(&namespace, "127.0.0.1:5432") == "db: hello");
    let pod = pods(&namespace).swap_remove(0).metadata.name.expect("a name");
    namespace.kubectl(&["delete", "pod", &pod, "--wait=false"]).ok();
    let is_leaving = || namespace.get::<Pod>(&pod).is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
    until("the pod is terminating", is_leaving);
    let words = ["exec", &pod, "-c", "app", "--", "/portlane-echo", "call", "tcp", "127.0.0.1:5432", "hello"];
    // Not so often that a slow machine outlasts the twelve seconds.
    for _ in 0..3 {
        assert_eq!(namespace.kubectl(&words).ok().trim_end(), "db: hello", "while the app is there, so is its sidecar");
    }
    assert!(is_leaving(), "all of that was before its end");
    until("then both go", || namespace.get::<Pod>(&pod).is_none());
}

//! A sidecar and its app want one port: what is found in use is the app's from then on, and an app that ends again and again is left
//! all ports for a while.

use std::net::TcpListener;

use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Namespace, Operator, connect, free_port, programs::KubernetesVersion,
    until,
};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::{condition, until_ready};

#[test]
fn a_port_is_left_to_the_app_that_has_it_and_to_one_that_may_want_it() {
    crate::server::with(KubernetesVersion::Newest, story);
}

fn sidecar(name: &str, port: u16, backend: u16) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: shop}}}}}}}}, listeners: [{{name: tcp, protocol: TCP, port: {port}, backends: [{{local: \
         {{port: {backend}}}}}]}}]}}}}"
    )
}

fn story(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("app-ports");
    let operator = Operator::start(&namespace);
    let backend = Backend::start(Behaviour::Echo);
    let (door, taken) = (free_port(), free_port());
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: app}}");
    namespace.apply(&sidecar("door", door, backend.port));
    let pod = FleetPod::create(&namespace, "shop-1", "app", &json!({"app": "shop", "portlane.dev/proxy": "sidecar"}));
    let _proxy = pod.proxy(&namespace, "app", &operator);
    until_ready(&namespace, "door", "True", "Ready");

    // The app is there first. It keeps its port also while it is restarted.
    let app = TcpListener::bind(("127.0.0.1", taken)).expect("a free port");
    namespace.apply(&sidecar("late", taken, backend.port));
    let refused = until_ready(&namespace, "late", "False", "PortConflict");
    let message = refused.status.iter().flat_map(|it| &it.conditions).map(|it| it.message.as_str()).collect::<String>();
    assert!(message.contains(&format!("port {taken}/TCP is the app's own")), "{message}");
    let written = || {
        let pod = namespace.get::<Pod>("shop-1").expect("it is there");
        pod.metadata.annotations.unwrap_or_default().remove("portlane.dev/app-ports")
    };
    assert_eq!(written(), Some(format!("{taken}/TCP")));
    drop(app);
    until_ready(&namespace, "door", "True", "Ready");
    assert!(connect(taken).is_err(), "the app's port is not taken while the app is away");

    // An app that ends again and again finds its ports free at its fourth restart, and is told of.
    let running = || json!({"running": {"startedAt": now()}});
    let waits =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container=app"}});
    runs(&namespace, 1, &waits);
    injected(&namespace, "AppFailing");
    runs(&namespace, 2, &waits);
    assert!(connect(door).is_ok(), "it may need its doors");
    runs(&namespace, 3, &waits);
    until("listeners leave the app all ports", || connect(door).is_err());
    let app = TcpListener::bind(("127.0.0.1", door)).expect("the proxy has left it");
    runs(&namespace, 4, &running());
    // Within the time of its run before, and some seconds more, nobody takes it; then it is found in use.
    until_ready(&namespace, "door", "False", "PortConflict");
    let both = if door < taken { [door, taken] } else { [taken, door] };
    assert_eq!(written(), Some(both.map(|port| format!("{port}/TCP")).join(",")));
    drop(app);

    // Another app ends for another reason: its doors come back.
    let other = free_port();
    namespace.apply(&sidecar("other", other, backend.port));
    until_ready(&namespace, "other", "True", "Ready");
    runs(&namespace, 7, &waits);
    until("listeners leave the app all ports", || connect(other).is_err());
    until_ready(&namespace, "other", "True", "Ready");
    runs(&namespace, 8, &running());
    until("its doors are back", || connect(other).is_ok());
    status(&namespace, "shop-1", "Running", &json!({"name": "app", "restartCount": 9, "state": running()}));
    injected(&namespace, "Injected");

    // A pod that is not restarted.
    once(&namespace);
    let ended = ended(&now());
    status(&namespace, "once-1", "Failed", &json!({"name": "app", "restartCount": 0, "state": {"terminated": ended}}));
    injected(&namespace, "AppFailing");
    namespace.kubectl(&["delete", "pod", "once-1", "--force", "--grace-period=0"]).ok();
    injected(&namespace, "Injected");
}

/// A pod of the forward that is not restarted.
fn once(namespace: &Namespace<'_>) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "once-1", "labels": {"app": "shop", "portlane.dev/proxy": "sidecar"}},
        "spec": {
            "restartPolicy": "Never", "serviceAccountName": "app", "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "none"}],
        },
    });
    namespace.apply(&pod.to_string());
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A run of no time at all.
fn ended(at: &str) -> Value {
    json!({"exitCode": 1, "reason": "Error", "startedAt": at, "finishedAt": at})
}

/// Says in the status of the pod, as kubelet would, how often its app was restarted, and how it is.
fn runs(namespace: &Namespace<'_>, restarts: i32, state: &Value) {
    let last = json!({"terminated": ended(&now())});
    status(
        namespace,
        "shop-1",
        "Running",
        &json!({"name": "app", "restartCount": restarts, "state": state, "lastState": last}),
    );
}

fn status(namespace: &Namespace<'_>, pod: &str, phase: &str, app: &Value) {
    let mut app = app.clone();
    app["image"] = json!("");
    app["imageID"] = json!("");
    app["ready"] = json!(false);
    let patch = json!({"status": {"phase": phase, "containerStatuses": [app]}}).to_string();
    namespace.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "--patch", &patch]).ok();
}

fn injected(namespace: &Namespace<'_>, reason: &str) {
    namespace.until::<crds::PortForward>("door", &format!("Injected for {reason}"), |forward| {
        condition(forward, "Injected") == ("True".to_owned(), reason.to_owned())
    });
}

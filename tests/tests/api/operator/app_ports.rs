//! An app in a crash loop: the forwards of its pod name the container and say what to do.

use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Namespace, Operator, free_port, programs::KubernetesVersion,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{condition, until_ready};

fn sidecar(name: &str, port: u16, backend: u16) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: shop}}}}}}}}, listeners: [{{name: tcp, protocol: TCP, port: {port}, backends: [{{local: \
         {{port: {backend}}}}}]}}]}}}}"
    )
}

#[test]
fn an_app_in_a_crash_loop_is_named_while_its_listeners_stay() {
    crate::server::with(KubernetesVersion::Newest, |server: &ControlPlane| {
        if !crate::server::without_kubelets(server) {
            return;
        }
        let namespace = server.namespace("app-ports");
        let operator = Operator::start(&namespace);
        let backend = Backend::start(Behaviour::Echo);
        namespace.apply(&sidecar("door", free_port(), backend.port));
        let (_pod, _proxy) = FleetPod::with_sidecar(&namespace, &operator);
        until_ready(&namespace, "door", "True", "Ready");
        injected(&namespace, "Injected");

        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container=app"}});
        app_status(&namespace, 1, &waiting);
        injected(&namespace, "AppFailing");
        let forward = until_ready(&namespace, "door", "True", "Ready");
        let messages = forward.status.iter().flat_map(|it| &it.conditions).map(|it| it.message.as_str());
        let messages = messages.collect::<Vec<_>>().join("\n");
        assert!(messages.contains("pod shop-1: container app is in a crash loop (exit code 1)"), "{messages}");

        app_status(&namespace, 1, &json!({"running": {"startedAt": now()}}));
        injected(&namespace, "Injected");
    });
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes the status of the app's container as kubelet would.
fn app_status(namespace: &Namespace<'_>, restarts: i32, state: &Value) {
    let ended = json!({"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()});
    let app = json!({
        "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
        "lastState": {"terminated": ended},
    });
    let patch = json!({"status": {"phase": "Running", "containerStatuses": [app]}}).to_string();
    namespace.kubectl(&["patch", "pod", "shop-1", "--subresource=status", "--type=merge", "--patch", &patch]).ok();
}

fn injected(namespace: &Namespace<'_>, reason: &str) {
    namespace.until::<crds::PortForward>("door", &format!("Injected for {reason}"), |forward| {
        condition(forward, "Injected") == ("True".to_owned(), reason.to_owned())
    });
}

//! Objects in the API server: merged by server-side apply, never defaulted, with a status that only its subresource
//! writes.

use std::{fs, path::Path};

use crds::{PortForward, PortForwardSpec};
use harness::{ControlPlane, Namespace};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::FORWARD;

on_both!(
    examples_are_accepted_and_applying_them_again_changes_nothing,
    nothing_is_added_to_what_was_written,
    server_side_apply_merges_listeners_by_name_and_reports_conflicts,
    status_is_written_by_its_subresource_only,
    status_is_bounded_too,
    a_gateway_is_scaled_and_a_forward_is_not,
);

fn forward(namespace: &Namespace<'_>) -> PortForward {
    namespace.get("db").expect("db exists")
}

fn examples_are_accepted_and_applying_them_again_changes_nothing(server: &ControlPlane) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for example in fs::read_dir(examples).expect("folder").flatten().map(|entry| entry.path()) {
        if example.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&example).expect("readable");
        for flags in [&[][..], &["--server-side"]] {
            let mut namespace = server.namespace("examples");
            if server.is_existing() {
                namespace = namespace.for_pods();
            }
            let mut text = text.clone();
            for other in ["infra", "shop"] {
                text = text.replace(&format!("namespace: {other}"), &format!("namespace: {}", namespace.name()));
            }
            let apply = || namespace.kubectl_with(&[&["apply", "-f", "-"], flags].concat(), &text).ok();
            let versions = || {
                let columns =
                    "--output=custom-columns=KIND:.kind,NAME:.metadata.name,VERSION:.metadata.resourceVersion";
                // Pods, and config maps of other components, change by themselves in a cluster with controllers.
                let ours = namespace.kubectl(&["get", "portlane,services", columns]).ok();
                (ours, namespace.get::<ConfigMap>("door").and_then(|door| door.metadata.resource_version))
            };
            let first = apply();
            assert!(!first.trim().is_empty(), "{} has no object", example.display());
            let before = versions();
            let second = apply();
            let unchanged = if flags.is_empty() { "unchanged" } else { "serverside-applied" };
            // Client-side apply identifies the ports of a container by number alone. Where TCP and UDP share a number
            // and admission has changed the Pod, apply sends a patch that changes nothing.
            let patched = |line: &str| flags.is_empty() && server.is_existing() && line.starts_with("pod/");
            let idle = |line: &str| line.ends_with(unchanged) || patched(line);
            assert!(second.lines().all(idle), "{}: {second}", example.display());
            assert_eq!(versions(), before, "{} {flags:?}", example.display());
        }
    }
}

fn nothing_is_added_to_what_was_written(server: &ControlPlane) {
    let namespace = server.namespace("defaults");
    namespace.apply(FORWARD);
    let written: serde_json::Value = serde_yaml::from_str(FORWARD).expect("YAML");
    let output = namespace.kubectl(&["get", "pf", "db", "--output=json"]).ok();
    let stored: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(stored["spec"], written["spec"]);
}

fn server_side_apply_merges_listeners_by_name_and_reports_conflicts(server: &ControlPlane) {
    let namespace = server.namespace("merge");
    let apply = |manager: &str, text: &str, more: &[&str]| {
        let flags = ["apply", "--server-side", "--field-manager", manager, "-f", "-"];
        namespace.kubectl_with(&[&flags[..], more].concat(), text)
    };
    apply("one", FORWARD, &[]).ok();
    let second = FORWARD.replace("name: pg\n", "name: replica\n").replace("port: 5432\n", "port: 5433\n");
    apply("two", &second, &[]).ok();
    let names = |spec: &PortForwardSpec| spec.listeners.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&forward(&namespace).spec), ["pg", "replica"]);

    let other_port = FORWARD.replace("port: 5432\n", "port: 6432\n");
    let conflict = apply("two", &other_port, &[]).refused();
    assert!(
        conflict.contains("conflict with \"one\"") && conflict.contains(r#".spec.listeners[name="pg"].port"#),
        "{conflict}"
    );
    apply("two", &other_port, &["--force-conflicts"]).ok();
    assert_eq!(forward(&namespace).spec.listeners[0].port, Some(6432));
}

const STATUS: &str = r#"{"status": {"observedGeneration": 1, "ports": "5432/TCP"}}"#;

fn status_is_written_by_its_subresource_only(server: &ControlPlane) {
    let namespace = server.namespace("status");
    namespace.apply(FORWARD);
    let patch = |more: &[&str], body: &str| {
        let flags = ["patch", "pf", "db", "--type=merge", "--patch", body];
        namespace.kubectl(&[&flags[..], more].concat()).ok()
    };
    patch(&[], STATUS);
    assert_eq!(forward(&namespace).status, None, "the main resource ignores status");
    let both = STATUS.replacen('{', r#"{"spec": {"suspend": true}, "#, 1);
    patch(&["--subresource=status"], &both);
    let object = forward(&namespace);
    assert_eq!(object.status.as_ref().and_then(|status| status.ports.as_deref()), Some("5432/TCP"));
    assert_eq!(object.spec.suspend, None, "the status subresource ignores spec");
    assert_eq!(object.metadata.generation, Some(1), "a status write is no new generation");
    patch(&[], r#"{"spec": {"suspend": true}}"#);
    let object = forward(&namespace);
    assert_eq!(object.metadata.generation, Some(2), "a spec write is a new generation");
    assert!(object.status.is_some(), "a spec write keeps the status");
}

fn status_is_bounded_too(server: &ControlPlane) {
    let namespace = server.namespace("status-bounds");
    namespace.apply(FORWARD);
    let patch =
        |body: &str| namespace.kubectl(&["patch", "pf", "db", "--type=merge", "--subresource=status", "--patch", body]);
    for (body, field) in [
        (r#"{"status": {"ports": 5}}"#.to_owned(), "status.ports"),
        (format!(r#"{{"status": {{"to": "{}"}}}}"#, "a".repeat(1025)), "status.to"),
        (r#"{"status": {"conditions": [{"type": "Ready"}]}}"#.to_owned(), "status.conditions[0].status"),
        (
            r#"{"status": {"listeners": [{"name": "a", "port": 0, "protocol": "TCP"}]}}"#.to_owned(),
            "status.listeners[0].port",
        ),
        (
            r#"{"status": {"dataPlane": {"acked": -1, "total": 1, "rejectedCount": 0, "summary": ""}}}"#.to_owned(),
            "status.dataPlane.acked",
        ),
    ] {
        let refusal = patch(&body).refused();
        assert!(refusal.contains(&format!("{field}: ")), "{field}: {refusal}");
    }
}

/// A forward has no replicas. A gateway scales like a Deployment, also where the manifest has no replicas.
fn a_gateway_is_scaled_and_a_forward_is_not(server: &ControlPlane) {
    let namespace = server.namespace("scale");
    namespace.apply(FORWARD);
    namespace.apply("{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {}}");
    let refusal = namespace.kubectl(&["scale", "portforward/db", "--replicas=2"]).refused();
    assert!(refusal.contains("not found"), "{refusal}");
    let replicas = || namespace.kubectl(&["get", "fgw", "edge", "--output=jsonpath={.spec.replicas}"]).ok();
    assert_eq!(replicas(), "2", "the default, without which the scale subresource fails");
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=5"]).ok();
    assert_eq!(replicas(), "5");
}

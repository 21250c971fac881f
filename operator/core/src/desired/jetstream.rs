//! The parts of a gateway's pods for its NATS servers (`spec.jetStream`).

use crds::{ForwardGateway, GatewayJetStream};
use serde_json::{Value, json};

/// Name of the volume.
const VOLUME: &str = "jetstream";
/// Mount path of the volume in the container.
const FOLDER: &str = "/var/run/secrets/portlane-jetstream";
/// The credentials: a key of the Secret, and a file.
const CREDENTIALS: &str = "creds";
/// The CA certificates: a key of the `ConfigMap`, and a file.
const CA: &str = "ca.crt";

fn server(gateway: &ForwardGateway) -> Option<&GatewayJetStream> {
    gateway.spec.jet_stream.as_ref()
}

/// The objects in the volume, each with its kind, name and key.
fn objects(gateway: &ForwardGateway) -> Vec<(&'static str, &str, &'static str)> {
    let Some(server) = server(gateway) else { return Vec::new() };
    let secret = server.credentials_ref.as_ref().map(|secret| ("Secret", secret.name.as_str(), CREDENTIALS));
    let config_map = server.ca_ref.as_ref().map(|config_map| ("ConfigMap", config_map.name.as_str(), CA));
    secret.into_iter().chain(config_map).collect()
}

/// The objects that a pod waits for before it starts, in words; `None` if there are none.
pub(crate) fn waits_for(gateway: &ForwardGateway) -> Option<String> {
    let objects = objects(gateway);
    let words: Vec<String> =
        objects.iter().map(|(kind, name, key)| format!("{kind} {name} with the key {key}")).collect();
    (!words.is_empty()).then(|| words.join(" and "))
}

/// Variables of the proxy.
pub(super) fn variables(gateway: &ForwardGateway) -> Vec<Value> {
    let variable = |key: &str| {
        let name = if key == CA { "PORTLANE_JETSTREAM_CA" } else { "PORTLANE_JETSTREAM_CREDENTIALS" };
        json!({"name": name, "value": format!("{FOLDER}/{key}")})
    };
    objects(gateway).iter().map(|(_, _, key)| variable(key)).collect()
}

/// Mounts the volume in the container of a pod. A pod without its objects could not store the messages that it takes:
/// it does not start, and a rollout leaves running pods alone.
pub(super) fn mount(pod: &mut Value, gateway: &ForwardGateway) {
    let source = |(kind, name, key): &(&str, &str, &str)| {
        let items = json!([{"key": key, "path": key}]);
        let source = json!({"name": name, "items": items, "optional": false});
        if *kind == "Secret" { json!({"secret": source}) } else { json!({"configMap": source}) }
    };
    let sources: Vec<Value> = objects(gateway).iter().map(source).collect();
    if sources.is_empty() {
        return;
    }
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.push(json!({"name": VOLUME, "projected": {"sources": sources}}));
    }
    if let Some(mounts) = pod.pointer_mut("/containers/0/volumeMounts").and_then(Value::as_array_mut) {
        mounts.push(json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": true}));
    }
}

/// Removes the volume from a pod that serves no stream.
pub(super) fn unmount(pod: &mut Value) {
    for list in ["/volumes", "/containers/0/volumeMounts"] {
        if let Some(items) = pod.pointer_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| item["name"] != VOLUME);
        }
    }
    if let Some(env) = pod.pointer_mut("/containers/0/env").and_then(Value::as_array_mut) {
        env.retain(|variable| !variable["name"].as_str().is_some_and(|name| name.starts_with("PORTLANE_JETSTREAM_")));
    }
}

/// The part that determines the pods: a change rolls out the fleet. Proxies receive the server itself with their
/// listeners.
pub(super) fn of_pods(gateway: &ForwardGateway) -> Option<Value> {
    let objects = objects(gateway);
    (!objects.is_empty()).then(|| json!([VOLUME, objects]))
}

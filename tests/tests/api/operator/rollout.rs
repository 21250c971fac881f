//! Fleets take on another image of the proxy one after the other. The test plays the controller of Deployments.

use crds::ForwardGateway;
use harness::{Namespace, Operator, block_on, programs::KubernetesVersion, until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const OLD: &str = "example.com/proxy:1";
const NEW: &str = "example.com/proxy:2";

fn gateway(name: &str, spec: &str) -> String {
    format!("{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: {name}}}, spec: {spec}}}")
}

fn image(deployment: &Deployment) -> Option<&str> {
    let spec = deployment.spec.as_ref()?.template.spec.as_ref()?;
    spec.containers.first()?.image.as_deref()
}

#[track_caller]
fn has(namespace: &Namespace<'_>, name: &str, wanted: &str) -> Deployment {
    namespace.until::<Deployment>(name, &format!("has the image {wanted}"), |it| image(it) == Some(wanted))
}

/// Writes the status of a Deployment of two replicas for its newest generation.
#[track_caller]
fn report(namespace: &Namespace<'_>, name: &str, updated: i32, progressing: &str) {
    let generation = namespace.get::<Deployment>(name).expect("a Deployment").metadata.generation;
    let condition = json!({"type": "Progressing", "status": progressing, "reason": "Test"});
    let status = json!({
        "observedGeneration": generation, "replicas": 2, "updatedReplicas": updated, "readyReplicas": 2,
        "availableReplicas": 2, "conditions": [condition],
    });
    write(namespace, name, &json!({"status": status}));
}

#[track_caller]
fn write(namespace: &Namespace<'_>, name: &str, patch: &Value) {
    let api = namespace.api::<Deployment>();
    let written = block_on(async { api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await });
    written.unwrap_or_else(|error| panic!("cannot write the status of {name}: {error}"));
}

/// The new pods of a fleet are ready.
#[track_caller]
fn ready(namespace: &Namespace<'_>, name: &str) {
    report(namespace, name, 2, "True");
}

/// Waits until a gateway is outdated for this reason, and has this image.
#[track_caller]
fn is_outdated(namespace: &Namespace<'_>, name: &str, reason: &str, image: &str) -> String {
    let found = |gateway: &ForwardGateway| {
        let status = gateway.status.as_ref().filter(|status| status.proxy_image.as_deref() == Some(image))?;
        let mut conditions = status.conditions.iter();
        let outdated = conditions.find(|condition| condition.type_ == "Outdated" && condition.reason == reason)?;
        Some(outdated.message.clone())
    };
    let gateway = namespace
        .until::<ForwardGateway>(name, &format!("is outdated ({reason}) and has {image}"), |it| found(it).is_some());
    found(&gateway).unwrap_or_default()
}

#[test]
fn fleets_take_on_another_image_one_after_the_other_through_restarts_of_the_operator() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Oldest) else { return };
    let namespace = &server.namespace("rollout");
    let first = Operator::with(namespace, &["--proxy-image", OLD]);
    let names = ["a", "b", "c"];
    namespace.apply(&names.map(|name| gateway(name, "{replicas: 2}")).join("\n---\n"));
    for name in names {
        has(namespace, name, OLD);
        ready(namespace, name);
    }
    let generation = |name: &str| namespace.get::<Deployment>(name).and_then(|it| it.metadata.generation);
    let (untouched, stream) = (generation("c"), first.killed(namespace));

    let second = Operator::named_with(namespace, "second", stream, &["--proxy-image", NEW]);
    has(namespace, "a", NEW);
    let message = is_outdated(namespace, "c", "Queued", OLD);
    assert!(message.contains(&format!("after the fleet of {}/a", namespace.name())), "{message}");
    namespace.kubectl(&["scale", "forwardgateway/b", "--replicas=3"]).ok();
    let scaled = namespace.until::<Deployment>("b", "is scaled while it waits", |it| {
        it.spec.as_ref().and_then(|spec| spec.replicas) == Some(3)
    });
    assert_eq!(image(&scaled), Some(OLD), "a is not ready");
    namespace.kubectl(&["scale", "forwardgateway/b", "--replicas=2"]).ok();
    namespace
        .until::<Deployment>("b", "is scaled back", |it| it.spec.as_ref().and_then(|spec| spec.replicas) == Some(2));
    ready(namespace, "b");
    ready(namespace, "a");
    has(namespace, "b", NEW);

    // The new pods of b do not become ready, and the operator restarts.
    report(namespace, "b", 1, "False");
    let stream = second.killed(namespace);
    let third = Operator::named_with(namespace, "third", stream, &["--proxy-image", NEW]);
    is_outdated(namespace, "b", "ProgressDeadlineExceeded", NEW);
    until("the metric says so", || third.metric("portlane_operator_fleets{state=\"stopped\"}") > 0.5);
    is_outdated(namespace, "c", "Queued", OLD);
    assert_eq!(generation("c"), untouched, "a fleet that waits is applied as it is");

    // Pinned to the image before, b holds up no other.
    namespace.apply(&gateway("b", "{replicas: 2, proxyImage: {tag: '1'}}"));
    has(namespace, "b", OLD);
    ready(namespace, "b");
    has(namespace, "c", NEW);
    ready(namespace, "c");
    is_outdated(namespace, "b", "Pinned", OLD);
    until("two fleets are current", || third.metric("portlane_operator_fleets{state=\"current\"}") > 1.5);
}

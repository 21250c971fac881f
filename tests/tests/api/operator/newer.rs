//! An operator that reads objects of a newer release: their listeners stay, and their status says that they cannot be
//! read. One record names the fields that the operator ignores.

use crds::PortForward;
use harness::{ControlPlane, Operator, Scene, block_on, echoes, free_port, programs::KubernetesVersion, until};
use kube::{
    Api,
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;

use super::{condition, forward, until_ready};

/// The API server is this test's own, because the CRD is changed.
#[test]
fn an_object_of_a_newer_crd_keeps_its_listeners_and_reports_that_it_cannot_be_read() {
    let server = ControlPlane::start(KubernetesVersion::Newest);
    if server.is_existing() {
        return;
    }
    server.install_crds();
    let policies = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/listeners/items/properties/loadBalancing/\
                    properties/policy/enum/-";
    let patch = format!("[{{\"op\": \"add\", \"path\": \"{policies}\", \"value\": \"Nearest\"}}]");
    server.kubectl(&["patch", "crd", "portforwards.portlane.dev", "--type=json", "--patch", &patch]).ok();
    gateways_get_a_field(&server);
    let Scene { namespace, operator, backend: _backend, proxy, port, .. } =
        Scene::ready_gateway(server.namespace("newer"));
    namespace.apply(&forward("other", free_port(), "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "other", "True", "Ready");

    let newer = || {
        let listener =
            "{\"op\": \"add\", \"path\": \"/spec/listeners/0/loadBalancing\", \"value\": {\"policy\": \"Nearest\"}}";
        namespace.kubectl(&["patch", "portforward", "web", "--type=json", "--patch", &format!("[{listener}]")]).success
    };
    until("the API server knows the new value", newer);
    // The types of this build cannot read the new value.
    let kind = ApiResource::erase::<PortForward>(&());
    let untyped: Api<DynamicObject> = Api::namespaced_with(server.client(), namespace.name(), &kind);
    let is_reported = || {
        let raw = block_on(async { untyped.get("web").await }).expect("web exists");
        let conditions = raw.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
        accepted.is_some_and(|it| {
            it["reason"] == "Unsupported" && it["observedGeneration"].as_i64() == raw.metadata.generation
        }) && raw.data["status"]["listeners"][0]["port"] == port
    };
    until("status says that the object cannot be read", is_reported);
    assert!(echoes(port), "the listener of an unreadable object stays");

    // An operator that has never read the older object says the same, and removes nothing.
    let stream = operator.killed(&namespace);
    let next = Operator::named(&namespace, "next", stream);
    until("the proxy follows the next operator", || proxy.metric("portlane_operator_connected") > 0.0);
    namespace.apply(&forward("other", free_port(), "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "other", "True", "Ready");
    assert!(echoes(port) && is_reported(), "the listener still stays");
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let read_again = namespace.until::<PortForward>("web", "can be read again", |web| {
        condition(web, "Accepted") == ("True".to_owned(), "Accepted".to_owned())
    });
    assert_eq!(read_again.spec.listeners[0].port, Some(port));
    // A difference counts once a second comparison, half a minute later, agrees with the first one.
    let names = |record: &&Value| {
        let text = record.to_string();
        text.contains("newer than the operator") && text.contains("spec.novelty")
    };
    until("one record names the ignored field", || next.program.events().iter().filter(names).count() == 1);
    assert!(next.metric("portlane_operator_crd_fields_ignored{kind=\"ForwardGateway\"}") > 0.5);
}

/// Adds a field to the CRD of gateways that this build does not know.
fn gateways_get_a_field(server: &ControlPlane) {
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/novelty";
    let patch = format!("[{{\"op\": \"add\", \"path\": \"{field}\", \"value\": {{\"type\": \"string\"}}}}]");
    server.kubectl(&["patch", "crd", "forwardgateways.portlane.dev", "--type=json", "--patch", &patch]).ok();
    let published = ["get", "--raw", "/openapi/v3/apis/portlane.dev/v1alpha1"];
    until("the API server publishes the field", || server.kubectl(&published).stdout.contains("\"novelty\""));
}

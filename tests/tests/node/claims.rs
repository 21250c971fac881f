//! A gateway whose claims cannot be mounted says so, and what it says to do helps.

use harness::until;

use crate::{
    durable::{restricted, volumes},
    fleet::wait_for,
    shared,
};

#[test]
fn a_gateway_whose_storage_class_is_missing_names_it_and_is_ready_once_the_class_is_there() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = restricted("unclassed");
    let class = namespace.name();
    namespace.apply(&format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: edge}}, spec: {{replicas: 1, \
         drainSeconds: 1, durability: {{volumeClaim: {{size: 1Gi, storageClassName: {class}}}}}}}}}"
    ));
    let condition = |type_: &str| {
        let found = format!(".status.conditions[?(@.type==\"{type_}\")]");
        let output = format!("--output=jsonpath={{{found}.reason}} {{{found}.message}}");
        namespace.kubectl(&["get", "forwardgateway/edge", &output]).stdout
    };
    let remedy = format!("if StorageClass {class} is missing, create it");
    until("status says which claim has no volume", || {
        let told = condition("ClaimsMounted");
        told.starts_with("PodUnschedulable messages-edge-0: no node can run pod edge-0 (")
            && told.contains("unbound immediate PersistentVolumeClaims")
            && told.contains(&remedy)
    });
    let ready = condition("Ready");
    assert!(ready.starts_with("NoProxies ") && ready.contains(&remedy), "{ready}");

    volumes(node, &namespace, "WaitForFirstConsumer");
    wait_for(&namespace, "forwardgateway/edge");
    until("no claim is missing", || condition("ClaimsMounted").trim().is_empty());
}

//! The image of the agent, by the Deployment of docs/agent.md: a gateway reaches a Service through it.

use harness::until;
use images::{Image, Platform, Profile};
use k8s_openapi::api::core::v1::Secret;

use crate::{
    fleet::{call, operated, shop, wait_for},
    shared,
};

const PAGE: &str = include_str!("../../../docs/agent.md");
/// The target of the page.
const TARGET: &str = "pg.shop.svc.cluster.local:5432";
/// The volume of the page. The node has no storage that outlives a pod.
const CLAIM: &str = "persistentVolumeClaim: {claimName: portlane-agent}";

/// The gateway, the agent, and a forward to a Service beside the agent.
fn tunnel(host: &str) -> String {
    format!(
        "apiVersion: portlane.dev/v1alpha1
kind: ForwardGateway
metadata: {{name: edge}}
spec: {{replicas: 1, drainSeconds: 5, tunnels: {{}}}}
---
apiVersion: portlane.dev/v1alpha1
kind: ForwardAgent
metadata: {{name: east}}
spec: {{gateway: {{name: edge}}, targets: [{{host: {host}, port: 80}}]}}
---
apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {{name: web}}
spec:
  placement: {{gateway: {{name: edge}}}}
  listeners:
  - {{name: tcp, protocol: TCP, port: 80, backends: [{{tunnel: {{agent: east, host: {host}, port: 80}}}}]}}
"
    )
}

/// The Deployment of the page with another target.
fn deployment(target: &str) -> String {
    let (_, below) = PAGE.split_once("\n# agent-deployment.yaml\n").expect("the block");
    let (manifests, _) = below.split_once("\n```").expect("its end");
    let (_, deployment) = manifests.split_once("\n---\n").expect("a Deployment after its volume");
    assert!(deployment.contains(TARGET) && deployment.contains(CLAIM), "{deployment}");
    deployment.replace(TARGET, target).replace(CLAIM, "emptyDir: {}")
}

#[test]
fn the_deployment_of_the_page_enrols_and_leads_to_a_service_of_its_cluster() {
    let Some(node) = shared::node_with_a_host() else { return };
    let image = images::build(Image::Agent, Platform::here(), Profile::Test).unwrap_or_else(|error| panic!("{error}"));
    node.load(&image.path);
    let namespace = shop(operated(), "agent-image");
    let host = format!("web.{}.svc.cluster.local", namespace.name());
    namespace.apply(&tunnel(&host));
    let has_join = |it: &Secret| it.data.as_ref().is_some_and(|data| data.contains_key("join"));
    namespace.until::<Secret>("east-enrolment", "has a join string", has_join);
    let join = ["get", "secret", "east-enrolment", "--output=go-template={{.data.join | base64decode}}"];
    let join = format!("--from-literal=join={}", namespace.kubectl(&join).ok());
    namespace.kubectl(&["create", "secret", "generic", "portlane-agent", &join]).ok();
    namespace.apply(&deployment(&format!("{host}:80")));
    wait_for(&namespace, "forwardagent/east");
    namespace.kubectl(&["rollout", "status", "deployment/portlane-agent", "--timeout=180s"]).ok();
    until("the Service behind the agent answers", || call(&namespace, "tcp") == "web: hello");
}

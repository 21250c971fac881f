//! docs/agent.md: API servers take its Deployment.

use harness::ControlPlane;

on_both!(the_deployment_of_an_agent_is_valid_and_restricted);

const PAGE: &str = include_str!("../../../docs/agent.md");

/// The namespace warns of pods beyond the most restricted profile of Pod Security.
fn the_deployment_of_an_agent_is_valid_and_restricted(server: &ControlPlane) {
    let namespace = server.namespace("agent-page");
    server.kubectl(&["label", "namespace", namespace.name(), "pod-security.kubernetes.io/warn=restricted"]).ok();
    let (_, below) = PAGE.split_once("\n# agent-deployment.yaml\n").expect("the block");
    let (manifests, _) = below.split_once("\n```").expect("its end");
    let dry_run = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let applied = namespace.kubectl_with(&dry_run, manifests);
    assert!(applied.success && applied.stderr.is_empty(), "{}{}", applied.stdout, applied.stderr);
    assert_eq!(applied.stdout.matches("created (server dry run)").count(), 2, "{}", applied.stdout);
}

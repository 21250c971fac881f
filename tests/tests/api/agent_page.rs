//! API servers take the Deployment of docs/agent.md, and objects of Kubernetes on other pages.

use harness::ControlPlane;

on_both!(the_deployment_of_an_agent_is_valid_and_restricted, the_policy_and_the_role_of_the_pages_are_valid);

const PAGE: &str = include_str!("../../../docs/agent.md");
/// Further pages, and how their block begins.
const OTHERS: [(&str, &str); 2] = [
    (include_str!("../../../docs/tunnels.md"), "apiVersion: networking.k8s.io/v1\n"),
    (include_str!("../../../docs/kubectl.md"), "apiVersion: rbac.authorization.k8s.io/v1\n"),
];

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

fn the_policy_and_the_role_of_the_pages_are_valid(server: &ControlPlane) {
    let namespace = server.namespace("pages");
    for (page, first) in OTHERS {
        let (_, below) = page.split_once(&format!("\n```yaml\n{first}")).expect("the block");
        let (rest, _) = below.split_once("\n```").expect("its end");
        let dry_run = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        let applied = namespace.kubectl_with(&dry_run, &format!("{first}{rest}\n"));
        assert!(applied.success && applied.stderr.is_empty(), "{}{}", applied.stdout, applied.stderr);
        assert!(applied.stdout.ends_with("created (server dry run)\n"), "{}", applied.stdout);
    }
}

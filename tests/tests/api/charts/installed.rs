//! Real helm and a real API server: charts that are installed twice, without CRDs, or with the CRDs of another release, and
//! a helm that is killed. helm refuses with one message before it creates anything, and the remedy that
//! docs/troubleshooting.md names works.

use std::process::Stdio;

use harness::{CHARTS, CommandOutput, ControlPlane, Operator, helm_command, programs::KubernetesVersion, until};

/// Namespace of the first installation.
const FIRST: &str = "first";
/// Namespace of the second one.
const SECOND: &str = "second";

/// The API server is this test's own, because the objects of an installation belong to the cluster.
#[test]
fn an_installation_that_collides_with_another_one_is_refused_whole_and_its_remedy_works() {
    if !crate::server::ours(&[]) {
        return;
    }
    let server = ControlPlane::start(KubernetesVersion::Newest);
    wrong_values_install_nothing(&server);
    an_installation_that_did_not_end_blocks_no_other(&server);
    let notes = install(&server, "portlane", FIRST, &[]).ok();
    assert!(notes.contains("THE CRDS ARE MISSING") && notes.contains("helm install portlane-crds"), "{notes}");
    let early = server.namespace("early");
    let operator = Operator::unready(&early);
    until("an operator without CRDs logs what to install", || advice(&operator) == 2);
    crds_that_kubectl_has_applied(&server);
    operator.until_ready();
    assert_eq!(advice(&operator), 2, "one record for each kind");

    // Another release in the same namespace: the names of the operator's objects are taken.
    let refused = install(&server, "another", FIRST, &[]).refused();
    assert!(refused.contains("portlane-operator") && refused.contains("cannot be imported"), "{refused}");
    assert_eq!(releases(&server, FIRST), ["portlane", "portlane-crds"]);

    // The same release in another namespace would serve the same objects.
    let refused = install(&server, "portlane", SECOND, &[]).refused();
    let claim = "ClusterRole \"portlane.dev:serves-all-namespaces-without-controllerClass\"";
    assert!(refused.contains(claim) && refused.contains(&format!("current value is \"{FIRST}\"")), "{refused}");
    server.kubectl(&["get", "namespace", SECOND]).refused();
    install(&server, "portlane", SECOND, &["--set", "controllerClass=blue"]).ok();

    the_crds_of_another_release(&server);

    // The remaining installation has all that is its own.
    uninstall(&server, FIRST);
    let refused = install(&server, "portlane", FIRST, &["--set", "controllerClass=blue"]).refused();
    assert!(refused.contains("serves-all-namespaces-of-controllerClass-blue"), "{refused}");
    uninstall(&server, SECOND);
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingadmissionpolicies";
    let left = server.kubectl(&["get", kinds, "--output=name"]).ok();
    assert!(!left.contains("portlane"), "{left}");
}

/// A value of a wrong type, and values that contradict each other. The next installation begins from nothing.
fn wrong_values_install_nothing(server: &ControlPlane) {
    for (wrong, message) in [("replicas=two", "/replicas"), ("dnsPolicy=None", "dnsPolicy is None: set dnsConfig")] {
        let refused = install(server, "portlane", FIRST, &["--set", wrong]).refused();
        assert!(refused.contains(message), "{refused}");
        assert!(releases(server, FIRST).is_empty(), "{wrong}");
        server.kubectl(&["get", "namespace", FIRST]).refused();
    }
}

/// helm was killed, and helm waited in vain for pods, which nothing here starts. Then a name is used twice.
fn an_installation_that_did_not_end_blocks_no_other(server: &ControlPlane) {
    let mut killed = helm_command();
    killed.env("KUBECONFIG", server.kubeconfig()).stdout(Stdio::null()).stderr(Stdio::null());
    killed.args(["install", "portlane", CHARTS[1], "--namespace", FIRST, "--create-namespace", "--wait"]);
    let mut killed = killed.args(["--timeout", "60s"]).spawn().expect("helm runs");
    let created = ["get", "deployment/portlane-operator", "--namespace", FIRST];
    until("helm waits for the pods", || server.kubectl(&created).success);
    killed.kill().expect("helm runs until then");
    killed.wait().expect("helm ends");

    let again = ["upgrade", "--install", "portlane", CHARTS[1], "--namespace", FIRST];
    let refused = server.helm(&again).refused();
    assert!(refused.contains("another operation (install/upgrade/rollback) is in progress"), "{refused}");
    uninstall(server, FIRST);
    let late = server.helm(&[&again[..], &["--wait", "--timeout", "1s"]].concat()).refused();
    assert!(late.contains("context deadline exceeded"), "{late}");
    server.helm(&again).ok();
    let refused = install(server, "portlane", FIRST, &[]).refused();
    assert!(refused.contains("cannot re-use a name that is still in use"), "{refused}");
    uninstall(server, FIRST);
}

/// The CRDs of `kubectl apply`, which belong to no release.
fn crds_that_kubectl_has_applied(server: &ControlPlane) {
    server.install_crds();
    let take = ["install", "portlane-crds", CHARTS[0], "--namespace", FIRST];
    let refused = server.helm(&take).refused();
    assert!(refused.contains("CustomResourceDefinition") && refused.contains("cannot be imported"), "{refused}");
    server.helm(&[&take[..], &["--take-ownership"]].concat()).ok();
}

/// Records that name the missing CRDs and the remedy.
fn advice(operator: &Operator) -> usize {
    let names = |text: &str| text.contains("does not serve this kind: install the CRDs of the operator's release");
    operator.program.events().iter().filter(|record| record["message"].as_str().is_some_and(names)).count()
}

/// `crds.enabled` after the chart of the CRDs.
fn the_crds_of_another_release(server: &ControlPlane) {
    let upgrade = ["upgrade", "portlane", CHARTS[1], "--namespace", FIRST, "--set", "crds.enabled=true"];
    let refused = server.helm(&upgrade).refused();
    assert!(refused.contains("CustomResourceDefinition") && refused.contains("cannot be imported"), "{refused}");
    let history = server.helm(&["history", "portlane", "--namespace", FIRST, "--output=json"]).ok();
    assert_eq!(history.matches("\"revision\"").count(), 1, "nothing to roll back: {history}");
    server.helm(&[&upgrade[..], &["--take-ownership"]].concat()).ok();
    // And the other way round: they belong to the release of the operator now.
    let back = ["install", "portlane-crds", CHARTS[0], "--namespace", SECOND];
    let refused = server.helm(&back).refused();
    assert!(refused.contains("CustomResourceDefinition") && refused.contains("cannot be imported"), "{refused}");
    assert_eq!(releases(server, SECOND), ["portlane"]);
}

fn install(server: &ControlPlane, release: &str, namespace: &str, options: &[&str]) -> CommandOutput {
    let install = ["install", release, CHARTS[1], "--namespace", namespace, "--create-namespace"];
    server.helm(&[&install[..], options].concat())
}

#[track_caller]
fn uninstall(server: &ControlPlane, namespace: &str) {
    server.helm(&["uninstall", "portlane", "--namespace", namespace]).ok();
}

/// Names of all releases of a namespace, whatever their state.
fn releases(server: &ControlPlane, namespace: &str) -> Vec<String> {
    let list = server.helm(&["list", "--all", "--short", "--namespace", namespace]).ok();
    list.lines().map(str::to_owned).collect()
}

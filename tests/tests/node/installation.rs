//! The life of an installation: docs/install.md word for word, an upgrade to another release and its rollback, a drain of
//! the node, an uninstallation that the next installation undoes, and the removal.

use std::{fs, thread};

use harness::{Namespace, Node, until};

use crate::{
    broken::names,
    fleet::{Load, OPERATOR, client, proxies, until_it_drains},
    followed::Followed,
    releases::{
        NextRelease, a_rollback_leaves_the_field, an_installation_adopts_what_the_one_before_left,
        an_upgrade_brings_a_field_and_other_images, no_operator_is_left,
    },
    shared,
    tasks::{
        do_as_written,
        page::{Step, all_commands, steps},
        shell::Shell,
    },
};

/// The page, which its reader follows in a checkout.
const PAGE: &str = include_str!("../../../docs/install.md");
/// Folders of the checkout that the page names.
const FOLDERS: [&str; 3] = ["charts", "deploy", "examples"];
/// The page before its first heading: from nothing to the first byte, by helm.
const HELM: &str = "";
/// Other headings of the page with commands.
const KUSTOMIZE: &str = "\n## Plain manifests\n";
const SECOND: &str = "\n## Two installations in one cluster\n";
/// The page promises fewer commands than this to the first byte.
const COMMANDS: usize = 10;
/// Starts of the commands that no test runs as they are written, and why. `peers::registry` pushes the charts to a
/// registry of its own, and `charts::mirror` renders what the last command installs.
const NOT_RUN: [(&str, &str); 12] = [
    ("helm package ", "needs a registry"),
    ("helm push ", "needs a registry"),
    ("helm push ", "needs a registry"),
    ("helm install ", "needs a registry"),
    ("skopeo copy ", "needs a registry"),
    ("skopeo copy ", "needs a registry"),
    ("helm push ", "needs a registry"),
    ("helm push ", "needs a registry"),
    ("kubectl create ", "needs a registry"),
    ("kubectl create ", "needs a registry"),
    ("helm install ", "needs a registry"),
    ("helm install ", "needs a registry"),
];

/// The text of the page below a heading, up to the next one of the same level.
fn section(heading: &str) -> &'static str {
    let (_, below) = PAGE.split_once(heading).unwrap_or_else(|| panic!("the page has no heading {heading}"));
    below.split_once("\n## ").map_or(below, |(section, _)| section)
}

/// A gateway whose fleet stays at its image.
const PINNED: &str = concat!(
    "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: pinned}, spec: {replicas: 1, proxyImage: \
     {tag: '",
    env!("CARGO_PKG_VERSION"),
    "'}}}"
);

#[test]
fn every_command_of_the_page_is_followed_or_marked() {
    let of = |text: &'static str| all_commands(text).into_iter().filter(|(_, not_run)| not_run.is_none());
    let followed: Vec<_> = [HELM, KUSTOMIZE, SECOND].into_iter().flat_map(|heading| of(section(heading))).collect();
    let on_page: Vec<_> = of(PAGE).collect();
    assert_eq!(on_page, followed, "each section with commands is followed by a test");
    let marked: Vec<_> =
        all_commands(PAGE).into_iter().filter_map(|(line, not_run)| not_run.map(|why| (line, why))).collect();
    assert_eq!(marked.len(), NOT_RUN.len(), "{marked:?}");
    for ((line, why), (start, reason)) in marked.into_iter().zip(NOT_RUN) {
        assert!(line.starts_with(start) && why == reason, "{line}: {why}");
    }
    let to_the_first_byte = all_commands(section(HELM));
    assert!(to_the_first_byte.len() < COMMANDS, "{to_the_first_byte:?}");
    assert!(to_the_first_byte.last().is_some_and(|(line, _)| line.contains(" call tcp edge:80 ")));
}

/// The node is this test's own: the operator is installed, upgraded and removed.
#[test]
fn the_page_installs_upgrade_rollback_and_drain_break_no_session_and_a_removal_leaves_nothing() {
    if shared::node_with_a_host().is_none() {
        return;
    }
    let node = Node::start();
    let namespace = node.namespace("installation").for_pods();
    let mut shell = Shell::start(&node, &namespace);
    shell.check_out(&FOLDERS);
    follow(&mut shell, HELM);
    follow(&mut shell, SECOND);
    node.helm(&["uninstall", "portlane", "--namespace", "portlane-blue"]).ok();
    client(&namespace);
    namespace.apply(PINNED);
    let next = NextRelease::make(&node);
    let log = Followed::start(&namespace, "web");
    let ended = an_upgrade_brings_a_field_and_other_images(&node, &namespace, &next);
    log.until_it_has_all(&node, &namespace, &ended);
    drop(log);
    a_rollback_leaves_the_field(&node, &namespace);
    a_node_is_drained(&node, &namespace);
    an_installation_adopts_what_the_one_before_left(&node, &namespace, &next);
    nothing_is_left(&namespace);
    let crds = ["portforwards.portlane.dev", "forwardgateways.portlane.dev", "forwardagents.portlane.dev"];
    node.kubectl(&[&["delete", "crd"], &crds[..]].concat()).ok();
    let missing = ["× CRDs", "the CRDs are missing", "helm upgrade --install portlane-crds", "× operator"];
    names(&namespace, &["status"], &missing);
    names(&namespace, &["describe", "web"], &["the CRDs are missing; install the chart portlane-crds"]);
    follow(&mut shell, KUSTOMIZE);
}

/// Types the commands of a section.
#[track_caller]
fn follow(shell: &mut Shell, heading: &str) {
    for step in steps(section(heading)) {
        match step {
            Step::File { name, content } => fs::write(shell.folder().join(name), content).expect("write"),
            Step::Command { line, output } => do_as_written("install.md", shell, &line, &output),
        }
    }
}

/// `kubectl drain` waits for the sessions of a proxy, as long as they end before the deadline, and breaks none.
fn a_node_is_drained(node: &Node, namespace: &Namespace<'_>) {
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    until("one proxy is left", || {
        let ready = ["get", "deploy", "edge", "--output=jsonpath={.status.replicas}/{.status.readyReplicas}"];
        namespace.kubectl(&ready).stdout == "1/1" && proxies(namespace).len() == 1
    });
    let address = proxies(namespace)[0].1;
    let load = Load::start(node, &[address], 20);
    let name = node.kubectl(&["get", "nodes", "--output=jsonpath={.items[0].metadata.name}"]).ok();
    thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let only = ["--pod-selector=portlane.dev/gateway=edge", "--delete-emptydir-data", "--timeout=180s"];
            node.kubectl(&[&["drain", name.as_str()], &only[..]].concat())
        });
        until("the proxy leaves", || {
            let leaving = "--output=jsonpath={.items[*].metadata.deletionTimestamp}";
            !namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", leaving]).ok().is_empty()
        });
        until_it_drains(node, address, &load);
        assert!(!drain.is_finished(), "kubectl drain must wait for the sessions");
        assert!(load.stop() > 100, "the load ran, and no session broke");
        drain.join().expect("no panic").ok();
    });
    node.kubectl(&["uncordon", &name]).ok();
}

/// Deleting the gateway deletes its children, and uninstalling the charts deletes all that they created.
fn nothing_is_left(namespace: &Namespace<'_>) {
    namespace.kubectl(&["delete", "portforward/web", "forwardgateway/edge"]).ok();
    let kinds = "deployments,services,serviceaccounts,poddisruptionbudgets,networkpolicies,pods";
    until("the fleet is gone", || {
        let left = namespace.kubectl(&["get", kinds, "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
        left.is_empty()
    });
    let cluster = namespace.cluster();
    cluster.helm(&["uninstall", "portlane", "--namespace", OPERATOR, "--wait"]).ok();
    no_operator_is_left(namespace);
    cluster.kubectl(&["delete", "namespace", OPERATOR, "--timeout=180s"]).ok();
}

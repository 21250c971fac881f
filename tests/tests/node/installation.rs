//! The life of an installation: docs/install.md word for word, an upgrade to another release and its rollback by
//! docs/upgrade.md, a drain of the node, an uninstallation that the next installation undoes, and the removal.

use std::{fs, thread};

use harness::{CHARTS, CommandOutput, Namespace, Node, helm_command, until};
use images::{Image, Platform, Profile};

use crate::{
    broken::names,
    fleet::{Load, OPERATOR, client, proxies, until_it_drains},
    followed::Followed,
    registry::Registry,
    releases::{
        NextRelease, a_rollback_leaves_the_field, an_installation_adopts_what_the_one_before_left,
        an_upgrade_brings_a_field_and_other_images, no_operator_is_left,
    },
    shared,
    tasks::{
        do_all,
        page::{self, all_commands},
        shell::Shell,
    },
    upgrade,
};

/// The page, which its reader follows in a checkout.
const PAGE: &str = include_str!("../../../docs/install.md");
/// Folders of the checkout that the page names.
const FOLDERS: [&str; 3] = ["charts", "deploy", "examples"];
/// The page before its first heading: from nothing to the first byte, by helm.
const HELM: &str = "";
/// Other headings of the page with commands.
const KUSTOMIZE: &str = "\n## Plain manifests\n";
const PUBLISHED: &str = "\n## A registry for the charts\n";
const AIR_GAPPED: &str = "\n## Air-gapped\n";
const SECOND: &str = "\n## Two installations in one cluster\n";
/// The page promises fewer commands than this to the first byte.
const COMMANDS: usize = 10;
/// Version of this release.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The text of the page below a heading.
fn section(heading: &str) -> &'static str {
    page::section(PAGE, heading)
}

/// A gateway whose fleet stays at its image.
const PINNED: &str = concat!(
    "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: pinned}, spec: {replicas: 1, proxyImage: \
     {tag: '",
    env!("CARGO_PKG_VERSION"),
    "'}}}"
);

#[test]
fn every_command_of_the_page_is_followed() {
    let headings = [HELM, KUSTOMIZE, PUBLISHED, AIR_GAPPED, SECOND];
    let followed: Vec<_> = headings.into_iter().flat_map(|heading| all_commands(section(heading))).collect();
    assert_eq!(all_commands(PAGE), followed, "each section with commands is followed by a test");
    let to_the_first_byte = all_commands(section(HELM));
    assert!(to_the_first_byte.len() < COMMANDS, "{to_the_first_byte:?}");
    assert!(to_the_first_byte.last().is_some_and(|line| line.contains(" call tcp edge:80 ")));
}

/// The node is this test's own: the operator is installed, upgraded and removed.
#[test]
fn the_page_installs_upgrade_rollback_and_drain_break_no_session_and_a_removal_leaves_nothing() {
    if !shared::are_nodes_ours() {
        return;
    }
    let node = Node::start();
    let namespace = node.namespace("installation").for_pods();
    let registry = Registry::beside(&node);
    let mut shell = Shell::start_inside(&node, &namespace);
    registry.introduce_to(&mut shell);
    shell.check_out(&FOLDERS);
    follow(&mut shell, HELM);
    follow(&mut shell, PUBLISHED);
    follow(&mut shell, SECOND);
    node.helm(&["uninstall", "portlane", "--namespace", "portlane-blue"]).ok();
    client(&namespace);
    namespace.apply(PINNED);
    let next = NextRelease::make(&node);
    let log = Followed::start(&namespace, "web");
    let ended = an_upgrade_brings_a_field_and_other_images(&mut shell, &node, &namespace, &next);
    log.until_it_has_all(&node, &namespace, &ended);
    drop(log);
    a_rollback_leaves_the_field(&mut shell, &node, &namespace);
    a_node_is_drained(&node, &namespace);
    an_installation_adopts_what_the_one_before_left(&node, &namespace, &next);
    nothing_is_left(&mut shell, &namespace);
    let missing = ["× CRDs", "the CRDs are missing", "helm upgrade --install portlane-crds", "× operator"];
    names(&namespace, &["status"], &missing);
    names(&namespace, &["describe", "web"], &["the CRDs are missing; install the chart portlane-crds"]);
    follow(&mut shell, KUSTOMIZE);
    delete_crds(&node);
    bring_a_release(&shell);
    follow(&mut shell, AIR_GAPPED);
    a_fleet_comes_from_the_registry(&node);
}

fn delete_crds(node: &Node) {
    let crds = ["portforwards.portlane.dev", "forwardgateways.portlane.dev", "forwardagents.portlane.dev"];
    node.kubectl(&[&["delete", "crd"], &crds[..]].concat()).ok();
}

/// Puts the images and the charts of this checkout into the folder `release` of the shell.
fn bring_a_release(shell: &Shell) {
    let release = shell.folder().join("release");
    fs::create_dir(&release).expect("folder");
    for image in [Image::Operator, Image::Proxy] {
        let archive = images::build(image, Platform::here(), Profile::Test).expect("an image");
        let name = format!("{}-{VERSION}.oci.tar", image.package());
        fs::copy(archive.path, release.join(name)).expect("copy");
    }
    let to = release.display().to_string();
    CommandOutput::of(helm_command().args(["package", "--destination", &to]).args(CHARTS), "").ok();
}

/// The node has neither image by the name of the registry, so kubelet pulls both with the secret of the page.
fn a_fleet_comes_from_the_registry(node: &Node) {
    let gateway = "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: mirrored}, spec: \
                   {replicas: 1}}";
    node.kubectl_with(&["apply", "--namespace", OPERATOR, "-f", "-"], gateway).ok();
    let ready = ["wait", "--for=condition=Ready", "forwardgateway/mirrored", "--timeout=180s"];
    node.kubectl(&[&ready[..], &["--namespace", OPERATOR]].concat()).ok();
    let images = ["get", "pods", "--namespace", OPERATOR, "--output=jsonpath={.items[*].spec.containers[*].image}"];
    let images = node.kubectl(&images).ok();
    let of_proxy = format!("registry.example.com/mirror/portlane/proxy:{VERSION}");
    assert!(images.split(' ').any(|image| image == of_proxy), "{images}");
    assert!(images.split(' ').all(|image| image.starts_with("registry.example.com/mirror/portlane/")), "{images}");
}

/// Types the commands of a section.
#[track_caller]
fn follow(shell: &mut Shell, heading: &str) {
    do_all("install.md", shell, section(heading));
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
fn nothing_is_left(shell: &mut Shell, namespace: &Namespace<'_>) {
    upgrade::follow(shell, upgrade::REMOVAL);
    let kinds = "deployments,services,serviceaccounts,poddisruptionbudgets,networkpolicies,pods";
    until("the fleet is gone", || {
        let left = namespace.kubectl(&["get", kinds, "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
        left.is_empty()
    });
    no_operator_is_left(namespace);
    upgrade::follow(shell, upgrade::REMOVAL_OF_CRDS);
    namespace.cluster().kubectl(&["delete", "namespace", OPERATOR, "--timeout=180s"]).ok();
}

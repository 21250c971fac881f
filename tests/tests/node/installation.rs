//! The life of an installation: docs/install.md word for word, an upgrade to another release of the proxy, a drain of
//! the node, and the removal.

use std::{fs, net::SocketAddr, thread, time::Duration};

use harness::{Namespace, Node, until, until_within};

use crate::{
    broken::names,
    fleet::{CHARTS, GATEWAY, Load, OPERATOR, call, client, proxies, until_it_drains, wait_for},
    followed::Followed,
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
/// registry of its own.
const NOT_RUN: [(&str, &str); 4] = [
    ("helm package ", "needs a registry"),
    ("helm push ", "needs a registry"),
    ("helm push ", "needs a registry"),
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
fn the_page_installs_an_upgrade_and_a_drain_break_no_session_and_a_removal_leaves_nothing() {
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
    let log = Followed::start(&namespace, "web");
    let ended = another_release_of_the_proxy(&node, &namespace);
    log.until_it_has_all(&node, &namespace, &ended);
    drop(log);
    a_node_is_drained(&node, &namespace);
    nothing_is_left(&namespace);
    node.kubectl(&["delete", "crd", "portforwards.portlane.dev", "forwardgateways.portlane.dev"]).ok();
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

/// An upgrade that brings another image of the proxy rolls the fleet over, and breaks no session. A pinned fleet
/// keeps its pod. Returns the clients of the sessions, which have ended.
fn another_release_of_the_proxy(node: &Node, namespace: &Namespace<'_>) -> Vec<SocketAddr> {
    let pods = |column: &str| {
        let columns = format!("--output=jsonpath={{range .items[*]}}{{{column}}}/{{.status.phase}} {{end}}");
        namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", &columns]).ok()
    };
    namespace.apply(&GATEWAY.replace("drainSeconds: 5", "drainSeconds: 60"));
    until_within(Duration::from_secs(90), "two proxies that drain for a minute run, and no other", || {
        let graces = pods(".spec.terminationGracePeriodSeconds");
        let graces: Vec<&str> = graces.split_whitespace().collect();
        graces.len() == 2 && graces.iter().all(|it| it.starts_with(['6', '7']) && it.ends_with("/Running"))
    });
    namespace.kubectl(&["rollout", "status", "deploy/edge", "--timeout=60s"]).ok();
    wait_for(namespace, "forwardgateway/edge");
    wait_for(namespace, "forwardgateway/pinned");
    let pinned = || namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=pinned", "-o", "name"]).ok();
    let kept = pinned();
    let addresses: Vec<SocketAddr> = proxies(namespace).into_iter().map(|(_, address)| address).collect();
    let load = Load::start(node, &addresses, 20);
    let clients = load.clients();
    let (old, new) = ("localhost/portlane/proxy:0.1.0", "localhost/portlane/proxy:next");
    let tagged = node.command("ctr").args(["--namespace", "k8s.io", "images", "tag", old, new]).status();
    assert!(tagged.expect("ctr runs").success());
    // The next step of a missing webhook is the upgrade that follows.
    let webhook = format!("portlane-operator.{OPERATOR}");
    namespace.cluster().kubectl(&["delete", "mutatingwebhookconfiguration", &webhook]).ok();
    let missing = ["× webhook", &webhook, "helm upgrade portlane charts/portlane"];
    names(namespace, &["status"], &missing);
    let upgrade = ["upgrade", "portlane", CHARTS[1], "--namespace", OPERATOR, "--reuse-values", "--set"];
    namespace
        .cluster()
        .helm(
            &[&upgrade[..], &["proxyImage.tag=next,customMetrics.enabled=true", "--wait", "--timeout", "100s"]]
                .concat(),
        )
        .ok();
    until_within(Duration::from_secs(90), "two proxies of the new image run beside the draining ones", || {
        pods(".spec.containers[0].image").matches("proxy:next/Running").count() == 2
    });
    wait_for(namespace, "portforward/web");
    for address in addresses {
        until_it_drains(node, address, &load);
    }
    assert!(load.stop() > 100, "the load ran, and no session broke");
    until_within(Duration::from_secs(60), "the old proxies are gone", || {
        !pods(".spec.containers[0].image").contains(concat!("proxy:", env!("CARGO_PKG_VERSION")))
    });
    until("bytes go through the Service", || call(namespace, "tcp") == "web: hello");
    let status = |name: &str, path: &str| {
        namespace.kubectl(&["get", "forwardgateway", name, &format!("--output=jsonpath={path}")]).ok()
    };
    assert_eq!(status("edge", "{.status.proxyImage}"), new);
    // The leader writes the CA bundle into the new configuration.
    names(namespace, &["status"], &["✓ webhook"]);
    let outdated = "{.status.proxyImage} {.status.conditions[?(@.type==\"Outdated\")].reason}";
    assert_eq!((status("pinned", outdated), pinned()), (format!("{old} Pinned"), kept));
    namespace.kubectl(&["delete", "forwardgateway/pinned"]).ok();
    clients
}

/// `kubectl drain` waits for the sessions of a proxy, as long as they end before the deadline, and breaks none.
fn a_node_is_drained(node: &Node, namespace: &Namespace<'_>) {
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    until_within(Duration::from_secs(60), "one proxy is left", || {
        let ready = ["get", "deploy", "edge", "--output=jsonpath={.status.replicas}/{.status.readyReplicas}"];
        namespace.kubectl(&ready).stdout == "1/1" && proxies(namespace).len() == 1
    });
    let address = proxies(namespace)[0].1;
    let load = Load::start(node, &[address], 20);
    let name = node.kubectl(&["get", "nodes", "--output=jsonpath={.items[0].metadata.name}"]).ok();
    thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let only = ["--pod-selector=portlane.dev/gateway=edge", "--delete-emptydir-data", "--timeout=60s"];
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
    until_within(Duration::from_secs(60), "the fleet is gone", || {
        let left = namespace.kubectl(&["get", kinds, "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
        left.is_empty()
    });
    let cluster = namespace.cluster();
    cluster.helm(&["uninstall", "portlane", "--namespace", OPERATOR, "--wait"]).ok();
    let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    let named = cluster.kubectl(&["get", kinds, "-o", "name"]).ok();
    assert!(!named.contains("portlane"), "{named}");
    until("the operator's pods are gone", || {
        cluster.kubectl(&["get", "pods", "-n", OPERATOR, "-o", "name"]).ok().is_empty()
    });
    // A registered API that does not answer would block the deletion of every namespace.
    let apis = cluster.kubectl(&["get", "apiservices", "-o", "name"]).ok();
    assert!(!apis.contains("custom.metrics.k8s.io") && !apis.contains("live.portlane.dev"), "{apis}");
    until("the endpoint of the aggregated APIs is gone", || {
        let slices = cluster.kubectl(&["get", "endpointslices", "-n", OPERATOR, "-o", "name"]).ok();
        !slices.contains("portlane-metrics")
    });
    cluster.kubectl(&["delete", "namespace", OPERATOR, "--timeout=60s"]).ok();
}

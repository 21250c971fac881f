//! Argo CD, a real one: `docs/gitops.md` word for word, what it syncs does not drift, and a mistake and its revert.

mod health;

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use harness::{Argo, Node, until, until_within};
use serde_json::Value;

use crate::{
    fleet::Load,
    shared,
    tasks::{
        do_as_written,
        page::{Step, all_commands, steps},
        shell::Shell,
    },
};

const PAGE: &str = include_str!("../../../docs/gitops.md");
/// The Applications of the page.
const APPLICATIONS: [&str; 3] = ["portlane-crds", "portlane", "shop"];
/// The file with the gateway and its forward in the repository.
const EDGE: &str = "deploy/argocd/forwards/edge.yaml";
/// Longest time from a revert in Git to the last proxy that runs the old listeners.
const REVERTED: Duration = Duration::from_secs(20);
/// The page promises fewer commands than this to the first byte.
const COMMANDS: usize = 10;
/// What the operator writes as, and its Deployment.
const OPERATOR: &str = "portlane-operator";
/// Comparisons of an hour: Argo CD makes one every 180 s by default.
const AN_HOUR: usize = 20;

#[test]
fn every_command_of_the_page_is_followed_and_bytes_flow_after_less_than_ten() {
    let (install, uninstall) = page();
    let followed: Vec<_> = [install, uninstall, kubectl()].into_iter().flat_map(all_commands).collect();
    assert_eq!(all_commands(PAGE), followed, "each section with commands is followed by a test");
    let (to_the_first_byte, _) = install.split_once("\n### ").expect("a section after the installation");
    let commands = all_commands(to_the_first_byte);
    assert!(commands.len() < COMMANDS, "{commands:?}");
    assert!(commands.last().is_some_and(|line| line.contains(" call tcp edge:80 ")), "{commands:?}");
}

/// The node is this test's own: Argo CD installs the operator.
#[test]
fn argo_cd_installs_by_the_page_follows_git_without_drift_and_leaves_nothing() {
    if !shared::are_nodes_ours() {
        return;
    }
    let node = Node::start();
    let argo = Argo::start(&node);
    let namespace = node.namespace("gitops").for_pods();
    let mut shell = Shell::start(&node, &namespace);
    argo.check_out(shell.folder());
    let (install, uninstall) = page();
    a_project_that_forbids_cluster_resources_names_the_kind_and_applies_nothing(&argo, &node);
    follow(&mut shell, install);
    let set = shell.folder().join("deploy/argocd/clusters.yaml").display().to_string();
    node.kubectl(&["apply", "--dry-run=server", "-f", &set]).ok();
    nothing_drifts(&argo, AN_HOUR);
    nothing_of_argo_cd_is_on_children(&node);
    git_and_the_operator_own_different_fields(&node);
    a_mistake_is_degraded_and_its_revert_prunes_it(&argo, &node);
    server_side_apply(&argo, &node);
    client_side_apply(&argo, &node);
    a_revert_reaches_every_proxy(&argo, &node);
    tracking_by_label(&argo, &node);
    nothing_drifts(&argo, 1);
    follow(&mut shell, kubectl());
    the_removal_drains(&mut shell, &node, uninstall);
    nothing_is_left(&node);
}

/// The commands of the page for Argo CD: those before the removal, and those of it.
fn page() -> (&'static str, &'static str) {
    let (_, below) = PAGE.split_once("\n## Argo CD\n").expect("a section for Argo CD");
    let (section, _) = below.split_once("\n## Flux\n").expect("a section for Flux");
    section.split_once("\n### Uninstall\n").expect("a section on the removal")
}

/// The section of the page on kubectl, the last one.
fn kubectl() -> &'static str {
    PAGE.split_once("\n## kubectl\n").expect("a section for kubectl").1
}

/// A project that permits no cluster resources, with the Applications of the CRDs and of the operator: each names a kind
/// and applies nothing. Once the project permits the kinds of the CRDs, their sync succeeds without a person.
fn a_project_that_forbids_cluster_resources_names_the_kind_and_applies_nothing(argo: &Argo<'_>, node: &Node) {
    let of_teams = |file: &str, name: &str| {
        let text = argo.read(&format!("deploy/argocd/applications/{file}.yaml"));
        let (own, ours) =
            (format!("  name: {name}\n  namespace: argocd"), format!("  name: {file}\n  namespace: argocd"));
        assert!(text.contains(&own), "{text}");
        // Nothing is to be deleted with these Applications.
        let finalizer = "  finalizers: [resources-finalizer.argocd.argoproj.io/foreground]\n";
        text.replace(&own, &ours).replace("project: portlane", "project: teams").replace(finalizer, "")
    };
    let project = "{apiVersion: argoproj.io/v1alpha1, kind: AppProject, metadata: {name: teams, namespace: argocd}, \
         spec: {sourceRepos: ['*'], destinations: [{server: '*', namespace: '*'}]}}";
    let applications = [of_teams("crds", "portlane-crds"), of_teams("operator", "portlane")].join("\n---\n");
    node.kubectl_with(&["apply", "-f", "-"], &format!("{project}\n---\n{applications}")).ok();
    for (name, kind) in [("crds", "CustomResourceDefinition"), ("operator", "ClusterRole")] {
        let refused = format!("{kind} is not permitted in project teams");
        argo.until(name, "is refused", |it| it["status"].to_string().contains(&refused));
    }
    node.kubectl(&["get", "crd", "portforwards.portlane.dev"]).refused();
    let kinds = "deployments,services,roles,rolebindings,poddisruptionbudgets";
    let applied = node.kubectl(&["get", kinds, "--namespace=portlane", "--output=name"]).ok();
    assert!(applied.is_empty(), "{applied}");
    node.kubectl(&["delete", "application/operator", "--namespace=argocd"]).ok();
    let permit = r#"{"spec": {"clusterResourceWhitelist": [{"group": "", "kind": "Namespace"},
        {"group": "apiextensions.k8s.io", "kind": "CustomResourceDefinition"}]}}"#;
    node.kubectl(&["patch", "appproject", "teams", "--namespace=argocd", "--type=merge", "--patch", permit]).ok();
    let is_done = |it: &Value| it["status"]["operationState"]["phase"] == "Succeeded" && sync(it) == "Synced";
    argo.until("crds", "is Synced after the project permits the kinds", is_done);
    node.kubectl(&["delete", "application/crds", "--namespace=argocd"]).ok();
    node.kubectl(&["delete", "appproject/teams", "--namespace=argocd"]).ok();
    // The page begins without CRDs.
    let crds = ["portforwards.portlane.dev", "forwardgateways.portlane.dev", "forwardagents.portlane.dev"];
    node.kubectl(&[&["delete", "crd"], &crds[..]].concat()).ok();
}

fn follow(shell: &mut Shell, text: &str) {
    for step in steps(text) {
        match step {
            Step::File { name, content } => fs::write(shell.folder().join(name), content).expect("write"),
            Step::Command { line, output } => do_as_written("gitops.md", shell, &line, &output),
        }
    }
}

fn sync(application: &Value) -> &str {
    application["status"]["sync"]["status"].as_str().unwrap_or_default()
}

fn health(application: &Value) -> &str {
    application["status"]["health"]["status"].as_str().unwrap_or_default()
}

fn is_well(application: &Value) -> bool {
    sync(application) == "Synced" && health(application) == "Healthy"
}

/// Whether the last sync has ended well at this revision, and all is well.
fn is_at(application: &Value, revision: &str) -> bool {
    let operation = &application["status"]["operationState"];
    let is_done = operation["phase"] == "Succeeded" && operation["syncResult"]["revision"] == revision;
    is_done && application["status"]["sync"]["revision"] == revision && is_well(application)
}

/// Argo CD compares so many times, and neither finds a difference nor syncs. The first time it renders the manifests
/// again too.
fn nothing_drifts(argo: &Argo<'_>, times: usize) {
    let syncs = |application: &Value| application["status"]["operationState"]["finishedAt"].clone();
    let are_synced = |applications: &[Value]| {
        for (name, application) in APPLICATIONS.iter().zip(applications) {
            assert_eq!(sync(application), "Synced", "{name}: {:#}", application["status"]["resources"]);
        }
    };
    let before = APPLICATIONS.map(|name| syncs(&argo.until(name, "is Synced and Healthy", is_well)));
    are_synced(&APPLICATIONS.map(|name| argo.refresh(name)));
    for _ in 1..times {
        are_synced(&argo.compare(APPLICATIONS));
    }
    let after = APPLICATIONS.map(|name| syncs(&argo.until(name, "is Synced and Healthy", is_well)));
    assert_eq!(before, after, "Argo CD has synced again");
}

/// What the operator creates for a gateway carries no label and no annotation by which Argo CD would take it for its own.
/// By its label, Argo CD tracks no object that has an owner.
fn nothing_of_argo_cd_is_on_children(node: &Node) {
    let kinds = "deployments,services,serviceaccounts,poddisruptionbudgets,pods";
    let children = list(node, &[kinds, "--selector=portlane.dev/gateway=edge"]);
    for kind in ["Deployment", "Service", "Pod"] {
        assert!(children.iter().any(|child| child["kind"] == kind), "no {kind}: {children:#?}");
    }
    for child in children {
        let metadata = &child["metadata"];
        assert!(!metadata.to_string().contains("argocd.argoproj.io"), "{metadata:#}");
        assert!(metadata["ownerReferences"].is_array(), "{metadata:#}");
    }
}

/// Objects in the namespace of the forwards.
#[track_caller]
fn list(node: &Node, what: &[&str]) -> Vec<Value> {
    let get = ["get", "--namespace=shop", "--output=json", "--show-managed-fields"];
    let list: Value = serde_json::from_str(&node.kubectl(&[&get[..], what].concat()).ok()).expect("JSON");
    list["items"].as_array().expect("items").clone()
}

/// The operator owns no field of a spec, and nobody else owns one of a status.
fn git_and_the_operator_own_different_fields(node: &Node) {
    let objects = list(node, &["portforwards,forwardgateways"]);
    assert_eq!(objects.len(), 3, "{objects:#?}");
    for object in objects {
        let entries = object["metadata"]["managedFields"].as_array().expect("managed fields");
        let owns = |is_operator: bool, field: &str| {
            entries.iter().any(|entry| {
                let manager = entry["manager"].as_str().unwrap_or_default();
                manager.starts_with(OPERATOR) == is_operator && !entry["fieldsV1"][field].is_null()
            })
        };
        assert!(owns(true, "f:status") && owns(false, "f:spec"), "{entries:#?}");
        assert!(!owns(true, "f:spec") && !owns(false, "f:status"), "{entries:#?}");
    }
}

/// A forward that Git adds and that gets no port: Degraded with the message of its condition, and gone with the commit.
fn a_mistake_is_degraded_and_its_revert_prunes_it(argo: &Argo<'_>, node: &Node) {
    let edge = argo.read(EDGE);
    let (_, forward) = edge.split_once("---\n").expect("a gateway and a forward");
    argo.write("deploy/argocd/forwards/late.yaml", &forward.replace("  name: shop\n", "  name: late\n"));
    argo.commit("a forward for a port that is taken");
    argo.refresh("shop");
    let application = argo.until("shop", "is Degraded", |it| health(it) == "Degraded" && sync(it) == "Synced");
    let resources = application["status"]["resources"].as_array().expect("resources");
    let late = resources.iter().find(|it| it["kind"] == "PortForward" && it["name"] == "late").expect("the forward");
    let message = late["health"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("PortConflict: ") && message.contains("shop"), "{late:#}");
    let revision = argo.revert();
    argo.refresh("shop");
    argo.until("shop", "is well without the forward", |it| is_at(it, &revision));
    node.kubectl(&["get", "portforward", "late", "--namespace=shop"]).refused();
}

/// From now on the forwards are applied on the server.
fn server_side_apply(argo: &Argo<'_>, node: &Node) {
    let options = r#"["CreateNamespace=true", "SkipDryRunOnMissingResource=true", "ServerSideApply=true"]"#;
    let patch = format!(r#"{{"spec": {{"syncPolicy": {{"syncOptions": {options}}}}}}}"#);
    node.kubectl(&["patch", "application", "shop", "--namespace=argocd", "--type=merge", "--patch", &patch]).ok();
    argo.refresh("shop");
    argo.until("shop", "is Synced and Healthy", is_well);
}

/// From now on the CRDs and the operator are applied on the client, which a sync does at once.
fn client_side_apply(argo: &Argo<'_>, node: &Node) {
    let options = r#""syncOptions": ["CreateNamespace=true"]"#;
    let patch = format!(
        r#"{{"spec": {{"syncPolicy": {{{options}}}}}, "operation": {{"initiatedBy": {{"username": "test"}}, "sync": {{{options}}}}}}}"#
    );
    for name in ["portlane-crds", "portlane"] {
        let before = argo.application(name)["status"]["operationState"]["finishedAt"].clone();
        node.kubectl(&["patch", "application", name, "--namespace=argocd", "--type=merge", "--patch", &patch]).ok();
        argo.until(name, "is applied on the client", |it| {
            let operation = &it["status"]["operationState"];
            operation["phase"] == "Succeeded" && operation["finishedAt"] != before && is_well(it)
        });
    }
    let deployment = format!("deployment/{OPERATOR}");
    for object in ["crd/portforwards.portlane.dev", deployment.as_str()] {
        let applied = r"--output=jsonpath={.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}";
        let applied = node.kubectl(&["get", object, "--namespace=portlane", applied]).ok();
        assert!(!applied.is_empty(), "{object} is not applied on the client");
    }
}

/// Git moves the listener to another port and back: every proxy runs the old one within seconds.
fn a_revert_reaches_every_proxy(argo: &Argo<'_>, node: &Node) {
    let edge = argo.read(EDGE);
    let moved = edge.replace("    port: 80\n", "    port: 81\n");
    assert_ne!(moved, edge, "the listener has port 80");
    argo.write(EDGE, &moved);
    argo.commit("another port");
    argo.refresh("shop");
    until("every proxy listens on the new port", || is_acked(node, "81/TCP"));
    argo.revert();
    let reverted = Instant::now();
    argo.refresh("shop");
    until_within(REVERTED, "every proxy listens on the old port", || is_acked(node, "80/TCP"));
    shared::print(&format!("every proxy runs the old listeners {:?} after the revert", reverted.elapsed()));
}

/// From now on Argo CD tracks objects by the label `app.kubernetes.io/instance`, as older installations do, except for CRDs,
/// which it never labels. Children have the name of their gateway in this label, and keep it.
fn tracking_by_label(argo: &Argo<'_>, node: &Node) {
    let method = r#"{"data": {"application.resourceTrackingMethod": "label"}}"#;
    node.kubectl(&["patch", "configmap", "argocd-cm", "--namespace=argocd", "--type=merge", "--patch", method]).ok();
    for name in APPLICATIONS {
        argo.refresh(name);
    }
    let label = r"--output=jsonpath={.metadata.labels.app\.kubernetes\.io/instance}";
    let tracked = |object: &str| node.kubectl(&["get", object, "--namespace=shop", label]).ok();
    for object in ["forwardgateway/edge", "portforward/shop", "deployment/shop"] {
        until(&format!("{object} has the label of its Application"), || tracked(object) == "shop");
    }
    for child in ["deployment/edge", "service/edge", "serviceaccount/edge"] {
        assert_eq!(tracked(child), "edge", "{child}");
    }
}

/// Whether both proxies of the gateway run the newest generation of the forward `shop`, with these ports.
fn is_acked(node: &Node, ports: &str) -> bool {
    let json = node.kubectl(&["get", "portforward", "shop", "--namespace=shop", "--output=json"]).ok();
    let forward: Value = serde_json::from_str(&json).expect("JSON");
    let status = &forward["status"];
    let is_newest = status["observedGeneration"] == forward["metadata"]["generation"];
    is_newest && status["ports"] == ports && status["dataPlane"]["summary"] == "2/2"
}

/// The removal of the page while sessions live: they continue in the proxies that leave, and none breaks.
fn the_removal_drains(shell: &mut Shell, node: &Node, uninstall: &str) {
    let proxies = || list(node, &["pods", "--selector=portlane.dev/gateway=edge"]);
    let address = |pod: &Value| SocketAddr::new(text(&pod["status"], "podIP").parse().expect("an address"), 80);
    let addresses: Vec<SocketAddr> = proxies().iter().map(address).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let load = Load::start(node, &addresses, 20);
    thread::scope(|scope| {
        let drained = scope.spawn(move || {
            until("the proxies leave", || proxies().iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string()));
            for address in addresses {
                until("the proxy accepts no new sessions", || node.connect(address).is_err());
            }
            let seen = load.round_trips();
            until("sessions continue while the proxies drain", || load.round_trips() > seen + 100);
            load.stop()
        });
        follow(shell, uninstall);
        assert!(drained.join().expect("no session breaks") > 100, "the load ran");
    });
}

fn nothing_is_left(node: &Node) {
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings";
    let named = node.kubectl(&["get", kinds, "--output=name"]).ok();
    assert!(!named.contains("portlane"), "{named}");
    for namespace in ["portlane", "shop"] {
        until(&format!("nothing is left in {namespace}"), || {
            node.kubectl(&["get", "all", "--namespace", namespace, "--output=name"]).ok().is_empty()
        });
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

//! The plain manifests of `deploy/`: what helm renders, for those who install with kubectl.
//! `UPDATE=1 cargo test -p portlane-tests --test api charts::` rewrites the generated files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use harness::{CHARTS, ControlPlane, OPERATOR, kustomize, programs::KubernetesVersion};
use serde_json::Value;

use super::{Document, LABELS_OF_HELM, REMEDY, case, checkout, committed, essences, render_case, render_in};

on_both!(the_api_server_accepts_manifests_and_charts);

/// Folders of `deploy` for `kubectl apply -k`, and the case of values that gives the same objects.
const KUSTOMIZATIONS: [(&str, Option<&str>); 3] = [
    ("deploy", None),
    ("deploy/overlays/high-availability", Some("high-availability")),
    ("deploy/overlays/single-namespace", Some("single-namespace")),
];
/// The overlay with generated roles.
const SINGLE_NAMESPACE: &str = "deploy/overlays/single-namespace";
/// Namespace that the overlay [`SINGLE_NAMESPACE`] is written for.
const WATCHED: &str = "shop";
/// Namespaces that the cases name: the operator's, the watched one, and one of fleets.
const NAMESPACES: [&str; 3] = [OPERATOR, WATCHED, "edge"];

#[test]
fn committed_manifests_are_what_helm_renders() {
    let defaults = Document::all(&render_case(None));
    let templates: BTreeSet<&str> = defaults.iter().map(|document| document.template.as_str()).collect();
    for template in templates {
        let of = defaults.iter().filter(|document| document.template == template);
        assert_committed(&checkout("deploy/base").join(template), &generated(template, of));
    }
    let watched = Document::all(&render_case(Some(&case("single-namespace"))));
    let elsewhere = |document: &&Document| {
        let namespace = &document.object["metadata"]["namespace"];
        document.template == "rbac.yaml" && (namespace == WATCHED || namespace == "default")
    };
    let roles = generated("rbac.yaml", watched.iter().filter(elsewhere));
    assert_committed(&checkout(SINGLE_NAMESPACE).join("roles.yaml"), &roles);
    let cluster_wide = format!("ClusterRole/{OPERATOR}:portlane-operator");
    let role = generated("rbac.yaml", watched.iter().filter(|document| document.key() == cluster_wide));
    assert_committed(&checkout(SINGLE_NAMESPACE).join("cluster-role.yaml"), &role);
}

/// Asserts that a committed file has this text, or writes it.
#[track_caller]
fn assert_committed(path: &Path, generated: &str) {
    assert!(committed(path, generated) == generated, "{} is out of date: {REMEDY}", path.display());
}

/// A file of the objects of a template, without helm's labels.
fn generated<'a>(template: &str, documents: impl Iterator<Item = &'a Document>) -> String {
    let is_of_helm = |line: &str| LABELS_OF_HELM.iter().any(|label| line.trim_start().starts_with(label));
    let plain = |text: &str| -> String {
        let lines: Vec<&str> = text.lines().filter(|line| !is_of_helm(line)).collect();
        lines.join("\n") + "\n"
    };
    let documents: Vec<String> = documents.map(|document| plain(&document.text)).collect();
    format!("# Generated from charts/portlane/templates/{template}: docs/install.md.\n{}", documents.join("---\n"))
}

#[test]
fn kustomize_builds_the_objects_of_both_charts() {
    let crds = render_in(OPERATOR, CHARTS[0], &[], "").ok();
    for (folder, values) in KUSTOMIZATIONS {
        let file = values.map(case);
        let charts = Document::all(&[crds.clone(), render_case(file.as_deref())].join("\n---\n"));
        let mut built = essences(&Document::all(&kustomize(folder).ok()));
        // helm creates the namespace by an option.
        assert!(built.remove(&format!("Namespace/{OPERATOR}")).is_some(), "{folder} has the namespace");
        assert_same(folder, &built, &essences(&charts));
    }
}

/// Asserts that two sets of objects are equal, one object after the other.
fn assert_same(folder: &str, built: &BTreeMap<String, Value>, rendered: &BTreeMap<String, Value>) {
    let (names, expected): (Vec<&String>, Vec<&String>) = (built.keys().collect(), rendered.keys().collect());
    assert_eq!(names, expected, "{folder}");
    for (name, object) in built {
        assert_eq!(Some(object), rendered.get(name), "{name} of {folder}");
    }
}

#[test]
fn every_overlay_is_compared_with_a_case() {
    let folders = std::fs::read_dir(checkout("deploy/overlays")).expect("a folder");
    let overlays: BTreeSet<String> =
        folders.map(|entry| format!("deploy/overlays/{}", entry.expect("an entry").file_name().display())).collect();
    let compared: BTreeSet<String> =
        KUSTOMIZATIONS.iter().filter(|(_, case)| case.is_some()).map(|(folder, _)| (*folder).to_owned()).collect();
    assert_eq!(overlays, compared);
}

fn the_api_server_accepts_manifests_and_charts(server: &ControlPlane) {
    for (folder, _) in KUSTOMIZATIONS {
        dry_run(server, &kustomize(folder).ok());
    }
    for chart in CHARTS {
        dry_run(server, &render_in(OPERATOR, chart, &[], "").ok());
    }
}

/// Has the API server judge manifests without storing them. Asserts that it neither refuses nor warns. A dry run creates
/// no namespace for the objects after it, so the namespaces that the manifests name are created first.
#[track_caller]
pub(super) fn dry_run(server: &ControlPlane, manifests: &str) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespaces =
        NAMESPACES.map(|name| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n"));
    server.kubectl_with(&["apply", "--server-side", "-f", "-"], &namespaces.join("---\n")).ok();
    let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    let output = server.kubectl_with(&dry_run, manifests);
    assert!(!output.stderr.contains("Warning"), "{}", output.stderr);
    output.ok();
}

/// On an empty cluster: one command, in the order that kustomize gives.
#[test]
fn kubectl_apply_k_installs_everything_a_second_run_changes_nothing_and_helm_takes_it_over() {
    if !crate::server::ours(&[]) {
        return;
    }
    let server = ControlPlane::start(KubernetesVersion::Newest);
    let path = |folder: &str| checkout(folder).display().to_string();
    let first = server.kubectl(&["apply", "-k", &path("deploy")]).ok();
    assert_eq!(first.lines().count(), first.matches(" created").count(), "{first}");
    // kubectl calls an empty list and a spec that is replaced whole "configured", whatever the server has.
    let always = ["clusterrole.rbac.authorization.k8s.io/portlane.dev:serves-", "poddisruptionbudget.policy/"];
    let versions = || {
        let kinds = ["get", "clusterroles,poddisruptionbudgets", "--namespace=portlane"];
        let columns = "--output=custom-columns=NAME:.metadata.name,VERSION:.metadata.resourceVersion";
        server.kubectl(&[&kinds[..], &[columns]].concat()).ok()
    };
    let before = versions();
    let second = server.kubectl(&["apply", "-k", &path("deploy")]).ok();
    let is_news = |line: &&str| !line.ends_with(" unchanged") && !always.iter().any(|start| line.starts_with(start));
    assert_eq!(second.lines().filter(is_news).count(), 0, "{second}");
    assert_eq!(versions(), before, "nothing was written");
    // The objects belong to no release, until helm takes them over as docs/install.md says.
    for chart in CHARTS {
        let install = ["install", chart.trim_start_matches("charts/"), chart, "--namespace", OPERATOR];
        let refused = server.helm(&install).refused();
        assert!(refused.contains("cannot be imported into the current release"), "{refused}");
        server.helm(&[&install[..], &["--take-ownership"]].concat()).ok();
    }
    // The removal that docs/install.md describes keeps the CRDs, and with them what users have.
    server.kubectl(&["delete", "-k", &path("deploy/base"), "--wait=false"]).ok();
    let crds = ["portforwards.portlane.dev", "forwardgateways.portlane.dev", "forwardagents.portlane.dev"];
    server.kubectl(&[&["get", "crd"], &crds[..]].concat()).ok();
    let left = server.kubectl(&["get", "mutatingwebhookconfigurations,clusterroles", "--output=name"]).ok();
    assert!(!left.contains("portlane"), "{left}");
}

/// Every shared server gets its CRDs by `kubectl apply --server-side -f crds/`.
#[test]
fn the_folder_of_crds_has_nothing_else_that_kubectl_reads() {
    let entries = std::fs::read_dir(checkout("crds")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let read: Vec<_> = entries.filter(|path| is_read_by_kubectl(path)).collect();
    assert_eq!(read.len(), 3, "{read:?}");
    let built = essences(&Document::all(&kustomize("crds").ok()));
    assert!(built.keys().all(|name| name.starts_with("CustomResourceDefinition/")), "{:?}", built.keys());
    assert_eq!(built.len(), 3);
}

/// Whether `kubectl apply -f` reads a file of a folder.
fn is_read_by_kubectl(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// No test runs Flux. What its objects on the page name exists, and each waits for one of the others.
#[test]
fn the_objects_for_flux_name_charts_and_folders_of_the_checkout() {
    let page = std::fs::read_to_string(checkout("docs/gitops.md")).expect("a page");
    let (_, block) = page.split_once("```yaml\n# flux.yaml\n").expect("a block for Flux");
    let objects = Document::all(block.split_once("\n```").expect("the end of the block").0);
    let text = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let names: BTreeSet<Option<String>> = objects.iter().map(|it| text(&it.object, "/metadata/name")).collect();
    let mut charts = BTreeSet::new();
    for Document { object, .. } in &objects {
        if let Some(chart) = text(object, "/spec/chart/spec/chart") {
            assert!(checkout(&chart).join("Chart.yaml").is_file(), "{chart}");
            charts.insert(chart);
        }
        if let Some(path) = text(object, "/spec/path") {
            assert!(checkout(&path).is_dir(), "{path}");
        }
        for pointer in ["/spec/dependsOn/0/name", "/spec/sourceRef/name", "/spec/chart/spec/sourceRef/name"] {
            let referred = text(object, pointer);
            assert!(referred.is_none() || names.contains(&referred), "{referred:?}");
        }
    }
    assert_eq!(charts.iter().map(String::as_str).collect::<Vec<_>>(), ["charts/portlane", "charts/portlane-crds"]);
}

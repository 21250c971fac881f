//! The committed YAML and the pages about it are what the types generate.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{fs, path::Path};

#[test]
fn committed_crds_are_what_the_types_generate() {
    for crd in crds::crds().expect("schemas serialise") {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let generated = serde_yaml::to_string(&crd.document).expect("YAML");
        let template = crds::chart_template(&generated);
        let included = crds::operator_chart_template(&generated);
        assert!(template.contains("helm.sh/resource-policy") && included.contains("helm.sh/resource-policy"));
        for (path, generated) in [
            (folder.join(crd.file), generated),
            (folder.join(crds::CHART).join(crd.file), template),
            (folder.join(crds::OPERATOR_CHART).join(crd.file), included),
        ] {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == generated,
                "{} is out of date: run `cargo run -p portlane-crds --bin crdgen` and commit the result",
                path.display()
            );
        }
    }
}

#[test]
fn committed_readmes_of_the_charts_are_what_their_values_generate() {
    for chart in crds::CHARTS {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join(chart);
        let read = |file: &str| fs::read_to_string(chart.join(file)).unwrap_or_default();
        let generated = crds::chart_readme(&read("Chart.yaml"), &read("values.schema.json"), &read("values.yaml"));
        assert!(
            read("README.md") == generated.expect("every value has a description"),
            "{}/README.md is out of date: run `cargo run -p portlane-crds --bin crdgen` and commit the result",
            chart.display()
        );
    }
}

#[test]
fn committed_reference_is_what_types_and_values_generate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for crd in crds::kinds().expect("schemas serialise") {
        pages.push((crds::page(&crd), crds::reference(&crd).expect("every field has a description")));
    }
    let charts = crds::CHARTS.map(|chart| {
        ["Chart.yaml", "values.schema.json", "values.yaml"]
            .map(|file| fs::read_to_string(folder.join(chart).join(file)).unwrap_or_default())
    });
    pages.push(("values.md".to_owned(), crds::values_page(&charts).expect("every value has a description")));
    for (page, generated) in pages {
        assert!(
            fs::read_to_string(folder.join(crds::REFERENCE).join(&page)).unwrap_or_default() == generated,
            "docs/reference/{page} is out of date: run `cargo run -p portlane-crds --bin crdgen` and commit the result"
        );
    }
}

#[test]
fn the_committed_patch_of_argocd_cm_is_what_its_scripts_generate() {
    let argocd = Path::new(env!("CARGO_MANIFEST_DIR")).join(crds::ARGOCD);
    let scripts = argocd.join(crds::ARGOCD_SCRIPTS);
    let generated = crds::argocd_config_map(|file| fs::read_to_string(scripts.join(file))).expect("every script");
    let path = argocd.join(crds::ARGOCD_CONFIG_MAP);
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == generated,
        "{} is out of date: run `cargo run -p portlane-crds --bin crdgen` and commit the result",
        path.display()
    );
}

/// Client-side apply stores an object as JSON in an annotation, and all annotations together have at most 256 KiB.
#[test]
fn every_crd_leaves_half_of_its_annotations_free_for_client_side_apply() {
    for crd in crds::crds().expect("schemas serialise") {
        let bytes = crd.document.to_string().len();
        assert!(bytes < 128 * 1024, "{} has {bytes} bytes as JSON: say so in docs/gitops.md", crd.file);
    }
}

#[test]
fn the_applications_for_argo_cd_install_the_charts_of_this_version() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/argocd");
    let tag = format!("targetRevision: v{}\n", env!("CARGO_PKG_VERSION"));
    for file in ["applications/crds.yaml", "applications/operator.yaml", "clusters.yaml"] {
        let text = fs::read_to_string(deploy.join(file)).expect("a file");
        assert!(text.contains(&tag), "{file} has another targetRevision than v{}", env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn every_list_and_string_of_the_spec_is_bounded() {
    for crd in crds::kinds().expect("schemas serialise") {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            unbounded(&schema[part], part);
        }
    }
}

fn unbounded(node: &serde_json::Value, path: &str) {
    let bound = match node["type"].as_str() {
        Some("array") => Some("maxItems"),
        Some("string") if node.get("enum").is_none() => Some("maxLength"),
        Some("integer") if !path.ends_with("observedGeneration") => Some("minimum"),
        _ => None,
    };
    if let Some(bound) = bound {
        assert!(node.get(bound).is_some(), "{path} has no {bound}");
    }
    if let Some(properties) = node["properties"].as_object() {
        for (name, child) in properties {
            unbounded(child, &format!("{path}.{name}"));
        }
    }
    for child in ["items", "additionalProperties"] {
        if node[child].is_object() {
            unbounded(&node[child], &format!("{path}[]"));
        }
    }
}

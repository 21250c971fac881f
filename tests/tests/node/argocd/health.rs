//! The health checks and actions as Argo CD itself runs them.

#[path = "../../health/page.rs"]
#[allow(dead_code, reason = "the conditions and kstatus are for the test program `health`")]
mod page;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use harness::resource_overrides;
use serde_json::{Value, json};

use self::page::{Expected, expected};
use super::text;

/// Processes of Argo CD that judge an object at the same time: each takes most of a second.
const JUDGES: usize = 4;

/// The folder of the scripts of a kind.
fn scripts(kind: &str) -> PathBuf {
    let argocd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/argocd/health/resource_customizations");
    argocd.join("portlane.dev").join(kind)
}

/// The test program `health` tries every combination of conditions by another Lua.
#[test]
fn argo_cd_itself_agrees_with_the_tests_of_its_health_checks_and_actions() {
    for kind in ["PortForward", "ForwardGateway", "ForwardAgent"] {
        let tests = fs::read_to_string(scripts(kind).join("health_test.yaml")).expect("read");
        let tests: Value = serde_yaml::from_str(&tests).expect("YAML");
        for test in tests["tests"].as_array().expect("tests") {
            let file = scripts(kind).join(text(test, "inputPath")).display().to_string();
            let (status, message) = (text(&test["healthStatus"], "status"), text(&test["healthStatus"], "message"));
            let answer = resource_overrides(&["health", &file]).ok();
            assert_eq!(answer.trim_end(), format!("STATUS: {status}\nMESSAGE: {message}"), "{file}");
        }
    }
    for (kind, file, action, other) in [
        ("PortForward", "forward", "suspend", "resume"),
        ("PortForward", "suspended", "resume", "suspend"),
        ("ForwardAgent", "agent", "suspend", "resume"),
        ("ForwardAgent", "suspended", "resume", "suspend"),
    ] {
        let file = scripts(kind).join(format!("actions/testdata/{file}.yaml")).display().to_string();
        let offered = resource_overrides(&["list-actions", &file]).ok();
        assert!(offered.contains(action) && !offered.contains(other), "{offered}");
        let changed = resource_overrides(&["run-action", &file, action]).ok();
        assert!(changed.contains(&format!("suspend: {}", action == "suspend")), "{changed}");
    }
}

/// One object for each reason of the page. Takes about a second for every six.
#[test]
fn argo_cd_itself_agrees_with_every_reason_of_the_page() {
    let folder = tempfile::tempdir().expect("folder");
    let of = |kind: &'static str| expected(kind).into_iter().map(move |row| (kind, row));
    let kinds = ["PortForward", "ForwardGateway", "ForwardAgent"];
    let rows: Vec<(&str, Expected)> = kinds.into_iter().flat_map(of).collect();
    thread::scope(|scope| {
        for (at, rows) in rows.chunks(rows.len().div_ceil(JUDGES)).enumerate() {
            let file = folder.path().join(format!("{at}.json"));
            scope.spawn(move || {
                for (kind, row) in rows {
                    fs::write(&file, object(kind, row).to_string()).expect("write");
                    let answer = resource_overrides(&["health", &file.display().to_string()]).ok();
                    assert!(answer.starts_with(&format!("STATUS: {}\n", row.health)), "{kind}: {row:?}: {answer}");
                }
            });
        }
    });
}

/// An object with the conditions by which the operator says what this row says.
fn object(kind: &str, row: &Expected) -> Value {
    let condition = |type_: &str, status: &str, reason: &str| json!({"type": type_, "status": status, "reason": reason, "message": "a message", "observedGeneration": 4});
    let mut conditions = vec![condition("Ready", &row.status, &row.reason)];
    if row.reason == "Suspended" {
        conditions.push(condition("Accepted", "True", "Suspended"));
    }
    if row.kstatus == "Failed" {
        conditions.push(condition("Stalled", "True", &row.reason));
    }
    json!({
        "apiVersion": "portlane.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "generation": 4},
        "spec": {},
        "status": {"observedGeneration": 4, "conditions": conditions},
    })
}

//! Generated parts of the examples match their sources.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{path::Path, process::Command};

use harness::binary;
use serde_json::Value;

#[test]
fn the_configmap_of_the_sidecar_example_is_what_translate_makes_of_its_forward() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut translate = Command::new(binary("portlane"));
    translate.args(["translate", "-f"]).arg(examples.join("door.yaml"));
    let output = translate.output().expect("portlane should run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = String::from_utf8_lossy(&output.stdout).into_owned();

    let example = std::fs::read_to_string(examples.join("sidecar-without-operator.yaml")).expect("readable");
    let documents = example.split("\n---\n").map(|text| serde_yaml::from_str::<Value>(text).expect("YAML"));
    let map = documents.into_iter().find(|document| document["kind"] == "ConfigMap").expect("a ConfigMap");
    let written = map["data"]["config.yaml"].as_str().expect("a document");
    assert_eq!(written, made, "regenerate: portlane translate -f examples/door.yaml, indented by four");
}

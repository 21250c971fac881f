//! Golden files: `tests/translate/NAME.in.yaml` is a world, `NAME.out.yaml` its translation.
//!
//! `UPDATE=1 cargo test -p portlane-operator-core --test translate` rewrites the outputs; review the diff.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use operator_core::{Translation, translate};
use serde::Serialize;

#[derive(Serialize)]
struct Output<'a> {
    configurations: BTreeMap<String, &'a proxy_api::Configuration>,
    verdicts: BTreeMap<String, &'a operator_core::Verdict>,
}

fn output(translation: &Translation) -> String {
    let output = Output {
        configurations: translation.configurations.iter().map(|(group, c)| (group.to_string(), c)).collect(),
        verdicts: translation.verdicts.iter().map(|(key, verdict)| (key.to_string(), verdict)).collect(),
    };
    serde_yaml::to_string(&serde_json::to_value(&output).expect("JSON")).expect("YAML")
}

#[test]
fn every_world_translates_to_its_golden_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).expect("folder") {
        let path = entry.expect("entry").path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".in.yaml")) else { continue };
        let input = fs::read_to_string(&path).expect("input");
        let actual = output(&translate(&support::world(&input)));
        let golden = folder.join(format!("{name}.out.yaml"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &actual).expect("write");
        }
        if fs::read_to_string(&golden).unwrap_or_default() != actual {
            wrong.push(format!("--- {name}: now\n{actual}"));
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} golden files found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

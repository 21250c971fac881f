//! Golden files: `tests/translate/NAME.in.yaml` is a world, `NAME.out.yaml` its translation.
//!
//! `UPDATE=1 cargo test -p portlane-operator-core --test translate` rewrites the outputs; review the diff. Outputs show
//! what a world is about: fields with their default are omitted, conditions with their usual text are `true`, and
//! revisions are named in the order of their appearance. Equal names are equal revisions.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use operator_core::{Translation, translate};
use serde::Serialize;
use serde_json::{Value, json};

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
    let mut output = serde_json::to_value(&output).expect("JSON");
    name_revisions(&mut output, &mut BTreeMap::new());
    items(&mut output["configurations"]).for_each(shorten_configuration);
    items(&mut output["verdicts"]).for_each(shorten_verdict);
    serde_yaml::to_string(&output).expect("YAML")
}

/// The values of an object, or the items of an array.
fn items(value: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match value {
        Value::Object(fields) => Box::new(fields.values_mut()),
        Value::Array(items) => Box::new(items.iter_mut()),
        _ => panic!("neither an object nor an array: {value}"),
    }
}

/// Replaces revisions by short names. The hash itself is pinned by the tests of the contract.
fn name_revisions(value: &mut Value, names: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::String(revision) if field == "revision" || field == "published" => {
                        let is_hash = revision.len() == 16 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
                        assert!(is_hash, "{revision:?} is no revision");
                        let next = format!("rev-{}", names.len() + 1);
                        let name = names.entry(revision.clone()).or_insert(next);
                        revision.clone_from(name);
                    }
                    _ => name_revisions(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| name_revisions(item, names)),
        _ => {}
    }
}

/// Omits the defaults of a configuration. The defaults are written here once more, so that a changed default of the
/// operator changes the golden files.
fn shorten_configuration(configuration: &mut Value) {
    let always = json!({
        "accessLog": {"mode": "Close", "intervalSeconds": 0},
        "destinations": {"refuseLocal": false, "cidrs": []},
        "outlier": {"consecutiveFailures": 5, "ejectSeconds": 30},
        "policy": "RoundRobin",
        "retry": {"attempts": 3, "initialBackoffMillis": 50, "maxBackoffMillis": 2000},
        "sessions": {"onUpdate": "Keep", "onUnhealthy": "Keep", "drainSeconds": 300},
        "timeouts": {
            "connectSeconds": 5, "idleSeconds": 3600, "halfCloseSeconds": 300, "udpIdleSeconds": 60, "keepaliveSeconds": 60,
        },
    });
    // These objects are absent from listeners that do not use them: an object of defaults is written as `{}`.
    let if_used = json!({
        "access": {"allow": [], "deny": []},
        "healthCheck": {"intervalSeconds": 5, "timeoutSeconds": 2, "unhealthyThreshold": 3, "healthyThreshold": 2},
        "limits": {"onLimit": "Queue", "maxQueued": 1000, "queueSeconds": 5},
        "proxyProtocol": {"accept": "Disabled", "trusted": [], "send": "Disabled"},
    });
    omit(configuration, &json!({"contract": proxy_api::CONTRACT, "epoch": "", "number": 0}));
    for listener in items(&mut configuration["listeners"]) {
        omit(listener, &always);
        for (name, defaults) in if_used.as_object().expect("an object") {
            if let Some(found) = listener.get_mut(name) {
                omit(found, defaults);
            }
        }
        items(&mut listener["backends"]).for_each(|backend| omit(backend, &json!({"weight": 1})));
    }
}

/// Omits what every accepted forward without a problem has.
fn shorten_verdict(verdict: &mut Value) {
    let usual = [
        ("accepted", "Accepted", "the spec is valid and its ports are claimed"),
        ("resolvedRefs", "ResolvedRefs", "every backend exists and may be used"),
    ];
    for (condition, reason, message) in usual {
        if verdict[condition] == json!({"status": true, "reason": reason, "message": message}) {
            verdict[condition] = json!(true);
        }
    }
    omit(verdict, &json!({"groups": [], "listeners": [], "placement": ""}));
}

/// Removes the fields of an object that equal their defaults, at any depth. A field that the operator no longer writes
/// is marked: what a golden file omits has its default.
fn omit(value: &mut Value, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) else { return };
    for (name, default) in defaults {
        if fields.get(name) == Some(default) {
            fields.remove(name);
        } else if let Some(found) = fields.get_mut(name) {
            omit(found, default);
        } else {
            fields.insert(name.clone(), json!("MISSING"));
        }
    }
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

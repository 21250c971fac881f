//! The tests that lie beside the scripts, in the form of Argo CD's repository, which runs them as they are.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::lua::{Health, Script, folder};

/// A YAML file beside the scripts of a kind.
fn yaml(kind: &str, file: &str) -> Value {
    let path = folder(kind).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no list {field} in {value}"))
}

/// Names of the files of a folder.
fn files(kind: &str, name: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder(kind).join(name)).expect("a folder");
    entries.map(|entry| format!("testdata/{}", entry.expect("an entry").file_name().display())).collect()
}

#[test]
fn the_health_of_every_object_beside_the_scripts_is_what_their_tests_say() {
    for kind in ["PortForward", "ForwardGateway", "ForwardAgent"] {
        let script = Script::of(kind, "health.lua");
        let tests = yaml(kind, "health_test.yaml");
        for test in list(&tests, "tests") {
            let (input, expected) = (text(test, "inputPath"), &test["healthStatus"]);
            let (status, message) = (text(expected, "status").to_owned(), text(expected, "message").to_owned());
            assert_eq!(script.health(&yaml(kind, input)), Health { status, message }, "{kind}: {input}");
        }
        let tested: BTreeSet<String> =
            list(&tests, "tests").iter().map(|test| text(test, "inputPath").to_owned()).collect();
        assert_eq!(files(kind, "testdata"), tested, "{kind}: every file is tested");
    }
}

#[test]
fn an_action_changes_one_field_and_the_other_one_is_offered_then() {
    for kind in ["PortForward", "ForwardAgent"] {
        actions_of(kind);
    }
}

fn actions_of(kind: &str) {
    let object = |file: &str| yaml(kind, &format!("actions/{file}"));
    let tests = yaml(kind, "actions/action_test.yaml");
    let discovery = Script::of(kind, "actions/discovery.lua");
    for test in list(&tests, "discoveryTests") {
        let input = text(test, "inputPath");
        let offered = discovery.actions(&object(input));
        let offered: Vec<_> = offered.iter().map(|(name, icon)| (name.as_str(), icon.as_str())).collect();
        let result = list(test, "result").iter();
        assert_eq!(offered, result.map(|it| (text(it, "name"), text(it, "iconClass"))).collect::<Vec<_>>(), "{input}");
    }
    for test in list(&tests, "actionTests") {
        let action = text(test, "action");
        let script = Script::of(kind, &format!("actions/{action}/action.lua"));
        let (input, output) = (object(text(test, "inputPath")), object(text(test, "expectedOutputPath")));
        assert!(script.makes(&input, &output), "{action}");
        assert!(!script.makes(&output, &input), "{action} changes something");
    }
}

//! `docs/agent.md`: its file, its unit, its containers and its manifests tell an agent what it takes.

use std::{path::Path, time::Duration};

use serde::Deserialize;
use serde_yaml::{Deserializer, Value};

use super::{
    args::{
        Options,
        tests::{file, options},
    },
    settings::{Join, Settings},
};

const PAGE: &str = include_str!("../../../docs/agent.md");

/// The image of this version.
const IMAGE: &str = concat!("localhost/portlane/agent:", env!("CARGO_PKG_VERSION"));

/// What follows a line of the page, to the end of its block.
fn block(first: &str) -> &'static str {
    let (_, below) = PAGE.split_once(&format!("\n{first}\n")).unwrap_or_else(|| panic!("the page has no {first}"));
    below.split_once("\n```").expect("the end of the block").0
}

/// What an agent is set to by these words alone.
fn told(words: &[&str]) -> Settings {
    Settings::new(&options(words), &Options::default(), |_| None, "host").expect("valid options")
}

/// The strings of a list.
fn strings(list: &Value) -> Vec<&str> {
    list.as_sequence().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[track_caller]
fn has(settings: &Settings, data: &str, join: &str) {
    assert_eq!(settings.data, Path::new(data));
    assert!(matches!(&settings.join, Some(Join::File(path)) if path == Path::new(join)), "{:?}", settings.join);
    assert_eq!(settings.allow.entries().len(), 1);
}

/// The time to stop is longer than that for streams.
#[track_caller]
fn outlasts(seconds: &str, settings: &Settings) {
    let seconds = seconds.trim_end_matches('s').parse::<u64>().expect("seconds");
    assert!(Duration::from_secs(seconds) > settings.drain, "{seconds}");
}

#[test]
fn the_file_has_options_of_this_program() {
    let given = file(block("# agent.yaml"));
    let settings = Settings::new(&Options::default(), &given, |_| None, "host").expect("valid options");
    assert_eq!(settings.instance.to_string(), "pi4");
    assert_eq!(settings.allow.entries().len(), 3);
}

#[test]
fn the_unit_has_the_join_string_and_the_folder_where_systemd_puts_them() {
    let unit = block("# /etc/systemd/system/portlane-agent.service");
    let value = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("the unit has no {key}"))
    };
    let words: Vec<&str> = value("ExecStart").split(' ').collect();
    assert_eq!(words[..2].join(" "), "/usr/local/bin/portlane agent");
    let settings = told(&words[2..]);
    has(&settings, "${STATE_DIRECTORY}", "${CREDENTIALS_DIRECTORY}/join");
    assert!(value("LoadCredential").starts_with("join:/"));
    assert_eq!(value("StateDirectoryMode"), "0700");
    outlasts(value("TimeoutStopSec"), &settings);
}

#[test]
fn containers_run_the_image_of_this_version_with_options_of_this_program() {
    let typed: Vec<&str> = block("$ mkdir --mode=700 agent").split_whitespace().filter(|word| *word != "\\").collect();
    let after = |word: &str| typed.iter().position(|one| *one == word).expect(word) + 1;
    let settings = told(&typed[after(IMAGE)..]);
    has(&settings, "/data", "/join.txt");
    outlasts(typed[after("--stop-timeout")], &settings);

    let compose: Value = serde_yaml::from_str(block("# compose.yaml")).expect("YAML");
    let agent = &compose["services"]["agent"];
    assert_eq!(agent["image"].as_str(), Some(IMAGE));
    let settings = told(&strings(&agent["command"]));
    has(&settings, "/data", "/run/secrets/join");
    assert_eq!(strings(&agent["volumes"]), ["./agent:/data"]);
    assert!(compose["secrets"]["join"]["file"].is_string());
    outlasts(agent["stop_grace_period"].as_str().expect("a time"), &settings);
}

#[test]
fn the_deployment_has_a_folder_for_the_agent_alone() {
    let documents = Deserializer::from_str(block("# agent-deployment.yaml"));
    let documents: Vec<Value> = documents.map(|one| Value::deserialize(one).expect("YAML")).collect();
    let spec = &documents[1]["spec"];
    assert_eq!(spec["strategy"]["type"].as_str(), Some("Recreate"));
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"].as_str(), Some(IMAGE));
    let settings = told(&strings(&container["args"]));
    has(&settings, "/data/agent", "/join/join");
    let mounts = container["volumeMounts"].as_sequence().expect("mounts");
    let mounts: Vec<&str> = mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
    assert_eq!(mounts, ["/data", "/join"]);
    let health = settings.health.expect("a health address").port();
    assert_eq!(container["ports"][0]["containerPort"].as_u64(), Some(health.into()));
    let seconds = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    outlasts(&seconds.to_string(), &settings);
}

//! `docs/agent.md`: its file, its unit, its containers and its manifests tell an agent what it takes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

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

/// The first line of the unit.
const UNIT: &str = "# /etc/systemd/system/portlane-agent.service";

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
    let unit = block(UNIT);
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

/// What `systemd-analyze` prints within a minute. It needs no systemd that runs. Without the program this is the reason.
fn systemd_analyze(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["60", "systemd-analyze"]).args(arguments).stdin(Stdio::null());
    // The person who runs the tests may have set others.
    command.env("SYSTEMD_LOG_LEVEL", "warning").env("SYSTEMD_LOG_TARGET", "console");
    command.output().map_or_else(
        |error| error.to_string(),
        |output| [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

/// The complaints about lines of a unit. Others are about the machine, which may not have the program of the unit.
fn complaints<'a>(said: &'a str, unit: &str) -> Vec<&'a str> {
    let is_of_line = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    let names = |line: &&str| line.split_once(&format!("{unit}:")).is_some_and(|(_, rest)| is_of_line(rest));
    said.lines().filter(names).collect()
}

#[test]
fn systemd_knows_each_line_of_the_unit() {
    /// The first version with credentials of services.
    const OLDEST: u32 = 247;
    let version = systemd_analyze(&["--version"]);
    let number = version.strip_prefix("systemd ").and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    if number.is_none_or(|number| number < OLDEST) {
        eprintln!("skipped: systemd-analyze {OLDEST} or later is not there: {version}");
        return;
    }
    let (folder, unit) = (tempfile::tempdir().expect("a folder"), block(UNIT));
    let written = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.into_os_string().into_string().expect("UTF-8")
    };
    let right = written("right.service", unit);
    let wrong = written("wrong.service", &format!("{unit}\n[Service]\nNoSuchKey=yes\n"));
    let said = systemd_analyze(&["verify", &right, &wrong]);
    if complaints(&said, "wrong.service").is_empty() {
        eprintln!("skipped: systemd-analyze verifies no units on this machine: {said}");
        return;
    }
    assert!(complaints(&said, "right.service").is_empty(), "{said}");
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

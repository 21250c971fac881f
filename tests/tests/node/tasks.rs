//! The pages of docs/tasks, word for word: files are written as the page has them, commands run in order, and their
//! output is the output on the page.

mod cloud;
mod outside;
pub(crate) mod page;
pub(crate) mod shell;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use harness::until;

use self::{
    cloud::Cloud,
    outside::Outside,
    page::{Step, all_commands, is_shown, steps},
    shell::Shell,
};
use crate::{fleet::operated, shared};

/// Longest time that a person repeats a command that only looks.
const REPEATING: Duration = Duration::from_secs(180);

macro_rules! pages {
    ($($test:ident: $file:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            follow($file, include_str!(concat!("../../../docs/tasks/", $file)));
        })*

        /// All pages that a test follows.
        const PAGES: &[&str] = &[$($file),*];
    };
}

pages! {
    a_database_outside_of_the_cluster_through_a_sidecar: "database-outside.md",
    a_service_on_an_autoscaled_gateway: "autoscaled-gateway.md",
    syslog_and_dns: "syslog-and-dns.md",
    two_host_names_on_one_tls_port: "two-hostnames.md",
    passive_ftp: "passive-ftp.md",
    a_canary: "canary.md",
    blue_and_green: "blue-green.md",
    a_standby_database: "standby-database.md",
    a_suspended_forward: "suspend.md",
    a_service_on_a_laptop: "laptop.md",
    a_database_behind_an_agent: "database-at-home.md",
    a_web_server_behind_an_agent: "laptop-web.md",
}

#[test]
fn every_page_is_followed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tasks");
    let files = fs::read_dir(folder).expect("docs/tasks").flatten().map(|entry| entry.file_name());
    let files: BTreeSet<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    let followed: BTreeSet<String> = PAGES.iter().chain(&["README.md"]).map(ToString::to_string).collect();
    assert_eq!(files, followed);
}

/// Investigations of docs/observability.md, from the symptom to the cause.
#[test]
fn five_investigations_lead_from_the_symptom_to_the_cause() {
    const PAGE: &str = include_str!("../../../docs/observability.md");
    let (_, section) = PAGE.split_once("\n## Five investigations\n").expect("the heading");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    assert_eq!(section.matches("\n### ").count(), 6, "five investigations, and how to undo them");
    assert_eq!(all_commands(PAGE), all_commands(section), "the page has no other commands");
    walk("observability.md", section, "investigations");
}

fn follow(name: &str, text: &str) {
    for heading in ["## What you write", "## What you see", "## How to undo it"] {
        assert!(text.contains(heading), "{name} has no \"{heading}\"");
    }
    walk(name, text, name.trim_end_matches(".md"));
}

/// Does what a text says, in a namespace of its own, of which the text leaves nothing.
fn walk(name: &str, text: &str, purpose: &str) {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = operated().namespace(purpose).for_pods();
    let (_outside, cloud) = (Outside::of(text, node), Cloud::of(text));
    // The person who starts an agent is at a machine that nothing can connect to.
    let mut shell = if text.contains(" portlane agent ") {
        Shell::on(shared::outpost(), node, &namespace)
    } else {
        Shell::start(node, &namespace)
    };
    for step in steps(text) {
        match step {
            Step::File { name, content } => fs::write(shell.folder().join(name), content).expect("write"),
            Step::Command { line, output } => {
                do_as_written(name, &mut shell, &line, &output);
                if line.starts_with("kubectl apply ") {
                    cloud.serve(&namespace);
                }
            }
        }
    }
    until(&format!("{name}: nothing of the page is left"), || {
        let kinds = "portforwards,forwardgateways,forwardagents,hpa,deployments,services,serviceaccounts,secrets";
        let (left, _) = shell.run(&format!("kubectl get {kinds} --output=name"));
        left == "serviceaccount/default"
    });
}

/// Does what a text of a page says, in order.
#[track_caller]
pub(crate) fn do_all(page: &str, shell: &mut Shell, text: &str) {
    for step in steps(text) {
        match step {
            Step::File { name, content } => fs::write(shell.folder().join(name), content).expect("write"),
            Step::Command { line, output } => do_as_written(page, shell, &line, &output),
        }
    }
}

/// Runs a command. A command that changes something runs once. A command that looks is repeated, as a person would,
/// until its output is the output on the page.
#[track_caller]
pub(crate) fn do_as_written(page: &str, shell: &mut Shell, line: &str, shown: &[String]) {
    let deadline = Instant::now() + REPEATING;
    loop {
        let (printed, status) = shell.run(line);
        // A report of the plugin that names a failure ends with 1, and one that lacks something with 3.
        let is_report = line.starts_with("kubectl portlane ") && matches!(status, 1 | 3);
        if (status == 0 || is_report) && is_shown(shown, &printed) {
            return;
        }
        // curl fails on a reset: the page shows its message.
        if shown.first().is_some_and(|first| first.starts_with("curl: (")) && is_shown(shown, &printed) {
            return;
        }
        if changes_something(line) || Instant::now() > deadline {
            let story = shell.run("kubectl describe portlane; kubectl get pods,events").0;
            panic!(
                "{page}: $ {line}\nshould print\n{}\nand printed ({status})\n{printed}\n\n{story}",
                shown.join("\n")
            );
        }
        thread::park_timeout(Duration::from_millis(500));
    }
}

fn changes_something(line: &str) -> bool {
    let words = ["apply", "create", "delete", "expose", "patch", "run", "scale"];
    let kubectl = line.strip_prefix("kubectl ").and_then(|rest| rest.split(' ').next());
    kubectl.is_some_and(|word| words.contains(&word))
        || line.ends_with('&')
        || ["helm ", "skopeo ", "sed ", "kill ", "wait", "logger "].iter().any(|word| line.starts_with(word))
}

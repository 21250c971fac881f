//! Agents that come and go, in the log of the server and in `portlane status`.

use std::process::Command;

use harness::{Backend, Behaviour, Event, binary, free_port, until};

use super::{
    bed::{Agent, Server, line, manifests},
    session,
};

/// The forward in `portlane status` of the process at this admin port.
fn forward(admin: u16) -> Event {
    let mut command = Command::new(binary("portlane"));
    command.args(["status", "-o", "json", "--admin-address", &format!("127.0.0.1:{admin}")]);
    let output = command.output().expect("it runs");
    let report: Event = serde_json::from_slice(&output.stdout).expect("JSON");
    report["forwards"][0].clone()
}

#[track_caller]
fn until_backends_are(health: &str, admin: u16) {
    until(&format!("the backends are {health}"), || forward(admin)["listeners"][0]["backends"] == health);
}

#[test]
fn an_agent_that_is_killed_and_comes_back_is_in_the_log_and_in_the_health_of_the_backends() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, admin, folder) = (free_port(), free_port(), tempfile::tempdir().expect("folder"));
    let address = format!("127.0.0.1:{admin}");
    let server = Server::start(&manifests(port, backend.port, ""), &["--admin-address", &address]);
    let target = [backend.port];
    let agent = Agent::connected("pi4", folder.path(), &target, Some(&server.join("")));
    line(&server.program, &["agent_connected", "default/home", "instance pi4 has connected from 127.0.0.1:"]);
    drop(session(port));
    until_backends_are("All", admin);
    drop(agent);
    until_backends_are("None", admin);
    let message = forward(admin)["message"].to_string();
    assert!(message.contains("see whether its agents are connected"), "{message}");
    line(&server.program, &["agent_lost", "default/home", "instance pi4, ", "is lost: the connection failed"]);
    let _agent = Agent::connected("pi4", folder.path(), &target, None);
    line(&server.program, &["agent_connected", "default/home", "again, and its earlier streams have ended"]);
    until_backends_are("All", admin);
}

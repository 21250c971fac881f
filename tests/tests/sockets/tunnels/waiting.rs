//! Visitors that come, or stay, while no instance of the agent is connected.

use harness::{Backend, Behaviour, assert_reset, connect, echoes, forward, free_port, round_trip, until};

use super::{
    bed::{Agent, Server, home, line, listener},
    session,
};

#[test]
fn a_visitor_that_comes_before_the_agent_is_served_when_the_agent_comes() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let forward = forward("f", "timeouts: {connectSeconds: 60}", &[listener("l", port, backend.port)]);
    let server = Server::start(&(home(&[backend.port], "") + &forward), &[]);
    let join = server.join("");
    let mut early = connect(port).expect("the port is bound");
    let _agent = Agent::connected("one", folder.path(), &[backend.port], Some(&join));
    assert_eq!(round_trip(&mut early, b"early").expect("a session"), b"early");
}

#[test]
fn a_visitor_is_let_go_when_no_agent_comes_in_time_and_the_port_stays() {
    let port = free_port();
    let spec = "timeouts: {connectSeconds: 1}\nretry: {attempts: 1}";
    let server = Server::start(&(home(&[9], "") + &forward("f", spec, &[listener("l", port, 9)])), &[]);
    assert_reset(connect(port), b"");
    assert_eq!(server.program.wait("session_closed", "l")["reason"], "NoInstance");
    let closed = "portlane_connections_closed_total{";
    let is_counted =
        |line: &str| line.starts_with(closed) && line.contains("reason=\"NoInstance\"") && line.ends_with(" 1");
    until("the session is counted", || server.metrics().lines().any(is_counted));
    connect(port).expect("the port does not refuse");
}

/// If the time without a byte did not count, the session would end with a reset, after 120 s.
#[test]
fn a_session_that_waits_for_its_agent_is_idle() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let forward = forward("f", "timeouts: {idleSeconds: 2}", &[listener("l", port, backend.port)]);
    let server = Server::start(&(home(&[backend.port], "") + &forward), &[]);
    let agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    let _visitor = session(port);
    drop(agent);
    line(&server.program, &["session_closed", "\"reason\":\"Idle\""]);
}

#[test]
fn another_backend_serves_at_once_while_no_agent_is_there() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let standby = format!("address: {{host: 127.0.0.1, port: {}}}, priority: 1", backend.port);
    let listener = listener("l", port, 9).backend(&standby);
    let spec = "timeouts: {connectSeconds: 300}";
    let _server = Server::start(&(home(&[9], "") + &forward("f", spec, &[listener])), &[]);
    assert!(echoes(port));
}

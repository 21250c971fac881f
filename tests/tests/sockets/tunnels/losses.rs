//! What is over at once, and does not wait for a time to pass.

use harness::{Backend, Behaviour, free_port, round_trip, until_within};
use rustix::process::Signal;

use super::{
    SOON, assert_reset_soon,
    bed::{Agent, Server, line, manifests},
    cutter::Cutter,
    session,
};

#[test]
fn a_server_that_was_killed_has_its_agents_back_when_it_runs_again_and_they_give_its_old_streams_up() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let way = Cutter::start(0, usize::MAX);
    let advertise = format!("127.0.0.1:{}", way.port());
    let (manifests, arguments) = (manifests(port, backend.port, ""), ["--tunnel-advertise", advertise.as_str()]);
    let server = Server::start(&manifests, &arguments);
    way.lead_to(server.tunnel);
    let agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    let mut visitor = session(port);
    assert!(agent.streams() > 0.0);
    let server = server.kill_and_start(&manifests, &arguments);
    round_trip(&mut visitor, b"x").expect_err("the process that held it is gone");
    way.lead_to(server.tunnel);
    until_within(SOON, "the streams of the first process are given up", || agent.streams() < 1.0);
    drop(session(port));
}

#[test]
fn an_agent_serves_more_streams_than_a_process_has_files_at_first() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    let agent = Agent::with_files(64, folder.path(), &[backend.port], &server.join(""));
    let visitors: Vec<_> = (0..80).map(|_| session(port)).collect();
    assert!(agent.streams() > 79.0, "{} visitors", visitors.len());
}

#[test]
fn a_second_sigterm_ends_an_agent_and_resets_its_streams() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    let mut agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    let visitor = session(port);
    agent.program.signal(Signal::TERM);
    line(&agent.program, &["no new streams are accepted"]);
    agent.program.signal(Signal::TERM);
    assert!(agent.program.wait_for_end(SOON).success());
    assert_reset_soon(visitor, b"");
}

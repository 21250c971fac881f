//! What a tunnel does not carry, who may not connect, and their messages.

use std::fs;

use harness::{Backend, Behaviour, connect, echoes, forward, free_port, until};

use super::{
    assert_reset_soon,
    bed::{Agent, Server, command, home, line, listener, manifests, refused},
    session,
};

/// A name that never resolves (RFC 6761).
const NOWHERE: &str = "nowhere.invalid";

#[test]
fn a_target_that_one_of_the_lists_lacks_is_not_reached_and_the_owner_of_that_list_is_told() {
    let [listed, not_by_agent, not_by_server] = [(); 3].map(|()| Backend::start(Behaviour::Echo));
    let ports = [(); 3].map(|()| free_port());
    let targets = [&listed, &not_by_agent, &not_by_server].map(|backend| backend.port);
    let listeners = [0, 1, 2].map(|at| listener(["a", "b", "c"][at], ports[at], targets[at]));
    let forward = forward("f", "timeouts: {connectSeconds: 1}", &listeners);
    let server = Server::start(&(home(&targets[..2], "") + &forward), &[]);
    let folder = tempfile::tempdir().expect("folder");
    let agent = Agent::connected("one", folder.path(), &[targets[0], targets[2]], Some(&server.join("")));
    drop(session(ports[0]));
    assert!(!echoes(ports[1]) && !echoes(ports[2]));
    assert_eq!((not_by_agent.count(), not_by_server.count()), (0, 0));
    line(&agent.program, &[&format!("127.0.0.1:{}", targets[1]), "allow"]);
    line(&server.program, &[&format!("127.0.0.1:{}", targets[2]), "targets"]);
}

#[test]
fn a_target_whose_name_the_machine_of_the_agent_cannot_resolve_is_told_to_its_owner_with_the_remedy() {
    let port = free_port();
    // Longer than an agent waits for its resolver, which may not answer.
    let forward = forward("f", "timeouts: {connectSeconds: 30}", &[listener("l", port, 80)]);
    let server = Server::start(&(home(&[80], "") + &forward).replace("127.0.0.1", NOWHERE), &[]);
    let folder = tempfile::tempdir().expect("folder");
    let mut command = command(folder.path(), &[]);
    command.args(["--allow", &format!("{NOWHERE}:80")]);
    let agent = Agent::start_as(command, "one", Some(&server.join("")));
    until("the agent is connected", || agent.is_connected());
    until("the port is open", || connect(port).is_ok());
    assert!(!echoes(port));
    let remedy = format!("cannot resolve {NOWHERE}: check the name and its resolver");
    line(&agent.program, &["refused", &format!("{NOWHERE}:80"), &remedy]);
}

#[test]
fn a_suspended_agent_comes_back_by_itself_and_a_rotated_one_with_a_new_join_string() {
    let backend = Backend::start(Behaviour::Echo);
    let target = [backend.port];
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    let join = server.join("");
    let agent = Agent::connected("one", folder.path(), &target, Some(&join));
    let visitor = session(port);
    server.program.edit(&manifests(port, backend.port, "suspend: true"));
    assert_reset_soon(visitor, b"");
    line(&agent.program, &["is suspended"]);
    assert!(!agent.is_connected() && !echoes(port));
    server.program.edit(&manifests(port, backend.port, ""));
    let visitor = session(port);
    let rotated = manifests(port, backend.port, "enrolment: {rotation: 1}");
    server.program.edit(&rotated);
    assert_reset_soon(visitor, b"");
    line(&agent.program, &["was revoked by rotation 1", "new join string"]);
    line(&server.program, &["revoked", "default/home", "was revoked by rotation 1"]);
    let next = server.join(&join);
    drop(agent);
    let (_, said) = refused(tempfile::tempdir().expect("folder").path(), &join);
    assert!(said.contains("issue a new join string"), "the one from before is worth nothing: {said}");
    let _agent = Agent::connected("one", folder.path(), &target, Some(&next));
    drop(session(port));
}

#[test]
fn a_join_string_that_can_never_work_ends_the_agent_with_what_to_do() {
    let server = Server::start(&manifests(free_port(), 9, ""), &[]);
    let join = server.join("");
    let folder = || tempfile::tempdir().expect("folder");
    let owner = folder();
    let _agent = Agent::connected("one", owner.path(), &[9], Some(&join));
    // The join string of another server leads here.
    let address = format!("127.0.0.1:{}", server.tunnel);
    let other = Server::start(&manifests(free_port(), 9, ""), &["--tunnel-advertise", &address]);
    let cases = [
        (join[..join.len() - 10].to_owned(), "the join string is cut off: copy it again"),
        (join, "was redeemed before, with another key: issue a new join string"),
        (other.join(""), "the root certificate of the server is not the one"),
    ];
    for (join, remedy) in cases {
        let (code, said) = refused(folder().path(), &join);
        assert!(code == Some(1) && said.contains(remedy), "{remedy}: {code:?}: {said}");
        assert!(!said.contains(&join), "a join string is a secret");
    }
}

#[test]
fn of_two_processes_with_one_certificate_and_one_name_the_earlier_one_is_told() {
    let server = Server::start(&manifests(free_port(), 9, ""), &[]);
    let [folder, copy] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
    let first = Agent::connected("one", folder.path(), &[9], Some(&server.join("")));
    for name in ["key.pem", "certificate.pem", "joined"] {
        fs::copy(folder.path().join(name), copy.path().join(name)).expect("copied");
    }
    let second = Agent::connected("one", copy.path(), &[9], None);
    line(&first.program, &["another process with the certificate of this agent", "start each with a --name"]);
    until("the earlier one gives way", || !first.is_connected());
    assert!(second.is_connected());
}

//! Agents that have enrolled: what they need to start, and who may use their folders.

use std::fs;

use harness::{free_port, until};

use super::bed::{Agent, Server, command, line, manifests, refused};

#[test]
fn an_agent_that_has_enrolled_starts_though_the_file_with_its_join_string_is_gone() {
    let server = Server::start(&manifests(free_port(), 9, ""), &[]);
    let [data, files] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
    let join = files.path().join("join");
    fs::write(&join, server.join("")).expect("written");
    let start = || {
        let mut command = command(data.path(), &[9]);
        command.arg("--join-file").arg(&join);
        let agent = Agent::start_as(command, "one", None);
        until("the agent is connected", || agent.is_connected());
    };
    start();
    fs::remove_file(&join).expect("removed");
    start();
}

#[test]
fn an_agent_that_has_enrolled_starts_though_another_machine_has_redeemed_the_join_string_in_its_file() {
    let port = free_port();
    let server = Server::start(&manifests(port, 9, ""), &[]);
    let first = server.join("");
    let [folder, other] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
    drop(Agent::connected("one", folder.path(), &[9], Some(&first)));
    server.program.edit(&manifests(port, 9, "enrolment: {rotation: 1}"));
    let next = server.join(&first);
    let _other = Agent::connected("two", other.path(), &[9], Some(&next));
    let mut agent = Agent::start("one", folder.path(), &[9], Some(&next));
    line(&agent.program, &["enrolment", "was redeemed before, with another key"]);
    // The earlier certificate was revoked, as the server says: the agent goes on with it all the same.
    line(&agent.program, &["unreached", "was revoked by rotation 1"]);
    assert!(agent.program.is_running());
}

#[test]
fn a_second_process_with_the_folder_of_an_agent_ends_with_what_to_do_and_the_first_one_goes_on() {
    let server = Server::start(&manifests(free_port(), 9, ""), &[]);
    let (join, folder) = (server.join(""), tempfile::tempdir().expect("folder"));
    let first = Agent::connected("one", folder.path(), &[9], Some(&join));
    let (code, said) = refused(folder.path(), &join);
    let remedy = ": stop it, or give this one a folder of its own with --data";
    assert!(code == Some(1) && said.matches(remedy).count() == 1, "{code:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(first.is_connected());
}

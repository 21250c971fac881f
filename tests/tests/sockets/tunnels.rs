//! Reverse tunnels from outside: `portlane run` as the server, `portlane agent` behind it, and visitors.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod attendance;
mod backends;
mod bed;
mod cutter;
mod datagrams;
mod enrolled;
mod losses;
mod options;
mod quickstart;
mod refusals;
mod waiting;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::fs::PermissionsExt,
    sync::Arc,
    thread,
    time::Duration,
};

use harness::{Backend, Behaviour, Program, assert_reset, connect, echoes, free_port, round_trip, until};
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use self::{
    bed::{Agent, Server, line, manifests},
    cutter::Cutter,
};

/// Bytes that look like chance, and are the same each time.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// What comes back of bytes that a visitor sends while it reads.
fn echoed(port: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut reader = connect(port)?;
    let mut writer = reader.try_clone()?;
    let mut back = Vec::new();
    thread::scope(|scope| {
        let sent = scope.spawn(move || {
            writer.write_all(bytes)?;
            writer.shutdown(Shutdown::Write)
        });
        reader.read_to_end(&mut back)?;
        sent.join().expect("the writer ends")
    })?;
    Ok(back)
}

/// Less than the 30 s that streams of an agent may take to end, and than the 120 s that they wait for a connection: what is
/// over this soon did not wait for either. It takes a fraction of a second, and a few seconds on a slow machine.
const SOON: Duration = Duration::from_secs(20);

/// As [`assert_reset`], but soon. [`harness::PATIENCE`] is longer than streams wait for a connection, and they are reset
/// after that in any case.
#[track_caller]
fn assert_reset_soon(visitor: TcpStream, message: &[u8]) {
    visitor.set_read_timeout(Some(SOON)).expect("an option");
    assert_reset(Ok(visitor), message);
}

/// A session that is served, as soon as one is.
fn session(port: u16) -> TcpStream {
    let mut served = None;
    until("a session is served", || {
        let attempt = connect(port).and_then(|mut stream| round_trip(&mut stream, b"x").map(|_| stream));
        served = attempt.ok();
        served.is_some()
    });
    served.expect("just seen")
}

#[test]
fn megabytes_pass_both_ways_and_the_end_of_one_direction_leaves_the_other() {
    let (up, down) = (bytes(8 << 20), bytes(4 << 20));
    let answer = down.clone();
    // The answer begins after the end of the question.
    let serve = move |mut stream: TcpStream| {
        let mut question = Vec::new();
        let read = stream.read_to_end(&mut question);
        // A visitor that was too early is gone.
        let _ = read.and_then(|_| stream.write_all(&[sum(&question), answer.clone()].concat()));
    };
    let backend = Backend::start(Behaviour::Run(Arc::new(serve)));
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    let _agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    until("a question is answered", || echoed(port, b"x").is_ok_and(|answer| answer.len() > 32));
    let reply = echoed(port, &up).expect("an answer");
    assert_eq!(reply.len(), 32 + down.len());
    assert_eq!((&reply[..32], sum(&reply[32..])), (&*sum(&up), sum(&down)));
}

#[test]
fn streams_under_load_survive_connections_that_are_cut() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let cutter = Cutter::start(4, 1 << 20);
    let advertise = format!("127.0.0.1:{}", cutter.port());
    let server = Server::start(&manifests(port, backend.port, ""), &["--tunnel-advertise", &advertise]);
    cutter.lead_to(server.tunnel);
    let _agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    drop(session(port));
    let (sent, before) = (bytes(2 << 20), backend.count());
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..4).map(|_| scope.spawn(|| echoed(port, &sent))).collect();
        for visitor in visitors {
            let back = visitor.join().expect("a visitor ends").expect("no stream breaks");
            assert_eq!((back.len(), sum(&back)), (sent.len(), sum(&sent)));
        }
    });
    assert_eq!((cutter.cuts_left(), backend.count() - before), (0, 4));
}

#[test]
fn another_instance_takes_over_for_one_that_was_killed_and_later_serves_without_a_join_string() {
    let backend = Backend::start(Behaviour::Echo);
    let target = [backend.port];
    let port = free_port();
    let [first_folder, second_folder] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, "enrolment: {redemptions: 2}"), &[]);
    let join = server.join("");
    let first = Agent::connected("first", first_folder.path(), &target, Some(&join));
    let visitor = session(port);
    drop(first);
    drop(connect(port).expect("the port does not refuse while no instance is there"));
    let second = Agent::connected("second", second_folder.path(), &target, Some(&join));
    until("the second instance serves", || echoes(port));
    let _first = Agent::connected("first", first_folder.path(), &target, None);
    assert_reset_soon(visitor, b"x");
    drop(second);
    until("the first instance serves again", || echoes(port));
}

#[test]
fn an_agent_that_gets_sigterm_lets_its_streams_finish_and_takes_no_new_ones() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let server = Server::start(&manifests(port, backend.port, ""), &[]);
    let mut agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    let mut live = session(port);
    agent.program.signal(Signal::TERM);
    until("no new session is served", || !echoes(port));
    for _ in 0..10 {
        round_trip(&mut live, b"still").expect("a live session keeps running");
    }
    assert!(agent.program.is_running());
    drop(live);
    assert!(agent.program.wait_for_end(Duration::from_secs(10)).success());
}

#[test]
fn two_instances_share_the_sessions_and_a_third_one_is_told_that_there_are_enough() {
    let backend = Backend::start(Behaviour::Echo);
    let target = [backend.port];
    let port = free_port();
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("folder"));
    let limits = "maxInstances: 2\nenrolment: {redemptions: 3}";
    let server = Server::start(&manifests(port, backend.port, limits), &[]);
    let join = server.join("");
    let [first, second] = [("first", 0), ("second", 1)]
        .map(|(name, at): (&str, usize)| Agent::connected(name, folders[at].path(), &target, Some(&join)));
    let mut sessions = Vec::new();
    until("both instances serve", || {
        sessions.push(session(port));
        first.streams() > 0.0 && second.streams() > 0.0
    });
    let before = [first.streams(), second.streams()];
    sessions.extend((0..8).map(|_| session(port)));
    let more = [first.streams() - before[0], second.streams() - before[1]];
    assert!(more.iter().all(|streams| *streams >= 2.0), "{more:?}");
    let third = Agent::start("third", folders[2].path(), &target, Some(&join));
    line(&third.program, &["may have 2", "raise maxInstances"]);
    assert!(!third.is_connected());
    drop(sessions);
}

#[test]
fn a_join_string_is_in_a_file_for_its_owner_alone_and_not_in_the_log() {
    let server = Server::start(&manifests(free_port(), 9, ""), &[]);
    let join = server.join("");
    let mode = server.join_file().metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    line(&server.program, &["tunnels/join/default.home"]);
    assert!(server.program.events().iter().all(|event| !event.to_string().contains(&join)));
}

#[test]
fn an_agent_that_cannot_connect_for_want_of_an_address_is_warned_of() {
    let program = Program::run(&manifests(free_port(), 9, ""), free_port(), &[]);
    let warning = program.wait("tunnels", "default/home");
    assert!(warning["message"].as_str().is_some_and(|text| text.contains("--tunnel-address IP:PORT")), "{warning}");
}

#[test]
fn a_server_counts_the_instances_that_are_connected() {
    let backend = Backend::start(Behaviour::Echo);
    let server = Server::start(&manifests(free_port(), backend.port, ""), &[]);
    assert!(server.agents() < 1.0);
    let folder = tempfile::tempdir().expect("folder");
    let _agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    until("the agent is counted", || server.agents() > 0.0);
}

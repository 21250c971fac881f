//! Edits of /etc/hosts and /etc/resolv.conf while Portlane runs, as by a person or a VPN.

use std::time::Duration;

use harness::{Dns, Kind, Machine, PATIENCE, RecordingServer, Reply, until, until_within};
use rustix::process::Signal;

use crate::{QUICK, SERVE, endpoints, failing, forward_to, ip, session};

/// Longest time until an edit counts: five seconds, and two for a slow machine.
const SEEN: Duration = Duration::from_secs(7);

/// Waits until sessions reach this address.
#[track_caller]
fn reaches(machine: &Machine, address: &str) {
    until_within(SEEN, address, || session(machine, 0).is_ok_and(|reached| reached == ip(address)));
}

#[test]
fn an_edit_of_hosts_counts_within_five_seconds() {
    // T8
    let machine = Machine::start(b"127.0.0.41 db.test\n", QUICK);
    let _dns = Dns::start(&machine, "127.0.0.1", "db.test 127.0.0.43\n");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let _program = machine.run(&forward_to(0, "db.test", ""));
    reaches(&machine, "127.0.0.41");
    machine.replace("hosts", b"127.0.0.42 db.test\n");
    reaches(&machine, "127.0.0.42");
    machine.overwrite("hosts", b"# nothing\n");
    reaches(&machine, "127.0.0.43");
}

#[test]
fn a_name_that_is_removed_from_hosts_and_is_nowhere_else_has_no_address() {
    let machine = Machine::start(b"127.0.0.41 db.test\n", QUICK);
    let _dns = Dns::start(&machine, "127.0.0.1", "");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let _program = machine.run(&forward_to(0, "db.test", ""));
    reaches(&machine, "127.0.0.41");
    machine.replace("hosts", b"# nothing\n");
    assert!(machine.getent("db.test").is_empty());
    until_within(SEEN, "the address is out of use", || session(&machine, 0).is_err());
    machine.replace("hosts", b"127.0.0.42 db.test\n");
    reaches(&machine, "127.0.0.42");
}

#[test]
fn an_edit_of_resolv_conf_counts_within_five_seconds() {
    // T8
    let machine = Machine::start(b"", QUICK);
    let _office = Dns::start(&machine, "127.0.0.1", "db.test 127.0.0.51\n");
    let _vpn = Dns::start(&machine, "127.0.0.2", "db.test 127.0.0.52\n");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let _program = machine.run(&forward_to(0, "db.test", ""));
    reaches(&machine, "127.0.0.51");
    machine.replace("resolv.conf", b"nameserver 127.0.0.2\noptions timeout:1 attempts:1\n");
    reaches(&machine, "127.0.0.52");
    machine.overwrite("resolv.conf", b"nameserver 127.0.0.3\noptions timeout:1 attempts:1\n");
    until("the name fails without a server", || failing(&machine) >= 1.0);
    assert_eq!(session(&machine, 0).expect("the last address stays in use"), ip("127.0.0.52"));
    machine.overwrite("resolv.conf", QUICK);
    reaches(&machine, "127.0.0.51");
    until("the name does not fail", || failing(&machine) == 0.0);
}

#[test]
fn a_search_domain_that_is_added_counts_within_five_seconds() {
    // T8: a name that did not exist.
    let machine = Machine::start(b"", QUICK);
    let _dns = Dns::start(&machine, "127.0.0.1", "db.office.test 127.0.0.53\n");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let _program = machine.run(&forward_to(0, "db", ""));
    until("the name fails", || failing(&machine) >= 1.0);
    machine.overwrite("resolv.conf", b"nameserver 127.0.0.1\nsearch office.test\n");
    reaches(&machine, "127.0.0.53");
}

#[test]
fn a_file_that_is_written_again_and_again_stops_no_lookup() {
    let machine = Machine::start(b"127.0.0.9 other.test\n", b"nameserver 127.0.0.1\noptions timeout:5 attempts:1\n");
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let found = Reply::addresses(120, &["127.0.0.41"]);
    // Longer than the time between two looks at the files.
    dns.set("db.test", Kind::A, Reply::Late(Duration::from_secs(3), Box::new(found)));
    dns.set("db.test", Kind::Aaaa, Reply::NoName);
    let _program = machine.run(&forward_to(0, "db.test", ""));
    let mut writes = 0;
    until_within(PATIENCE, "the name is found", || {
        writes += 1;
        machine.replace("hosts", format!("127.0.0.9 other.test # {writes}\n").as_bytes());
        endpoints(&machine) == [1]
    });
}

#[test]
fn a_pipe_in_the_place_of_a_file_stops_nothing_and_keeps_the_last_settings() {
    let machine = Machine::start(b"127.0.0.41 db.test\n", QUICK);
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let program = machine.run(&forward_to(0, "db.test", ""));
    reaches(&machine, "127.0.0.41");
    for name in ["hosts", "resolv.conf"] {
        machine.replace_by_pipe(name);
        until("the log names the file", || {
            program.events().iter().any(|line| line["event"] == "resolver" && line.to_string().contains(name))
        });
        assert_eq!(machine.get("/livez").expect("an answer").0, 200);
        assert_eq!(session(&machine, 0).expect("a session"), ip("127.0.0.41"));
    }
    machine.replace("hosts", b"127.0.0.42 db.test\n");
    reaches(&machine, "127.0.0.42");
}

#[test]
fn a_dead_mount_over_a_file_stalls_neither_names_nor_the_start_nor_the_end() {
    let machine = Machine::start(b"127.0.0.41 db.test\n", QUICK);
    let _office = Dns::start(&machine, "127.0.0.1", "other.test 127.0.0.51\n");
    let _vpn = Dns::start(&machine, "127.0.0.2", "other.test 127.0.0.52\n");
    let _servers = [0, 1].map(|number| RecordingServer::start(&machine, "::", SERVE + number));
    let manifest = format!("{}{}", forward_to(0, "db.test", ""), forward_to(1, "other.test", ""));
    let mut program = machine.run(&manifest);
    let reached = |number| session(&machine, number).ok();
    until("both names are found", || reached(0) == Some(ip("127.0.0.41")) && reached(1) == Some(ip("127.0.0.51")));
    let _dead = machine.mount_dead("hosts");
    until("the log names the file and says what to do", || {
        let is_it = |line: &str| line.contains("/etc/hosts") && line.contains("dead mount");
        program.events().iter().any(|line| line["event"] == "resolver" && is_it(&line.to_string()))
    });
    assert_eq!(machine.get("/livez").expect("an answer").0, 200);
    assert_eq!(reached(0), Some(ip("127.0.0.41")), "the last content counts");
    machine.replace("resolv.conf", b"nameserver 127.0.0.2\noptions timeout:1 attempts:1\n");
    until_within(SEEN, "an edit of the other file counts", || reached(1) == Some(ip("127.0.0.52")));
    program.signal(Signal::TERM);
    assert!(program.wait_for_end(PATIENCE).success());
    let mut again = machine.run(&manifest);
    until("a name of DNS is found", || reached(1) == Some(ip("127.0.0.52")));
    again.signal(Signal::TERM);
    assert!(again.wait_for_end(PATIENCE).success());
}

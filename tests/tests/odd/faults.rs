//! Name servers that answer late, in part, too much, falsely, or not at all.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use harness::{Dns, Kind, Machine, RecordingServer, Reply, assert_reset, until, until_within};

use crate::{LISTEN, QUICK, SERVE, checked, endpoints, failing, forward_to, ip, session};

/// Longest wait for a question that should be asked every five seconds, on a slow machine.
const ASKED_AGAIN: Duration = Duration::from_secs(15);

#[test]
fn a_family_that_fails_keeps_its_addresses_counts_as_failing_and_is_asked_again() {
    // T1, D5: the service is on IPv4 only, and the answer for IPv6 is good for two minutes.
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let four = |seconds| Reply::addresses(seconds, &["127.0.0.1"]);
    let late = Reply::Late(Duration::from_millis(600), Box::new(four(1)));
    let names = [("failed.test", Reply::ServFail), ("lost.test", Reply::Silent), ("late.test", late)];
    let backends: Vec<RecordingServer> =
        (0..3).map(|number| RecordingServer::start(&machine, "0.0.0.0", SERVE + number)).collect();
    for (name, _) in &names {
        dns.set(name, Kind::A, four(1));
        dns.set(name, Kind::Aaaa, Reply::addresses(1, &["::1"]));
    }
    let manifest: String = (0..).zip(&names).map(|(number, (name, _))| forward_to(number, name, "")).collect();
    let _program = machine.run(&manifest);
    until("all names have both families", || endpoints(&machine) == [2, 2, 2]);
    let times = || names.each_ref().map(|(name, _)| dns.times(name, Kind::A));
    let before = times();
    for (name, reply) in &names {
        dns.set(name, Kind::A, reply.clone());
        dns.set(name, Kind::Aaaa, Reply::addresses(120, &["::1"]));
    }
    until_within(ASKED_AGAIN * 2, "each name is asked for IPv4 twice more", || {
        for number in 0..3 {
            assert_eq!(session(&machine, number).expect("the address stays in use"), ip("127.0.0.1"));
        }
        times().iter().zip(before).all(|(now, before)| *now >= before + 2)
    });
    until("two names count as failing", || failing(&machine) >= 2.0);
    for (name, _) in &names {
        dns.set(name, Kind::A, four(120));
    }
    until_within(ASKED_AGAIN, "no name fails", || failing(&machine) == 0.0);
    assert!(backends.iter().all(|backend| !backend.reached().is_empty()));
}

#[test]
fn a_family_that_fails_at_first_is_asked_again_although_the_other_is_good_for_long() {
    // T1
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let _server = RecordingServer::start(&machine, "0.0.0.0", SERVE);
    dns.set("first.test", Kind::A, Reply::ServFail);
    dns.set("first.test", Kind::Aaaa, Reply::addresses(120, &["::1"]));
    let _program = machine.run(&forward_to(0, "first.test", ""));
    until("half an answer counts as failing", || failing(&machine) >= 1.0);
    dns.set("first.test", Kind::A, Reply::addresses(120, &["127.0.0.1"]));
    until_within(ASKED_AGAIN, "IPv4 is found", || session(&machine, 0).is_ok());
    until("the name does not fail", || failing(&machine) == 0.0);
}

#[test]
fn a_session_that_comes_before_the_first_answer_waits_for_it() {
    // T5
    let machine = Machine::start(b"", b"nameserver 127.0.0.1\n");
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    for (name, address) in [("slow.test", "127.0.0.31"), ("other.test", "127.0.0.32")] {
        let late = |addresses: &[&str]| Reply::Late(Duration::from_secs(1), Box::new(Reply::addresses(300, addresses)));
        dns.set(name, Kind::A, late(&[address]));
        dns.set(name, Kind::Aaaa, late(&[]));
    }
    let program = machine.run(&forward_to(0, "slow.test", ""));
    assert_eq!(session(&machine, 0).expect("it waits after the start"), ip("127.0.0.31"));
    program.edit_and_wait(&forward_to(0, "other.test", ""), "swapped", "f0/l");
    assert_eq!(session(&machine, 0).expect("it waits after an edit"), ip("127.0.0.32"));
    assert_eq!(machine.getent("slow.test"), BTreeSet::from([ip("127.0.0.31")]));
}

#[test]
fn a_session_waits_no_longer_for_an_answer_than_for_a_connection() {
    // T5
    let machine = Machine::start(b"", b"nameserver 127.0.0.1\n");
    let _dns = Dns::start(&machine, "127.0.0.1", "* silent\n");
    let spec = "timeouts: {connectSeconds: 1}\nretry: {attempts: 1}";
    let _program = machine.run(&forward_to(0, "silent.test", spec));
    assert_reset(machine.connect(LISTEN), b"x");
}

#[test]
fn names_that_wait_for_the_lookups_of_their_namespace_are_told_for_each_forward() {
    // Silence costs ten seconds a name, and the last eight of forty names wait for others.
    let machine = Machine::start(b"", b"nameserver 127.0.0.1\n");
    let _dns = Dns::start(&machine, "127.0.0.1", "* silent\n");
    let manifest: String = (0..40).map(|number| forward_to(number, &format!("n{number}.test"), "")).collect();
    let program = machine.run(&manifest);
    until("the log tells of all forwards", || {
        let events = program.events();
        let told = events.iter().filter(|line| line["event"] == "limit_reached");
        told.filter(|line| line.to_string().contains("LookupLimit")).count() == 40
    });
}

#[test]
fn thousands_of_addresses_are_cut_to_a_bound_and_the_log_says_so() {
    // D8
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let backend = RecordingServer::start(&machine, "0.0.0.0", SERVE);
    let many = (0..16_u8).flat_map(|third| (1..=250).map(move |last| IpAddr::from([127, 1, third, last])));
    dns.set("many.test", Kind::A, Reply::Addresses(many.collect(), 300));
    let program = machine.run(&forward_to(0, "many.test", ""));
    until("a session is served", || session(&machine, 0).is_ok());
    let used = endpoints(&machine);
    assert!(matches!(used[..], [1..4000]), "of 4000 addresses: {used:?}");
    assert!(!backend.reached().is_empty());
    until("the log warns of the name", || {
        program.events().iter().any(|line| line["level"] == "warn" && line.to_string().contains("many.test"))
    });
}

#[test]
fn an_answer_that_was_cut_is_asked_for_again_over_tcp() {
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let whole = Reply::addresses(300, &["127.0.0.71", "127.0.0.72", "127.0.0.73"]);
    dns.set("cut.test", Kind::A, Reply::Truncated(Box::new(whole)));
    let _program = machine.run(&forward_to(0, "cut.test", ""));
    until("all three addresses are there", || endpoints(&machine) == [3]);
    assert!(session(&machine, 0).is_ok());
    assert!(dns.asked().iter().any(|asked| asked.tcp && asked.kind == Some(Kind::A)));
    assert_eq!(machine.getent("cut.test"), BTreeSet::from(["127.0.0.71", "127.0.0.72", "127.0.0.73"].map(ip)));
}

#[test]
fn nothing_but_the_answer_to_the_question_from_the_server_that_was_asked_counts() {
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let backend = RecordingServer::start(&machine, "::", SERVE);
    let truth = BTreeSet::from([ip("127.0.0.81"), ip("2001:db8::81")]);
    let lies = |address: &str| Reply::Lies(Box::new(Reply::addresses(1, &[address])));
    let of_families = [(Kind::A, "127.0.0.81"), (Kind::Aaaa, "2001:db8::81")];
    for (kind, address) in of_families {
        dns.set("true.test", kind, lies(address));
    }
    assert_eq!(machine.getent("true.test"), truth);
    for (kind, address) in of_families {
        dns.set("true.test", kind, Reply::Stub(Box::new(lies(address))));
    }
    let before = dns.times("true.test", Kind::A);
    let _program = machine.run(&checked(0, "true.test"));
    until("the name was asked for twice, and both addresses were checked", || {
        let reached = backend.reached();
        dns.times("true.test", Kind::A) >= before + 2 && truth.iter().all(|address| reached.get(address) >= Some(&2))
    });
    assert_eq!(backend.reached().into_keys().collect::<BTreeSet<_>>(), truth);
    assert!(failing(&machine) == 0.0);
}

#[test]
fn a_family_that_is_silent_leads_to_no_other_search_domain() {
    let machine =
        Machine::start(b"", b"search app.test other.test\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    let dns = Dns::start(&machine, "127.0.0.1", "db.other.test 127.0.0.91\n");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    dns.set("db.app.test", Kind::A, Reply::Silent);
    assert_eq!(machine.getent("db"), BTreeSet::new());
    let _program = machine.run(&forward_to(0, "db", ""));
    until("the name fails", || failing(&machine) >= 1.0);
    assert_eq!(dns.times("db.other.test", Kind::A), 0);
    dns.set("db.app.test", Kind::A, Reply::addresses(300, &["127.0.0.92"]));
    until_within(ASKED_AGAIN, "IPv4 is found", || session(&machine, 0).is_ok_and(|at| at == ip("127.0.0.92")));
}

#[test]
fn addresses_of_other_names_in_an_answer_do_not_count() {
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let own = Box::new(Reply::addresses(300, &["127.0.0.94"]));
    dns.set("own.test", Kind::A, Reply::Beside(ip("127.0.0.95"), own));
    assert_eq!(machine.getent("own.test"), BTreeSet::from([ip("127.0.0.94")]));
    let _program = machine.run(&forward_to(0, "own.test", ""));
    until("one address is there", || endpoints(&machine) == [1]);
    assert_eq!(session(&machine, 0).expect("a session"), ip("127.0.0.94"));
}

#[test]
fn a_datagram_that_is_longer_than_allowed_and_not_marked_counts_whole() {
    let machine = Machine::start(b"", QUICK);
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let _server = RecordingServer::start(&machine, "::", SERVE);
    let many: BTreeSet<IpAddr> = (1..=40).map(|last| IpAddr::from([127, 0, 1, last])).collect();
    let whole = Reply::Addresses(many.iter().copied().collect(), 300);
    dns.set("long.test", Kind::A, Reply::Uncut(Box::new(whole)));
    assert_eq!(machine.getent("long.test"), many);
    let _program = machine.run(&forward_to(0, "long.test", ""));
    until("all addresses are there", || endpoints(&machine) == [40]);
    assert!(dns.asked().iter().all(|asked| !asked.tcp));
}

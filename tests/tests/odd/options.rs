//! Options of resolv.conf that say when a server is asked, and which one.

use std::time::Duration;

use harness::{Dns, Kind, Machine, Reply, until};

use crate::{endpoints, forward_to};

#[test]
fn with_single_request_the_second_family_is_asked_for_after_the_first_was_answered() {
    let machine = Machine::start(b"", b"nameserver 127.0.0.1\noptions single-request\n");
    let dns = Dns::start(&machine, "127.0.0.1", "");
    let late = Duration::from_secs(1);
    dns.set("a.test", Kind::A, Reply::Late(late, Box::new(Reply::addresses(300, &["192.0.2.91"]))));
    dns.set("a.test", Kind::Aaaa, Reply::addresses(300, &["2001:db8::91"]));
    let _program = machine.run(&forward_to(0, "a.test", ""));
    until("both families are there", || endpoints(&machine) == [2]);
    let asked = dns.asked();
    let at = |kind| asked.iter().find(|asked| asked.kind == Some(kind)).expect("it was asked for").at;
    assert!(at(Kind::Aaaa) >= at(Kind::A) + late, "{asked:?}");
}

#[test]
fn without_single_request_the_second_family_does_not_wait_for_the_first() {
    let machine = Machine::start(b"", b"nameserver 127.0.0.1\noptions timeout:5 attempts:2\n");
    let dns = Dns::start(&machine, "127.0.0.1", "a.test silent\n");
    let _program = machine.run(&forward_to(0, "a.test", ""));
    let first = |kind| dns.asked().into_iter().find(|asked| asked.kind == Some(kind));
    until("both are asked for", || first(Kind::A).is_some() && first(Kind::Aaaa).is_some());
    let [four, six] = [Kind::A, Kind::Aaaa].map(|kind| first(kind).expect("it was asked for").at);
    // The first is given up after ten seconds.
    assert!(six < four + Duration::from_secs(5), "{:?}", dns.asked());
}

#[test]
fn with_rotate_each_server_gets_its_turn_although_the_first_answers() {
    let machine = Machine::start(b"", b"nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions rotate\n");
    let zone = "a.test 192.0.2.91 2001:db8::91\n";
    let servers = ["127.0.0.1", "127.0.0.2"].map(|address| Dns::start(&machine, address, zone));
    let _program = machine.run(&forward_to(0, "a.test", ""));
    until("both families are there", || endpoints(&machine) == [2]);
    let asked = servers.map(|server| server.asked());
    assert!(asked.iter().all(|asked| !asked.is_empty()), "{asked:?}");
}

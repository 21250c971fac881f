//! Networks that answer datagrams with ICMP errors.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use harness::{Listener, Machine, forward, until};

use crate::{LISTEN, QUICK, SERVE, failing, forward_to};

/// Addresses of a machine, and the error that it answers there, in the words of nftables. The error itself comes back to
/// the same address.
const REFUSALS: [(&str, &str); 10] = [
    ("192.0.2.51", "meta l4proto udp reject with icmp host-unreachable"),
    ("192.0.2.52", "meta l4proto udp reject with icmp net-unreachable"),
    ("192.0.2.53", "meta l4proto udp reject with icmp prot-unreachable"),
    ("192.0.2.54", "meta l4proto udp reject with icmp admin-prohibited"),
    ("192.0.2.55", "meta l4proto udp reject with icmp port-unreachable"),
    ("2001:db8::51", "meta l4proto udp reject with icmpv6 no-route"),
    ("2001:db8::52", "meta l4proto udp reject with icmpv6 addr-unreachable"),
    ("2001:db8::53", "meta l4proto udp reject with icmpv6 admin-prohibited"),
    ("2001:db8::54", "meta l4proto udp reject with icmpv6 policy-fail"),
    ("2001:db8::55", "meta l4proto udp reject with icmpv6 reject-route"),
];

#[test]
fn an_endpoint_that_icmp_reports_as_unreachable_is_ejected_whatever_the_code() {
    // T4
    let machine = Machine::start(b"", QUICK);
    machine.filter(&REFUSALS);
    let forwards = (0..).zip(REFUSALS).map(|(number, (address, _))| {
        let backend = format!("address: {{host: \"{address}\", port: {SERVE}}}");
        let listener = Listener::udp("u", LISTEN + number).backend(&backend);
        forward(&format!("f{number}"), "", &[listener.with("outlier: {consecutiveFailures: 3}")])
    });
    let program = machine.run(&forwards.collect::<String>());
    for (number, (address, refusal)) in (0..).zip(REFUSALS) {
        until(&format!("{address} is ejected ({refusal})"), || {
            let client = machine.within(|| UdpSocket::bind("127.0.0.1:0")).expect("bind");
            client.send_to(b"question", ("127.0.0.1", LISTEN + number)).expect("send");
            let subject = format!("f{number}/u");
            let is_it = |event: &str| event.contains(&subject);
            program.events().iter().any(|line| line["event"] == "ejected" && is_it(&line.to_string()))
        });
    }
}

#[test]
fn a_name_server_that_icmp_reports_as_unreachable_is_not_waited_for() {
    // The question may take 20 s.
    let machine = Machine::start(b"", b"nameserver 192.0.2.51\noptions timeout:20 attempts:1\n");
    machine.filter(&REFUSALS);
    let began = Instant::now();
    let _program = machine.run(&forward_to(0, "a.test", ""));
    until("the name fails", || failing(&machine) > 0.0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

//! A table of names, hosts files and resolv.conf files: Portlane goes to the addresses that getent has, and to no others.

mod answers;
mod files;
mod names;
mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::resume_unwind,
    thread,
};

use harness::{Dns, Machine, RecordingServer, until};

use crate::{LISTEN, SERVE, checked, failing, ip, session};

/// A hosts file as every machine has it.
const PLAIN: &[u8] = b"127.0.0.1\tlocalhost\n";

/// Names with and without dots, as they are and in two domains.
const DOMAINS: &str = "single 192.0.2.31\n\
    single.trap.test 192.0.2.32\n\
    single.first.test 192.0.2.40\n\
    gone.first.test 192.0.2.41\n\
    a.dotted 192.0.2.34\n\
    a.dotted.trap.test 192.0.2.35\n\
    a.suffix.trap.test 192.0.2.36\n";

/// One machine, and names with the addresses that its own resolver has for them.
struct Case<'a> {
    hosts: &'a [u8],
    resolv_conf: &'a [u8],
    /// Name servers by their addresses, with their zones.
    servers: &'a [(&'a str, &'a str)],
    names: &'a [(&'a str, &'a [&'a str])],
}

/// Compares Portlane with getent and with the table, and returns the name servers.
fn agrees(case: &Case<'_>) -> Vec<Dns> {
    let machine = Machine::start(case.hosts, case.resolv_conf);
    let servers: Vec<Dns> = case.servers.iter().map(|(address, zone)| Dns::start(&machine, address, zone)).collect();
    let names: Vec<(u16, &str, BTreeSet<IpAddr>)> = (0..)
        .zip(case.names)
        .map(|(number, (name, addresses))| (number, *name, addresses.iter().map(|text| ip(text)).collect()))
        .collect();
    let backends: Vec<RecordingServer> =
        names.iter().map(|(number, ..)| RecordingServer::start(&machine, "::", SERVE + number)).collect();
    let manifest: String = names.iter().map(|(number, name, _)| checked(*number, name)).collect();
    thread::scope(|scope| {
        let machine = &machine;
        let system: Vec<_> = names.iter().map(|&(_, name, _)| scope.spawn(move || machine.getent(name))).collect();
        let _program = machine.run(&manifest);
        for (((_, name, expected), system), backend) in names.iter().zip(system).zip(&backends) {
            let system = system.join().expect("getent ends");
            assert_eq!(system, *expected, "{name}: the system differs from the table");
            until(&format!("two checks of each of {expected:?}, for {name}"), || {
                all_twice(expected, &backend.reached())
            });
        }
        let unknown = names.iter().filter(|(.., expected)| expected.is_empty()).count();
        until(&format!("{unknown} names fail"), || failing(machine) >= f64::from(u16::try_from(unknown).expect("few")));
        for ((number, name, expected), backend) in names.iter().zip(&backends) {
            let reached: BTreeSet<IpAddr> = backend.reached().into_keys().collect();
            assert_eq!(reached, *expected, "{name}: Portlane differs from the system");
            if !expected.is_empty() {
                let reached = session(machine, *number).expect("a session");
                assert!(expected.contains(&reached), "{name} at {}: {reached}", LISTEN + number);
            }
        }
    });
    servers
}

/// Compares several machines at a time.
fn all_agree(cases: &[Case<'_>]) {
    thread::scope(|scope| {
        let all: Vec<_> = cases.iter().map(|case| scope.spawn(move || agrees(case))).collect();
        for one in all {
            drop(one.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
}

fn all_twice(expected: &BTreeSet<IpAddr>, reached: &BTreeMap<IpAddr, usize>) -> bool {
    expected.iter().all(|address| reached.get(address).is_some_and(|count| *count >= 2))
}

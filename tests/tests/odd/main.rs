//! Names that resolve as the system's own resolver resolves them, and name servers and networks that go wrong: machines
//! of the tests' own, with the hosts, resolv.conf and name servers that a test needs.
#![cfg(target_os = "linux")]
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod closed;
mod edits;
mod families;
mod faults;
mod icmp;
mod local_ports;
mod memory;
mod options;
mod system;

use std::{io, net::IpAddr};

use harness::{Listener, Machine, forward, greeting};

/// Port of the first forward; every machine has a network of its own.
const LISTEN: u16 = 10_000;
/// Port of the first server.
const SERVE: u16 = 20_000;
/// One name server, whose silence costs a second.
const QUICK: &[u8] = b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

/// The forward of this number, to the server of this number at a host. `spec` holds further fields.
fn forward_to(number: u16, host: &str, spec: &str) -> String {
    let backend = format!("address: {{host: {host}, port: {}}}", SERVE + number);
    forward(&format!("f{number}"), spec, &[Listener::tcp("l", LISTEN + number).backend(&backend)])
}

/// As [`forward_to`]; each address that the host has gets a connection every second.
fn checked(number: u16, host: &str) -> String {
    let backend = format!("address: {{host: {host}, port: {}}}", SERVE + number);
    let listener = Listener::tcp("l", LISTEN + number).backend(&backend);
    forward(&format!("f{number}"), "", &[listener.with("healthCheck: {tcp: {}, intervalSeconds: 1}")])
}

/// The address that a new session of the forward of this number reaches.
fn session(machine: &Machine, number: u16) -> io::Result<IpAddr> {
    let greeting = greeting(&mut machine.connect(LISTEN + number)?)?;
    greeting.trim_end_matches(": ").parse().map_err(io::Error::other)
}

/// How many names do not resolve; not a number while the program does not say.
fn failing(machine: &Machine) -> f64 {
    machine.metric("portlane_dns_failing ").unwrap_or(f64::NAN)
}

/// How many addresses the backend of each forward has.
fn endpoints(machine: &Machine) -> Vec<u64> {
    let text = machine.get("/metrics").map(|(_, text)| text).unwrap_or_default();
    let series = text.lines().filter(|line| line.starts_with("portlane_backend_endpoints{"));
    series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

//! Tests of the built programs from outside, with real sockets and without a cluster.
#![allow(missing_docs, reason = "tests")]

mod admin_page;
mod balancing;
mod bounds;
mod change;
mod doors;
mod drains;
mod durable;
mod examples;
mod flood;
mod guard;
mod health;
mod lifecycle;
mod local;
mod loops;
mod operator_probes;
mod proxy_protocol;
mod ranges;
mod reading;
mod resets;
mod sessions;
mod sessions_odd;
mod sidecar;
mod tcp;
mod tenants;
mod terminal;
mod timers;
mod tunnels;
mod udp;
mod udp_odd;

use harness::{Listener, Program, forward, free_port};

/// `portlane run` of one forward with these listeners, and the port of its health server.
fn run(listeners: &[Listener]) -> (Program, u16) {
    run_with("", listeners, &[])
}

/// As [`run`], with further lines of the forward's spec and further arguments.
fn run_with(spec: &str, listeners: &[Listener], arguments: &[&str]) -> (Program, u16) {
    let health = free_port();
    (Program::run(&forward("f", spec, listeners), health, arguments), health)
}

//! Tests of the built programs from outside, with real sockets and without a cluster.
#![allow(missing_docs, reason = "tests")]

mod bounds;
mod change;
mod examples;
mod guard;
mod health;
mod lifecycle;
mod proxy_protocol;
mod ranges;
mod sidecar;
mod tcp;
mod tenants;
mod udp;

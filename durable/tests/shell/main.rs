//! The store on a real folder and on one that fails, and intakes and sinks on loopback sockets.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod drain;
mod failures;
mod folder;
mod gathering;
mod kills;
#[cfg(target_os = "linux")]
mod lanes;
mod letters;
mod panics;
mod port;
mod room;
mod sender;
mod sinks;
mod store;
mod streams;
mod to_http;
mod to_relp;
mod to_tcp;
mod to_udp;
mod udp;
mod world;
mod write_back;

//! The store on a real folder and on one that fails, and intakes on loopback sockets.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod failures;
mod folder;
mod kills;
mod port;
mod sender;
mod store;
mod streams;
mod udp;
mod world;

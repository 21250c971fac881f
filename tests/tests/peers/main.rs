//! The built programs and other projects' programs on real sockets. `docs/protocols.md` names the test of each protocol;
//! `cargo xtask setup node` installs the programs.
#![allow(missing_docs, reason = "tests")]

mod admin_page;
mod databases;
mod files;
mod jetstream;
mod messaging;
#[cfg(target_os = "linux")]
mod monitoring;
mod network;
mod page;
mod proxy_protocol;
#[cfg(target_os = "linux")]
mod registry;
mod relp;
mod remote;
mod rtp;
mod server;
mod site;
mod sql;
mod tls;
mod web;

//! The built programs and other projects' programs on real sockets: openssl, curl, redis, `HAProxy`, nginx, `SIPp`,
//! `MariaDB`, `PostgreSQL`.
//! `cargo xtask setup node` installs them.
#![allow(missing_docs, reason = "tests")]

mod databases;
mod proxy_protocol;
mod rtp;
mod tls;

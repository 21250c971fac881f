//! The built programs and other projects' programs on real sockets: openssl, curl, redis, `HAProxy`, nginx, `SIPp`.
//! `cargo xtask setup node` installs them.
#![allow(missing_docs, reason = "tests")]

mod proxy_protocol;
mod rtp;
mod tls;

//! Streams through tunnels whose connections are cut, frozen and replaced.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod bounds;
mod bytes;
mod flows;
mod opening;
mod pair;
mod relays;
mod resets;
mod resumption;

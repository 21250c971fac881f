//! Free ports outside the ephemeral range, from which the system takes ports for outgoing connections.

use std::{
    net::{TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// A port that is free on TCP and UDP; this process never gets the same port twice.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = LAST - FIRST;
    let start = u16::try_from(u64::from(std::process::id()).wrapping_mul(7919) % u64::from(width)).unwrap_or(0);
    for _ in 0..width {
        let step = NEXT.fetch_add(1, Relaxed);
        let port = FIRST + (start.wrapping_add(step) % width);
        if TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("::", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
    panic!("no free port in {FIRST}..{LAST}");
}

/// The first of `count` consecutive free ports.
///
/// # Panics
/// If no such range is found.
#[must_use]
pub fn free_range(count: u16) -> u16 {
    let row = || {
        let first = free_port();
        (1..count).all(|further| first.checked_add(further) == Some(free_port())).then_some(first)
    };
    (0..200).find_map(|_| row()).expect("consecutive free ports")
}

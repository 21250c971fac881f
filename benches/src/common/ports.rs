//! Ports of what is measured, below those of servers and of clients.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// The first port.
const FIRST: u16 = 1100;
/// The port after the last one.
const END: u16 = 7000;

/// The first of so many ports that nothing has had lately: connections of something earlier may be in `TIME_WAIT`.
pub(crate) fn fresh(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST);
    let first = NEXT.fetch_add(count, Relaxed);
    if first + 2 * count >= END {
        NEXT.store(FIRST, Relaxed);
    }
    first
}

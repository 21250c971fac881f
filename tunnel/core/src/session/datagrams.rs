//! Datagrams that wait for the carrier.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{DATAGRAM_COST, LANE_AGE, LANE_BYTES};
use crate::queue::shrink;

#[derive(Debug)]
struct Waiting {
    flow: u32,
    since: Duration,
    datagram: Vec<u8>,
}

/// A queue of datagrams. New datagrams replace the oldest.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Lane {
    /// Adds a datagram, and returns how many older ones were dropped for it.
    pub(super) fn push(&mut self, flow: u32, datagram: &[u8], now: Duration) -> u64 {
        let mut dropped = 0;
        let cost = DATAGRAM_COST + datagram.len();
        while self.bytes + cost > LANE_BYTES && self.take().is_some() {
            dropped += 1;
        }
        self.bytes += cost;
        self.waiting.push_back(Waiting { flow, since: now, datagram: datagram.to_vec() });
        dropped
    }

    /// The next datagram that is not too old, and how many were too old.
    pub(super) fn next(&mut self, now: Duration) -> (Option<(u32, Vec<u8>)>, u64) {
        let mut old = 0;
        while let Some(waiting) = self.take() {
            if now.saturating_sub(waiting.since) <= LANE_AGE {
                return (Some((waiting.flow, waiting.datagram)), old);
            }
            old += 1;
        }
        (None, old)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Shrinks the empty queue after a burst.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.waiting);
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.waiting.capacity()
    }

    fn take(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= DATAGRAM_COST + waiting.datagram.len();
        Some(waiting)
    }
}

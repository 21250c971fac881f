//! The rounds of the sweep: when it visits which sessions. Times are milliseconds of the process clock.
//!
//! The table of sessions is divided into blocks of neighbouring places, and the blocks into slices. Each slice has its
//! fixed time in the round. So every session is visited once per round, at most one slice's sessions are visited at a
//! time, and a worker with few sessions, all of which are in the first slice, wakes once per round. A round is a little
//! shorter than a second, so that an end that waits for its visit is less than a second late.
//!
//! Each socket has a table of flows. The tables begin with different slices ([`first_slice`]), because most tables are
//! small: this spreads many sockets with a few flows each over the round, too.
//!
//! A sweep that wakes long after its time was frozen, together with the process or the machine. Input that arrived is
//! then still unread, and silence proves nothing. For one round, sessions are visited without being judged.

use std::{array, cell::Cell, iter};

/// Slices of a round.
pub const SLICES: usize = 64;
/// Time of a slice, in milliseconds.
pub const SLICE_MILLIS: u64 = 15;
/// Time of a round, in milliseconds.
pub const ROUND_MILLIS: u64 = SLICES as u64 * SLICE_MILLIS;
/// Neighbouring places of a table in one slice.
pub(in crate::core) const BLOCK: usize = 256;
/// A sweep that wakes this much after its time was frozen, in milliseconds.
const FROZEN_MILLIS: u64 = 500;

/// The slice of a place in the session table.
#[must_use]
pub fn slice_of(place: usize) -> usize {
    place / BLOCK % SLICES
}

/// Number of a worker's sockets whose tables begin with the same slice. A worker with no more sockets wakes once per
/// round.
const SOCKETS_TOGETHER: usize = 16;

/// The slice with which the table of a worker's next socket begins, given the number of its sockets.
#[must_use]
pub fn first_slice(sockets: usize) -> usize {
    sockets / SOCKETS_TOGETHER % SLICES
}

/// The places of a slice, in a table of `size` places.
pub fn places_of(slice: usize, size: usize) -> impl Iterator<Item = usize> {
    (slice * BLOCK..size).step_by(BLOCK * SLICES).flat_map(move |from| from..size.min(from + BLOCK))
}

/// The number of sessions in each slice.
#[derive(Debug)]
pub struct Occupied([Cell<u32>; SLICES]);

impl Default for Occupied {
    fn default() -> Self {
        Self(array::from_fn(|_| Cell::new(0)))
    }
}

impl Occupied {
    /// Counts a session in this place.
    pub fn add(&self, place: usize) {
        let count = &self.0[slice_of(place)];
        count.set(count.get().saturating_add(1));
    }

    /// Removes a session at this place from the count.
    pub fn remove(&self, place: usize) {
        let count = &self.0[slice_of(place)];
        count.set(count.get().saturating_sub(1));
    }

    /// Whether the slice has sessions.
    #[must_use]
    pub fn has(&self, slice: usize) -> bool {
        self.0.get(slice).is_some_and(|count| count.get() > 0)
    }
}

/// A visit of a slice's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The slice.
    pub slice: usize,
    /// Whether silence counts; false in the round after a freeze.
    pub is_judged: bool,
}

/// Progress of the sweep. Slices are numbered from the start of the clock, over all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// The next slice.
    next: u64,
    /// When the sweep should wake.
    planned: u64,
    /// Whether the last wake came too late.
    was_frozen: bool,
    /// Slices before this one are not judged.
    spared: u64,
}

impl Rounds {
    /// Creates rounds that start at `now`.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { next: now / SLICE_MILLIS + 1, planned: now.saturating_add(ROUND_MILLIS), was_frozen: false, spared: 0 }
    }

    /// When the sweep has work again: at the next slice with sessions, and at the latest when a round begins.
    pub fn plan(&mut self, is_occupied: impl Fn(usize) -> bool) -> u64 {
        let has_work = |number: &u64| slice(*number) == 0 || is_occupied(slice(*number));
        let number = (self.next..).take(SLICES).find(has_work).unwrap_or(self.next);
        self.planned = number.saturating_mul(SLICE_MILLIS);
        self.planned
    }

    /// The slices that are due at `now`, each once however late it is.
    pub fn due(&mut self, now: u64) -> impl Iterator<Item = Visit> + use<> {
        let end = now / SLICE_MILLIS + 1;
        let is_frozen = now > self.planned.saturating_add(FROZEN_MILLIS);
        // A worker that is always late must not spare its sessions for ever.
        if is_frozen && !self.was_frozen {
            self.spared = end + SLICES as u64;
        }
        self.was_frozen = is_frozen;
        let spared = self.spared;
        let first = self.next.max(end.saturating_sub(SLICES as u64));
        self.next = self.next.max(end);
        let mut numbers = first..end;
        iter::from_fn(move || numbers.next().map(|number| Visit { slice: slice(number), is_judged: number >= spared }))
    }
}

fn slice(number: u64) -> usize {
    usize::try_from(number % SLICES as u64).unwrap_or(0)
}

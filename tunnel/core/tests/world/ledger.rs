//! What both ends did with each stream, and what they write to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use tunnel_core::{MAX_DATAGRAM, StreamId};

/// What one end did.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) accepted: bool,
    pub(crate) finished: bool,
    pub(crate) reset: bool,
    pub(crate) written: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) ends: [Account; 2],
    /// When it was last opened, written, read, answered or ended by either end.
    pub(crate) progress: Duration,
}

/// Counts what the run has covered.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) carriers: u64,
    pub(crate) resumed: u64,
    pub(crate) cuts: u64,
    pub(crate) freezes: u64,
    pub(crate) restarts: u64,
    /// Frames of a carrier that was no longer in use.
    pub(crate) late: u64,
    pub(crate) finished: u64,
    pub(crate) reset: u64,
    pub(crate) refused: u64,
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
}

/// All streams of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lines: BTreeMap<(u64, StreamId), Line>,
    /// Sessions that one end has lost: any of their streams may end by a reset.
    pub(crate) broken: BTreeSet<u64>,
    pub(crate) seen: Seen,
}

impl Ledger {
    pub(crate) fn line(&mut self, session: u64, id: StreamId) -> &mut Line {
        self.lines.entry((session, id)).or_default()
    }
}

/// The written bytes repeat after this many, a prime.
const PERIOD: u64 = 65_521;

static TILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bytes = (0..PERIOD).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 13).to_le_bytes()[0]);
    bytes.collect::<Vec<u8>>().repeat(3)
});

/// Distinguishes what each end writes to each stream.
pub(crate) fn source(session: u64, id: StreamId, end: usize) -> u64 {
    let name = format!("{session} {id:?} {end}");
    name.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

/// At most 128 KiB of what `source` writes from a position on.
pub(crate) fn pattern(source: u64, position: u64, count: usize) -> &'static [u8] {
    let start = usize::try_from((source % PERIOD + position % PERIOD) % PERIOD).expect("less than the period");
    &TILE[start..start + count]
}

/// The datagram of a number: of any length, with its number if that fits.
pub(crate) fn datagram(source: u64, number: u64) -> Vec<u8> {
    let length = match number % 16 {
        0 => 0,
        1 => MAX_DATAGRAM,
        _ => usize::try_from(8 + number * 97 % 1400).expect("less than 1408"),
    };
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend_from_slice(pattern(source, number, length.saturating_sub(8)));
    bytes.truncate(length);
    bytes
}

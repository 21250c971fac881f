//! The session's view of its carrier.

use std::time::Duration;

use super::{Notice, Session, Violation};
use crate::backlog::FreeBlocks;
use crate::frame::{Kind, put};

/// One connection of the session.
#[derive(Debug)]
pub(super) struct Carrier {
    /// Frames of the session itself, which are sent before those of streams.
    pub(super) words: Vec<u8>,
    pub(super) pong: Option<u64>,
    /// Whether the peer has reported the bytes that it has received.
    pub(super) resumed: bool,
    pub(super) attached_at: Duration,
    pub(super) heard_at: Duration,
    pub(super) ping_at: Duration,
    pub(super) suspect: bool,
}

impl Carrier {
    /// When the carrier counts as lost: it was silent, or without [`Kind::Resume`], for `dead_after`.
    pub(super) fn gives_up_at(&self, dead_after: Duration) -> Duration {
        let since = if self.resumed { self.heard_at } else { self.attached_at };
        since + dead_after
    }
}

impl Session {
    /// Attaches a connection with the `epoch` that both ends agreed on. It replaces the previous connection, whose
    /// frames are no longer accepted. Returns `false` if a connection of this epoch or a later one was attached.
    pub fn attach(&mut self, epoch: u64, now: Duration) -> bool {
        if epoch <= self.epoch || self.lost.is_some() {
            return false;
        }
        self.epoch = epoch;
        self.paused_at = None;
        self.ready.clear();
        self.untold.clear();
        self.acks_due = None;
        let mut words = self.resume_frames();
        put(&mut words, Kind::Ping, 0, 0, micros(now), &[]);
        if self.draining {
            put(&mut words, Kind::GoAway, 0, 0, 0, &[]);
        }
        self.carrier = Some(Carrier {
            words,
            pong: None,
            resumed: false,
            attached_at: now,
            heard_at: now,
            ping_at: now + self.limits.heartbeat,
            suspect: false,
        });
        self.peer_draining = false;
        self.unresumed = false;
        true
    }

    /// Detaches the lost connection of `epoch`. Its streams wait for another one.
    pub fn detach(&mut self, epoch: u64, now: Duration) {
        if epoch == self.epoch && self.carrier.take().is_some() {
            self.paused_at = Some(now);
            self.acks_due = None;
            self.free = FreeBlocks::default();
            self.count_memory();
        }
    }

    /// The epoch of the last connection. The next connection must have a higher one.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a connection is attached.
    pub const fn is_attached(&self) -> bool {
        self.carrier.is_some()
    }

    /// Whether the last connection was given up because the peer did not resume in time.
    pub const fn is_unresumed(&self) -> bool {
        self.unresumed
    }

    /// Tells the peer that no new streams are taken.
    pub fn go_away(&mut self) {
        if self.draining {
            return;
        }
        self.draining = true;
        if let Some(carrier) = &mut self.carrier {
            put(&mut carrier.words, Kind::GoAway, 0, 0, 0, &[]);
        }
    }

    pub(super) fn pinged(&mut self, offset: u64) {
        if let Some(carrier) = &mut self.carrier {
            carrier.pong = Some(offset);
        }
    }

    /// Handles the answer to one of our pings, which carries the time of the ping.
    pub(super) fn ponged(&mut self, offset: u64, now: Duration) {
        let taken = micros(now).checked_sub(offset).map(Duration::from_micros);
        if let Some(taken) = taken.filter(|taken| *taken <= self.limits.dead_after) {
            self.rtt = taken.max(Duration::from_micros(1));
        }
    }

    pub(super) fn told_to_go(&mut self) {
        if !self.peer_draining {
            self.peer_draining = true;
            self.notices.push_back(Notice::GoAway);
        }
    }

    pub(super) fn carrier_of(&mut self, epoch: u64) -> Result<&mut Carrier, Violation> {
        self.carrier.as_mut().filter(|_| epoch == self.epoch).ok_or(Violation::Stale)
    }
}

pub(super) fn micros(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

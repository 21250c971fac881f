//! Timers of a session.

use std::time::Duration;

use super::carrier::micros;
use super::{Loss, Notice, Session};
use crate::frame::{Kind, put};

impl Session {
    /// When [`Session::advance`] is next due.
    pub fn deadline(&self) -> Option<Duration> {
        if self.lost.is_some() {
            return None;
        }
        let Some(carrier) = &self.carrier else {
            return self.paused_at.map(|since| since + self.limits.grace);
        };
        let dead = carrier.gives_up_at(self.limits.dead_after);
        let suspect = if carrier.suspect { dead } else { carrier.heard_at + self.limits.heartbeat * 2 };
        let next = carrier.ping_at.min(dead).min(suspect);
        Some(self.acks_due.map_or(next, |acks| acks.min(next)))
    }

    /// Runs the timers that are due at `now`.
    pub fn advance(&mut self, now: Duration) {
        if self.lost.is_some() {
            return;
        }
        if self.paused_at.is_some_and(|since| now >= since + self.limits.grace) {
            self.lose(Loss::GraceExpired);
            return;
        }
        if self.acks_due.is_some_and(|due| now >= due) {
            self.acknowledge_all();
        }
        self.beat(now);
    }

    fn beat(&mut self, now: Duration) {
        let Some(carrier) = &mut self.carrier else { return };
        let silent = now.saturating_sub(carrier.heard_at);
        if now >= carrier.gives_up_at(self.limits.dead_after) {
            self.unresumed = silent < self.limits.dead_after;
            self.notices.push_back(Notice::CarrierLost);
            self.detach(self.epoch, now);
            return;
        }
        if silent >= self.limits.heartbeat * 2 && !carrier.suspect {
            carrier.suspect = true;
            self.notices.push_back(Notice::Suspect);
        }
        if now >= carrier.ping_at {
            carrier.ping_at = now + self.limits.heartbeat;
            self.free.look();
            // Unsent output serves as a probe, too.
            if carrier.words.is_empty() {
                put(&mut carrier.words, Kind::Ping, 0, 0, micros(now), &[]);
            }
            self.shrink_queues();
            self.count_memory();
        }
    }

    fn acknowledge_all(&mut self) {
        self.acks_due = None;
        for id in std::mem::take(&mut self.untold) {
            self.with(id, |stream| {
                stream.untold = false;
                stream.ack_due |= stream.receive.is_untold();
            });
        }
    }

    /// Ends the session. Bytes that arrived stay readable, and then each stream ends with a reset.
    pub fn lose(&mut self, loss: Loss) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(loss);
        self.carrier = None;
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.break_off(id);
        }
        self.notices.push_back(Notice::Lost(loss));
    }

    /// Why the session has ended, if it has.
    pub const fn lost(&self) -> Option<Loss> {
        self.lost
    }
}

//! The faults and the new streams of a run.

use std::time::Duration;

use super::{DIALLER, LISTENER, LOOK, World};
use tunnel_core::Dialler;

/// Faults happen in the first part of each round; after that, streams may progress undisturbed.
const ROUND: u64 = 180_000;
const TROUBLE: u64 = 120_000;

impl World {
    /// Due times of new streams, faults, and checks of everything.
    pub(super) fn happen(&mut self) {
        if self.next_look <= self.now {
            self.look();
            self.next_look = self.now + LOOK;
        }
        if self.now >= self.end {
            return;
        }
        if self.next_stream <= self.now {
            let end = if self.chance.percent(50) { LISTENER } else { DIALLER };
            if let Some(live) = &mut self.present[end] {
                live.open(self.now, &mut self.ledger, &mut self.chance);
            }
            self.next_stream = self.now + self.chance.millis(0, 4000);
        }
        if self.next_fault <= self.now {
            self.fault();
            self.next_fault = self.following_fault();
        }
    }

    fn following_fault(&mut self) -> Duration {
        let next = self.now + self.chance.millis(200, 8000);
        let millis = u64::try_from(next.as_millis()).expect("within some hours");
        if millis % ROUND < TROUBLE { next } else { Duration::from_millis((millis / ROUND + 1) * ROUND) }
    }

    fn fault(&mut self) {
        self.fault_at = self.fault_at.max(self.now);
        match self.chance.between(0, 100) {
            0..45 => self.cut(),
            45..65 => {
                let until = self.now + self.chance.millis(1000, 40_000);
                self.freeze(until, true);
            }
            65..80 => {
                let until = self.now + self.chance.millis(1000, 40_000);
                self.freeze(until, false);
            }
            // Nothing ever arrives again.
            80..90 => self.freeze(Duration::MAX, true),
            90..94 => self.restart(),
            94..99 => self.fail(5000, 20_000),
            _ => self.fail(125_000, 160_000),
        }
    }

    fn cut(&mut self) {
        self.ledger.seen.cuts += 1;
        for carrier in &mut self.carriers {
            carrier.cut(&mut self.chance, self.now);
        }
    }

    /// Freezes the present connections, in both directions or in one.
    fn freeze(&mut self, until: Duration, is_both: bool) {
        self.ledger.seen.freezes += 1;
        let only = if self.chance.percent(50) { LISTENER } else { DIALLER };
        for carrier in &mut self.carriers {
            for from in [LISTENER, DIALLER] {
                if is_both || from == only {
                    carrier.freeze(from, until);
                }
            }
        }
    }

    /// Drops all packets for a time.
    fn fail(&mut self, least: u64, bound: u64) {
        self.outage = self.outage.max(self.now + self.chance.millis(least, bound));
        self.fault_at = self.fault_at.max(self.outage);
        self.freeze(self.outage, true);
    }

    /// Kills the process of one end, and starts it again.
    fn restart(&mut self) {
        self.ledger.seen.restarts += 1;
        let end = if self.chance.percent(50) { LISTENER } else { DIALLER };
        if let Some(live) = self.present[end].take() {
            self.ledger.broken.insert(live.name);
        }
        self.old.retain(|live| live.end() != end);
        for carrier in &mut self.carriers {
            carrier.close(end, self.now);
        }
        if end == DIALLER {
            self.dialler = Dialler::default();
            self.attempt = None;
            self.dial_at = Some(self.now);
        }
    }
}

//! What the agents of a herd have seen: connections, handshakes and carriers.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);

/// Notes that the thread of the agents writes, and the bench reads.
#[derive(Clone, Debug)]
pub(super) struct Seen(Arc<Mutex<Notes>>);

impl Seen {
    /// Notes for this many agents.
    pub(super) fn of(agents: usize) -> Self {
        Self(Arc::new(Mutex::new(Notes { carriers: vec![Carriers::default(); agents], ..Notes::default() })))
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().expect("nobody panics with the notes")
    }
}

/// The carriers of an agent.
#[derive(Clone, Copy, Debug, Default)]
struct Carriers {
    /// How many there are now.
    count: usize,
    /// When the latest one came.
    latest: Option<Instant>,
}

/// What has happened, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Notes {
    carriers: Vec<Carriers>,
    /// New connections that the system of the server has taken.
    connections: Vec<Instant>,
    /// TLS handshakes that are complete.
    handshakes: Vec<Instant>,
}

/// How a herd came back after a moment.
#[derive(Debug, PartialEq)]
pub(super) struct Back {
    /// For each agent, the time from the first connection after that moment to its carrier.
    pub(super) times: Vec<Duration>,
    /// The most handshakes in one second.
    pub(super) handshakes: usize,
    /// The most connections in one second.
    pub(super) connections: usize,
}

impl Notes {
    pub(super) fn dialled(&mut self, now: Instant) {
        self.connections.push(now);
    }

    pub(super) fn shook_hands(&mut self, now: Instant) {
        self.handshakes.push(now);
    }

    /// The agent of this number has a new carrier.
    pub(super) fn gained(&mut self, at: usize, now: Instant) {
        self.carriers[at].count += 1;
        self.carriers[at].latest = Some(now);
    }

    /// A carrier of the agent of this number has ended.
    pub(super) fn lost(&mut self, at: usize) {
        self.carriers[at].count -= 1;
    }

    /// The first connection after a moment.
    pub(super) fn reached(&self, after: Instant) -> Option<Instant> {
        self.connections.get(self.connections.partition_point(|at| *at < after)).copied()
    }

    /// Whether every agent has a carrier that came after a moment.
    pub(super) fn are_back(&self, after: Instant) -> bool {
        self.carriers.iter().all(|agent| agent.count > 0 && agent.latest.is_some_and(|latest| latest >= after))
    }

    pub(super) fn back(&self, after: Instant) -> Back {
        let reached = self.reached(after).unwrap_or(after);
        let latest = self.carriers.iter().filter_map(|agent| agent.latest);
        Back {
            times: latest.map(|latest| latest.saturating_duration_since(reached)).collect(),
            handshakes: busiest_second(&self.handshakes, after),
            connections: busiest_second(&self.connections, after),
        }
    }
}

/// The most of these moments, which are in order, within one second after a moment.
fn busiest_second(moments: &[Instant], after: Instant) -> usize {
    let moments = &moments[moments.partition_point(|at| *at < after)..];
    let within = |from: usize| moments[from..].partition_point(|at| *at < moments[from] + SECOND);
    (0..moments.len()).map(within).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn the_busiest_second_begins_anywhere_and_ends_before_the_next_one() {
        let start = Instant::now();
        let moments = |all: &[u64]| all.iter().map(|at| start + millis(*at)).collect::<Vec<_>>();
        let most = |all: &[u64], after| busiest_second(&moments(all), start + millis(after));
        assert_eq!(most(&[], 0), 0);
        assert_eq!(most(&[0, 1000, 2000], 0), 1);
        // The second that begins at 900 has three.
        assert_eq!(most(&[0, 900, 1000, 1899, 1900], 0), 3);
        assert_eq!(most(&[0, 1, 2, 3, 5000, 5001], 4), 2, "what was before does not count");
        let evenly: Vec<u64> = (0..1000).map(|number| number * 5).collect();
        assert_eq!(most(&evenly, 0), 200);
    }

    #[test]
    fn a_herd_is_back_once_every_agent_has_a_carrier_that_came_after_the_loss() {
        let start = Instant::now();
        let at = |number| start + millis(number);
        let seen = Seen::of(2);
        let mut notes = seen.notes();
        assert!(!notes.are_back(start));
        (0..2).for_each(|agent| notes.gained(agent, at(agent as u64)));
        assert!(notes.are_back(start) && !notes.are_back(at(1000)), "these carriers came before");
        (0..2).for_each(|agent| notes.lost(agent));
        notes.dialled(at(10));
        assert_eq!(notes.reached(at(1000)), None);
        for (agent, time) in [(1, 1200), (0, 1700)] {
            assert!(!notes.are_back(at(1000)));
            notes.dialled(at(time - 100));
            notes.shook_hands(at(time - 50));
            notes.gained(agent, at(time));
        }
        assert!(notes.are_back(at(1000)));
        assert_eq!(notes.reached(at(1000)), Some(at(1100)));
        let times = vec![millis(600), millis(100)];
        assert_eq!(notes.back(at(1000)), Back { times, handshakes: 2, connections: 2 });
        notes.lost(0);
        assert!(!notes.are_back(at(1000)), "it has lost its carrier again");
    }

    #[test]
    fn an_agent_that_replaces_a_carrier_keeps_one() {
        let start = Instant::now();
        let seen = Seen::of(1);
        let mut notes = seen.notes();
        notes.gained(0, start);
        notes.gained(0, start + SECOND);
        notes.lost(0);
        assert!(notes.are_back(start + SECOND));
    }
}

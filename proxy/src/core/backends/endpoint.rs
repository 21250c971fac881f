//! An endpoint and its health: passive from failed sessions, active from checks.

use std::sync::{
    Arc, OnceLock,
    atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use proxy_api::{HealthCheck, Outlier};

use crate::core::backends::address::Address;

/// An endpoint of a backend entry, shared by all workers and updated once per session.
#[derive(Debug)]
pub struct Endpoint {
    /// Address to connect to.
    pub address: Address,
    /// Live sessions.
    pub active: AtomicU32,
    failures: AtomicU32,
    /// Ejected until this time, in seconds of the process clock; 0: not ejected.
    ejected_until: AtomicU64,
    /// Result of the checks, as [`Checked`].
    checked: AtomicU8,
    /// Whether the endpoint is behind an agent that has no connection now.
    detached: AtomicBool,
    /// Counts the changes of health of all endpoints of the listener, once the endpoint is one of its targets.
    changes: OnceLock<Changes>,
}

/// Number of changes of health among the endpoints of a listener. Data computed from their health is recomputed when
/// the number differs. The end of an ejection by time does not count as a change.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<AtomicU64>);

impl Changes {
    /// The number of changes so far. Data read after this call is at least as new as the count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// Result of active checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Checks are not configured.
    Not,
    /// The first check has not finished yet.
    Unknown,
    /// Checks pass.
    Up,
    /// Checks fail.
    Down,
}

/// Whether an endpoint may get sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// Ejected, or its checks fail.
    Unhealthy,
    /// Behind an agent without a connection, which may be back soon. Only for new sessions.
    Away,
    /// The first check has not finished yet.
    Unknown,
    /// Neither ejected nor failing checks.
    Healthy,
}

impl Endpoint {
    /// Creates a healthy endpoint.
    #[must_use]
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            active: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            checked: AtomicU8::new(Checked::Not as u8),
            detached: AtomicBool::new(false),
            changes: OnceLock::new(),
        }
    }

    /// Whether state of the endpoint at `now` (seconds of the process clock) must outlast an absence from its backend:
    /// live sessions, or an ejection.
    #[must_use]
    pub fn is_memorable(&self, now: u64) -> bool {
        self.active.load(Relaxed) > 0 || self.ejected_until.load(Relaxed) > now
    }

    /// The counter of the endpoint's changes of health; `None` before the endpoint is a target.
    #[must_use]
    pub fn changes(&self) -> Option<&Changes> {
        self.changes.get()
    }

    /// Makes `changes` count the endpoint's changes of health, unless another counter does.
    pub fn count_in(&self, changes: &Changes) {
        self.changes.get_or_init(|| changes.clone());
    }

    /// End of the last ejection, in seconds of the process clock; 0 if there was none since the last success.
    #[must_use]
    pub fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Relaxed)
    }

    /// Counts a change of health that was stored before.
    fn changed(&self) {
        if let Some(Changes(count)) = self.changes.get() {
            count.fetch_add(1, Release);
        }
    }

    /// Fitness at `now` (seconds of the process clock).
    #[must_use]
    pub fn fitness(&self, now: u64) -> Fitness {
        match self.checked() {
            Checked::Down => Fitness::Unhealthy,
            _ if self.ejected_until.load(Relaxed) > now => Fitness::Unhealthy,
            Checked::Unknown => Fitness::Unknown,
            Checked::Up | Checked::Not => Fitness::Healthy,
        }
    }

    /// Like [`Endpoint::fitness`], for a new session: an endpoint behind an agent without a connection is at best
    /// [`Fitness::Away`]. The sessions that it has wait for the next connection, so its fitness for them is unchanged.
    #[must_use]
    pub fn fitness_for_new(&self, now: u64) -> Fitness {
        let fitness = self.fitness(now);
        if self.detached.load(Relaxed) { fitness.min(Fitness::Away) } else { fitness }
    }

    /// Stores whether the endpoint is behind an agent that has no connection now.
    pub fn set_detached(&self, detached: bool) {
        if self.detached.swap(detached, Relaxed) != detached {
            self.changed();
        }
    }

    /// Whether the endpoint is not known to be unhealthy at `now` (seconds of the process clock).
    #[must_use]
    pub fn is_healthy(&self, now: u64) -> bool {
        self.fitness(now) != Fitness::Unhealthy
    }

    /// Result of active checks.
    #[must_use]
    pub fn checked(&self) -> Checked {
        let found = self.checked.load(Relaxed);
        [Checked::Not, Checked::Unknown, Checked::Up, Checked::Down]
            .into_iter()
            .find(|it| *it as u8 == found)
            .unwrap_or(Checked::Not)
    }

    /// Stores the result of active checks; returns the previous result.
    pub fn set_checked(&self, found: Checked) -> Checked {
        let before = self.checked();
        self.checked.store(found as u8, Relaxed);
        if before != found {
            self.changed();
        }
        before
    }

    /// Records a successful connect, or an answer on UDP.
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.ejected_until.load(Relaxed) != 0 {
            self.ejected_until.store(0, Relaxed);
            self.changed();
        }
    }

    /// Records a failed connect, or an ICMP error or a missing route on UDP; returns whether it ejected the endpoint.
    pub fn failed(&self, outlier: Outlier, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < outlier.consecutive_failures {
            return false;
        }
        // After an ejection a single attempt decides, so the count stays one below the threshold.
        self.failures.store(outlier.consecutive_failures.saturating_sub(1), Relaxed);
        // `now` is truncated to whole seconds; one second more, so that the ejection is not too short.
        let until = now.saturating_add(u64::from(outlier.eject_seconds)).saturating_add(1);
        let is_new = self.ejected_until.swap(until, Relaxed) <= now;
        if is_new {
            self.changed();
        }
        is_new
    }
}

/// Counts a live session of an endpoint until dropped.
#[derive(Debug)]
pub struct Counted(Arc<Endpoint>);

impl Counted {
    /// Starts counting.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self(endpoint)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Consecutive results of an endpoint's checks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streak {
    succeeded: u32,
    failed: u32,
}

impl Streak {
    /// Records a result and returns the endpoint's new state. The first result decides at once; later changes need as
    /// many consecutive results as the check's thresholds say.
    pub fn observe(&mut self, now: Checked, works: bool, check: &HealthCheck) -> Checked {
        if works {
            *self = Self { succeeded: self.succeeded.saturating_add(1), failed: 0 };
        } else {
            *self = Self { succeeded: 0, failed: self.failed.saturating_add(1) };
        }
        match now {
            Checked::Up if self.failed >= check.unhealthy_threshold => Checked::Down,
            Checked::Down if self.succeeded >= check.healthy_threshold => Checked::Up,
            Checked::Up | Checked::Down => now,
            Checked::Not | Checked::Unknown if works => Checked::Up,
            Checked::Not | Checked::Unknown => Checked::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proxy_api::Probe;

    use super::*;

    #[test]
    fn the_first_check_decides_and_then_it_takes_some_in_a_row() {
        let check = HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval_seconds: 1,
            timeout_seconds: 1,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        };
        let run = |results: &str, mut now: Checked| {
            let mut streak = Streak::default();
            for result in results.chars() {
                now = streak.observe(now, result == '+', &check);
            }
            now
        };
        for (results, expected) in [
            ("+", Checked::Up),
            ("-", Checked::Down),
            ("+--", Checked::Up),
            ("+--+--", Checked::Up),
            ("+---", Checked::Down),
            ("-+", Checked::Down),
            ("-+-+", Checked::Down),
            ("-++", Checked::Up),
        ] {
            assert_eq!(run(results, Checked::Unknown), expected, "{results}");
        }
    }

    #[test]
    fn what_is_not_checked_yet_is_neither() {
        let endpoint = endpoint();
        assert_eq!(endpoint.fitness(0), Fitness::Healthy);
        endpoint.set_checked(Checked::Unknown);
        assert!(endpoint.fitness(0) == Fitness::Unknown && endpoint.is_healthy(0));
        endpoint.set_checked(Checked::Down);
        assert!(!endpoint.is_healthy(0));
    }

    #[test]
    fn an_endpoint_whose_agent_has_no_connection_is_healthy_and_for_new_sessions_better_than_a_dead_one() {
        let (endpoint, changes) = (endpoint(), Changes::default());
        endpoint.count_in(&changes);
        endpoint.set_detached(false);
        assert_eq!((endpoint.fitness_for_new(0), changes.count()), (Fitness::Healthy, 0));
        endpoint.set_detached(true);
        endpoint.set_detached(true);
        assert_eq!((endpoint.fitness_for_new(0), changes.count()), (Fitness::Away, 1));
        assert!(endpoint.is_healthy(0), "its sessions wait");
        endpoint.set_checked(Checked::Unknown);
        assert_eq!(endpoint.fitness_for_new(0), Fitness::Away);
        endpoint.set_checked(Checked::Down);
        assert_eq!(endpoint.fitness_for_new(0), Fitness::Unhealthy, "whether the agent is there or not");
        endpoint.set_checked(Checked::Up);
        endpoint.set_detached(false);
        assert_eq!((endpoint.fitness_for_new(0), changes.count()), (Fitness::Healthy, 5));
        assert!(Fitness::Unhealthy < Fitness::Away && Fitness::Away < Fitness::Unknown);
    }

    #[test]
    fn every_change_of_health_is_counted_once() {
        let (endpoint, changes) = (endpoint(), Changes::default());
        endpoint.count_in(&changes);
        endpoint.set_checked(Checked::Up);
        endpoint.set_checked(Checked::Up);
        assert_eq!(changes.count(), 1);
        for _ in 0..5 {
            endpoint.failed(OUTLIER, 0);
        }
        assert_eq!(changes.count(), 2, "the third failure ejects, the others change nothing");
        endpoint.succeeded();
        endpoint.succeeded();
        assert_eq!(changes.count(), 3);
        endpoint.count_in(&Changes::default());
        endpoint.set_checked(Checked::Down);
        assert_eq!(changes.count(), 4, "the first counter stays");
    }

    const OUTLIER: Outlier = Outlier { consecutive_failures: 3, eject_seconds: 10 };

    fn endpoint() -> Endpoint {
        Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    #[test]
    fn failures_in_a_row_eject_an_endpoint_for_a_time() {
        let endpoint = endpoint();
        assert!(!endpoint.failed(OUTLIER, 5) && !endpoint.failed(OUTLIER, 5));
        assert!(endpoint.is_healthy(5));
        assert!(endpoint.failed(OUTLIER, 5));
        // The failure may have been at 5.9 s, and 15.1 s is read as 15.
        assert!(!endpoint.is_healthy(15));
        assert!(endpoint.is_healthy(16));
    }

    #[test]
    fn a_success_in_between_restarts_the_count() {
        let endpoint = endpoint();
        for _ in 0..10 {
            assert!(!endpoint.failed(OUTLIER, 0) && !endpoint.failed(OUTLIER, 0));
            endpoint.succeeded();
        }
        assert!(endpoint.is_healthy(0));
    }

    #[test]
    fn sessions_and_an_ejection_are_remembered_until_they_have_ended() {
        let endpoint = Arc::new(endpoint());
        assert!(!endpoint.is_memorable(0));
        let session = Counted::new(endpoint.clone());
        assert!(endpoint.is_memorable(0));
        drop(session);
        assert!(!endpoint.is_memorable(0));
        for _ in 0..3 {
            endpoint.failed(OUTLIER, 5);
        }
        assert_eq!(endpoint.ejected_until(), 16);
        assert!(endpoint.is_memorable(15) && !endpoint.is_memorable(16));
    }

    #[test]
    fn after_its_time_one_failure_is_enough() {
        let endpoint = endpoint();
        for _ in 0..3 {
            endpoint.failed(OUTLIER, 0);
        }
        assert!(endpoint.is_healthy(11));
        assert!(endpoint.failed(OUTLIER, 11));
        assert!(!endpoint.is_healthy(20));
        endpoint.succeeded();
        assert!(endpoint.is_healthy(20));
    }
}

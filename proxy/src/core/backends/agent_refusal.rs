//! The state of a flow that its agent refuses or leaves.

use std::cell::Cell;

/// How long a refused flow stays, in milliseconds, and drops datagrams of its client, unless the client may get another
/// endpoint. Otherwise each datagram would ask the agent again.
const REFUSED_MILLIS: u64 = 1000;

/// Whether, when and why the agent of a flow has refused it.
pub struct AgentRefusal {
    /// Whether another endpoint has just failed for the client.
    is_second: bool,
    /// When the agent has refused the flow or left it, in milliseconds of the process clock.
    at: Cell<Option<u64>>,
    /// The reason, for the log.
    cause: Cell<Option<String>>,
}

impl AgentRefusal {
    /// Creates the state without a refusal. `is_second`: another endpoint has just failed for the client.
    #[must_use]
    pub fn none(is_second: bool) -> Self {
        Self { is_second, at: Cell::new(None), cause: Cell::new(None) }
    }

    /// Whether the agent has refused the flow or left it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.at.get().is_some()
    }

    /// Whether the agent has done so shortly before `now` (milliseconds of the process clock), so that the flow stays.
    #[must_use]
    pub fn is_recent(&self, now: u64) -> bool {
        self.at.get().is_some_and(|at| now.saturating_sub(at) < REFUSED_MILLIS)
    }

    /// Takes the reason, if the agent has refused the flow or left it.
    #[must_use]
    pub fn take_cause(&self) -> Option<String> {
        self.cause.take()
    }

    /// Notes why the agent has refused the flow, which began at `started`, or left it at `now`. Returns whether the
    /// next datagram goes to another endpoint if there is one. If endpoints refuse one after the other, the next one is
    /// not asked: the client waits.
    #[must_use]
    pub fn note(&self, why: String, started: u64, now: u64) -> bool {
        self.at.set(Some(now));
        self.cause.set(Some(why));
        !self.is_second || now.saturating_sub(started) >= REFUSED_MILLIS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_flow_stays_for_a_second_and_its_cause_is_told_once() {
        let refusal = AgentRefusal::none(false);
        assert!(!refusal.is_known() && !refusal.is_recent(0));
        assert_eq!(refusal.take_cause(), None);
        assert!(refusal.note("no such target".to_owned(), 0, 5000));
        assert!(refusal.is_known() && refusal.is_recent(5000) && refusal.is_recent(5000 + REFUSED_MILLIS - 1));
        assert!(!refusal.is_recent(5000 + REFUSED_MILLIS) && refusal.is_known());
        assert_eq!(refusal.take_cause().as_deref(), Some("no such target"));
        assert_eq!(refusal.take_cause(), None);
    }

    #[test]
    fn the_first_endpoint_that_refuses_gives_way_and_the_second_one_soon_after_it_does_not() {
        let gives_way = |is_second, now| AgentRefusal::none(is_second).note(String::new(), 100, now);
        assert!(gives_way(false, 100) && gives_way(false, 100 + REFUSED_MILLIS));
        assert!(!gives_way(true, 100) && !gives_way(true, 100 + REFUSED_MILLIS - 1));
        assert!(gives_way(true, 100 + REFUSED_MILLIS), "it had served the client");
    }
}

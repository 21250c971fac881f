//! Sessions that arrive while no instance of an agent is connected.

use std::time::Duration;

use proxy_api::{Listener, Target};

use crate::core::backends::balance::Targets;

/// The next step of a session in its connect phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The session picks an endpoint: there is one, or nothing to wait for.
    Pick,
    /// The session waits for an instance, for at most this long.
    Wait(Duration),
    /// The session ends: no instance has connected in time.
    End,
}

/// Returns the next step of a session that has been in its connect phase for `elapsed`. It waits only if no other
/// backend has an endpoint, of any priority, and only for as long as its attempts may take: `connectSeconds` for each.
#[must_use]
pub fn step(listener: &Listener, targets: &Targets, elapsed: Duration) -> Step {
    if targets.has_endpoint() || !may_wait(listener) {
        return Step::Pick;
    }
    let seconds = u64::from(listener.timeouts.connect_seconds).saturating_mul(listener.retry.attempts.into());
    let left = Duration::from_secs(seconds).saturating_sub(elapsed);
    if left.is_zero() { Step::End } else { Step::Wait(left) }
}

/// Whether sessions of a listener may have to wait, because it leads through an agent.
#[must_use]
pub fn may_wait(listener: &Listener) -> bool {
    let mut open = listener.backends.iter().filter(|backend| backend.weight > 0);
    open.any(|backend| matches!(backend.target, Target::Tunnel { .. }))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use proxy_api::{Backend, Retry, Timeouts};

    use super::*;
    use crate::{
        core::backends::{balance::Entry, endpoint::Endpoint},
        fixtures::template,
    };

    /// A listener that makes three attempts of 5 s. One of its backends is behind an agent; these are the weights.
    fn listener(agent: u32, other: u32) -> Listener {
        let template = template();
        let tunnel = Target::Tunnel { agent: "u".to_owned(), host: "db.lan".to_owned(), port: 5432 };
        let targets = [(agent, tunnel), (other, Target::Endpoints("b".to_owned()))];
        let backends = targets.map(|(weight, target)| Backend { weight, target, ..template.backends[0].clone() });
        let timeouts = Timeouts { connect_seconds: 5, ..template.timeouts };
        let retry = Retry { attempts: 3, ..template.retry };
        Listener { backends: backends.into(), timeouts, retry, ..template }
    }

    /// Targets with one endpoint, in an entry of this weight and priority.
    fn targets(weight: u32, priority: u32) -> Targets {
        let endpoints = vec![Arc::new(Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 1))))];
        Targets::new(vec![Entry { id: "e".into(), weight, priority, endpoints, stats: Arc::default() }])
    }

    #[test]
    fn a_session_waits_for_an_instance_for_the_time_of_all_attempts() {
        let (listener, none) = (listener(1, 1), Targets::default());
        let after = |millis: u64| step(&listener, &none, Duration::from_millis(millis));
        assert_eq!(after(0), Step::Wait(Duration::from_secs(15)));
        assert_eq!(after(14_999), Step::Wait(Duration::from_millis(1)));
        assert_eq!((after(15_000), after(20_000)), (Step::End, Step::End));
    }

    #[test]
    fn another_backend_is_used_at_once_whatever_its_priority() {
        let listener = listener(1, 1);
        assert_eq!(step(&listener, &targets(1, 7), Duration::ZERO), Step::Pick);
        let closed = step(&listener, &targets(0, 0), Duration::ZERO);
        assert!(matches!(closed, Step::Wait(_)), "an entry of weight 0 gets no sessions");
    }

    #[test]
    fn a_listener_that_leads_through_no_agent_waits_for_none() {
        for listener in [listener(0, 1), listener(0, 0)] {
            assert_eq!(step(&listener, &Targets::default(), Duration::ZERO), Step::Pick);
        }
    }
}

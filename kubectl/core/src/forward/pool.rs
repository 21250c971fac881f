//! The pods behind one local port: selects the pod of a connection, and decides when an attempt is retried and when a
//! connection is given up.
//!
//! A connection goes to the ready pod with the fewest sessions; among those, to the one that was chosen longest ago. A
//! pod that fails is left out for a while, which grows with each failure. A pod that is no longer an endpoint keeps its
//! sessions until it has ended.

use std::{collections::BTreeMap, time::Duration};

use super::{
    endpoints::{Endpoint, PodId},
    failure::{Failure, Refusal},
};

/// Most attempts to attach one connection.
const ATTEMPTS: u32 = 8;
/// Time for which a pod is left out after its first failure. Each further failure doubles the time, up to half of the
/// longest wait of a connection, so that each connection has time for an attempt.
const BACKOFF: Duration = Duration::from_millis(100);
/// Interval between two checks of a pod that has sessions and is no longer an endpoint.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

/// The next step of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Attach to this port of this pod.
    Attach {
        /// The pod.
        pod: PodId,
        /// The port in the pod.
        port: u16,
        /// The time at which the attempt counts as failed.
        until: Duration,
    },
    /// Call again at this time, or when the endpoints change.
    Wait(Duration),
    /// Close the connection.
    GiveUp(Refusal),
}

#[derive(Debug, Default)]
struct Pod {
    port: u16,
    is_ready: bool,
    /// Whether the pod is one of the endpoints.
    is_listed: bool,
    has_ended: bool,
    sessions: usize,
    /// Failures since the last success.
    failures: u32,
    /// The time until which the pod is left out.
    not_before: Duration,
    /// Number of the last choice of this pod.
    chosen: u64,
    /// The last check of a pod that is not an endpoint.
    checked: Option<Duration>,
}

#[derive(Debug)]
struct Session {
    since: Duration,
    /// The time before which the session makes no attempt.
    not_before: Duration,
    attempts: u32,
    pod: Option<PodId>,
    last: Option<(PodId, Failure)>,
}

/// The pods behind one local port, and the sessions with them.
#[derive(Debug)]
pub struct Pool {
    wait: Duration,
    pods: BTreeMap<PodId, Pod>,
    sessions: BTreeMap<SessionId, Session>,
    opened: u64,
    choices: u64,
}

impl Pool {
    /// A pool without endpoints. `wait` is the longest time from the start of a connection until it is attached to a
    /// pod.
    pub fn new(wait: Duration) -> Self {
        Self { wait, pods: BTreeMap::new(), sessions: BTreeMap::new(), opened: 0, choices: 0 }
    }

    /// Replaces the endpoints.
    pub fn set(&mut self, endpoints: Vec<Endpoint>) {
        for pod in self.pods.values_mut() {
            (pod.is_listed, pod.is_ready) = (false, false);
        }
        for endpoint in endpoints {
            let pod = self.pods.entry(endpoint.pod).or_default();
            if endpoint.is_ready && pod.port != endpoint.port {
                // The failures were those of another port.
                (pod.failures, pod.not_before) = (0, Duration::ZERO);
            }
            (pod.port, pod.is_ready, pod.is_listed) = (endpoint.port, endpoint.is_ready, true);
            pod.checked = None;
        }
        self.forget();
    }

    /// The number of pods that take new connections, and of known pods.
    pub fn counts(&self) -> (usize, usize) {
        let listed = self.pods.values().filter(|pod| pod.is_listed);
        (listed.clone().filter(|pod| pod.is_ready).count(), listed.count())
    }

    /// The number of sessions, attached or not.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Starts a session.
    pub fn open(&mut self, now: Duration) -> SessionId {
        self.opened += 1;
        let id = SessionId(self.opened);
        let session = Session { since: now, not_before: now, attempts: 0, pod: None, last: None };
        self.sessions.insert(id, session);
        id
    }

    /// Returns the next step of a session without a pod.
    pub fn next(&mut self, id: SessionId, now: Duration) -> Step {
        let (ready, known) = self.counts();
        let none = Refusal::NoReadyPod { wait: self.wait, ready, known };
        let Some(session) = self.sessions.get_mut(&id) else { return Step::GiveUp(none) };
        let deadline = session.since + self.wait;
        let is_final = session.last.as_ref().is_some_and(|(_, failure)| failure.is_final());
        if is_final || now >= deadline || session.attempts >= ATTEMPTS {
            let attempts = session.attempts;
            let failed = session.last.clone().map(|(pod, failure)| Refusal::Failed { pod, failure, attempts });
            return Step::GiveUp(failed.unwrap_or(none));
        }
        if now < session.not_before {
            return Step::Wait(session.not_before.min(deadline));
        }
        let ready = self.pods.iter_mut().filter(|(_, pod)| pod.is_ready);
        let rank = |pod: &Pod| (pod.not_before > now, pod.sessions, pod.chosen);
        let Some((key, pod)) = ready.min_by_key(|(_, pod)| rank(pod)) else { return Step::Wait(deadline) };
        if pod.not_before > now {
            let soonest = self.pods.values().filter(|pod| pod.is_ready).map(|pod| pod.not_before).min();
            return Step::Wait(soonest.unwrap_or(deadline).min(deadline));
        }
        self.choices += 1;
        pod.chosen = self.choices;
        pod.sessions += 1;
        session.attempts += 1;
        session.pod = Some(key.clone());
        Step::Attach { pod: key.clone(), port: pod.port, until: deadline.min(now + self.wait / 2) }
    }

    /// Records that the attempt of a session failed.
    pub fn failed(&mut self, id: SessionId, failure: Failure, now: Duration) {
        let longest = self.wait / 2;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(key) = session.pod.take() else { return };
        if let Some(pod) = self.pods.get_mut(&key) {
            pod.sessions = pod.sessions.saturating_sub(1);
            if failure.is_of_pod() {
                pod.not_before = now + backoff(pod.failures, longest);
                pod.failures += 1;
            }
        }
        if !failure.is_of_pod() {
            session.not_before = now + backoff(session.attempts.saturating_sub(1), longest);
        }
        session.last = Some((key, failure));
        self.forget();
    }

    /// Records that the pod of a session has answered.
    pub fn answered(&mut self, id: SessionId) {
        let key = self.sessions.get(&id).and_then(|session| session.pod.as_ref());
        if let Some(pod) = key.and_then(|key| self.pods.get_mut(key)) {
            (pod.failures, pod.not_before) = (0, Duration::ZERO);
        }
    }

    /// Records that a session has ended.
    pub fn close(&mut self, id: SessionId) {
        let key = self.sessions.remove(&id).and_then(|session| session.pod);
        if let Some(pod) = key.and_then(|key| self.pods.get_mut(&key)) {
            pod.sessions = pod.sessions.saturating_sub(1);
        }
        self.forget();
    }

    /// Returns the pods that have sessions, are no longer endpoints, and were not checked lately: they may have ended,
    /// or still run without the label of the Service.
    pub fn suspects(&mut self, now: Duration) -> Vec<PodId> {
        let is_due = |pod: &Pod| pod.checked.is_none_or(|checked| now >= checked + CHECK_EVERY);
        let suspects = self.pods.iter_mut().filter(|(_, pod)| !pod.is_listed && !pod.has_ended && is_due(pod));
        let keys = suspects.map(|(key, pod)| {
            pod.checked = Some(now);
            key.clone()
        });
        keys.collect()
    }

    /// Records that a pod has ended for good.
    pub fn ended(&mut self, pod: &PodId) {
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.has_ended = true;
        }
    }

    /// Whether the pod of a session has ended.
    pub fn has_ended(&self, id: SessionId) -> bool {
        let key = self.sessions.get(&id).and_then(|session| session.pod.as_ref());
        key.and_then(|key| self.pods.get(key)).is_some_and(|pod| pod.has_ended)
    }

    /// Forgets pods that are not endpoints and have no sessions.
    fn forget(&mut self) {
        self.pods.retain(|_, pod| pod.is_listed || pod.sessions > 0);
    }
}

/// The pause before the next attempt, given the number of failures before this one.
fn backoff(failures: u32, longest: Duration) -> Duration {
    BACKOFF.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(longest)
}

#[cfg(test)]
mod tests;

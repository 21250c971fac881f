//! Sessions that arrive before the first answer to a name.
//!
//! Right after the start, and after a backend was added, a name has no addresses yet. A session that needs them waits
//! within its connect phase until the name has resolved or failed, instead of being reset.

use std::{
    pin::pin,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use proxy_api::Listener;
use tokio::sync::Notify;

use crate::{core::backends::balance::Targets, deadline::within};

/// No name is awaited. Greater than every priority.
const NONE: u64 = u64::MAX;

/// Whether a listener has names without a first answer.
#[derive(Debug)]
pub struct FirstAnswer {
    /// The lowest priority of the backends with such names, or [`NONE`].
    priority: AtomicU64,
    heard: Notify,
}

impl Default for FirstAnswer {
    fn default() -> Self {
        Self { priority: AtomicU64::new(NONE), heard: Notify::new() }
    }
}

impl FirstAnswer {
    /// Sets the lowest priority of the backends whose names have no first answer, and wakes the waiting sessions.
    pub fn set(&self, priority: Option<u32>) {
        let before = self.priority.swap(priority.map_or(NONE, u64::from), AcqRel);
        if before != NONE {
            self.heard.notify_waiters();
        }
    }

    /// Whether a session needs a name without a first answer: no backend of its priority, or of a lower number,
    /// has an endpoint.
    #[must_use]
    pub fn is_needed(&self, targets: &Targets) -> bool {
        let priority = self.priority.load(Acquire);
        let has_endpoint = || {
            let mut open = targets.entries.iter().filter(|entry| entry.weight > 0 && !entry.endpoints.is_empty());
            open.any(|entry| u64::from(entry.priority) <= priority)
        };
        priority != NONE && !has_endpoint()
    }

    /// Waits until the session has an endpoint, or no first answer is awaited, for at most the connect timeout.
    pub async fn wait(&self, targets: &ArcSwap<Targets>, spec: &ArcSwap<Listener>) {
        if !self.is_needed(&targets.load()) {
            return;
        }
        let longest = Duration::from_secs(spec.load().timeouts.connect_seconds.into());
        let mut heard = pin!(async {
            loop {
                // Registered at its creation, so that an answer between the check and the wait is not missed.
                let heard = self.heard.notified();
                if !self.is_needed(&targets.load()) {
                    return;
                }
                heard.await;
            }
        });
        let _ = within(longest, heard.as_mut()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use proxy_api::Timeouts;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        core::backends::{balance::Entry, endpoint::Endpoint},
        fixtures::template_with_id,
        shared::Shared,
    };

    fn shared(connect_seconds: u32) -> Arc<Shared> {
        let (id, template) = template_with_id();
        let timeouts = Timeouts { connect_seconds, ..template.timeouts };
        let spec = Arc::new(Listener { timeouts, ..template });
        Shared::new(id, spec, Arc::default(), Arc::default())
    }

    /// Targets with one endpoint, in an entry of this weight and priority.
    fn targets(weight: u32, priority: u32) -> Arc<Targets> {
        let endpoints = vec![Arc::new(Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 1))))];
        let entry = Entry { id: "e".into(), weight, priority, endpoints, stats: Arc::default() };
        Arc::new(Targets::new(vec![entry]))
    }

    #[test]
    fn a_session_waits_for_a_name_unless_another_backend_is_as_good() {
        let first = FirstAnswer::default();
        assert!(!first.is_needed(&Targets::default()), "nothing is awaited");
        first.set(Some(1));
        assert!(first.is_needed(&Targets::default()));
        assert!(first.is_needed(&targets(1, 2)) && first.is_needed(&targets(0, 1)));
        assert!(!first.is_needed(&targets(1, 1)) && !first.is_needed(&targets(1, 0)));
        first.set(None);
        assert!(!first.is_needed(&Targets::default()));
    }

    #[tokio::test]
    async fn a_session_wakes_at_the_answer_or_after_the_connect_timeout() {
        let bound = Duration::from_secs(30);
        let awaiting = |connect_seconds: u32| {
            let shared = shared(connect_seconds);
            shared.first_answer.set(Some(0));
            shared
        };
        let wait = async |shared: Arc<Shared>| shared.first_answer.wait(&shared.targets, &shared.spec).await;
        timeout(bound, wait(awaiting(0))).await.expect("after the connect timeout");
        let shared = awaiting(3600);
        let answer = async {
            tokio::task::yield_now().await;
            shared.targets.store(targets(1, 0));
            shared.first_answer.set(None);
        };
        let both = async { tokio::join!(wait(shared.clone()), answer) };
        timeout(bound, both).await.expect("at the answer");
    }
}

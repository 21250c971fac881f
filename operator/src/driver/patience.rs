//! Limits the time that effects may take.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use operator_core::schedule::EFFECT_LIMIT;
use tokio::time::timeout;

use crate::platform::{
    liveness::{Heartbeat, Liveness},
    metrics::{Metrics, count},
};

/// Gives up effects that hang: an effect without a result would block its object for ever. An effect that blocks its
/// thread cannot be given up, and `/livez` names it.
#[derive(Clone, Debug)]
pub struct Patience {
    liveness: Liveness,
    metrics: Arc<Metrics>,
    /// Names of effects that were given up; a name is removed once an effect of that name ends in time.
    given_up: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Patience {
    /// The state before any effect was given up.
    #[must_use]
    pub fn new(liveness: Liveness, metrics: Arc<Metrics>) -> Self {
        Self { liveness, metrics, given_up: Arc::default() }
    }

    /// The heartbeat of an effect.
    pub(super) fn heartbeat(&self, name: &str) -> Heartbeat {
        self.liveness.heartbeat(format!("work on {name}"))
    }

    /// Returns the result of an effect, which may begin now; `None` if the effect was given up.
    pub(super) fn bound<T, F>(
        &self,
        name: &'static str,
        effect: F,
    ) -> impl Future<Output = Option<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (patience, heartbeat) = (self.clone(), self.heartbeat(name));
        async move {
            let result = heartbeat.request(timeout(EFFECT_LIMIT, effect)).await.ok();
            patience.note(name, result.is_some());
            result
        }
    }

    fn note(&self, name: &'static str, is_done: bool) {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if is_done {
            given_up.remove(name);
            return;
        }
        count(&self.metrics.api_errors, "request", "unfinished");
        // The first such effect is logged: many effects may wait for the same thing.
        if given_up.insert(name) {
            tracing::warn!("work on {name} did not finish within {} s, will retry", EFFECT_LIMIT.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin, time::Duration};

    use tokio::time::advance;

    use super::*;

    // C4
    #[tokio::test(start_paused = true)]
    async fn an_effect_that_hangs_is_given_up_and_counted_before_livez_fails() {
        let (liveness, metrics) = (Liveness::default(), Arc::<Metrics>::default());
        let patience = Patience::new(liveness.clone(), metrics.clone());
        let mut hangs = pin!(patience.bound("autoscalers", pending::<()>()));
        let result = loop {
            if let Ok(result) = timeout(Duration::from_secs(1), hangs.as_mut()).await {
                break result;
            }
            assert_eq!(liveness.complaint(), None);
        };
        assert!(result.is_none());
        assert_eq!(metrics.api_errors.get_or_create(&[("request", "unfinished")]).get(), 1);
    }

    // C4
    #[tokio::test(start_paused = true)]
    async fn an_effect_whose_thread_is_blocked_is_named_until_it_ends() {
        let liveness = Liveness::default();
        // Nobody polls it, as if its thread were blocked.
        let blocked = Patience::new(liveness.clone(), Arc::default()).bound("autoscalers", async { 7 });
        advance(Duration::from_secs(30)).await;
        assert!(liveness.complaint().is_some_and(|told| told.contains("work on autoscalers has")));
        assert_eq!(blocked.await, Some(7));
        assert_eq!(liveness.complaint(), None);
    }
}

//! One term: the state of this replica while it leads, and the channels to proxies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use operator_core::{
    Cache, Touched, Update,
    publish::leadership::{Leadership, Publication},
    status::fleets::Moved,
};

use crate::{
    outputs::publish::{Channels, Deltas},
    platform::metrics::Metrics,
};

/// State of one term.
pub(super) struct Leading {
    pub(super) known: Leadership,
    pub(super) channels: Channels,
    pub(super) deltas: Arc<Deltas>,
}

impl Leading {
    pub(super) fn new(term: String) -> Self {
        Self { known: Leadership::new(term), channels: Channels::default(), deltas: Arc::default() }
    }

    /// Translates the touched objects and publishes the result to streams. Returns the groups whose pods changed, and
    /// the translator's update.
    pub(super) fn take(
        &mut self,
        touched: &Touched,
        cache: &Cache,
        metrics: &Metrics,
        now: Duration,
    ) -> (Moved, Update) {
        let started = Instant::now();
        let update = self.known.translate(touched, cache);
        metrics.translation.observe(started.elapsed().as_secs_f64());
        let started = Instant::now();
        let Publication { moved, snapshots, steps } = self.known.publish(touched, &update, cache, now);
        metrics.snapshots.inc_by(snapshots);
        self.channels.run(steps);
        metrics.publish.observe(started.elapsed().as_secs_f64());
        (moved, update)
    }
}

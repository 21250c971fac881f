//! Measures the load of a proxy, in steps of few listeners: counting all of them at once would delay a change.

use std::mem;

use proxy_api::{ListenerId, Load};
use tokio::time::Instant;

use crate::{
    core::workers::{
        load::{ByForward, Summing},
        walk::Walk,
    },
    metrics::Metrics,
};

/// Most listeners, or forwards, of one step.
const STEP: usize = 256;

/// The previous measurement, the one under way, and the last load sent.
pub(super) struct Meter {
    /// When the last measurement began.
    at: Instant,
    /// The counts of the last complete measurement.
    counts: ByForward,
    /// Seconds between the starts of the last two measurements.
    elapsed: f64,
    phase: Phase,
    sent: Option<Load>,
}

/// The progress of a measurement.
enum Phase {
    /// No measurement is under way.
    Idle,
    /// Listeners are counted.
    Counting(Walk<ListenerId>, ByForward),
    /// The load is computed.
    Summing(Summing),
}

impl Meter {
    /// Creates a meter whose first measurement compares with `now`.
    pub(super) fn new(metrics: &Metrics, now: Instant) -> Self {
        Self { at: now, counts: metrics.by_forward(), elapsed: 0.0, phase: Phase::Idle, sent: None }
    }

    /// Begins a measurement at `now`, unless one is under way.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.is_under_way() {
            return;
        }
        self.phase = Phase::Counting(Walk::default(), ByForward::new());
        self.elapsed = now.duration_since(mem::replace(&mut self.at, now)).as_secs_f64();
    }

    /// Whether a measurement has begun and is not over.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Continues the measurement. Returns the load once it is measured, if it differs from the last one returned.
    pub(super) fn step(&mut self, metrics: &Metrics) -> Option<Load> {
        let mut summing = match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => return None,
            Phase::Counting(mut walk, mut counts) => {
                metrics.count_forwards(&mut walk, STEP, &mut counts);
                if walk.is_under_way() {
                    self.phase = Phase::Counting(walk, counts);
                    return None;
                }
                Summing::of(mem::take(&mut self.counts), counts, self.elapsed)
            }
            Phase::Summing(summing) => summing,
        };
        let Some((load, counts)) = summing.step(STEP) else {
            self.phase = Phase::Summing(summing);
            return None;
        };
        self.counts = counts;
        (self.sent.as_ref() != Some(&load)).then(|| self.sent.insert(load).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::Ordering::Relaxed},
        time::Duration,
    };

    use proxy_api::{Origin, Work};

    use super::*;
    use crate::{
        fixtures::{process, template},
        settings::Settings,
        shared::Shared,
    };

    const COUNT: usize = 600;

    /// Metrics of listeners with a forward each.
    fn metrics() -> (Arc<Metrics>, Vec<Arc<Shared>>) {
        let metrics = Metrics::new(process(&Settings::default(), None));
        let spec = Arc::new(template());
        let listener = |at: usize| {
            let id = ListenerId::new(Origin::port_forward("ns", format!("f{at}")), "l");
            Shared::new(id, spec.clone(), Arc::default(), Arc::default())
        };
        let all: Vec<Arc<Shared>> = (0..COUNT).map(listener).collect();
        metrics.expose(all.iter().map(|shared| (&shared.id, Some(shared))), &[]);
        (metrics, all)
    }

    /// Measures to the end. Returns the number of steps, and the load if it has changed.
    fn measure(meter: &mut Meter, metrics: &Metrics) -> (usize, Option<Load>) {
        let (mut steps, mut load) = (0, None);
        while meter.is_under_way() {
            assert!(load.is_none(), "the load comes at the end");
            load = meter.step(metrics);
            steps += 1;
        }
        (steps, load)
    }

    #[test]
    fn a_measurement_has_steps_and_is_reported_if_it_differs() {
        let (metrics, all) = metrics();
        let start = Instant::now();
        let mut meter = Meter::new(&metrics, start);
        assert!(!meter.is_under_way() && meter.step(&metrics).is_none());
        for shared in &all {
            shared.counters.opened.fetch_add(10, Relaxed);
        }
        meter.begin(start + Duration::from_secs(5));
        assert!(meter.step(&metrics).is_none() && meter.is_under_way());
        meter.begin(start + Duration::from_secs(10));
        let (steps, load) = measure(&mut meter, &metrics);
        let counts = u64::try_from(COUNT).expect("a number");
        let expected = Work { connections: 10 * counts, new_per_second: 2 * counts, bytes_per_second: 0 };
        assert_eq!(load.map(|load| load.sum), Some(expected), "none begins while one is under way");
        // The last listeners are counted, and the first forwards summed, in one step. One is done already.
        assert_eq!(steps, 2 * COUNT.div_ceil(STEP) - 2);
        meter.begin(start + Duration::from_secs(15));
        let load = measure(&mut meter, &metrics).1.expect("no session has begun since");
        assert_eq!(load.sum, Work { new_per_second: 0, ..expected });
        meter.begin(start + Duration::from_secs(20));
        assert_eq!(measure(&mut meter, &metrics).1, None);
    }
}

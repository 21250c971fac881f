//! State shared by all threads of a proxy.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::{clock::Clock, files::Files, log::Log, worker::budget::Budget};

/// State shared by all threads of a proxy.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process clock.
    pub clock: Clock,
    /// File descriptor budget.
    pub files: Arc<Files>,
    /// Budget of buffered bytes.
    pub budget: Arc<Budget>,
    /// Log.
    pub log: Log,
    /// Set to end a drain immediately.
    pub stop: Arc<AtomicBool>,
    /// Duration histograms.
    pub timings: Arc<Timings>,
}

/// Duration histograms over all listeners.
#[derive(Debug)]
pub struct Timings {
    /// Connects.
    pub(crate) connect: Histogram,
    /// Sessions.
    pub(crate) session: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            connect: Histogram::new(exponential_buckets(0.000_25, 4.0, 9)),
            session: Histogram::new(exponential_buckets(0.01, 10.0, 8)),
        }
    }
}

impl Timings {
    /// Records the duration of a connect.
    pub fn connected(&self, took: Duration) {
        self.connect.observe(took.as_secs_f64());
    }

    /// Records the duration of a session.
    pub fn ended(&self, lived: Duration) {
        self.session.observe(lived.as_secs_f64());
    }
}

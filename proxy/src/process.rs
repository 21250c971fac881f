//! What all threads of a proxy share.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::{clock::Clock, files::Files, log::Log, worker::budget::Budget};

/// What all threads of a proxy share.
#[derive(Clone, Debug)]
pub struct Process {
    /// Time.
    pub clock: Clock,
    /// Files.
    pub files: Arc<Files>,
    /// Held bytes.
    pub budget: Arc<Budget>,
    /// Log.
    pub log: Log,
    /// Set when nothing waits any longer.
    pub stop: Arc<AtomicBool>,
    /// Durations.
    pub timings: Arc<Timings>,
}

/// Durations over all listeners of the process.
#[derive(Debug)]
pub struct Timings {
    /// Of connects.
    pub(crate) connect: Histogram,
    /// Of sessions.
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
    /// Notes how long a connect took.
    pub fn connected(&self, took: Duration) {
        self.connect.observe(took.as_secs_f64());
    }

    /// Notes how long a session lived.
    pub fn ended(&self, lived: Duration) {
        self.session.observe(lived.as_secs_f64());
    }
}

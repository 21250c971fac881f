//! Counts connected proxies by the version of their software.

use std::sync::{Arc, Mutex, PoisonError};

use operator_core::status::versions::Versions as Labels;
use prometheus_client::metrics::gauge::Gauge;

use crate::platform::metrics::Metrics;

/// Version of this operator.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// The versions of connected proxies.
pub(super) struct Versions {
    labels: Mutex<Labels>,
    metrics: Arc<Metrics>,
}

/// A connected proxy, counted until it is dropped.
pub(super) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Versions {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { labels: Mutex::default(), metrics }
    }

    /// Counts a proxy that has connected. The first proxy of another release than the operator's is logged.
    pub(super) fn connected(&self, software: &str) -> Connected {
        let (label, is_new) = self.labels.lock().unwrap_or_else(PoisonError::into_inner).label(software);
        if is_new && label != OWN {
            tracing::info!(version = label, operator = OWN, "proxies of another release than the operator's connect");
        }
        let gauge = self.metrics.proxy_versions.get_or_create_owned(&[("version", label)]);
        gauge.inc();
        Connected(gauge)
    }
}

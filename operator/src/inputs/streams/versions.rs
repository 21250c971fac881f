//! Counts connected proxies by the version of their software.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use operator_core::{ProxyId, status::versions::Versions as Labels};

use crate::platform::metrics::Metrics;

/// Version of this operator.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// The versions of connected proxies.
pub(super) struct Versions {
    labels: Mutex<Labels>,
    metrics: Arc<Metrics>,
}

/// A connected proxy, counted until it is dropped.
pub(super) struct Connected {
    versions: Arc<Versions>,
    label: String,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let labels = [("version", std::mem::take(&mut self.label))];
        // The lock covers the metric as well: another proxy may connect with the same label.
        let mut known = self.versions.labels();
        self.versions.metrics.proxy_versions.get_or_create(&labels).dec();
        if known.left(&labels[0].1) {
            self.versions.metrics.proxy_versions.remove(&labels);
        }
    }
}

impl Versions {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { labels: Mutex::new(Labels::new(OWN)), metrics }
    }

    /// Counts a proxy that has connected. The first proxy of another release than the operator's is logged.
    pub(super) fn connected(self: &Arc<Self>, proxy: &ProxyId, software: &str) -> Connected {
        let namespace = proxy.pod().map(|pod| pod.namespace.as_str()).unwrap_or_default();
        let mut known = self.labels();
        let (label, is_new) = known.connected(namespace, software);
        if is_new {
            tracing::info!(
                version = label,
                operator = OWN,
                "a proxy of another release than the operator has connected"
            );
        }
        self.metrics.proxy_versions.get_or_create(&[("version", label.clone())]).inc();
        drop(known);
        Connected { versions: self.clone(), label }
    }

    fn labels(&self) -> MutexGuard<'_, Labels> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One address that sessions can go to, and its passive health.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::Outlier;

/// An endpoint of one backend entry; shared by all workers, touched once per session.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Live sessions.
    pub active: AtomicU32,
    failures: AtomicU32,
    /// Seconds of the process clock until which it is aside; 0: it is not.
    aside_until: AtomicU64,
}

impl Endpoint {
    /// A healthy endpoint.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, active: AtomicU32::new(0), failures: AtomicU32::new(0), aside_until: AtomicU64::new(0) }
    }

    /// Whether it is not put aside at `now` (seconds of the process clock).
    #[must_use]
    pub fn is_healthy(&self, now: u64) -> bool {
        self.aside_until.load(Relaxed) <= now
    }

    /// Notes a connect that worked.
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.aside_until.load(Relaxed) != 0 {
            self.aside_until.store(0, Relaxed);
        }
    }

    /// Notes a connect that failed; true if that put the endpoint aside.
    pub fn failed(&self, outlier: Outlier, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < outlier.consecutive_failures {
            return false;
        }
        // After its time aside an endpoint has one try: the count stays one below the limit.
        self.failures.store(outlier.consecutive_failures.saturating_sub(1), Relaxed);
        let until = now.saturating_add(u64::from(outlier.eject_seconds)).max(1);
        self.aside_until.swap(until, Relaxed) <= now
    }
}

/// Counts a live session of an endpoint until dropped.
#[derive(Debug)]
pub struct Counted(Arc<Endpoint>);

impl Counted {
    /// Counts from now on.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self(endpoint)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTLIER: Outlier = Outlier { consecutive_failures: 3, eject_seconds: 10 };

    fn endpoint() -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn failures_in_a_row_put_it_aside_and_time_brings_it_back() {
        let endpoint = endpoint();
        assert!(!endpoint.failed(OUTLIER, 5) && !endpoint.failed(OUTLIER, 5));
        assert!(endpoint.is_healthy(5));
        assert!(endpoint.failed(OUTLIER, 5));
        assert!(!endpoint.is_healthy(14));
        assert!(endpoint.is_healthy(15));
    }

    #[test]
    fn a_success_in_between_counts_anew() {
        let endpoint = endpoint();
        for _ in 0..10 {
            assert!(!endpoint.failed(OUTLIER, 0) && !endpoint.failed(OUTLIER, 0));
            endpoint.succeeded();
        }
        assert!(endpoint.is_healthy(0));
    }

    #[test]
    fn after_its_time_one_failure_is_enough() {
        let endpoint = endpoint();
        for _ in 0..3 {
            endpoint.failed(OUTLIER, 0);
        }
        assert!(endpoint.is_healthy(10));
        assert!(endpoint.failed(OUTLIER, 10));
        assert!(!endpoint.is_healthy(19));
        endpoint.succeeded();
        assert!(endpoint.is_healthy(19));
    }
}

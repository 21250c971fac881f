//! Bytes that the process holds in memory for peers that do not read.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A bounded number of bytes, shared by all workers.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    limit: usize,
}

impl Budget {
    /// At most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: AtomicUsize::new(0), limit }
    }

    /// Takes `bytes` if they fit.
    pub fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|total| *total <= self.limit);
        self.held.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Bytes taken now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Most bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

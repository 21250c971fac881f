//! Budget for bytes buffered in memory for peers that do not read.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A byte budget shared by all workers.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    limit: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// Takes `bytes` if they fit; returns whether they did.
    pub fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|total| *total <= self.limit.load(Relaxed));
        self.held.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Returns `bytes` to the budget.
    pub fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Bytes currently taken.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Size of the budget in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Changes the size of the budget; returns whether it differs.
    pub fn resize(&self, limit: usize) -> bool {
        self.limit.swap(limit, Relaxed) != limit
    }
}

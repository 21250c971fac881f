//! Counts open file descriptors, so that the proxy stops accepting before the system refuses.
//!
//! A reserve stays free for health, control and DNS: /livez answers even at the limit.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Notify;

/// File descriptors reserved for other uses than sessions.
pub const RESERVE: usize = 64;
/// Assumed number of descriptors open at start if the system does not say.
const OPEN_AT_START: usize = 32;
/// Assumed limit if the system sets none.
const UNLIMITED: usize = 1 << 20;

/// The file descriptor budget of the process.
#[derive(Debug)]
pub struct Files {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
    /// Times that accepting had to wait for a descriptor.
    pub paused: AtomicU64,
}

impl Files {
    /// Raises the soft limit to the hard limit and counts the descriptors already open.
    #[must_use]
    pub fn of_process() -> Arc<Self> {
        let limits = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
        let limit = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limits.maximum,
            Err(_) => limits.current,
        };
        let limit = limit.map_or(UNLIMITED, |limit| usize::try_from(limit).unwrap_or(UNLIMITED));
        let open = fs::read_dir("/proc/self/fd").map_or(OPEN_AT_START, Iterator::count);
        Arc::new(Self::new(open, limit.saturating_sub(RESERVE)))
    }

    fn new(used: usize, limit: usize) -> Self {
        Self { used: AtomicUsize::new(used), limit, freed: Notify::new(), paused: AtomicU64::new(0) }
    }

    /// Takes `count` descriptors if the reserve stays free.
    #[must_use]
    pub fn take(self: &Arc<Self>, count: usize) -> Option<Permit> {
        let fits = |used: usize| Some(used + count).filter(|total| *total <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).ok().map(|_| Permit { files: self.clone(), count })
    }

    /// Accounts for `count` descriptors that are already open, such as listening sockets.
    #[must_use]
    pub fn take_anyway(self: &Arc<Self>, count: usize) -> Permit {
        self.used.fetch_add(count, Relaxed);
        Permit { files: self.clone(), count }
    }

    /// Waits until `count` descriptors are available.
    pub async fn wait(self: &Arc<Self>, count: usize) -> Permit {
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.take(count) {
                return permit;
            }
            self.paused.fetch_add(1, Relaxed);
            freed.await;
        }
    }

    /// Descriptors in use, and the number at which accepting stops.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        (self.used.load(Relaxed), self.limit)
    }
}

/// Descriptors held until drop.
#[derive(Debug)]
pub struct Permit {
    files: Arc<Files>,
    count: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.files.used.fetch_sub(self.count, Relaxed);
        self.files.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_come_back() {
        let files = Arc::new(Files::new(0, 4));
        let first = files.take(2).expect("room");
        let _second = files.take(2).expect("room");
        assert!(files.take(1).is_none());
        drop(first);
        assert!(files.take(2).is_some());
    }
}

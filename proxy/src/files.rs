//! Counts open file descriptors, so that the proxy stops accepting before the system refuses.
//!
//! A reserve stays free for health, control and the first socket of a DNS query: /livez answers even at the limit.
//! [`crate::core::limits::open_files`] decides who may take how many.

use std::{fs, sync::Arc};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    core::limits::open_files,
    log::{Level, Log},
};
pub use crate::{
    core::limits::open_files::{FOR_LISTENERS, RESERVE},
    room::{Permit, Room as Files},
};

/// Assumed number of descriptors open at start, if the system does not report it.
const OPEN_AT_START: usize = 32;
/// Assumed limit if the system sets none.
const UNLIMITED: usize = 1 << 20;

/// The file descriptor budget of the process; raises the soft limit to the hard limit.
#[must_use]
pub fn of_process() -> Arc<Files> {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    let limit = limit.map_or(UNLIMITED, |limit| usize::try_from(limit).unwrap_or(UNLIMITED));
    Arc::new(Files::new(limit.saturating_sub(RESERVE)))
}

/// Counts the descriptors that are open now. Called once, when the threads and their runtimes exist and nothing else is
/// counted yet: otherwise the descriptors of the runtimes would come out of the reserve.
pub fn count_open(files: &Files) {
    files.occupy(fs::read_dir("/proc/self/fd").map_or(OPEN_AT_START, Iterator::count));
}

/// Warns if the limit leaves room for few sessions. Called once, after [`count_open`].
pub fn warn_if_low(files: &Files, log: &Log) {
    if let Some(message) = open_files::warning(files.usage()) {
        log.notice(Level::Warn, "file_limit", "process", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D18
    #[test]
    fn runtimes_that_exist_are_counted_beside_the_reserve() {
        let files = Arc::new(Files::new(1 << 20));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let runtimes: Vec<_> = (0..8).map(|_| runtime()).collect();
        count_open(&files);
        assert!(files.usage().0 > runtimes.len(), "each runtime has at least one descriptor");
    }
}

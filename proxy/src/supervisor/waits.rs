//! Notices about connections that wait because the process has no room for them.

use super::notices::notice;
use crate::{
    core::limits::capacity::SESSION_PLACES,
    files::RESERVE,
    log::{Level, Notice},
};

/// A notice of connections that wait for file descriptors, with those in use and the limit.
pub(super) fn no_files((used, limit): (usize, usize)) -> Notice {
    let message = format!(
        "new connections wait for file descriptors: {used} of {limit} are in use, besides a reserve of {RESERVE}; \
         raise the limit of open files (ulimit -n)"
    );
    notice(Level::Warn, "files", "process", message)
}

/// A notice of connections that wait for memory, with the places in use and the limit.
pub(super) fn no_sessions((_, limit): (usize, usize)) -> Notice {
    let message = format!(
        "new connections wait for others to end: this process accepts at most {} sessions; raise its memory limit, or \
         set --max-sessions",
        limit / SESSION_PLACES
    );
    notice(Level::Warn, "sessions", "process", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_what_is_lacking_and_its_limit() {
        let (files, sessions) = (no_files((3, 4)), no_sessions((3, 4)));
        assert_eq!((files.event, sessions.event), ("files", "sessions"));
        assert!(files.message.contains("3 of 4"), "{}", files.message);
        assert!(sessions.message.contains("2 sessions"), "{}", sessions.message);
    }
}

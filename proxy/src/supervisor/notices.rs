//! Notices as values: owners return them, the supervisor writes them to the log.

use proxy_api::ListenerId;

use crate::log::{Level, Log, Notice, Subject};

/// A notice about this listener, whose entry in the report has changed.
pub(super) type About = (ListenerId, Notice);

/// A notice about `subject`.
pub(super) fn notice(
    level: Level,
    event: &'static str,
    subject: impl Into<Subject>,
    message: impl Into<String>,
) -> Notice {
    Notice { level, event, subject: subject.into(), message: message.into() }
}

/// Writes notices in their order.
pub(super) fn write(log: &Log, notices: impl IntoIterator<Item = Notice>) {
    for Notice { level, event, subject, message } in notices {
        log.notice(level, event, subject, message);
    }
}

//! What a store tells people, beside its figures.

use std::fmt;
use std::ops::Range;

/// What happened to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The disk fails. Told once until a sync succeeds.
    Failed {
        /// Why, for people.
        error: String,
    },
    /// These messages are lost.
    Lost {
        /// Their numbers.
        messages: Range<u64>,
    },
    /// The end of a file is no whole message, as after a crash.
    Cut {
        /// The file.
        file: String,
        /// Bytes that are not read.
        bytes: u64,
    },
    /// A damaged file is kept for a while.
    Quarantined {
        /// The file.
        file: String,
    },
    /// Nobody knows what the sink has.
    CursorLost,
}

impl StoreEvent {
    /// Whether nothing is lost by it, and nothing is to be done.
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Cut { .. })
    }

    /// Tells the event to the subscriber of `tracing`.
    pub(super) fn trace(&self, prefix: &str) {
        if self.is_harmless() {
            tracing::info!(prefix, "{self}");
        } else {
            tracing::warn!(prefix, "{self}");
        }
    }
}

impl fmt::Display for StoreEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { error } => f.write_str(error),
            Self::Lost { messages } => {
                let count = messages.end.saturating_sub(messages.start);
                write!(f, "{count} message(s) are lost: a part of the log is damaged")
            }
            Self::Cut { file, bytes } => {
                write!(f, "the last {bytes} bytes of {file} are no whole message, as after a crash, and are not read")
            }
            Self::Quarantined { file } => {
                write!(f, "a part of the log is damaged; it is kept for a while as {file}: see to the disk")
            }
            Self::CursorLost => f.write_str("the place in the log is lost: messages may come twice; see to the disk"),
        }
    }
}

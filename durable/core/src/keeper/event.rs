//! Events of a store, for people, beside its counts.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The most events that are kept.
const KEPT: usize = 16;

/// An event of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The disk or the server fails. Reported once until it takes messages again, and once more if the server turns out
    /// to refuse the user.
    Failed {
        /// The error, for people.
        error: String,
    },
    /// These messages are lost.
    Lost {
        /// The numbers of the messages.
        messages: Range<u64>,
    },
    /// The end of a file is an incomplete message, as after a crash.
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
    /// The cursor was lost, so it is not known which messages the sink has.
    CursorLost,
    /// The server takes no messages of this length. Reported once in a while.
    TooLong {
        /// Messages since the last such event.
        messages: u64,
        /// The length of the longest message among those that were given up last.
        bytes: usize,
        /// The bound of the server, and how to change it, for people.
        why: String,
    },
}

impl StoreEvent {
    /// Whether the event loses no message and requires no action.
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Cut { .. })
    }
}

impl fmt::Display for StoreEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { error } => f.write_str(error),
            Self::Lost { messages } => {
                let count = messages.end.saturating_sub(messages.start);
                write!(f, "lost {}: a part of the log is damaged", counted(count))
            }
            Self::Cut { file, bytes } => {
                write!(
                    f,
                    "the last {bytes} bytes of {file} are an incomplete message, as after a crash, and are not read"
                )
            }
            Self::Quarantined { file } => {
                write!(
                    f,
                    "a part of the log is damaged; it was set aside as {file} and is kept for a while: check the disk"
                )
            }
            Self::CursorLost => {
                f.write_str("it is not known which messages the sink has: some may be sent twice; check the disk")
            }
            Self::TooLong { messages, bytes, why } => {
                write!(
                    f,
                    "did not keep {} because of their length (longest recent one: {bytes} bytes): {why}",
                    counted(*messages)
                )
            }
        }
    }
}

/// A number of messages, in words.
fn counted(messages: u64) -> String {
    if messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") }
}

/// The events of a log since it was opened: the latest 16, and the count of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreEvents {
    count: u64,
    /// The latest events, in order.
    kept: Arc<VecDeque<StoreEvent>>,
}

impl StoreEvents {
    /// Adds the latest event.
    pub fn push(&mut self, event: StoreEvent) {
        let kept = Arc::make_mut(&mut self.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
        self.count += 1;
    }

    /// The count of all events.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The events after the first `known` ones, as far as they are kept.
    pub fn after(&self, known: u64) -> impl Iterator<Item = &StoreEvent> {
        let news = usize::try_from(self.count.saturating_sub(known)).unwrap_or(usize::MAX);
        self.kept.iter().skip(self.kept.len().saturating_sub(news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_how_much_is_concerned_and_only_a_cut_is_harmless() {
        let file = || "f".to_owned();
        let said = |event: StoreEvent| (event.to_string(), event.is_harmless());
        let (lost, harmless) = said(StoreEvent::Lost { messages: 3..5 });
        assert!(lost.starts_with("lost 2 messages: ") && !harmless, "{lost}");
        let (cut, harmless) = said(StoreEvent::Cut { file: file(), bytes: 7 });
        assert!(cut.starts_with("the last 7 bytes of f are an incomplete message") && harmless, "{cut}");
        assert_eq!(said(StoreEvent::Failed { error: "broken".to_owned() }), ("broken".to_owned(), false));
        let (kept, harmless) = said(StoreEvent::Quarantined { file: file() });
        assert!(kept.contains("set aside as f and is kept for a while") && !harmless, "{kept}");
        let (twice, harmless) = said(StoreEvent::CursorLost);
        assert!(twice.contains("some may be sent twice") && !harmless, "{twice}");
        let (long, harmless) = said(StoreEvent::TooLong { messages: 3, bytes: 70, why: "raise it".to_owned() });
        assert!(long.starts_with("did not keep 3 messages") && long.contains("70 bytes): raise it"), "{long}");
        assert!(!harmless);
    }

    #[test]
    fn whoever_looks_late_gets_the_latest_events_and_each_one_once() {
        let mut events = StoreEvents::default();
        let cut = |bytes| StoreEvent::Cut { file: "f".to_owned(), bytes };
        for bytes in 0..20 {
            events.push(cut(bytes));
        }
        let after = |events: &StoreEvents, known| events.after(known).cloned().collect::<Vec<_>>();
        assert_eq!(after(&events, 0), (4..20).map(cut).collect::<Vec<_>>());
        assert_eq!(after(&events, 18), [cut(18), cut(19)]);
        assert!(after(&events, events.count()).is_empty());
    }
}

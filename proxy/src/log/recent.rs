//! The latest notices, for the admin page.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{Level, Notice, printable};

/// Most notices that are kept; the oldest are forgotten first.
const MOST: usize = 100;
/// Longest text of a notice that is kept, in characters.
const TEXT: usize = 1_000;

/// The latest notices.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Number of the last notice.
    number: u64,
    notices: VecDeque<Recorded>,
}

/// A notice in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Number of the notice since the start of the process.
    pub number: u64,
    /// Time, in milliseconds since 1970.
    pub at: u64,
    /// Severity.
    pub level: Level,
    /// Kind of event.
    pub event: &'static str,
    /// Object the event is about.
    pub subject: String,
    /// The message.
    pub message: String,
}

impl Recent {
    pub(super) fn keep(&self, time: SystemTime, notice: &Notice) {
        let at = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let cut = |text: &str| printable(text).chars().take(TEXT).collect();
        let (subject, message) = (cut(&notice.subject.to_string()), cut(&notice.message));
        let mut kept = self.lock();
        kept.number += 1;
        let recorded = Recorded {
            number: kept.number,
            at: u64::try_from(at).unwrap_or(u64::MAX),
            level: notice.level,
            event: notice.event,
            subject,
            message,
        };
        kept.notices.push_back(recorded);
        if kept.notices.len() > MOST {
            kept.notices.pop_front();
        }
    }

    /// Number of the last notice; 0: there was none.
    pub(super) fn number(&self) -> u64 {
        self.lock().number
    }

    /// The notices, oldest first.
    pub(super) fn all(&self) -> Vec<Recorded> {
        self.lock().notices.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(message: &str) -> Notice {
        Notice { level: Level::Warn, event: "event", subject: "s".into(), message: message.to_owned() }
    }

    #[test]
    fn the_latest_notices_are_kept_in_their_order() {
        let recent = Recent::default();
        for at in 0..=MOST {
            recent.keep(UNIX_EPOCH, &notice(&at.to_string()));
        }
        let all = recent.all();
        assert_eq!((all.len(), recent.number()), (MOST, MOST as u64 + 1));
        assert_eq!(all.first().map(|it| (it.number, it.message.as_str())), Some((2, "1")));
        assert_eq!(all.last().map(|it| it.number), Some(recent.number()));
    }

    #[test]
    fn a_long_text_is_cut_and_a_hidden_character_is_seen() {
        let recent = Recent::default();
        recent.keep(UNIX_EPOCH, &notice(&format!("\u{202e}{}", "x".repeat(2 * TEXT))));
        let message = &recent.all()[0].message;
        assert!(message.starts_with("\\u{202e}x") && message.chars().count() == TEXT, "{message}");
    }
}

//! When a proxy that only drains its folder may exit, and what it leaves behind.

use proxy_api::{Listener, Store, count};

/// The most logs that the remainder names.
const NAMED: usize = 8;

/// The owner of the messages of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// No configuration has arrived yet.
    #[default]
    Unknown,
    /// A listener owns and sends them.
    Listener,
    /// No listener sends them: the configuration has no such durable listener, or has it without a folder.
    Nobody,
}

/// A log in the folder, with its last known state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The folder of the log, within the folder of all logs.
    pub folder: String,
    /// Messages that no sink has; `None` if they were not counted yet.
    pub messages: Option<u64>,
    /// Dead letters at the start.
    pub letters: u64,
    /// Messages that became dead letters since the start.
    pub put_aside: u64,
    /// Messages that could not be read.
    pub lost: u64,
    /// The damage in its folder at the end, in words.
    pub damage: Option<String>,
    /// The owner of the messages.
    pub owner: Owner,
}

impl Left {
    /// Whether the sink has every message.
    fn is_sent(&self) -> bool {
        self.messages == Some(0)
    }

    /// The remainder of the log, in words; `None` if there is none.
    fn words(&self) -> Option<String> {
        let messages = match (self.owner, self.messages) {
            (_, Some(0)) => None,
            (Owner::Nobody, Some(number)) => {
                let messages = count(number, "message");
                Some(format!("{messages} without a durable listener: create it again, or remove the folder"))
            }
            (Owner::Nobody, None) => Some("a log without a durable listener, which cannot be read".to_owned()),
            (_, Some(number)) => Some(format!("{} that the sink does not have", count(number, "message"))),
            (_, None) => Some("messages that could not be counted".to_owned()),
        };
        let letters = match self.letters.saturating_add(self.put_aside) {
            0 => None,
            number => Some(count(number, "dead letter")),
        };
        let lost = || format!("lost {}, which could not be read", count(self.lost, "message"));
        let unread = || (self.lost > 0).then(lost);
        let damage = self.damage.clone().or_else(unread);
        let words: Vec<String> = messages.into_iter().chain(letters).chain(damage).collect();
        (!words.is_empty()).then(|| format!("{} has {}", self.folder, words.join(", and ")))
    }
}

/// Whether a listener keeps messages in a folder. The remainder in the folder of a listener with a stream is sent by a
/// proxy that takes messages, and not by one that only drains.
#[must_use]
pub fn has_folder(listener: &Listener) -> bool {
    listener.durable.as_ref().is_some_and(|durable| matches!(durable.store, Store::Disk { .. }))
}

/// Whether there is nothing to wait for: each log is sent, or no listener would send it.
#[must_use]
pub fn is_over(logs: &[Left]) -> bool {
    logs.iter().all(|log| log.is_sent() || log.owner == Owner::Nobody)
}

/// The remainder in the folder, in words; `None` if the folder may be removed.
#[must_use]
pub fn remainder(logs: &[Left]) -> Option<String> {
    let words: Vec<String> = logs.iter().filter_map(Left::words).collect();
    let more = match words.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and so have {more} more"),
    };
    let named = words.get(..NAMED).unwrap_or(&words).join("; ");
    (!named.is_empty()).then(|| named + &more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(owner: Owner, messages: Option<u64>) -> Left {
        Left { folder: "shop/logs/l".to_owned(), messages, owner, ..Left::default() }
    }

    #[test]
    fn a_folder_without_logs_is_over_at_once() {
        assert!(is_over(&[]));
        assert_eq!(remainder(&[]), None);
    }

    #[test]
    fn it_waits_for_a_configuration_and_then_until_the_sinks_have_all() {
        let sent = log(Owner::Listener, Some(0));
        for waits in [log(Owner::Unknown, None), log(Owner::Listener, None), log(Owner::Listener, Some(1))] {
            assert!(!is_over(&[sent.clone(), waits]));
        }
        assert!(is_over(&[sent.clone(), sent.clone()]));
        assert_eq!(remainder(&[sent.clone(), sent]), None);
    }

    #[test]
    fn it_does_not_wait_for_a_log_of_nobody_but_for_the_others() {
        let (lost, waits) = (log(Owner::Nobody, Some(5)), log(Owner::Listener, Some(1)));
        assert!(!is_over(&[lost.clone(), waits]));
        assert!(is_over(&[lost.clone(), log(Owner::Listener, Some(0))]));
        assert!(is_over(&[log(Owner::Nobody, None)]));
        assert_eq!(remainder(&[log(Owner::Nobody, Some(0))]), None, "it is empty");
        let words = remainder(&[log(Owner::Nobody, None)]);
        assert_eq!(words.as_deref(), Some("shop/logs/l has a log without a durable listener, which cannot be read"));
        let words = remainder(&[lost]).expect("messages");
        assert!(words.starts_with("shop/logs/l has 5 messages without a durable listener"), "{words}");
    }

    #[test]
    fn what_is_left_at_the_end_is_named_whoever_has_it() {
        for left in [log(Owner::Unknown, None), log(Owner::Listener, None), log(Owner::Nobody, None)] {
            assert!(remainder(&[left]).is_some(), "unknown is not nothing");
        }
        let words = remainder(&[log(Owner::Listener, Some(3))]);
        assert_eq!(words.as_deref(), Some("shop/logs/l has 3 messages that the sink does not have"));
    }

    #[test]
    fn dead_letters_are_left_and_nothing_waits_for_them() {
        let letters = Left { letters: 2, put_aside: 1, ..log(Owner::Listener, Some(0)) };
        assert!(is_over(std::slice::from_ref(&letters)));
        assert_eq!(remainder(&[letters]).as_deref(), Some("shop/logs/l has 3 dead letters"));
    }

    #[test]
    fn damage_is_left_though_the_sink_has_all_that_could_be_read() {
        let lost = Left { lost: 2, ..log(Owner::Listener, Some(0)) };
        assert!(is_over(std::slice::from_ref(&lost)));
        let damaged = Left { damage: Some("the damaged part x".to_owned()), ..lost.clone() };
        let words = remainder(&[lost]);
        assert_eq!(words.as_deref(), Some("shop/logs/l has lost 2 messages, which could not be read"));
        assert_eq!(remainder(&[damaged]).as_deref(), Some("shop/logs/l has the damaged part x"));
    }

    #[test]
    fn many_logs_are_counted_beyond_the_first() {
        let many: Vec<Left> = (0..NAMED + 2).map(|_| log(Owner::Listener, Some(1))).collect();
        let words = remainder(&many).expect("messages");
        assert_eq!(words.matches("shop/logs/l").count(), NAMED);
        assert!(words.ends_with("; and so have 2 more"), "{words}");
    }
}

//! The files of the logs of a listener on disk, and damage of these.

use std::collections::BTreeSet;

use durable_core::{
    Reported,
    keeper::StoreEvent,
    lanes::{self, Generation},
};
use proxy_api::count;

/// The prefix of the file names of all logs.
pub const PREFIX: &str = "log-";
/// The part after the prefix of a log in the names of the files of its dead letters.
pub const LETTERS: &str = "dead-";

/// The generations that have dead letters in a folder with files of these names. `None`: there is no log.
#[must_use]
pub fn with_letters(names: &[String]) -> Option<BTreeSet<Generation>> {
    let has_log = names.iter().any(|name| name.starts_with(PREFIX));
    has_log.then(|| lanes::with_letters(names.iter().map(String::as_str), PREFIX))
}

/// The name of a damaged part of a log, or of dead letters, among files of these names.
pub fn damaged_part(names: impl IntoIterator<Item = String>) -> Option<String> {
    let is_damaged = |name: &str| name.rsplit_once('.').is_some_and(|(_, extension)| extension == "damaged");
    names.into_iter().find(|name| name.starts_with(PREFIX) && is_damaged(name))
}

/// Describes the damage that logs reported while all of them were read; `None`: none.
#[must_use]
pub fn damage(reported: &[Reported]) -> Option<String> {
    reported.iter().find_map(|reported| match reported {
        Reported::Lost { messages } => {
            let messages = count(messages.end.saturating_sub(messages.start), "message");
            Some(format!("{messages} that cannot be read"))
        }
        Reported::Cut { file, bytes } => {
            let bytes = count(*bytes, "byte");
            Some(format!("an incomplete message, the last {bytes} of {file}"))
        }
        Reported::Quarantined { file } => Some(format!("the damaged part {file}")),
        _ => None,
    })
}

/// The repairs that logs reported while they were opened: they may not be reported again at the next opening.
#[must_use]
pub fn repairs(reported: Vec<Reported>) -> Vec<StoreEvent> {
    let repair = |reported| match reported {
        Reported::Quarantined { file } => Some(StoreEvent::Quarantined { file }),
        Reported::CursorLost => Some(StoreEvent::CursorLost),
        _ => None,
    };
    reported.into_iter().filter_map(repair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn dead_letters_are_those_of_the_generations_of_a_log() {
        let found = |names: &[&str]| with_letters(&named(names)).map(Vec::from_iter);
        assert_eq!([found(&[]), found(&["x", "a-log-1.log"])], [None, None], "no log");
        assert_eq!(found(&["x", "log-1.log"]), Some(Vec::new()));
        assert_eq!(found(&["log-1.log", "log-dead-1.log"]), Some(vec![Generation::FIRST]));
        let of_lanes = Generation { number: 1, lanes: 2 };
        assert_eq!(found(&["log-dead-1.log", "log-1-2-0-1.log"]), Some(vec![Generation::FIRST]));
        let letters = of_lanes.prefixes(PREFIX).map(|prefix| format!("{prefix}{LETTERS}1.log"));
        let names: Vec<String> = letters.chain(named(&["log-1.log"])).collect();
        assert_eq!(with_letters(&names), Some(BTreeSet::from([of_lanes])));
    }

    #[test]
    fn only_a_part_of_a_log_is_a_damaged_one() {
        let found = |names: &[&str]| damaged_part(named(names));
        assert_eq!(found(&["log-1.log", "x.damaged", "log-damaged", "log-1.damaged.log"]), None);
        assert_eq!(found(&["log-1.log", "log-dead-2.damaged"]).as_deref(), Some("log-dead-2.damaged"));
    }

    #[test]
    fn what_another_opening_tells_again_is_no_repair() {
        let file = || "log-1.damaged".to_owned();
        let reported = vec![
            Reported::Cut { file: file(), bytes: 7 },
            Reported::Quarantined { file: file() },
            Reported::Synced { messages: 0..1 },
            Reported::CursorLost,
        ];
        assert_eq!(repairs(reported), [StoreEvent::Quarantined { file: file() }, StoreEvent::CursorLost]);
    }

    #[test]
    fn the_first_damage_is_told_and_what_is_none_is_not() {
        let whole = [Reported::Synced { messages: 0..1 }, Reported::CursorLost];
        assert_eq!(damage(&whole), None);
        let file = || "log-1.log".to_owned();
        let damages = [
            Reported::Lost { messages: 3..5 },
            Reported::Cut { file: file(), bytes: 7 },
            Reported::Quarantined { file: file() },
        ];
        let words = [
            "2 messages that cannot be read",
            "an incomplete message, the last 7 bytes of log-1.log",
            "the damaged part log-1.log",
        ];
        for (at, words) in words.into_iter().enumerate() {
            let reported = [&whole[..], &damages[at..]].concat();
            assert_eq!(damage(&reported).as_deref(), Some(words));
        }
    }
}

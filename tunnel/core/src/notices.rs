//! Notices of a server about agents that do not connect. Strangers cause some of them, so they must not flood a log.

use std::collections::BTreeMap;
use std::time::Duration;

/// The time between two notices of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// One line for the log of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The kind, one word.
    pub kind: &'static str,
    /// The agent or the client.
    pub subject: String,
    /// What happened, and the remedy.
    pub message: String,
}

/// The subject of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Any client: nothing proves its identity.
    Stranger,
    /// A client with a certificate or a token of this server.
    Known,
}

#[derive(Debug, Default)]
struct Of {
    /// When the last notice of this kind was taken.
    taken: Option<Duration>,
    /// The first notice since then about a known client, or else about a stranger.
    waiting: Option<(About, String, String)>,
    /// The number of further notices.
    more: u64,
}

/// The notices that wait for the log: one a minute of each kind, with the number of omitted ones. Kinds are few, so the
/// memory is bounded.
#[derive(Debug, Default)]
pub struct Notices(BTreeMap<&'static str, Of>);

impl Notices {
    /// Notes an event of this kind. `told` returns the subject and the message, and is not called for omitted notices.
    /// A notice about a known client replaces one about a stranger.
    pub fn note(&mut self, kind: &'static str, about: About, told: impl FnOnce() -> (String, String)) {
        let of = self.0.entry(kind).or_default();
        let waiting = of.waiting.as_ref().map(|(about, ..)| *about);
        of.more += u64::from(waiting.is_some());
        if waiting < Some(about) {
            let (subject, message) = told();
            of.waiting = Some((about, subject, message));
        }
    }

    /// Takes the notices that are due at `now`, the time since any fixed start.
    pub fn take(&mut self, now: Duration) -> Vec<Notice> {
        let mut due = Vec::new();
        for (kind, of) in &mut self.0 {
            if of.taken.is_some_and(|taken| now.saturating_sub(taken) < PAUSE) {
                continue;
            }
            let Some((_, subject, message)) = of.waiting.take() else { continue };
            let message = match std::mem::take(&mut of.more) {
                0 => message,
                more => format!("{message} (and {more} more of this kind since then)"),
            };
            of.taken = Some(now);
            due.push(Notice { kind, subject, message });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(notices: &mut Notices, kind: &'static str, message: &str) {
        notices.note(kind, About::Known, || ("a client".to_owned(), message.to_owned()));
    }

    /// The messages that are due at this second.
    fn taken(notices: &mut Notices, second: u64) -> Vec<String> {
        notices.take(Duration::from_secs(second)).into_iter().map(|notice| notice.message).collect()
    }

    #[test]
    fn one_of_each_kind_is_told_a_minute_with_the_number_of_those_that_are_left_out() {
        let mut notices = Notices::default();
        note(&mut notices, "clock", "a day");
        note(&mut notices, "version", "0");
        assert_eq!(taken(&mut notices, 10), ["a day", "0"]);
        for hours in 1..=200 {
            note(&mut notices, "clock", &format!("{hours} hours"));
        }
        assert!(taken(&mut notices, 69).is_empty());
        assert_eq!(taken(&mut notices, 70), ["1 hours (and 199 more of this kind since then)"]);
        assert!(taken(&mut notices, 1000).is_empty());
        note(&mut notices, "clock", "again");
        assert_eq!(taken(&mut notices, 1000), ["again"]);
    }

    #[test]
    fn what_strangers_cause_gives_way_to_the_first_client_that_is_known() {
        let mut notices = Notices::default();
        let mut note = |about, text: &str| notices.note("certificate", about, || (String::new(), text.to_owned()));
        note(About::Stranger, "scanner");
        note(About::Stranger, "scanner again");
        note(About::Known, "agent");
        note(About::Known, "other agent");
        note(About::Stranger, "scanner once more");
        assert_eq!(taken(&mut notices, 0), ["agent (and 4 more of this kind since then)"]);
        notices.note("certificate", About::Stranger, || (String::new(), "scanner".to_owned()));
        assert_eq!(taken(&mut notices, 60), ["scanner"]);
    }

    #[test]
    fn what_is_left_out_costs_no_text() {
        let mut notices = Notices::default();
        let mut made = 0;
        for _ in 0..1000 {
            notices.note("clock", About::Stranger, || {
                made += 1;
                (String::new(), String::new())
            });
        }
        assert_eq!((made, notices.take(Duration::ZERO).len()), (1, 1));
    }
}

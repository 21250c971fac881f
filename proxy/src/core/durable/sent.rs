//! The fate of a listener's messages at its sink, and when it is logged. Times are seconds of the process clock.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use crate::core::logging::pace::Pace;

/// Counts of sent messages, over all senders of a listener. Each lane has one at a time.
#[derive(Debug, Default)]
pub struct Sent {
    delivered: Cell<u64>,
    resent: Cell<u64>,
    /// Messages that the sink will never take.
    refused: Cell<u64>,
    refusals: Pace,
    /// The fate of the last refused message, and the reason, in words.
    last_refusal: RefCell<(String, String)>,
    /// Messages of each lane that the sink took, or will never take.
    taken: RefCell<BTreeMap<usize, u64>>,
    /// Why the sink has taken no message of a lane since its last one.
    errors: RefCell<BTreeMap<usize, String>>,
    /// The last reason in the log.
    told: RefCell<Option<String>>,
    /// How often the sink took no message.
    ended: Cell<u64>,
    endings: Pace,
}

impl Sent {
    /// Messages that the sink has.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// Messages that were sent once more.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.resent.get()
    }

    /// Messages that the sink will never take.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Messages of a lane that the sink took, or will never take.
    #[must_use]
    pub fn taken(&self, lane: usize) -> u64 {
        self.taken.borrow().get(&lane).copied().unwrap_or(0)
    }

    /// Whether the sink has failed since it took the last message of a lane.
    #[must_use]
    pub fn fails(&self, lane: usize) -> bool {
        self.errors.borrow().contains_key(&lane)
    }

    /// Why the sink has taken no message of this lane since its last one, or else of another lane.
    #[must_use]
    pub fn error(&self, lane: usize) -> Option<String> {
        let errors = self.errors.borrow();
        errors.get(&lane).or_else(|| errors.values().next()).cloned()
    }

    /// Forgets the errors of lanes beyond this number.
    pub fn keep(&self, lanes: usize) {
        self.errors.borrow_mut().retain(|lane, _| *lane < lanes);
    }

    /// Takes the reason why the sink takes no messages of this lane, unless it is logged. It then counts as logged.
    #[must_use]
    pub fn untold(&self, lane: usize) -> Option<String> {
        let error = self.errors.borrow().get(&lane).cloned()?;
        let is_told = self.told.borrow().as_ref() == Some(&error);
        *self.told.borrow_mut() = Some(error.clone());
        (!is_told).then_some(error)
    }

    /// Notes that the sink takes no messages of a lane at `now`. Returns a warning if there is one: each reason is
    /// logged once until the sink takes messages of each lane again.
    #[must_use]
    pub fn ended(&self, lane: usize, error: &str, now: u64) -> Option<String> {
        self.ended.set(self.ended.get() + 1);
        self.errors.borrow_mut().insert(lane, error.to_owned());
        if self.told.borrow().as_deref() == Some(error) {
            return None;
        }
        // A sink over UDP may take and refuse messages in turn.
        self.endings.due(now, self.ended.get())?;
        *self.told.borrow_mut() = Some(error.to_owned());
        Some(format!("{error}; messages stay in the log, will retry"))
    }

    /// Notes that the sink has taken this many more messages of a lane. Returns a line for the log if the log says that
    /// the sink takes none, and the sink now takes those of each lane.
    #[must_use]
    pub fn took(&self, lane: usize, messages: u64) -> Option<String> {
        self.delivered.set(self.delivered.get() + messages);
        self.takes(lane, messages);
        self.errors.borrow_mut().remove(&lane);
        if !self.errors.borrow().is_empty() {
            return None;
        }
        self.told.take().map(|_| "the sink accepts messages again".to_owned())
    }

    /// Counts messages that are sent once more.
    pub fn resend(&self, messages: u64) {
        self.resent.set(self.resent.get() + messages);
    }

    /// Notes that the sink refuses this many messages of a lane at `now`. Their fate and the reason are words for the
    /// log. Returns a warning if one is due.
    #[must_use]
    pub fn refuse(&self, lane: usize, messages: u64, (fate, reason): (&str, &str), now: u64) -> Option<String> {
        self.takes(lane, messages);
        self.refused.set(self.refused.get() + messages);
        *self.last_refusal.borrow_mut() = (fate.to_owned(), reason.to_owned());
        self.refusals.due(now, self.refused.get()).map(|count| self.refusal(count))
    }

    /// The warning about refused messages that no line has reported, if one is due at `now`: the last ones of a flood
    /// would wait for the next one.
    #[must_use]
    pub fn rest(&self, now: u64) -> Option<String> {
        self.refusals.rest(now, self.refused.get()).map(|count| self.refusal(count))
    }

    fn refusal(&self, count: u64) -> String {
        let (fate, reason) = &*self.last_refusal.borrow();
        // The reason names what does not take them: the sink, or the format or framing of what is sent to it.
        let verb = if count == 1 { "was" } else { "were" };
        format!("{} {verb} {fate}: {reason}", proxy_api::count(count, "message"))
    }

    /// Counts messages of a lane that the sink has taken, or will never take.
    fn takes(&self, lane: usize, messages: u64) {
        *self.taken.borrow_mut().entry(lane).or_default() += messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_each_reason_once_until_the_sink_takes_a_message() {
        let sent = Sent::default();
        assert!(!sent.fails(0));
        assert_eq!(sent.untold(0), None, "nothing fails");
        let line = sent.ended(0, "refused", 0);
        assert_eq!(line.as_deref(), Some("refused; messages stay in the log, will retry"));
        assert!(sent.fails(0));
        assert_eq!(sent.ended(0, "refused", 100), None);
        assert_eq!(sent.untold(0), None, "the log has it");
        assert!(sent.ended(0, "timed out", 101).is_some());
        assert_eq!(sent.took(0, 1).as_deref(), Some("the sink accepts messages again"));
        assert!(!sent.fails(0));
        assert_eq!(sent.took(0, 1), None);
        assert_eq!(sent.untold(0), None, "it takes messages");
        assert!(sent.ended(0, "timed out", 120).is_some());
    }

    #[test]
    fn a_sink_that_takes_and_refuses_messages_in_turn_has_two_lines_in_a_while() {
        let sent = Sent::default();
        let lines = (0..10).flat_map(|now| [sent.ended(0, "refused", now), sent.took(0, 1)]);
        assert_eq!(lines.flatten().count(), 2);
        assert_eq!(sent.delivered(), 10);
    }

    #[test]
    fn a_reason_that_comes_too_soon_for_a_line_is_told_with_how_the_listener_delivers() {
        let sent = Sent::default();
        assert!(sent.ended(0, "refused", 0).is_some());
        assert_eq!(sent.ended(0, "timed out", 1), None);
        assert_eq!((sent.untold(0).as_deref(), sent.untold(0)), (Some("timed out"), None));
        assert_eq!(sent.ended(0, "timed out", 100), None);
    }

    #[test]
    fn the_sink_takes_messages_again_once_it_takes_those_of_each_lane() {
        let sent = Sent::default();
        assert!(sent.ended(0, "refused", 0).is_some());
        assert!(sent.ended(1, "refused", 0).is_none(), "the log has it");
        assert!(sent.took(0, 1).is_none());
        assert_eq!([0, 1].map(|lane| (sent.fails(lane), sent.taken(lane))), [(false, 1), (true, 0)]);
        assert!(sent.refuse(1, 2, ("dropped", ""), 2).is_some());
        assert!(sent.fails(1), "it has taken none");
        assert!(sent.took(1, 1).is_some(), "it takes them again");
        assert_eq!((sent.fails(1), sent.taken(1), sent.delivered()), (false, 3, 2));
        assert!(sent.ended(2, "refused", 100).is_some());
        sent.keep(2);
        assert!(!sent.fails(2), "there is no such lane any more");
    }

    #[test]
    fn the_error_of_a_lane_comes_first_and_lasts_until_the_sink_takes_a_message() {
        let sent = Sent::default();
        assert_eq!(sent.error(0), None);
        let _ = (sent.ended(1, "refused", 0), sent.ended(2, "timed out", 1));
        assert_eq!(
            [0, 1, 2].map(|lane| sent.error(lane)),
            ["refused", "refused", "timed out"].map(|it| Some(it.to_owned()))
        );
        let _ = sent.took(1, 1);
        assert_eq!(sent.error(1).as_deref(), Some("timed out"), "another lane fails");
        let _ = sent.took(2, 1);
        assert_eq!(sent.error(1), None);
    }

    #[test]
    fn with_fewer_lanes_those_that_are_left_keep_why_they_fail() {
        let sent = Sent::default();
        for lane in 0..4 {
            let _ = sent.ended(lane, "refused", 0);
        }
        sent.keep(2);
        assert_eq!([0, 1, 2, 3].map(|lane| sent.fails(lane)), [true, true, false, false]);
    }

    #[test]
    fn messages_are_counted_by_what_became_of_them_and_refusals_told_in_a_while() {
        let sent = Sent::default();
        assert_eq!(sent.took(0, 2), None);
        assert_eq!(sent.took(1, 3), None);
        sent.resend(4);
        sent.resend(5);
        let line = sent.refuse(0, 6, ("put aside", "too long"), 0);
        assert_eq!(line.as_deref(), Some("6 messages were put aside: too long"));
        assert_eq!(sent.refuse(1, 7, ("dropped", "too long"), 1), None);
        let line = sent.refuse(0, 1, ("dropped", "too long"), 100);
        assert_eq!(line.as_deref(), Some("8 messages were dropped: too long"));
        assert_eq!(sent.refuse(0, 9, ("dropped", "a newline"), 101), None);
        assert_eq!(sent.rest(102), None, "it is too early");
        let line = sent.rest(120);
        assert_eq!(line.as_deref(), Some("9 messages were dropped: a newline"));
        assert_eq!(sent.rest(200), None, "the log has them");
        assert_eq!((sent.delivered(), sent.resent(), sent.refused()), (5, 9, 23));
        assert_eq!([0, 1].map(|lane| sent.taken(lane)), [18, 10]);
        assert!(!sent.fails(0), "it takes other messages");
    }
}

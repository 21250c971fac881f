//! The counts and events of a log, and those who wait for its messages to be synced.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Answer, Figures, NotKept, NotSynced, StoreEvent};
use crate::{FileError, Reported, Why};

/// Messages that wait for their sync.
#[derive(Debug)]
struct Pending<R> {
    /// The number after the last of the messages.
    end: u64,
    reply: R,
}

#[derive(Debug)]
pub(super) struct Ledger<R> {
    pub(super) figures: Figures,
    /// Waiting messages, in order of their numbers.
    pending: VecDeque<Pending<R>>,
    /// Answers that the shell has not given yet.
    pub(super) answers: Vec<Answer<R>>,
    /// Lost messages before this number were counted.
    lost_before: u64,
}

impl<R> Ledger<R> {
    pub(super) fn new() -> Self {
        Self { figures: Figures::default(), pending: VecDeque::new(), answers: Vec::new(), lost_before: 0 }
    }

    /// Keeps `reply` until the messages before `end`, which are behind all others that wait, are synced.
    pub(super) fn wait(&mut self, end: u64, reply: R) {
        self.pending.push_back(Pending { end, reply });
    }

    pub(super) fn answer(&mut self, reply: R, outcome: Result<(), NotKept>) {
        self.answers.push(Answer { reply, outcome });
    }

    /// Records a failure, as one event until a sync succeeds.
    pub(super) fn fails(&mut self, error: String) {
        if self.figures.failure.is_none() {
            self.figures.events.push(StoreEvent::Failed { error: error.clone() });
        }
        self.figures.failure = Some(error);
    }

    /// Takes the reports of the log.
    pub(super) fn hear(&mut self, reported: &mut Vec<Reported>) {
        for reported in reported.drain(..) {
            match reported {
                Reported::Synced { messages } => {
                    self.figures.synced += count(&messages);
                    self.figures.failure = None;
                    self.settle(messages.end, &Ok(()));
                }
                Reported::SyncFailed { messages, why } => {
                    self.figures.not_synced += count(&messages);
                    self.figures.no_space += u64::from(why == FileError::NoSpace);
                    let failed = NotSynced(why);
                    self.fails(failed.to_string());
                    self.settle(messages.end, &Err(NotKept::NotSynced(failed)));
                }
                Reported::Dropped { messages, why } => {
                    self.figures.no_space += u64::from(why == Why::NoSpace);
                    let dropped = &mut self.figures.dropped;
                    let dropped = match why {
                        Why::Full => &mut dropped.full,
                        Why::NoSpace => &mut dropped.failed,
                        Why::Age => &mut dropped.age,
                        Why::Dead => &mut dropped.dead,
                    };
                    *dropped += count(&messages);
                }
                Reported::Lost { messages } => {
                    // A sink that goes back passes the same lost messages again.
                    let messages = messages.start.max(self.lost_before)..messages.end;
                    if !messages.is_empty() {
                        self.lost_before = messages.end;
                        self.figures.lost += count(&messages);
                        self.figures.events.push(StoreEvent::Lost { messages });
                    }
                }
                Reported::Cut { file, bytes } => {
                    self.figures.cut_bytes += bytes;
                    self.figures.events.push(StoreEvent::Cut { file, bytes });
                }
                Reported::Quarantined { file } => self.figures.events.push(StoreEvent::Quarantined { file }),
                Reported::CursorLost => {
                    self.figures.cursors_lost += 1;
                    self.figures.events.push(StoreEvent::CursorLost);
                }
            }
        }
    }

    /// Takes the reports of the dead letters. Returns whether a message was dropped rather than put aside.
    pub(super) fn hear_letters(&mut self, letters: &mut Vec<Reported>) -> bool {
        let mut is_dropped = false;
        for reported in letters.drain(..) {
            match reported {
                Reported::Dropped { why: Why::Dead, .. } => {
                    is_dropped = true;
                    self.figures.dropped.dead += 1;
                }
                Reported::Dropped { messages, .. } | Reported::Lost { messages } => {
                    self.figures.dead_letters_dropped += count(&messages);
                }
                _ => {}
            }
        }
        is_dropped
    }

    /// Answers everybody whose messages are before `end`.
    fn settle(&mut self, end: u64, outcome: &Result<(), NotKept>) {
        while self.pending.front().is_some_and(|first| first.end <= end)
            && let Some(Pending { reply, .. }) = self.pending.pop_front()
        {
            self.answer(reply, outcome.clone());
        }
    }
}

fn count(messages: &Range<u64>) -> u64 {
    messages.end.saturating_sub(messages.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_counted_once_though_the_sink_goes_back() {
        let mut ledger = Ledger::<()>::new();
        for messages in [0..2, 0..1, 1..3] {
            ledger.hear(&mut vec![Reported::Lost { messages }]);
        }
        assert_eq!(ledger.figures.lost, 3);
        let events: Vec<_> = ledger.figures.events.after(0).cloned().collect();
        assert_eq!(events, [0..2, 2..3].map(|messages| StoreEvent::Lost { messages }), "each once");
    }

    #[test]
    fn each_thing_that_is_told_is_added_to_a_figure_of_its_own() {
        let mut ledger = Ledger::<()>::new();
        let cut = |bytes| Reported::Cut { file: "f".to_owned(), bytes };
        let dropped = |messages, why| Reported::Dropped { messages, why };
        let failed = |messages| Reported::SyncFailed { messages, why: FileError::NoSpace };
        let mut reported = vec![
            failed(0..2),
            failed(2..7),
            Reported::Synced { messages: 7..8 },
            Reported::Synced { messages: 8..11 },
            dropped(0..2, Why::Full),
            dropped(2..5, Why::Full),
            dropped(5..6, Why::Age),
            dropped(6..8, Why::Age),
            dropped(8..10, Why::Dead),
            dropped(10..12, Why::Dead),
            dropped(12..15, Why::NoSpace),
            dropped(15..19, Why::NoSpace),
            cut(7),
            cut(3),
            Reported::CursorLost,
            Reported::CursorLost,
            Reported::Quarantined { file: "f".to_owned() },
        ];
        ledger.hear(&mut reported);
        assert!(reported.is_empty(), "nothing is heard twice");
        let Figures { synced, not_synced, dropped, no_space, cut_bytes, cursors_lost, lost, failure, events, .. } =
            &ledger.figures;
        assert_eq!((*synced, *not_synced, *cut_bytes, *cursors_lost, *lost), (4, 7, 10, 2, 0));
        assert_eq!((dropped.full, dropped.age, dropped.dead, dropped.queue, dropped.failed), (5, 3, 4, 0, 7));
        assert_eq!(*no_space, 4, "two syncs, and twice for messages to come");
        assert_eq!((failure, events.count()), (&None, 6), "a failure, two cuts, two lost cursors, and a damaged file");
    }

    #[test]
    fn those_are_answered_whose_last_message_is_before_the_end_of_a_sync() {
        let mut ledger = Ledger::new();
        for (end, reply) in [(2, 'a'), (3, 'b'), (5, 'c')] {
            ledger.wait(end, reply);
        }
        let answered = |ledger: &mut Ledger<char>, reported| {
            ledger.hear(&mut vec![reported]);
            ledger.answers.drain(..).map(|answer| (answer.reply, answer.outcome.is_ok())).collect::<Vec<_>>()
        };
        assert!(answered(&mut ledger, Reported::Synced { messages: 0..1 }).is_empty(), "a part of the first");
        assert_eq!(answered(&mut ledger, Reported::Synced { messages: 1..3 }), [('a', true), ('b', true)]);
        let failed = Reported::SyncFailed { messages: 3..5, why: FileError::NoSpace };
        assert_eq!(answered(&mut ledger, failed), [('c', false)]);
        assert!(answered(&mut ledger, Reported::Synced { messages: 5..9 }).is_empty(), "each once");
    }

    #[test]
    fn a_letter_that_gives_way_is_none_of_the_messages_that_are_dropped_rather_than_put_aside() {
        let mut ledger = Ledger::<()>::new();
        let gave_way = Reported::Dropped { messages: 0..3, why: Why::Full };
        let mut letters = vec![Reported::Synced { messages: 3..4 }, gave_way, Reported::Lost { messages: 3..5 }];
        assert!(!ledger.hear_letters(&mut letters));
        assert!(letters.is_empty(), "nothing is heard twice");
        let mut letters = [7..8, 8..9].map(|messages| Reported::Dropped { messages, why: Why::Dead }).to_vec();
        assert!(ledger.hear_letters(&mut letters));
        let Figures { dead_letters_dropped, dropped, lost, .. } = ledger.figures;
        assert_eq!((dead_letters_dropped, dropped.dead, dropped.full, lost), (5, 2, 0, 0));
    }
}

//! Records of sessions wait a moment for others, so that a busy proxy writes many at once, and seldom wakes its writer.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use super::Event;

/// Longest time that a record waits for others.
const LONGEST: Duration = Duration::from_millis(10);
/// Most records of sessions for which the writer waits.
const MANY: usize = 128;

/// The content of the queue, as far as the writer waits for it.
#[derive(Debug)]
pub(super) struct Gather {
    /// The sum of the weights of all records in the queue, or about to be. A higher one never prolongs the wait.
    weight: AtomicUsize,
    /// The weight at which the writer stops waiting.
    enough: usize,
    writer: OnceLock<Thread>,
}

impl Gather {
    /// Creates the state for a queue of `places` records, most of which stay free while the writer waits.
    pub(super) fn new(places: usize) -> Self {
        Self { weight: AtomicUsize::new(0), enough: (places / 4).clamp(1, MANY), writer: OnceLock::new() }
    }

    /// The weight of a record. Only records of sessions wait for others: they are many, and no person waits for one.
    pub(super) fn weight_of(&self, event: &Event) -> usize {
        match event {
            Event::Session(_) => 1,
            Event::Notice(_) | Event::Lines(_) => self.enough,
        }
    }

    /// Announces a weight before its record is queued. Returns whether to [wake](Self::wake) the writer then.
    #[must_use]
    pub(super) fn announce(&self, weight: usize) -> bool {
        let before = self.weight.fetch_add(weight, Relaxed);
        before < self.enough && before.saturating_add(weight) >= self.enough
    }

    /// Subtracts the weight of records that have left the queue.
    pub(super) fn take_back(&self, weight: usize) {
        self.weight.fetch_sub(weight, Relaxed);
    }

    /// Ends the wait of the writer, which checks the weight again.
    pub(super) fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Makes every wait end at once, now and later.
    pub(super) fn close(&self) {
        if self.announce(self.enough) {
            self.wake();
        }
    }

    /// Waits on the thread of the writer, which has a record, until there are enough or the record has waited long enough.
    pub(super) fn wait(&self) {
        self.writer.get_or_init(thread::current);
        let until = Instant::now() + LONGEST;
        while !self.is_enough() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn is_enough(&self) -> bool {
        self.weight.load(Relaxed) >= self.enough
    }

    /// The weight of the queue's content.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.weight.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_notice_is_enough_and_so_are_many_sessions_and_one_wakes_the_writer() {
        let gather = Gather::new(64);
        let notice = gather.weight_of(&Event::Lines(String::new()));
        assert!(!gather.is_enough());
        assert_eq!([gather.announce(notice), gather.announce(notice)], [true, false]);
        gather.take_back(notice);
        assert!(gather.is_enough(), "the other one is still in the queue");
        gather.take_back(notice);
        let sessions = [(); 17].map(|()| gather.announce(1));
        assert_eq!(sessions.iter().position(|wakes| *wakes), Some(15));
        assert_eq!(sessions.iter().filter(|wakes| **wakes).count(), 1);
    }

    #[test]
    fn a_queue_of_one_place_never_waits_for_a_second_record() {
        let gather = Gather::new(1);
        assert!(gather.announce(1) && gather.is_enough());
    }

    #[test]
    fn a_record_alone_waits_for_the_longest_time_and_no_longer_after_the_end() {
        let gather = Gather::new(64);
        let _ = gather.announce(1);
        let began = Instant::now();
        gather.wait();
        assert!(began.elapsed() >= LONGEST);
        gather.close();
        assert!(gather.is_enough());
        gather.take_back(1);
        assert!(gather.is_enough(), "nothing waits any more");
    }

    #[test]
    fn the_writer_is_woken_once_there_are_enough() {
        let gather = Arc::new(Gather::new(8));
        let writer = thread::spawn({
            let gather = gather.clone();
            move || {
                gather.writer.get_or_init(thread::current);
                while !gather.is_enough() {
                    thread::park_timeout(Duration::from_secs(20));
                }
            }
        });
        for _ in 0..2 {
            if gather.announce(1) {
                gather.wake();
            }
        }
        // A wake before the writer has set its thread is needless: it checks the weight first.
        writer.join().expect("no panic");
    }
}

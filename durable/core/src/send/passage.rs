//! The progress of a log's messages to a sink.

use std::collections::VecDeque;
use std::mem::take;

use super::{Progress, Verdict};

/// Which messages were read, which were on a connection before, and how far the sink is, over any number of
/// connections.
///
/// After each read, and whenever the machine of the sink gave verdicts: [`Passage::take`] these, put
/// [`Passage::poison`] aside until there is none or that fails, and [`Passage::settle`].
#[derive(Clone, Debug)]
pub struct Passage {
    progress: Progress,
    /// The message to read next.
    next: u64,
    /// The first message that no connection had.
    fresh: u64,
    /// Numbers of messages that were read, from the cursor on.
    read: VecDeque<u64>,
    /// The cursor as of the last [`Passage::settle`], and how many messages were put aside since.
    settled: u64,
    put_aside: u64,
}

/// A step of the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The new cursor, for [`Log::acknowledge`](crate::Log::acknowledge).
    pub cursor: u64,
    /// Messages before the cursor that were delivered since the last step: neither lost nor put aside.
    pub delivered: u64,
}

impl Passage {
    /// Starts at the cursor of the log.
    pub const fn new(cursor: u64) -> Self {
        Self {
            progress: Progress::new(cursor),
            next: cursor,
            fresh: cursor,
            read: VecDeque::new(),
            settled: cursor,
            put_aside: 0,
        }
    }

    /// The first message that is neither delivered nor put aside. The cursor never moves back.
    pub const fn cursor(&self) -> u64 {
        self.progress.cursor()
    }

    /// The message to read next.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Starts over after a connection: messages are read from the cursor on again.
    pub fn start_over(&mut self) {
        self.progress.broke();
        self.next = self.progress.cursor();
        self.read.clear();
    }

    /// Takes the numbers of messages that were read, and the number to read next. Missing numbers are lost or dropped.
    pub fn read(&mut self, numbers: impl IntoIterator<Item = u64>, next: u64) {
        self.read.extend(numbers);
        self.next = next;
    }

    /// Takes the numbers of messages that are given to a connection. Returns how many of them an earlier one had.
    pub fn sends(&mut self, numbers: impl IntoIterator<Item = u64>) -> usize {
        let (fresh, mut again) = (self.fresh, 0);
        for number in numbers {
            again += usize::from(number < fresh);
            self.fresh = self.fresh.max(number.saturating_add(1));
        }
        again
    }

    /// Takes all `verdicts` of the machine, in the order in which it gave them.
    pub fn take(&mut self, verdicts: &mut Vec<Verdict>) {
        self.progress.take(verdicts);
    }

    /// The poison that is to be put aside next, and why.
    pub fn poison(&self) -> Option<(u64, &str)> {
        self.progress.poison()
    }

    /// Passes [`Passage::poison`], which is in the dead letters, or dropped.
    pub fn put_aside(&mut self) {
        self.progress.put_aside();
        self.put_aside += 1;
    }

    /// Moves the cursor over messages that were delivered or put aside; `None`: it stays. A sink that `owes` no answer
    /// has all messages that were read: the others are lost, and get no verdict.
    pub fn settle(&mut self, owes: bool) -> Option<Settled> {
        if !owes && self.progress.poison().is_none() && self.next > self.progress.cursor() {
            self.progress.take(&mut vec![Verdict::Delivered { through: self.next - 1 }]);
        }
        let put_aside = take(&mut self.put_aside);
        let cursor = self.progress.cursor();
        if cursor <= self.settled {
            return None;
        }
        self.settled = cursor;
        let passed = self.read.partition_point(|number| *number < cursor);
        self.read.drain(..passed);
        Some(Settled { cursor, delivered: (passed as u64).saturating_sub(put_aside) })
    }
}

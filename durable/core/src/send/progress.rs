//! The cursor that follows from verdicts.

use std::collections::VecDeque;

use super::Verdict;

/// How far a log is delivered. The cursor moves over messages that the sink has, and over poison only
/// after its dead letter is synced: until then it stays, whatever comes behind.
#[derive(Clone, Debug)]
pub struct Progress {
    cursor: u64,
    /// Verdicts that wait for a dead letter. The first one is poison.
    waiting: VecDeque<Verdict>,
}

impl Progress {
    /// Starts at the cursor of the log.
    pub const fn new(cursor: u64) -> Self {
        Self { cursor, waiting: VecDeque::new() }
    }

    /// Takes all `verdicts` of a machine, in the order in which it gave them. The waiting verdicts are at most as many
    /// as the machine has room for, if the caller does not push while poison waits.
    pub fn take(&mut self, verdicts: &mut Vec<Verdict>) {
        self.waiting.extend(verdicts.drain(..));
        self.pass_delivered();
    }

    /// The poison that is to be put aside next, and why.
    pub fn poison(&self) -> Option<(u64, &str)> {
        match self.waiting.front()? {
            Verdict::Poison { number, reason } => Some((*number, reason.as_str())),
            Verdict::Delivered { .. } => None,
        }
    }

    /// Passes [`Progress::poison`], whose dead letter is synced, or reported as dropped.
    pub fn put_aside(&mut self) {
        if let Some(&Verdict::Poison { number, .. }) = self.waiting.front() {
            self.waiting.pop_front();
            self.pass(number);
            self.pass_delivered();
        }
    }

    /// The first message that is neither delivered nor put aside, as [`Log::acknowledge`](crate::Log::acknowledge)
    /// takes it. The cursor never moves back.
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Forgets waiting verdicts, as the connection broke: their messages are sent again, from the cursor on.
    pub fn broke(&mut self) {
        self.waiting.clear();
    }

    fn pass_delivered(&mut self) {
        while let Some(&Verdict::Delivered { through }) = self.waiting.front() {
            self.waiting.pop_front();
            self.pass(through);
        }
    }

    fn pass(&mut self, number: u64) {
        self.cursor = self.cursor.max(number.saturating_add(1));
    }
}

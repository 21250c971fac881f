//! The holder of a stream's consumer, and whether that process is still alive. A work-queue stream has at most one
//! consumer, so that its consumer is a lease.

/// The prefix of the names of our consumers, before the id of the process.
const PREFIX: &str = "portlane-";
/// After this many misses in a row, a process counts as gone, though its connection seems to be there.
const MISSES: u32 = 3;

/// The name of the consumer that process `id` creates after `count` others.
pub fn consumer(id: &str, count: u64) -> String {
    format!("{PREFIX}{id}-{count}")
}

/// The process that created the consumer of this name; `None`: the consumer is none of ours.
pub fn process(consumer: &str) -> Option<&str> {
    consumer.strip_prefix(PREFIX)?.rsplit_once('-').map(|(id, _)| id)
}

/// The outcome of asking a process whether it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The process answered.
    Here,
    /// The process did not answer in time.
    Silent,
    /// The server knows nobody who would answer.
    Gone,
    /// The process could not be asked.
    Unknown,
}

/// The recent answers of the process that has the consumer.
#[derive(Debug, Default)]
pub struct Patience {
    process: String,
    misses: u32,
}

impl Patience {
    /// Takes an answer of this process. Returns whether the process is gone, so that another one may have the consumer.
    pub fn hears(&mut self, process: &str, answer: Answer) -> bool {
        if self.process != process {
            *self = Self { process: process.to_owned(), misses: 0 };
        }
        match answer {
            Answer::Here => self.misses = 0,
            Answer::Silent => self.misses = self.misses.saturating_add(1),
            Answer::Gone => return true,
            Answer::Unknown => {}
        }
        self.misses >= MISSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_tells_its_process_and_one_of_others_does_not() {
        assert_eq!(process(&consumer("aB3", 0)), Some("aB3"));
        assert_eq!((process("portlane"), process("portlane-a"), process("other-a-0")), (None, None, None));
    }

    #[test]
    fn a_process_is_gone_when_nobody_would_answer_or_it_has_not_for_three_times_in_a_row() {
        let mut patience = Patience::default();
        assert!(patience.hears("a", Answer::Gone), "the server knows");
        let mut hears = |process: &str, answers: &[Answer]| {
            answers.iter().map(|answer| patience.hears(process, *answer)).collect::<Vec<_>>()
        };
        let silent = Answer::Silent;
        assert_eq!(hears("a", &[silent, silent, Answer::Here, silent, silent]), [false; 5]);
        assert_eq!(hears("a", &[Answer::Unknown, silent]), [false, true]);
        assert_eq!(hears("b", &[silent, silent, silent]), [false, false, true], "another one starts again");
    }
}

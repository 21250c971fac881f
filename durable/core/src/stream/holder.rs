//! Who has the consumer of a stream, and whether that process is still there. A stream of work has one consumer at most,
//! so that its consumer is a lease.

/// The names of our consumers start with this, and then have the id of their process.
const PREFIX: &str = "portlane-";
/// A process that has not answered so often in a row is gone, though its connection seems to be there.
const MISSES: u32 = 3;

/// The name of the consumer that this process makes after so many others.
pub fn consumer(id: &str, count: u64) -> String {
    format!("{PREFIX}{id}-{count}")
}

/// The process that made the consumer of this name; `None`: it is none of ours.
pub fn process(consumer: &str) -> Option<&str> {
    consumer.strip_prefix(PREFIX)?.rsplit_once('-').map(|(id, _)| id)
}

/// What a process says when it is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers.
    Here,
    /// It does not, in time.
    Silent,
    /// The server knows nobody who would.
    Gone,
    /// It could not be asked.
    Unknown,
}

/// What was heard of the process that has the consumer.
#[derive(Debug, Default)]
pub struct Patience {
    process: String,
    misses: u32,
}

impl Patience {
    /// Takes an answer of this process. Returns whether it is gone, so that another one may have the consumer.
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

//! Messages for the tests of sinks, and an oracle of what a sink must get before the cursor moves.

#![allow(dead_code, reason = "each test uses some of these functions")]

use std::collections::BTreeSet;

use durable_core::send::{Outgoing, Progress, Verdict};

/// Messages of one log.
pub(crate) const MESSAGES: u64 = 40;

/// Every seventh message is one that the sink refuses.
pub(crate) fn is_poison(number: u64) -> bool {
    number % 7 == 3
}

/// The message with this number. Its first four bytes name it.
pub(crate) fn message(number: u64) -> Outgoing {
    let more = usize::try_from(number % 5).expect("it is small");
    Outgoing { number, payload: format!("{number:04}{}", "x".repeat(36 + 4 * more)).into_bytes() }
}

/// The number of a message that a sink got.
pub(crate) fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(&payload[..4]).expect("text").parse().expect("a number")
}

/// Checks that a sink gets messages in order, and that the cursor passes none too early.
pub(crate) struct Oracle {
    pub(crate) progress: Progress,
    /// Whether a message must be with the sink before the cursor passes it.
    strict: bool,
    got: BTreeSet<u64>,
    aside: BTreeSet<u64>,
}

impl Oracle {
    pub(crate) fn new(strict: bool) -> Self {
        Self { progress: Progress::new(0), strict, got: BTreeSet::new(), aside: BTreeSet::new() }
    }

    /// The sink gets a message: for the first time only after each one before it.
    pub(crate) fn gets(&mut self, number: u64) {
        assert!(!is_poison(number), "it refuses {number}");
        if self.got.insert(number) {
            let skipped = (0..number).find(|earlier| !is_poison(*earlier) && !self.got.contains(earlier));
            assert_eq!(skipped, None, "{number} came first");
        }
    }

    /// The cursor follows verdicts.
    pub(crate) fn hears(&mut self, mut verdicts: Vec<Verdict>) {
        self.progress.take(&mut verdicts);
        assert!(verdicts.is_empty());
        self.check();
    }

    /// The dead letter of a message is synced, if one waits for it.
    pub(crate) fn put_aside(&mut self) {
        if let Some((number, _)) = self.progress.poison() {
            assert!(is_poison(number), "nothing refuses {number}");
            self.aside.insert(number);
            self.progress.put_aside();
            self.check();
        }
    }

    /// The connection broke. Returns the number from which on messages are pushed again.
    pub(crate) fn broke(&mut self) -> u64 {
        self.progress.broke();
        self.progress.cursor()
    }

    /// Whether the cursor has passed all messages. Then the sink has all but poison.
    pub(crate) fn is_done(&self) -> bool {
        self.progress.cursor() == MESSAGES
    }

    pub(crate) fn has_all(&self) -> bool {
        let aside: Vec<u64> = self.aside.iter().copied().collect();
        let poison: Vec<u64> = (0..MESSAGES).filter(|number| is_poison(*number)).collect();
        aside == poison && (0..MESSAGES).all(|number| is_poison(number) || self.got.contains(&number))
    }

    fn check(&self) {
        for number in 0..self.progress.cursor() {
            let has =
                self.aside.contains(&number) || (!is_poison(number) && !self.strict) || self.got.contains(&number);
            assert!(has, "the cursor passed {number}, and the sink does not have it");
        }
    }
}

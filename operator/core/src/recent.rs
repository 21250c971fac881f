//! A cache of answers with a short lifetime, keyed by the text of the question.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::hash::{Sha256Hash, sha256};

/// The recent answers. The cache keeps only hashes of the texts, because the texts may be secrets.
#[derive(Clone, Debug)]
pub struct Recent<V> {
    /// Lifetime of an answer.
    life: Duration,
    /// Most answers that are kept.
    most: usize,
    answers: BTreeMap<Sha256Hash, V>,
    /// When each answer was given, the oldest first.
    order: VecDeque<(Duration, Sha256Hash)>,
}

impl<V: Clone> Recent<V> {
    /// A cache of at most `most` answers, or one if `most` is 0, each with the lifetime `life`.
    #[must_use]
    pub fn new(life: Duration, most: usize) -> Self {
        Self { life, most: most.max(1), answers: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The answer for this text, unless it has expired.
    pub fn get(&mut self, text: &str, now: Duration) -> Option<V> {
        self.forget(now);
        self.answers.get(&sha256(text)).cloned()
    }

    /// Keeps an answer. An earlier answer for the same text is replaced, but its time of expiry stays.
    pub fn put(&mut self, text: &str, answer: V, now: Duration) {
        self.forget(now);
        let key = sha256(text);
        if let Some(known) = self.answers.get_mut(&key) {
            *known = answer;
            return;
        }
        if self.order.len() >= self.most {
            self.drop_oldest();
        }
        self.answers.insert(key, answer);
        self.order.push_back((now, key));
    }

    /// Number of answers that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether no answer is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    fn forget(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(given, _)| given.saturating_add(self.life) <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.answers.remove(&key);
        }
    }
}

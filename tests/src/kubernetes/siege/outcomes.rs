//! What the operations of a siege came to.

use std::{collections::BTreeMap, time::Duration};

use super::{
    long_session::Held,
    operations::{Done, Operation},
};

/// Operations that succeeded, and why others did not.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    done: BTreeMap<Operation, Vec<Done>>,
    /// What was refused, and why.
    pub refused: Vec<String>,
    /// The session that was held meanwhile.
    pub held: Held,
}

impl Outcomes {
    /// Adds the outcome of an operation.
    pub fn add(&mut self, operation: Operation, outcome: Result<Done, String>) {
        match outcome {
            Ok(done) => self.done.entry(operation).or_default().push(done),
            Err(why) => self.refused.push(why),
        }
    }

    /// Adds other outcomes.
    pub fn merge(&mut self, other: Self) {
        for (operation, done) in other.done {
            self.done.entry(operation).or_default().extend(done);
        }
        self.refused.extend(other.refused);
        self.held.merge(other.held);
    }

    fn all(&self, operation: Operation) -> &[Done] {
        self.done.get(&operation).map_or(&[][..], Vec::as_slice)
    }

    /// How often an operation succeeded.
    pub fn count(&self, operation: Operation) -> usize {
        self.all(operation).len()
    }

    /// How often clients tried again before this operation succeeded, over all times.
    pub fn retries(&self, operation: Operation) -> usize {
        self.all(operation).iter().map(|done| done.retries).sum()
    }

    /// Median and maximum of the times of an operation, if it ever succeeded.
    pub fn median_and_most(&self, operation: Operation) -> Option<(Duration, Duration)> {
        let mut times: Vec<Duration> = self.all(operation).iter().map(|done| done.took).collect();
        times.sort_unstable();
        Some((*times.get(times.len() / 2)?, *times.last()?))
    }
}

//! The search for a name among its candidates, by the rules of `res_nsearch`.
//!
//! The first candidate with an address in either family is the name. After NXDOMAIN, NODATA or SERVFAIL, the search
//! continues. After silence about a search domain in either family, only the name as written is queried. An answer with
//! records but without addresses ends the search: the name exists. glibc remembers nothing; here, a candidate that was
//! the name before and now fails ends the search, so that a fault does not lead to another server.

use std::{collections::VecDeque, time::Duration};

use super::{
    answer::{Answer, Pair},
    candidates::Candidate,
};

/// Time after which the search domains are skipped and only the name as written is queried.
///
/// With [`super::tries::QUESTION`], a search ends within 100 s: the candidate that is queried at this time, the
/// candidate that was the name before, and the name as written may each take their whole time.
pub const SEARCH: Duration = Duration::from_secs(40);
/// Why a name without an address failed, if all servers answered.
pub const NO_ADDRESS: &str = "no such name, or no addresses";

/// The search for one name.
#[derive(Debug)]
pub struct Search {
    left: VecDeque<Candidate>,
    /// The candidate that was the name before.
    last_found: Option<String>,
    /// Whether the candidate that is queried now comes from a search domain.
    is_in_search: bool,
    /// Whether the search domains are skipped from here on.
    skip_search: bool,
    /// The first failure.
    failure: Option<String>,
    found: Option<Outcome>,
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A candidate has an address.
    Found {
        /// The candidate.
        fqdn: String,
        /// The answers of servers about the candidate; at least one family has addresses.
        answers: Pair<Answer>,
    },
    /// No candidate has an address, for this reason.
    Nothing(String),
}

impl Outcome {
    /// Whether servers have said that the name has no address, and no server has failed.
    #[must_use]
    pub fn is_definitely_nothing(&self) -> bool {
        matches!(self, Self::Nothing(why) if why == NO_ADDRESS)
    }
}

impl Search {
    /// Creates a search among these candidates. `last_found` is the candidate that was the name in the last search.
    #[must_use]
    pub fn new(candidates: Vec<Candidate>, last_found: Option<&str>) -> Self {
        let left = candidates.into();
        let last_found = last_found.map(str::to_owned);
        Self { left, last_found, is_in_search: false, skip_search: false, failure: None, found: None }
    }

    /// The next candidate to query, `spent` after the search began.
    pub fn next(&mut self, spent: Duration) -> Option<String> {
        let skip_search = self.skip_search || spent >= SEARCH;
        while let Some(Candidate { name, is_as_written, is_in_search }) = self.left.pop_front() {
            if !skip_search || is_as_written || self.last_found.as_ref() == Some(&name) {
                self.is_in_search = is_in_search;
                return Some(name);
            }
        }
        None
    }

    /// Takes the answers for a candidate.
    pub fn record(&mut self, fqdn: String, answers: Pair<Answer>) {
        let both = answers.both();
        if both.into_iter().any(Answer::has_addresses) {
            self.left.clear();
            self.found = Some(Outcome::Found { fqdn, answers });
            return;
        }
        let why = both.into_iter().find_map(Answer::failure).map(str::to_owned);
        let has_failed = why.is_some();
        self.failure = self.failure.take().or(why);
        let exists = both.into_iter().any(|answer| matches!(answer, Answer::OtherRecords | Answer::Malformed { .. }));
        if exists || (has_failed && self.last_found.as_ref() == Some(&fqdn)) {
            self.left.clear();
        }
        let is_silent = |answer: &Answer| matches!(answer, Answer::Failed { is_servfail: false, .. });
        // The silent family may have the addresses, so another domain could lead to another server.
        self.skip_search |= self.is_in_search && both.into_iter().any(is_silent);
    }

    /// How the search ended.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        self.found.unwrap_or_else(|| Outcome::Nothing(self.failure.unwrap_or_else(|| NO_ADDRESS.to_owned())))
    }
}

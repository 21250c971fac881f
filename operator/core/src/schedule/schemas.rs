//! Compares the installed CRDs with the operator's, and decides when a difference counts.

use super::upkeep::Checked;
use crate::world::schema::Lack;

/// The comparisons so far. A difference counts once two comparisons agree: the API server publishes the schema of a new
/// CRD some seconds after the CRD.
#[derive(Debug, Default)]
pub struct Comparisons {
    /// The findings of the last comparison.
    last: Vec<Lack>,
    /// Whether two comparisons in a row had the same findings.
    is_confirmed: bool,
}

/// The consequences of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The result for metrics.
    pub result: &'static str,
    /// Whether to log the difference: it is confirmed now.
    pub is_news: bool,
    /// Whether the result counts for objects too: nothing is missing, or the difference is confirmed.
    pub is_settled: bool,
    /// When the next comparison is due.
    pub checked: Checked<'static>,
}

impl Comparisons {
    /// Records a comparison.
    pub fn compared(&mut self, lacks: &[Lack]) -> Compared {
        let is_complete = lacks.iter().all(|lack| lack.count == 0);
        let is_same = is_complete && lacks.iter().all(|lack| lack.ignored_count == 0);
        let result = match (is_same, is_complete) {
            (true, _) => "complete",
            (false, true) => "newer",
            (false, false) => "outdated",
        };
        let mut is_news = false;
        if self.last != lacks {
            *self = Self { last: lacks.to_vec(), is_confirmed: false };
        } else if !is_same {
            is_news = !std::mem::replace(&mut self.is_confirmed, true);
        }
        // Until a difference is confirmed, the next comparison comes soon.
        let is_done = is_complete && (is_same || self.is_confirmed);
        let checked = if is_done { Checked::Done } else { Checked::Incomplete };
        Compared { result, is_news, is_settled: self.is_confirmed || is_done, checked }
    }
}

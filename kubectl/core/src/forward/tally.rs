//! Counts connections, and decides which of them are logged.

use std::{collections::BTreeMap, time::Duration};

/// Interval between two log lines for one reason.
const EVERY: Duration = Duration::from_secs(1);

/// Connections by their ends.
#[derive(Debug, Default)]
pub struct Tally {
    connections: u64,
    reasons: BTreeMap<&'static str, Reason>,
}

#[derive(Debug, Default)]
struct Reason {
    count: u64,
    said: Option<Duration>,
    /// Connections since the last log line.
    unsaid: u64,
}

impl Tally {
    /// Records that a connection has begun.
    pub fn opened(&mut self) {
        self.connections += 1;
    }

    /// Records that a connection was refused or broke. If a log line is due, returns the number of connections with
    /// this reason since the last one.
    pub fn went_wrong(&mut self, reason: &'static str, now: Duration) -> Option<u64> {
        let entry = self.reasons.entry(reason).or_default();
        entry.count += 1;
        if entry.said.is_some_and(|said| now < said + EVERY) {
            entry.unsaid += 1;
            return None;
        }
        entry.said = Some(now);
        Some(std::mem::take(&mut entry.unsaid))
    }

    /// All counts in one line.
    pub fn summary(&self) -> String {
        let mut text = match self.connections {
            1 => "1 connection".to_owned(),
            connections => format!("{connections} connections"),
        };
        let counts: Vec<String> =
            self.reasons.iter().map(|(reason, entry)| format!("{} {reason}", entry.count)).collect();
        if !counts.is_empty() {
            text += &format!(", of which failed: {}", counts.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_one_line_a_second_for_each_reason_and_counts_the_rest() {
        let mut tally = Tally::default();
        let at = Duration::from_millis;
        assert_eq!(tally.went_wrong("Limit", at(0)), Some(0));
        assert_eq!(tally.went_wrong("Limit", at(500)), None);
        assert_eq!(tally.went_wrong("Broken", at(500)), Some(0));
        assert_eq!(tally.went_wrong("Limit", at(1000)), Some(1));
        assert_eq!(tally.went_wrong("Limit", at(2000)), Some(0));
    }

    #[test]
    fn a_summary_has_every_reason() {
        let mut tally = Tally::default();
        tally.opened();
        assert_eq!(tally.summary(), "1 connection");
        tally.opened();
        for reason in ["Limit", "Broken", "Limit"] {
            tally.went_wrong(reason, Duration::ZERO);
        }
        assert_eq!(tally.summary(), "2 connections, of which failed: 1 Broken, 2 Limit");
    }
}

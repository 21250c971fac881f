//! `portlane lag`: what durable listeners have for their sinks.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

/// One durable listener, as `/lag` of a process tells it. What an earlier release does not tell is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name with those of its forward.
    pub listener: String,
    /// How it delivers, in a word.
    pub delivery: String,
    /// Age of the oldest message that the sink does not have; 0: it has all.
    pub oldest_seconds: u64,
    /// Messages that the sink does not have.
    pub backlog: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Messages that came since the process started.
    pub received: u64,
    /// Messages that the sink took.
    pub delivered: u64,
    /// Messages that were sent once more.
    pub resent: u64,
    /// Messages that were dropped or lost.
    pub dropped: u64,
    /// Messages that were put aside, as the sink refuses them.
    pub dead_lettered: u64,
}

/// Durable listeners, those with the oldest messages first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// What could not be read, or not completely.
    pub notes: Vec<String>,
}

/// The report on these listeners.
pub fn report(mut listeners: Vec<Listener>, notes: Vec<String>) -> Report {
    listeners.sort_by(|a, b| {
        let rank = |it: &Listener| Reverse((it.oldest_seconds, it.backlog));
        rank(a).cmp(&rank(b)).then_with(|| a.listener.cmp(&b.listener))
    });
    Report { listeners, notes }
}

//! `lag`: the lag of durable listeners, as reported by a process on this machine or by the proxies of a cluster.

mod cluster;

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

pub use self::cluster::{Answer, LagList, Question, durable, instead, of_cluster, request};

/// Delivery states, from best to worst.
const WORDS: [&str; 5] = ["Flowing", "Behind", "Stalled", "Full", "StoreFailed"];

/// One durable listener in one process, or in all of its proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// The name of the listener, with that of its forward.
    pub listener: String,
    /// The pod of the listener's proxy, as `NAMESPACE/NAME`. Absent: all of its proxies together, or a process on this
    /// machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The delivery state in a word; the worst of several proxies.
    pub delivery: String,
    /// Proxies that run this generation of the forward, out of all that should. Absent: the listener runs on this
    /// machine, or no operator has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<String>,
    /// The figures of the process. Absent: no proxy has reported them.
    #[serde(flatten)]
    pub figures: Option<Figures>,
}

/// The figures of a listener, as in `/lag` of a process and in the live API. Figures that an earlier release lacks are
/// 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
    /// Age of the oldest message that the sink does not have; 0 if it has all.
    pub oldest_seconds: u64,
    /// Messages that the sink does not have.
    pub backlog: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Messages that were received since the process started.
    pub received: u64,
    /// Messages that the sink took.
    pub delivered: u64,
    /// Messages that were resent.
    pub resent: u64,
    /// Messages that were dropped or lost.
    pub dropped: u64,
    /// Messages that were dropped or lost, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_by_reason: BTreeMap<String, u64>,
    /// Dead letters: messages that were put aside, as they cannot be delivered.
    pub dead_lettered: u64,
    /// Number of lanes that send.
    pub lanes: u64,
    /// Why the log is not safe, or why the sink took no message since it took its last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Durable listeners: those with the oldest messages first, and among equals those with the worst delivery state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// Notes about objects that could not be read, or not completely.
    pub notes: Vec<String>,
}

/// Makes the report on these listeners.
pub fn report(mut listeners: Vec<Listener>, notes: Vec<String>) -> Report {
    listeners.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| (&a.listener, &a.pod).cmp(&(&b.listener, &b.pod))));
    Report { listeners, notes }
}

/// The sort key: age of the oldest message, number of waiting messages, and the rank of the delivery state.
fn rank(listener: &Listener) -> Reverse<(u64, u64, usize)> {
    let (oldest, backlog) =
        listener.figures.as_ref().map_or((0, 0), |figures| (figures.oldest_seconds, figures.backlog));
    let severity = WORDS.iter().position(|word| *word == listener.delivery).map_or(0, |at| at + 1);
    Reverse((oldest, backlog, severity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_are_first_then_the_most_then_the_worst_word_and_then_the_name() {
        let listener = |name: &str, figures: Option<(u64, u64)>, delivery: &str| Listener {
            listener: name.to_owned(),
            delivery: delivery.to_owned(),
            figures: figures.map(|(oldest_seconds, backlog)| Figures { oldest_seconds, backlog, ..Figures::default() }),
            ..Listener::default()
        };
        let all = vec![
            listener("f", None, "Unknown"),
            listener("h", None, "Flowing"),
            listener("g", None, "Flowing"),
            listener("e", None, "StoreFailed"),
            listener("d", Some((1, 9)), "Behind"),
            listener("c", Some((1, 9)), "Full"),
            listener("b", Some((1, 10)), "Behind"),
            listener("a", Some((2, 1)), "Behind"),
        ];
        let sorted = report(all, Vec::new());
        assert_eq!(sorted.listeners.iter().map(|it| it.listener.as_str()).collect::<String>(), "abcdeghf");
    }
}

//! `lag`: what durable listeners have for their sinks. A process on this machine tells all of it; of a cluster, status
//! has how the listeners deliver.

use std::cmp::Reverse;

use crds::{Delivery, PortForward};
use serde::{Deserialize, Serialize};

use crate::placement::key;

/// How listeners deliver, from best to worst.
const WORDS: [&str; 5] = ["Flowing", "Behind", "Stalled", "Full", "StoreFailed"];

/// One durable listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name with those of its forward.
    pub listener: String,
    /// How it delivers, in a word; of several proxies the worst.
    pub delivery: String,
    /// Proxies that run this generation of its forward, out of all that should. Absent: it runs on this machine, or no
    /// operator has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<String>,
    /// What its process counts. Absent: it runs in a cluster, where metrics have them.
    #[serde(flatten)]
    pub figures: Option<Figures>,
}

/// The figures of a listener, as `/lag` of a process tells them. What an earlier release does not tell is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
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

/// Durable listeners, those with the oldest messages first, and among equals those that deliver worst.
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
    listeners.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.listener.cmp(&b.listener)));
    Report { listeners, notes }
}

/// The place among others: age of the oldest message, messages that wait, and how bad it is.
fn rank(listener: &Listener) -> Reverse<(u64, u64, usize)> {
    let (oldest, backlog) =
        listener.figures.as_ref().map_or((0, 0), |figures| (figures.oldest_seconds, figures.backlog));
    let severity = WORDS.iter().position(|word| *word == listener.delivery).map_or(0, |at| at + 1);
    Reverse((oldest, backlog, severity))
}

/// The durable listeners of these forwards, as status has them.
pub fn of_forwards(forwards: &[PortForward]) -> Vec<Listener> {
    forwards.iter().flat_map(of_forward).collect()
}

fn of_forward(forward: &PortForward) -> Vec<Listener> {
    let status = forward.status.as_ref();
    let proxies = status.and_then(|status| Some(status.data_plane.as_ref()?.summary.clone()));
    let delivery = |name: &str| {
        let listeners = status.map(|status| status.listeners.as_slice()).unwrap_or_default();
        listeners.iter().find(|listener| listener.name == name)?.delivery.map(word)
    };
    let durable = forward.spec.listeners.iter().filter(|listener| listener.durable.is_some());
    let row = |name: &str| Listener {
        listener: format!("{}/{name}", key(forward)),
        delivery: delivery(name).unwrap_or("Unknown").to_owned(),
        proxies: proxies.clone(),
        figures: None,
    };
    durable.map(|listener| row(&listener.name)).collect()
}

const fn word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Flowing => "Flowing",
        Delivery::Behind => "Behind",
        Delivery::Stalled => "Stalled",
        Delivery::Full => "Full",
        Delivery::StoreFailed => "StoreFailed",
    }
}

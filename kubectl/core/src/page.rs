//! `kubectl portlane ui`: the states and notices of the page (`portlane_page`), from readings of a cluster.
//!
//! The page computes rates from counters. A cluster has no counters: the live API lists sessions that are live now. So
//! a [`Page`] adds up the differences between two readings, as [`crate::top`] does, and its counters are lower bounds.
//! The rates of all forwards together are those that proxies count, if the operator knows them.

mod listeners;
mod notices;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Event, Pod};
use operator_core::{ObjectKey, names::PROXY_LABEL};
use serde::Serialize;

use crate::{
    access::{Fetched, Listed, items, note},
    config::{Failure, ProxyConfig},
    conns::{self, Query, Sort},
    describe::pods::has_ended,
    live::{Rates, Reading as Sessions, Session, SessionList, notes},
    placement::key,
    top::{Sample, identity, known, listed, moved},
};

pub use self::notices::{NOTICES, Notice};

/// Most listeners in a state; those in trouble come first.
pub const LISTENERS: usize = 500;
/// Most endpoints of one backend in a state.
pub const ENDPOINTS: usize = 20;
/// Most endpoints in a state.
pub const ALL_ENDPOINTS: usize = 2_000;
/// Most sessions that the page gets.
pub const SESSIONS: usize = 500;
/// Most proxies whose configurations are read for one state.
pub const CONFIGS: usize = 20;

/// One reading of everything that the page shows.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Time, in milliseconds since 1970.
    pub at: u64,
    /// Forwards, pods and sessions.
    pub sample: Sample,
    /// The configurations of some proxies, by pod.
    pub configs: Vec<(ObjectKey, Fetched<ProxyConfig>)>,
    /// Events about forwards.
    pub events: Fetched<Listed<Event>>,
}

/// Counters of a listener, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Live sessions.
    pub live: u64,
    /// Sessions that were seen to begin.
    pub opened: u64,
    /// Refused sessions: always absent, because only proxies count them.
    pub refused: Option<u64>,
    /// Bytes from clients.
    pub up: u64,
    /// Bytes to clients.
    pub down: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.live = self.live.saturating_add(other.live);
        self.opened = self.opened.saturating_add(other.opened);
        self.up = self.up.saturating_add(other.up);
        self.down = self.down.saturating_add(other.down);
    }
}

/// The state that the page shows. Every field of a proxy's state that the page reads, and needs, has the same name
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Time of the reading, in milliseconds since 1970.
    pub at: u64,
    /// The part of the cluster that is shown.
    pub cluster: Cluster,
    /// Counters of all listeners, shown or not.
    pub totals: Counts,
    /// Rates of all forwards, as the proxies count them. Absent: the rates of a forward are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// Number of listeners.
    pub listeners: Tally,
    /// The forwards, by name.
    pub forwards: Vec<Forward>,
}

/// The part of a cluster that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Context and namespace, for people.
    pub place: String,
    /// Longest time between two states, in milliseconds.
    pub patience_millis: u64,
    /// Notes about objects that could not be read, or not completely.
    pub notes: Vec<String>,
}

/// Number of listeners by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All listeners.
    pub all: usize,
    /// Listeners that are bound in every proxy that was queried.
    pub bound: usize,
    /// Listeners that failed.
    pub failed: usize,
    /// Always 0: only proxies know the listeners that drain.
    pub draining: usize,
    /// Listeners that the state does not show.
    pub omitted: usize,
}

/// A forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// The listeners of the forward, in the order of the spec.
    pub listeners: Vec<Row>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name within the forward.
    pub name: String,
    /// Bound, Failed, Pending or Suspended.
    pub state: &'static str,
    /// Why the listener does not run.
    pub failure: Option<Failed>,
    /// Other problems that deserve attention.
    pub note: Option<String>,
    /// Health of the backends: All, Some or None. Absent: no proxy has reported it.
    pub health: Option<&'static str>,
    /// Port with its protocol; absent while the listener holds none.
    pub address: Option<String>,
    /// Server names.
    pub hostnames: Vec<String>,
    /// Counters.
    pub counts: Counts,
    /// Backends.
    pub backends: Vec<Backend>,
}

/// Why a listener does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Reason, such as `AddressInUse`.
    pub reason: String,
    /// Message of a proxy, or of the condition `Ready`.
    pub message: String,
    /// The revision that keeps serving.
    pub serving: Option<String>,
}

impl Failed {
    fn new(failure: &Failure, pod: &ObjectKey, serving: Option<&String>) -> Self {
        let message = format!("pod {pod}: {}", failure.message);
        Self { reason: failure.reason.clone(), message, serving: serving.cloned() }
    }
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Identity of the backend.
    pub name: String,
    /// Share of new sessions.
    pub weight: u64,
    /// Priority.
    pub priority: u64,
    /// Live sessions.
    pub sessions: u64,
    /// Number of endpoints; absent where only proxies know them.
    pub endpoints: Option<usize>,
    /// Always absent: a cluster reports the health of all backends of a listener together.
    pub healthy: Option<usize>,
    /// Some of the endpoints.
    pub listed: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Address with port.
    pub address: String,
    /// Always absent, as in [`Backend`].
    pub health: Option<&'static str>,
    /// Live sessions.
    pub live: u64,
}

/// The page of a namespace, a forward or a cluster, with its counters since the first reading.
#[derive(Debug, Default)]
pub struct Page {
    counts: BTreeMap<String, Counts>,
    totals: Counts,
    before: Option<Sample>,
    notices: notices::Notices,
    state: State,
}

impl Page {
    /// A page before its first reading. States are no further apart than `patience`.
    pub fn new(place: String, patience: Duration) -> Self {
        let patience_millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let cluster = Cluster { place, patience_millis, notes: Vec::new() };
        Self { state: State { cluster, ..State::default() }, ..Self::default() }
    }

    /// Returns the state after another reading.
    pub fn take(&mut self, reading: Reading) -> State {
        self.count(&reading.sample);
        let mut rows = listeners::forwards(&reading, &self.counts);
        let tally = listeners::bounded(&mut rows);
        let cluster = Cluster { notes: notes_of(&reading), ..self.state.cluster.clone() };
        self.notices.take(items(&reading.events));
        let (rates, totals) = (rates(&reading.sample.sessions), self.totals);
        self.state = State { at: reading.at, cluster, totals, rates, listeners: tally, forwards: rows };
        self.before = Some(reading.sample);
        self.state.clone()
    }

    /// Returns the state after a reading that has failed: the previous state, with the reason.
    pub fn fail(&mut self, at: u64, why: String) -> State {
        if self.before.is_none() {
            self.state.at = at;
        }
        let cluster = Cluster { notes: vec![why], ..self.state.cluster.clone() };
        State { cluster, ..self.state.clone() }
    }

    /// The last notices, oldest first.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.kept()
    }

    /// The sessions of the last reading, those with the most bytes first.
    pub fn sessions(&self) -> Vec<Session> {
        let reading: &[Sessions] = self.before.as_ref().map(|sample| sample.sessions.as_slice()).unwrap_or_default();
        conns::report(reading, Query { sort: Sort::Bytes, client: None, session: None, limit: SESSIONS }, None).sessions
    }

    fn count(&mut self, sample: &Sample) {
        let interval = self.before.as_ref().map(|before| sample.at.saturating_sub(before.at));
        let known = known(self.before.as_ref());
        let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
        for (_, session) in listed(sample) {
            // The first reading has no previous one to compare with.
            let moved = interval.map(|interval| moved(known.get(&identity(session)).copied(), session, interval));
            let moved = moved.unwrap_or_default();
            let more = Counts { live: 1, opened: moved.is_new.into(), refused: None, up: moved.up, down: moved.down };
            counts.entry(session.listener.clone()).or_default().add(more);
            self.totals.add(Counts { live: 0, ..more });
        }
        let lists = sample.sessions.iter().filter_map(|(_, read)| read.as_ref().ok());
        self.totals.live = lists.fold(0, |sum: u64, list| sum.saturating_add(list.total));
        for forward in &sample.forwards.items {
            for listener in &forward.spec.listeners {
                let id = format!("{}/{}", key(forward), listener.name);
                let earlier = self.counts.get(&id).copied().unwrap_or_default();
                counts.entry(id).or_default().add(Counts { live: 0, ..earlier });
            }
        }
        self.counts = counts;
    }
}

/// The rates of all forwards together, if the rates of each are known.
fn rates(sessions: &[Sessions]) -> Option<Rates> {
    let known = |(_, read): &Sessions| read.as_ref().ok().and_then(SessionList::known_rates);
    sessions.iter().try_fold(Rates::default(), |sum, reading| Some(sum.plus(known(reading)?)))
}

/// The pods whose configurations are read: those of running proxies, by name.
pub fn proxies(pods: &Fetched<Listed<Pod>>) -> Vec<ObjectKey> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let alive = items(pods).iter().filter(|pod| !has_ended(pod) && pod.metadata.deletion_timestamp.is_none());
    // Pods that a sidecar forward selects may be older than the forward, and have no proxy.
    let alive = alive.filter(|pod| pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_LABEL)));
    let mut keys: Vec<ObjectKey> =
        alive.map(|pod| ObjectKey::new(text(&pod.metadata.namespace), text(&pod.metadata.name))).collect();
    keys.sort();
    keys
}

/// The notes for the reader of the page, each once.
fn notes_of(reading: &Reading) -> Vec<String> {
    let sample = &reading.sample;
    let mut all = notes(&sample.sessions);
    all.extend(sample.forwards.is_cut.then(|| {
        format!("only the first {} forwards were read: name a forward or a namespace", sample.forwards.items.len())
    }));
    all.extend(note(&sample.pods, "pods with a proxy"));
    all.extend(note(&reading.events, "events"));
    all.extend(reading.configs.iter().filter_map(|(_, read)| read.as_ref().err().map(ToString::to_string)));
    let (asked, pods) = (reading.configs.len(), proxies(&sample.pods).len());
    all.extend((asked > 0 && asked < pods).then(|| {
        format!("the listeners of {asked} of {pods} proxies were read: the state of the others is that of the forward")
    }));
    all.sort();
    all.dedup();
    all
}

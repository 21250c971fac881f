//! The state that the admin page shows: data of the listeners, by forward, within bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Sum,
    sync::atomic::Ordering::Relaxed,
};

use proxy_api::{BackendHealth, Failure, ListenerId, ListenerReport, ListenerState, ReachedLimit, Report, Version};
use serde::Serialize;

use crate::core::backends::{
    address::Address,
    balance::Entry,
    endpoint::{Checked, Endpoint, Fitness},
};

/// The most listeners in a state; listeners with a fault come first.
pub const LISTENERS: usize = 500;
/// Most endpoints of one backend entry in a state; unhealthy ones come first.
pub const ENDPOINTS: usize = 20;
/// Most endpoints in a state.
pub const ALL_ENDPOINTS: usize = 2_000;

/// Counters by reason; reasons that never occurred are absent.
pub type Reasons = BTreeMap<&'static str, u64>;

/// Counters of a listener, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Live sessions.
    pub live: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Sessions that were refused by an access list, by a limit, or for their first bytes.
    pub refused: u64,
    /// Bytes from clients.
    pub up: u64,
    /// Bytes to clients.
    pub down: u64,
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            live: sum.live + one.live,
            opened: sum.opened + one.opened,
            refused: sum.refused + one.refused,
            up: sum.up + one.up,
            down: sum.down + one.down,
        })
    }
}

/// The data of a listener. The default stands for a listener that never ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Address, as people read it; absent if the listener never ran.
    pub address: Option<String>,
    /// Server names.
    pub hostnames: Vec<String>,
    /// Counters.
    pub counts: Totals,
    /// Sessions closed, by reason.
    pub closed: Reasons,
    /// UDP datagrams dropped, by reason.
    pub dropped: Reasons,
    /// Addresses that are not used as endpoints now, by reason.
    pub refused_addresses: Reasons,
    /// How a durable listener delivers; absent: the listener forwards sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<&'static str>,
    /// Messages of a durable listener that its sink does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// Backend entries.
    pub backends: Vec<Backend>,
}

/// A backend entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Identity of the entry.
    pub name: String,
    /// Share of new sessions.
    pub weight: u32,
    /// Priority.
    pub priority: u32,
    /// Sessions connected.
    pub sessions: u64,
    /// Failed connects.
    pub failures: u64,
    /// Number of endpoints.
    pub endpoints: usize,
    /// Number of endpoints that are not unhealthy, and whose agent has a connection if they are behind one.
    pub healthy: usize,
    /// Some of the endpoints.
    pub listed: Vec<Listed>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Address.
    pub address: Address,
    /// Health.
    pub health: Health,
    /// Live sessions.
    pub live: u32,
}

/// Health of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Health {
    /// Gets sessions.
    Healthy,
    /// The first check has not finished yet.
    Unknown,
    /// Connects failed.
    Ejected,
    /// Active checks fail.
    CheckFailed,
    /// The agent in front of the endpoint has no connection.
    NotConnected,
}

/// The view of a backend entry at `now` (seconds of the process clock). `room` is the number of endpoints that a state
/// can still list; it is reduced by those that are listed.
#[must_use]
pub fn backend(entry: &Entry, now: u64, room: &mut usize) -> Backend {
    let of = |fitness: Fitness| entry.endpoints.iter().filter(move |endpoint| endpoint.fitness_for_new(now) == fitness);
    let by_need = [Fitness::Unhealthy, Fitness::Away, Fitness::Unknown, Fitness::Healthy].into_iter().flat_map(of);
    let listed: Vec<Listed> = by_need.take(ENDPOINTS.min(*room)).map(|endpoint| listed(endpoint, now)).collect();
    *room = room.saturating_sub(listed.len());
    Backend {
        name: entry.id.to_string(),
        weight: entry.weight,
        priority: entry.priority,
        sessions: entry.stats.sessions.load(Relaxed),
        failures: entry.stats.failures.load(Relaxed),
        endpoints: entry.endpoints.len(),
        healthy: entry.endpoints.iter().filter(|endpoint| endpoint.fitness_for_new(now) > Fitness::Away).count(),
        listed,
    }
}

fn listed(endpoint: &Endpoint, now: u64) -> Listed {
    let health = match endpoint.fitness_for_new(now) {
        Fitness::Healthy => Health::Healthy,
        Fitness::Away => Health::NotConnected,
        Fitness::Unknown => Health::Unknown,
        Fitness::Unhealthy if endpoint.checked() == Checked::Down => Health::CheckFailed,
        Fitness::Unhealthy => Health::Ejected,
    };
    Listed { address: endpoint.address.clone(), health, live: endpoint.active.load(Relaxed) }
}

/// The listeners that a state of this report shows.
#[must_use]
pub fn shown(report: &Report) -> BTreeSet<&ListenerId> {
    let of =
        |in_order: bool| report.listeners.iter().filter(move |(_, it)| it.is_usual() == in_order).map(|(id, _)| id);
    of(false).chain(of(true)).take(LISTENERS).collect()
}

/// The state that the page shows.
#[derive(Debug, Serialize)]
pub struct State<'a> {
    /// Time, in milliseconds since 1970.
    pub at: u64,
    /// Version of the configuration.
    pub version: &'a Version,
    /// Counters of all listeners, shown or not.
    pub totals: Totals,
    /// Number of listeners.
    pub listeners: Tally,
    /// The forwards, by name.
    pub forwards: Vec<Forward<'a>>,
}

/// Number of listeners by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All listeners.
    pub all: usize,
    /// Bound listeners.
    pub bound: usize,
    /// Failed listeners.
    pub failed: usize,
    /// Closed listeners whose sessions may continue.
    pub draining: usize,
    /// Listeners that the state does not show.
    pub omitted: usize,
}

/// A forward.
#[derive(Debug, Serialize)]
pub struct Forward<'a> {
    /// `NAMESPACE/NAME`, after its kind if that is not `PortForward`.
    pub name: String,
    /// Its listeners, by name.
    pub listeners: Vec<Row<'a>>,
}

/// A listener.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row<'a> {
    /// Name within the forward.
    pub name: &'a str,
    /// Whether the listener runs.
    pub state: ListenerState,
    /// Why the listener does not run.
    pub failure: Option<&'a Failure>,
    /// Health of the listener's backends.
    pub health: BackendHealth,
    /// The limit that the listener has reached recently.
    pub reached: Option<ReachedLimit>,
    /// Whether the listener has had a loop recently.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub looped: bool,
    /// The data of the listener.
    #[serde(flatten)]
    pub seen: Seen,
}

/// The state at `at` (milliseconds since 1970), with the data of the listeners that are [`shown`].
#[must_use]
pub fn state<'a>(
    report: &'a Report,
    shown: &BTreeSet<&ListenerId>,
    mut seen: BTreeMap<ListenerId, Seen>,
    totals: Totals,
    at: u64,
) -> State<'a> {
    let mut forwards: Vec<Forward<'_>> = Vec::new();
    let mut origin = None;
    for (id, of) in report.listeners.iter().filter(|(id, _)| shown.contains(id)) {
        // Ids are sorted by origin.
        if origin != Some(&id.origin) {
            origin = Some(&id.origin);
            forwards.push(Forward { name: id.origin.to_string(), listeners: Vec::new() });
        }
        if let Some(forward) = forwards.last_mut() {
            forward.listeners.push(row(id, of, seen.remove(id).unwrap_or_default()));
        }
    }
    State { at, version: &report.version, totals, listeners: tally(report, shown.len()), forwards }
}

fn row<'a>(id: &'a ListenerId, of: &'a ListenerReport, seen: Seen) -> Row<'a> {
    Row {
        name: &id.listener,
        state: of.state,
        failure: of.failure.as_ref(),
        health: of.backends,
        reached: of.reached,
        looped: of.looped,
        seen,
    }
}

fn tally(report: &Report, shown: usize) -> Tally {
    let all = report.listeners.len();
    let mut tally = Tally { all, omitted: all.saturating_sub(shown), ..Tally::default() };
    for of in report.listeners.values() {
        match of.state {
            ListenerState::Bound => tally.bound += 1,
            ListenerState::Failed => tally.failed += 1,
            ListenerState::Draining => tally.draining += 1,
            ListenerState::Unknown => {}
        }
    }
    tally
}

//! `kubectl portlane top`: sessions, new sessions a second, bytes a second, and health, by forward and by pod.
//!
//! Rates come from the counters of the proxies. Where the operator does not know them, rates are differences of two
//! readings of live sessions. A session that began and ended between two readings is in neither, so these rates are
//! lower bounds, and the report says so.

pub mod view;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crds::PortForward;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use crate::{
    access::{Fetched, Listed, items, note},
    check::Outcome,
    describe::pods,
    live::{Of, Rates, Reading, Session, SessionList, notes},
    placement::container,
    rows::{self, ForwardRow},
};

/// One reading of everything that the table shows.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Time since any fixed moment.
    pub at: Duration,
    /// The forwards.
    pub forwards: Listed<PortForward>,
    /// The pods with a proxy.
    pub pods: Fetched<Listed<Pod>>,
    /// The sessions of the forwards.
    pub sessions: Vec<Reading>,
}

/// The table of loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// All forwards together.
    pub total: Load,
    /// The forwards, those with most sessions first.
    pub forwards: Vec<Row>,
    /// The pods, those with most sessions first.
    pub pods: Vec<Row>,
    /// Notes about objects that could not be read, or not completely.
    pub notes: Vec<String>,
}

/// A forward or a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The object, as `NAMESPACE/NAME`.
    pub name: String,
    /// Whether the object needs attention.
    pub outcome: Outcome,
    /// Health in a few words.
    pub health: String,
    /// The load of the object.
    #[serde(flatten)]
    pub load: Load,
}

/// Sessions and their rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Live sessions.
    pub sessions: u64,
    /// New sessions a second. Absent before the second reading, unless proxies have reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_per_second: Option<u64>,
    /// Bytes a second in both directions. Absent before the second reading, unless proxies have reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Whether the rates are lower bounds: some come from two readings of live sessions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

impl Load {
    /// The load of sessions with the rates that proxies count, or else with the changes since the previous reading.
    fn new(sessions: u64, known: Option<Rates>, seen: Change, interval: Option<Duration>) -> Self {
        let seen = |interval| Rates { new: per_second(seen.new, interval), bytes: per_second(seen.bytes, interval) };
        let rates = known.or_else(|| interval.map(seen));
        Self {
            sessions,
            new_per_second: rates.map(|rates| rates.new),
            bytes_per_second: rates.map(|rates| rates.bytes),
            at_least: known.is_none() && rates.is_some(),
        }
    }

    /// Adds both loads. If one has no rates, the sum has none.
    fn plus(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        Self {
            sessions: self.sessions.saturating_add(other.sessions),
            new_per_second: sum(self.new_per_second, other.new_per_second),
            bytes_per_second: sum(self.bytes_per_second, other.bytes_per_second),
            at_least: self.at_least || other.at_least,
        }
    }
}

/// New sessions and bytes between two readings.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    sessions: u64,
    new: u64,
    bytes: u64,
}

impl Change {
    fn add(&mut self, other: Self) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.new = self.new.saturating_add(other.new);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Makes the report on a reading. The rates need the previous reading.
pub fn report(before: Option<&Sample>, now: &Sample) -> Report {
    of_rows(before, now, now.forwards.items.iter().map(rows::forward).collect())
}

/// The report on a process on this machine, whose forwards have these rows.
pub fn local(before: Option<&Sample>, now: &Sample, forwards: Vec<ForwardRow>) -> Report {
    // The process is not a pod.
    Report { pods: Vec::new(), ..of_rows(before, now, forwards) }
}

fn of_rows(before: Option<&Sample>, now: &Sample, forwards: Vec<ForwardRow>) -> Report {
    let interval = before.map(|before| now.at.saturating_sub(before.at));
    let changes = Changes::between(before, now);
    let lists: HashMap<String, &SessionList> =
        now.sessions.iter().filter_map(|(of, read)| Some((forward_name(of)?, read.as_ref().ok()?))).collect();
    let forward = |row: ForwardRow| {
        let name = format!("{}/{}", row.namespace, row.name);
        let list = lists.get(&name).copied();
        let seen = changes.forwards.get(&name).copied().unwrap_or_default();
        let known = list.and_then(SessionList::known_rates);
        let load = Load::new(list.map_or(0, |list| list.total), known, seen, interval);
        let health = if row.reason.is_empty() { row.message } else { row.reason };
        Row { name, outcome: row.outcome, health, load }
    };
    let mut forwards: Vec<Row> = forwards.into_iter().map(forward).collect();
    forwards.sort_by(order);
    let known = rates_of_pods(now);
    let mut pods: Vec<Row> = pod_health(now, &changes)
        .into_iter()
        .map(|(name, (outcome, health))| {
            let seen = changes.pods.get(&name).copied().unwrap_or_default();
            let load = Load::new(seen.sessions, known.get(name.as_str()).copied(), seen, interval);
            Row { name, outcome, health, load }
        })
        .collect();
    pods.sort_by(order);
    let none = Load::new(0, Some(Rates::default()), Change::default(), None);
    let total = forwards.iter().fold(none, |sum, row| sum.plus(row.load));
    let cut = now.forwards.is_cut.then(|| format!("only the first {} forwards were read", now.forwards.items.len()));
    let notes = notes(&now.sessions).into_iter().chain(cut).chain(note(&now.pods, "pods with a proxy")).collect();
    Report { total, forwards, pods, notes }
}

/// The rates of the proxies of pods, over all forwards of a reading.
fn rates_of_pods(sample: &Sample) -> HashMap<&str, Rates> {
    let mut rates: HashMap<&str, Rates> = HashMap::new();
    let lists = sample.sessions.iter().filter_map(|(_, read)| read.as_ref().ok());
    for of_pod in lists.flat_map(|list| &list.rates) {
        let sum = rates.entry(of_pod.pod.as_str()).or_default();
        *sum = sum.plus(Rates { new: of_pod.new_per_second, bytes: of_pod.bytes_per_second });
    }
    rates
}

/// Orders rows by sessions, the most first, then by name.
fn order(a: &Row, b: &Row) -> std::cmp::Ordering {
    b.load.sessions.cmp(&a.load.sessions).then_with(|| a.name.cmp(&b.name))
}

fn forward_name(of: &Of) -> Option<String> {
    match of {
        Of::Forward(key) => Some(key.to_string()),
        Of::Pod(_) => None,
    }
}

/// A rate, rounded.
fn per_second(amount: u64, interval: Duration) -> u64 {
    let millis = interval.as_millis().max(1);
    let rate = (u128::from(amount) * 1000 + millis / 2) / millis;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Changes between two readings, by forward and by pod.
#[derive(Debug, Default)]
struct Changes {
    forwards: BTreeMap<String, Change>,
    pods: BTreeMap<String, Change>,
}

/// The fields by which a session is recognised.
type Identity<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The sessions of a reading, by the fields by which they are recognised.
pub(crate) fn known(sample: Option<&Sample>) -> HashMap<Identity<'_>, &Session> {
    sample.into_iter().flat_map(listed).map(|(_, session)| (identity(session), session)).collect()
}

pub(crate) fn identity(session: &Session) -> Identity<'_> {
    (&session.pod, &session.listener, &session.client, &session.protocol)
}

impl Changes {
    fn between(before: Option<&Sample>, now: &Sample) -> Self {
        let known = known(before);
        let interval = before.map_or(Duration::ZERO, |before| now.at.saturating_sub(before.at));
        let mut changes = Self::default();
        for (of, session) in listed(now) {
            let change = change(known.get(&identity(session)).copied(), session, interval);
            if let Some(name) = forward_name(of) {
                changes.forwards.entry(name).or_default().add(change);
            }
            changes.pods.entry(session.pod.clone()).or_default().add(change);
        }
        changes
    }
}

/// The sessions of a reading.
pub(crate) fn listed(sample: &Sample) -> impl Iterator<Item = (&Of, &Session)> {
    let lists = sample.sessions.iter().filter_map(|(of, read)| Some((of, read.as_ref().ok()?)));
    lists.flat_map(|(of, list)| list.items.iter().map(move |session| (of, session)))
}

/// The increase of counters by a session between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Whether the session began between the readings.
    pub(crate) is_new: bool,
    /// Bytes from the client.
    pub(crate) up: u64,
    /// Bytes to the client.
    pub(crate) down: u64,
}

/// The increase by a session. A session that the previous reading lacks is new if its age is within the time between
/// them; older ones were beyond the limit of the list.
pub(crate) fn moved(before: Option<&Session>, now: &Session, interval: Duration) -> Moved {
    // A client may reuse its port: a younger session is another one.
    let same = before.filter(|before| {
        before.seconds <= now.seconds && before.bytes_up <= now.bytes_up && before.bytes_down <= now.bytes_down
    });
    match same {
        Some(before) => {
            let (up, down) = (now.bytes_up - before.bytes_up, now.bytes_down - before.bytes_down);
            Moved { is_new: false, up, down }
        }
        None if now.seconds <= interval.as_secs() => Moved { is_new: true, up: now.bytes_up, down: now.bytes_down },
        None => Moved::default(),
    }
}

fn change(before: Option<&Session>, now: &Session, interval: Duration) -> Change {
    let moved = moved(before, now, interval);
    Change { sessions: 1, new: moved.is_new.into(), bytes: moved.up.saturating_add(moved.down) }
}

/// Health of each pod that has a proxy, or whose proxy has sessions.
fn pod_health(sample: &Sample, changes: &Changes) -> BTreeMap<String, (Outcome, String)> {
    let check = |pod: &Pod| {
        let metadata = &pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let check = pods::item(pod, container(pod));
        (format!("{}/{}", text(&metadata.namespace), text(&metadata.name)), (check.outcome, check.detail))
    };
    let alive = items(&sample.pods).iter().filter(|pod| !pods::has_ended(pod));
    let mut health: BTreeMap<String, (Outcome, String)> = alive.map(check).collect();
    // Pods of a gateway in another namespace are in none of the lists.
    for name in changes.pods.keys() {
        health.entry(name.clone()).or_insert_with(|| (Outcome::Ok, "-".to_owned()));
    }
    health
}

#[cfg(test)]
mod tests {
    use operator_core::ObjectKey;

    use super::*;

    fn session(seconds: u64, bytes_up: u64) -> Session {
        Session { bytes_up, seconds, ..Session::default() }
    }

    #[test]
    fn a_session_counts_its_new_bytes_and_a_reused_port_is_a_new_session() {
        let interval = Duration::from_secs(2);
        let counted = |before: Option<Session>, now: Session| {
            let change = change(before.as_ref(), &now, interval);
            (change.new, change.bytes)
        };
        assert_eq!(counted(Some(session(5, 100)), session(7, 130)), (0, 30));
        assert_eq!(counted(Some(session(5, 100)), session(1, 130)), (1, 130), "the client reused its port");
        assert_eq!(counted(None, session(2, 10)), (1, 10));
        assert_eq!(counted(None, session(60, 10)), (0, 0), "an old session that was not listed before");
    }

    #[test]
    fn rates_are_those_of_proxies_or_else_lower_bounds_and_a_sum_with_one_of_these_is_one() {
        let interval = Some(Duration::from_secs(2));
        let seen = Change { sessions: 0, new: 4, bytes: 8 };
        let known = Load::new(3, Some(Rates { new: 1000, bytes: 70 }), seen, interval);
        assert_eq!((known.new_per_second, known.bytes_per_second, known.at_least), (Some(1000), Some(70), false));
        let bound = Load::new(1, None, seen, interval);
        assert_eq!((bound.new_per_second, bound.bytes_per_second, bound.at_least), (Some(2), Some(4), true));
        let sum = known.plus(bound);
        assert_eq!((sum.sessions, sum.new_per_second, sum.at_least), (4, Some(1002), true));
        let first = known.plus(Load::new(1, None, Change::default(), None));
        assert_eq!(
            (first.sessions, first.new_per_second, first.at_least),
            (4, None, false),
            "before the second reading"
        );
    }

    #[test]
    fn a_rate_is_rounded_and_survives_readings_at_the_same_time() {
        assert_eq!(per_second(3, Duration::from_secs(2)), 2);
        assert_eq!(per_second(2, Duration::from_secs(4)), 1);
        assert_eq!(per_second(5, Duration::ZERO), 5000);
        assert_eq!(per_second(u64::MAX, Duration::ZERO), u64::MAX);
    }

    #[test]
    fn a_session_is_the_same_only_if_neither_its_age_nor_its_bytes_went_back() {
        let of = |seconds, bytes_up, bytes_down| Session { bytes_up, bytes_down, seconds, ..Session::default() };
        let before = of(5, 100, 10);
        let moved = |now: &Session| moved(Some(&before), now, Duration::from_secs(9));
        assert_eq!(moved(&of(5, 100, 10)), Moved::default(), "nothing has moved");
        assert_eq!(moved(&of(6, 101, 12)), Moved { is_new: false, up: 1, down: 2 });
        for other in [of(4, 100, 10), of(5, 99, 10), of(5, 100, 9)] {
            assert_eq!(moved(&other), Moved { is_new: true, up: other.bytes_up, down: other.bytes_down });
        }
    }

    #[test]
    fn a_session_that_was_not_listed_is_new_if_it_began_after_the_reading_before() {
        let is_new = |seconds: u64| moved(None, &session(seconds, 1), Duration::from_millis(2999)).is_new;
        assert_eq!([0, 2, 3].map(is_new), [true, true, false]);
    }

    #[test]
    fn a_process_on_this_machine_is_no_pod() {
        let list = SessionList { total: 1, items: vec![session(1, 1)], ..SessionList::default() };
        let sessions = vec![(Of::Forward(ObjectKey::new("shop", "db")), Ok(list))];
        let now = Sample { at: Duration::ZERO, forwards: Listed::default(), pods: Ok(Listed::default()), sessions };
        assert!(local(None, &now, Vec::new()).pods.is_empty());
        assert_eq!(report(None, &now).pods.len(), 1, "the pod of the session");
    }
}

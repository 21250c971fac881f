//! The listeners of the page: their states from reports of proxies and from status, and their backends with live
//! sessions.

use std::collections::{BTreeMap, HashMap};

use crds::{Listener, ListenerStatus, PortForward};
use operator_core::ObjectKey;
use serde_json::Value;

use super::{ALL_ENDPOINTS, Backend, Counts, ENDPOINTS, Endpoint, Failed, Forward, LISTENERS, Reading, Row, Tally};
use crate::{
    check::Outcome,
    config::{self, ProxyConfig},
    placement::key,
    rows::{self, ForwardRow},
    top::listed,
};

/// A listener in a proxy that was queried.
struct Run<'a> {
    pod: &'a ObjectKey,
    config: &'a ProxyConfig,
    listener: &'a config::Listener,
}

/// Live sessions of a listener.
#[derive(Default)]
struct Live<'a> {
    backends: HashMap<&'a str, u64>,
    endpoints: HashMap<&'a str, u64>,
}

/// The readings of each listener.
struct Seen<'a> {
    runs: HashMap<&'a str, Vec<Run<'a>>>,
    live: HashMap<&'a str, Live<'a>>,
    /// The number of further endpoints that can be listed.
    room: usize,
}

/// The forwards of a reading, by name.
pub(super) fn forwards(reading: &Reading, counts: &BTreeMap<String, Counts>) -> Vec<Forward> {
    let mut seen = seen(reading);
    let mut all: Vec<Forward> = Vec::new();
    for forward in &reading.sample.forwards.items {
        let (name, summary) = (key(forward).to_string(), rows::forward(forward));
        let listeners = forward.spec.listeners.iter().map(|listener| {
            let id = format!("{name}/{}", listener.name);
            let counts = counts.get(&id).copied().unwrap_or_default();
            row(forward, &summary, listener, &id, &mut seen, counts)
        });
        let listeners = listeners.collect();
        all.push(Forward { name, listeners });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Leaves out listeners beyond the bound, healthy ones first. Returns how many listeners there are.
pub(super) fn bounded(forwards: &mut Vec<Forward>) -> Tally {
    let all = || forwards.iter().flat_map(|forward| &forward.listeners);
    let count = |state: &str| all().filter(|row| row.state == state).count();
    let (failed, total) = (count("Failed"), all().count());
    let troubled = all().filter(|row| is_troubled(row)).count();
    let tally =
        Tally { all: total, bound: count("Bound"), failed, draining: 0, omitted: total.saturating_sub(LISTENERS) };
    // Troubled listeners come first, so that the others share the remaining room.
    let (mut troubled, mut usual) = (troubled.min(LISTENERS), LISTENERS.saturating_sub(troubled));
    for forward in forwards.iter_mut() {
        forward.listeners.retain(|row| {
            let room = if is_troubled(row) { &mut troubled } else { &mut usual };
            let is_kept = *room > 0;
            *room = room.saturating_sub(1);
            is_kept
        });
    }
    forwards.retain(|forward| !forward.listeners.is_empty());
    tally
}

fn is_troubled(row: &Row) -> bool {
    row.state != "Bound" || row.note.is_some()
}

fn seen(reading: &Reading) -> Seen<'_> {
    let mut seen = Seen { runs: HashMap::new(), live: HashMap::new(), room: ALL_ENDPOINTS };
    let configs = reading.configs.iter().filter_map(|(pod, read)| Some((pod, read.as_ref().ok()?)));
    for (pod, config) in configs {
        for listener in &config.listeners {
            seen.runs.entry(&listener.id).or_default().push(Run { pod, config, listener });
        }
    }
    for (_, session) in listed(&reading.sample) {
        let live = seen.live.entry(&session.listener).or_default();
        for (name, by) in [(&session.backend, &mut live.backends), (&session.endpoint, &mut live.endpoints)] {
            if let Some(name) = name {
                *by.entry(name.as_str()).or_default() += 1;
            }
        }
    }
    seen
}

fn row(
    forward: &PortForward,
    summary: &ForwardRow,
    listener: &Listener,
    id: &str,
    seen: &mut Seen<'_>,
    counts: Counts,
) -> Row {
    let held = forward.status.as_ref().and_then(|it| it.listeners.iter().find(|held| held.name == listener.name));
    let runs = seen.runs.get(id).map(Vec::as_slice).unwrap_or_default();
    let (state, failure) = state(forward, summary, held, runs);
    let note = note(summary, failure.as_ref());
    let (live, nothing) = (seen.live.get(id), Live::default());
    let live = live.unwrap_or(&nothing);
    let backends = match runs.first() {
        Some(run) => from_proxy(run, live, &mut seen.room),
        None => from_spec(forward, listener, live),
    };
    Row {
        name: listener.name.clone(),
        state,
        failure,
        note,
        health: held.and_then(|held| held.backends).map(rows::health),
        address: held.map(rows::port),
        hostnames: held.map(|held| held.hostnames.clone()).unwrap_or_default(),
        counts,
        backends,
    }
}

/// The state of a listener: from the reports of the proxies that were queried, or else from the forward's status.
fn state(
    forward: &PortForward,
    summary: &ForwardRow,
    held: Option<&ListenerStatus>,
    runs: &[Run<'_>],
) -> (&'static str, Option<Failed>) {
    if forward.spec.suspend == Some(true) {
        return ("Suspended", None);
    }
    if let Some(run) = runs.iter().find(|run| run.listener.state == "Failed") {
        let failure = run.listener.failure.clone().unwrap_or_default();
        return ("Failed", Some(Failed::new(&failure, run.pod, run.listener.serving.as_ref())));
    }
    if !runs.is_empty() {
        let is_bound = runs.iter().all(|run| run.listener.state == "Bound");
        return (if is_bound { "Bound" } else { "Pending" }, None);
    }
    if summary.outcome == Outcome::Failed {
        let (reason, message) = (summary.reason.clone(), summary.message.clone());
        return ("Failed", Some(Failed { reason, message, serving: None }));
    }
    let is_everywhere = summary.proxies.is_some_and(|proxies| proxies.total > 0 && proxies.acked >= proxies.total);
    (if held.is_some() && is_everywhere { "Bound" } else { "Pending" }, None)
}

/// Problems beside the failure of the listener, and the next step.
fn note(summary: &ForwardRow, failure: Option<&Failed>) -> Option<String> {
    if summary.outcome == Outcome::Ok {
        return None;
    }
    let message = Some(&summary.message).filter(|text| !text.is_empty());
    let message = message.filter(|text| failure.is_none_or(|failure| failure.message != **text));
    let parts: Vec<&str> = message.into_iter().chain(summary.hint.as_ref()).map(String::as_str).collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// The backends of a listener in the configuration of a proxy.
fn from_proxy(run: &Run<'_>, live: &Live<'_>, room: &mut usize) -> Vec<Backend> {
    let entries = run.listener.spec["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let backend = |entry: &Value| {
        let name = entry["id"].as_str().unwrap_or_default();
        let set = entry["target"]["endpoints"].as_str().and_then(|set| run.config.endpoints.get(set));
        let addresses = set.and_then(|set| set["addresses"].as_array());
        let listed: Vec<Endpoint> = addresses
            .into_iter()
            .flatten()
            .filter_map(|address| address.as_str().or_else(|| address["address"].as_str()))
            .take(ENDPOINTS.min(*room))
            .map(|address| endpoint(address, live))
            .collect();
        *room = room.saturating_sub(listed.len());
        Backend {
            name: name.to_owned(),
            weight: entry["weight"].as_u64().unwrap_or(1),
            priority: entry["priority"].as_u64().unwrap_or(0),
            sessions: live.backends.get(name).copied().unwrap_or(0),
            endpoints: addresses.map(Vec::len),
            healthy: None,
            listed,
        }
    };
    entries.iter().map(backend).collect()
}

fn endpoint(address: &str, live: &Live<'_>) -> Endpoint {
    let live = live.endpoints.get(address).copied().unwrap_or(0);
    Endpoint { address: address.to_owned(), health: None, live }
}

/// The backends of a listener in the spec of the forward.
fn from_spec(forward: &PortForward, listener: &Listener, live: &Live<'_>) -> Vec<Backend> {
    let own = key(forward).namespace;
    let backend = |entry: &crds::Backend| {
        let name = if let Some(service) = &entry.service {
            let namespace = service.namespace.as_deref().unwrap_or(&own);
            format!("svc/{namespace}/{}:{}", service.name, service.port)
        } else if let Some(address) = &entry.address {
            format!("addr/{}:{}", address.host, address.port)
        } else if let Some(tunnel) = &entry.tunnel {
            format!("agent/{own}/{}/{}:{}", tunnel.agent, tunnel.host, tunnel.port)
        } else {
            format!("local:{}", entry.local.as_ref().map_or(0, |local| local.port))
        };
        Backend {
            sessions: live.backends.get(name.as_str()).copied().unwrap_or(0),
            name,
            weight: entry.weight.unwrap_or(1).into(),
            priority: entry.priority.unwrap_or(0).into(),
            endpoints: None,
            healthy: None,
            listed: Vec::new(),
        }
    };
    listener.backends.iter().map(backend).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listener_of_which_no_proxy_was_asked_is_bound_once_every_proxy_runs_its_forward() {
        let of = |acked: u32, total: u32, holds_port: bool| {
            let object = json!({
                "metadata": {"name": "db", "namespace": "shop"},
                "spec": {"placement": {}, "listeners": []},
                "status": {
                    "listeners": [{"name": "pg", "protocol": "TCP", "port": 5432}],
                    "dataPlane": {"acked": acked, "total": total, "summary": "", "rejectedCount": 0},
                },
            });
            let forward: PortForward = serde_json::from_value(object).expect("a forward");
            let held = forward.status.as_ref().and_then(|it| it.listeners.first()).filter(|_| holds_port);
            state(&forward, &rows::forward(&forward), held, &[]).0
        };
        assert_eq!(of(2, 2, true), "Bound");
        assert_eq!(of(1, 2, true), "Pending");
        assert_eq!(of(0, 0, true), "Pending", "no proxy should run it yet");
        assert_eq!(of(2, 2, false), "Pending", "it holds no port yet");
    }

    #[test]
    fn of_many_listeners_one_that_serves_and_deserves_attention_is_shown() {
        let row = |note: Option<&str>| Row {
            name: "l".to_owned(),
            state: "Bound",
            failure: None,
            note: note.map(str::to_owned),
            health: None,
            address: None,
            hostnames: Vec::new(),
            counts: Counts::default(),
            backends: Vec::new(),
        };
        let forward = |name: &str, listeners| Forward { name: name.to_owned(), listeners };
        let quiet = (0..LISTENERS).map(|_| row(None)).collect();
        let mut all = vec![forward("a", quiet), forward("b", vec![row(Some("no backend is healthy"))])];
        assert_eq!(bounded(&mut all).omitted, 1);
        let shown: Vec<usize> = all.iter().map(|forward| forward.listeners.len()).collect();
        assert_eq!(shown, [LISTENERS - 1, 1]);
    }
}

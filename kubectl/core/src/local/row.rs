//! A forward of a process on this machine in one line.

use std::collections::BTreeSet;

use operator_core::ObjectKey;
use proxy_api::{
    BackendHealth, Delivery, Listener, ListenerId, ListenerState, Offer, ReachedLimit, Store, Target, Transport,
};

use super::Process;
use crate::{
    check::Outcome,
    rows::{ForwardRow, ListenerRow, Proxies, store_failed},
};

/// The reason why a listener deserves attention.
struct Fault {
    outcome: Outcome,
    reason: String,
    message: String,
}

/// The row of a forward with these listeners and this number of live sessions.
pub(super) fn of(process: &Process, forward: ObjectKey, ids: &BTreeSet<&ListenerId>, live: u64) -> ForwardRow {
    let faults: Vec<Fault> = ids.iter().filter_map(|id| fault(process, id)).collect();
    let state = |id: &&ListenerId| process.report.listeners.get(*id).map(|report| report.state);
    let is_ready = ids.iter().all(|id| state(id) == Some(ListenerState::Bound));
    let worst = faults.iter().max_by_key(|fault| fault.outcome);
    let specs: Vec<(&ListenerId, &Listener)> = ids
        .iter()
        .filter_map(|id| match process.configuration.listeners.get(*id)? {
            Offer::Supported(listener) => Some((*id, &**listener)),
            Offer::Unsupported { .. } => None,
        })
        .collect();
    let listener = |(id, spec): &(&ListenerId, &Listener)| ListenerRow {
        name: id.listener.clone(),
        port: port(spec),
        backends: process.report.listeners.get(*id).map(|report| health(report.backends)),
    };
    let backends = specs.iter().flat_map(|(_, spec)| &spec.backends).map(|backend| backend.id.as_str());
    ForwardRow {
        namespace: forward.namespace,
        name: forward.name,
        outcome: worst.map_or(Outcome::Ok, |fault| fault.outcome),
        ready: if is_ready { "True" } else { "False" }.to_owned(),
        reason: worst.map_or_else(|| "Bound".to_owned(), |fault| fault.reason.clone()),
        message: faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; "),
        hint: None,
        proxies: Some(Proxies { acked: is_ready.into(), total: 1 }),
        listeners: specs.iter().map(listener).collect(),
        sessions: Some(live),
        to: backends.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", "),
        placement: String::new(),
        addresses: specs.iter().map(|(_, spec)| spec.place()).collect(),
    }
}

fn fault(process: &Process, id: &ListenerId) -> Option<Fault> {
    let fault = |outcome, reason: &str, what: &str| {
        let message = format!("listener {}: {what}", id.listener);
        Some(Fault { outcome, reason: reason.to_owned(), message })
    };
    let warning = |reason, what| fault(Outcome::Warning, reason, what);
    let Some(report) = process.report.listeners.get(id) else {
        return warning("Pending", "the process has not reported on it yet");
    };
    match report.state {
        ListenerState::Failed => match &report.failure {
            Some(failure) => fault(Outcome::Failed, &format!("{:?}", failure.reason), &failure.message),
            None => fault(Outcome::Failed, "Failed", "it does not run"),
        },
        ListenerState::Draining => warning("Draining", "it is closed, and its sessions can continue"),
        ListenerState::Unknown => warning("Unknown", "this program does not know its state: the process is newer"),
        ListenerState::Bound if report.backends == BackendHealth::None => warning("Bound", unhealthy(process, id)),
        ListenerState::Bound => {
            let delivery = || undelivered(process, id, report.delivery?);
            // A log that takes no messages loses them, which is worse than sessions that are refused.
            let is_lossy = matches!(report.delivery, Some(Delivery::StoreFailed | Delivery::Full));
            let lost = is_lossy.then(delivery).flatten();
            let looped =
                report.looped.then_some(("Loop", "a loop is likely: traffic of the listener comes back to it"));
            let refused = || report.reached.and_then(limited);
            let (reason, what) = lost.or(looped).or_else(refused).or_else(delivery)?;
            warning(reason, what)
        }
    }
}

/// The state of a listener without a healthy backend.
fn unhealthy(process: &Process, id: &ListenerId) -> &'static str {
    match process.configuration.listeners.get(id) {
        Some(Offer::Supported(listener)) if leads_through_agents(listener) => {
            "no backend is healthy: see whether its agents are connected"
        }
        _ => "no backend is healthy",
    }
}

fn leads_through_agents(listener: &Listener) -> bool {
    listener.backends.iter().any(|backend| matches!(backend.target, Target::Tunnel { .. }))
}

/// The effect of a reached limit on a listener.
fn limited(limit: ReachedLimit) -> Option<(&'static str, &'static str)> {
    match limit {
        ReachedLimit::Tenant => Some(("LimitReached", "it refuses sessions: the limit of its namespace is reached")),
        ReachedLimit::Source => Some(("LimitReached", "it refuses sessions: one source has reached its share")),
        ReachedLimit::Lookups => Some(("LimitReached", "DNS names wait: the lookups of its namespace are used up")),
        ReachedLimit::Unknown => None,
    }
}

/// The fate of the messages of a durable listener, if that deserves attention.
fn undelivered(process: &Process, id: &ListenerId, delivery: Delivery) -> Option<(&'static str, &'static str)> {
    match delivery {
        Delivery::Flowing | Delivery::Unknown => None,
        Delivery::Behind => Some(("Behind", "the oldest waiting message is older than 10 s")),
        Delivery::Stalled => Some(("Stalled", "messages wait, and the sink has accepted none for 30 s")),
        Delivery::Full => Some(("Full", "messages are dropped or refused, because the log is full")),
        Delivery::StoreFailed => Some(("StoreFailed", store_failed(is_in_stream(process, id)))),
    }
}

/// Whether a server keeps the messages of a listener, rather than the disk.
fn is_in_stream(process: &Process, id: &ListenerId) -> bool {
    let Some(Offer::Supported(listener)) = process.configuration.listeners.get(id) else { return false };
    listener.durable.as_ref().is_some_and(|durable| matches!(durable.store, Store::JetStream { .. }))
}

/// Port or range of a listener with its protocol.
fn port(listener: &Listener) -> String {
    let protocol = match listener.socket.transport {
        Transport::Tcp if !listener.hostnames.is_empty() => "TLS".to_owned(),
        transport => transport.to_string(),
    };
    match listener.end_port {
        Some(end) => format!("{}-{end}/{protocol}", listener.socket.port),
        None => format!("{}/{protocol}", listener.socket.port),
    }
}

/// Health of backends in the words of status.
fn health(health: BackendHealth) -> &'static str {
    match health {
        BackendHealth::All => "All",
        BackendHealth::Some => "Some",
        BackendHealth::None => "None",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proxy_api::{Backend, Configuration, Durable, Framing, Oversize, Sink, SocketKey, WhenFull};

    use super::*;
    use crate::local::Scope;

    fn row(report: &str) -> ForwardRow {
        let report = format!(r#"{{"listeners": {{"shop/db/pg": {report}}}}}"#);
        let process = Process { report: serde_json::from_str(&report).expect("a report"), ..Process::default() };
        process.forwards(&Scope::default()).remove(0)
    }

    #[test]
    fn what_deserves_attention_has_its_reason() {
        for (report, outcome, ready, reason) in [
            (r#"{"revision": "r", "state": "Bound"}"#, Outcome::Ok, "True", "Bound"),
            (r#"{"revision": "r", "state": "Bound", "backends": "None"}"#, Outcome::Warning, "True", "Bound"),
            (r#"{"revision": "r", "state": "Bound", "reached": "Tenant"}"#, Outcome::Warning, "True", "LimitReached"),
            (r#"{"revision": "r", "state": "Bound", "reached": "Source"}"#, Outcome::Warning, "True", "LimitReached"),
            (r#"{"revision": "r", "state": "Bound", "reached": "Lookups"}"#, Outcome::Warning, "True", "LimitReached"),
            (
                r#"{"revision": "r", "state": "Bound", "reached": "Source", "looped": true}"#,
                Outcome::Warning,
                "True",
                "Loop",
            ),
            (r#"{"revision": "r", "state": "Bound", "reached": "Newer"}"#, Outcome::Ok, "True", "Bound"),
            (r#"{"revision": "r", "state": "Bound", "delivery": "Flowing"}"#, Outcome::Ok, "True", "Bound"),
            (r#"{"revision": "r", "state": "Bound", "delivery": "Full"}"#, Outcome::Warning, "True", "Full"),
            (r#"{"revision": "r", "state": "Draining"}"#, Outcome::Warning, "False", "Draining"),
            (r#"{"revision": "r", "state": "Newer"}"#, Outcome::Warning, "False", "Unknown"),
            (r#"{"revision": "r", "state": "Failed"}"#, Outcome::Failed, "False", "Failed"),
        ] {
            let row = row(report);
            assert_eq!((row.outcome, row.ready.as_str(), row.reason.as_str()), (outcome, ready, reason), "{report}");
            assert_eq!(row.message.is_empty(), outcome == Outcome::Ok, "{report}: {}", row.message);
        }
    }

    #[test]
    fn a_log_that_takes_no_messages_is_told_before_a_loop_and_a_limit_and_messages_that_wait_after_them() {
        for (delivery, more, reason) in [
            ("StoreFailed", r#""looped": true, "reached": "Source""#, "StoreFailed"),
            ("Full", r#""looped": true"#, "Full"),
            ("Full", r#""reached": "Tenant""#, "Full"),
            ("Stalled", r#""looped": true"#, "Loop"),
            ("Behind", r#""reached": "Tenant""#, "LimitReached"),
            ("Behind", r#""looped": false"#, "Behind"),
        ] {
            let row = row(&format!(r#"{{"revision": "r", "state": "Bound", "delivery": "{delivery}", {more}}}"#));
            assert_eq!((row.outcome, row.reason.as_str()), (Outcome::Warning, reason), "{delivery}, {more}");
        }
    }

    #[test]
    fn a_store_that_fails_is_the_disk_or_the_server_of_that_listener() {
        let document = include_str!("../../../../proxy-api/tests/documents/v1.yaml");
        let mut configuration = Configuration::decode(document.as_bytes()).expect("v1");
        let (id, template) =
            configuration.supported().next().map(|(id, it)| (id.clone(), it.clone())).expect("a listener");
        let mut said = |store: Store| {
            let durable = Some(Box::new(Durable {
                framing: Framing::Newline,
                max_message_bytes: 64,
                oversize: Oversize::Drop,
                store,
                max_age_seconds: None,
                when_full: WhenFull::DropNewest,
                sync_millis: 0,
                lanes: 1,
                send: Sink::Udp {},
                dead_letter_bytes: None,
                enrich: None,
            }));
            let offer = Offer::Supported(Arc::new(Listener { durable, ..template.clone() }));
            configuration.listeners.insert(id.clone(), offer);
            let process = Process { configuration: configuration.clone(), ..Process::default() };
            undelivered(&process, &id, Delivery::StoreFailed).expect("it deserves attention").1
        };
        let disk = said(Store::Disk { max_bytes: 1 });
        assert!(disk.starts_with("the disk fails"), "{disk}");
        let url = "nats://nats:4222".to_owned();
        let stream = said(Store::JetStream { url, credentials_name: None, replicas: 1, max_bytes: 1 });
        assert!(stream.starts_with("the NATS server fails"), "{stream}");
    }

    #[test]
    fn a_listener_without_a_healthy_backend_names_its_agents_if_it_leads_through_some() {
        let document = include_str!("../../../../proxy-api/tests/documents/v1.yaml");
        let mut configuration = Configuration::decode(document.as_bytes()).expect("v1");
        let (id, template) =
            configuration.supported().next().map(|(id, it)| (id.clone(), it.clone())).expect("a listener");
        let mut said = |target: Target| {
            let backends = vec![Backend { target, ..template.backends[0].clone() }];
            let offer = Offer::Supported(Arc::new(Listener { backends, ..template.clone() }));
            configuration.listeners.insert(id.clone(), offer);
            unhealthy(&Process { configuration: configuration.clone(), ..Process::default() }, &id)
        };
        let host = "db.lan".to_owned();
        let agent = Target::Tunnel { agent: "u".to_owned(), host: host.clone(), port: 5432 };
        assert!(said(agent).ends_with("see whether its agents are connected"));
        assert_eq!(said(Target::Address { host, port: 5432 }), "no backend is healthy");
    }

    #[test]
    fn a_listener_is_shown_with_its_ports_its_protocol_and_the_health_of_its_backends() {
        let document = include_str!("../../../../proxy-api/tests/documents/v1.yaml");
        let document = Configuration::decode(document.as_bytes()).expect("v1");
        let (_, template) = document.supported().next().expect("a listener");
        assert_eq!(port(template), "5432/TCP");
        let hostnames = vec!["a.example".to_owned()];
        assert_eq!(port(&Listener { hostnames, ..template.clone() }), "5432/TLS");
        let socket = SocketKey { transport: Transport::Udp, ..template.socket };
        assert_eq!(port(&Listener { socket, end_port: Some(5439), ..template.clone() }), "5432-5439/UDP");
        let healths = [BackendHealth::All, BackendHealth::Some, BackendHealth::None].map(health);
        assert_eq!(healths, ["All", "Some", "None"]);
    }
}

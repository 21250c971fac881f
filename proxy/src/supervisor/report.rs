//! Saying what happened: the report for whoever sent the configuration, and a line for every event.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{
    BackendHealth, CONTRACT, Failure, FailureReason, Listener, ListenerId, ListenerReport, ListenerState, Offer,
    Report, Revision, SocketKey,
};

use super::Supervisor;
use crate::{
    core::{
        damped::Damped,
        diff::{Blocked, Settled},
    },
    log::Level,
    net::BindError,
    route::Served,
    shared::Shared,
};

/// Further ports of a range that are named.
const NAMED: usize = 7;

impl Supervisor {
    /// Writes a line for every listener that changed its state.
    pub(super) fn note(
        &mut self,
        settled: &Settled,
        errors: &BTreeMap<SocketKey, BindError>,
        before: &BTreeMap<ListenerId, Arc<Shared>>,
    ) {
        let log = &self.process.log;
        for id in &settled.applied {
            let Some(after) = settled.next.listeners.get(id) else { continue };
            match before.get(id).or_else(|| self.retired.iter().find(|shared| *shared.id == *id)) {
                Some(shared) => {
                    let old = self.previous.get(id);
                    let message = change(old.map(|old| &**old), after, shared.counters.active());
                    log.notice(Level::Info, "swapped", id, message);
                }
                None if self.quiet => {}
                None => log.notice(Level::Info, "bound", id, format!("{} -> {}", place(after), backends(after))),
            }
        }
        for (id, shared) in before.iter().filter(|(id, _)| !settled.next.listeners.contains_key(*id)) {
            let live = sessions_go_on(shared.counters.active());
            log.notice(Level::Info, "removed", id, format!("no longer listens{live}"));
        }
        let failures: BTreeMap<ListenerId, Failure> =
            settled.blocked.iter().map(|(id, blocked)| (id.clone(), self.failure(id, blocked, errors))).collect();
        for (id, failure) in &failures {
            if self.failures.get(id) != Some(failure) {
                let serving = if failure.serving.is_some() { "; the previous version goes on serving" } else { "" };
                log.notice(Level::Error, "failed", id, format!("{}{serving}", failure.message));
            }
        }
        self.failures = failures;
        self.previous = settled.next.listeners.clone();
    }

    fn failure(&self, id: &ListenerId, blocked: &Blocked, errors: &BTreeMap<SocketKey, BindError>) -> Failure {
        let (reason, message) = match blocked {
            Blocked::Unsupported => (FailureReason::Unsupported, self.unsupported(id)),
            Blocked::Unbound(sockets) => unbound(sockets, errors),
            Blocked::Held(socket, holder) => (
                FailureReason::SocketHeld,
                format!("{socket} is still needed by {holder}, which could not change; see its own message"),
            ),
        };
        let serving = self.running.listeners.get(id).map(|listener| listener.revision.clone());
        Failure { reason, message, serving }
    }

    fn unsupported(&self, id: &ListenerId) -> String {
        match self.configuration.listeners.get(id) {
            Some(Offer::Unsupported { what, .. }) => {
                format!("this proxy does not understand the listener: {what}; upgrade the proxy")
            }
            _ => "this proxy does not understand the listener; upgrade the proxy".to_owned(),
        }
    }

    /// Publishes the report and the listeners whose series are exposed.
    pub(super) fn publish(&mut self) {
        let mut listeners: BTreeMap<ListenerId, ListenerReport> = BTreeMap::new();
        for shared in &self.retired {
            let revision = shared.spec.load().revision.clone();
            let report = ListenerReport {
                revision,
                state: ListenerState::Draining,
                failure: None,
                backends: BackendHealth::All,
            };
            listeners.insert((*shared.id).clone(), report);
        }
        for (id, offer) in &self.configuration.listeners {
            listeners.insert(id.clone(), self.listener_report(id, offer.revision()));
        }
        let version = self.configuration.version.clone();
        let report = Report { contract: CONTRACT, version, listeners };
        self.report.send_if_modified(|now| {
            let modified = *now != report;
            *now = report;
            modified
        });
        self.metrics.control.failed_listeners.store(self.failures.len() as u64, Relaxed);
        self.metrics.expose(self.listeners.values().chain(&self.retired).cloned().collect());
        let named = self.sockets.iter().filter(|(_, open)| matches!(**open.route.load(), Served::ByName(_)));
        self.metrics.expose_unrouted(named.map(|(key, open)| (key.port, open.unrouted.clone())).collect());
    }

    /// Once a second: how the backends of each listener do, told once it has lasted.
    pub(super) fn look_at_backends(&mut self) {
        let now = self.process.clock.seconds();
        self.health.retain(|id, _| self.listeners.contains_key(id));
        let mut changed = false;
        for (id, shared) in &self.listeners {
            let seen = shared.targets.load().health(now);
            let damped = self.health.entry(id.clone()).or_default();
            let before = damped.told();
            if damped.observe(seen, now) {
                changed = true;
                let (level, event, what) = match damped.told() {
                    BackendHealth::All => (Level::Info, "backends_healthy", "all backends are healthy"),
                    BackendHealth::Some if before == BackendHealth::None => {
                        (Level::Info, "backends_healthy", "some backends are healthy again")
                    }
                    BackendHealth::Some => (Level::Warn, "backends_unhealthy", "not all backends are healthy"),
                    BackendHealth::None => (
                        Level::Error,
                        "backends_unhealthy",
                        "no backend is healthy; new sessions try them all the same",
                    ),
                };
                self.process.log.notice(level, event, id, what);
            }
        }
        if changed {
            self.publish();
        }
    }

    fn listener_report(&self, id: &ListenerId, revision: &Revision) -> ListenerReport {
        let failure = self.failures.get(id).cloned();
        let state = if failure.is_some() { ListenerState::Failed } else { ListenerState::Bound };
        let backends = self.health.get(id).map_or(BackendHealth::All, Damped::told);
        ListenerReport { revision: revision.clone(), state, failure, backends }
    }
}

/// The first socket that could not be opened, and the ports of the others.
fn unbound(sockets: &[SocketKey], errors: &BTreeMap<SocketKey, BindError>) -> (FailureReason, String) {
    let known = sockets.iter().find_map(|socket| errors.get(socket));
    let (reason, message) = match (known, sockets.first()) {
        (Some(error), _) => (error.reason, error.to_string()),
        (None, Some(socket)) => (FailureReason::BindFailed, format!("{socket} could not be opened")),
        (None, None) => (FailureReason::BindFailed, "a socket could not be opened".to_owned()),
    };
    let others: Vec<String> = sockets.iter().skip(1).take(NAMED).map(|socket| socket.port.to_string()).collect();
    if others.is_empty() {
        return (reason, message);
    }
    let more = if sockets.len() > NAMED + 1 { ", …" } else { "" };
    (reason, format!("{message}; nor could ports {}{more}; a range is bound whole or not at all", others.join(", ")))
}

fn place(listener: &Listener) -> String {
    let port = listener.place();
    if listener.hostnames.is_empty() { port } else { format!("{port} for {}", listener.hostnames.join(", ")) }
}

fn backends(listener: &Listener) -> String {
    let names: Vec<&str> = listener.backends.iter().map(|backend| backend.id.as_str()).collect();
    if names.is_empty() { "(no backend)".to_owned() } else { names.join(", ") }
}

fn sessions_go_on(live: u64) -> String {
    match live {
        0 => String::new(),
        1 => "; 1 live session".to_owned(),
        live => format!("; {live} live sessions"),
    }
}

/// What is different, in words.
fn change(before: Option<&Listener>, after: &Listener, live: u64) -> String {
    let live = sessions_go_on(live);
    let Some(before) = before else { return format!("{} -> {}{live}", place(after), backends(after)) };
    let mut parts = Vec::new();
    if place(before) != place(after) {
        parts.push(format!("{} (was {})", place(after), place(before)));
    }
    if before.backends != after.backends {
        parts.push(format!("-> {} (was {})", backends(after), backends(before)));
    }
    if parts.is_empty() {
        parts.push("settings changed in place".to_owned());
    }
    format!("{}{live}", parts.join(" "))
}

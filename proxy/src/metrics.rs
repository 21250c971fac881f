//! Metrics in the Prometheus text format.
//!
//! Labels name the namespace, forward, listener and backend entry; never a client, pod or address. The series of a
//! listener are removed with it.

mod checks;
mod durable;
mod exposed;
mod forwards;
mod lag;
#[cfg(test)]
mod page;
mod pipes;
mod process;
mod seen;
mod series;
mod tunnels;
mod unrouted;

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};

use proxy_api::{Denial, ListenerId};

use self::{
    checks::checks_text,
    durable::durable_text,
    exposed::Exposed,
    forwards::{limits_text, shares_text},
    pipes::pipes_text,
    process::process_text,
    series::{family, labels, origin_labels, single},
    unrouted::unrouted_text,
};
use crate::{
    clock::Clock,
    core::{
        backends::balance::Entry,
        limits::capacity::SESSION_PLACES,
        logging::unrouted::Unrouted,
        sessions::end::EndReason,
        workers::{load::ByForward, walk::Walk},
    },
    process::Process,
    shared::{Dropped, Shared},
};

/// Counters of the control thread.
#[derive(Debug, Default)]
pub struct ControlCounters {
    /// Configurations applied.
    pub applied: std::sync::atomic::AtomicU64,
    /// Configurations refused whole, such as an incomplete file.
    pub refused: std::sync::atomic::AtomicU64,
    /// Version number of the configuration in force.
    pub number: std::sync::atomic::AtomicU64,
    /// 1 while a stream to an operator is open.
    pub operator_connected: std::sync::atomic::AtomicU64,
    /// Streams opened to an operator.
    pub operator_streams: std::sync::atomic::AtomicU64,
    /// Failed attempts to open a stream, and broken streams.
    pub operator_failures: std::sync::atomic::AtomicU64,
    /// Failures to read or write the persisted configuration and CAs.
    pub state_failures: std::sync::atomic::AtomicU64,
    /// Listeners that failed or still run an older revision.
    pub failed_listeners: std::sync::atomic::AtomicU64,
    /// Sockets of listeners that were not opened for lack of file descriptors.
    pub refused_sockets: std::sync::atomic::AtomicU64,
    /// 1 if the app of a sidecar started without a configuration.
    pub started_without: std::sync::atomic::AtomicU64,
    /// DNS names that currently fail to resolve.
    pub dns_failing: std::sync::atomic::AtomicU64,
    /// Longest time that a name has failed to resolve, in seconds.
    pub dns_failing_seconds: std::sync::atomic::AtomicU64,
    /// DNS names with more addresses than are used.
    pub dns_truncated: std::sync::atomic::AtomicU64,
    /// Datagrams that reached a UDP port which no socket has, while flows were live.
    pub no_ports: std::sync::atomic::AtomicU64,
}

/// Everything that the metrics endpoint exposes.
#[derive(Debug)]
pub struct Metrics {
    process: Process,
    /// Counters of the control thread.
    pub control: ControlCounters,
    listeners: Mutex<Exposed>,
    /// By port.
    unrouted: Mutex<Vec<(u16, Arc<Unrouted>)>>,
}

impl Metrics {
    /// Creates the metrics of a process without listeners.
    #[must_use]
    pub fn new(process: Process) -> Arc<Self> {
        Arc::new(Self {
            process,
            control: ControlCounters::default(),
            listeners: Mutex::default(),
            unrouted: Mutex::default(),
        })
    }

    /// Replaces the series of these live listeners; a listener that is absent is no longer exposed. `retired` are all
    /// the removed listeners that still have sessions.
    pub fn expose<'a>(
        &self,
        changed: impl Iterator<Item = (&'a ListenerId, Option<&'a Arc<Shared>>)>,
        retired: &[Arc<Shared>],
    ) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).change(changed, retired);
    }

    /// Replaces the ports shared by server names.
    pub fn expose_unrouted(&self, ports: Vec<(u16, Arc<Unrouted>)>) {
        *self.unrouted.lock().unwrap_or_else(PoisonError::into_inner) = ports;
    }

    /// Live sessions of all listeners, including removed ones.
    #[must_use]
    pub fn live_sessions(&self) -> u64 {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|shared| shared.counters.active()).sum()
    }

    /// Sessions cut at the deadline of a drain.
    #[must_use]
    pub fn cut_by_drain(&self) -> u64 {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|shared| shared.counters.closed[EndReason::Drained.index()].load(Relaxed)).sum()
    }

    /// Counters by forward.
    #[must_use]
    pub fn by_forward(&self) -> ByForward {
        let mut all = ByForward::new();
        self.count_forwards(&mut Walk::default(), usize::MAX, &mut all);
        all
    }

    /// Adds the counters of the next `most` listeners to those of their forwards.
    pub fn count_forwards(&self, walk: &mut Walk<ListenerId>, most: usize, counts: &mut ByForward) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).count(walk, most, counts);
    }

    /// The response to a scrape.
    ///
    /// # Errors
    /// Only if memory is exhausted.
    pub fn text(self: &Arc<Self>) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition(self.clone())));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Exposition(Arc<Metrics>);

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Exposition {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).to_vec();
        listeners_text(&mut out, &listeners)?;
        durable_text(&mut out, &listeners)?;
        limits_text(&mut out, &listeners)?;
        shares_text(&mut out, &listeners, self.0.process.session_room().with_one_more())?;
        unrouted_text(&mut out, &self.0.unrouted.lock().unwrap_or_else(PoisonError::into_inner))?;
        backends_text(&mut out, &listeners, &self.0.process.clock)?;
        checks_text(&mut out, &listeners)?;
        refused_text(&mut out, &listeners)?;
        room_text(&mut out, &self.0.process)?;
        pipes_text(&mut out, &self.0.process.pipes)?;
        tunnels::tunnels_text(&mut out, &self.0.process.agents.seen())?;
        process_text(&mut out, &self.0)
    }
}

fn listeners_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>]) -> Result<(), std::fmt::Error> {
    let opened = |shared: &Shared| shared.counters.opened.load(Relaxed);
    let per_listener = |value: fn(&Shared) -> u64| all.iter().map(move |shared| (labels(shared), value(shared)));
    family(
        out,
        ("portlane_connections_opened", "Sessions opened: TCP connections and UDP flows."),
        true,
        all.iter().map(|shared| (labels(shared), opened(shared))),
    )?;
    let closed = all.iter().flat_map(|shared| {
        let spec = shared.spec.load_full();
        let counters = &shared.counters;
        let shown =
            move |reason: &&EndReason| reason.is_possible(&spec) || counters.closed[reason.index()].load(Relaxed) > 0;
        EndReason::ALL.iter().filter(shown).map(move |reason| {
            let mut labels = labels(shared);
            labels.push(("reason", reason.as_str()));
            (labels, shared.counters.closed[reason.index()].load(Relaxed))
        })
    });
    family(out, ("portlane_connections_closed", "Sessions closed, by reason."), true, closed)?;
    family(out, ("portlane_connections_active", "Live sessions."), false, per_listener(|s| s.counters.active()))?;
    let bytes = all.iter().flat_map(|shared| {
        let (up, down) = (shared.counters.up.load(Relaxed), shared.counters.down.load(Relaxed));
        [("up", up), ("down", down)].map(|(direction, value)| {
            let mut labels = labels(shared);
            labels.push(("direction", direction));
            (labels, value)
        })
    });
    family(out, ("portlane_bytes", "Bytes forwarded, by direction; up is from the client."), true, bytes)?;
    let retries = per_listener(|s| s.counters.retries.load(Relaxed));
    family(out, ("portlane_connect_retries", "Connect attempts after the first."), true, retries)?;
    let ejected = per_listener(|s| s.counters.ejected.load(Relaxed));
    family(out, ("portlane_endpoint_ejections", "Endpoints ejected after failed connects."), true, ejected)?;
    let errors = per_listener(|s| s.counters.accept_errors.load(Relaxed));
    family(out, ("portlane_accept_errors", "Failed accept calls."), true, errors)?;
    let dropped = all.iter().flat_map(|shared| {
        let spec = shared.spec.load_full();
        let counters = &shared.counters;
        let shown =
            move |reason: &&Dropped| reason.is_possible(&spec) || counters.dropped[reason.index()].load(Relaxed) > 0;
        Dropped::ALL.iter().filter(shown).map(move |reason| {
            let mut labels = labels(shared);
            labels.push(("reason", reason.as_str()));
            (labels, shared.counters.dropped[reason.index()].load(Relaxed))
        })
    });
    family(out, ("portlane_datagrams_dropped", "UDP datagrams dropped, by reason."), true, dropped)?;
    access_text(out, all)
}

/// Counts of the listeners that have access lists.
fn access_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>]) -> Result<(), std::fmt::Error> {
    let with_list = all.iter().filter(|shared| shared.spec.load().access.is_some());
    let access = with_list.flat_map(|shared| {
        let counters = &shared.counters;
        [("allowed", &counters.allowed), ("denied", &counters.denied)].map(|(result, count)| {
            let mut labels = labels(shared);
            labels.push(("result", result));
            (labels, count.load(Relaxed))
        })
    });
    family(out, ("portlane_access_checks", "Clients checked against access lists, by result."), true, access)
}

fn backends_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>], clock: &Clock) -> Result<(), std::fmt::Error> {
    let targets: Vec<_> = all.iter().map(|shared| (shared, shared.targets.load_full())).collect();
    let series = |value: &dyn Fn(&Entry) -> u64| {
        let mut all = Vec::new();
        for (shared, targets) in &targets {
            for entry in &targets.entries {
                let mut labels = labels(shared);
                labels.push(("backend", &entry.id));
                all.push((labels, value(entry)));
            }
        }
        all.into_iter()
    };
    let sessions = series(&|entry| entry.stats.sessions.load(Relaxed));
    family(out, ("portlane_backend_connections", "Sessions connected to this backend entry."), true, sessions)?;
    let failures = series(&|entry| entry.stats.failures.load(Relaxed));
    family(out, ("portlane_backend_connect_failures", "Failed connects to this backend entry."), true, failures)?;
    let endpoints = series(&|entry| entry.endpoints.len() as u64);
    family(out, ("portlane_backend_endpoints", "Endpoints of this backend entry."), false, endpoints)?;
    let now = clock.seconds();
    let unhealthy =
        series(&move |entry| entry.endpoints.iter().filter(|endpoint| !endpoint.is_healthy(now)).count() as u64);
    let help = "Endpoints that are ejected or fail their health checks.";
    family(out, ("portlane_backend_endpoints_unhealthy", help), false, unhealthy)
}

/// Addresses that gateways refuse; a series appears elsewhere only if there are any.
fn refused_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>]) -> Result<(), std::fmt::Error> {
    let series = all.iter().flat_map(|shared| {
        let (is_gateway, refused) = (shared.spec.load().destinations.refuse_local, &shared.counters.refused);
        let count = move |why: Denial| refused[why.index()].load(Relaxed);
        Denial::ALL.into_iter().filter(move |why| is_gateway || count(*why) > 0).map(move |why| {
            let mut labels = labels(shared);
            labels.push(("reason", why.as_str()));
            (labels, count(why))
        })
    });
    let help = "Addresses of backends that the proxy refuses to connect to, by reason.";
    family(out, ("portlane_backend_endpoints_refused", help), false, series)
}

/// The room of the process, and the connections that it turns away.
fn room_text(out: &mut DescriptorEncoder<'_>, process: &Process) -> Result<(), std::fmt::Error> {
    let rooms = [("Files", &process.files), ("Sessions", &process.sessions)];
    let paused = rooms.map(|(reason, room)| (vec![("reason", reason)], room.paused.load(Relaxed)));
    let help = "Times that the proxy paused accepting because file descriptors or sessions were used up, by reason.";
    family(out, ("portlane_accept_paused", help), true, paused.into_iter())?;
    let waiting = rooms.map(|(reason, room)| (vec![("reason", reason)], u64::from(room.lacks_places())));
    let help = "1 while the proxy has paused accepting because file descriptors or sessions are used up, by reason.";
    family(out, ("portlane_accept_waiting", help), false, waiting.into_iter())?;
    // A door refuses a newcomer only if it can evict no connection.
    let closed = process.doors.closed().filter(|(_, reason, count)| *reason == "evicted" || *count > 0);
    let closed = closed.map(|(door, reason, count)| (vec![("door", door), ("reason", reason)], count));
    let help = "Connections to the HTTP addresses that were closed because of a limit or because the client did not read, by reason.";
    family(out, ("portlane_http_connections_closed", help), true, closed)?;
    let (files, files_limit) = process.files.usage();
    let (places, places_limit) = process.sessions.usage();
    let stuck = process.lives.complaints(process.clock.seconds()).len();
    let handshakes = "Connections whose client has not yet sent its PROXY header or server name.";
    let mut gauges = vec![
        ("portlane_files", "Open file descriptors.", files),
        ("portlane_files_limit", "Open file descriptors at which accepting stops.", files_limit),
        (
            "portlane_sessions",
            "TCP sessions, including those in a handshake, plus half of the UDP flows.",
            to_sessions(places),
        ),
        ("portlane_handshakes", handshakes, process.handshakes.taken()),
        ("portlane_threads_stuck", "Threads that hang or have died; /livez names them.", stuck),
    ];
    let short = "1 while connections wait and new flows are dropped because the memory is nearly used up.";
    gauges.push(("portlane_memory_short", short, process.is_short_of_memory().into()));
    // Without a limit, the series is absent.
    if places_limit < usize::MAX {
        gauges.push(("portlane_sessions_limit", "Sessions at which accepting stops.", to_sessions(places_limit)));
    }
    for (name, help, value) in gauges {
        single(out, (name, help), false, value as u64)?;
    }
    Ok(())
}

/// Converts places to sessions; half a session counts as a whole one.
fn to_sessions(places: usize) -> usize {
    places.div_ceil(SESSION_PLACES)
}

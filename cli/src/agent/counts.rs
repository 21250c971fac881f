//! The counts of an agent, in the text format of Prometheus.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use tunnel::agent::{Drops, Event};
use tunnel_core::{Reason, identity::EndpointId};

/// The labels of refusals.
const REASONS: [Reason; 7] = [
    Reason::NotAllowed,
    Reason::UnknownName,
    Reason::Unreachable,
    Reason::TimedOut,
    Reason::Full,
    Reason::Draining,
    Reason::Other,
];

/// The reasons for dropped datagrams, with the labels of their counts.
const DROPS: [(Drops, &str); 3] = [(Drops::Waited, "waited"), (Drops::Full, "full"), (Drops::Refused, "refused")];

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Connections by endpoint. For a moment, an endpoint may have two.
    connections: RefCell<BTreeMap<EndpointId, usize>>,
    /// Lost connections that have not been replaced yet.
    missing: Cell<u64>,
    reconnects: Cell<u64>,
    streams: Cell<u64>,
    refused: [Cell<u64>; REASONS.len()],
    /// Bytes of streams: from clients to targets, and back (`down`).
    up: Cell<u64>,
    down: Cell<u64>,
    dropped: [Cell<u64>; DROPS.len()],
    draining: Cell<bool>,
    /// Connections to the health address that were closed because of a limit.
    closed: Cell<u64>,
}

impl Counts {
    /// Counts an event.
    pub(super) fn count(&self, event: &Event<'_>) {
        match event {
            Event::Connected { endpoint, .. } => {
                *self.connections.borrow_mut().entry((*endpoint).clone()).or_default() += 1;
                if let Some(missing) = self.missing.get().checked_sub(1) {
                    self.missing.set(missing);
                    add(&self.reconnects, 1);
                }
            }
            Event::Disconnected { endpoint, pause, .. } => {
                self.disconnected(endpoint);
                add(&self.missing, u64::from(pause.is_some()));
            }
            Event::Opened(_) => add(&self.streams, 1),
            Event::Moved { to_target, from_target } => {
                add(&self.up, *to_target);
                add(&self.down, *from_target);
            }
            Event::Closed { .. } => self.streams.set(self.streams.get().saturating_sub(1)),
            Event::Refused { refusal, .. } => {
                if let Some(index) = REASONS.iter().position(|reason| *reason == refusal.reason) {
                    add(&self.refused[index], 1);
                }
            }
            Event::Dropped { reason, count } => {
                if let Some(index) = DROPS.iter().position(|(other, _)| other == reason) {
                    add(&self.dropped[index], *count);
                }
            }
            Event::Draining => self.draining.set(true),
            Event::NotConnected { .. } | Event::Needed { .. } | Event::Ended { .. } | Event::Cut(_) => {}
        }
    }

    fn disconnected(&self, endpoint: &EndpointId) {
        let mut connections = self.connections.borrow_mut();
        if let Some(count) = connections.get_mut(endpoint) {
            *count -= 1;
            if *count == 0 {
                connections.remove(endpoint);
            }
        }
    }

    /// Sets the number of connections to the health address that were closed for lack of a place.
    pub(super) fn set_closed(&self, closed: u64) {
        self.closed.set(closed);
    }

    /// The number of connected endpoints.
    pub(super) fn sessions(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Why no streams can arrive; `None` if they can.
    pub(super) fn lacks(&self) -> Option<&'static str> {
        if self.draining.get() {
            return Some("the agent is shutting down");
        }
        (self.sessions() == 0).then_some("the agent is connected to no tunnel server: its log says why")
    }

    /// The metrics.
    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            for (labels, value) in rows {
                text.push_str(&format!("{name}{labels} {value}\n"));
            }
        };
        let one = |value: u64| [(String::new(), value)];
        let sessions = u64::try_from(self.sessions()).unwrap_or(u64::MAX);
        put("portlane_agent_sessions", "gauge", "Tunnel endpoints that the agent is connected to.", &one(sessions));
        put("portlane_agent_streams", "gauge", "Streams and flows that are open.", &one(self.streams.get()));
        let refused = REASONS.iter().zip(&self.refused);
        let refused: Vec<(String, u64)> =
            refused.map(|(reason, count)| (format!("{{reason=\"{}\"}}", word(*reason)), count.get())).collect();
        let help = "Streams and flows whose target the agent did not connect to, by reason.";
        put("portlane_agent_streams_refused_total", "counter", help, &refused);
        let help = "Connections to tunnel endpoints that replaced a lost one.";
        put("portlane_agent_reconnects_total", "counter", help, &one(self.reconnects.get()));
        let rows = [("up", &self.up), ("down", &self.down)];
        let rows = rows.map(|(direction, count)| (format!("{{direction=\"{direction}\"}}"), count.get()));
        put("portlane_agent_stream_bytes_total", "counter", "Bytes of TCP streams.", &rows);
        let dropped = DROPS.iter().zip(&self.dropped);
        let rows: Vec<(String, u64)> =
            dropped.map(|((_, reason), count)| (format!("{{reason=\"{reason}\"}}"), count.get())).collect();
        put("portlane_agent_datagrams_dropped_total", "counter", "Datagrams of flows that were dropped.", &rows);
        let help = "Connections to the health address that were closed because of a limit.";
        put("portlane_agent_http_connections_closed_total", "counter", help, &one(self.closed.get()));
        text
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get().saturating_add(more));
}

/// A reason in one word.
pub(super) const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::NotAllowed => "not_allowed",
        Reason::UnknownName => "unknown_name",
        Reason::Unreachable => "unreachable",
        Reason::TimedOut => "timed_out",
        Reason::Full => "full",
        Reason::Draining => "draining",
        Reason::Other => "other",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tunnel::CarryEnd;
    use tunnel_core::{Open, Protocol, Refusal, Target, join::Address};

    use super::*;

    /// Tells counts of a connection to an endpoint.
    pub(in super::super) fn connect(counts: &Counts, endpoint: &str) {
        let (endpoint, address) =
            (EndpointId::new(endpoint).expect("an id"), Address::new("a", 1).expect("an address"));
        counts.count(&Event::Connected { endpoint: &endpoint, address: &address, resumed: false });
    }

    fn disconnect(counts: &Counts, endpoint: &str, end: &CarryEnd, pause: Option<Duration>) {
        let endpoint = EndpointId::new(endpoint).expect("an id");
        counts.count(&Event::Disconnected { endpoint: &endpoint, end, pause });
    }

    #[test]
    fn a_connection_that_replaces_another_is_the_same_session_and_one_after_a_loss_is_counted() {
        let counts = Counts::default();
        connect(&counts, "edge-0");
        connect(&counts, "edge-0");
        disconnect(&counts, "edge-0", &CarryEnd::Replaced, None);
        connect(&counts, "edge-1");
        assert_eq!((counts.sessions(), counts.reconnects.get(), counts.lacks()), (2, 0, None));
        disconnect(&counts, "edge-0", &CarryEnd::Silent, Some(Duration::ZERO));
        disconnect(&counts, "edge-1", &CarryEnd::Closed, Some(Duration::ZERO));
        assert!(counts.lacks().is_some_and(|why| why.contains("no tunnel server")));
        connect(&counts, "edge-2");
        assert_eq!((counts.sessions(), counts.reconnects.get()), (1, 1));
        counts.count(&Event::Draining);
        assert!(counts.lacks().is_some_and(|why| why.contains("shutting down")));
    }

    #[test]
    fn metrics_have_every_reason_and_what_has_happened() {
        let counts = Counts::default();
        let target = Target { protocol: Protocol::Tcp, host: "a".to_owned(), port: 1 };
        let open = Open { target, source: None };
        let refusal = Refusal { reason: Reason::NotAllowed, detail: String::new() };
        connect(&counts, "edge-0");
        counts.count(&Event::Opened(&open));
        counts.count(&Event::Opened(&open));
        // The bytes of a stream are counted while it is open.
        counts.count(&Event::Moved { to_target: 3, from_target: 0 });
        counts.count(&Event::Moved { to_target: 0, from_target: 4 });
        counts.count(&Event::Closed { open: &open, relayed: None });
        counts.count(&Event::Refused { open: &open, refusal: &refusal });
        counts.count(&Event::Dropped { reason: Drops::Refused, count: 2 });
        let text = counts.metrics();
        for line in [
            "# TYPE portlane_agent_sessions gauge",
            "portlane_agent_sessions 1",
            "portlane_agent_streams 1",
            "portlane_agent_streams_refused_total{reason=\"not_allowed\"} 1",
            "portlane_agent_streams_refused_total{reason=\"timed_out\"} 0",
            "portlane_agent_reconnects_total 0",
            "portlane_agent_stream_bytes_total{direction=\"up\"} 3",
            "portlane_agent_stream_bytes_total{direction=\"down\"} 4",
            "portlane_agent_datagrams_dropped_total{reason=\"refused\"} 2",
            "portlane_agent_datagrams_dropped_total{reason=\"waited\"} 0",
            "portlane_agent_http_connections_closed_total 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }
}

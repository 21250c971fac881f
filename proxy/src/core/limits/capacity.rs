//! The bounds that the memory of the process allows: sessions, handshakes, buffered bytes, worker threads.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use proxy_api::{
    doors::{Bounds, Evict},
    partials::Partials,
};

/// Memory set aside for one TCP session, in bytes. An idle session takes about 11 KiB: 2.7 KiB of the process
/// (docs/performance.md), and 8 KiB of the kernel for its two sockets, which the control group is charged for (the growth
/// of `/proc/slabinfo` by 5,000 pairs of sockets that epoll watches, Linux 6.18). The rest is for bytes in the buffers of
/// the sockets.
pub const SESSION_BYTES: u64 = 20 << 10;
/// Memory set aside for one UDP flow, in bytes. An idle flow takes about 4 KiB, of which the kernel has 2.6 KiB for the
/// socket, measured in the same way. The rest is for replies that wait: usually none, because each is read at once. A
/// flow whose replies outrun the worker holds more, up to its receive buffer (512 KiB, see `net.rs`); then the kernel
/// drops them.
pub const FLOW_BYTES: u64 = 10 << 10;
/// Places that a TCP session takes in the room for sessions. The unit is the smaller of the two, a flow.
pub const SESSION_PLACES: usize = 2;
/// Places that a UDP flow takes in the room for sessions.
pub const FLOW_PLACES: usize = 1;

/// Memory of a process without sessions, in bytes: the program, a configuration of a few thousand listeners, and the
/// program of a probe that runs beside it.
const PROCESS_BYTES: u64 = 24 << 20;
/// Memory of a worker thread without sessions, in bytes: its buffers for reads and for batches of datagrams, and its stack.
const WORKER_BYTES: u64 = 3 << 20;
/// The least part of the memory for sessions, however little that leaves: a proxy that accepts no session is useless.
const LEAST_PART: u64 = 8;
/// The largest part of the memory for buffered bytes.
const HELD_PART: u64 = 4;
/// The part of the memory for messages of durable listeners that are incomplete, or wait for a log. Those of streams
/// that wait for sinks have as much.
const MESSAGE_PART: u64 = 8;
/// The least memory for these messages, in bytes: the longest message has 1 MiB.
const LEAST_MESSAGE_BYTES: u64 = 4 << 20;
/// The most memory for these messages, in bytes.
const MOST_MESSAGE_BYTES: u64 = 64 << 20;

/// The part of the memory for bytes that sessions with agents grant and keep.
const TUNNEL_PART: u64 = 4;
/// The least memory for these sessions, in bytes: it allows one session windows for full speed.
const LEAST_TUNNEL_BYTES: u64 = 8 << 20;
/// The most memory for these sessions, in bytes.
const MOST_TUNNEL_BYTES: u64 = 256 << 20;

/// UDP flows leave this part of the places to TCP sessions. A datagram costs its sender nothing, not even a real source
/// address, so a flood of datagrams must not keep all connections out.
const TCP_PART: usize = 4;

/// TCP sessions leave this part of their room to UDP flows, idle or not.
const FLOW_PART: usize = 4;
/// Flows of a source with many flows, and TCP sessions, leave this part of the room for flows free. A source with few
/// flows gets a place there at once, and a flow of another source is evicted.
const SPARE_PART: usize = 16;
/// The most places that are left free this way. Each is free again a moment later, when the worker has ended the
/// evicted flow.
const MOST_SPARE: usize = 64;
/// The most UDP flows of a process without a limit of memory or sessions; they take at most 640 MiB.
const MOST_FLOWS: usize = 1 << 16;
/// UDP flows leave this part of the local ports to other programs of the pod, to queries to name servers, and to
/// evicted flows, whose sockets are closed a moment later.
const OTHER_PORTS_PART: usize = 8;
/// Flows are evicted for new ones when no more than this part of their room is left, because the file of an evicted
/// flow is freed only a moment later.
const EARLY_PART: usize = 8;
/// Most flows that are evicted early. A worker receives no more datagrams before it closes the files of evicted flows.
const MAX_EARLY_EVICTIONS: usize = 256;

/// Handshakes get no more than this part of the sessions.
const HANDSHAKE_PART: usize = 4;
/// Most concurrent handshakes of the process.
const MOST_HANDSHAKES: usize = 1024;
/// Trusted peers get this part of the handshakes, all others the rest.
const TRUSTED_PART: usize = 2;

/// With more workers than this, UDP sockets have a shard for each worker.
const FEW_WORKERS: usize = 2;
/// Shards are opened while no more than this part of the files is in use.
const SHARD_PART: usize = 8;

/// Most bytes of messages that are incomplete or wait for a log, over all durable listeners of a process with this
/// memory limit in bytes, if any. Those of streams that wait for sinks have as many.
#[must_use]
pub fn message_bytes(memory: Option<u64>) -> usize {
    let part = memory.map_or(MOST_MESSAGE_BYTES, |memory| memory / MESSAGE_PART);
    usize::try_from(part.clamp(LEAST_MESSAGE_BYTES, MOST_MESSAGE_BYTES)).unwrap_or(usize::MAX)
}

/// Memory of messages of durable listeners.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Memory of incomplete messages.
    pub partial: Arc<Partials>,
    /// Memory of messages of streams that wait for sinks.
    pub waiting: Arc<Partials>,
}

impl Messages {
    /// Creates the memory in a process with this memory limit in bytes, if any.
    #[must_use]
    pub fn new(memory: Option<u64>) -> Self {
        let part = || Arc::new(Partials::new(message_bytes(memory)));
        Self { partial: part(), waiting: part() }
    }

    /// Whether a listener takes messages, or has a stream.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.partial.is_used() || self.waiting.is_used()
    }

    /// Adapts to this memory limit, and returns the memory for everything else: while there are such listeners, memory
    /// is reserved for their messages.
    #[must_use]
    pub fn beside(&self, memory: Option<u64>) -> Option<u64> {
        let (bytes, parts) = (message_bytes(memory), [&self.partial, &self.waiting]);
        for part in parts {
            part.resize(bytes);
        }
        let used = parts.iter().filter(|part| part.is_used()).count();
        memory.map(|memory| memory.saturating_sub(used.saturating_mul(bytes) as u64))
    }
}

/// Most bytes that sessions with agents grant and keep in a process with this memory limit in bytes, if any.
#[must_use]
pub fn tunnel_bytes(memory: Option<u64>) -> u64 {
    let part = memory.map_or(MOST_TUNNEL_BYTES, |memory| memory / TUNNEL_PART);
    part.clamp(LEAST_TUNNEL_BYTES, MOST_TUNNEL_BYTES)
}

/// Memory of the sessions with agents. Their thread polls it.
#[derive(Debug)]
pub struct TunnelMemory {
    bytes: AtomicU64,
    is_used: AtomicBool,
}

impl TunnelMemory {
    /// Creates the memory in a process with this memory limit in bytes, if any. No agent can connect yet.
    #[must_use]
    pub fn new(memory: Option<u64>) -> Self {
        Self { bytes: AtomicU64::new(tunnel_bytes(memory)), is_used: AtomicBool::default() }
    }

    /// Allows agents to connect from now on.
    pub fn begin(&self) {
        self.is_used.store(true, Relaxed);
    }

    /// Whether agents can connect.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Adapts to this memory limit, and returns the bytes reserved: none before agents can connect.
    #[must_use]
    pub fn resize(&self, memory: Option<u64>) -> u64 {
        let bytes = tunnel_bytes(memory);
        self.bytes.store(bytes, Relaxed);
        if self.is_used() { bytes } else { 0 }
    }
}

/// Bounds of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most bytes to buffer for peers that do not read.
    pub held_bytes: usize,
    /// Most TCP sessions, including those in a handshake; a UDP flow counts as half a session. Absent: only files bound
    /// them.
    pub sessions: Option<usize>,
}

impl Capacity {
    /// The bounds of a process with this memory limit in bytes, if any. `held_bytes` and `sessions` are the user's
    /// settings; 0 sessions: as many as fit into the memory.
    #[must_use]
    pub fn of(memory: Option<u64>, workers: NonZeroUsize, held_bytes: usize, sessions: usize) -> Self {
        let Some(memory) = memory else {
            return Self { held_bytes, sessions: Some(sessions).filter(|sessions| *sessions > 0) };
        };
        let held = (memory / HELD_PART).min(held_bytes as u64);
        let base = PROCESS_BYTES + WORKER_BYTES * workers.get() as u64 + held;
        let fit = memory.saturating_sub(base).max(memory / LEAST_PART) / SESSION_BYTES;
        let fit = usize::try_from(fit).unwrap_or(usize::MAX).max(1);
        let sessions = if sessions > 0 { sessions } else { fit };
        Self { held_bytes: usize::try_from(held).unwrap_or(usize::MAX), sessions: Some(sessions) }
    }

    /// Places for sessions, of which a TCP session takes [`SESSION_PLACES`].
    #[must_use]
    pub fn places(&self) -> usize {
        self.sessions.map_or(usize::MAX, |sessions| sessions.saturating_mul(SESSION_PLACES))
    }

    /// How many of the places UDP flows may take, if the system has this many local ports for sockets that name none
    /// ([`super::local_ports`]); absent: ports are no bound. The socket of each flow takes a port. If ports ran out,
    /// every new flow would fail, whatever its source; if places run out, flows are evicted. A flow to an agent has no
    /// socket, but counts as well: a flow has its place before its destination is known.
    #[must_use]
    pub fn flow_places(&self, local_ports: Option<usize>) -> usize {
        let places = self.places();
        let fit = if self.sessions.is_none() { MOST_FLOWS } else { places - places / TCP_PART };
        local_ports.map_or(fit, |ports| fit.min(ports - ports / OTHER_PORTS_PART))
    }

    /// Bounds of the handshakes, the phase in which a client has not yet sent its PROXY header or server name. When all
    /// are taken, a new client replaces the one that has waited longest, so that clients that never finish neither keep
    /// others out nor take most of the room from sessions. Trusted peers, which send headers for many clients, have
    /// handshakes of their own.
    #[must_use]
    pub fn handshakes(&self) -> Bounds {
        let most = self.sessions.map_or(MOST_HANDSHAKES, |sessions| sessions / HANDSHAKE_PART);
        let most = most.clamp(TRUSTED_PART, MOST_HANDSHAKES);
        let known = most / TRUSTED_PART;
        let strangers = most - known;
        // One source may take all free places, because a load balancer or a node can hide many clients behind one
        // address. If no place is free, a newcomer of another source takes a place of the source with the most places.
        Bounds { strangers, per_source: strangers, known, evict: Evict::Silent, rates: None }
    }
}

/// The bounds on UDP flows in the process. A flow takes a place and a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowBounds {
    /// The most flows; the rest is for TCP sessions.
    pub most: usize,
    /// Flows that are not evicted for TCP sessions.
    pub kept: usize,
    /// Room that TCP sessions leave free beyond these flows, once there are this many.
    pub spare: usize,
}

impl FlowBounds {
    /// The bounds if flows may take `places`, and `others` of `files` are in use for other things than sessions and
    /// flows, such as listeners.
    #[must_use]
    pub fn of(places: usize, files: usize, others: usize) -> Self {
        let files = files.saturating_sub(others);
        let most = places.min(files - files / TCP_PART);
        let spare = (most / SPARE_PART).min(MOST_SPARE);
        Self { most, kept: (most / FLOW_PART).saturating_sub(spare), spare }
    }

    /// Room that a new flow must leave free, at this number of flows. A light flow comes from a source with few flows,
    /// for which the flows of another source are evicted. `None`: a connection waits, and gets the room that flows have
    /// given up. Connections leave [`Self::kept`] flows. Among so few, a source with many flows still replaces its own:
    /// the new flow takes a spare place, and an older flow is evicted.
    #[must_use]
    pub fn left_by_flow(&self, flows: usize, is_light: bool, is_awaited: bool) -> Option<usize> {
        match (is_light, is_awaited) {
            (true, _) => Some(0),
            (false, _) if flows <= self.kept => Some(self.spare / 2),
            (false, false) => Some(self.spare),
            (false, true) => None,
        }
    }

    /// Flows that stay when others are evicted for a refused flow, see [`Self::left_by_flow`]. The room of the evicted
    /// ones may go to a connection, even one that arrives a moment later. Without spare places, no flow can be replaced
    /// otherwise.
    #[must_use]
    pub fn left_to_flows(&self, is_light: bool, is_awaited: bool) -> usize {
        if is_light || self.spare == 0 && !is_awaited { 0 } else { self.kept }
    }

    /// Room that a new TCP session must leave free, at this number of flows. Without flows, sessions may take all.
    #[must_use]
    pub fn left_by_session(&self, flows: usize) -> usize {
        self.spare.min(flows)
    }

    /// Whether to evict a flow for the next one, at this number of flows, when `free` more fit into the process.
    #[must_use]
    pub fn is_short(&self, flows: usize, free: usize) -> bool {
        self.most.saturating_sub(flows).min(free) < (self.most / EARLY_PART).min(MAX_EARLY_EVICTIONS)
    }
}

/// Number of worker threads for the CPUs of the process's limit: one for each, but at most `most`.
#[must_use]
pub fn workers(cpus: NonZeroUsize, most: NonZeroUsize) -> NonZeroUsize {
    cpus.min(most)
}

/// Whether a new UDP socket gets a shard for each of the `workers`, given the files in use and their limit. A busy
/// socket without shards is limited to one CPU; idle sockets with shards would take the files of sessions.
#[must_use]
pub fn shards_datagrams(workers: usize, (used, limit): (usize, usize)) -> bool {
    workers > FEW_WORKERS && used.saturating_add(workers) <= limit / SHARD_PART
}

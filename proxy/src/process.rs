//! State shared by all threads of a proxy.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use crate::{
    agents::Agents,
    clock::Clock,
    core::{
        limits::{
            budget::Budget,
            capacity::{Capacity, FLOW_PLACES, FlowBounds, Messages, SESSION_PLACES, TunnelMemory},
            limiter::{FlowRegistry, Newcomer, Victim},
            open_files::{FILES_PER_SESSION, OpenFiles},
            session_room::SessionRoom,
            session_sources::SessionSources,
        },
        sessions::session_ids::SessionIds,
    },
    deadline::within,
    door::Door,
    files::{self, Files, Permit},
    http_doors::Doors,
    lives::Lives,
    log::Log,
    pipes::{FILES_PER_PIPE, Pipes},
    room::Room,
    settings::Settings,
    shared::Dropped,
    timings::Timings,
};

/// File descriptors of a UDP flow: upstream.
const FILES_PER_FLOW: usize = 1;
/// Longest wait for room of a connection that is already accepted. Flows that are in use when it comes, and not again,
/// are evicted within two seconds.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// Most of these waiting connections, each with a file of the reserve.
const MOST_WAITING: usize = files::RESERVE / 4;
// Files in use beyond the places in use belong to neither sessions nor flows.
const _: () = assert!(FILES_PER_SESSION == SESSION_PLACES && FILES_PER_FLOW == FLOW_PLACES);

/// State shared by all threads of a proxy.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process clock.
    pub clock: Clock,
    /// File descriptor budget.
    pub files: Arc<Files>,
    /// Room for sessions, by memory; in the places of [`crate::core::limits::capacity`].
    pub sessions: Arc<Room>,
    /// The part of `sessions` that UDP flows may take.
    pub flows: Arc<Room>,
    /// Connections that are accepted already and wait for room.
    pub waiting: Arc<Room>,
    /// TCP sessions by source.
    pub session_sources: Arc<SessionSources>,
    /// Ids of sessions and flows that no worker has taken yet.
    pub session_ids: Arc<SessionIds>,
    /// The UDP flows, which may be evicted.
    pub flow_registry: Arc<FlowRegistry>,
    /// Connections whose client has not yet sent its PROXY header or server name.
    pub handshakes: Arc<Door>,
    /// Connections to the HTTP addresses.
    pub doors: Arc<Doors>,
    /// Signs of life of the threads.
    pub lives: Arc<Lives>,
    /// Budget of buffered bytes.
    pub budget: Arc<Budget>,
    /// Memory of messages of durable listeners.
    pub messages: Messages,
    /// Memory of the sessions with agents.
    pub tunnels: Arc<TunnelMemory>,
    /// Pipes for splicing.
    pub pipes: Arc<Pipes>,
    /// The channel to agents.
    pub agents: Agents,
    /// Log.
    pub log: Log,
    /// Set to end a drain immediately.
    pub stop: Arc<AtomicBool>,
    /// Durations of connects and sessions.
    pub timings: Arc<Timings>,
    limits: Limits,
}

/// The bounds on the process beside its memory: settings, and the local ports of the system, if they are known.
#[derive(Clone, Copy, Debug)]
struct Limits {
    workers: NonZeroUsize,
    held_bytes: usize,
    sessions: usize,
    local_ports: Option<usize>,
}

impl Limits {
    /// The bounds under this memory limit in bytes, if any.
    fn capacity(self, memory: Option<u64>) -> Capacity {
        Capacity::of(memory, self.workers, self.held_bytes, self.sessions)
    }
}

/// The resources of the process that a TCP session holds until it ends: memory and file descriptors.
pub(crate) type Permits = [Permit; 2];

/// The resources of the process that a UDP flow holds.
#[derive(Debug)]
pub struct FlowPermits {
    /// Memory, until the flow ends: its place among the flows, and among the sessions.
    pub room: [Permit; 2],
    /// The file descriptor, until it is closed.
    pub file: Permit,
}

impl Process {
    /// Creates the state of a process with this memory limit in bytes, if any, and this many local ports, if their
    /// number is known.
    #[must_use]
    pub fn new(
        settings: &Settings,
        memory: Option<u64>,
        local_ports: Option<usize>,
        lives: Arc<Lives>,
        log: Log,
    ) -> Self {
        let Settings { workers, held_bytes, max_sessions: sessions, .. } = *settings;
        let limits = Limits { workers, held_bytes, sessions, local_ports };
        let tunnels = TunnelMemory::new(memory);
        // In a sidecar, agents can only connect later.
        if can_agents_connect(settings) {
            tunnels.begin();
        }
        let left = tunnels.resize(memory);
        let capacity = limits.capacity(memory.map(|memory| memory.saturating_sub(left)));
        let (clock, files) = (lives.clock(), files::of_process());
        Self {
            clock,
            pipes: Arc::new(Pipes::new(settings.pipe_bytes, files.clone())),
            files,
            sessions: Arc::new(Room::new(capacity.places())),
            flows: Arc::new(Room::new(capacity.flow_places(local_ports))),
            waiting: Arc::new(Room::new(MOST_WAITING)),
            session_sources: Arc::default(),
            session_ids: Arc::new(SessionIds::new(seed())),
            flow_registry: Arc::default(),
            handshakes: Door::new(capacity.handshakes(), clock),
            doors: Doors::new(clock),
            lives,
            budget: Arc::new(Budget::new(capacity.held_bytes)),
            messages: Messages::new(memory),
            tunnels: Arc::new(tunnels),
            agents: Agents::none(),
            log,
            stop: Arc::default(),
            timings: Arc::default(),
            limits,
        }
    }

    /// Adapts the room for sessions, their handshakes and the budget of buffered bytes to this memory limit in bytes,
    /// if any, and to whether durable listeners run and agents can connect. Returns whether room or budget differ from
    /// before. Resources in use beyond them stay until released. Worker threads stay, as they take little memory.
    #[must_use]
    pub fn resize(&self, memory: Option<u64>) -> bool {
        let left = self.tunnels.resize(memory);
        let beside = self.messages.beside(memory).map(|memory| memory.saturating_sub(left));
        let capacity = self.limits.capacity(beside);
        let sessions = self.sessions.resize(capacity.places());
        let flows = self.flows.resize(capacity.flow_places(self.limits.local_ports));
        self.handshakes.resize(capacity.handshakes());
        self.budget.resize(capacity.held_bytes) || sessions || flows
    }

    /// Begins or ends a shortage of memory, in which no session and no flow begins: connections wait, and the datagrams of
    /// new flows are dropped. Flows do not give way meanwhile, as nobody would get their room.
    pub fn set_short_of_memory(&self, is_short: bool) {
        self.sessions.set_shut(is_short);
    }

    /// Whether memory is short.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.sessions.is_shut()
    }

    /// Most TCP sessions at a time, by files and by memory.
    #[must_use]
    pub fn most_sessions(&self) -> usize {
        let ((_, places), (_, files)) = (self.sessions.usage(), self.files.usage());
        (places / SESSION_PLACES).min(files / FILES_PER_SESSION)
    }

    /// How many files listeners may take beside those in use.
    #[must_use]
    pub fn free_files_for_listeners(&self) -> usize {
        let ((used, limit), (places, _)) = (self.files.usage(), self.sessions.usage());
        let of_sessions = places.saturating_add(self.pipes.count().saturating_mul(FILES_PER_PIPE));
        OpenFiles { used, of_sessions, limit }.free_for_listeners()
    }

    /// Counts a TCP session, which already has its room, towards its source. False: the source has to leave the rest of
    /// the room to others.
    #[must_use]
    pub fn enter_source(&self, source: IpAddr) -> bool {
        self.session_sources.enter(source, self.session_room())
    }

    /// The room for TCP sessions, beside those that already have theirs. It excludes the places of UDP flows, and those
    /// that sessions leave to flows: flows are evicted only once they are idle.
    #[must_use]
    pub fn session_room(&self) -> SessionRoom {
        let (flows, left) = (self.flows.usage().0, self.left_by_session());
        let sessions = |places: usize, files: usize| {
            let fit = |room: usize, each: usize| room.saturating_sub(left) / each;
            fit(places, SESSION_PLACES).min(fit(files, FILES_PER_SESSION))
        };
        let ((_, places), (_, files)) = (self.sessions.usage(), self.files.usage());
        SessionRoom {
            most: sessions(places.saturating_sub(flows), files.saturating_sub(flows)),
            free: sessions(self.sessions.free(), self.files.free()),
        }
    }

    /// Waits until there is room for a TCP session; idle UDP flows are evicted for it.
    pub async fn wait_for_session(&self) -> Permits {
        if let Some(permits) = self.take_session() {
            return permits;
        }
        self.evict_flows_for_session();
        let memory = self.sessions.wait_leaving(SESSION_PLACES, || self.left_by_session()).await;
        [memory, self.files.wait_leaving(FILES_PER_SESSION, || self.left_by_session()).await]
    }

    /// Like [`Self::wait_for_session`], for a connection that is already accepted, not in the queue of the system. Its
    /// file is counted only with its room, so few such connections wait, and not for long. `None`: there is no room.
    pub async fn wait_with_connection(&self) -> Option<Permits> {
        if let Some(permits) = self.take_session() {
            return Some(permits);
        }
        let _waiting = self.waiting.take(1)?;
        within(ROOM_WITHIN, pin!(self.wait_for_session())).await
    }

    /// Takes the room of a TCP session, if there is any.
    #[must_use]
    pub fn take_session(&self) -> Option<Permits> {
        let left = self.left_by_session();
        Some([self.sessions.take_leaving(SESSION_PLACES, left)?, self.files.take_leaving(FILES_PER_SESSION, left)?])
    }

    /// Gives back the room of a TCP session whose permits were kept.
    pub fn leave_session(&self) {
        self.sessions.give(SESSION_PLACES);
        self.files.give(FILES_PER_SESSION);
    }

    /// Takes the room of a UDP flow. While a connection waits, the room that flows have given up is for it. A flow of a
    /// source with few flows takes room even then, as a flow of another source is evicted for it.
    ///
    /// # Errors
    /// Why there is no room.
    pub fn take_flow(&self, newcomer: Newcomer<'_>) -> Result<FlowPermits, Dropped> {
        match self.take_flow_as(false) {
            Err(_) if self.flow_registry.is_light(newcomer) => self.take_flow_as(true),
            taken => taken,
        }
    }

    fn take_flow_as(&self, is_light: bool) -> Result<FlowPermits, Dropped> {
        let (awaited, bounds) = (self.awaited(), self.flow_bounds());
        let left = bounds.left_by_flow(self.flows.usage().0, is_light, awaited.is_some());
        let left = left.ok_or(awaited.unwrap_or(Dropped::SessionLimit))?;
        let place = |room: &Arc<Room>| room.take_leaving(FLOW_PLACES, left).ok_or(Dropped::SessionLimit);
        let room = [place(&self.flows)?, place(&self.sessions)?];
        if self.flows.usage().0.saturating_add(left) > bounds.most {
            return Err(Dropped::FileLimit);
        }
        Ok(FlowPermits { room, file: self.files.take_leaving(FILES_PER_FLOW, left).ok_or(Dropped::FileLimit)? })
    }

    /// Called when a flow has taken its room, or has found none (`is_full`), at `now` (milliseconds): if room is short,
    /// another flow is evicted. That flow is returned, and ends when its worker learns of it.
    pub fn evict_flow_for_newcomer(&self, newcomer: Newcomer<'_>, is_full: bool, now: u64) -> Option<Victim> {
        if self.is_short_of_memory() {
            return None;
        }
        let (bounds, free) = (self.flow_bounds(), self.files.free().min(self.sessions.free()));
        if !is_full && !bounds.is_short(self.flows.usage().0, free) {
            return None;
        }
        let keep = || bounds.left_to_flows(self.flow_registry.is_light(newcomer), self.awaited().is_some());
        self.flow_registry.evict(Some(newcomer), if is_full { keep() } else { 0 }, now)
    }

    /// Called once a second: evicts flows that have become idle for waiting connections.
    pub fn evict_flows_for_waiters(&self) {
        if self.awaited().is_some() {
            self.evict_flows_for_session();
        }
    }

    /// The resource that a connection waits for, as the reason to drop the datagrams of a new flow.
    fn awaited(&self) -> Option<Dropped> {
        if self.sessions.is_awaited() {
            return Some(Dropped::SessionLimit);
        }
        self.files.is_awaited().then_some(Dropped::FileLimit)
    }

    fn evict_flows_for_session(&self) {
        if self.is_short_of_memory() {
            return;
        }
        let (kept, now) = (self.flow_bounds().kept, self.clock.millis());
        for _ in 0..SESSION_PLACES / FLOW_PLACES {
            if self.flow_registry.evict(None, kept, now).is_none() {
                return;
            }
        }
    }

    fn left_by_session(&self) -> usize {
        self.flow_bounds().left_by_session(self.flows.usage().0)
    }

    fn flow_bounds(&self) -> FlowBounds {
        let ((files, most_files), (places, _), (_, flows)) =
            (self.files.usage(), self.sessions.usage(), self.flows.usage());
        FlowBounds::of(flows, most_files, files.saturating_sub(places))
    }
}

/// Whether agents can connect from the start.
#[cfg(feature = "tunnels")]
const fn can_agents_connect(settings: &Settings) -> bool {
    settings.tunnels.is_some()
}

/// A proxy that is built without tunnels has no agents.
#[cfg(not(feature = "tunnels"))]
const fn can_agents_connect(_: &Settings) -> bool {
    false
}

/// A number that differs from those of other processes.
fn seed() -> u64 {
    // Without random numbers of the system, ids are still unique in this process.
    getrandom::u64().unwrap_or_else(|_| {
        std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), std::process::id())
    })
}

#[cfg(test)]
mod tests;

//! State shared by all threads of a proxy.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicBool},
};

use crate::{
    agents::Agents,
    clock::Clock,
    core::{
        capacity::{Capacity, FLOW_PLACES, FlowBounds, Messages, SESSION_PLACES},
        limiter::{FlowRegistry, Newcomer, Victim},
        session_ids::SessionIds,
        session_sources::{SessionRoom, SessionSources},
    },
    door::Door,
    files::{self, Files, Permit},
    http_doors::Doors,
    lives::Lives,
    log::Log,
    room::Room,
    settings::Settings,
    shared::Dropped,
    timings::Timings,
    worker::{budget::Budget, pipes::Pipes},
};

/// File descriptors of a TCP session: client and upstream.
const FILES_PER_SESSION: usize = 2;
/// File descriptors of a UDP flow: upstream.
const FILES_PER_FLOW: usize = 1;
// Files in use beyond the places in use are those of neither sessions nor flows.
const _: () = assert!(FILES_PER_SESSION == SESSION_PLACES && FILES_PER_FLOW == FLOW_PLACES);

/// State shared by all threads of a proxy.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process clock.
    pub clock: Clock,
    /// File descriptor budget.
    pub files: Arc<Files>,
    /// Room for sessions, by memory; in the places of [`crate::core::capacity`].
    pub sessions: Arc<Room>,
    /// The part of `sessions` that UDP flows may take.
    pub flows: Arc<Room>,
    /// TCP sessions by source.
    pub session_sources: Arc<SessionSources>,
    /// Ids of sessions and flows that no worker has taken yet.
    pub session_ids: Arc<SessionIds>,
    /// The UDP flows, which give way to others.
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
    /// Pipes for splicing.
    pub pipes: Arc<Pipes>,
    /// The way to agents.
    pub agents: Agents,
    /// Log.
    pub log: Log,
    /// Set to end a drain immediately.
    pub stop: Arc<AtomicBool>,
    /// Durations of connects and sessions.
    pub timings: Arc<Timings>,
    limits: Limits,
}

/// The settings that bound the process beside its memory.
#[derive(Clone, Copy, Debug)]
struct Limits {
    workers: NonZeroUsize,
    held_bytes: usize,
    sessions: usize,
}

impl Limits {
    /// The bounds under this memory limit in bytes, if any.
    fn capacity(self, memory: Option<u64>) -> Capacity {
        Capacity::of(memory, self.workers, self.held_bytes, self.sessions)
    }
}

/// What a TCP session takes of the process until it ends: memory and file descriptors.
pub(crate) type Permits = [Permit; 2];

/// What a UDP flow takes of the process.
#[derive(Debug)]
pub struct FlowPermits {
    /// Memory, until the flow ends: its place among the flows, and among the sessions.
    pub room: [Permit; 2],
    /// The file descriptor, until it is closed.
    pub file: Permit,
}

impl Process {
    /// The state of a process with this memory limit in bytes, if any.
    #[must_use]
    pub fn new(settings: &Settings, memory: Option<u64>, lives: Arc<Lives>, log: Log) -> Self {
        let Settings { workers, held_bytes, max_sessions: sessions, .. } = *settings;
        let limits = Limits { workers, held_bytes, sessions };
        let capacity = limits.capacity(memory);
        let (clock, files) = (lives.clock(), files::of_process());
        Self {
            clock,
            pipes: Arc::new(Pipes::new(settings.pipe_bytes, files.clone())),
            files,
            sessions: Arc::new(Room::new(capacity.places())),
            flows: Arc::new(Room::new(capacity.flow_places())),
            session_sources: Arc::default(),
            session_ids: Arc::new(SessionIds::new(seed())),
            flow_registry: Arc::default(),
            handshakes: Door::new(capacity.handshakes(), clock),
            doors: Doors::new(clock),
            lives,
            budget: Arc::new(Budget::new(capacity.held_bytes)),
            messages: Messages::new(memory),
            agents: Agents::none(),
            log,
            stop: Arc::default(),
            timings: Arc::default(),
            limits,
        }
    }

    /// Adapts the room for sessions and the budget of buffered bytes to this memory limit in bytes, if any, and to whether
    /// durable listeners run. Returns whether they differ from before. What is in use beyond them stays until it ends.
    /// Worker threads and handshakes stay as they are: they take a small part of the memory.
    #[must_use]
    pub fn resize(&self, memory: Option<u64>) -> bool {
        let capacity = self.limits.capacity(self.messages.beside(memory));
        let sessions = self.sessions.resize(capacity.places());
        let flows = self.flows.resize(capacity.flow_places());
        self.budget.resize(capacity.held_bytes) || sessions || flows
    }

    /// Most TCP sessions at a time, by files and by memory.
    #[must_use]
    pub fn most_sessions(&self) -> usize {
        let ((_, places), (_, files)) = (self.sessions.usage(), self.files.usage());
        (places / SESSION_PLACES).min(files / FILES_PER_SESSION)
    }

    /// Counts a TCP session, which has its room already, for its source. False: the source has to leave the rest of the
    /// room to others.
    #[must_use]
    pub fn enter_source(&self, source: IpAddr) -> bool {
        let (places, files) = (self.sessions.free(), self.files.free());
        let free = (places / SESSION_PLACES).min(files / FILES_PER_SESSION);
        self.session_sources.enter(source, SessionRoom { most: self.most_sessions(), free })
    }

    /// Waits until there is room for a TCP session; idle UDP flows give way to it.
    pub async fn wait_for_session(&self) -> Permits {
        if let Some(permits) = self.take_session() {
            return permits;
        }
        self.evict_flows_for_session();
        let memory = self.sessions.wait_leaving(SESSION_PLACES, || self.left_by_session()).await;
        [memory, self.files.wait_leaving(FILES_PER_SESSION, || self.left_by_session()).await]
    }

    /// Takes the room of a TCP session, if there is any.
    #[must_use]
    pub fn take_session(&self) -> Option<Permits> {
        let left = self.left_by_session();
        Some([self.sessions.take_leaving(SESSION_PLACES, left)?, self.files.take_leaving(FILES_PER_SESSION, left)?])
    }

    /// Takes the room of a UDP flow. While a connection waits, the room that flows have given up is for it. A flow of a
    /// source with few flows takes room also then, as a flow of another source gives way to it.
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

    /// Called when a flow has taken its room, or has found none (`is_full`), at `now` (milliseconds): where room is short,
    /// another flow gives way. That flow is returned, and ends when its worker learns of it.
    pub fn evict_flow_for_newcomer(&self, newcomer: Newcomer<'_>, is_full: bool, now: u64) -> Option<Victim> {
        let (bounds, free) = (self.flow_bounds(), self.files.free().min(self.sessions.free()));
        if !is_full && !bounds.is_short(self.flows.usage().0, free) {
            return None;
        }
        let keep = || bounds.left_to_flows(self.flow_registry.is_light(newcomer), self.awaited().is_some());
        self.flow_registry.evict(Some(newcomer), if is_full { keep() } else { 0 }, now)
    }

    /// Called once a second: flows that have become idle give way to connections that wait.
    pub fn evict_flows_for_waiters(&self) {
        if self.awaited().is_some() {
            self.evict_flows_for_session();
        }
    }

    /// What a connection waits for, as the reason to drop the datagrams of a new flow.
    fn awaited(&self) -> Option<Dropped> {
        if self.sessions.is_awaited() {
            return Some(Dropped::SessionLimit);
        }
        self.files.is_awaited().then_some(Dropped::FileLimit)
    }

    pub(crate) fn evict_flows_for_session(&self) {
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

/// A number that no other process has.
fn seed() -> u64 {
    // Without randomness of the system, ids are still unique in this process.
    getrandom::u64().unwrap_or_else(|_| {
        std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), std::process::id())
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;
    use crate::{
        core::{
            flows::FlowKey,
            limiter::{Mark, Member},
        },
        log::{Level, LogFormat},
    };

    fn process(settings: &Settings, memory: Option<u64>) -> Process {
        let lives = Lives::new(Clock::start());
        let log = Log::start(LogFormat::Text, Level::Error, 1, Box::new(std::io::sink()), lives.guard("log"));
        Process::new(settings, memory, lives, log.expect("a thread").0)
    }

    const NEWCOMER: Newcomer<'static> = Newcomer { namespace: "a", source: IpAddr::V4(Ipv4Addr::LOCALHOST) };

    /// A process with room for four sessions.
    fn small() -> Process {
        process(&Settings { max_sessions: 4, ..Settings::default() }, None)
    }

    #[test]
    fn flows_leave_room_for_sessions_and_give_all_of_theirs_back() {
        let process = small();
        let flows: Vec<FlowPermits> = (0..100).map_while(|_| process.take_flow(NEWCOMER).ok()).collect();
        assert_eq!(flows.len(), 6);
        assert_eq!(process.take_flow(NEWCOMER).expect_err("no room"), Dropped::SessionLimit);
        assert!(process.take_session().is_some(), "a quarter is left");
        drop(flows);
        assert_eq!((process.flows.usage().0, process.sessions.usage().0, process.files.usage().0), (0, 0, 0));
    }

    #[test]
    fn a_new_flow_takes_no_place_that_another_gave_up_for_a_connection() {
        let process = small();
        let mut flows: Vec<FlowPermits> = (0..6).map_while(|_| process.take_flow(NEWCOMER).ok()).collect();
        let session = process.take_session();
        let mut connection = pin!(process.wait_for_session());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(session.is_some() && connection.as_mut().poll(&mut cx).is_pending());
        drop(flows.pop());
        assert_eq!(process.take_flow(NEWCOMER).expect_err("a connection waits"), Dropped::SessionLimit);
        drop(flows.pop());
        assert!(connection.as_mut().poll(&mut cx).is_ready());
        drop(session);
        assert!(process.take_flow(NEWCOMER).is_ok(), "none waits");
    }

    /// A flow as its worker holds it.
    struct Held {
        mark: Arc<Mark>,
        _permits: FlowPermits,
        _member: Member,
    }

    /// Flows from one source, as many as the process takes.
    fn flood(process: &Process) -> Vec<Held> {
        let flow = |port: u16| {
            let (permits, mark) = (process.take_flow(NEWCOMER).ok()?, Arc::<Mark>::default());
            let key = FlowKey { client: SocketAddr::new(NEWCOMER.source, port), local: None };
            let member = process.flow_registry.register(NEWCOMER.namespace, mark.clone(), key, 0);
            Some(Held { mark, _permits: permits, _member: member })
        };
        (0..u16::MAX).map_while(flow).collect()
    }

    #[test]
    fn while_a_connection_waits_a_flow_of_another_source_gets_a_place_and_one_of_the_flood_gives_way() {
        let process = process(&Settings { max_sessions: 32, ..Settings::default() }, None);
        let mut flows = flood(&process);
        let _sessions: Vec<Permits> = std::iter::from_fn(|| process.take_session()).collect();
        let mut connection = pin!(process.wait_for_session());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connection.as_mut().poll(&mut cx).is_pending());
        assert_eq!(process.take_flow(NEWCOMER).expect_err("no room"), Dropped::SessionLimit);
        let mut others = Vec::new();
        for last in 2..30 {
            let other = Newcomer { source: [127, 0, 0, last].into(), ..NEWCOMER };
            others.push(process.take_flow(other).expect("a place"));
            let victim = process.evict_flow_for_newcomer(other, false, 0).expect("a flow of the flood, in use");
            assert_eq!(victim.key.client.ip(), NEWCOMER.source);
            // As the worker of that flow does.
            flows.retain(|flow| !Arc::ptr_eq(&flow.mark, &victim.mark));
        }
        assert!(connection.as_mut().poll(&mut cx).is_pending(), "places have changed hands, and none is free");
        flows.truncate(flows.len() - SESSION_PLACES);
        assert!(connection.as_mut().poll(&mut cx).is_ready());
        assert_eq!(process.flows.usage().0, flows.len() + others.len());
    }

    #[test]
    fn a_pod_that_is_resized_holds_as_many_sessions_as_one_that_starts_with_that_memory() {
        let process = |memory| process(&Settings::default(), memory);
        let bounds = |process: &Process| (process.sessions.usage().1, process.flows.usage().1, process.budget.limit());
        let (small, large) = (Some(64 << 20), Some(512 << 20));
        let resized = process(small);
        assert!(!resized.resize(small), "the same");
        assert!(resized.resize(large));
        assert_eq!(bounds(&resized), bounds(&process(large)));
        assert!(resized.resize(small) && resized.resize(None));
        assert_eq!(bounds(&resized), bounds(&process(None)));
    }
}

//! State shared by all threads of a proxy.

use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::{
    clock::Clock,
    core::{
        capacity::{Capacity, FLOW_PLACES, FlowBounds, SESSION_PLACES},
        limiter::FlowRegistry,
    },
    door::Door,
    files::{self, Files, Permit},
    http::Doors,
    lives::Lives,
    log::Log,
    room::Room,
    settings::Settings,
    shared::Dropped,
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
    /// The UDP flows, which give way to others when they are idle.
    pub flow_registry: Arc<FlowRegistry>,
    /// Connections whose client has not yet sent its PROXY header or server name.
    pub handshakes: Arc<Door>,
    /// Connections to the HTTP addresses.
    pub doors: Arc<Doors>,
    /// Signs of life of the threads.
    pub lives: Arc<Lives>,
    /// Budget of buffered bytes.
    pub budget: Arc<Budget>,
    /// Pipes for splicing.
    pub pipes: Arc<Pipes>,
    /// Log.
    pub log: Log,
    /// Set to end a drain immediately.
    pub stop: Arc<AtomicBool>,
    /// Duration histograms.
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
        let clock = lives.clock();
        let files = files::of_process();
        Self {
            clock,
            pipes: Arc::new(Pipes::new(settings.pipe_bytes, files.clone())),
            files,
            sessions: Arc::new(Room::new(capacity.places())),
            flows: Arc::new(Room::new(capacity.flow_places())),
            flow_registry: Arc::default(),
            handshakes: Door::new(capacity.handshakes(), clock),
            doors: Doors::new(clock),
            lives,
            budget: Arc::new(Budget::new(capacity.held_bytes)),
            log,
            stop: Arc::default(),
            timings: Arc::default(),
            limits,
        }
    }

    /// Adapts the room for sessions and the budget of buffered bytes to this memory limit in bytes, if any. Returns
    /// whether they differ from before. What is in use beyond them stays until it ends. Worker threads and handshakes
    /// stay as they are: they take a small part of the memory.
    #[must_use]
    pub fn resize(&self, memory: Option<u64>) -> bool {
        let capacity = self.limits.capacity(memory);
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

    /// Waits until there is room for a TCP session; idle UDP flows give way to it.
    pub async fn wait_for_session(&self) -> Permits {
        if let Some(permits) = self.take_session() {
            return permits;
        }
        self.evict_flows_for_session();
        let memory = self.sessions.wait(SESSION_PLACES).await;
        [memory, self.files.wait(FILES_PER_SESSION).await]
    }

    /// Takes the room of a TCP session, if there is any.
    #[must_use]
    pub fn take_session(&self) -> Option<Permits> {
        Some([self.sessions.take(SESSION_PLACES)?, self.files.take(FILES_PER_SESSION)?])
    }

    /// Takes the room of a UDP flow. While a connection waits, the room that flows have given up is for it.
    ///
    /// # Errors
    /// Why there is no room.
    pub fn take_flow(&self) -> Result<FlowPermits, Dropped> {
        if let Some(lacking) = self.awaited()
            && self.flows.usage().0 >= self.flow_bounds().kept
        {
            return Err(lacking);
        }
        let place = |room: &Arc<Room>| room.take(FLOW_PLACES).ok_or(Dropped::SessionLimit);
        let room = [place(&self.flows)?, place(&self.sessions)?];
        if self.flows.usage().0 > self.flow_bounds().most {
            return Err(Dropped::FileLimit);
        }
        Ok(FlowPermits { room, file: self.files.take(FILES_PER_FLOW).ok_or(Dropped::FileLimit)? })
    }

    /// Called when a flow of a namespace has taken its room, or has found none (`is_full`), at `now` (milliseconds): where
    /// room is short, an idle flow gives way to the next newcomer.
    pub fn evict_flow_for_newcomer(&self, namespace: &str, is_full: bool, now: u64) {
        let free = self.files.free().min(self.sessions.free());
        if is_full || self.flow_bounds().is_short(self.flows.usage().0, free) {
            self.flow_registry.evict(Some(namespace), 0, now);
        }
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

    fn evict_flows_for_session(&self) {
        let (kept, now) = (self.flow_bounds().kept, self.clock.millis());
        for _ in 0..SESSION_PLACES / FLOW_PLACES {
            if !self.flow_registry.evict(None, kept, now) {
                return;
            }
        }
    }

    fn flow_bounds(&self) -> FlowBounds {
        let ((files, most_files), (places, _), (_, flows)) =
            (self.files.usage(), self.sessions.usage(), self.flows.usage());
        FlowBounds::of(flows, most_files, files.saturating_sub(places))
    }
}

/// Duration histograms over all listeners.
#[derive(Debug)]
pub struct Timings {
    /// Connects.
    pub(crate) connect: Histogram,
    /// Sessions.
    pub(crate) session: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            connect: Histogram::new(exponential_buckets(0.000_25, 4.0, 9)),
            session: Histogram::new(exponential_buckets(0.01, 10.0, 8)),
        }
    }
}

impl Timings {
    /// Records the duration of a connect.
    pub fn connected(&self, took: Duration) {
        self.connect.observe(took.as_secs_f64());
    }

    /// Records the duration of a session.
    pub fn ended(&self, lived: Duration) {
        self.session.observe(lived.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;
    use crate::log::{Level, LogFormat};

    fn process(settings: &Settings, memory: Option<u64>) -> Process {
        let lives = Lives::new(Clock::start());
        let log = Log::start(LogFormat::Text, Level::Error, 1, Box::new(std::io::sink()), lives.guard("log"));
        Process::new(settings, memory, lives, log.expect("a thread").0)
    }

    /// A process with room for four sessions.
    fn small() -> Process {
        process(&Settings { max_sessions: 4, ..Settings::default() }, None)
    }

    #[test]
    fn flows_leave_room_for_sessions_and_give_all_of_theirs_back() {
        let process = small();
        let flows: Vec<FlowPermits> = (0..100).map_while(|_| process.take_flow().ok()).collect();
        assert_eq!(flows.len(), 6);
        assert_eq!(process.take_flow().expect_err("no room"), Dropped::SessionLimit);
        assert!(process.take_session().is_some(), "a quarter is left");
        drop(flows);
        assert_eq!((process.flows.usage().0, process.sessions.usage().0, process.files.usage().0), (0, 0, 0));
    }

    #[test]
    fn a_new_flow_takes_no_place_that_another_gave_up_for_a_connection() {
        let process = small();
        let mut flows: Vec<FlowPermits> = (0..6).map_while(|_| process.take_flow().ok()).collect();
        let session = process.take_session();
        let mut connection = pin!(process.wait_for_session());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(session.is_some() && connection.as_mut().poll(&mut cx).is_pending());
        drop(flows.pop());
        assert_eq!(process.take_flow().expect_err("a connection waits"), Dropped::SessionLimit);
        drop(flows.pop());
        assert!(connection.as_mut().poll(&mut cx).is_ready());
        drop(session);
        assert!(process.take_flow().is_ok(), "none waits");
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

//! One UDP flow: a client and its endpoint.

mod agent;
mod hops;
mod replies;
mod requests;

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{AccessLogMode, LiveSession, SessionId, Transport};

use self::hops::Hops;
pub(super) use self::requests::Gone;
use super::{
    UdpListener, count_lost, drop_datagrams,
    fragments::Fragments,
    upstream::{self, Upstream, Way},
};
use crate::{
    core::{
        backends::{
            address::Address,
            balance::EntryStats,
            endpoint::{Counted, Endpoint},
        },
        changes::diff::Facts,
        limits::limiter::{FlowSlot, Mark, Member},
        sessions::{end::EndReason, timers},
        udp::{flows::FlowKey, trains::Trains},
    },
    files::Permit,
    log::{Event, SessionRecord},
    process::FlowPermits,
    shared::{Dropped, Shared},
    worker::{Ending, Worker},
};

/// A client's flow to one endpoint.
pub(super) struct Flow {
    pub(super) id: SessionId,
    pub(super) key: FlowKey,
    pub(super) listener: Arc<Shared>,
    /// Scheduled end in milliseconds of the process clock, with its reason.
    pub(super) end_at: Cell<Option<(u64, EndReason)>>,
    backend: Arc<str>,
    endpoint: Arc<Endpoint>,
    /// Position of the flow's port in the listener's range, counted from the first port.
    offset: u16,
    stats: Arc<EntryStats>,
    way: Way,
    fragments: Fragments,
    hops: Hops,
    /// Whether the system joins replies to trains.
    is_joined: Cell<bool>,
    /// Trains that the system takes towards the endpoint.
    trains_up: Trains,
    /// Trains that the system takes towards the client.
    trains_down: Trains,
    started: u64,
    up: Cell<u64>,
    down: Cell<u64>,
    counted: Cell<(u64, u64)>,
    /// Replies that the system had dropped at the last look.
    lost: Cell<u32>,
    /// When the flow was last logged, in milliseconds of the process clock.
    logged_at: Cell<u64>,
    unreachable: Cell<bool>,
    mark: Arc<Mark>,
    _live: Counted,
    /// Released when the flow ends, even if references to the flow remain.
    slot: Cell<Option<FlowSlot>>,
    /// As `slot`, so that another flow can have the room at once.
    room: Cell<Option<[Permit; 2]>>,
    /// As `slot`.
    member: Cell<Option<Member>>,
    _file: Permit,
}

impl Flow {
    /// Picks an endpoint and opens a way to it.
    pub(super) fn open(
        worker: &Rc<Worker>,
        listener: &Arc<Shared>,
        key: FlowKey,
        tried: Vec<Address>,
        (slot, offset, permits): (FlowSlot, u16, FlowPermits),
    ) -> Result<Rc<Self>, Dropped> {
        let Upstream { backend, endpoint, stats, way } = Upstream::open(worker, listener, key.client, tried, offset)?;
        let started = worker.process.clock.millis();
        let namespace = &listener.id.origin.namespace;
        let member = worker.process.flow_registry.register(namespace, slot.mark(), key, started);
        Ok(Rc::new(Self {
            id: worker.ids.next_id(),
            key,
            listener: listener.clone(),
            end_at: Cell::new(None),
            backend,
            endpoint: endpoint.clone(),
            offset,
            stats,
            way,
            fragments: Fragments::default(),
            hops: Hops::default(),
            is_joined: Cell::new(false),
            trains_up: Trains::default(),
            trains_down: Trains::default(),
            started,
            up: Cell::new(0),
            down: Cell::new(0),
            counted: Cell::new((0, 0)),
            lost: Cell::new(0),
            logged_at: Cell::new(started),
            unreachable: Cell::new(false),
            mark: slot.mark(),
            _live: Counted::new(endpoint),
            slot: Cell::new(Some(slot)),
            room: Cell::new(Some(permits.room)),
            member: Cell::new(Some(member)),
            _file: permits.file,
        }))
    }

    /// Counts the flow as opened and starts to relay replies.
    pub(super) fn begin(self: &Rc<Self>, worker: &Rc<Worker>, socket: &Rc<UdpListener>) {
        self.listener.counters.opened.fetch_add(1, Relaxed);
        self.stats.sessions.fetch_add(1, Relaxed);
        if self.listener.spec.load().access_log.mode == AccessLogMode::OpenAndClose {
            self.log(worker, "opened", self.started, None);
        }
        let (flow, worker, socket) = (self.clone(), worker.clone(), socket.clone());
        tokio::task::spawn_local(async move { flow.carry_replies(&worker, &socket).await });
    }

    /// Whether the flow's slot went to another flow.
    pub(super) fn is_evicted(&self) -> bool {
        self.mark.is_evicted()
    }

    /// Records use of the flow at `now` (milliseconds).
    pub(super) fn touch(&self, now: u64) {
        self.mark.touch(now);
    }

    /// Records another datagram of the client.
    pub(super) fn asked(&self) {
        self.mark.ask();
    }

    /// Has the next datagrams leave with this hop limit, if the flow has a socket. An agent sends with one of its own.
    pub(super) fn set_hop_limit(&self, hop_limit: Option<u8>) {
        if let (Way::Socket(upstream), Some(to)) = (&self.way, self.endpoint.address.socket()) {
            self.hops.set(upstream, to.ip(), hop_limit);
        }
    }

    /// Whether the flow has this mark.
    pub(super) fn is(&self, mark: &Arc<Mark>) -> bool {
        Arc::ptr_eq(&self.mark, mark)
    }

    pub(super) fn endpoint(&self) -> &Address {
        &self.endpoint.address
    }

    /// Whether the flow may carry more datagrams at `now` (seconds).
    pub(super) fn is_usable(&self, now: u64) -> bool {
        !self.unreachable.get() && self.endpoint.is_healthy(now)
    }

    /// Whether `listener` has another healthy endpoint at `now` (seconds).
    pub(super) fn has_alternative(&self, listener: &Shared, now: u64) -> bool {
        listener.targets.load().has_healthy_other(&self.endpoint.address, now)
    }

    /// Clears the unreachable mark.
    pub(super) fn forgive(&self) {
        self.unreachable.set(false);
    }

    /// Marks the endpoint as unreachable.
    pub(super) fn blame(&self) {
        self.unreachable.set(true);
    }

    /// Marks the endpoint as unreachable and counts the failure.
    pub(super) fn failed(&self, worker: &Worker, error: &io::Error) {
        self.blame();
        upstream::charge(worker, &self.listener, &self.backend, &self.endpoint, error);
    }

    /// Ends the flow; the caller has removed it from the table.
    pub(super) fn end(&self, worker: &Worker, reason: EndReason) {
        self.mark.end();
        drop((self.slot.take(), self.room.take(), self.member.take()));
        self.count_bytes();
        self.listener.counters.closed[reason.index()].fetch_add(1, Relaxed);
        let now = worker.process.clock.millis();
        worker.timings.ended(Duration::from_millis(now.saturating_sub(self.started)));
        if self.listener.spec.load().access_log.mode != AccessLogMode::Disabled {
            self.log(worker, "closed", now, Some(reason));
        }
    }

    pub(super) fn is_concerned(&self, ending: &Ending) -> bool {
        Arc::ptr_eq(&ending.listener, &self.listener)
            && ending.which.has(Facts {
                client: self.client().ip(),
                backend: Some(&self.backend),
                offset: self.offset,
                name: None,
            })
    }

    /// Whether the flow has reached `maxSessionSeconds` at `now` (milliseconds).
    pub(super) fn is_too_old(&self, now: u64) -> bool {
        let most = self.listener.spec.load().timeouts.max_session_seconds;
        most.is_some_and(|most| timers::has_passed(self.started, timers::millis(most), now))
    }

    pub(super) fn count_bytes(&self) {
        let now = (self.up.get(), self.down.get());
        let before = self.counted.replace(now);
        self.listener.counters.up.fetch_add(now.0 - before.0, Relaxed);
        self.listener.counters.down.fetch_add(now.1 - before.1, Relaxed);
        match &self.way {
            // Without replies, there is nothing to drop, and a quiet flow costs no system call.
            Way::Socket(socket) if now.1 != before.1 => {
                count_lost(&self.lost, socket, &self.listener, Dropped::ReplyBufferFull);
            }
            Way::Socket(_) => {}
            // Replies without bytes are dropped too.
            Way::Agent(agent) => drop_datagrams(&self.listener, Dropped::ReplyBufferFull, agent.end.lost()),
        }
    }

    pub(super) fn log_if_due(&self, worker: &Worker, now: u64) {
        let access_log = self.listener.spec.load().access_log;
        let every = access_log.interval_seconds;
        if every > 0
            && access_log.mode != AccessLogMode::Disabled
            && timers::has_passed(self.logged_at.get(), timers::millis(every), now)
        {
            self.logged_at.set(now);
            self.log(worker, "open", now, None);
        }
    }

    fn client(&self) -> SocketAddr {
        upstream::canonical(self.key.client)
    }

    /// Why an agent has refused the flow, if so.
    fn cause(&self) -> Option<String> {
        match &self.way {
            Way::Socket(_) => None,
            Way::Agent(agent) => agent.refusal.take_cause(),
        }
    }

    fn log(&self, worker: &Worker, phase: &'static str, now: u64, reason: Option<EndReason>) {
        worker.process.log.emit(Event::Session(Box::new(SessionRecord {
            session: self.id,
            phase,
            listener: self.listener.id.clone(),
            transport: Transport::Udp,
            client: self.client(),
            backend: Some(self.backend.clone()),
            endpoint: Some(self.endpoint.address.shifted(self.offset)),
            name: None,
            up: self.up.get(),
            down: self.down.get(),
            duration: Duration::from_millis(now.saturating_sub(self.started)),
            reason,
            cause: reason.and_then(|_| self.cause()),
        })));
    }

    pub(super) fn view(&self, now: u64) -> LiveSession {
        LiveSession {
            session: Some(self.id),
            listener: self.listener.id.clone(),
            protocol: Transport::Udp,
            client: self.client(),
            backend: Some(self.backend.to_string()),
            endpoint: self.endpoint.address.shifted(self.offset).socket(),
            instance: self.endpoint.address.agent().map(|agent| agent.instance.to_string()),
            server_name: None,
            bytes_up: self.up.get(),
            bytes_down: self.down.get(),
            seconds: now.saturating_sub(self.started) / 1000,
        }
    }
}

//! UDP: one client-facing socket, one connected upstream socket per flow, no buffer per flow. A flow to an agent has no
//! socket, but two queues to the thread of the tunnels.
//!
//! Datagrams of 0 to 65,507 bytes pass unchanged. Datagrams that cannot be sent at once are dropped and counted; a
//! queue would only delay them. Each leaves with one hop less than it has arrived with, as from a router, so that no loop
//! goes on for ever. A flow is a session: same counters, log and policies. When the client-facing socket
//! closes, its flows end, because replies must leave from it.

mod admission;
mod batch;
mod flow;
mod forward;
mod fragments;
mod upstream;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::UdpSocket,
    os::fd::AsFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{LiveSessions, OnUnhealthy, Selection};
use quinn_udp::UdpSocketState;
use tokio::{io::unix::AsyncFd, sync::Notify, task::yield_now};

use self::{flow::Flow, fragments::Fragments};
use crate::{
    core::{
        sessions::{
            end::{self, EndReason},
            timers,
        },
        udp::flows::{FlowKey, FlowTable, QUIET_MILLIS},
        workers::rounds::{self, SLICES, Visit},
    },
    lives::Guard,
    log::Level,
    route::Route,
    shared::{Dropped, Shared},
    sys,
    worker::{Ending, Worker},
};

/// Flows that a change ends before the worker yields to its other tasks.
const ENDS_AT_ONCE: usize = 256;

/// Id of an open socket, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u64);

/// The UDP sockets of one worker.
#[derive(Default)]
pub struct Sockets(Rc<RefCell<HashMap<SocketId, Rc<UdpListener>>>>);

/// Endings by the listener whose flows they concern.
type ByListener<'a> = HashMap<*const Shared, Vec<&'a Ending>>;

/// An ending and the flows of a socket that it concerns.
type Concerned<'a> = (&'a Ending, Vec<Rc<Flow>>);

/// A client-facing socket with its flows.
struct UdpListener {
    socket: AsyncFd<Arc<UdpSocket>>,
    state: UdpSocketState,
    /// Whether the system sends trains.
    has_trains: bool,
    fragments: Fragments,
    route: Route,
    port: u16,
    flows: RefCell<FlowTable<Rc<Flow>>>,
    /// Datagrams that the system had dropped at the last look.
    lost: Cell<u32>,
}

impl Sockets {
    /// Serves a socket until closed; `guard` reports a panic.
    pub fn serve(
        &self,
        worker: &Rc<Worker>,
        id: SocketId,
        socket: &Arc<UdpSocket>,
        route: Route,
        close: Rc<Notify>,
        guard: Guard,
    ) {
        let state = sys::datagrams(socket);
        let (state, watched) = match state.and_then(|state| Ok((state, sys::watch(socket.clone())?))) {
            Ok(both) => both,
            Err(error) => {
                let id = route.load().first().id.clone();
                worker.process.log.notice(Level::Error, "failed", id, format!("cannot watch the UDP socket: {error}"));
                return;
            }
        };
        let first_slice = rounds::first_slice(self.0.borrow().len());
        let flows = FlowTable::swept(worker.max_flows.unwrap_or(usize::MAX), worker.occupied.clone(), first_slice);
        let listener = Rc::new(UdpListener {
            port: socket.local_addr().map_or(0, |own| own.port()),
            socket: watched,
            has_trains: state.max_gso_segments() > 1,
            state,
            fragments: Fragments::default(),
            route,
            flows: RefCell::new(flows),
            lost: Cell::new(0),
        });
        self.0.borrow_mut().insert(id, listener.clone());
        let (worker, sockets) = (worker.clone(), self.0.clone());
        tokio::task::spawn_local(async move {
            listener.receive(&worker, &close).await;
            listener.count_lost();
            listener.end_all(&worker, EndReason::Updated);
            sockets.borrow_mut().remove(&id);
            drop(guard);
        });
    }

    /// Whether this id is one of these sockets.
    pub fn has(&self, id: SocketId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    /// Live flows.
    pub fn flows(&self) -> usize {
        self.all().iter().map(|socket| socket.flows.borrow().len()).sum()
    }

    /// Whether a flow has carried a datagram lately. Others hold up no drain.
    pub fn are_busy(&self, now: u64) -> bool {
        self.0.borrow().values().any(|socket| socket.flows.borrow().is_busy(now))
    }

    /// Checks deadlines, logs and counters of a slice's flows; once a round, those of the sockets.
    pub fn sweep(&self, worker: &Rc<Worker>, visit: Visit, now: u64) {
        let sockets = self.all();
        if visit.slice == 0 {
            for socket in &sockets {
                socket.count_lost();
            }
            if visit.is_judged {
                worker.process.evict_flows_for_waiters();
            }
        }
        for socket in &sockets {
            socket.sweep(worker, visit, now);
        }
    }

    /// Ends the flows that a change concerns, at once or spread over time. Other tasks of the worker run meanwhile.
    pub async fn end(&self, worker: &Rc<Worker>, endings: &[Ending], now: u64) {
        let mut by_listener = ByListener::new();
        for ending in endings {
            by_listener.entry(Arc::as_ptr(&ending.listener)).or_default().push(ending);
        }
        for socket in self.all() {
            socket.end(worker, &by_listener, now).await;
        }
    }

    /// Ends every flow at the end of the process: quiet ones have finished, the others are cut.
    pub fn end_drained(&self, worker: &Rc<Worker>, now: u64) {
        for socket in self.all() {
            socket.expire(worker, now, QUIET_MILLIS);
            socket.end_all(worker, EndReason::Drained);
        }
    }

    /// Adds the selected flows, until what was listed is enough. The worker yields to its other tasks in between.
    pub async fn list(
        &self,
        now: u64,
        selection: &Selection,
        live: &mut LiveSessions,
        is_enough: impl Fn(&LiveSessions) -> bool,
    ) {
        for socket in self.all() {
            for slice in 0..SLICES {
                if is_enough(live) {
                    return;
                }
                if socket.list(slice, now, selection, live) {
                    yield_now().await;
                }
            }
        }
    }

    fn all(&self) -> Vec<Rc<UdpListener>> {
        self.0.borrow().values().cloned().collect()
    }
}

impl UdpListener {
    fn touch(&self, key: &FlowKey, now: u64) -> Option<Rc<Flow>> {
        let flow = self.flows.borrow_mut().touch(key, now).cloned()?;
        flow.touch(now);
        Some(flow)
    }

    /// Adds the selected flows of a slice. Returns whether the slice has any flow.
    fn list(&self, slice: usize, now: u64, selection: &Selection, live: &mut LiveSessions) -> bool {
        let mut has_flows = false;
        for (flow, _) in self.flows.borrow().in_slice(slice) {
            has_flows = true;
            if selection.has(&flow.listener.id, Some(flow.id)) {
                live.count(selection, &flow.listener.id.origin);
                if live.sessions.len() < selection.limit {
                    live.sessions.push(flow.view(now));
                }
            }
        }
        has_flows
    }

    fn sweep(&self, worker: &Rc<Worker>, visit: Visit, now: u64) {
        let limit = timers::millis(self.route.load().first().spec.load().timeouts.udp_idle_seconds);
        let is_idle = |used: u64| visit.is_judged && timers::has_passed(used, limit, now);
        let flows: Vec<(Rc<Flow>, bool)> =
            self.flows.borrow().in_slice(visit.slice).map(|(flow, used)| (flow.clone(), is_idle(used))).collect();
        for (flow, is_idle) in flows {
            flow.count_bytes();
            let close = flow.listener.spec.load().sessions.on_unhealthy == OnUnhealthy::Close;
            let reason = match flow.end_at.get() {
                _ if is_idle => Some(EndReason::FlowIdle),
                Some((at, reason)) if timers::has_passed(at, 0, now) => Some(reason),
                _ if close && !flow.is_usable(now / 1000) => Some(EndReason::BackendUnhealthy),
                _ if flow.is_too_old(now) => Some(EndReason::MaxSession),
                _ => None,
            };
            match reason {
                Some(reason) => self.end_flow(worker, &flow, reason),
                None => flow.log_if_due(worker, now),
            }
        }
    }

    /// Counts the datagrams that the system has dropped since the last look, because this socket was not read in time.
    fn count_lost(&self) {
        count_lost(&self.lost, self.socket.get_ref(), self.route.load().first(), Dropped::ReceiveBufferFull);
    }

    /// Ends the flows that have been idle for so many milliseconds.
    fn expire(&self, worker: &Rc<Worker>, now: u64, idle: u64) {
        loop {
            let expired = self.flows.borrow_mut().expire(now, idle);
            let Some(flow) = expired else { break };
            flow.end(worker, EndReason::FlowIdle);
        }
    }

    /// Ends a flow, unless it has already ended.
    fn end_flow(&self, worker: &Rc<Worker>, flow: &Flow, reason: EndReason) {
        let is_here = self.flows.borrow().get(&flow.key).is_some_and(|here| std::ptr::eq(Rc::as_ptr(here), flow));
        if is_here {
            self.flows.borrow_mut().remove(&flow.key);
            flow.end(worker, reason);
        }
    }

    /// Ends a flow whose slot went to another flow.
    fn evict(&self, worker: &Rc<Worker>, flow: &Flow) {
        if flow.is_evicted() {
            self.end_flow(worker, flow, EndReason::Evicted);
        }
    }

    /// The flows that endings concern, by the endings of their listener. An ending without flows is left out: a change of
    /// many listeners on many sockets costs no more than its flows.
    async fn concerned<'a>(&self, endings: &ByListener<'a>) -> Vec<Concerned<'a>> {
        let mut concerned: HashMap<*const Ending, Concerned<'a>> = HashMap::new();
        for slice in 0..SLICES {
            let mut seen = false;
            for (flow, _) in self.flows.borrow().in_slice(slice) {
                seen = true;
                for &ending in endings.get(&Arc::as_ptr(&flow.listener)).into_iter().flatten() {
                    if flow.is_concerned(ending) {
                        let (_, flows) = concerned.entry(ending).or_insert_with(|| (ending, Vec::new()));
                        flows.push(flow.clone());
                    }
                }
            }
            if seen {
                yield_now().await;
            }
        }
        concerned.into_values().collect()
    }

    /// Quiet flows end at once: no traffic is cut, so the ends are not spread.
    async fn end(&self, worker: &Rc<Worker>, endings: &ByListener<'_>, now: u64) {
        for (ending, flows) in self.concerned(endings).await {
            for (at, flow) in flows.iter().enumerate() {
                if at % ENDS_AT_ONCE == ENDS_AT_ONCE - 1 {
                    yield_now().await;
                }
                if ending.over_millis == 0 || self.flows.borrow().is_quiet(&flow.key, now) {
                    self.end_flow(worker, flow, ending.reason);
                } else {
                    let at = now + end::spread(at, flows.len(), ending.over_millis);
                    // A later change never extends a flow.
                    let sooner = flow.end_at.get().filter(|(before, _)| *before <= at);
                    flow.end_at.set(sooner.or(Some((at, ending.reason))));
                }
            }
        }
    }

    fn end_all(&self, worker: &Rc<Worker>, reason: EndReason) {
        for flow in self.flows.borrow_mut().remove_where(|_| true) {
            flow.end(worker, reason);
        }
    }
}

/// Counts the datagrams that the system has dropped at a socket since it had dropped `before` of them, if it tells.
fn count_lost(before: &Cell<u32>, socket: &impl AsFd, listener: &Shared, reason: Dropped) {
    let Some(now) = sys::dropped(socket) else { return };
    let lost = now.wrapping_sub(before.replace(now));
    listener.counters.dropped[reason.index()].fetch_add(lost.into(), Relaxed);
}

fn drop_datagrams(listener: &Shared, reason: Dropped, count: usize) {
    listener.counters.dropped[reason.index()].fetch_add(count as u64, Relaxed);
}

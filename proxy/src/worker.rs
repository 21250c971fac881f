//! State shared by the sessions of one worker: session table, scratch buffer. Single-threaded, hence without locks.

pub mod session;
pub mod turns;

use std::{
    cell::{Cell, RefCell},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use foldhash::HashMap;
use proxy_api::SessionId;
use slab::Slab;

use self::{session::Session, turns::StreamTurns};
use crate::route::Route;
use crate::{
    core::{
        changes::diff::Which,
        limits::{budget::Reserve, relief::Held},
        sessions::{end::EndReason, session_ids::WorkerIds},
        udp::trains::Datagram,
        workers::rounds::Occupied,
    },
    process::{Permits, Process},
    settings::Settings,
    shared::Shared,
    timings::WorkerTimings,
};

/// Size of a worker's read buffer in bytes. All its sessions share it and keep no buffer of their own.
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// A connection that another worker has accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub connection: Connection,
    /// Listeners behind its socket.
    pub route: Route,
}

/// An accepted connection, before its session starts.
#[derive(Debug)]
pub struct Connection {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// Peer address.
    pub peer: SocketAddr,
    /// Room for the session.
    pub permits: Permits,
    /// Its part of the load of its worker.
    pub load: LoadGuard,
}

/// The number of connections of a worker, including those on their way to it. Each of them writes it, so it has cache
/// lines of its own: as neighbours, the loads of several workers would take each other's lines away.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load(AtomicUsize);

impl Load {
    /// The number of connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A connection in the load of a worker, from the moment that the worker is chosen until the session has ended.
#[derive(Debug)]
pub struct LoadGuard(Arc<Load>);

impl LoadGuard {
    /// Adds a connection to a load.
    #[must_use]
    pub fn new(load: &Arc<Load>) -> Self {
        load.0.fetch_add(1, Relaxed);
        Self(load.clone())
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Selects sessions to end.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Listener of the sessions.
    pub listener: Arc<Shared>,
    /// Which of its sessions.
    pub which: Which,
    /// End reason.
    pub reason: EndReason,
    /// Spread the ends over this many milliseconds; 0: at once.
    pub over_millis: u64,
}

/// A session in the table of a worker. Its place may have another session by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionAt {
    /// Place in the table.
    pub place: usize,
    /// Identity of the session.
    pub id: SessionId,
}

/// State shared by the tasks of one worker thread.
pub struct Worker {
    /// State shared with other threads.
    pub process: Process,
    /// Live sessions.
    pub sessions: RefCell<Slab<Rc<Session>>>,
    /// Ids of the worker's sessions and flows.
    pub ids: WorkerIds,
    /// Durations of the worker's connects and sessions.
    pub timings: WorkerTimings,
    /// Read buffer of the session that currently runs.
    pub scratch: RefCell<Box<[u8]>>,
    /// Room for the content of that buffer.
    pub reserve: Reserve,
    /// Datagram buffer of the socket that currently runs; allocated on first use.
    pub datagrams: RefCell<Vec<u8>>,
    /// Places in that buffer of the datagrams of one flow, while they are sent.
    pub datagram_places: RefCell<Vec<Datagram>>,
    /// Most flows per socket; `None`: as many as the process holds.
    pub max_flows: Option<usize>,
    /// Turns of the streams.
    pub turns: StreamTurns,
    /// Connections whose listener is not known yet.
    pub greeting: Cell<usize>,
    /// Which slices of sessions and flows the sweep must visit.
    pub occupied: Rc<Occupied>,
    /// What sessions hold, by their place in the table, while the worker weighs them.
    pub weighed: RefCell<Option<HashMap<usize, Held<SessionId>>>>,
    /// Set at shutdown: no new sessions.
    pub draining: Cell<bool>,
    chance: Cell<u64>,
}

impl Worker {
    /// Creates a worker without sessions.
    #[must_use]
    pub fn new(index: usize, process: Process, settings: &Settings) -> Rc<Self> {
        let seed = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), index);
        Rc::new(Self {
            sessions: RefCell::default(),
            ids: process.session_ids.of_worker(),
            timings: process.timings.of_worker(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            reserve: Reserve::new(process.budget.clone(), settings.workers.get()),
            datagrams: RefCell::default(),
            datagram_places: RefCell::default(),
            max_flows: Some(settings.max_flows).filter(|most| *most > 0),
            turns: StreamTurns::default(),
            greeting: Cell::new(0),
            occupied: Rc::default(),
            weighed: RefCell::default(),
            draining: Cell::new(false),
            chance: Cell::new(seed | 1),
            process,
        })
    }

    /// Adds a session to the table.
    pub fn enter(&self, session: Rc<Session>) -> usize {
        let key = self.sessions.borrow_mut().insert(session);
        self.occupied.add(key);
        key
    }

    /// Removes a session from the table.
    pub fn leave(&self, key: usize) {
        self.sessions.borrow_mut().remove(key);
        self.occupied.remove(key);
    }

    /// A pseudo-random number, good enough to spread load.
    pub fn chance(&self) -> u64 {
        // xorshift64*
        let mut x = self.chance.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.chance.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_connection_is_in_the_load_from_the_hand_over_until_it_is_dropped() {
        let load = Arc::<Load>::default();
        let guards = [LoadGuard::new(&load), LoadGuard::new(&load)];
        assert_eq!(load.connections(), 2);
        drop(guards);
        assert_eq!(load.connections(), 0, "also if no worker adopts it");
    }

    #[test]
    fn the_loads_of_two_workers_are_in_no_common_line() {
        // Processors fetch lines of 64 bytes in pairs.
        let loads = [(); 8].map(|()| Arc::<Load>::default());
        let pairs: BTreeSet<usize> = loads.iter().map(|load| Arc::as_ptr(load).addr() / 128).collect();
        assert_eq!((pairs.len(), size_of::<Load>()), (8, 128));
    }
}

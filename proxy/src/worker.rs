//! What the sessions of one worker share: the table, the scratch, the pipes. On its thread only, so without locks.

pub mod budget;
pub mod pipes;
pub mod session;

use std::{
    cell::{Cell, RefCell},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use slab::Slab;
use tokio::sync::Notify;

use self::{pipes::PipePool, session::Session};
use crate::route::Route;
use crate::{
    core::{diff::Which, end::EndReason},
    files::Permit,
    process::Process,
    settings::Settings,
    shared::Shared,
};

/// Bytes that a worker reads at once; shared by all its sessions, which keep no buffer of their own.
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// A connection that was accepted and not yet begun.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// Whom its socket serves.
    pub route: Route,
    /// Room for it and its upstream.
    pub permit: Permit,
}

/// Which sessions end, and how.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Sessions of this listener.
    pub listener: Arc<Shared>,
    /// Which of them.
    pub which: Which,
    /// Why.
    pub reason: EndReason,
    /// Spread over so many milliseconds; 0: now.
    pub over_millis: u64,
}

/// What a worker's tasks share, on its thread only.
pub struct Worker {
    /// Of the process.
    pub process: Process,
    /// Live sessions.
    pub sessions: RefCell<Slab<Rc<Session>>>,
    /// Bytes read and not yet written, of whichever session runs now.
    pub scratch: RefCell<Box<[u8]>>,
    /// Datagrams of whichever socket runs now; made when the first one needs it.
    pub datagrams: RefCell<Vec<u8>>,
    /// Pipes for splicing.
    pub pipes: PipePool,
    /// Seconds of the process clock, refreshed by the sweep and by every accept.
    pub now: Cell<u64>,
    /// Most flows per listener.
    pub max_flows: usize,
    /// Connections that have not said yet whom they are for.
    pub greeting: Cell<usize>,
    /// Live sessions, for the other workers to see.
    pub load: Arc<AtomicUsize>,
    /// Told when there is something to sweep.
    pub sweep: Notify,
    /// Set when the process ends: no new sessions.
    pub draining: Cell<bool>,
    chance: Cell<u64>,
}

impl Worker {
    /// A worker without sessions.
    #[must_use]
    pub fn new(index: usize, process: Process, load: Arc<AtomicUsize>, settings: &Settings) -> Rc<Self> {
        let seed = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), index);
        Rc::new(Self {
            pipes: PipePool::new(settings.pipe_bytes / settings.workers.get(), process.files.clone()),
            sessions: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            datagrams: RefCell::default(),
            now: Cell::new(process.clock.seconds()),
            max_flows: settings.max_flows,
            greeting: Cell::new(0),
            load,
            sweep: Notify::new(),
            draining: Cell::new(false),
            chance: Cell::new(seed | 1),
            process,
        })
    }

    /// Takes a session into the table and makes sure that the sweep runs.
    pub fn enter(&self, session: Rc<Session>) -> usize {
        self.load.fetch_add(1, Relaxed);
        let mut sessions = self.sessions.borrow_mut();
        if sessions.is_empty() {
            self.now.set(self.process.clock.seconds());
            self.sweep.notify_one();
        }
        sessions.insert(session)
    }

    /// Takes a session out of the table.
    pub fn leave(&self, key: usize) {
        self.load.fetch_sub(1, Relaxed);
        self.sessions.borrow_mut().remove(key);
    }

    /// Makes sure that the sweep runs.
    pub fn wake_sweep(&self) {
        self.sweep.notify_one();
    }

    /// A random number, good enough to spread load.
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

//! A worker: one thread, one single-threaded runtime, sessions without locks.

pub mod accept;
pub mod budget;
pub mod pipes;
pub mod session;
pub mod sweep;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{SocketAddr, TcpStream},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use arc_swap::ArcSwap;
use slab::Slab;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::LocalSet,
};

use self::{budget::Budget, pipes::PipePool, session::Session};
use crate::{
    clock::Clock,
    core::end::EndReason,
    files::{Files, Permit},
    log::Log,
    net::OsSocket,
    settings::Settings,
    shared::Shared,
    tcp, udp,
};

/// Bytes that a worker reads at once; shared by all its sessions, which keep no buffer of their own.
pub const SCRATCH_BYTES: usize = 256 * 1024;
/// Commands that may wait for a worker.
const COMMANDS: usize = 1024;

/// The listener that a socket serves now; replaced without touching the socket.
pub type Route = Arc<ArcSwap<Shared>>;

/// Names an open socket of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u64);

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Serve this socket.
    Listen {
        /// Its name.
        id: SocketId,
        /// The socket.
        socket: OsSocket,
        /// Whom it serves.
        route: Route,
    },
    /// Take what is queued on this socket, then close it.
    Close(SocketId),
    /// Run a connection that another worker accepted.
    Adopt(Accepted),
    /// End sessions.
    End(Ending),
    /// List live sessions, at most so many.
    Inspect {
        /// Bound of the answer.
        limit: usize,
        /// Where it goes.
        reply: oneshot::Sender<Vec<session::SessionView>>,
    },
    /// Stop taking sessions; end those that live at the deadline.
    Drain {
        /// Longest wait in milliseconds.
        millis: u64,
    },
}

/// A connection that was accepted and not yet begun.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// The listener it came to.
    pub listener: Arc<Shared>,
    /// Room for it and its upstream.
    pub permit: Permit,
}

/// Which sessions end, and how.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Sessions of this listener.
    pub listener: Arc<Shared>,
    /// To these backends; `None`: all.
    pub backends: Option<std::collections::BTreeSet<String>>,
    /// Why.
    pub reason: EndReason,
    /// Spread over so many milliseconds; 0: now.
    pub over_millis: u64,
}

/// A worker as other threads see it.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    load: Arc<AtomicUsize>,
}

impl WorkerHandle {
    /// Live sessions.
    #[must_use]
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// Tells the worker; waits while its queue is full. False if it has ended.
    pub async fn tell(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Hands over a connection, or gives it back if the queue is full.
    ///
    /// # Errors
    /// The connection.
    pub fn adopt(&self, accepted: Accepted) -> Result<(), Accepted> {
        self.commands.try_send(Command::Adopt(accepted)).map_err(|error| match error.into_inner() {
            Command::Adopt(accepted) => accepted,
            _ => unreachable!("only connections are handed over"),
        })
    }
}

/// What all workers of a process share.
#[derive(Clone, Debug)]
pub struct Process {
    /// Time.
    pub clock: Clock,
    /// Files.
    pub files: Arc<Files>,
    /// Held bytes.
    pub budget: Arc<Budget>,
    /// Log.
    pub log: Log,
    /// Set when nothing waits any longer.
    pub stop: Arc<AtomicBool>,
    /// Durations.
    pub timings: Arc<crate::metrics::Timings>,
}

/// What a worker's tasks share, on its thread only.
pub struct Worker {
    /// Of the process.
    pub process: Process,
    /// Live sessions.
    pub sessions: RefCell<Slab<Rc<Session>>>,
    /// UDP sockets with their flows.
    pub udp: RefCell<HashMap<SocketId, Rc<udp::UdpListener>>>,
    /// Bytes read and not yet written, of whichever session runs now.
    pub scratch: RefCell<Box<[u8]>>,
    /// Datagrams of whichever flow runs now.
    pub datagrams: RefCell<udp::Datagrams>,
    /// Pipes for splicing.
    pub pipes: PipePool,
    /// Seconds of the process clock, refreshed by the sweep and by every accept.
    pub now: Cell<u64>,
    /// Most flows per listener.
    pub max_flows: usize,
    peers: RefCell<Vec<WorkerHandle>>,
    load: Arc<AtomicUsize>,
    sockets: RefCell<HashMap<SocketId, Rc<Notify>>>,
    sweep: Notify,
    /// Set when the process ends: no new sessions.
    pub draining: Cell<bool>,
    chance: Cell<u64>,
}

/// Worker threads of the process.
#[derive(Debug)]
pub struct Workers {
    /// Their handles.
    pub handles: Vec<WorkerHandle>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(settings: &Settings, process: &Process) -> io::Result<Self> {
        let count = settings.workers.get();
        let mut handles = Vec::with_capacity(count);
        let mut queues = Vec::with_capacity(count);
        for _ in 0..count {
            let (commands, queue) = mpsc::channel(COMMANDS);
            handles.push(WorkerHandle { commands, load: Arc::default() });
            queues.push(queue);
        }
        let mut threads = Vec::with_capacity(count);
        for (index, queue) in queues.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (process, peers, settings) = (process.clone(), handles.clone(), settings.clone());
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let worker = Worker::new(index, process, peers, &settings);
                LocalSet::new().block_on(&runtime, worker.run(queue));
            })?);
        }
        Ok(Self { handles, threads })
    }

    /// Waits for the threads; call after [`Command::Drain`] was told to all.
    pub fn join(self) {
        for thread in self.threads {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn new(index: usize, process: Process, peers: Vec<WorkerHandle>, settings: &Settings) -> Rc<Self> {
        let seed = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), index);
        let load = peers[index].load.clone();
        Rc::new(Self {
            pipes: PipePool::new(settings.pipe_bytes / settings.workers.get(), process.files.clone()),
            sessions: RefCell::default(),
            udp: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            datagrams: RefCell::default(),
            now: Cell::new(process.clock.seconds()),
            max_flows: settings.max_flows,
            peers: RefCell::new(peers),
            load,
            sockets: RefCell::default(),
            sweep: Notify::new(),
            draining: Cell::new(false),
            chance: Cell::new(seed | 1),
            process,
        })
    }

    async fn run(self: Rc<Self>, mut queue: mpsc::Receiver<Command>) {
        let sweeper = tokio::task::spawn_local(sweep::run(self.clone()));
        while let Some(command) = queue.recv().await {
            match command {
                Command::Listen { id, socket, route } => self.listen(id, socket, route),
                Command::Close(id) => self.close(id),
                Command::Adopt(accepted) => tcp::session::begin(&self, accepted),
                Command::End(ending) => sweep::end(&self, &ending),
                Command::Inspect { limit, reply } => {
                    let _ = reply.send(sweep::inspect(&self, limit));
                }
                Command::Drain { millis } => {
                    self.draining.set(true);
                    self.close_tcp();
                    // Nobody hands over any more; what was handed over already is still begun.
                    self.peers.borrow_mut().clear();
                    self.drain(&mut queue, millis).await;
                    break;
                }
            }
        }
        sweeper.abort();
    }

    async fn drain(self: &Rc<Self>, queue: &mut mpsc::Receiver<Command>, millis: u64) {
        let mut drained = pin!(sweep::drain(self, millis));
        let mut open = true;
        loop {
            tokio::select! {
                command = queue.recv(), if open => match command {
                    Some(Command::Adopt(accepted)) => tcp::session::begin(self, accepted),
                    Some(_) => {}
                    None => open = false,
                },
                () = &mut drained => return,
            }
        }
    }

    fn listen(self: &Rc<Self>, id: SocketId, socket: OsSocket, route: Route) {
        let close = Rc::new(Notify::new());
        self.sockets.borrow_mut().insert(id, close.clone());
        match socket {
            OsSocket::Tcp(listener) => {
                tokio::task::spawn_local(accept::run(self.clone(), listener, route, close));
            }
            OsSocket::Udp(socket) => udp::serve(self, id, &socket, route, close),
        }
    }

    fn close(&self, id: SocketId) {
        if let Some(close) = self.sockets.borrow_mut().remove(&id) {
            close.notify_one();
        }
    }

    /// Closes what accepts connections. UDP sockets stay open for the flows they have.
    fn close_tcp(&self) {
        let udp = self.udp.borrow();
        self.sockets.borrow_mut().retain(|id, close| {
            let stays = udp.contains_key(id);
            if !stays {
                close.notify_one();
            }
            stays
        });
    }

    /// Runs a connection here, or on the worker that has clearly less to do.
    pub fn place(self: &Rc<Self>, accepted: Accepted) {
        let own = self.load.load(Relaxed);
        let peers = self.peers.borrow();
        // A hand-over wakes another thread: it has to be worth it.
        let lighter = peers.iter().filter(|peer| peer.load() + 2 + own / 8 < own).min_by_key(|peer| peer.load());
        let here = match lighter.cloned() {
            Some(peer) => peer.adopt(accepted).err(),
            None => Some(accepted),
        };
        drop(peers);
        if let Some(accepted) = here {
            tcp::session::begin(self, accepted);
        }
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

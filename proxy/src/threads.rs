//! The worker threads. Each executes commands, accepts connections and sweeps its sessions.

mod accept;
mod gather;
mod sweep;
#[cfg(test)]
mod tests;
mod weigh;

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc},
};

pub use self::gather::inspect;
use crate::{
    commands::{Command, WorkerHandle},
    core::workers::hand_over,
    lives::Guard,
    net::OsSocket,
    process::{Permits, Process},
    route::Route,
    settings::Settings,
    tcp,
    udp::{SocketId, Sockets},
    worker::{Accepted, Connection, Load, LoadGuard, Worker},
};

/// Worker threads of the process.
#[derive(Debug)]
pub struct Workers {
    /// Handles of the workers.
    pub handles: Vec<WorkerHandle>,
    /// The thread of durable listeners, if there is one. It takes the commands that concern sockets, as workers do.
    pub durable: Option<WorkerHandle>,
    pub(crate) threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread or its runtime cannot be created.
    pub fn start(settings: &Settings, process: &Process) -> io::Result<Self> {
        let count = settings.workers.get();
        let mut handles = Vec::with_capacity(count);
        let mut queues = Vec::with_capacity(count);
        for _ in 0..count {
            let (handle, queue) = WorkerHandle::with_queue();
            handles.push(handle);
            queues.push(queue);
        }
        let mut threads = Vec::with_capacity(count);
        for (index, queue) in queues.into_iter().enumerate() {
            threads.push(start_worker(index, queue, handles.clone(), process.clone(), settings.clone())?);
        }
        let (durable, thread) = start_durable(settings, process)?.unzip();
        threads.extend(thread);
        Ok(Self { handles, durable, threads })
    }

    /// The thread at this position: a worker, or after the last one that of durable listeners.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<&WorkerHandle> {
        self.handles.get(position).or(self.durable.as_ref())
    }

    /// Waits for the threads to end; call after sending [`Command::Drain`] to all.
    pub fn join(self) {
        for thread in self.threads {
            // The panic was already reported.
            let _ = thread.join();
        }
    }
}

/// Starts the thread of a worker. Its tasks never leave it, nor does the runtime, which is therefore created there.
fn start_worker(
    index: usize,
    queue: mpsc::Receiver<Command>,
    peers: Vec<WorkerHandle>,
    process: Process,
    settings: Settings,
) -> io::Result<thread::JoinHandle<()>> {
    let (made, answer) = sync_channel(1);
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let _guard = process.lives.guard(own_name());
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = made.send(Err(error));
                return;
            }
        };
        // The starter then counts the open files.
        let _ = made.send(Ok(()));
        let load = peers[index].shared_load().clone();
        let thread = Thread::new(index, Worker::new(index, process, &settings), load, peers);
        runtime.block_on(thread.run(queue));
    })?;
    answer.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// Starts the thread of durable listeners, if there is a folder for their messages.
#[cfg(feature = "durable")]
fn start_durable(settings: &Settings, process: &Process) -> io::Result<Option<(WorkerHandle, thread::JoinHandle<()>)>> {
    crate::messages::Place::of(settings).map(|place| crate::messages::start(place, process)).transpose()
}

/// Starts nothing, as this proxy is built without durable listeners.
#[cfg(not(feature = "durable"))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature as with durable listeners")]
fn start_durable(_: &Settings, _: &Process) -> io::Result<Option<(WorkerHandle, thread::JoinHandle<()>)>> {
    Ok(None)
}

/// Name of this thread.
fn own_name() -> String {
    thread::current().name().unwrap_or("a worker").to_owned()
}

/// State of one worker thread.
struct Thread {
    /// Position among the workers.
    index: usize,
    /// Connections of this worker.
    load: Arc<Load>,
    worker: Rc<Worker>,
    udp: Sockets,
    peers: RefCell<Vec<WorkerHandle>>,
    sockets: RefCell<HashMap<SocketId, Rc<Notify>>>,
}

impl Thread {
    /// Creates a worker without sockets.
    fn new(index: usize, worker: Rc<Worker>, load: Arc<Load>, peers: Vec<WorkerHandle>) -> Rc<Self> {
        let (udp, peers, sockets) = (Sockets::default(), RefCell::new(peers), RefCell::default());
        Rc::new(Self { index, load, worker, udp, peers, sockets })
    }

    async fn run(self: Rc<Self>, mut queue: mpsc::Receiver<Command>) {
        let life = self.worker.process.lives.begin(own_name());
        let sweeper = tokio::task::spawn_local(sweep::run(self.clone(), life));
        let turns = tokio::task::spawn_local(self.clone().give_turns());
        while let Some(command) = queue.recv().await {
            match command {
                Command::Listen { id, socket, route } => self.listen(id, socket, route),
                Command::Close(id) => self.close(id),
                Command::Adopt(accepted) => self.begin(accepted),
                Command::End(endings) => sweep::end(&self, &endings).await,
                Command::Keep(_) => {}
                // The receiver may have left while this thread was busy.
                Command::Inspect { reply, .. } if reply.is_closed() => {}
                Command::Inspect { selection, reply } => {
                    tokio::task::spawn_local(sweep::inspect(self.clone(), selection, reply));
                }
                Command::Weigh(reply) => {
                    tokio::task::spawn_local(weigh::weigh(self.clone(), reply));
                }
                Command::Reset(sessions) => weigh::reset(&self.worker, &sessions),
                Command::Drain { millis } => {
                    self.worker.draining.set(true);
                    self.worker.process.agents.drain();
                    self.close_tcp();
                    // From here on, this worker runs its accepted connections itself.
                    self.peers.borrow_mut().clear();
                    self.begin_queued(&mut queue).await;
                    sweep::drain(&self, millis).await;
                    break;
                }
            }
        }
        turns.abort();
        sweeper.abort();
    }

    async fn give_turns(self: Rc<Self>) {
        let lives = self.worker.process.lives.clone();
        lives.watch(format!("the turns of streams on {}", own_name()), self.worker.turns.give()).await;
    }

    /// Runs the connections that are on their way to this worker, and takes no later ones: the workers that have
    /// accepted those keep them. A connection that arrived as this worker ends would be lost.
    async fn begin_queued(&self, queue: &mut mpsc::Receiver<Command>) {
        queue.close();
        while let Some(command) = queue.recv().await {
            if let Command::Adopt(accepted) = command {
                self.begin(accepted);
            }
        }
    }

    fn listen(self: &Rc<Self>, id: SocketId, socket: OsSocket, route: Route) {
        let close = Rc::new(Notify::new());
        self.sockets.borrow_mut().insert(id, close.clone());
        match socket {
            OsSocket::Tcp(listener) => {
                let guard = self.guard("the accept loop", &route);
                let accept = accept::run(self.clone(), listener, route, close);
                tokio::task::spawn_local(async move {
                    accept.await;
                    drop(guard);
                });
            }
            OsSocket::Udp(socket) => {
                let guard = self.guard("the receive loop", &route);
                self.udp.serve(&self.worker, id, &socket, route, close, guard);
            }
        }
    }

    /// Guards a task without which the socket of the route would stay open without being served.
    fn guard(&self, task: &str, route: &Route) -> Guard {
        self.worker.process.lives.guard(format!("{task} of {} on {}", route.load().first().id, own_name()))
    }

    fn close(&self, id: SocketId) {
        if let Some(close) = self.sockets.borrow_mut().remove(&id) {
            close.notify_one();
        }
    }

    /// Closes TCP listening sockets. UDP sockets stay open for their flows.
    fn close_tcp(&self) {
        self.sockets.borrow_mut().retain(|id, close| {
            let stays = self.udp.has(*id);
            if !stays {
                close.notify_one();
            }
            stays
        });
    }

    /// Runs a connection that another worker has accepted.
    fn begin(&self, Accepted { connection, route }: Accepted) {
        tcp::session::begin(&self.worker, connection, &route);
    }

    /// Runs a connection here, or on a worker with clearly less load.
    fn place(self: &Rc<Self>, (stream, peer): (TcpStream, SocketAddr), route: &Route, permits: Permits) {
        let peers = self.peers.borrow();
        let chosen = hand_over::worker(self.index, peers.len(), self.worker.chance(), |at| {
            peers.get(at).map_or(0, WorkerHandle::load)
        });
        let other = peers.get(chosen).filter(|_| chosen != self.index);
        let load = LoadGuard::new(other.map_or(&self.load, WorkerHandle::shared_load));
        let connection = Connection { stream, peer, permits, load };
        let Some(other) = other else { return tcp::session::begin(&self.worker, connection, route) };
        if let Err(Accepted { connection, route }) = other.adopt(Accepted { connection, route: route.clone() }) {
            let load = LoadGuard::new(&self.load);
            tcp::session::begin(&self.worker, Connection { load, ..connection }, &route);
        }
    }
}

//! The thread of durable listeners: messages in, a log on disk, messages out.
//!
//! ```text
//! control thread ─ sockets ─▶ intake ─▶ log: a folder or a stream, and a thread of its own ─▶ sender ─▶ backend
//!                ─ asks ────▶ which logs are open, and how their listeners run
//! ```

mod left;
mod log;
mod place;
mod removal;
mod settings;
mod sink;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use proxy_api::{Listener, ListenerId};
use tokio::{
    select,
    sync::mpsc,
    task::LocalSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

pub use self::left::LeftError;
pub(crate) use self::left::{find, name, waiting};
use self::{
    log::{Leaving, Log},
    place::PlaceOfLog,
    socket::Socket,
};
use crate::{
    keeping::Ask,
    log::Level,
    net::OsSocket,
    process::Process,
    route::Route,
    settings::Settings,
    shared::Shared,
    threads::{Command, WorkerHandle},
    udp::SocketId,
};

/// The folder of all logs, within that for messages.
pub(crate) const ALL_LOGS: &str = "durable";
/// Pause between two signs of life, and between two looks at the logs.
const BEAT: Duration = Duration::from_secs(1);
/// How long a log may take to write what it has when the process ends.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Where the logs are, and what becomes of them.
pub(crate) struct Place {
    /// Each log on disk has a folder within this one.
    folder: PathBuf,
    /// The file with the credentials of servers that have streams.
    credentials: Option<PathBuf>,
    /// Bytes that the logs may have together; `None`: as many as their own bounds add up to.
    room: Option<u64>,
    /// How long sinks still get messages when the process ends.
    drain: Duration,
    /// Whether no log is begun, and those that are there have only to become empty.
    drains_only: bool,
}

impl Place {
    /// The place that the settings name; `None`: durable listeners do not run.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let folder = settings.data.as_ref()?.join(ALL_LOGS);
        let credentials = settings.jetstream_credentials.clone();
        let drains_only = settings.drain_only;
        let room = settings.data_bytes.filter(|_| !drains_only);
        let drain_seconds = if drains_only { 0 } else { settings.data_drain_seconds };
        let drain = Duration::from_secs(drain_seconds.into());
        Some(Self { folder, credentials, room, drain, drains_only })
    }

    /// Where the log of this listener is.
    fn of_log(&self, id: &ListenerId) -> PlaceOfLog {
        PlaceOfLog::new(id, &self.folder, self.credentials.clone())
    }
}

/// Starts the thread.
///
/// # Errors
/// The thread or its runtime cannot be made.
pub(crate) fn start(place: Place, process: &Process) -> io::Result<(WorkerHandle, thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (handle, queue) = WorkerHandle::with_queue();
    let process = process.clone();
    let run = move || {
        let (logs, leaving, sockets) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
        let thread = Thread { place, process, logs, leaving, sockets };
        LocalSet::new().block_on(&runtime, thread.run(queue));
    };
    Ok((handle, thread::Builder::new().name("durable".into()).spawn(run)?))
}

/// The state of the thread.
struct Thread {
    place: Place,
    process: Process,
    /// The logs that are open.
    logs: BTreeMap<ListenerId, Log>,
    /// The logs of listeners that are gone, until their sinks have all messages or their time is over.
    leaving: BTreeMap<ListenerId, Leaving>,
    sockets: HashMap<SocketId, Socket>,
}

impl Thread {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let life = self.process.lives.begin("durable");
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                command = queue.recv() => match command {
                    None | Some(Command::Drain { .. }) => break,
                    Some(command) => self.take(command).await,
                },
                _ = beats.tick() => {
                    life.beat();
                    self.look().await;
                }
            }
        }
        // What is sent from here on fails at once.
        drop((queue, life));
        self.end().await;
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Listen { id, socket, route } => self.listen(id, socket, route).await,
            Command::Close(id) => {
                if let Some(mut socket) = self.sockets.remove(&id) {
                    socket.stop().await;
                }
            }
            Command::Keep(Ask::Open { id, spec, done }) => {
                let opened = self.open(&id, &spec).await;
                // The control thread may have gone.
                let _ = done.send(opened);
            }
            Command::Keep(Ask::Run(listeners)) => self.follow(&listeners).await,
            // These are about sessions, which are those of workers.
            Command::Adopt(_) | Command::End(_) | Command::Inspect { .. } | Command::Drain { .. } => {}
        }
    }

    /// Opens a log, unless it is open. There must be room for what it may become, with its new bounds if it is open.
    async fn open(&mut self, id: &ListenerId, spec: &Listener) -> Result<(), String> {
        let Some(durable) = spec.durable.as_deref() else { return Ok(()) };
        if let Some(room) = self.place.room {
            let others = self.logs.iter().filter(|(other, _)| *other != id).map(|(_, log)| log.most_bytes());
            settings::fits(durable, room, others.fold(0, u64::saturating_add))?;
        }
        if self.logs.contains_key(id) {
            return Ok(());
        }
        let place = self.place.of_log(id);
        if self.place.drains_only && !place.has_folder() {
            return Ok(());
        }
        if let Some(leaving) = self.leaving.remove(id) {
            leaving.end(CLOSE_WITHIN).await;
        }
        let log = Log::open(place, durable, &self.process.files).await?;
        self.logs.insert(id.clone(), log);
        Ok(())
    }

    async fn listen(&mut self, id: SocketId, socket: OsSocket, route: Route) {
        let shared = route.load().first().clone();
        if let Some(log) = self.logs.get_mut(&*shared.id) {
            log.run(&shared, &self.process).await;
        }
        self.sockets.insert(id, Socket::new(socket, route));
        self.serve().await;
    }

    /// Runs these listeners, and lets the logs of others go.
    async fn follow(&mut self, listeners: &[Arc<Shared>]) {
        for shared in listeners {
            if let Some(log) = self.logs.get_mut(&*shared.id) {
                log.run(shared, &self.process).await;
            }
        }
        let run: BTreeSet<&ListenerId> = listeners.iter().map(|shared| &*shared.id).collect();
        let gone: Vec<ListenerId> = self.logs.keys().filter(|id| !run.contains(*id)).cloned().collect();
        for id in gone {
            if let Some(log) = self.logs.remove(&id) {
                let leaving = log.leave(&self.process.log);
                self.leaving.insert(id, leaving);
            }
        }
        self.serve().await;
    }

    /// Serves each socket for the listener behind it, as that is now.
    async fn serve(&mut self) {
        for socket in self.sockets.values_mut() {
            socket.serve(&self.logs, &self.process.log).await;
        }
    }

    /// Once a second: what metrics and people see, and logs that could not be opened again.
    async fn look(&mut self) {
        self.leaving.retain(|_, leaving| !leaving.has_ended());
        for log in self.logs.values_mut() {
            log.look(&self.process).await;
        }
        self.serve().await;
    }

    /// The process ends. Sinks get messages for as long as the place says, all at the same time. What they do not have
    /// then stays on the disk.
    async fn end(mut self) {
        for mut socket in std::mem::take(&mut self.sockets).into_values() {
            socket.stop().await;
        }
        if !self.place.drain.is_zero() {
            let logs = std::mem::take(&mut self.logs).into_values();
            let drained: Vec<Leaving> = logs.map(|log| log.leave_within(self.place.drain, &self.process.log)).collect();
            let until = Instant::now() + self.place.drain + CLOSE_WITHIN;
            for leaving in drained {
                leaving.finish(until, &self.process.stop).await;
            }
        }
        for (id, log) in self.logs {
            if timeout(CLOSE_WITHIN, log.close()).await.is_err() {
                let message = format!("its log took longer than {} s: messages may be lost", CLOSE_WITHIN.as_secs());
                self.process.log.notice(Level::Error, "delivery", id, message);
            }
        }
        for leaving in self.leaving.into_values() {
            leaving.end(CLOSE_WITHIN).await;
        }
    }
}

//! The thread of durable listeners: messages in, a log on disk, messages out.
//!
//! ```text
//! control thread ─ sockets ─▶ intake ─▶ log: a folder or a stream, and a thread of its own ─▶ sender ─▶ backend
//!                ─ asks ────▶ which logs are open, and how their listeners run
//! ```

mod folder;
mod generation;
mod generations;
mod leaving;
mod left;
mod log;
mod machine;
mod opening;
mod place;
mod removal;
mod rest;
mod room;
mod settings;
mod sink;
mod socket;
mod taker;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    mem::take,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use proxy_api::{Durable, ListenerId};
use tokio::{
    select,
    sync::{Notify, mpsc, oneshot},
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

pub use self::left::LeftError;
pub(crate) use self::left::{damage, find, name, waiting, with_letters};
use self::{
    leaving::Leaving,
    log::Log,
    opening::Opening,
    place::{PlaceOfLog, ServerFiles},
    rest::Rest,
    socket::Socket,
};
use crate::{
    commands::{
        Command, WorkerHandle,
        ask::{Ask, Wanted},
    },
    core::durable::log_room::{self, Need},
    keeping::late,
    log::Level,
    net::OsSocket,
    process::Process,
    route::Route,
    settings::Settings,
    shared::Shared,
    udp::SocketId,
};

/// The folder of all logs, within that for messages.
pub(crate) const ALL_LOGS: &str = "durable";
/// Pause between two signs of life, and between two looks at the logs.
const BEAT: Duration = Duration::from_secs(1);
/// How long logs may take to write what they have when the process ends, all at the same time.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The place of the logs, and what happens to them when the process ends.
pub(crate) struct Place {
    /// Each log on disk has a folder within this one.
    folder: PathBuf,
    /// The files for connections to servers of streams.
    servers: ServerFiles,
    /// Bytes that the logs may have together; `None`: the sum of their own bounds.
    room: Option<u64>,
    /// How long sinks still get messages when the process ends.
    drain: Duration,
    /// Whether no log is begun, and existing logs only have to become empty.
    drains_only: bool,
}

impl Place {
    /// The place that the settings name; `None`: durable listeners do not run.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let folder = settings.data.as_ref()?.join(ALL_LOGS);
        let servers =
            ServerFiles { credentials: settings.jetstream_credentials.clone(), ca: settings.jetstream_ca.clone() };
        let drains_only = settings.drain_only;
        let room = settings.data_bytes.filter(|_| !drains_only);
        let drain_seconds = if drains_only { 0 } else { settings.data_drain_seconds };
        let drain = Duration::from_secs(drain_seconds.into());
        Some(Self { folder, servers, room, drain, drains_only })
    }

    /// The place of this listener's log.
    fn of_log(&self, id: &ListenerId, process: &Process) -> PlaceOfLog {
        let place = PlaceOfLog::new(id, &self.folder, self.servers.clone());
        place.within(process.messages.waiting.clone()).draining(self.drains_only)
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
        LocalSet::new().block_on(&runtime, Thread::new(place, process).run(queue));
        // A call to a disk that hangs would hold up the end of the process.
        runtime.shutdown_background();
    };
    Ok((handle, thread::Builder::new().name("durable".into()).spawn(run)?))
}

/// The state of the thread.
struct Thread {
    place: Place,
    process: Process,
    /// The logs that are open.
    logs: BTreeMap<ListenerId, Log>,
    /// The logs that are not open yet.
    begun: BTreeMap<ListenerId, Begun>,
    /// Notified when a log is open, or cannot be opened.
    wake: Rc<Notify>,
    /// The logs of listeners that are gone, until their sinks have all messages or their time is over.
    leaving: BTreeMap<ListenerId, Leaving>,
    /// The bytes that other logs have on the disk.
    rest: Rest,
    sockets: HashMap<SocketId, Socket>,
}

/// A log that is not open yet.
struct Begun {
    opening: Opening,
    /// The caller that waits for the log; `None`: nobody waits any more, and the next ask takes it.
    asked: Option<oneshot::Sender<Result<(), String>>>,
}

impl Thread {
    fn new(place: Place, process: Process) -> Self {
        let (logs, begun, leaving) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (wake, rest, sockets) = (Rc::default(), Rest::default(), HashMap::new());
        Self { place, process, logs, begun, wake, leaving, rest, sockets }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let life = self.process.lives.begin("durable");
        if self.place.room.is_some() {
            self.rest = Rest::find(self.place.folder.clone());
        }
        let wake = self.wake.clone();
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                command = queue.recv() => match command {
                    None | Some(Command::Drain { .. }) => break,
                    Some(command) => self.take(command).await,
                },
                () = wake.notified() => self.settle().await,
                _ = beats.tick() => {
                    life.beat();
                    self.look().await;
                }
            }
        }
        // Commands that are sent from here on fail at once.
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
            Command::Keep(Ask::Open(wanted)) => {
                self.rest.seen().await;
                self.open(wanted);
                self.settle().await;
            }
            Command::Keep(Ask::Run(listeners)) => self.follow(&listeners).await,
            // These commands are about sessions, which belong to workers.
            Command::Adopt(_)
            | Command::End(_)
            | Command::Inspect { .. }
            | Command::Weigh(_)
            | Command::Reset(_)
            | Command::Drain { .. } => {}
        }
    }

    /// Begins to open these logs, unless they are open. There must be room for what each may become, with its new
    /// bounds if it is open. Other logs that are not open yet are given up.
    fn open(&mut self, wanted: Vec<Wanted>) {
        let mut begun = take(&mut self.begun);
        let mut failed = self.without_room(&wanted);
        for Wanted { id, spec, done } in wanted {
            let answer = match (failed.remove(&id), spec.durable.as_deref()) {
                (Some(why), _) => Err(why),
                (None, Some(durable)) if !self.logs.contains_key(&id) => {
                    let before = begun.remove(&id).map(|begun| begun.opening);
                    let opening = before.filter(|opening| opening.is_of(durable));
                    let opening = opening.unwrap_or_else(|| self.begin(&id, durable));
                    self.begun.insert(id, Begun { opening, asked: Some(done) });
                    continue;
                }
                (None, _) => Ok(()),
            };
            // The control thread may have gone.
            let _ = done.send(answer);
        }
    }

    /// The logs for which there is no room beside those that are open or on the disk, and why.
    fn without_room(&self, wanted: &[Wanted]) -> BTreeMap<ListenerId, String> {
        let Some(room) = self.place.room else { return BTreeMap::new() };
        let open = self.logs.iter().map(|(id, log)| (id.clone(), log.most_bytes())).collect();
        let wanted: Vec<Need> = wanted.iter().filter_map(|wanted| settings::need(&wanted.id, &wanted.spec)).collect();
        log_room::without_room(room, open, &self.held(), &wanted)
    }

    /// Bytes that each log has on the disk, whether it is open or not.
    fn held(&self) -> BTreeMap<ListenerId, u64> {
        let mut held = self.rest.bytes().clone();
        held.extend(self.leaving.iter().map(|(id, leaving)| (id.clone(), leaving.disk_bytes())));
        held.extend(self.logs.iter().map(|(id, log)| (id.clone(), log.disk_bytes())));
        held
    }

    /// Begins to open a log, once the previous log of its listener is closed.
    fn begin(&mut self, id: &ListenerId, durable: &Durable) -> Opening {
        let (place, drains_only) = (self.place.of_log(id, &self.process), self.place.drains_only);
        let leaving = self.leaving.remove(id);
        if let Some(leaving) = &leaving {
            self.rest.put(id.clone(), leaving.disk_bytes());
        }
        let there = place.clone();
        let before = async move {
            if let Some(leaving) = leaving {
                leaving.close().await;
            }
            !drains_only || there.has_folder().await
        };
        Opening::start(place, durable, before, self.wake.clone())
    }

    /// Takes the logs that are open now, and notifies those who wait for a log.
    async fn settle(&mut self) {
        for (id, mut begun) in take(&mut self.begun) {
            let Some(asked) = begun.asked.take_if(|asked| !asked.is_closed()) else {
                self.begun.insert(id, begun);
                continue;
            };
            let answer = match begun.opening.take() {
                Some(Ok(Some(opened))) => {
                    let (place, wake) = (self.place.of_log(&id, &self.process), self.wake.clone());
                    let log = Log::new(place, begun.opening.durable(), opened, &self.process, wake);
                    self.logs.insert(id, log);
                    Ok(())
                }
                Some(opened) => opened.map(drop),
                None if begun.opening.is_late() => {
                    self.begun.insert(id, begun);
                    Err(late())
                }
                None => {
                    begun.asked = Some(asked);
                    self.begun.insert(id, begun);
                    continue;
                }
            };
            // The control thread may have gone.
            let _ = asked.send(answer);
        }
        for log in self.logs.values_mut() {
            log.settle(&self.process);
        }
        self.serve().await;
    }

    async fn listen(&mut self, id: SocketId, socket: OsSocket, route: Route) {
        let shared = route.load().first().clone();
        if let Some(log) = self.logs.get_mut(&shared.id) {
            log.run(&shared, &self.process);
        }
        self.sockets.insert(id, Socket::new(socket, route));
        self.serve().await;
    }

    /// Runs these listeners, and lets the logs of others go.
    async fn follow(&mut self, listeners: &[Arc<Shared>]) {
        for shared in listeners {
            if let Some(log) = self.logs.get_mut(&shared.id) {
                log.run(shared, &self.process);
            }
        }
        let run: BTreeSet<&ListenerId> = listeners.iter().map(|shared| &shared.id).collect();
        let gone: Vec<ListenerId> = self.logs.keys().filter(|id| !run.contains(*id)).cloned().collect();
        for id in gone {
            if let Some(log) = self.logs.remove(&id) {
                let leaving = log.leave(&self.process);
                self.leaving.insert(id, leaving);
            }
        }
        self.serve().await;
    }

    /// Serves each socket for the present listener behind it.
    async fn serve(&mut self) {
        for socket in self.sockets.values_mut() {
            socket.serve(&self.logs, &self.process).await;
        }
    }

    /// Once a second: updates metrics and status, and retries logs that could not be opened again.
    async fn look(&mut self) {
        let rest = &mut self.rest;
        self.leaving.retain(|id, leaving| {
            let has_ended = leaving.has_ended();
            if has_ended {
                rest.put(id.clone(), leaving.disk_bytes());
            }
            !has_ended
        });
        for log in self.logs.values_mut() {
            log.look(&self.process).await;
        }
        self.serve().await;
    }

    /// Ends the thread, as the process ends. Sinks get messages for as long as the place says, all at the same time.
    /// Messages on the disk that they do not have then stay there, as those in streams do anyway. Logs are closed at
    /// the same time, too.
    async fn end(mut self) {
        for mut socket in take(&mut self.sockets).into_values() {
            socket.stop().await;
        }
        let until = Instant::now() + self.place.drain + CLOSE_WITHIN;
        if !self.place.drain.is_zero() {
            let (stay, go): (BTreeMap<ListenerId, Log>, BTreeMap<ListenerId, Log>) =
                take(&mut self.logs).into_iter().partition(|(_, log)| log.is_stream());
            self.logs = stay;
            let drain = |log: Log| log.leave_within(self.place.drain, &self.process);
            let mut drained: BTreeMap<ListenerId, Leaving> = go.into_iter().map(|(id, log)| (id, drain(log))).collect();
            for leaving in drained.values_mut() {
                leaving.wait(until, &self.process.stop).await;
            }
            self.leaving.extend(drained);
        }
        let until = until.min(Instant::now() + CLOSE_WITHIN);
        let logs = self.logs.into_iter().map(|(id, log)| (id, spawn_local(log.end(self.process.clone()))));
        let leaving = self.leaving.into_iter().map(|(id, leaving)| (id, spawn_local(leaving.close())));
        let closed: Vec<(ListenerId, JoinHandle<()>)> = logs.chain(leaving).collect();
        for (id, closed) in closed {
            if timeout_at(until, closed).await.is_err() {
                let message =
                    format!("closing its log took longer than {} s: messages may be lost", CLOSE_WITHIN.as_secs());
                self.process.log.notice(Level::Error, "delivery", id, message);
            }
        }
    }
}

#[cfg(test)]
mod tests;

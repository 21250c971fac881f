//! The control thread's work: takes configurations, carries plans out, keeps targets current, reports.

mod apply;
mod checks;
mod report;
mod shards;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{Configuration, Failure, FailureReason, Listener, ListenerId, Report, SocketKey};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use self::checks::Checks;
use crate::{
    core::{damped::Damped, diff::Running, limiter::Limiter},
    files::{Permit, RESERVE},
    log::Level,
    metrics::Metrics,
    net::OsSocket,
    process::Process,
    resolver::{Answer, Resolver},
    route::{Route, Served, Unrouted},
    shared::Shared,
    threads::{Command, Workers},
    udp::SocketId,
    worker::session::SessionView,
};

/// Pause before sockets that could not be bound are tried again.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// How often removed listeners are looked at, and reported as gone once their last session ended.
const RETIRED_AGAIN: Duration = Duration::from_secs(1);

/// How often hot listeners are looked for.
const LOOK_FOR_HOT: Duration = Duration::from_secs(1);

/// What the control thread is asked.
#[derive(Debug)]
pub enum Control {
    /// Run this configuration.
    Apply {
        /// All of it.
        configuration: Box<Configuration>,
        /// Told when it is applied.
        done: Option<oneshot::Sender<Report>>,
    },
    /// A document could not be read; the last good configuration stays.
    Refused(String),
    /// List live sessions, at most so many.
    Inspect(usize, oneshot::Sender<Vec<SessionView>>),
    /// The configuration in force.
    Current(oneshot::Sender<Configuration>),
    /// Close listeners and let sessions end, at most so long.
    Drain(Duration),
}

/// Whether anybody but our own list knows this listener: its sessions do.
fn has_sessions(shared: &Arc<Shared>) -> bool {
    Arc::strong_count(shared) > 1
}

struct OpenSocket {
    route: Route,
    parts: Vec<Part>,
    /// Seconds before keepalive probes, as set on the sockets.
    keepalive: u32,
    /// Whether every worker has a socket of its own, or it was tried.
    sharded: bool,
    /// The listener and its count of sessions at the last look for hot ones.
    seen: (Weak<Served>, u64),
    /// Connections that belonged to nobody.
    unrouted: Arc<Unrouted>,
    files: Permit,
}

struct Part {
    id: SocketId,
    socket: OsSocket,
    worker: usize,
}

/// State of the control thread.
pub struct Supervisor {
    process: Process,
    workers: Workers,
    metrics: Arc<Metrics>,
    resolver: Resolver,
    configuration: Configuration,
    running: Running,
    listeners: BTreeMap<ListenerId, Arc<Shared>>,
    /// Limits by namespace and name of the forward.
    limiters: BTreeMap<(String, String), Weak<Limiter>>,
    /// Active checks.
    checks: Checks,
    /// How the backends of each listener do, as it is told.
    health: BTreeMap<ListenerId, Damped>,
    /// Listeners that are gone, while they have sessions.
    retired: Vec<Arc<Shared>>,
    /// Listeners as they were before they moved to another socket, while they have sessions.
    moved: Vec<Arc<Shared>>,
    sockets: BTreeMap<SocketKey, OpenSocket>,
    failures: BTreeMap<ListenerId, Failure>,
    /// What ran when the last line about it was written.
    previous: BTreeMap<ListenerId, Arc<Listener>>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    failing_since: BTreeMap<String, Instant>,
    /// Refusals of endpoints that were told already.
    told: BTreeSet<(ListenerId, String)>,
    report: watch::Sender<Report>,
    next_socket: u64,
    next_worker: usize,
    /// Waits for files as they were told last, and when.
    paused: (u64, Option<Instant>),
    /// Until the first configuration is applied: listeners that come up are not told.
    quiet: bool,
}

impl Supervisor {
    /// A supervisor that runs nothing yet.
    #[must_use]
    pub fn new(
        process: Process,
        workers: Workers,
        metrics: Arc<Metrics>,
        answers: mpsc::Sender<Answer>,
        report: watch::Sender<Report>,
        quiet_start: bool,
    ) -> Self {
        Self {
            process,
            workers,
            metrics,
            resolver: Resolver::new(answers),
            configuration: Configuration::default(),
            running: Running::default(),
            listeners: BTreeMap::new(),
            limiters: BTreeMap::new(),
            checks: Checks::default(),
            health: BTreeMap::new(),
            retired: Vec::new(),
            moved: Vec::new(),
            sockets: BTreeMap::new(),
            failures: BTreeMap::new(),
            previous: BTreeMap::new(),
            addresses: BTreeMap::new(),
            failing_since: BTreeMap::new(),
            told: BTreeSet::new(),
            report,
            next_socket: 0,
            next_worker: 0,
            paused: (0, None),
            quiet: quiet_start,
        }
    }

    /// Works until told to drain, or until nobody can tell any more.
    pub async fn run(mut self, mut control: mpsc::Receiver<Control>, mut answers: mpsc::Receiver<Answer>) {
        let mut again = Instant::now() + BIND_AGAIN;
        let mut look = Instant::now() + LOOK_FOR_HOT;
        let longest = loop {
            tokio::select! {
                asked = control.recv() => match asked {
                    None => break Duration::ZERO,
                    Some(Control::Drain(longest)) => break longest,
                    Some(asked) => self.asked(asked).await,
                },
                Some(answer) = answers.recv() => self.answered(answer),
                () = sleep_until(again), if self.has_unfinished() => {
                    again = Instant::now() + BIND_AGAIN.min(RETIRED_AGAIN);
                    self.finish().await;
                }
                () = sleep_until(look), if !self.sockets.is_empty() => {
                    look = Instant::now() + LOOK_FOR_HOT;
                    self.tell_files();
                    self.look_at_backends();
                    self.shard().await;
                }
            }
        };
        // Nobody is answered from here on: who asks is told so instead of waiting.
        drop((control, answers));
        self.drain(longest).await;
    }

    async fn asked(&mut self, asked: Control) {
        match asked {
            Control::Apply { configuration, done } => {
                self.configuration = *configuration;
                self.apply().await;
                self.quiet = false;
                self.metrics.control.applied.fetch_add(1, Relaxed);
                self.metrics.control.number.store(self.configuration.version.number, Relaxed);
                if let Some(done) = done {
                    let _ = done.send(self.report.borrow().clone());
                }
            }
            Control::Refused(why) => {
                self.metrics.control.refused.fetch_add(1, Relaxed);
                let stays = match self.metrics.control.applied.load(Relaxed) {
                    0 => "nothing runs until it can be read",
                    _ => "the last good configuration stays in force",
                };
                let message = format!("{why}; {stays}");
                self.process.log.notice(Level::Error, "refused", "configuration", message);
            }
            Control::Inspect(limit, reply) => {
                let _ = reply.send(self.inspect(limit).await);
            }
            Control::Current(reply) => {
                let _ = reply.send(self.configuration.clone());
            }
            Control::Drain(_) => {}
        }
    }

    fn has_unfinished(&self) -> bool {
        self.may_heal() || !self.retired.is_empty() || !self.moved.is_empty() || !self.failing_since.is_empty()
    }

    /// Whether a listener failed for a reason that time may mend.
    fn may_heal(&self) -> bool {
        self.failures.values().any(|failure| failure.reason != FailureReason::Unsupported)
    }

    /// Tries again what could not be done, and forgets what has ended.
    async fn finish(&mut self) {
        self.tell_dns();
        let had = self.retired.len();
        self.retired.retain(|shared| shared.counters.active() > 0);
        self.moved.retain(has_sessions);
        if self.may_heal() {
            self.apply().await;
        } else if self.retired.len() != had {
            self.publish();
        }
    }

    async fn inspect(&self, limit: usize) -> Vec<SessionView> {
        let mut views = Vec::new();
        for worker in &self.workers.handles {
            let (reply, answer) = oneshot::channel();
            let room = limit.saturating_sub(views.len());
            if worker.tell(Command::Inspect { limit: room, reply }).await {
                views.extend(answer.await.unwrap_or_default());
            }
        }
        views
    }

    fn answered(&mut self, answer: Answer) {
        match answer.addresses {
            Ok(addresses) => {
                if self.failing_since.remove(&answer.host).is_some() {
                    self.process.log.notice(Level::Info, "resolved", &answer.host, "the name resolves again");
                }
                self.addresses.insert(answer.host, addresses);
                self.refresh_targets();
            }
            Err(why) => {
                if !self.failing_since.contains_key(&answer.host) {
                    let kept =
                        if self.addresses.contains_key(&answer.host) { "; the last answer stays in use" } else { "" };
                    let message = format!("does not resolve: {why}{kept}");
                    self.process.log.notice(Level::Warn, "unresolved", &answer.host, message);
                    self.failing_since.insert(answer.host, Instant::now());
                }
            }
        }
        self.tell_dns();
    }

    fn tell_dns(&self) {
        let control = &self.metrics.control;
        control.dns_failing.store(self.failing_since.len() as u64, Relaxed);
        let longest = self.failing_since.values().map(|since| since.elapsed().as_secs()).max();
        control.dns_failing_seconds.store(longest.unwrap_or(0), Relaxed);
    }

    /// Says, at most once a minute, that connections wait because the process has no files left.
    fn tell_files(&mut self) {
        let paused = self.process.files.paused.load(Relaxed);
        let (before, told) = self.paused;
        if paused == before || told.is_some_and(|told| told.elapsed() < Duration::from_secs(60)) {
            return;
        }
        let (used, limit) = self.process.files.usage();
        let message = format!(
            "new connections wait: {used} files are in use and {limit} may be, beside a reserve of {RESERVE}; raise the \
             limit of open files (ulimit -n)"
        );
        self.process.log.notice(Level::Warn, "files", "process", message);
        self.paused = (paused, Some(Instant::now()));
    }

    async fn drain(mut self, longest: Duration) {
        // Our handles would keep the listening sockets open after the workers have closed theirs.
        self.sockets.clear();
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        for worker in &self.workers.handles {
            worker.tell(Command::Drain { millis }).await;
        }
        // Joining waits for the sessions; the control thread goes on answering /livez meanwhile.
        let _ = tokio::task::spawn_blocking(move || self.workers.join()).await;
    }
}

//! The control thread: takes configurations, applies plans, keeps targets current, reports.
//!
//! The [`Supervisor`] has the event loop and the order of the steps. State belongs to its owners: `Sockets`,
//! `Listeners`, `Names`, `Checks`, `Health` and `Reporter`. Owners return values and notices, and read each other only
//! through methods.

mod agents;
mod apply;
mod checks;
mod failures;
#[cfg(test)]
pub(crate) mod fixtures;
mod foreign_ports;
mod health;
mod holders;
mod listeners;
mod logs;
mod looks;
mod losses;
mod memory_limit;
mod names;
mod no_ports;
mod notices;
mod open_socket;
mod reached;
mod relief;
mod reporter;
mod shortages;
mod sockets;
mod targets;
mod waits;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    future::pending,
    iter,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{Configuration, LiveSessions, Selection, Surroundings};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    checks::Checks, foreign_ports::ForeignPorts, listeners::Listeners, logs::NoLogs, looks::Looks, names::Names,
    relief::Relief, reporter::Reporter, shortages::Shortages, sockets::Sockets,
};
use crate::{
    agents::{AgentNews, ForTunnels},
    commands::Command,
    core::{
        backends::{health::Health, instances::Instances},
        changes::{diff::Running, in_place::Step, set_users::SetUsers},
        control::reports::Published,
        durable::deliveries::Deliveries,
        limits::{memory_looks::MemoryLooks, reached::Reached},
        logging::{losses::Losses, waits::Waits},
        ports::{no_ports::NoPorts, own_addresses::OwnAddresses},
        workers::schedule::{Schedule, Work},
    },
    log::Level,
    memory,
    metrics::Metrics,
    process::Process,
    resolver::News,
    settings::Settings,
    threads::{Workers, inspect},
};

/// Pause between two signs of life of the control thread.
const BEAT: Duration = Duration::from_secs(1);

/// A request to the control thread.
#[derive(Debug)]
pub enum Control {
    /// Run this configuration.
    Apply {
        /// The whole configuration.
        configuration: Arc<Configuration>,
        /// The step from an earlier configuration, if it is known.
        step: Option<Step>,
        /// Receives the report once the configuration is applied.
        done: Option<oneshot::Sender<Published>>,
    },
    /// A document could not be read, for this reason; the last good configuration stays in force.
    Refused(String),
    /// List live sessions.
    Inspect(Selection, oneshot::Sender<LiveSessions>),
    /// Return the configuration in force.
    Current(oneshot::Sender<Configuration>),
    /// Close the listeners and wait for sessions to end, no longer than this.
    Drain(Duration),
}

/// The control thread's event loop and the owners of its state.
pub struct Supervisor {
    process: Process,
    workers: Workers,
    metrics: Arc<Metrics>,
    /// The configuration in force.
    configuration: Arc<Configuration>,
    /// The part of the configuration that runs.
    running: Running,
    /// The endpoint sets and agents that running listeners use.
    set_users: SetUsers,
    /// Whether no socket is opened, and durable listeners only send stored messages.
    drains_only: bool,
    /// The surroundings of the proxy, from the configuration in force.
    surroundings: Arc<Surroundings>,
    sockets: Sockets,
    listeners: Listeners,
    /// Durable listeners that cannot run.
    no_logs: NoLogs,
    names: Names,
    /// The instances of agents on which streams are opened.
    instances: Instances,
    /// Sends the agents and peers of the configuration in force to the tunnels.
    agents: watch::Sender<Arc<ForTunnels>>,
    own: RefCell<OwnAddresses>,
    checks: Checks,
    health: Health,
    reached: Reached,
    deliveries: Deliveries,
    losses: Losses,
    no_ports: NoPorts,
    looks: Looks,
    reporter: Reporter,
    waits_for_files: Waits,
    waits_for_sessions: Waits,
    memory_looks: MemoryLooks,
    shortages: Shortages,
    relief: Relief,
}

impl Supervisor {
    /// Creates a supervisor that runs nothing yet. `agents` receives the agents and peers of each configuration.
    #[must_use]
    pub fn new(
        process: Process,
        workers: Workers,
        metrics: Arc<Metrics>,
        answers: mpsc::Sender<News>,
        report: watch::Sender<Published>,
        agents: watch::Sender<Arc<ForTunnels>>,
        settings: &Settings,
    ) -> Self {
        let counters = metrics.clone();
        let failed = move || {
            counters.control.state_failures.fetch_add(1, Relaxed);
        };
        let sockets = Sockets::new(ForeignPorts::new(settings, failed));
        let (room, memory_looks) = (process.most_sessions(), MemoryLooks::new(process.clock.seconds()));
        let names = Names::new(answers, process.files.clone(), process.lives.clone());
        Self {
            process,
            workers,
            metrics,
            configuration: Arc::default(),
            running: Running::default(),
            set_users: SetUsers::default(),
            drains_only: settings.drain_only,
            surroundings: Arc::default(),
            sockets,
            listeners: Listeners::new(room),
            no_logs: NoLogs::new(),
            names,
            instances: Instances::default(),
            agents,
            own: RefCell::default(),
            checks: Checks::default(),
            health: Health::default(),
            reached: Reached::default(),
            deliveries: Deliveries::default(),
            losses: Losses::default(),
            no_ports: NoPorts::since(no_ports::read()),
            looks: Looks::default(),
            reporter: Reporter::new(report, settings.quiet_start || settings.drain_only),
            waits_for_files: Waits::default(),
            waits_for_sessions: Waits::default(),
            memory_looks,
            shortages: Shortages::new(memory::group()),
            relief: Relief::default(),
        }
    }

    /// Runs until a drain is requested, or until every sender of `control` is dropped. `news` delivers changes of the
    /// connected instances.
    pub async fn run(
        mut self,
        mut control: mpsc::Receiver<Control>,
        mut answers: mpsc::Receiver<News>,
        news: Arc<AgentNews>,
    ) {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::ZERO);
        let life = self.process.lives.begin("control");
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let longest = loop {
            life.beat();
            let wanted = self.wanted();
            tokio::select! {
                asked = control.recv() => match asked {
                    None => break Duration::ZERO,
                    Some(Control::Drain(longest)) => break longest,
                    Some(asked) => self.asked(asked).await,
                },
                Some(answer) = answers.recv() => self.answered(answer, &mut answers),
                changes = news.next() => self.connected(changes),
                () = until(schedule.next(wanted).map(|due| start + due)) => {
                    let due = schedule.take_due(wanted, start.elapsed());
                    if due.retry {
                        self.retry().await;
                    }
                    if due.look {
                        self.look().await;
                    }
                }
                () = yield_now(), if self.looks.are_under_way() => self.look_on().await,
                _ = beats.tick() => {}
            }
        };
        drop(life);
        // Requests from here on fail at once instead of waiting for an answer.
        drop((control, answers, news));
        self.drain(longest).await;
    }

    async fn asked(&mut self, asked: Control) {
        match asked {
            Control::Apply { configuration, step, done } => {
                let before = std::mem::replace(&mut self.configuration, configuration);
                self.apply(Some(before), step).await;
                self.metrics.control.applied.fetch_add(1, Relaxed);
                self.metrics.control.number.store(self.configuration.version.number, Relaxed);
                if let Some(done) = done {
                    let _ = done.send(self.reporter.current());
                }
            }
            Control::Refused(why) => {
                self.metrics.control.refused.fetch_add(1, Relaxed);
                let stays = match self.metrics.control.applied.load(Relaxed) {
                    0 => "nothing runs until a valid configuration arrives",
                    _ => "the last good configuration stays in force",
                };
                let message = format!("{why}; {stays}");
                self.process.log.notice(Level::Error, "refused", "configuration", message);
            }
            Control::Inspect(selection, reply) => {
                // Apart from the control thread's loop, which must not wait for a worker that hangs.
                tokio::spawn(inspect(self.workers.handles.clone(), selection, reply));
            }
            Control::Current(reply) => {
                let _ = reply.send((*self.configuration).clone());
            }
            Control::Drain(_) => {}
        }
    }

    /// The kinds of periodic work that have something to do now.
    fn wanted(&self) -> Work {
        let retry = self.sockets.is_lacking() || self.listeners.has_old() || self.names.is_failing();
        let retry = retry || !self.no_logs.is_empty() || !self.sockets.has_written_ports();
        // A shortage of memory can outlast the sockets: sessions of removed listeners continue.
        let look = self.drains_only || !self.sockets.is_empty() || self.process.is_short_of_memory();
        Work { retry, look }
    }

    /// Retries the sockets that failed listeners lack and the file of ports that could not be written, and forgets
    /// listeners whose last session has ended.
    async fn retry(&mut self) {
        self.count_failing_names();
        notices::write(&self.process.log, self.sockets.write_ports());
        let have_ended = self.listeners.forget_ended();
        if self.sockets.have_news(&self.process) || self.has_log_now().await {
            self.apply(None, None).await;
        }
        if have_ended {
            self.publish();
            self.expose(&BTreeSet::new());
        }
    }

    /// Takes an answer and those queued behind it. Only the listeners that use a name with changed addresses, or wait
    /// for its first answer, are refreshed, all together.
    fn answered(&mut self, first: News, answers: &mut mpsc::Receiver<News>) {
        let now = self.process.clock.seconds();
        let behind = iter::from_fn(|| answers.try_recv().ok());
        let mut changed = BTreeSet::new();
        for answer in iter::once(first).chain(behind) {
            match answer {
                News::Unreadable(problems) => notices::write(&self.process.log, [Names::unreadable(&problems)]),
                News::Name { host, resolution } => {
                    let change = self.names.learn(&host, resolution, now);
                    notices::write(&self.process.log, change.notices);
                    if change.changed {
                        changed.insert(host);
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.refresh_users(&changed);
        }
        self.count_failing_names();
    }

    fn count_failing_names(&self) {
        let (control, failing) = (&self.metrics.control, self.names.failing(self.process.clock.seconds()));
        control.dns_failing.store(failing.names, Relaxed);
        control.dns_failing_seconds.store(failing.longest_seconds, Relaxed);
        control.dns_truncated.store(self.names.truncated(), Relaxed);
    }

    async fn drain(self, longest: Duration) {
        // Handles kept here would hold the listening sockets open after the workers have closed theirs.
        drop(self.sockets);
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        for worker in self.workers.handles.iter().chain(&self.workers.durable) {
            worker.send(Command::Drain { millis }).await;
        }
        // Joining waits for the sessions; meanwhile the control thread keeps answering /livez.
        let _ = tokio::task::spawn_blocking(move || self.workers.join()).await;
    }
}

/// Waits until the deadline; without a deadline, waits forever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

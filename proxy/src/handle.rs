//! Starting a proxy in this process, and speaking to it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use proxy_api::{Configuration, Report};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    files::Files,
    http::{self, Role, Startup, View},
    log::{Level, Log, LogWriter},
    metrics::Metrics,
    process::Process,
    settings::Settings,
    supervisor::{Control, Supervisor},
    threads::Workers,
    worker::budget::Budget,
};

/// Requests that may wait for the control thread.
const REQUESTS: usize = 64;
/// DNS answers that may wait for the control thread.
const ANSWERS: usize = 256;

/// A proxy that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address of its own is taken or not allowed.
    #[error("the {role} address {address} cannot be opened; choose another one")]
    Address {
        /// Which one.
        role: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of the socket cannot be made.
    #[error("the socket {} cannot be opened", path.display())]
    Socket {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The admin address is reachable from elsewhere.
    #[error("the admin address {0} is not on loopback; it has no access control, so it must be")]
    AdminNotLoopback(SocketAddr),
    /// Threads or runtimes cannot be made.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

/// The proxy has ended and takes no more requests.
#[derive(Debug, thiserror::Error)]
#[error("the proxy has ended")]
pub struct Ended;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    control: mpsc::Sender<Control>,
    report: watch::Receiver<Report>,
    metrics: Arc<Metrics>,
    process: Process,
    thread: thread::JoinHandle<()>,
    writer: LogWriter,
    /// Where health is served, with the port that was given.
    pub health: Option<SocketAddr>,
    /// Where admin is served, with the port that was given.
    pub admin: Option<SocketAddr>,
}

impl Proxy {
    /// Starts the threads of a proxy that runs nothing yet. Log records go to `output`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, output: Box<dyn Write + Send>) -> Result<Self, StartError> {
        let files = Files::of_process();
        let (log, writer) = Log::start(settings.log_format, settings.log_level, settings.log_queue, output)
            .map_err(StartError::Threads)?;
        let process = Process {
            clock: Clock::start(),
            files,
            budget: Arc::new(Budget::new(settings.held_bytes)),
            log,
            stop: Arc::default(),
            timings: Arc::default(),
        };
        let addresses = addresses(settings, &process)?;
        let file = settings.socket.as_deref().map(socket).transpose()?;
        let bound =
            |role| addresses.iter().find(|(other, _)| *other == role).and_then(|(_, socket)| socket.local_addr().ok());
        let (health, admin) = (bound(Role::Health), bound(Role::Admin));
        let workers = Workers::start(settings, &process).map_err(StartError::Threads)?;
        let metrics = Metrics::new(process.clone());
        let (control, requests) = mpsc::channel(REQUESTS);
        let (reporter, report) = watch::channel(Report::default());
        let startup = Startup { since: Instant::now(), patience: settings.startup };
        let view = View { metrics: metrics.clone(), report: report.clone(), control: control.clone(), startup };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Threads)?;
        let parts = (process.clone(), metrics.clone(), settings.quiet_start);
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                runtime.block_on(async {
                    let (answers, answered) = mpsc::channel(ANSWERS);
                    for (role, listener) in addresses {
                        tokio::spawn(http::serve(listener, role, view.clone()));
                    }
                    if let Some(file) = file {
                        tokio::spawn(http::serve_file(file, view.clone()));
                        tokio::spawn(tell_late(startup, parts.1.clone(), parts.0.clone()));
                    }
                    drop(view);
                    Supervisor::new(parts.0, workers, parts.1, answers, reporter, parts.2)
                        .run(requests, answered)
                        .await;
                });
            })
            .map_err(StartError::Threads)?;
        Ok(Self { control, report, metrics, process, thread, writer, health, admin })
    }

    /// Runs this configuration; returns what became of it.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn apply(&self, configuration: Configuration) -> Result<Report, Ended> {
        let (done, report) = oneshot::channel();
        let request = Control::Apply { configuration: Box::new(configuration), done: Some(done) };
        self.control.send(request).await.map_err(|_| Ended)?;
        report.await.map_err(|_| Ended)
    }

    /// Counts and logs a document that could not be read.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn refuse(&self, why: String) -> Result<(), Ended> {
        self.control.send(Control::Refused(why)).await.map_err(|_| Ended)
    }

    /// Where events are written.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.process.log
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The state of the listeners, as it changes.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }

    /// Live sessions.
    #[must_use]
    pub fn live_sessions(&self) -> u64 {
        self.metrics.live_sessions()
    }

    /// Closes the listeners and lets sessions end, at most so long. Returns at once; see [`Proxy::has_ended`].
    pub async fn drain(&self, longest: Duration) {
        // Already ended is as good.
        let _ = self.control.send(Control::Drain(longest)).await;
    }

    /// Ends a drain now.
    pub fn stop_waiting(&self) {
        self.process.stop.store(true, Relaxed);
    }

    /// Whether the last session has ended and all threads with it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end and for the last log record.
    pub fn finish(self) {
        // Does nothing if it has ended; without it the endpoints would keep the control thread alive.
        let _ = self.control.blocking_send(Control::Drain(Duration::ZERO));
        drop(self.control);
        let _ = self.thread.join();
        drop(self.process);
        drop(self.metrics);
        self.writer.finish();
    }
}

/// Says so, if there is no configuration when the app of a sidecar starts.
async fn tell_late(startup: Startup, metrics: Arc<Metrics>, process: Process) {
    tokio::time::sleep(startup.patience.saturating_sub(startup.since.elapsed())).await;
    if metrics.control.applied.load(Relaxed) == 0 {
        metrics.control.started_without.store(1, Relaxed);
        let message = format!(
            "no configuration came within {} s: the app starts without its listeners, which come up as soon as one does",
            startup.patience.as_secs()
        );
        process.log.notice(Level::Warn, "startup", "portlane-proxy", message);
    }
}

fn socket(path: &Path) -> Result<std::os::unix::net::UnixListener, StartError> {
    http::open_file(path).map_err(|source| StartError::Socket { path: path.to_owned(), source })
}

fn addresses(settings: &Settings, process: &Process) -> Result<Vec<(Role, std::net::TcpListener)>, StartError> {
    let mut opened = Vec::new();
    for (role, name, address) in [(Role::Health, "health", settings.health), (Role::Admin, "admin", settings.admin)] {
        let Some(address) = address else { continue };
        if role == Role::Admin && !address.ip().is_loopback() {
            return Err(StartError::AdminNotLoopback(address));
        }
        match http::open(address) {
            Ok(listener) => opened.push((role, listener)),
            Err(error) if settings.may_lack_addresses => {
                let message = format!("the {name} address {address} is not served: {error}");
                process.log.notice(Level::Warn, "address", "portlane-proxy", message);
            }
            Err(source) => return Err(StartError::Address { role: name, address, source }),
        }
    }
    Ok(opened)
}

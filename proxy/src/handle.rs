//! Starts and controls a proxy in this process.

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

/// Capacity of the control queue, in requests.
const REQUESTS: usize = 64;
/// Capacity of the queue of DNS answers.
const ANSWERS: usize = 256;

/// The proxy failed to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A health or admin address is taken or not permitted.
    #[error("cannot listen on the {role} address {address}; choose another one")]
    Address {
        /// `health` or `admin`.
        role: &'static str,
        /// The address.
        address: SocketAddr,
        /// Bind error.
        #[source]
        source: io::Error,
    },
    /// The unix socket cannot be created.
    #[error("cannot listen on the unix socket {}", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// Bind error.
        #[source]
        source: io::Error,
    },
    /// The admin address is reachable from other machines.
    #[error("the admin address {0} must be on loopback, because it has no access control")]
    AdminNotLoopback(SocketAddr),
    /// A thread or runtime cannot be created.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

/// The proxy has ended and accepts no more requests.
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
    /// Health address, with the actual port.
    pub health: Option<SocketAddr>,
    /// Admin address, with the actual port.
    pub admin: Option<SocketAddr>,
}

impl Proxy {
    /// Starts the threads of a proxy with no configuration. Log records go to `output`.
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
        let parts = (process.clone(), metrics.clone(), settings.clone());
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
                    Supervisor::new(parts.0, workers, parts.1, answers, reporter, &parts.2)
                        .run(requests, answered)
                        .await;
                });
            })
            .map_err(StartError::Threads)?;
        Ok(Self { control, report, metrics, process, thread, writer, health, admin })
    }

    /// Applies a configuration and returns the resulting report.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn apply(&self, configuration: Configuration) -> Result<Report, Ended> {
        let (done, report) = oneshot::channel();
        let request = Control::Apply { configuration: Box::new(configuration), done: Some(done) };
        self.control.send(request).await.map_err(|_| Ended)?;
        report.await.map_err(|_| Ended)
    }

    /// Counts and logs a configuration that was refused.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn refuse(&self, why: String) -> Result<(), Ended> {
        self.control.send(Control::Refused(why)).await.map_err(|_| Ended)
    }

    /// The log of the process.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.process.log
    }

    /// The metrics of the process.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The state of the listeners, updated on change.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }

    /// Live sessions.
    #[must_use]
    pub fn live_sessions(&self) -> u64 {
        self.metrics.live_sessions()
    }

    /// Closes the listeners and drains sessions for no longer than `longest`. Returns at once; see
    /// [`Proxy::has_ended`].
    pub async fn drain(&self, longest: Duration) {
        // A proxy that has already ended needs no drain.
        let _ = self.control.send(Control::Drain(longest)).await;
    }

    /// Ends a drain immediately.
    pub fn stop_waiting(&self) {
        self.process.stop.store(true, Relaxed);
    }

    /// Whether all sessions and threads have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the proxy has ended and the last log record is written.
    pub fn finish(self) {
        // Otherwise the HTTP endpoints would keep the control thread alive. No effect if the proxy has ended.
        let _ = self.control.blocking_send(Control::Drain(Duration::ZERO));
        drop(self.control);
        let _ = self.thread.join();
        drop(self.process);
        drop(self.metrics);
        self.writer.finish();
    }
}

/// Warns if no configuration has arrived by the time the app of a sidecar starts.
async fn tell_late(startup: Startup, metrics: Arc<Metrics>, process: Process) {
    tokio::time::sleep(startup.patience.saturating_sub(startup.since.elapsed())).await;
    if metrics.control.applied.load(Relaxed) == 0 {
        metrics.control.started_without.store(1, Relaxed);
        let message = format!(
            "no configuration within {} s: the app starts without its listeners; they start when a configuration arrives",
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

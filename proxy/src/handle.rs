//! Starts and controls a proxy in this process.

mod apply;
mod ending;
mod errors;
mod tunnels;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use proxy_api::{Configuration, LiveSessions, Selection, Transport};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::errors::{Died, Ended, StartError};
use self::tunnels::{Started, Tunnels, spawn_guarded};
use crate::{
    clock::Clock,
    core::control::reports::Published,
    files, holder,
    http::{self, Role, Startup, View},
    lives::{Life, Lives},
    log::{Level, Log, LogWriter},
    memory,
    metrics::Metrics,
    net,
    process::Process,
    settings::Settings,
    signing::Desk,
    supervisor::{Control, Supervisor},
    threads::Workers,
    watchdog::Watchdog,
};

/// Capacity of the control queue, in requests.
const REQUESTS: usize = 64;
/// Capacity of the queue of DNS answers.
const ANSWERS: usize = 256;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    control: mpsc::Sender<Control>,
    report: watch::Receiver<Published>,
    metrics: Arc<Metrics>,
    process: Process,
    thread: thread::JoinHandle<()>,
    tunnels_thread: Started,
    desk: Mutex<Option<Desk>>,
    watchdog: Watchdog,
    writer: LogWriter,
    /// Health address, with the actual port.
    pub health: Option<SocketAddr>,
    /// Admin address, with the actual port.
    pub admin: Option<SocketAddr>,
    /// Address that agents dial, with the actual port.
    pub tunnels: Option<SocketAddr>,
}

impl Proxy {
    /// Starts the threads of a proxy with no configuration. Log records go to `output`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, output: Box<dyn Write + Send>) -> Result<Self, StartError> {
        let lives = Lives::new(Clock::start());
        let guard = lives.guard("log");
        let (log, writer) = Log::start(settings.log_format, settings.log_level, settings.log_queue, output, guard)
            .map_err(StartError::Threads)?;
        let mut process = Process::new(settings, memory::limit().ok().flatten(), net::local_ports(), lives, log);
        let addresses = addresses(settings, &process)?;
        let file = settings.socket.as_deref().map(socket).transpose()?;
        let bound =
            |role| addresses.iter().find(|(other, _)| *other == role).and_then(|(_, socket)| socket.local_addr().ok());
        let (health, admin) = (bound(Role::Health), bound(Role::Admin));
        let tunnels = Tunnels::start(settings, &process)?;
        process.agents = tunnels.agents;
        let workers = Workers::start(settings, &process).map_err(StartError::Threads)?;
        let metrics = Metrics::new(process.clone());
        let (control, requests) = mpsc::channel(REQUESTS);
        let (reporter, report) = watch::channel(Published::default());
        let beside_app = settings.may_lack_addresses;
        let startup = Startup { since: Instant::now(), patience: settings.startup, beside_app };
        let view = View::new(process.clone(), metrics.clone(), report.clone(), control.clone(), startup);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Threads)?;
        files::count_open(&process.files);
        files::warn_if_low(&process.files, &process.log);
        let drain = Duration::from_secs(settings.drain_seconds.into());
        let watchdog = Watchdog::start(process.clone(), control.clone(), drain).map_err(StartError::Threads)?;
        let parts = (process.clone(), metrics.clone(), settings.clone());
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                let _guard = parts.0.lives.guard("control");
                runtime.block_on(async {
                    let (answers, answered) = mpsc::channel(ANSWERS);
                    serve(addresses, file, view);
                    if let Some(starts) = tunnels.starts {
                        spawn_guarded(starts, parts.0.lives.clone());
                    }
                    Supervisor::new(parts.0, workers, parts.1, answers, reporter, tunnels.configured, &parts.2)
                        .run(requests, answered, tunnels.news)
                        .await;
                });
            })
            .map_err(StartError::Threads)?;
        let (tunnels, tunnels_thread, desk) = (tunnels.address, tunnels.thread, Mutex::new(tunnels.desk));
        Ok(Self {
            control,
            report,
            metrics,
            process,
            thread,
            tunnels_thread,
            desk,
            watchdog,
            writer,
            health,
            admin,
            tunnels,
        })
    }

    /// Returns the configuration in force.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn current(&self) -> Result<Configuration, Ended> {
        let (reply, answer) = oneshot::channel();
        self.control.send(Control::Current(reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// Returns the selected live sessions.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn inspect(&self, selection: Selection) -> Result<LiveSessions, Ended> {
        let (reply, answer) = oneshot::channel();
        self.control.send(Control::Inspect(selection, reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// Counts and logs a configuration that was refused.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn refuse(&self, why: String) -> Result<(), Ended> {
        self.control.send(Control::Refused(why)).await.map_err(|_| Ended)
    }

    /// Takes the tunnels' end of the channel to the operator, once. `None`: no operator signs certificates of tunnels.
    pub fn take_desk(&self) -> Option<Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).take()
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
    pub fn report(&self) -> watch::Receiver<Published> {
        self.report.clone()
    }

    /// Live sessions.
    #[must_use]
    pub fn live_sessions(&self) -> u64 {
        self.metrics.live_sessions()
    }

    /// Registers a thread or task of the caller that beats at least once a second until the result is dropped; /livez fails
    /// if it hangs.
    #[must_use]
    pub fn alive(&self, name: &str) -> Life {
        self.process.lives.begin(name)
    }

    /// Whether all sessions and threads have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the proxy has ended and the last log record is written.
    ///
    /// # Errors
    /// Threads have died.
    pub fn finish(self) -> Result<(), Died> {
        // Otherwise the HTTP endpoints would keep the control thread alive. No effect if the proxy has ended.
        let _ = self.control.blocking_send(Control::Drain(Duration::ZERO));
        drop(self.control);
        let _ = self.thread.join();
        // The control thread has told the thread of the tunnels to end, which takes a moment for the last bytes.
        let tunnels = self.tunnels_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = tunnels.map(thread::JoinHandle::join);
        self.watchdog.stop();
        let died = self.process.lives.died();
        drop(self.process);
        drop(self.metrics);
        self.writer.finish();
        if died.is_empty() { Ok(()) } else { Err(Died(died.into_iter().collect())) }
    }
}

/// Serves the HTTP addresses and the unix socket on the runtime of this thread.
fn serve(addresses: Vec<(Role, std::net::TcpListener)>, file: Option<std::os::unix::net::UnixListener>, view: View) {
    let lives = view.process.lives.clone();
    for (role, listener) in addresses {
        let served = http::serve(listener, role, view.clone());
        tokio::spawn(lives.clone().watch(format!("{role:?} address"), served));
    }
    if let Some(file) = file {
        tokio::spawn(warn_if_late(view.startup, view.metrics.clone(), view.process.clone()));
        tokio::spawn(lives.watch("unix socket", http::serve_file(file, view)));
    }
}

/// Warns if no configuration has arrived by the time the app of a sidecar starts. A gateway has no app, and its
/// readiness shows that it has no configuration.
async fn warn_if_late(startup: Startup, metrics: Arc<Metrics>, process: Process) {
    if !startup.beside_app {
        return;
    }
    tokio::time::sleep(startup.patience.saturating_sub(startup.since.elapsed())).await;
    if metrics.control.applied.load(Relaxed) == 0 {
        metrics.control.started_without.store(1, Relaxed);
        let message = format!(
            "no configuration within {} s: listeners start when one arrives; the app starts without them",
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
                let by = holder_of(address, &error).map(|holder| format!(" by {holder}")).unwrap_or_default();
                let message = format!("the {name} address {address} is not served: {error}{by}");
                process.log.notice(Level::Warn, "address", "portlane-proxy", message);
            }
            Err(source) => {
                let health = opened.first().and_then(|(_, listener)| listener.local_addr().ok());
                return Err(address_error(name, address, source, health));
            }
        }
    }
    Ok(opened)
}

/// Why an address cannot be served; `health`: the health address, if the proxy already has it.
fn address_error(role: &'static str, address: SocketAddr, source: io::Error, health: Option<SocketAddr>) -> StartError {
    let is_in_use = source.kind() == io::ErrorKind::AddrInUse;
    let has_address = |health: &SocketAddr| {
        health.port() == address.port() && (health.ip() == address.ip() || health.ip().is_unspecified())
    };
    match health.filter(has_address) {
        Some(health) if is_in_use => StartError::SamePort { health, admin: address },
        _ => StartError::Address { role, address, holder: holder_of(address, &source), source },
    }
}

/// The process that has an address in use, as far as it can be known.
fn holder_of(address: SocketAddr, error: &io::Error) -> Option<String> {
    let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
    is_in_use.then(|| holder::find(&[(address, Transport::Tcp)]).remove(&0)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Proxy {
        Proxy::start(&Settings::default(), Box::new(io::sink())).expect("no address is needed")
    }

    #[test]
    fn a_proxy_that_ends_in_order_tells_of_no_death() {
        start().finish().expect("no thread has died");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_address_in_use_names_its_holder() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = held.local_addr().expect("bound");
        let own = format!("in use by pid {} ", std::process::id());
        for settings in [
            Settings { health: Some(address), ..Settings::default() },
            Settings { admin: Some(address), ..Settings::default() },
        ] {
            let error = Proxy::start(&settings, Box::new(io::sink())).expect_err("the address is held").to_string();
            assert!(error.contains(&address.to_string()) && error.contains(&own), "{error}");
        }
    }

    #[test]
    fn a_port_that_the_health_and_admin_addresses_share_is_named_as_that() {
        let admin: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        let error = |health: &str, kind: io::ErrorKind| {
            address_error("admin", admin, kind.into(), health.parse().ok()).to_string()
        };
        let (in_use, denied) = (io::ErrorKind::AddrInUse, io::ErrorKind::PermissionDenied);
        for health in ["127.0.0.1:9", "0.0.0.0:9"] {
            let same = "and the admin address 127.0.0.1:9 have the same port: choose another port";
            assert_eq!(error(health, in_use), format!("the health address {health} {same}"));
        }
        for (health, kind) in [("127.0.0.1:10", in_use), ("127.0.0.2:9", in_use), ("127.0.0.1:9", denied)] {
            let other = error(health, kind);
            assert!(other.starts_with("cannot listen on the admin address 127.0.0.1:9"), "{other}");
        }
    }

    #[tokio::test]
    async fn only_a_sidecar_reports_that_its_app_starts_without_a_configuration() {
        for beside_app in [false, true] {
            let proxy = start();
            let startup = Startup { since: Instant::now(), patience: Duration::ZERO, beside_app };
            warn_if_late(startup, proxy.metrics.clone(), proxy.process.clone()).await;
            assert_eq!(proxy.metrics.control.started_without.load(Relaxed), u64::from(beside_app));
        }
    }

    // D12
    #[test]
    fn the_threads_of_checks_names_and_sessions_are_named_if_a_task_hangs() {
        let proxy = start();
        let deadline = Instant::now() + Duration::from_secs(30);
        // At the end of time, all that give signs of life have been silent for too long.
        while !["control", "watchdog", "worker-0"].iter().all(|name| proxy.process.lives.hung(u64::MAX).contains(*name))
        {
            assert!(Instant::now() < deadline, "a thread gives no signs of life");
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_dies_ends_the_proxy_and_is_named() {
        let proxy = start();
        let guard = proxy.process.lives.guard("victim");
        let victim = thread::spawn(move || {
            let _guard = guard;
            panic!("as the test wants");
        });
        victim.join().expect_err("a panic");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !proxy.has_ended() {
            assert!(Instant::now() < deadline, "the proxy keeps running without one of its threads");
            thread::yield_now();
        }
        let died = proxy.finish().expect_err("a death").to_string();
        assert!(died.starts_with("victim ended unexpectedly"), "{died}");
    }
}

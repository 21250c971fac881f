//! `portlane-proxy`: serves a configuration and follows its changes.

mod document;
#[cfg(test)]
mod documented;
mod options;

use std::{
    error::Error,
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use proxy::{
    core::logging::farewell::farewell,
    draining::{self, Draining},
    handle::{Ended, Proxy},
    letters,
    log::{Level, LogFormat},
    operator::{self, GOODBYE, Operator},
    settings::{self, FEW_WORKERS, Settings},
};
use proxy_api::ListenerId;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::options::{Log, LogLevel, MaybeAddress, Messages, Tunnels, address};

/// musl pads the blocks of a session by a third, and unmaps free blocks at once; see the pool.
#[cfg(all(target_os = "linux", target_env = "musl"))]
#[global_allocator]
static POOL: proxy::sys::Pool = proxy::sys::Pool::new();

/// Pause between two signs of life of the thread that reads configurations.
const BEAT: Duration = Duration::from_secs(1);

/// Serves the listeners of a configuration and follows its changes.
///
/// The configuration is a document (YAML or JSON, as printed by `portlane translate`) or comes from an operator. An
/// invalid configuration is refused whole; the last good one stays in force.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  portlane translate -f forwards/ > config.yaml\n  portlane-proxy --config config.yaml"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration document.
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTLANE_CONFIG",
        conflicts_with = "operator",
        required_unless_present = "operator"
    )]
    config: Option<PathBuf>,
    /// Address of the operator that sends the configuration.
    #[arg(long, value_name = "HOST:PORT", env = "PORTLANE_OPERATOR", requires = "roots")]
    operator: Option<String>,
    /// CA certificates that may sign the operator's certificate, in PEM.
    #[arg(long, value_name = "PEM", env = "PORTLANE_ROOTS", hide_env_values = true, allow_hyphen_values = true)]
    roots: Option<String>,
    /// File with the service account token that identifies this pod to the operator.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/portlane/token", env = "PORTLANE_TOKEN_FILE")]
    token_file: PathBuf,
    /// Directory for the last good configuration and updated CA certificates.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/portlane", env = "PORTLANE_STATE_DIR")]
    state_dir: PathBuf,
    /// Address of /livez, /readyz and /metrics, or none.
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9180",
        env = "PORTLANE_HEALTH_ADDRESS",
        value_parser = address
    )]
    health_address: MaybeAddress,
    /// Address of /config, /listeners, /lag, /conns and /drain, on loopback, or none.
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9181",
        env = "PORTLANE_ADMIN_ADDRESS",
        value_parser = address
    )]
    admin_address: MaybeAddress,
    /// Unix socket that serves the endpoints of both addresses; `portlane-proxy probe` connects to it.
    #[arg(long, value_name = "FILE", env = "PORTLANE_SOCKET")]
    socket: Option<PathBuf>,
    /// Keep running if the health or admin address is taken, for example by the app in the same pod.
    #[arg(long, env = "PORTLANE_MAY_LACK_ADDRESSES", default_value_t = false)]
    may_lack_addresses: bool,
    /// Time for which a port that another program used is left alone after it became free. In a sidecar, this lets an
    /// app that restarts have its port back. 0: a free port is taken immediately.
    #[arg(long, value_name = "0..=3600", default_value_t = 0, env = "PORTLANE_YIELD_SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600))]
    yield_seconds: u32,
    /// How long `portlane-proxy probe startup` fails without a configuration; after that, the app of a sidecar may
    /// start.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, env = "PORTLANE_STARTUP_SECONDS")]
    startup_seconds: u32,
    /// Lowest level of log records; the access log is configured per forward.
    #[arg(long, value_enum, default_value_t = LogLevel::Info, env = "PORTLANE_LOG_LEVEL")]
    log_level: LogLevel,
    /// Number of worker threads. Absent: the CPU limit in whole CPUs, at most --max-workers.
    #[arg(long, value_name = "1..=256", env = "PORTLANE_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Maximum number of worker threads if --workers is absent. A gateway has its pod to itself and sets 16.
    #[arg(long, value_name = "1..=256", default_value_t = 2, env = "PORTLANE_MAX_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    max_workers: u16,
    /// Maximum number of TCP sessions, including connections that have not yet sent a PROXY header or server name; a
    /// UDP flow counts as half a session. 0: as many as fit into the memory limit of the process, if it has one.
    #[arg(long, value_name = "N", default_value_t = 0, env = "PORTLANE_MAX_SESSIONS")]
    max_sessions: usize,
    /// Maximum number of bytes buffered in memory for peers that do not read; with a memory limit, no more than a
    /// quarter of it.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, env = "PORTLANE_HELD_BYTES")]
    held_bytes: usize,
    /// Maximum number of bytes in kernel pipes for splicing; 0 disables splicing.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, env = "PORTLANE_PIPE_BYTES")]
    pipe_bytes: usize,
    /// Maximum number of UDP flows per socket; a Loopback listener has two sockets, for IPv4 and IPv6, and with more
    /// than two workers each has a socket of its own. 0: as many as the process holds. If files or memory run out, idle
    /// flows are evicted.
    #[arg(long, value_name = "N", default_value_t = 0, env = "PORTLANE_MAX_FLOWS")]
    max_flows: usize,
    /// Maximum time to wait for live sessions before the process exits.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, env = "PORTLANE_DRAIN_SECONDS")]
    drain_seconds: u32,
    /// Format of log records on standard output.
    #[arg(long, value_enum, default_value_t = Log::Json, env = "PORTLANE_LOG")]
    log: Log,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    tunnels: Tunnels,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Probes a proxy on this host through its unix socket; the exit code is the result. Kubelet runs this in pods.
    Probe {
        /// Kind of probe.
        #[arg(value_enum)]
        what: Probe,
        /// Unix socket of the proxy.
        #[arg(long, value_name = "FILE", env = "PORTLANE_SOCKET")]
        socket: PathBuf,
    },
    /// Prints the messages that sinks permanently refuse (dead letters), one JSON object on each line. Only reads their
    /// folder, which a proxy may use meanwhile.
    #[command(after_help = "Example:\n  kubectl exec edge-0 -c proxy -- /portlane-proxy letters shop/logs/syslog")]
    Letters {
        /// Listeners. Absent: all.
        #[arg(value_name = "NAMESPACE/FORWARD/LISTENER")]
        listeners: Vec<ListenerId>,
        /// Folder for the messages of durable listeners.
        #[arg(long, value_name = "DIR", env = "PORTLANE_DATA")]
        data: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// Whether the app may start.
    Startup,
    /// Whether a configuration is applied.
    Ready,
    /// Whether the proxy responds, and none of its threads hangs.
    Live,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Startup => "/startupz",
            Self::Ready => "/readyz",
            Self::Live => "/livez",
        }
    }
}

impl Args {
    fn workers(&self) -> NonZeroUsize {
        let number = |n: u16| NonZeroUsize::new(n.into());
        let most = number(self.max_workers).unwrap_or(FEW_WORKERS);
        self.workers.and_then(number).unwrap_or_else(|| settings::workers(most))
    }

    fn settings(&self) -> Settings {
        let usual = Settings::default();
        Settings {
            workers: self.workers(),
            held_bytes: self.held_bytes,
            max_sessions: self.max_sessions,
            pipe_bytes: self.pipe_bytes,
            max_flows: self.max_flows,
            log_format: match self.log {
                Log::Text => LogFormat::text(),
                Log::Json => LogFormat::Json,
            },
            log_level: match self.log_level {
                LogLevel::Info => Level::Info,
                LogLevel::Warn => Level::Warn,
                LogLevel::Error => Level::Error,
            },
            health: self.health_address.0,
            admin: self.admin_address.0,
            socket: self.socket.clone(),
            may_lack_addresses: self.may_lack_addresses,
            startup: Duration::from_secs(self.startup_seconds.into()),
            yield_for: Duration::from_secs(self.yield_seconds.into()),
            foreign_ports_file: self.operator.as_ref().map(|_| self.state_dir.join("foreign-ports.json")),
            drain_seconds: self.drain_seconds,
            data: self.messages.data.clone(),
            jetstream_credentials: self.messages.jetstream_credentials.clone(),
            jetstream_ca: self.messages.jetstream_ca.clone(),
            data_bytes: self.messages.bytes,
            data_drain_seconds: self.messages.drain,
            drain_only: self.messages.drain_only,
            // Agents stay with the pods that serve.
            tunnels: self.tunnels.settings(&self.state_dir).filter(|_| !self.messages.drain_only),
            sidecar: self.operator.as_ref().and_then(|_| self.tunnels.sidecar(&self.state_dir)),
            ..usual
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done: Result<(), Box<dyn Error>> = match &args.command {
        Some(Command::Probe { what, socket }) => proxy_grpc::probe(socket, what.path()).map_err(Into::into),
        Some(Command::Letters { listeners, data }) => {
            letters::print(data, listeners, io::stdout().lock()).map_err(Into::into)
        }
        None => run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                let _ = writeln!(io::stderr(), "  caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Until a stream exists, SIGHUP ends the process, and a supervisor may send it right after the start.
    let hangup = hangup(&runtime)?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let mut draining = args.messages.draining()?;
    let proxy = Proxy::start(&args.settings(), Box::new(io::stdout()))?;
    runtime.block_on(serve(args, &proxy, hangup, draining.as_mut()))?;
    proxy.finish()?;
    if let Some(draining) = draining {
        draining.finish()?;
    }
    Ok(())
}

fn hangup(runtime: &tokio::runtime::Runtime) -> io::Result<Signal> {
    let _context = runtime.enter();
    signal(SignalKind::hangup())
}

async fn serve(
    args: &Args,
    proxy: &Proxy,
    hangup: Signal,
    draining: Option<&mut Draining>,
) -> Result<(), Box<dyn Error>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut source = pin!(source(args, proxy, hangup));
    let mut over = pin!(draining::over(draining, proxy));
    let mut is_following = true;
    let life = proxy.alive("configuration source");
    let mut beats = tokio::time::interval(BEAT);
    let mut signalled = None;
    while signalled.is_none() && !proxy.has_ended() {
        life.beat();
        tokio::select! {
            _ = term.recv() => signalled = Some("SIGTERM"),
            _ = interrupt.recv() => signalled = Some("SIGINT"),
            // After a request to drain, the source ends at the next change, because nothing applies it.
            Ended = &mut source => {
                is_following = false;
                break;
            }
            () = &mut over => break,
            _ = beats.tick() => {}
        }
    }
    drop(life);
    if let Some(signal) = signalled {
        tell_drain(proxy, signal, args.drain_seconds);
    }
    proxy.drain(Duration::from_secs(args.drain_seconds.into())).await;
    let mut end = pin!(wait_for_end(args, proxy, signalled.is_some(), &mut term, &mut interrupt));
    // Meanwhile the source reports the drain, including sessions that were cut, to the operator.
    while is_following {
        tokio::select! {
            biased;
            Ended = &mut source => is_following = false,
            () = &mut end => break,
        }
    }
    if is_following && proxy.metrics().cut_by_drain() > 0 {
        let _ = tokio::time::timeout(GOODBYE, source).await;
    }
    if !proxy.has_ended() {
        end.await;
    }
    Ok(())
}

/// Logs the signal that ends the proxy, and what happens to its live sessions.
fn tell_drain(proxy: &Proxy, signal: &str, seconds: u32) {
    let longest = (!proxy.is_draining()).then_some(seconds.into());
    let message = format!("{signal}: {}", farewell(proxy.live_sessions(), longest));
    proxy.log().notice(Level::Info, "draining", "process", message);
}

/// Applies configurations from the file or the operator until the proxy ends. SIGHUP reads the file again; an operator
/// sends every change, so that there the signal has no effect.
async fn source(args: &Args, proxy: &Proxy, hangup: Signal) -> Ended {
    if let Some(address) = &args.operator {
        let operator = Operator {
            address: address.clone(),
            roots: args.roots.clone().unwrap_or_default(),
            token: args.token_file.clone(),
            state: args.state_dir.clone(),
            // An old configuration may lack listeners whose messages are there.
            uses_kept: !args.messages.drain_only,
        };
        return operator::follow(&operator, proxy).await.err().unwrap_or(Ended);
    }
    document::follow(args.config.clone().unwrap_or_default(), proxy, hangup).await
}

/// Waits for the last session to end. The first signal asks for a drain, even if one has already begun, and the second
/// one ends the wait.
async fn wait_for_end(args: &Args, proxy: &Proxy, mut is_signalled: bool, term: &mut Signal, interrupt: &mut Signal) {
    while !proxy.has_ended() {
        let signal = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = tokio::time::sleep(Duration::from_millis(20)) => continue,
        };
        if is_signalled {
            proxy.stop_waiting();
        } else {
            is_signalled = true;
            tell_drain(proxy, signal, args.drain_seconds);
        }
    }
}

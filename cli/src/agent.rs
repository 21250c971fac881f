//! `portlane agent`: dials a tunnel server from a machine that accepts no connections from outside, and connects its
//! streams to targets there.
//!
//! ```text
//! options, variables, file ─▶ Settings ─▶ Member: folder or join string ─▶ tunnel::agent ─▶ Teller: log and counts
//! ```

mod args;
mod counts;
mod damper;
#[cfg(test)]
mod documented;
mod enrolment;
mod error;
mod health;
mod settings;
mod telling;
mod texts;

use std::{env, ffi::OsString, io, pin::pin, process::ExitCode, rc::Rc, time::Duration};

use proxy::{
    clock::Clock,
    files,
    lives::Lives,
    log::{Level, Log as Notices, LogFormat, printable},
};
use proxy_api::with_causes;
use rustix::system::uname;
use tokio::{
    runtime::Builder,
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{LocalSet, spawn_local},
};
use tunnel::{
    agent::{self as tunnel_agent, Observer, run_observed},
    enrol::Renewal,
    identity::{agent::AgentFolder, tls::agent_config},
    secure::AgentTls,
};
use tunnel_core::{Limits, hello::Boot};

pub(crate) use self::args::{Agent, EXAMPLES};
use self::{
    args::{Log, Secret},
    counts::Counts,
    enrolment::Member,
    error::Error,
    settings::Settings,
    telling::Teller,
};
use crate::complain;

/// The most lines that wait for the output.
const QUEUE: usize = 1024;
/// The most endpoints at a time: of a larger fleet, some pods have no connection.
const ENDPOINTS: usize = 32;
/// Time to connect to an endpoint, and to a target.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Time for an answer to a join string, and to a renewal.
const ENROL_WITHIN: Duration = Duration::from_secs(20);
/// Interval between two reads of the clock, which may jump while the machine sleeps.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until a signal ends it, and then until streams have ended or their time is over.
pub(crate) fn run(args: &Agent) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {}", printable(&with_causes(&error))));
            ExitCode::from(error.code())
        }
    }
}

fn start(args: &Agent) -> Result<(), Error> {
    let file = args.config.as_deref().map(args::read).transpose()?.unwrap_or_default();
    let host = uname().nodename().to_string_lossy().into_owned();
    let settings = Settings::new(&args.options, &file, variable, &host)?;
    let join = enrolment::read(&settings)?;
    let format = if settings.log == Log::Json { LogFormat::Json } else { LogFormat::text() };
    // Each stream and flow takes a file descriptor: with the default limit of a process, a client that opens many in
    // one session would block the agent's connections to others.
    drop(files::of_process());
    let guard = Lives::new(Clock::start()).guard("log");
    let (log, writer) = Notices::start(format, Level::Info, QUEUE, Box::new(io::stdout()), guard)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let served = tasks.block_on(&runtime, Box::pin(serve(settings, join, log)));
    // The tasks hold the log.
    drop(tasks);
    writer.finish();
    // A lookup of a name may still run, but its result is not needed.
    runtime.shutdown_background();
    served
}

async fn serve(settings: Settings, join: Option<Secret>, log: Notices) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let folder = AgentFolder::open(&settings.data)?;
    // Held until the agent ends.
    let _lock = folder.lock()?;
    let counts = Rc::new(Counts::default());
    if let Some(address) = settings.health {
        let (listener, address) = health::listen(address)?;
        let message = format!("/livez, /readyz and /metrics are at http://{address}/");
        log.notice(Level::Info, "health", "portlane", message);
        spawn_local(health::serve(listener, counts.clone()));
    }
    announce(&settings, &log);
    let member = select! {
        member = Member::join(folder, &settings, join.as_ref(), &log) => member?,
        () = signals.next() => return Ok(()),
    };
    let teller = Rc::new(Teller::new(log, counts, settings.drain));
    let tls = AgentTls::new(agent_config(&member.key, &member.enrolled, member.way.clock.clone())?);
    spawn_local(renew(&member, tls.clone(), teller.clone()));
    let (stop, stopped) = watch::channel(false);
    let observer: Observer = Rc::new(move |event: &tunnel_agent::Event<'_>| teller.tell(event));
    let mut agent = pin!(run_observed(told(settings, member), tls, boot()?, stopped, observer));
    // The first signal begins the drain, the second one resets the remaining streams, and the third one exits at once.
    for _ in 0..2 {
        select! {
            () = &mut agent => return Ok(()),
            () = signals.next() => {}
        }
        stop.send_replace(true);
    }
    select! {
        () = &mut agent => {}
        () = signals.next() => {}
    }
    Ok(())
}

/// Logs the targets that streams may reach.
fn announce(settings: &Settings, log: &Notices) {
    let entries: Vec<String> = settings.allow.entries().iter().map(ToString::to_string).collect();
    let instance = settings.instance.as_str();
    if entries.is_empty() {
        let message = "no target is allowed, so every stream is refused: name targets with --allow HOST:PORT";
        log.notice(Level::Warn, "allowed", instance, message);
    } else {
        log.notice(Level::Info, "allowed", instance, format!("streams may lead to {}", entries.join(", ")));
    }
}

/// Keeps the certificate valid.
fn renew(member: &Member, tls: AgentTls, teller: Rc<Teller>) -> impl Future<Output = ()> + use<> {
    let (folder, addresses) = (member.folder.clone(), member.addresses.clone());
    let renewal = Renewal { folder, addresses, way: member.way.clone(), chance, look: LOOK };
    let enrolled = member.enrolled.clone();
    async move { renewal.run_observed(&tls, enrolled, |renewed| teller.renewed(renewed)).await }
}

/// Converts the settings for the agent in the tunnel crate.
fn told(settings: Settings, member: Member) -> tunnel_agent::Settings {
    tunnel_agent::Settings {
        addresses: member.addresses,
        proxy: settings.proxy,
        instance: settings.instance,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        allow: settings.allow,
        limits: Limits::default(),
        max_endpoints: ENDPOINTS,
        connect_within: CONNECT_WITHIN,
        drain_within: settings.drain,
        chance,
        unacknowledged: proxy::sys::unacknowledged,
    }
}

/// Reads a variable of the environment.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// Generates a name for this run.
fn boot() -> io::Result<Boot> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Boot(bytes))
}

/// Returns a random number from 0 up to, but not including, 1.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / (f64::from(u32::MAX) + 1.0))
}

/// The signals that end the agent.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    async fn next(&mut self) {
        select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

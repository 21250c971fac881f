//! `portlane status`, `conns`, `top`, `lag` and `config`: reports on a process on this machine, by its admin address,
//! in the form of the plugin for clusters.

mod admin;
mod args;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use kubectl_core::{
    access::Listed,
    conns, lag,
    local::{Process, Scope},
    render,
    status::Verdict,
    top::{self, Report, Sample},
};
use proxy::http::SESSIONS;
use tokio::{runtime::Builder, sync::watch, time::sleep};

pub(crate) use self::args::Verb;
use self::{
    admin::get,
    args::{Config, Conns, Lag, Status, Top},
};
use crate::{
    error::Error,
    output::{self, Format},
    view,
};

/// Exit code: a forward does not run.
const FAILED: u8 = 1;
/// Exit code: something could not be read.
const INCOMPLETE: u8 = 3;
/// Interval between two reads of live sessions.
const REFRESH: Duration = Duration::from_secs(2);

/// Runs a verb. Returns the exit code.
pub(crate) fn run(verb: &Verb) -> Result<u8, Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(async {
        match verb {
            Verb::Status(args) => status(args).await,
            Verb::Conns(args) => list(args).await,
            Verb::Top(args) => follow(args).await,
            Verb::Lag(args) => behind(args).await,
            Verb::Config(args) => config(args).await,
        }
    }))
}

async fn status(args: &Status) -> Result<u8, Error> {
    let address = args.process.admin_address;
    let configuration = get(address, "/config").await?;
    let process = Process { configuration, ..sessions(address).await? };
    let scope = args.place.scope(None);
    named(&process, &scope)?;
    let report = process.status(env!("CARGO_PKG_VERSION"), &scope, cut(&process));
    output::print(&report, args.output, render::local_status)?;
    Ok(match report.verdict() {
        Verdict::Ok => 0,
        Verdict::Failed => FAILED,
        Verdict::Incomplete => INCOMPLETE,
    })
}

async fn list(args: &Conns) -> Result<u8, Error> {
    let scope = args.place.scope(args.forward.as_ref());
    loop {
        let process = sessions(args.process.admin_address).await?;
        named(&process, &scope)?;
        let report = conns::report(&process.sessions(&scope), args.list.query(), cut(&process));
        let code = if report.notes.is_empty() { 0 } else { INCOMPLETE };
        if !args.list.watch {
            output::print(&report, args.list.output, render::conns)?;
            return Ok(code);
        }
        if !output::reprint(&report, args.list.output, render::conns)? {
            return Ok(code);
        }
        sleep(REFRESH).await;
    }
}

async fn follow(args: &Top) -> Result<u8, Error> {
    let start = Instant::now();
    let (first, report) = Box::pin(sample(args, start, None)).await?;
    if args.once || args.output != Format::Text || !view::has_viewer() {
        sleep(REFRESH).await;
        let (_, report) = Box::pin(sample(args, start, Some(&first))).await?;
        output::print(&report, args.output.into(), render::top)?;
        return Ok(if report.notes.is_empty() { 0 } else { INCOMPLETE });
    }
    let (out, latest) = watch::channel(report);
    tokio::select! {
        sent = send(args, start, first, out) => sent?,
        shown = view::show(latest) => shown?,
    }
    Ok(0)
}

/// Takes one reading, and makes the report on it.
async fn sample(args: &Top, start: Instant, before: Option<&Sample>) -> Result<(Sample, Report), Error> {
    let scope = args.place.scope(None);
    let process = sessions(args.process.admin_address).await?;
    named(&process, &scope)?;
    let (forwards, pods) = (Listed::default(), Ok(Listed::default()));
    let now = Sample { at: start.elapsed(), forwards, pods, sessions: process.sessions(&scope) };
    let mut report = top::local(before, &now, process.forwards(&scope));
    report.notes.extend(cut(&process));
    Ok((now, report))
}

/// Sends reports until the receiver is gone. Fails if the process cannot be read.
async fn send(args: &Top, start: Instant, first: Sample, out: watch::Sender<Report>) -> Result<(), Error> {
    let mut before = first;
    loop {
        sleep(REFRESH).await;
        let (now, report) = Box::pin(sample(args, start, Some(&before))).await?;
        before = now;
        if out.send(report).is_err() {
            return Ok(());
        }
    }
}

async fn behind(args: &Lag) -> Result<u8, Error> {
    let address = args.process.admin_address;
    let report = get(address, "/listeners").await?;
    let process = Process { address: address.to_string(), report, ..Process::default() };
    let scope = args.place.scope(args.forward.as_ref());
    named(&process, &scope)?;
    let mut listeners: Vec<lag::Listener> = get(address, "/lag").await?;
    listeners.retain(|listener| scope.has_listener(&listener.listener));
    output::print(&lag::report(listeners, Vec::new()), args.output, render::lag)?;
    Ok(0)
}

async fn config(args: &Config) -> Result<u8, Error> {
    let address = args.process.admin_address;
    // The state is read last, so that it is not older than the configuration with which it is compared.
    let configuration = get(address, "/config").await?;
    let report = get(address, "/listeners").await?;
    let process = Process { address: address.to_string(), configuration, report, sessions: Vec::new() };
    output::print(&process.config(), args.output, render::config)?;
    Ok(0)
}

/// Reads the listeners of the process, and its live sessions.
async fn sessions(address: SocketAddr) -> Result<Process, Error> {
    let report = get(address, "/listeners").await?;
    let sessions = get(address, "/conns").await?;
    Ok(Process { address: address.to_string(), report, sessions, ..Process::default() })
}

/// Fails if none of the forwards that the user has named exists.
fn named(process: &Process, scope: &Scope) -> Result<(), Error> {
    process.missing(scope).map_or(Ok(()), |why| Err(Error::NoForward(why)))
}

/// The note about a list that has reached its maximum length.
fn cut(process: &Process) -> Option<String> {
    (process.sessions.len() >= SESSIONS).then(|| format!("the process lists no more than {SESSIONS} sessions"))
}

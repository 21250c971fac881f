//! `kubectl portlane forward KIND/NAME [LOCAL:]PORT...`: listens on loopback and connects each client to a ready pod,
//! through the API server. `kubectl portlane run` uses the same for the Services of manifests (`attached`).

mod attached;
mod followed;
mod port;
mod relay;
mod source;
mod watched;

use std::{rc::Rc, time::Duration};

use kubectl_core::forward::open_port::OpenPort;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

pub(crate) use self::attached::Attached;
use self::{followed::Followed, port::Shared, source::Source};
use crate::{
    args::{Format, Forward},
    cluster::Cluster,
    error::Error,
    output::{json_line, write, yaml_document},
};

/// Bounds of sessions with pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest time from the start of a connection until a ready pod has it.
    pub(crate) wait: Duration,
    /// Most sessions at the same time.
    pub(crate) max_sessions: usize,
    /// The option that allows more sessions.
    pub(crate) option: &'static str,
}

/// Forwards until a signal ends the program.
pub(crate) async fn run(cluster: &Cluster, args: &Forward) -> Result<(), Error> {
    LocalSet::new().run_until(Box::pin(serve(cluster, args))).await
}

async fn serve(cluster: &Cluster, args: &Forward) -> Result<(), Error> {
    // Sessions outlive the terminal, as with `run`: this stream replaces the default of SIGHUP for good.
    let _hangup = signal(SignalKind::hangup())?;
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let source = Source::open(cluster, &args.target).await?;
    raise_file_limit();
    let (wait, max_sessions) = (Duration::from_secs(args.wait), args.max_sessions.into());
    let limits = Limits { wait, max_sessions, option: "--max-sessions" };
    let shared = Rc::new(Shared::new(args.target.to_string(), &limits, Rc::default()));
    let mut followed = Followed::new(cluster, source, shared.clone());
    let wanted = if args.ports.is_empty() { followed.usual() } else { args.ports.clone() };
    // Either all local ports are open before the first line, or none is.
    for mapping in &wanted {
        followed.open(mapping)?;
    }
    for opened in followed.opened() {
        write(&text(&opened.record(), args.output)?)?;
    }
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            () = followed.step() => {}
        }
    }
    shared.summarise();
    Ok(())
}

/// Formats a local port as the user requested.
fn text(port: &OpenPort, format: Format) -> Result<String, Error> {
    Ok(match format {
        Format::Text => port.line(),
        Format::Json => json_line(port)?,
        Format::Yaml => yaml_document(port)?,
    })
}

/// Raises the limit on open files: a session has two sockets, and macOS gives a process 256 files by default.
fn raise_file_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    // If the limit stays as it was, excess connections are refused with a reason.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

//! `kubectl portlane forward KIND/NAME [LOCAL:]PORT...`: listens on loopback and connects each client to a ready pod,
//! through the API server.

mod args;
mod attach;
mod port;
mod relay;
mod source;
mod watched;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use kubectl_core::forward::{
    endpoints::Unresolved,
    mapping::{Mapping, Remote},
    tally::Tally,
    target::Target,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{LocalSet, spawn_local},
    time::{Instant, interval},
};

pub(crate) use self::args::Forward;
use self::{
    port::{Listeners, Port, Shared},
    source::Source,
};
use crate::{cluster::Cluster, error::Error, output::write};

/// Time between two looks at pods that have sessions and are no longer endpoints.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Forwards until a signal ends the program.
pub(crate) async fn run(cluster: &Cluster, args: &Forward) -> Result<(), Error> {
    LocalSet::new().run_until(Box::pin(serve(cluster, args))).await
}

async fn serve(cluster: &Cluster, args: &Forward) -> Result<(), Error> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Fails with the address of an API server that cannot be used, before any watch does.
    cluster.now().await?;
    let mut source = Source::open(cluster, &args.target).await?;
    raise_file_limit();
    let shared = Rc::new(Shared {
        target: args.target.clone(),
        wait: args.wait(),
        started: Instant::now(),
        most: args.max_sessions(),
        live: Cell::new(0),
        tally: RefCell::new(Tally::default()),
    });
    let ports = open(&source, &shared, args)?;
    for (port, _) in &ports {
        update(&source, port);
    }
    for (port, listeners) in ports.iter().cloned() {
        let line = format!("{} → {} {} ({})\n", listeners.addresses(), args.target, port.remote, port.pods_ready());
        write(&line)?;
        spawn_local(port.accept(listeners));
    }
    let mut look = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            problem = source.changed(cluster) => {
                if let Some(problem) = problem {
                    shared.tell(&format!("the pods may be those of a moment ago: {problem}"));
                }
                for (port, _) in &ports {
                    update(&source, port);
                }
            }
            _ = look.tick() => {
                for (port, _) in &ports {
                    for pod in port.suspects() {
                        spawn_local(port.clone().look_at(cluster.clone(), source.namespace().to_owned(), pod));
                    }
                }
            }
        }
    }
    shared.summarise();
    Ok(())
}

/// A local port, and the sockets that listen on it.
type Opened = (Rc<Port>, Rc<Listeners>);

/// Listens on all local ports, or on none.
fn open(source: &Source, shared: &Rc<Shared>, args: &Forward) -> Result<Vec<Opened>, Error> {
    let wanted = if args.ports.is_empty() { source.usual() } else { args.ports.clone() };
    wanted.iter().map(|mapping| open_one(source, shared, mapping)).collect()
}

fn open_one(source: &Source, shared: &Rc<Shared>, mapping: &Mapping) -> Result<Opened, Error> {
    let number = source.number(&mapping.remote)?;
    let local = mapping.local_port(number).ok_or_else(|| no_local_port(&shared.target, &mapping.remote))?;
    let listeners = Listeners::bind(local)?;
    let remote = source.followed(&mapping.remote);
    Ok((Rc::new(Port::new(shared.clone(), remote, source.pods_api())), Rc::new(listeners)))
}

fn no_local_port(target: &Target, remote: &Remote) -> Error {
    Error::NoLocalPort { target: target.to_string(), port: remote.to_string() }
}

/// Gives a port its newest endpoints.
fn update(source: &Source, port: &Port) {
    let found = source.endpoints(&port.remote);
    let problem: Option<Unresolved> = found.as_ref().err().cloned();
    port.set(found.unwrap_or_default(), source.pods_api(), problem);
}

/// A session has two sockets; macOS gives a process 256 by default.
fn raise_file_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    // A refusal leaves the limit as it was, and a connection too many is refused with its reason.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

//! `kubectl portlane run`: `portlane run` with the Services of a cluster, which are reached through the API server.

use std::{io, time::Duration};

use clap::Args;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::{
    args::Connection,
    cluster::Cluster,
    error::Error,
    forward::{Attached, Limits},
};

/// Arguments of `kubectl portlane run`.
#[derive(Args, Debug)]
pub(crate) struct ClusterRun {
    #[command(flatten)]
    pub(crate) run: portlane::Run,
    /// Most sessions with pods at the same time, each of which is a connection to the API server.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    max_attached: u16,
    /// Longest time from the start of a connection until a ready pod has it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait: u64,
}

impl ClusterRun {
    fn limits(&self) -> Limits {
        Limits { wait: Duration::from_secs(self.wait), max_sessions: self.max_attached.into() }
    }
}

/// Runs until a signal ends the program. The end of the proxy waits for its threads, so that this is no async function.
pub(crate) fn run(runtime: &Runtime, connection: &Connection, args: &ClusterRun) -> Result<(), Error> {
    ignore_hangup(runtime)?;
    let tasks = LocalSet::new();
    let cluster = tasks.block_on(runtime, Box::pin(connect(connection, args)))?;
    let namespace = cluster.namespace.clone();
    let services = Attached::new(cluster, args.limits());
    portlane::run_with(&args.run, &namespace, services, runtime, &tasks).map_err(Error::from)
}

/// Keeps SIGHUP from ending the program while the cluster is asked; from then on, the proxy reads its files again.
fn ignore_hangup(runtime: &Runtime) -> io::Result<()> {
    let _context = runtime.enter();
    signal(SignalKind::hangup()).map(drop)
}

async fn connect(connection: &Connection, args: &ClusterRun) -> Result<Cluster, Error> {
    let cluster = Cluster::connect(connection).await?;
    if !args.run.only_prints() {
        // Fails with the address of an API server that cannot be used, before the proxy starts.
        cluster.now().await?;
    }
    Ok(cluster)
}

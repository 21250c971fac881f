//! `kubectl portlane run`: `portlane run` with the Services of a cluster, which are reached through the API server.

use std::{io, time::Duration};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::{
    args::{ClusterRun, Connection},
    cluster::Cluster,
    error::Error,
    forward::{Attached, Limits},
};

/// Runs until a signal ends the program. The function is not async, because the end of the proxy waits for its threads.
pub(crate) fn run(runtime: &Runtime, connection: &Connection, args: &ClusterRun) -> Result<(), Error> {
    ignore_hangup(runtime)?;
    let tasks = LocalSet::new();
    let cluster = tasks.block_on(runtime, Box::pin(connect(connection, args)))?;
    let namespace = cluster.namespace.clone();
    let (wait, max_sessions) = (Duration::from_secs(args.wait), args.max_attached.into());
    let limits = Limits { wait, max_sessions, option: "--max-attached" };
    let services = Attached::new(cluster, limits);
    portlane::run_with(&args.run, &namespace, services, runtime, &tasks).map_err(Error::from)
}

/// Keeps SIGHUP from ending the program while the cluster is read; later, SIGHUP makes the proxy reload its files.
fn ignore_hangup(runtime: &Runtime) -> io::Result<()> {
    let _context = runtime.enter();
    signal(SignalKind::hangup()).map(drop)
}

async fn connect(connection: &Connection, args: &ClusterRun) -> Result<Cluster, Error> {
    let cluster = Cluster::connect(connection).await?;
    if !args.run.only_prints() {
        // An unusable API server is reported with its address before the proxy starts.
        cluster.now().await?;
    }
    Ok(cluster)
}

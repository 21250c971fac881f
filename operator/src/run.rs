//! Startup and shutdown: builds the parts of the operator, connects them, and waits for a signal.

mod apis;
mod drive;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kube::{Api, Client};
use proxy_grpc::{Door, TlsError};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinHandle},
    time::timeout,
};

use operator_core::{desired::ca::Trusted, world::schema::Lack};

use crate::{
    inputs::{schemas, streams::Streams, webhook::SharedSelectors},
    platform::{
        client, doors,
        ending::Ending,
        http,
        lease::{Candidate, Election, Ended, Returns, Term},
        listen::{host, listen, listen_at},
        liveness::Liveness,
        metrics::Metrics,
        pki::{Authority, Leaf},
        serving::{Keeper, Serving},
        tasks::{Fault, Supervisor, Tasks},
    },
    settings::Settings,
};

/// The task of the leader election, in logs and errors.
const ELECTION: &str = "leader election";
/// Timeout of releasing the Lease, and of the answers to API servers.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why an operator cannot start, or cannot keep running.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No API server is configured.
    #[error("no API server is configured: neither the ServiceAccount of a pod nor a kubeconfig can be used")]
    Client(#[source] Box<kube::Error>),
    /// An address cannot be bound.
    #[error("cannot listen on the {role} address; choose another one")]
    Address {
        /// The purpose of the address.
        role: &'static str,
        /// Why binding failed.
        #[source]
        source: io::Error,
    },
    /// The unix socket cannot be bound.
    #[error("cannot listen on the unix socket {}; choose a path that the operator may write (PORTLANE_SOCKET, which its probes read too)", .path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// Why binding failed.
        #[source]
        source: io::Error,
    },
    /// Signal handlers cannot be installed.
    #[error("cannot install signal handlers")]
    Signals(#[source] io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    /// The thread that serves the webhook cannot be started.
    #[error("cannot start the thread that serves the webhook")]
    Webhook(#[source] io::Error),
    /// The API server's store was restored to an earlier state, so the caches may hold objects that are not in it.
    #[error("the API server's store was restored to an earlier state; this replica exits and starts over")]
    SetBack,
    /// TLS for notices cannot be set up.
    #[error("cannot set up TLS for notices")]
    Notices(#[source] rustls::Error),
    /// A task that the replica depends on has ended.
    #[error(transparent)]
    Task(#[from] Fault),
}

/// State that all parts of one replica share.
pub(super) struct Replica {
    settings: Settings,
    client: Client,
    /// The client of watches.
    watches: Client,
    /// The current term; absent while this replica does not lead.
    term: watch::Receiver<Term>,
    /// The CA bundle that proxies and API servers should trust.
    trusted: watch::Receiver<Trusted>,
    /// The serving certificate, for proxies.
    leaf: Arc<Leaf>,
    /// The serving certificate for API servers.
    serving: Serving,
    /// The fields that the installed CRDs lack.
    lacks: watch::Receiver<Vec<Lack>>,
    metrics: Arc<Metrics>,
    /// Pod selectors of sidecar forwards.
    selectors: Arc<SharedSelectors>,
    /// Addresses of the API servers.
    api_servers: Arc<doors::ApiServers>,
    tasks: Tasks,
    /// Heartbeats of the loops.
    liveness: Liveness,
    /// The end of this replica, for the servers that API servers connect to.
    ending: Ending,
    /// Signals that the API server answers again.
    returns: Returns,
}

async fn open(role: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    listen(address).await.map_err(|source| RunError::Address { role, source })
}

/// Runs until SIGTERM or SIGINT; ignores SIGHUP.
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings) -> Result<(), RunError> {
    // SIGHUP has no meaning here. Its default would end the process, and this stream replaces the default for good.
    let _hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let (client, watches) = client::connect().await.map_err(|error| RunError::Client(Box::new(error)))?;
    let listener = open("stream", settings.stream_address).await?;
    let metrics = Arc::new(Metrics::default());
    let (tasks, supervisor) = Tasks::new();
    let liveness = Liveness::default();
    let (driver, lease) = (liveness.heartbeat("the driver"), liveness.heartbeat("the leader election"));
    let (synced, is_synced) = watch::channel(false);
    let (ready, trusted) = watch::channel(false);
    let view = http::View { metrics: metrics.clone(), synced: is_synced, trusted, liveness: liveness.clone() };
    health(&settings, view, &tasks).await?;
    // The sender outlives the election: the driver runs until the process ends, whichever replica leads.
    let (term, terms) = watch::channel(None);
    let (end, ends) = watch::channel(false);
    let (election, returns) = Election::new(client.clone(), candidate(&settings), metrics.clone(), lease);
    let election = tasks.job(ELECTION, election.run(term.clone(), ends.clone()));
    let (trust, trusted) = watch::channel(Trusted::default());
    let (authority, leaf) = authority(&settings, &client, trust);
    tasks.service(
        "certificates",
        authority.keep(terms.clone(), metrics.clone(), liveness.heartbeat("the upkeep of the CA")),
    );
    let (compared, lacks) = watch::channel(Vec::new());
    let checks = liveness.heartbeat("the checks of the CRDs");
    tasks.service("checks of the CRDs", schemas::keep(client.clone(), compared, metrics.clone(), checks));
    let own = Serving { leaf: leaf.clone(), trusted: trusted.clone() };
    let serving = serving(&settings, &client, own, &metrics, (&tasks, &liveness));
    let replica = Replica {
        settings,
        client,
        watches,
        term: terms,
        trusted,
        leaf,
        serving,
        lacks,
        metrics,
        selectors: Arc::default(),
        api_servers: Arc::default(),
        tasks,
        liveness,
        ending: Ending::new(ends.clone()),
        returns,
    };
    apis::webhook(&replica, ready).await?;
    let questions = apis::aggregated(&replica).await?;
    let notices = apis::notices(&replica)?;
    let streams = drive::start(&replica, synced, questions, notices, driver);
    let door = doors::stream(&replica.settings, &replica.metrics);
    let serving = serve(listener, replica.leaf.clone(), streams, door, ends);
    let accepting = replica.liveness.heartbeat("the server of streams");
    let serving = async move { accepting.idle(serving).await };
    let result = wait(serving, end, election, supervisor, &replica.ending).await;
    drop(term);
    result
}

/// Serves health and metrics at a port and, if one is named, at a unix socket.
async fn health(settings: &Settings, view: http::View, tasks: &Tasks) -> Result<(), RunError> {
    let (listener, metrics) = (open("health", settings.health_address).await?, view.metrics.clone());
    if let Some(path) = &settings.socket {
        let socket = listen_at(path).map_err(|source| RunError::Socket { path: path.clone(), source })?;
        tasks.service("server of probes", http::serve_file(socket, view.clone(), doors::probes(&metrics)));
    }
    tasks.service("health server", http::serve(listener, view, doors::health(&metrics)));
    Ok(())
}

/// The CA of this installation, and the serving certificate of this replica.
fn authority(settings: &Settings, client: &Client, trust: watch::Sender<Trusted>) -> (Authority, Arc<Leaf>) {
    let life = Duration::from_secs(settings.certificate_seconds);
    let hosts = [host(&settings.operator).to_owned(), metrics_host(settings)];
    let secrets = Api::namespaced(client.clone(), &settings.namespace);
    Authority::new(secrets, &settings.roots_secret, &hosts, life, trust)
}

/// The name by which the aggregator calls the metrics API.
fn metrics_host(settings: &Settings) -> String {
    format!("{}.{}.svc", settings.custom_metrics_service, settings.namespace)
}

/// The serving certificate for API servers: that of a Secret if one is named, or else the operator's own.
fn serving(
    settings: &Settings,
    client: &Client,
    own: Serving,
    metrics: &Arc<Metrics>,
    (tasks, liveness): (&Tasks, &Liveness),
) -> Serving {
    let Some(secret) = &settings.serving_secret else { return own };
    let metrics_host = settings.custom_metrics_address.map(|_| metrics_host(settings));
    let hosts = [host(&settings.operator).to_owned()].into_iter().chain(metrics_host).collect();
    let secrets = Api::namespaced(client.clone(), &settings.namespace);
    let (keeper, serving) = Keeper::new(secrets, secret, hosts, metrics.clone());
    tasks.service(
        "certificate of webhook and metrics API",
        keeper.keep(liveness.heartbeat("the upkeep of the serving certificate")),
    );
    serving
}

fn candidate(settings: &Settings) -> Candidate {
    // A restarted container is a new candidate: its predecessor may still be writing.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Candidate {
        namespace: settings.namespace.clone(),
        name: settings.lease.clone(),
        identity: format!("{}_{now}", settings.pod),
    }
}

async fn serve(
    listener: TcpListener,
    leaf: Arc<Leaf>,
    streams: Streams,
    door: Arc<Door>,
    mut end: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let tls = proxy_grpc::server_config(leaf).map_err(RunError::Tls)?;
    let ended = async move {
        let _ = end.wait_for(|end| *end).await;
    };
    proxy_grpc::serve(listener, Arc::new(tls), door, Arc::new(streams), ended).await;
    Ok(())
}

/// Waits for a signal or a fault. Then releases the Lease, and answers the requests of API servers that have arrived.
/// Streams end with the process.
async fn wait(
    serving: impl Future<Output = Result<(), RunError>>,
    end: watch::Sender<bool>,
    mut election: JoinHandle<Option<Ended>>,
    mut supervisor: Supervisor,
    ending: &Ending,
) -> Result<(), RunError> {
    let mut term = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let result = tokio::select! {
        // Without a request to shut down, the server of streams never ends.
        result = serving => result.and(Err(Fault::Ended("streams of proxies".into()).into())),
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = &mut election => return Err(left(&ended)),
        fault = supervisor.fault() => Err(fault.into()),
    };
    tracing::info!("shutting down, releasing the Lease");
    end.send_replace(true);
    let _ = timeout(GOODBYE, async { tokio::join!(election, ending.all_closed()) }).await;
    result
}

/// Why this replica left the election without a request to shut down.
fn left(ended: &Result<Option<Ended>, JoinError>) -> RunError {
    match ended {
        Ok(Some(Ended::SetBack)) => RunError::SetBack,
        Ok(Some(Ended::Asked)) => Fault::Ended(ELECTION.into()).into(),
        Ok(None) | Err(_) => Fault::Panicked(ELECTION.into()).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    // C4
    #[tokio::test]
    async fn a_task_that_panics_is_named_and_ends_the_replica_which_releases_the_lease() {
        let (tasks, supervisor) = Tasks::new();
        let (end, ends) = watch::channel(false);
        let (releases, is_released) = watch::channel(false);
        let mut asked = ends.clone();
        let election = tasks.job(ELECTION, async move {
            let _ = asked.wait_for(|end| *end).await;
            releases.send_replace(true);
            Ended::Asked
        });
        tasks.service("driver", async { assert_eq!(1, 2, "on purpose") });
        let ending = Ending::new(ends);
        let ended = timeout(Duration::from_secs(20), wait(pending(), end, election, supervisor, &ending)).await;
        let fault = ended.expect("in time").expect_err("a task has panicked").to_string();
        assert_eq!(fault, "the task 'driver' panicked; this replica exits");
        assert!(*is_released.borrow());
    }
}

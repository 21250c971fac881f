//! Startup and shutdown: builds the parts of the operator, connects them, and waits for a signal.

mod apis;
mod drive;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kube::{Api, Client};
use proxy_grpc::{Limits, TlsError};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use operator_core::desired::ca::Trusted;

use crate::{
    inputs::{streams::Streams, webhook::Selectors},
    platform::{
        http,
        lease::{Candidate, Election, Ended, Term},
        listen::{host, listen},
        metrics::Metrics,
        pki::{Authority, Leaf},
    },
    settings::Settings,
};

/// Longest interval between two checks of the CA and the serving certificate.
const CERTIFICATES: Duration = Duration::from_secs(60);
/// The same interval while the serving certificate is missing, or after a check that failed.
const CERTIFICATES_SOON: Duration = Duration::from_secs(1);
/// Concurrent TLS handshakes.
const HANDSHAKES: usize = 64;
/// Timeout of releasing the Lease.
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
        /// What the address serves.
        role: &'static str,
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
}

/// State that all parts of one replica share.
pub(super) struct Replica {
    settings: Settings,
    client: Client,
    /// The current term; absent while this replica does not lead.
    term: watch::Receiver<Term>,
    /// The CA bundle that proxies and API servers should trust.
    trusted: watch::Receiver<Trusted>,
    /// The serving certificate.
    leaf: Arc<Leaf>,
    metrics: Arc<Metrics>,
    /// Pod selectors of sidecar forwards.
    selectors: Arc<Selectors>,
}

async fn open(role: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    listen(address).await.map_err(|source| RunError::Address { role, source })
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let client = Client::try_default().await.map_err(|error| RunError::Client(Box::new(error)))?;
    let health = open("health", settings.health_address).await?;
    let listener = open("stream", settings.stream_address).await?;
    let metrics = Arc::new(Metrics::default());
    let (synced, is_synced) = watch::channel(false);
    let (ready, trusted) = watch::channel(false);
    tokio::spawn(http::serve(health, http::View { metrics: metrics.clone(), synced: is_synced, trusted }));
    let (term, terms) = watch::channel(None);
    let (end, ends) = watch::channel(false);
    let election = Election::new(client.clone(), candidate(&settings), metrics.clone());
    let election = tokio::spawn(election.run(term, ends.clone()));
    let (trust, trusted) = watch::channel(Trusted::default());
    let life = Duration::from_secs(settings.certificate_seconds);
    let hosts = [
        host(&settings.operator).to_owned(),
        format!("{}.{}.svc", settings.custom_metrics_service, settings.namespace),
    ];
    let secrets = Api::namespaced(client.clone(), &settings.namespace);
    let (authority, leaf) = Authority::new(secrets, &settings.roots_secret, &hosts, life, trust);
    tokio::spawn(certificates(authority, CERTIFICATES.min(life / 8), terms.clone(), metrics.clone()));
    let selectors = Arc::default();
    let replica = Replica { settings, client, term: terms, trusted, leaf, metrics, selectors };
    apis::webhook(&replica, ready).await?;
    let questions = apis::metrics(&replica).await?;
    let notices = apis::notices(&replica)?;
    let streams = drive::start(&replica, synced, questions, notices);
    let serving = serve(listener, replica.leaf.clone(), streams, replica.settings.max_proxies, ends);
    wait(serving, end, election).await
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

async fn certificates(mut authority: Authority, often: Duration, term: watch::Receiver<Term>, metrics: Arc<Metrics>) {
    let mut failing = false;
    loop {
        let leads = term.borrow().is_some();
        let pause = match authority.refresh(leads).await {
            Ok(end) => {
                failing = false;
                metrics.certificate_end.set(end.and_then(|end| i64::try_from(end).ok()).unwrap_or(0));
                if end.is_some() { often } else { CERTIFICATES_SOON }
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, cause, "cannot refresh certificates, keeping the current ones, will retry");
                }
                CERTIFICATES_SOON
            }
        };
        sleep(pause).await;
    }
}

async fn serve(
    listener: TcpListener,
    leaf: Arc<Leaf>,
    streams: Streams,
    connections: usize,
    mut end: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let tls = proxy_grpc::server_config(leaf).map_err(RunError::Tls)?;
    let limits = Limits { connections, handshakes: HANDSHAKES };
    let ended = async move {
        let _ = end.wait_for(|end| *end).await;
    };
    proxy_grpc::serve(listener, Arc::new(tls), limits, Arc::new(streams), ended).await;
    Ok(())
}

/// Waits for a signal and then releases the Lease. Streams end with the process.
async fn wait(
    serving: impl Future<Output = Result<(), RunError>>,
    end: watch::Sender<bool>,
    mut election: JoinHandle<Ended>,
) -> Result<(), RunError> {
    let mut term = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let result = tokio::select! {
        result = serving => result,
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Ok(Ended::SetBack) = &mut election => return Err(RunError::SetBack),
    };
    tracing::info!("shutting down, releasing the Lease");
    end.send_replace(true);
    let _ = timeout(GOODBYE, election).await;
    result
}

//! Putting the parts together, and taking them apart again.

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
        metrics::Metrics,
        pki::{Authority, Leaf},
    },
    settings::Settings,
};

/// How often roots and leaf are looked at, at least.
const CERTIFICATES: Duration = Duration::from_secs(60);
/// The same while there is none.
const CERTIFICATES_SOON: Duration = Duration::from_secs(1);
/// Handshakes at once.
const HANDSHAKES: usize = 64;
/// Longest time for giving the Lease back.
const GOODBYE: Duration = Duration::from_secs(5);

/// An operator that cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No API server is configured.
    #[error("no way to the API server: neither a ServiceAccount of a pod nor a kubeconfig")]
    Client(#[source] Box<kube::Error>),
    /// An address is taken.
    #[error("the {role} address cannot be opened; choose another one")]
    Address {
        /// Which.
        role: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be listened to.
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// The webhook cannot have a thread.
    #[error("the webhook cannot be served")]
    Webhook(#[source] io::Error),
    /// What is known may be of a future that never was.
    #[error("the API server's store was set back: this replica starts anew with what there is now")]
    SetBack,
    /// The same, for notices.
    #[error("TLS cannot be set up for notices")]
    Notices(#[source] rustls::Error),
}

/// What all parts of one replica share.
pub(super) struct Replica {
    settings: Settings,
    client: Client,
    /// Whether it leads.
    term: watch::Receiver<Term>,
    /// What proxies and API servers are to trust.
    trusted: watch::Receiver<Trusted>,
    /// What they are shown.
    leaf: Arc<Leaf>,
    metrics: Arc<Metrics>,
    /// Which pods sidecar forwards select.
    selectors: Arc<Selectors>,
}

async fn open(role: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Address { role, source })
}

/// Runs until told to end.
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
    let own = settings.operator.rsplit_once(':').map_or(settings.operator.as_str(), |(host, _)| host);
    let hosts = [own.to_owned(), format!("{}.{}.svc", settings.custom_metrics_service, settings.namespace)];
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
    // A container that starts again in its pod is another candidate: its predecessor may still be writing.
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
                    tracing::warn!(%error, cause, "certificates stay as they are until it works");
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

/// Waits for a signal; then the Lease is given back, and streams end with the process.
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
    tracing::info!("ending: the Lease is given back");
    end.send_replace(true);
    let _ = timeout(GOODBYE, election).await;
    result
}

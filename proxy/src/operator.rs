//! Following an operator: its changes are applied, what became of them is reported, and the last good state is kept.
//!
//! Whatever happens to the stream, what runs goes on: the configuration in force is on disk, so that a proxy which
//! restarts while there is no operator serves at once.

mod backoff;
mod state;
mod stream;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use proxy_api::Configuration;
use proxy_grpc::{Connection, Endpoint, OpenError, TlsError};
use tokio::time::{sleep, timeout};

pub use self::stream::GOODBYE;
use self::{backoff::Backoff, state::State};
use crate::{
    handle::{Ended, Proxy},
    log::Level,
    resolver::Lookup,
};

/// Longest time for one try to open a stream, names and TLS included.
const OPEN: Duration = Duration::from_secs(10);

/// Where the operator is, and what this proxy shows and trusts.
#[derive(Clone, Debug)]
pub struct Operator {
    /// `HOST:PORT`.
    pub address: String,
    /// PEM of the roots to trust until others come over the stream.
    pub roots: String,
    /// File of the `ServiceAccount` token; read anew for every stream, as kubelet rotates it.
    pub token: PathBuf,
    /// Folder for what is kept.
    pub state: PathBuf,
}

/// A stream that did not come to be.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the ServiceAccount token {0} cannot be read: {1}")]
    Token(PathBuf, std::io::Error),
    #[error("the operator's address {0} does not resolve: {1}")]
    Resolve(String, String),
    #[error("{0}")]
    Trust(TlsError),
    #[error("{}", chain(.0))]
    Open(OpenError),
    #[error("the operator {0} does not answer")]
    Late(String),
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Follows the operator for as long as the proxy lives.
///
/// # Errors
/// The proxy has ended.
pub async fn follow(operator: &Operator, proxy: &Proxy) -> Result<(), Ended> {
    let mut state = State::open(&operator.state);
    let mut current = Configuration::default();
    if let Some(kept) = state.configuration(proxy) {
        current = kept.clone();
        proxy.apply(kept).await?;
    }
    let mut backoff = Backoff::new(operator.state.display().to_string());
    let mut lookup = Lookup::default();
    let mut told: Option<String> = None;
    let mut tries = 0_u64;
    loop {
        tries += 1;
        let roots = state.roots(&operator.roots, tries);
        let ended = match connect(operator, &roots, &mut lookup).await {
            Ok(connection) => {
                if told.take().is_some() {
                    proxy.log().notice(Level::Info, "operator", &operator.address, "the operator is followed again");
                }
                let counters = &proxy.metrics().control;
                counters.operator_streams.fetch_add(1, Relaxed);
                counters.operator_connected.store(1, Relaxed);
                let ended = stream::run(connection, proxy, &mut state, &mut current, &mut backoff).await;
                counters.operator_connected.store(0, Relaxed);
                ended?
            }
            // Another replica leads; the next connection may reach it.
            Err(ConnectError::Open(OpenError::NotLeader)) => {
                sleep(backoff.soon()).await;
                continue;
            }
            Err(error) => error.to_string(),
        };
        proxy.metrics().control.operator_failures.fetch_add(1, Relaxed);
        if told.as_ref() != Some(&ended) {
            let message = format!("{ended}; what runs goes on, and the operator is tried again");
            proxy.log().notice(Level::Warn, "operator", &operator.address, message);
            told = Some(ended);
        }
        state.flush(proxy).await;
        if proxy.has_ended() {
            return Err(Ended);
        }
        sleep(backoff.next()).await;
    }
}

async fn connect(operator: &Operator, roots: &str, lookup: &mut Lookup) -> Result<Connection, ConnectError> {
    let read = |error| ConnectError::Token(operator.token.clone(), error);
    let token = std::fs::read_to_string(&operator.token).map_err(read)?.trim().to_owned();
    let tls = Arc::new(proxy_grpc::client_config(roots).map_err(ConnectError::Trust)?);
    let late = || ConnectError::Late(operator.address.clone());
    timeout(OPEN, async {
        let address = resolve(&operator.address, lookup).await?;
        proxy_grpc::open(&Endpoint { address, tls, token }).await.map_err(ConnectError::Open)
    })
    .await
    .map_err(|_| late())?
}

/// The C library of the image knows no search list for a name with as many dots as `ndots`, which pods may set as they like.
async fn resolve(address: &str, lookup: &mut Lookup) -> Result<SocketAddr, ConnectError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let failed = |error: &str| ConnectError::Resolve(address.to_owned(), error.to_owned());
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = parts.ok_or_else(|| failed("it is not HOST:PORT"))?;
    lookup.one(host).await.map(|ip| SocketAddr::new(ip, port)).map_err(|error| failed(&error))
}

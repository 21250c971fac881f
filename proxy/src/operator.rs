//! Follows an operator: applies its changes, reports the result and persists the last good state.
//!
//! The running configuration stays in force whatever happens to the stream. The configuration is also on disk, so that
//! a proxy that restarts without an operator serves at once.

mod meter;
mod state;
mod stream;
mod stretches;

use std::{
    hash::{BuildHasher, Hash, Hasher},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{Configuration, doors::LONGEST_TURN, with_causes};
use proxy_grpc::{Connection, Endpoint, OpenError, TlsError};
use tokio::time::{sleep, timeout};

use self::state::State;
pub use self::stream::GOODBYE;
use crate::{
    core::{control::backoff::Backoff, resolution::dns::search::NO_ADDRESS},
    handle::{Ended, Proxy},
    log::Level,
    resolver::Lookup,
};

/// Timeout of one attempt to open a stream, DNS and TLS included, beside the wait for the turn of the handshake.
const OPEN: Duration = LONGEST_TURN.saturating_add(Duration::from_secs(10));

/// The operator's address, and the credentials of this proxy.
#[derive(Clone, Debug)]
pub struct Operator {
    /// `HOST:PORT`.
    pub address: String,
    /// PEM of the CAs to trust until the stream delivers others.
    pub roots: String,
    /// File of the `ServiceAccount` token; read for every stream, because kubelet rotates it.
    pub token: PathBuf,
    /// Directory for persisted state.
    pub state: PathBuf,
    /// Whether the persisted configuration is in force until the operator sends one.
    pub uses_kept: bool,
}

/// A stream could not be opened.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("cannot read the ServiceAccount token {0}: {1}")]
    Token(PathBuf, std::io::Error),
    #[error("cannot resolve the operator's address {0}: {1}")]
    Resolve(String, String),
    #[error("{0}")]
    Trust(TlsError),
    #[error("{}", with_causes(.0))]
    Open(OpenError),
    #[error("timed out connecting to the operator {0}")]
    Late(String),
}

impl ConnectError {
    /// The retry delay that the operator asks for.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// Follows the operator as long as the proxy lives.
///
/// # Errors
/// The proxy has ended.
pub async fn follow(operator: &Operator, proxy: &Proxy) -> Result<(), Ended> {
    let mut state = State::open(&operator.state);
    let mut current = Arc::<Configuration>::default();
    if operator.uses_kept
        && let Some(kept) = state.configuration(proxy)
    {
        current = Arc::new(kept);
        proxy.apply(current.clone()).await?;
    }
    let mut backoff = Backoff::new(seed(operator));
    let mut lookup = Lookup::default();
    let mut logged: Option<String> = None;
    let (mut tries, mut failures) = (0_u64, 0_u64);
    let mut desk = proxy.take_desk();
    loop {
        tries += 1;
        let roots = state.roots(&operator.roots, tries);
        let ended = match connect(operator, &roots, &mut lookup, failures).await {
            Ok(connection) => {
                if logged.take().is_some() {
                    proxy.log().notice(Level::Info, "operator", &operator.address, "reconnected to the operator");
                }
                let counters = &proxy.metrics().control;
                counters.operator_streams.fetch_add(1, Relaxed);
                counters.operator_connected.store(1, Relaxed);
                let ended = stream::run(connection, proxy, &mut state, &mut current, &mut backoff, &mut desk).await;
                counters.operator_connected.store(0, Relaxed);
                ended?
            }
            // Another replica leads; the next connection may reach it.
            Err(ConnectError::Open(OpenError::NotLeader { retry_after })) => {
                sleep(backoff.elsewhere(retry_after)).await;
                continue;
            }
            Err(error) => {
                failures += 1;
                stream::Broken { retry_after: error.retry_after(), why: error.to_string() }
            }
        };
        let stream::Broken { why: ended, retry_after } = ended;
        proxy.metrics().control.operator_failures.fetch_add(1, Relaxed);
        if logged.as_ref() != Some(&ended) {
            let message = format!("{ended}; the running configuration stays in force, retrying");
            proxy.log().notice(Level::Warn, "operator", &operator.address, message);
            logged = Some(ended);
        }
        state.flush(proxy).await;
        if proxy.has_ended() {
            return Err(Ended);
        }
        sleep(backoff.after_failure(retry_after)).await;
    }
}

/// A seed that differs between proxies, and between runs of one proxy.
fn seed(operator: &Operator) -> u64 {
    let mut hasher = foldhash::fast::RandomState::default().build_hasher();
    operator.state.hash(&mut hasher);
    std::process::id().hash(&mut hasher);
    hasher.finish()
}

/// Opens a stream after `tries` failed attempts.
async fn connect(
    operator: &Operator,
    roots: &str,
    lookup: &mut Lookup,
    failures: u64,
) -> Result<Connection, ConnectError> {
    let read = |error| ConnectError::Token(operator.token.clone(), error);
    let token = std::fs::read_to_string(&operator.token).map_err(read)?.trim().to_owned();
    let tls = Arc::new(proxy_grpc::client_config(roots).map_err(ConnectError::Trust)?);
    let late = || ConnectError::Late(operator.address.clone());
    timeout(OPEN, async {
        let address = resolve(&operator.address, lookup, failures).await?;
        proxy_grpc::open(&Endpoint { address, tls, token }).await.map_err(ConnectError::Open)
    })
    .await
    .map_err(|_| late())?
}

/// Resolves as backends are resolved: the C library of the image ignores the search list for names with `ndots` dots or
/// more, and pods may set `ndots` freely. The address families take turns after failures.
async fn resolve(address: &str, lookup: &mut Lookup, failures: u64) -> Result<SocketAddr, ConnectError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let failed = |error: &str| ConnectError::Resolve(address.to_owned(), error.to_owned());
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = parts.ok_or_else(|| failed("not of the form HOST:PORT"))?;
    let ips = lookup.by_family(host).await.map_err(|error| failed(&error))?;
    let ip = ips.after(failures).ok_or_else(|| failed(NO_ADDRESS))?;
    Ok(SocketAddr::new(ip, port))
}

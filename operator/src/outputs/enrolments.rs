//! The Secrets of agents, and certificates for tunnels.
//!
//! Each agent has its own Secret with its join string and the ledger of its tokens. Every write names the version of
//! the Secret that it replaces, so that one of two concurrent writers reads it again. A redemption is written before
//! its certificate is sent.

mod roots;
mod secret;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64;
use kube::Client;
use operator_core::{
    ObjectKey,
    enrolment::{self, Case, Failing, Judged, LIFETIME, Offered, Wanted, offer, redeem, refused},
    status::agent::Enrolment,
};
use proxy_api::{Issued, SignOutcome, SignReason, with_causes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tunnel::identity::authority::{Authority, AuthorityError, Request};
use tunnel_core::{identity::AgentIdentity, join::Token};

use self::secret::Place;
pub use self::{
    roots::{RootError, TunnelRoots},
    secret::SecretError,
};
use crate::platform::metrics::{Metrics, count};

/// The most certificates that are signed at the same time.
const AT_ONCE: usize = 16;
/// The most certificate requests that are answered or wait, over all proxies.
const WAITING: usize = 256;
/// The most attempts to write a Secret that another client writes at the same time.
const ATTEMPTS: usize = 4;

/// Why a Secret does not have its desired offer, or why a certificate is not signed now.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The root cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The Secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Another client keeps writing the Secret.
    #[error("another client keeps changing Secret {0}: find out which, and stop it")]
    Contended(String),
    /// No token can be generated.
    #[error("cannot get random numbers for a token from the system: {0}")]
    Chance(getrandom::Error),
    /// The certificate cannot be signed.
    #[error("cannot sign a certificate: {}", with_causes(.0))]
    Sign(AuthorityError),
}

/// Why an applicant gets no certificate.
enum Unsigned {
    /// The request is refused.
    Refused(SignOutcome),
    /// The operator cannot sign now.
    Failed(EnrolmentError),
}

impl From<EnrolmentError> for Unsigned {
    fn from(error: EnrolmentError) -> Self {
        Self::Failed(error)
    }
}

impl From<RootError> for Unsigned {
    fn from(error: RootError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SecretError> for Unsigned {
    fn from(error: SecretError) -> Self {
        Self::Failed(error.into())
    }
}

/// The answer to a certificate request.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub outcome: SignOutcome,
    /// The agent whose token was redeemed.
    pub redeemed: Option<ObjectKey>,
}

/// Checks the Secrets of agents, and signs certificates.
#[derive(Clone)]
pub struct Enroller {
    client: Client,
    roots: Arc<TunnelRoots>,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    failing: Arc<Mutex<Failing>>,
    metrics: Arc<Metrics>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Generates an unpredictable token.
fn token() -> Result<Token, EnrolmentError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(EnrolmentError::Chance)?;
    Ok(Token::new(bytes))
}

/// The answer of an operator that is too busy.
pub(crate) fn busy() -> SignOutcome {
    refused(SignReason::Unavailable, "the operator is busy with other certificates: try again")
}

/// The answer of an operator that cannot sign.
pub(crate) fn unavailable() -> SignOutcome {
    refused(SignReason::Unavailable, "the operator cannot sign certificates now: see its log, and try again")
}

impl Enroller {
    /// An enroller that signs with these roots.
    #[must_use]
    pub fn new(client: Client, roots: TunnelRoots, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            roots: Arc::new(roots),
            places: Arc::new(Semaphore::new(WAITING)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            failing: Arc::default(),
            metrics,
        }
    }

    /// Takes a place for one certificate request. Absent if too many are being answered or wait.
    #[must_use]
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Makes sure that the Secret of an agent has the desired offer.
    pub async fn offer(&self, wanted: Wanted) -> Offered {
        let result = self.try_offer(&wanted).await;
        let label = match &result {
            Ok((_, _, true)) => "written",
            Ok((_, _, false)) => "kept",
            Err(_) => "failed",
        };
        count(&self.metrics.enrolment_secrets, "result", label);
        let result = result.map(|(enrolment, again, _)| (enrolment, again)).map_err(|error| error.to_string());
        Offered { uid: wanted.identity.uid().to_owned(), key: wanted.key, result }
    }

    /// Like [`Self::offer`]; also returns whether the Secret was written.
    async fn try_offer(&self, wanted: &Wanted) -> Result<(Enrolment, Option<u64>, bool), EnrolmentError> {
        let root = self.roots.current((&wanted.gateway_namespace, &wanted.gateway_uid), now()).await?.fingerprint();
        let place = Place::of(&self.client, wanted);
        for _ in 0..ATTEMPTS {
            let found = place.read().await?;
            let offer = offer(&found.kept, wanted, root, &token()?, now());
            let Some(next) = offer.write else { return Ok((offer.enrolment, offer.again, false)) };
            if place.write(found, &next).await? {
                return Ok((offer.enrolment, offer.again, true));
            }
        }
        Err(EnrolmentError::Contended(wanted.secret()))
    }

    /// Removes the tunnel roots that are no longer used. After a failure, the next check retries.
    pub async fn remove_unused_roots(self) {
        match self.roots.remove_unused(now()).await {
            Ok(gone) => {
                self.metrics.tunnel_roots_removed.inc_by(u64::try_from(gone).unwrap_or(u64::MAX));
            }
            Err(error) => tracing::warn!(%error, "cannot remove unused roots of the tunnels, will retry"),
        }
    }

    /// Answers a certificate request, base64 of DER.
    pub async fn sign(&self, judged: &Judged, request: &str) -> Answered {
        let Ok(_turn) = self.turns.acquire().await else {
            return Answered { outcome: busy(), redeemed: None };
        };
        let gateway_uid = judged.gateway_uid.as_str();
        match self.try_sign(judged, request).await {
            Ok(answered) => {
                if self.failing().signed(gateway_uid) {
                    tracing::info!(gateway_uid, "certificates for tunnels can be signed again");
                }
                answered
            }
            Err(Unsigned::Refused(outcome)) => Answered { outcome, redeemed: None },
            Err(Unsigned::Failed(error)) => {
                // The first failure for each gateway is logged: while the API server is unreachable, every agent
                // retries again and again.
                if self.failing().failed(gateway_uid) {
                    tracing::warn!(%error, gateway_uid, "cannot sign certificates for tunnels, proxies will ask again");
                }
                Answered { outcome: unavailable(), redeemed: None }
            }
        }
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_sign(&self, judged: &Judged, request: &str) -> Result<Answered, Unsigned> {
        let wrong = |why: String| Unsigned::Refused(refused(SignReason::Request, why));
        let der = BASE64.decode(request.as_bytes());
        let der =
            der.map_err(|_| wrong("the request for a certificate is not base64: upgrade the proxy".to_owned()))?;
        let request = Request::parse(&der).map_err(|error| wrong(error.to_string()))?;
        let root = self.roots.current((&judged.gateway_namespace, &judged.gateway_uid), now()).await?;
        let lifetime = Duration::from_secs(LIFETIME);
        let (signed, redeemed) = match &judged.case {
            Case::Endpoint(id) => (root.sign_endpoint(&request, id, lifetime, now()), None),
            Case::Sidecar(id) => (root.sign_sidecar(&request, id, lifetime, now()), None),
            Case::Agent(identity) => (root.sign(&request, identity, lifetime, now()), None),
            Case::Token { wanted, token } => {
                let identity = self.redeem(wanted, token, &request).await?;
                (root.sign(&request, &identity, lifetime, now()), Some(wanted.key.clone()))
            }
        };
        let certificate = signed.map_err(EnrolmentError::Sign)?;
        Ok(Answered { outcome: issued(&certificate, &root), redeemed })
    }

    /// Redeems a token. The ledger is written before this returns.
    async fn redeem(&self, wanted: &Wanted, token: &Token, request: &Request) -> Result<AgentIdentity, Unsigned> {
        let place = Place::of(&self.client, wanted);
        for _ in 0..ATTEMPTS {
            let found = place.read().await?;
            let redeemed = redeem(&found.kept.ledger, wanted, token, &request.key(), now());
            let (ledger, identity) =
                redeemed.map_err(|why| Unsigned::Refused(SignOutcome::Refused { refused: why }))?;
            let Some(ledger) = ledger else { return Ok(identity) };
            let next = enrolment::Kept { join: found.kept.join.clone(), ledger };
            if place.write(found, &next).await? {
                tracing::info!(agent = %wanted.key, "an agent has redeemed a join string");
                return Ok(identity);
            }
        }
        Err(EnrolmentError::Contended(wanted.secret()).into())
    }
}

fn issued(certificate: &[u8], root: &Authority) -> SignOutcome {
    SignOutcome::Issued(Issued { certificate: BASE64.encode(certificate), root: BASE64.encode(root.root()) })
}

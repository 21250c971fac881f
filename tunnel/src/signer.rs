//! The endpoint's side of enrolment.

use std::cell::RefCell;
use std::fmt;
use std::future::ready;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_api::with_causes;
use rustls::pki_types::CertificateDer;
use rustls::time_provider::TimeProvider;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tunnel_core::enrolment::{Enrol, EnrolReason, EnrolRefusal, Outcome, Proof};
use tunnel_core::identity::{AgentIdentity, AgentName, Fingerprint};
use tunnel_core::join::Token;
use tunnel_core::notices::{About, Notice, Notices};
use tunnel_core::registry::{Policy, certifiable};

use crate::clock::seconds;
use crate::handshake::{read, write};
use crate::identity::authority::{Authority, Request};
use crate::identity::ledger::{LedgerError, LedgerFile, RedeemError};

/// A client that asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applicant {
    /// A client with a token.
    Token {
        /// The agent that the client names as the token's.
        agent: AgentName,
        /// The token.
        token: Token,
    },
    /// An agent with a certificate, verified by TLS.
    Agent(AgentIdentity),
}

impl Applicant {
    fn name(&self) -> &AgentName {
        match self {
            Self::Token { agent, .. } => agent,
            Self::Agent(identity) => identity.agent(),
        }
    }
}

/// Signs the certificates of agents.
pub trait Signer: 'static {
    /// Signs a certificate request, DER, or returns why not. The caller bounds the time.
    fn sign(
        &self,
        applicant: &Applicant,
        request: &[u8],
    ) -> impl Future<Output = Result<CertificateDer<'static>, EnrolRefusal>>;
}

/// Reads one certificate request and answers it. `identity` comes from the client's certificate. A refusal of the
/// client is an error, too.
pub(crate) async fn serve<S: Signer>(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: Option<&AgentIdentity>,
    signer: &S,
) -> io::Result<()> {
    let enrol = read(io, Enrol::read).await.map_err(io::Error::other)?;
    let answer = match applicant(enrol.proof, identity) {
        Ok(applicant) => signer.sign(&applicant, &enrol.request).await.map(|certificate| (applicant, certificate)),
        Err(refusal) => Err(refusal),
    };
    let outcome = match &answer {
        Ok((_, certificate)) => Outcome::Issued(certificate.to_vec()),
        Err(refusal) => Outcome::Refused(refusal.clone()),
    };
    write(io, &outcome.frame()).await.map_err(io::Error::other)?;
    // The client may have closed the connection already: it has its answer.
    let _ = io.shutdown().await;
    let (applicant, _) = answer.map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal))?;
    tracing::info!(agent = %applicant.name(), renewed = identity.is_some(), "issued a certificate to an agent");
    Ok(())
}

fn applicant(proof: Proof, identity: Option<&AgentIdentity>) -> Result<Applicant, EnrolRefusal> {
    match (proof, identity) {
        (Proof::Token { agent, token }, _) => Ok(Applicant::Token { agent, token }),
        (Proof::Certificate, Some(identity)) => Ok(Applicant::Agent(identity.clone())),
        (Proof::Certificate, None) => {
            let detail = "the agent has no certificate to renew: enrol with a join string of this server".to_owned();
            Err(EnrolRefusal { reason: EnrolReason::Agent, detail })
        }
    }
}

/// Returns the policy for the agent of a uid, if there is such an agent.
type PolicyOf = Box<dyn Fn(&str) -> Option<Policy>>;

/// Signs with a root and tokens on this machine. A redemption is written to disk before the answer, which blocks the
/// thread for that long.
pub struct LocalSigner {
    authority: Rc<Authority>,
    ledger: RefCell<LedgerFile>,
    lifetime: Duration,
    clock: Arc<dyn TimeProvider>,
    policy: PolicyOf,
    start: Instant,
    notices: RefCell<Notices>,
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSigner").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl LocalSigner {
    /// Signs certificates with this lifetime. `policy` returns the policy for the agent of a uid, if there is one.
    pub fn new(
        authority: Rc<Authority>,
        ledger: LedgerFile,
        lifetime: Duration,
        clock: Arc<dyn TimeProvider>,
        policy: impl Fn(&str) -> Option<Policy> + 'static,
    ) -> Self {
        let (ledger, policy, start) = (RefCell::new(ledger), Box::new(policy), Instant::now());
        Self { authority, ledger, lifetime, clock, policy, start, notices: RefCell::default() }
    }

    /// Takes the notices to log now: why agents get no certificates, at most one a minute. An agent that is referred to
    /// the log of the server does not get the reason.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.borrow_mut().take(self.start.elapsed())
    }

    /// Issues a token that enrols up to `redemptions` agents as `identity`, until `expires`, seconds since 1970.
    pub fn issue(
        &self,
        identity: AgentIdentity,
        token: &Token,
        redemptions: u32,
        expires: u64,
    ) -> Result<(), LedgerError> {
        let now = seconds(&*self.clock);
        self.ledger.borrow_mut().issue(identity, token.fingerprint(), redemptions, expires, now)
    }

    /// How many agents have enrolled as `identity`. Counts only tokens that are kept.
    pub fn enrolled(&self, identity: &AgentIdentity) -> usize {
        self.ledger.borrow().ledger().enrolled(identity)
    }

    /// Whether a token can still enrol an agent as `identity`.
    pub fn is_live(&self, token: &Fingerprint, identity: &AgentIdentity) -> bool {
        self.ledger.borrow().ledger().is_live(token, identity, seconds(&*self.clock))
    }

    fn decide(&self, applicant: &Applicant, request: &[u8]) -> Result<CertificateDer<'static>, EnrolRefusal> {
        let refusal = |reason| move |detail: String| EnrolRefusal { reason, detail };
        let request = Request::parse(request).map_err(|error| refusal(EnrolReason::Request)(error.to_string()))?;
        let now = seconds(&*self.clock);
        let permit = |identity: &AgentIdentity| certifiable(identity, (self.policy)(identity.uid()).as_ref());
        let identity = match applicant {
            Applicant::Agent(identity) => {
                permit(identity).map_err(|denied| refusal(EnrolReason::Agent)(denied.detail))?;
                identity.clone()
            }
            Applicant::Token { agent, token } => {
                let redeemed =
                    self.ledger.borrow_mut().redeem(&token.fingerprint(), agent, &request.key(), now, permit);
                redeemed.map_err(|error| match error {
                    RedeemError::Refused(why) => refusal(EnrolReason::Token)(why.to_string()),
                    RedeemError::Denied(denied) => refusal(EnrolReason::Agent)(denied.detail),
                    RedeemError::Kept(error) => self.unavailable(applicant, &error),
                })?
            }
        };
        let signed = self.authority.sign(&request, &identity, self.lifetime, now);
        signed.map_err(|error| self.unavailable(applicant, &error))
    }

    /// The remedy is up to the server's owner; the agent's owner can only retry.
    fn unavailable(&self, applicant: &Applicant, error: &(dyn std::error::Error + 'static)) -> EnrolRefusal {
        let told = || (applicant.name().to_string(), format!("cannot issue a certificate: {}", with_causes(error)));
        self.notices.borrow_mut().note("signing", About::Known, told);
        let detail = "the server cannot sign certificates now: see its log, and try again".to_owned();
        EnrolRefusal { reason: EnrolReason::Unavailable, detail }
    }
}

impl Signer for LocalSigner {
    fn sign(
        &self,
        applicant: &Applicant,
        request: &[u8],
    ) -> impl Future<Output = Result<CertificateDer<'static>, EnrolRefusal>> {
        ready(self.decide(applicant, request))
    }
}

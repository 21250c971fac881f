//! How an agent gets its certificate: from a join string, and later by renewal.
//!
//! ```text
//! join string ─▶ dial ─▶ TLS with the pinned root ─▶ ENROL ─▶ folder
//! certificate ─▶ dial ─▶ TLS as the agent ─────────▶ ENROL ─▶ folder, and the next connections
//! ```
//!
//! [`enrol`] and [`renew`] are the agent's side; an endpoint uses a [`Signer`]. Existing connections stay when a
//! certificate is replaced.

use std::io;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use proxy_api::with_causes;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::time_provider::TimeProvider;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tunnel_core::enrolment::{Enrol, EnrolReason, EnrolRefusal, Outcome, Proof};
use tunnel_core::identity::{AgentName, Dial, Span, renew_at};
use tunnel_core::join::{Address, JoinError, JoinString};

use crate::agent::Connector;
use crate::clock::seconds;
use crate::handshake::{HandshakeError, PATIENCE, read, write};
use crate::identity::agent::{AgentError, AgentFolder, Enrolled, Joined};
use crate::identity::tls::{AgentFailure, TlsError, agent_config, enrolment_config};
use crate::proxy_connect::Proxy;
use crate::reach::{ReachError, reach};
use crate::secure::{AgentStream, AgentTls};

pub use crate::signer::{Applicant, LocalSigner, Signer};

/// Why an agent got no certificate, in words for its owner.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The text is not a join string.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The join string has expired.
    #[error(
        "the join string of agent {agent} expired {ago} ago by the clock of this machine: check this clock, and if it is \
         right, issue a new join string on the server"
    )]
    Expired {
        /// The agent.
        agent: AgentName,
        /// How long ago.
        ago: Span,
    },
    /// The agent's files cannot be used, or the issued certificate cannot.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server cannot be reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The program that answers at this address makes no secure connection to the server.
    #[error("{address}: {}", with_causes(.error))]
    At {
        /// The address.
        address: Address,
        /// Why the connection fails.
        error: Box<EnrolError>,
    },
    /// The two ends do not accept each other.
    #[error(transparent)]
    Failed(AgentFailure),
    /// The server did not answer in time.
    #[error("the server sent no certificate within {} seconds: look at its log, and try again", .0.as_secs())]
    TimedOut(Duration),
    /// The server ended the connection.
    #[error("the server closed the connection without an answer: look at its log, and try again")]
    Closed,
    /// A failure of the connection.
    #[error("the connection to the server failed: check the network path to it, and try again")]
    Io(#[source] io::Error),
    /// The answer does not follow the protocol.
    #[error("the answer of the server cannot be read: check that server and agent run compatible versions")]
    Protocol(#[source] HandshakeError),
    /// The server refuses.
    #[error("the server refused: {0}")]
    Refused(EnrolRefusal),
}

impl EnrolError {
    /// Whether this join string can never enrol this agent.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Join(_) | Self::Expired { .. } | Self::Tls(_) | Self::Failed(AgentFailure::OtherServer) => true,
            // The clocks of the two ends differ, and a clock may be set.
            Self::Agent(error) => !matches!(error, AgentError::Issued { .. }),
            Self::At { error, .. } => error.is_final(),
            // The server may learn of an unknown agent later.
            Self::Refused(refusal) => matches!(refusal.reason, EnrolReason::Token | EnrolReason::Request),
            Self::Reach(_) | Self::Failed(_) | Self::TimedOut(_) | Self::Closed | Self::Io(_) | Self::Protocol(_) => {
                false
            }
        }
    }
}

impl From<io::Error> for EnrolError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<AgentFailure>() {
            Ok(failure) => Self::Failed(failure),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            Err(error) => Self::Io(error),
        }
    }
}

impl From<HandshakeError> for EnrolError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Closed => Self::Closed,
            HandshakeError::Io(error) => error.into(),
            other => Self::Protocol(other),
        }
    }
}

/// The connection of an agent to its server.
#[derive(Clone, Debug)]
pub struct Way {
    /// The HTTP proxy of the network.
    pub proxy: Option<Proxy>,
    /// Time limit for everything. Three quarters are for the connection over all addresses, including the proxy and TLS.
    pub within: Duration,
    /// The clock that judges certificates.
    pub clock: Arc<dyn TimeProvider>,
}

impl Way {
    fn now(&self) -> u64 {
        seconds(&*self.clock)
    }

    /// Asks for a certificate. Returns it with the connection, which has the root that the server sent.
    async fn ask(
        &self,
        config: ClientConfig,
        addresses: &[Address],
        enrol: &Enrol,
    ) -> Result<(CertificateDer<'static>, AgentStream), EnrolError> {
        let talk = async {
            let mut stream = self.secure(config, addresses).await?;
            write(&mut stream, &enrol.frame()).await?;
            match read(&mut stream, Outcome::read).await? {
                Outcome::Issued(certificate) => Ok((CertificateDer::from(certificate), stream)),
                Outcome::Refused(refusal) => Err(EnrolError::Refused(refusal)),
            }
        };
        timeout(self.within, talk).await.map_err(|_| EnrolError::TimedOut(self.within))?
    }

    /// Connects to the first of the addresses that leads to the server. A load balancer without a server behind it
    /// accepts connections, too. Each address gets an equal part of the remaining time, so that the last one is tried.
    async fn secure(&self, config: ClientConfig, addresses: &[Address]) -> Result<AgentStream, EnrolError> {
        let (tls, until) = (AgentTls::new(config), Instant::now() + self.within * 3 / 4);
        let (mut answered, mut unreached) = (None, ReachError::Nowhere);
        for (at, address) in addresses.iter().enumerate() {
            let began = Instant::now();
            let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(began) / left;
            let tcp = match reach(slice::from_ref(address), self.proxy.as_ref(), share).await {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    unreached = error;
                    continue;
                }
            };
            let deadline = (began + share).min(Instant::now() + PATIENCE);
            let secured = timeout_at(deadline, tls.secure(tcp, &Dial::Any)).await;
            match secured.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                // An answer from an earlier address says more than the silence of a later one.
                Err(error) => {
                    let (address, error) = (address.clone(), Box::new(error.into()));
                    answered.get_or_insert(EnrolError::At { address, error });
                }
            }
        }
        Err(answered.unwrap_or(EnrolError::Reach(unreached)))
    }
}

/// Redeems a join string, and stores the certificate, the root and the addresses of the server in the folder, replacing
/// earlier ones.
pub async fn enrol(join: &str, folder: &AgentFolder, way: &Way) -> Result<Enrolled, EnrolError> {
    let join = JoinString::parse(join)?;
    let now = way.now();
    if join.expired(now) {
        return Err(EnrolError::Expired { agent: join.agent().clone(), ago: Span(now - join.expires()) });
    }
    let key = folder.key()?;
    let config = enrolment_config(join.root(), way.clock.clone())?;
    let proof = Proof::Token { agent: join.agent().clone(), token: join.token().clone() };
    let enrol = Enrol { proof, request: key.request()? };
    let (certificate, stream) = way.ask(config, join.addresses(), &enrol).await?;
    let root = stream.sent_root(&join.root()).ok_or(EnrolError::Failed(AgentFailure::OtherServer))?;
    let enrolled = folder.keep(&key, certificate, root, way.now())?;
    folder.keep_joined(&Joined::of(&join))?;
    Ok(enrolled)
}

/// Renews the certificate of an agent, and stores it in the folder.
pub async fn renew(
    enrolled: &Enrolled,
    folder: &AgentFolder,
    addresses: &[Address],
    way: &Way,
) -> Result<Enrolled, EnrolError> {
    let key = folder.key()?;
    let config = agent_config(&key, enrolled, way.clock.clone())?;
    let enrol = Enrol { proof: Proof::Certificate, request: key.request()? };
    let (certificate, _) = way.ask(config, addresses, &enrol).await?;
    Ok(folder.keep(&key, certificate, enrolled.root.clone(), way.now())?)
}

/// Keeps the certificate of a running agent valid.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The folder of the agent.
    pub folder: AgentFolder,
    /// The addresses of the server.
    pub addresses: Vec<Address>,
    /// How to reach the server.
    pub way: Way,
    /// A random number from 0 up to, but not including, 1; spreads the attempts of many agents.
    pub chance: fn() -> f64,
    /// How often to check the clock, which may jump while the machine sleeps.
    pub look: Duration,
}

/// The result of an attempt to renew.
#[derive(Debug)]
pub enum Renewed<'a> {
    /// A new certificate.
    Done(&'a Enrolled),
    /// The attempt failed.
    Failed {
        /// Why, and the remedy.
        error: &'a str,
        /// How long the present certificate remains valid.
        left: Span,
    },
}

/// Reports to the subscriber of `tracing`.
fn trace(renewed: &Renewed<'_>) {
    match renewed {
        Renewed::Done(enrolled) => {
            tracing::info!(agent = %enrolled.identity.agent(), "the certificate of this agent was renewed");
        }
        Renewed::Failed { error, left } => {
            tracing::warn!(error, %left, "the certificate of this agent was not renewed");
        }
    }
}

impl Renewal {
    /// Renews the certificate in time, for ever. New connections use the newest certificate.
    pub async fn run(&self, tls: &AgentTls, enrolled: Enrolled) {
        self.run_observed(tls, enrolled, trace).await;
    }

    /// Like [`Renewal::run`], but reports results to `tell` instead of the subscriber of `tracing`.
    pub async fn run_observed(&self, tls: &AgentTls, mut enrolled: Enrolled, tell: impl Fn(&Renewed<'_>)) {
        let mut failed = None;
        loop {
            let due = renew_at(enrolled.not_before, enrolled.not_after, failed, (self.chance)());
            // If the clock was ahead, the pause ends once the clock is set right.
            let since = failed.unwrap_or(0);
            while (since..due).contains(&self.way.now()) {
                sleep(self.look).await;
            }
            match self.renew(tls, &enrolled).await {
                Ok(next) => {
                    tell(&Renewed::Done(&next));
                    enrolled = next;
                    failed = None;
                }
                Err(error) => {
                    let left = Span(enrolled.not_after.saturating_sub(self.way.now()));
                    tell(&Renewed::Failed { error: &with_causes(&error), left });
                    failed = Some(self.way.now());
                }
            }
        }
    }

    async fn renew(&self, tls: &AgentTls, enrolled: &Enrolled) -> Result<Enrolled, EnrolError> {
        let next = renew(enrolled, &self.folder, &self.addresses, &self.way).await?;
        let config = agent_config(&self.folder.key()?, &next, self.way.clock.clone())?;
        tls.replace(config);
        Ok(next)
    }
}

//! The folder of a server without a cluster: the root of its tunnels, tokens, and join strings.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use thiserror::Error;
use tunnel_core::identity::{AgentIdentity, EndpointId, Fingerprint};
use tunnel_core::join::{Address, JoinError, JoinString, Token};
use tunnel_core::notices::Notice;
use tunnel_core::registry::Policy;

use crate::clock::seconds;
use crate::enrol::LocalSigner;
use crate::identity::FileError;
use crate::identity::authority::{Authority, AuthorityError, SKEW};
use crate::identity::joins::JoinFolder;
use crate::identity::ledger::{LedgerError, LedgerFile};
use crate::identity::tls::{TlsError, server_config};
use crate::secure::ServerTls;

#[cfg(test)]
mod tests;

/// Lifetime of the certificates of agents, and of the serving certificate, which is replaced after half of it.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Pause after a failure to replace the serving certificate, in seconds.
const PAUSE: u64 = 60;

/// Why a folder cannot be used, or why no join string can be offered.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The root cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The tokens cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The join strings cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The addresses do not fit into a join string.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// No token can be generated.
    #[error("cannot get random numbers for a token from the system")]
    Chance(#[source] io::Error),
}

/// The clock of the system.
pub fn system_clock() -> Arc<dyn TimeProvider> {
    Arc::new(DefaultTimeProvider)
}

/// The serving certificate, for new connections.
#[derive(Debug)]
struct Leaf(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A valid join string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The identity that an agent gets with it.
    pub identity: AgentIdentity,
    /// The file with the join string.
    pub path: PathBuf,
    /// The fingerprint of its token, as in the ledger.
    pub token: Fingerprint,
}

/// The contents of an agent's join string.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How many agents may enrol in total.
    pub redemptions: u32,
    /// How long a new join string is valid.
    pub expire: Duration,
    /// The addresses of the server.
    pub addresses: &'a [Address],
}

/// The folder of a server. It stays on one thread.
#[derive(Debug)]
pub struct Local {
    id: EndpointId,
    authority: Rc<Authority>,
    signer: Rc<LocalSigner>,
    joins: JoinFolder,
    leaf: Arc<Leaf>,
    config: Arc<ServerConfig>,
    clock: Arc<dyn TimeProvider>,
    /// When the serving certificate was created and when it is replaced. After a failure: when that was tried and when
    /// it is retried. Seconds since 1970.
    made: u64,
    due: u64,
    has_other_root: bool,
}

impl Local {
    /// Opens a folder for the endpoint of this id. No other process may use the folder. `policy` returns the policy for
    /// the agent of a uid, if there is one.
    pub fn open(
        folder: &Path,
        id: EndpointId,
        clock: Arc<dyn TimeProvider>,
        policy: impl Fn(&str) -> Option<Policy> + 'static,
    ) -> Result<Self, LocalError> {
        let now = seconds(&*clock);
        let authority = Rc::new(Authority::open(folder, now)?);
        let mut ledger = LedgerFile::open(folder)?;
        let has_other_root = ledger.set_root(authority.fingerprint());
        let joins = JoinFolder::open(&folder.join("join"))?;
        let leaf = Arc::new(Leaf(RwLock::new(Arc::new(authority.endpoint(&id, LIFETIME, now)?))));
        let config = Arc::new(server_config(leaf.clone(), authority.root(), clock.clone())?);
        let signer = Rc::new(LocalSigner::new(authority.clone(), ledger, LIFETIME, clock.clone(), policy));
        Ok(Self { id, authority, signer, joins, leaf, config, clock, made: now, due: half_after(now), has_other_root })
    }

    /// Whether the root has changed since the tokens in the folder were issued: enrolled agents then have to enrol
    /// again.
    pub fn has_other_root(&self) -> bool {
        self.has_other_root
    }

    /// TLS of the port that agents dial.
    pub fn tls(&self) -> ServerTls<LocalSigner> {
        ServerTls::new(self.config.clone(), self.signer.clone())
    }

    /// Takes the notices to log now: why agents get no certificates. Call it about once a second.
    pub fn notices(&self) -> Vec<Notice> {
        self.signer.notices()
    }

    /// Replaces the serving certificate if it is due, or if it is not valid yet because the clock was ahead when it was
    /// made. After a failure, it retries a minute later.
    pub fn renew(&mut self) -> Result<(), LocalError> {
        let now = seconds(&*self.clock);
        if (self.made.saturating_sub(SKEW.as_secs())..self.due).contains(&now) {
            return Ok(());
        }
        (self.made, self.due) = (now, now.saturating_add(PAUSE));
        let leaf = Arc::new(self.authority.endpoint(&self.id, LIFETIME, now)?);
        *self.leaf.0.write().unwrap_or_else(PoisonError::into_inner) = leaf;
        self.due = half_after(now);
        Ok(())
    }

    /// Ensures that the folder has a join string for an agent while an agent may still enrol as `identity`, and none
    /// afterwards. A valid join string with the same addresses stays. `token` returns an unpredictable secret.
    pub fn offer(
        &self,
        identity: &AgentIdentity,
        wanted: Wanted<'_>,
        token: impl FnOnce() -> io::Result<[u8; 32]>,
    ) -> Result<Option<Offer>, LocalError> {
        let agent = identity.agent();
        let path = self.joins.path(agent);
        let enrolled = u32::try_from(self.signer.enrolled(identity)).unwrap_or(u32::MAX);
        let left = wanted.redemptions.saturating_sub(enrolled);
        if left == 0 {
            self.joins.remove(agent)?;
            return Ok(None);
        }
        if let Some(join) = self.joins.read(agent)? {
            let token = join.token().fingerprint();
            let is_same = join.root() == self.authority.fingerprint() && join.addresses() == wanted.addresses;
            if is_same && self.signer.is_live(&token, identity) {
                return Ok(Some(Offer { identity: identity.clone(), path, token }));
            }
        }
        let token = Token::new(token().map_err(LocalError::Chance)?);
        let expires = seconds(&*self.clock).saturating_add(wanted.expire.as_secs());
        let (root, addresses) = (self.authority.fingerprint(), wanted.addresses.to_vec());
        let join = JoinString::new(addresses, root, agent.clone(), expires, token.clone())?;
        self.signer.issue(identity.clone(), &token, left, expires)?;
        self.joins.write(&join)?;
        Ok(Some(Offer { identity: identity.clone(), path, token: token.fingerprint() }))
    }

    /// Whether a join string can still enrol an agent.
    pub fn is_live(&self, offer: &Offer) -> bool {
        self.signer.is_live(&offer.token, &offer.identity)
    }

    /// Removes a join string from the folder.
    pub fn withdraw(&self, offer: &Offer) -> Result<(), LocalError> {
        Ok(self.joins.remove(offer.identity.agent())?)
    }
}

fn half_after(now: u64) -> u64 {
    now.saturating_add(LIFETIME.as_secs() / 2)
}

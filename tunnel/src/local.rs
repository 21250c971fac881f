//! What a server without a cluster keeps in its folder: the root of its tunnels, tokens, and join strings.

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

/// Lifetime of the certificates of agents, and of the server's own, which is replaced after half of it.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Pause after a failure to replace the server's certificate, seconds.
const PAUSE: u64 = 60;

/// Why a folder cannot be used, or a join string not be offered.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The root.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The tokens.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The join strings.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The addresses do not fit into a join string.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// There is no token.
    #[error("the system gives no random numbers for a token")]
    Chance(#[source] io::Error),
}

/// The clock of the system.
pub fn system_clock() -> Arc<dyn TimeProvider> {
    Arc::new(DefaultTimeProvider)
}

/// The certificate of the server, for connections to come.
#[derive(Debug)]
struct Leaf(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A join string that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What an agent becomes with it.
    pub identity: AgentIdentity,
    /// The file that holds it.
    pub path: PathBuf,
    /// Its token, as the ledger knows it.
    pub token: Fingerprint,
}

/// What the join string of an agent is made of.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How many agents may enrol in all.
    pub redemptions: u32,
    /// How long a new join string counts.
    pub expire: Duration,
    /// Where agents reach the server.
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
    /// When the server's certificate was made and when it is replaced, or when that was tried and is tried again; seconds
    /// since 1970.
    made: u64,
    due: u64,
    has_other_root: bool,
}

impl Local {
    /// Uses a folder, which nobody else uses at the same time, for the endpoint of this id. `policy` gives what the agent
    /// of a uid may do, if there is one.
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

    /// Whether the root is another one than that of the tokens in the folder: whoever has enrolled has to enrol again.
    pub fn has_other_root(&self) -> bool {
        self.has_other_root
    }

    /// TLS of the port that agents dial.
    pub fn tls(&self) -> ServerTls<LocalSigner> {
        ServerTls::new(self.config.clone(), self.signer.clone())
    }

    /// Replaces the server's certificate if it is time for that, or if the clock was ahead when it was made: it does not
    /// count yet then. After a failure it is tried again a minute later.
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

    /// Sees to it that the folder has a join string for an agent as long as somebody may enrol as `identity`, and none
    /// afterwards. One that counts and has the same addresses stays. `token` makes a secret that nobody can guess.
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

    /// Whether somebody may still enrol with a join string.
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

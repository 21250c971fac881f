//! The root of the tunnels of one installation: a Secret in the operator's namespace.
//!
//! The leader makes the root when it needs one and there is none. The Secret has the last word: who restores it restores
//! the root, and who deletes it has a new one made, which no agent trusts that enrolled before.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::PostParams};
use tokio::sync::Mutex;
use tunnel::{
    chain,
    identity::authority::{Authority, AuthorityError},
};
use tunnel_core::identity::ValidityError;

use crate::outputs::deadline::{RequestError, answer};

/// Key of the root in its Secret.
const KEY: &str = "root.pem";
/// Longest time for which a root counts that was read.
const LOOK: Duration = Duration::from_secs(60);

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The Secret cannot be read or written.
    #[error("cannot read or write Secret {name}, which holds the root of the tunnels: {source}")]
    Secret {
        /// Name of the Secret.
        name: String,
        /// Why the request failed.
        source: RequestError,
    },
    /// The content of the Secret is something else.
    #[error(
        "Secret {0} does not hold the root of the tunnels and its key: restore it, or delete it to have a new root made, \
         with which all agents enrol again"
    )]
    Content(String),
    /// The root does not count now.
    #[error(
        "the root of the tunnels in Secret {name} {why}: check the clock of the node, and if it is right, delete the \
         Secret to have a new root made, with which all agents enrol again"
    )]
    Validity {
        /// Name of the Secret.
        name: String,
        /// What is wrong.
        why: ValidityError,
    },
    /// A root cannot be made.
    #[error("cannot make a root of the tunnels: {}", chain(.0))]
    Make(AuthorityError),
}

/// The root, as it was read last.
struct Known {
    authority: Arc<Authority>,
    looked: Instant,
}

/// The root of the tunnels.
pub struct TunnelRoot {
    api: Api<Secret>,
    name: String,
    known: Mutex<Option<Known>>,
}

impl TunnelRoot {
    /// The root in the Secret of this name.
    #[must_use]
    pub fn new(api: Api<Secret>, name: &str) -> Self {
        Self { api, name: name.to_owned(), known: Mutex::default() }
    }

    /// The root that signs now; only the leader asks. One that is known signs on while the Secret cannot be read. `now` is
    /// in seconds since 1970.
    ///
    /// # Errors
    /// See [`RootError`].
    pub async fn current(&self, now: u64) -> Result<Arc<Authority>, RootError> {
        let mut known = self.known.lock().await;
        if let Some(fresh) = known.as_ref().filter(|known| known.looked.elapsed() < LOOK) {
            return Ok(fresh.authority.clone());
        }
        let authority = match (self.read(now).await, known.as_ref()) {
            (Ok(authority), before) => {
                let is_other = before.is_some_and(|before| before.authority.fingerprint() != authority.fingerprint());
                if is_other {
                    tracing::warn!(
                        secret = %self.name,
                        "the root of the tunnels is another one: agents that enrolled before have to enrol again, with \
                         new join strings"
                    );
                }
                Arc::new(authority)
            }
            (Err(RootError::Secret { name, source }), Some(before)) => {
                tracing::warn!(secret = name, error = %source, "cannot read the root of the tunnels, using the known one");
                before.authority.clone()
            }
            (Err(error), _) => return Err(error),
        };
        *known = Some(Known { authority: authority.clone(), looked: Instant::now() });
        Ok(authority)
    }

    async fn read(&self, now: u64) -> Result<Authority, RootError> {
        let found = answer(self.api.get_opt(&self.name)).await.map_err(|source| self.failed(source))?;
        let pem = match found {
            Some(secret) => secret.data.and_then(|mut data| data.remove(KEY)).map(|pem| pem.0).unwrap_or_default(),
            None => self.make(now).await?,
        };
        let root = Authority::parse(&pem).ok_or_else(|| RootError::Content(self.name.clone()))?;
        root.check(now).map_err(|why| RootError::Validity { name: self.name.clone(), why })?;
        Ok(root)
    }

    /// Makes a root and the Secret that holds it. A Secret that somebody else has made meanwhile is an error, and is read
    /// the next time.
    async fn make(&self, now: u64) -> Result<Vec<u8>, RootError> {
        let pem = Authority::generate(now).map_err(RootError::Make)?.into_bytes();
        let secret = Secret {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(pem.clone()))])),
            ..Secret::default()
        };
        let made = answer(self.api.create(&PostParams::default(), &secret)).await;
        made.map_err(|source| self.failed(source))?;
        tracing::info!(secret = %self.name, "the Secret with the root of the tunnels did not exist, generated a root");
        Ok(pem)
    }

    fn failed(&self, source: RequestError) -> RootError {
        RootError::Secret { name: self.name.clone(), source }
    }
}

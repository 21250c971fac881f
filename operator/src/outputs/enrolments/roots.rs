//! The tunnel roots, one for each gateway, in one Secret in the operator's namespace.
//!
//! The leader creates the root of a gateway when it needs the root and there is none. The Secret is authoritative:
//! restoring it restores the roots. If a root is removed, a new one is created, which agents that enrolled before do
//! not trust. The leader removes a root once it is no longer used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Instant,
};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::PostParams};
use operator_core::{
    enrolment::{Looked, NoPlace, ROOTS, RootAge, Unused, place, root_key},
    names::UNUSED_ROOTS,
};
use proxy_api::with_causes;
use tokio::sync::Mutex;
use tunnel::identity::authority::{Authority, AuthorityError};
use tunnel_core::identity::ValidityError;

use crate::platform::deadline::{RequestError, answer};

/// Why no root can be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The Secret cannot be read or written.
    #[error("cannot read or write Secret {name}, which holds the roots of the tunnels: {source}")]
    Secret {
        /// Name of the Secret.
        name: String,
        /// Why the request failed.
        source: RequestError,
    },
    /// The Secret does not hold a root.
    #[error(
        "{key} in Secret {name} does not hold the root of a gateway and its key: restore it, or remove it; if it is \
         removed, the operator generates a new root, and all agents of that gateway have to enrol again"
    )]
    Content {
        /// Name of the Secret.
        name: String,
        /// Key of the root.
        key: String,
    },
    /// The root is not valid now.
    #[error(
        "the root of a gateway, {key} in Secret {name}, {why}: check the clock of the node; if the clock is right, \
         remove {key}: the operator then generates a new root, and all agents of that gateway have to enrol again"
    )]
    Validity {
        /// Name of the Secret.
        name: String,
        /// Key of the root.
        key: String,
        /// Why the root is not valid.
        why: ValidityError,
    },
    /// There is no room for another root.
    #[error(
        "Secret {0} holds {most} roots, which is the limit: the operator removes the roots of deleted gateways within \
         two weeks; to remove them now, delete their keys NAMESPACE.UID.pem, with the namespace and the uid of the \
         ForwardGateway",
        most = ROOTS
    )]
    Full(String),
    /// The namespace of the gateway has its maximum of roots.
    #[error(
        "Secret {name} holds {most} roots of gateways in namespace {namespace}, which is the limit of a namespace: the \
         operator removes the roots of deleted gateways within two weeks; to remove them now, delete their keys \
         {namespace}.UID.pem, with the uid of the ForwardGateway; or set PORTLANE_TUNNEL_ROOTS_PER_NAMESPACE of the \
         operator to a higher limit"
    )]
    Share {
        /// Name of the Secret.
        name: String,
        /// Namespace of the gateway.
        namespace: String,
        /// The maximum.
        most: usize,
    },
    /// A root cannot be created.
    #[error("cannot create a root of the tunnels: {}", with_causes(.0))]
    Make(AuthorityError),
}

/// A root, as last read.
struct Known {
    authority: Arc<Authority>,
    looked: Instant,
}

impl Known {
    fn age(&self) -> RootAge {
        RootAge(self.looked.elapsed())
    }
}

/// The root of one gateway; absent before the first read. The lock is held during reads.
type Place = Mutex<Option<Known>>;

/// The roots of the tunnels.
pub struct TunnelRoots {
    api: Api<Secret>,
    name: String,
    /// The maximum of roots for the gateways of one namespace, including deleted gateways.
    per_namespace: usize,
    /// The roots by the uid of their gateway.
    known: Lock<BTreeMap<String, Arc<Place>>>,
    /// Held while the Secret is written: of two concurrent writes, one would fail.
    writing: Mutex<()>,
}

impl TunnelRoots {
    /// The roots in the Secret of this name. The gateways of one namespace may have `per_namespace` of them.
    #[must_use]
    pub fn new(api: Api<Secret>, name: &str, per_namespace: usize) -> Self {
        Self { api, name: name.to_owned(), per_namespace, known: Lock::default(), writing: Mutex::default() }
    }

    /// Returns the root that signs now for the gateway with this namespace and uid; only the leader calls this. A
    /// recently used root keeps signing while the Secret cannot be read. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// See [`RootError`].
    pub async fn current(&self, (namespace, gateway_uid): (&str, &str), now: u64) -> Result<Arc<Authority>, RootError> {
        let place = self.place(gateway_uid);
        let mut known = place.lock().await;
        if let Some(fresh) = known.as_ref().filter(|known| known.age().is_fresh()) {
            return Ok(fresh.authority.clone());
        }
        let authority = match (self.read((namespace, gateway_uid), now).await, known.as_ref()) {
            (Ok(authority), before) => {
                let is_other = before.is_some_and(|before| before.authority.fingerprint() != authority.fingerprint());
                if is_other {
                    tracing::warn!(
                        secret = %self.name,
                        gateway_uid,
                        "the root of a gateway was replaced: agents that enrolled before have to enrol again, with new join \
                         strings"
                    );
                }
                Arc::new(authority)
            }
            (Err(RootError::Secret { name, source }), Some(before)) if before.age().is_recent() => {
                tracing::warn!(
                    secret = name,
                    error = %source,
                    "cannot read the root of a gateway: the operator continues with the one that it read last"
                );
                before.authority.clone()
            }
            (Err(error), _) => return Err(error),
        };
        *known = Some(Known { authority: authority.clone(), looked: Instant::now() });
        Ok(authority)
    }

    /// Returns the place of a root. A slow read of one root does not delay the others.
    fn place(&self, gateway_uid: &str) -> Arc<Place> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get(gateway_uid) {
            return place.clone();
        }
        // A locked place is in use.
        known.retain(|_, place| {
            Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|known| counts(known.as_ref()))
        });
        known.entry(gateway_uid.to_owned()).or_default().clone()
    }

    async fn read(&self, (namespace, gateway_uid): (&str, &str), now: u64) -> Result<Authority, RootError> {
        let key = root_key(namespace, gateway_uid);
        let found = self.secret().await?;
        let is_unused = found.as_ref().is_some_and(|secret| unused_of(secret).without(&key).is_some());
        let pem = match held(found.as_ref(), &key).filter(|_| !is_unused) {
            Some(pem) => pem,
            None => self.take_up((namespace, &key), now).await?,
        };
        let name = || self.name.clone();
        let root = Authority::parse(&pem).ok_or_else(|| RootError::Content { name: name(), key: key.clone() })?;
        root.check(now).map_err(|why| RootError::Validity { name: name(), key, why })?;
        Ok(root)
    }

    async fn secret(&self) -> Result<Option<Secret>, RootError> {
        answer(self.api.get_opt(&self.name)).await.map_err(|source| self.failed(source))
    }

    /// Adds a root to the current Secret, while no other task writes it, or records that an existing root is used
    /// again: a root that is about to be removed never signs.
    async fn take_up(&self, (namespace, key): (&str, &str), now: u64) -> Result<Vec<u8>, RootError> {
        let _writing = self.writing.lock().await;
        let mut found = self.secret().await?;
        let Some(pem) = held(found.as_ref(), key) else { return self.make(found, (namespace, key), now).await };
        if let Some(secret) = &mut found
            && let Some(unused) = unused_of(secret).without(key)
        {
            self.note(secret, &unused).await?;
        }
        Ok(pem)
    }

    /// Removes the roots that are no longer used, and records which roots are unused. Returns how many were removed. If
    /// another client has written the Secret meanwhile, this is an error, and nothing is removed.
    ///
    /// # Errors
    /// See [`RootError`].
    pub async fn remove_unused(&self, now: u64) -> Result<usize, RootError> {
        let _writing = self.writing.lock().await;
        let Some(mut secret) = self.secret().await? else { return Ok(0) };
        let used = self.used();
        let keys = secret.data.iter().flatten().map(|(key, _)| key.as_str());
        let looked = unused_of(&secret).look(keys, |gateway_uid| used.contains(gateway_uid), now);
        let Some(Looked { unused, gone }) = looked else { return Ok(0) };
        if let Some(roots) = &mut secret.data {
            roots.retain(|key, _| !gone.contains(key));
        }
        self.note(&mut secret, &unused).await?;
        for key in &gone {
            tracing::info!(
                secret = %self.name,
                key,
                "removed an unused root of the tunnels: every certificate that it signed has expired"
            );
        }
        Ok(gone.len())
    }

    /// Writes the Secret, with the record of unused roots.
    async fn note(&self, secret: &mut Secret, unused: &Unused) -> Result<(), RootError> {
        secret.metadata.annotations.get_or_insert_default().insert(UNUSED_ROOTS.to_owned(), unused.encode());
        let parameters = PostParams::default();
        // The resource version of the read Secret is a precondition.
        let written = answer(self.api.replace(&self.name, &parameters, secret)).await;
        written.map(drop).map_err(|source| self.failed(source))
    }

    /// The uids of the gateways whose roots this replica used recently.
    fn used(&self) -> BTreeSet<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, place)| is_recent(place)).map(|(gateway_uid, _)| gateway_uid.clone()).collect()
    }

    /// Creates a root and adds it to the Secret that was found. If another client has written the Secret meanwhile,
    /// this is an error, and the Secret is read again the next time.
    async fn make(
        &self,
        found: Option<Secret>,
        (namespace, key): (&str, &str),
        now: u64,
    ) -> Result<Vec<u8>, RootError> {
        let exists = found.is_some();
        let mut secret = found.unwrap_or_else(|| Secret {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Secret::default()
        });
        let roots = secret.data.get_or_insert_default();
        place(roots.keys().map(String::as_str), namespace, self.per_namespace)
            .map_err(|why| self.full(why, namespace))?;
        let pem = Authority::generate(now).map_err(RootError::Make)?.into_bytes();
        roots.insert(key.to_owned(), ByteString(pem.clone()));
        let parameters = PostParams::default();
        let made = if exists {
            // The resource version of the read Secret is a precondition.
            answer(self.api.replace(&self.name, &parameters, &secret)).await
        } else {
            answer(self.api.create(&parameters, &secret)).await
        };
        made.map_err(|source| self.failed(source))?;
        tracing::info!(secret = %self.name, key, "a gateway had no root of the tunnels: generated one");
        Ok(pem)
    }

    fn full(&self, why: NoPlace, namespace: &str) -> RootError {
        let (name, most) = (self.name.clone(), self.per_namespace);
        match why {
            NoPlace::Secret => RootError::Full(name),
            NoPlace::Namespace => RootError::Share { name, namespace: namespace.to_owned(), most },
        }
    }

    fn failed(&self, source: RequestError) -> RootError {
        RootError::Secret { name: self.name.clone(), source }
    }
}

/// Whether certificates of a root that was read may still be valid.
fn counts(known: Option<&Known>) -> bool {
    known.is_some_and(|known| known.age().may_count())
}

/// Whether a root is in use: it was used recently, or a task reads it.
fn is_recent(place: &Place) -> bool {
    match place.try_lock() {
        Ok(known) => known.as_ref().is_some_and(|known| known.age().is_recent()),
        Err(_) => true,
    }
}

/// The record of roots that were not seen in use.
fn unused_of(secret: &Secret) -> Unused {
    let annotations = secret.metadata.annotations.as_ref();
    Unused::parse(annotations.and_then(|all| all.get(UNUSED_ROOTS)).map(String::as_str))
}

/// The root in the Secret under this key.
fn held(secret: Option<&Secret>, key: &str) -> Option<Vec<u8>> {
    secret?.data.as_ref()?.get(key).map(|pem| pem.0.clone())
}

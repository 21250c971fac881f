//! The complete configuration of one group of proxies.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Agent, CONTRACT, EndpointSet, Listener, ListenerId, Revision, Sidecar, Tunnels, unknown::is_unknown};

/// Position of a configuration in the order of publication.
///
/// An epoch is one leadership term. Within an epoch, smaller numbers are older and refused. Versions of different
/// epochs are not comparable: another epoch is accepted only on a new, authenticated stream. A counter alone would
/// wedge a fleet when the counter restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Leadership term; an opaque string.
    #[serde(default, deserialize_with = "crate::bounded::epoch")]
    pub epoch: String,
    /// Increases within the term.
    #[serde(default)]
    pub number: u64,
}

impl Version {
    /// Whether `next` may replace this version. `new_stream`: nothing has been committed on the stream yet.
    #[must_use]
    pub fn admits(&self, next: &Self, new_stream: bool) -> bool {
        if self.epoch == next.epoch { next.number >= self.number } else { new_stream }
    }
}

/// Everything one group of proxies runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Contract version of the writer.
    #[serde(default = "contract")]
    pub contract: u32,
    /// Position in the order of publication.
    #[serde(flatten)]
    pub version: Version,
    /// Listeners by id. Required, even if empty: a document without this field is not a configuration.
    pub listeners: BTreeMap<ListenerId, Offer>,
    /// Endpoint sets by name. They change without changing any listener's revision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, EndpointSet>,
    /// Agents that may dial the proxies, by uid. They change without changing any listener's revision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::agent::agents")]
    pub agents: BTreeMap<String, Agent>,
    /// The other proxies and the sidecars, for tunnels. They change without changing any listener's revision.
    #[serde(default, skip_serializing_if = "Tunnels::is_empty")]
    pub tunnels: Tunnels,
}

fn contract() -> u32 {
    CONTRACT
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            contract: CONTRACT,
            version: Version::default(),
            listeners: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            agents: BTreeMap::new(),
            tunnels: Tunnels::default(),
        }
    }
}

/// Hash of everything a configuration runs, independent of its version. Equal digests mean equal content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(deserialize_with = "crate::bounded::hash")] pub String);

/// A digest that is updated incrementally: the sum of the hashes of all items. An update hashes only what changed.
///
/// Each item is the first 128 bits of SHA-256 over its name and revision; the sum is modulo 2^128. The digest detects
/// accidental differences; it does not resist forgery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestSum(u128);

impl DigestSum {
    /// Adds a listener.
    pub fn add_listener(&mut self, id: &ListenerId, revision: &Revision) {
        self.0 = self.0.wrapping_add(item(&format!("{id}={revision}")));
    }

    /// Removes a listener.
    pub fn remove_listener(&mut self, id: &ListenerId, revision: &Revision) {
        self.0 = self.0.wrapping_sub(item(&format!("{id}={revision}")));
    }

    /// Adds an endpoint set.
    pub fn add_endpoints(&mut self, name: &str, set: &EndpointSet) {
        self.0 = self.0.wrapping_add(item(&format!("{name}:{}", set.revision())));
    }

    /// Removes an endpoint set.
    pub fn remove_endpoints(&mut self, name: &str, set: &EndpointSet) {
        self.0 = self.0.wrapping_sub(item(&format!("{name}:{}", set.revision())));
    }

    /// Adds an agent.
    pub fn add_agent(&mut self, uid: &str, agent: &Agent) {
        self.0 = self.0.wrapping_add(item(&format!("{uid}@{}", agent.revision())));
    }

    /// Removes an agent.
    pub fn remove_agent(&mut self, uid: &str, agent: &Agent) {
        self.0 = self.0.wrapping_sub(item(&format!("{uid}@{}", agent.revision())));
    }

    /// Adds another proxy.
    pub fn add_peer(&mut self, id: &str, address: IpAddr) {
        self.0 = self.0.wrapping_add(item(&format!("{id}>{address}")));
    }

    /// Removes another proxy.
    pub fn remove_peer(&mut self, id: &str, address: IpAddr) {
        self.0 = self.0.wrapping_sub(item(&format!("{id}>{address}")));
    }

    /// Adds a sidecar.
    pub fn add_sidecar(&mut self, id: &str, sidecar: &Sidecar) {
        self.0 = self.0.wrapping_add(item(&format!("{id}|{}", sidecar.revision())));
    }

    /// Removes a sidecar.
    pub fn remove_sidecar(&mut self, id: &str, sidecar: &Sidecar) {
        self.0 = self.0.wrapping_sub(item(&format!("{id}|{}", sidecar.revision())));
    }

    /// The digest as 32 hex digits.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(format!("{:032x}", self.0))
    }
}

fn item(text: &str) -> u128 {
    Sha256::digest(text.as_bytes()).iter().take(16).fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

impl Configuration {
    /// The digest of all listeners, endpoint sets, agents, peers and sidecars.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest_sum().digest()
    }

    /// The digest of all listeners, endpoint sets, agents, peers and sidecars, to be updated incrementally.
    #[must_use]
    pub fn digest_sum(&self) -> DigestSum {
        let mut sum = DigestSum::default();
        for (id, offer) in &self.listeners {
            sum.add_listener(id, offer.revision());
        }
        for (name, set) in &self.endpoints {
            sum.add_endpoints(name, set);
        }
        for (uid, agent) in &self.agents {
            sum.add_agent(uid, agent);
        }
        for (id, address) in &self.tunnels.peers {
            sum.add_peer(id, *address);
        }
        for (id, sidecar) in &self.tunnels.sidecars {
            sum.add_sidecar(id, sidecar);
        }
        sum
    }
}

/// A listener as received: supported, or preserved but refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Offer {
    /// This build knows every field and value.
    Supported(Arc<Listener>),
    /// Some field or value is unknown; the listener must not run.
    Unsupported {
        /// Revision of the listener, so that the refusal can be matched to it.
        revision: Revision,
        /// The unknown field or value.
        what: String,
        /// The document as received.
        raw: Value,
    },
}

impl Offer {
    /// The revision, whether supported or not.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        match self {
            Self::Supported(listener) => &listener.revision,
            Self::Unsupported { revision, .. } => revision,
        }
    }
}

impl From<Listener> for Offer {
    fn from(listener: Listener) -> Self {
        Self::Supported(Arc::new(listener))
    }
}

impl Serialize for Offer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Supported(listener) => listener.serialize(serializer),
            Self::Unsupported { raw, .. } => raw.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Offer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        Ok(match Listener::deserialize(&raw) {
            Ok(listener) => match unfit(&listener) {
                Some(what) => Self::unsupported(raw, what),
                None => Self::Supported(Arc::new(listener)),
            },
            Err(error) if is_unknown(&error) => Self::unsupported(raw, error.to_string()),
            // No release writes this document, older or newer: it is damaged and refused whole.
            Err(error) => return Err(<D::Error as serde::de::Error>::custom(error)),
        })
    }
}

/// Why a listener of known fields and values must not run, or `None` if it may.
fn unfit(listener: &Listener) -> Option<String> {
    if listener.socket.port == 0 {
        return Some("socket.port is 0".to_owned());
    }
    let beyond = listener.durable.as_deref()?.beyond()?;
    Some(format!("durable: {beyond}"))
}

impl Offer {
    fn unsupported(raw: Value, what: String) -> Self {
        let revision: String =
            raw.get("revision").and_then(Value::as_str).unwrap_or_default().chars().take(64).collect();
        Self::Unsupported { revision: Revision(revision.into()), what, raw }
    }
}

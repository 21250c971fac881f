//! The whole configuration of one group of proxies.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{CONTRACT, Listener, ListenerId, Revision};

/// Where a configuration stands in the order of all that were published.
///
/// An epoch is one term of leadership. Within an epoch a smaller number is older and refused. Another epoch is not
/// comparable: it is accepted on a new, authenticated stream only, because a counter alone would wedge a fleet when
/// the counter starts anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The term; any text.
    #[serde(default)]
    pub epoch: String,
    /// Counts up within the term.
    #[serde(default)]
    pub number: u64,
}

impl Version {
    /// Whether `next` may replace this version; `new_stream` says that it is the first on its stream.
    #[must_use]
    pub fn admits(&self, next: &Self, new_stream: bool) -> bool {
        if self.epoch == next.epoch { next.number >= self.number } else { new_stream }
    }
}

/// Everything that one group of proxies runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Contract version of the writer.
    #[serde(default = "contract")]
    pub contract: u32,
    /// Its place in the order.
    #[serde(flatten)]
    pub version: Version,
    /// Listeners by name. Must be there, be it empty: a document without it is some other document.
    pub listeners: BTreeMap<ListenerId, Offer>,
    /// Endpoint sets by name; they change without changing any listener's revision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, EndpointSet>,
}

fn contract() -> u32 {
    CONTRACT
}

impl Default for Configuration {
    fn default() -> Self {
        Self { contract: CONTRACT, version: Version::default(), listeners: BTreeMap::new(), endpoints: BTreeMap::new() }
    }
}

/// The ready endpoints of a Service port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSet {
    /// Addresses with ports, sorted.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
}

impl EndpointSet {
    /// Hash of the addresses: what a proxy says to have instead of all of them.
    #[must_use]
    pub fn revision(&self) -> Revision {
        let mut hash = Sha256::new();
        for address in &self.addresses {
            hash.update(address.to_string());
            hash.update([0]);
        }
        Revision(short(&hash.finalize()))
    }
}

/// Hash of everything that a configuration runs, whatever its version: two that are equal run the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

/// A digest under construction: the sum of the hashes of all items, so that what changes is all that has to be hashed.
///
/// Each item is the first 128 bits of SHA-256 over its name and revision; the sum is taken modulo 2^128. It tells
/// configurations apart that differ by mistake, not such as somebody made to be alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestSum(u128);

impl DigestSum {
    /// Adds a listener.
    pub fn add_listener(&mut self, id: &ListenerId, revision: &Revision) {
        self.0 = self.0.wrapping_add(item(&format!("{id}={revision}")));
    }

    /// Takes a listener away.
    pub fn remove_listener(&mut self, id: &ListenerId, revision: &Revision) {
        self.0 = self.0.wrapping_sub(item(&format!("{id}={revision}")));
    }

    /// Adds an endpoint set.
    pub fn add_endpoints(&mut self, name: &str, set: &EndpointSet) {
        self.0 = self.0.wrapping_add(item(&format!("{name}:{}", set.revision())));
    }

    /// Takes an endpoint set away.
    pub fn remove_endpoints(&mut self, name: &str, set: &EndpointSet) {
        self.0 = self.0.wrapping_sub(item(&format!("{name}:{}", set.revision())));
    }

    /// The digest: 32 hex digits.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(format!("{:032x}", self.0))
    }
}

fn item(text: &str) -> u128 {
    Sha256::digest(text.as_bytes()).iter().take(16).fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

impl Configuration {
    /// The digest of all listeners and endpoint sets.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut sum = DigestSum::default();
        for (id, offer) in &self.listeners {
            sum.add_listener(id, offer.revision());
        }
        for (name, set) in &self.endpoints {
            sum.add_endpoints(name, set);
        }
        sum.digest()
    }
}

fn short(hash: &[u8]) -> String {
    let first = hash.iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
    format!("{first:016x}")
}

/// A listener as it arrived: understood, or kept as it is and refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Offer {
    /// Every field and value is known to this build.
    Supported(Arc<Listener>),
    /// Something in it is not; it must not run.
    Unsupported {
        /// Its revision, so that the refusal can be matched to it.
        revision: Revision,
        /// What is unknown.
        what: String,
        /// The document as it came.
        raw: Value,
    },
}

impl Offer {
    /// The revision, understood or not.
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
            Ok(listener) if listener.socket.port == 0 => Self::unsupported(raw, "socket.port is 0".to_owned()),
            Ok(listener) => Self::Supported(Arc::new(listener)),
            Err(error) if is_unknown(&error) => Self::unsupported(raw, error.to_string()),
            // Neither an older nor a newer release writes this: the document is damaged, and refused whole.
            Err(error) => return Err(<D::Error as serde::de::Error>::custom(error)),
        })
    }
}

/// Whether a listener says more than this build knows, as a newer release may. The texts are serde's own for these two
/// cases, and the compatibility tests hold them.
fn is_unknown(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.starts_with("unknown field") || text.starts_with("unknown variant")
}

impl Offer {
    fn unsupported(raw: Value, what: String) -> Self {
        let revision = raw.get("revision").and_then(Value::as_str).unwrap_or_default().chars().take(64).collect();
        Self::Unsupported { revision: Revision(revision), what, raw }
    }
}

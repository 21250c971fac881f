//! Identities in a tunnel: names in certificates, fingerprints, and the renewal of certificates.

use std::{fmt, hint::black_box, str::FromStr, time::Duration};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

/// The longest namespace, name or id of an endpoint: one DNS label.
pub const LABEL: usize = 63;
/// Longest uid of an agent.
pub const UID: usize = 64;
/// Server name of a dial that accepts any endpoint. Names under `.invalid` never resolve, so no host has this name.
pub const ANY_ENDPOINT: &str = "portlane-tunnel.invalid";

/// Shortest pause between two attempts to renew a certificate, seconds.
const SHORTEST_PAUSE: u64 = 60;
/// Longest pause between two attempts to renew a certificate, seconds.
const LONGEST_PAUSE: u64 = 3600;

const AGENT: &str = "portlane://agent/";
const ENDPOINT: &str = "portlane://tunnel-endpoint/";
const SIDECAR: &str = "portlane://tunnel-sidecar/";
/// Stands between the id of a sidecar and [`ANY_ENDPOINT`] in a server name.
const OF_SIDECAR: &str = ".sidecar";

/// Why a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a label.
    #[error(
        "{what} {text:?} is not valid: use 1 to 63 lower-case letters, digits and hyphens, and a letter or a digit at \
         both ends"
    )]
    Label {
        /// The kind of the name.
        what: &'static str,
        /// The text, shortened.
        text: String,
    },
    /// Not a uid.
    #[error("uid {0:?} is not valid: use 1 to 64 letters, digits and hyphens")]
    Uid(String),
    /// Not the URI of an agent.
    #[error("{0:?} names no agent: expected portlane://agent/NAMESPACE/NAME/UID?rotation=N")]
    Agent(String),
    /// Not the URI of an endpoint.
    #[error("{0:?} names no tunnel endpoint: expected portlane://tunnel-endpoint/ID")]
    Endpoint(String),
    /// Not a fingerprint.
    #[error("{0:?} is not a SHA-256 hash: expected 64 lower-case hexadecimal digits")]
    Fingerprint(String),
}

/// The part of a stranger's text that an error repeats.
fn short(text: &str) -> String {
    text.chars().take(128).collect()
}

pub(crate) fn label(what: &'static str, text: &str) -> Result<String, NameError> {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let is_outer = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = text.as_bytes();
    let is_valid =
        bytes.len() <= LABEL && bytes.iter().all(is_inner) && is_outer(bytes.first()) && is_outer(bytes.last());
    if is_valid { Ok(text.to_owned()) } else { Err(NameError::Label { what, text: short(text) }) }
}

/// The namespace and the name of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName {
    namespace: String,
    name: String,
}

impl AgentName {
    /// Creates the agent name of this namespace and name.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self { namespace: label("namespace", namespace)?, name: label("name of an agent", name)? })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The identity in the certificate of an agent. The uid distinguishes the agent from a later one of the same name, and
/// a raised rotation revokes earlier certificates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentIdentity {
    agent: AgentName,
    uid: String,
    rotation: u32,
}

impl AgentIdentity {
    /// The identity of an agent.
    pub fn new(agent: AgentName, uid: &str, rotation: u32) -> Result<Self, NameError> {
        let is_valid = (1..=UID).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_valid { Ok(Self { agent, uid: uid.to_owned(), rotation }) } else { Err(NameError::Uid(short(uid))) }
    }

    /// Reads the URI of a certificate. Every identity has exactly one URI.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Agent(short(uri));
        let rest = uri.strip_prefix(AGENT).ok_or_else(wrong)?;
        let (path, digits) = rest.split_once("?rotation=").ok_or_else(wrong)?;
        let mut parts = path.split('/');
        let (Some(namespace), Some(name), Some(uid), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let rotation: u32 = digits.parse().map_err(|_| wrong())?;
        if rotation.to_string() != digits {
            return Err(wrong());
        }
        Self::new(AgentName::new(namespace, name)?, uid, rotation)
    }

    /// The URI for a certificate.
    pub fn uri(&self) -> String {
        format!("{AGENT}{}/{}?rotation={}", self.agent, self.uid, self.rotation)
    }

    /// The agent.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The uid.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The rotation.
    pub fn rotation(&self) -> u32 {
        self.rotation
    }
}

impl TryFrom<String> for AgentIdentity {
    type Error = NameError;

    fn try_from(uri: String) -> Result<Self, NameError> {
        Self::from_uri(&uri)
    }
}

impl From<AgentIdentity> for String {
    fn from(identity: AgentIdentity) -> Self {
        identity.uri()
    }
}

/// The id of an endpoint: a process that agents dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(String);

impl EndpointId {
    /// The endpoint of this id.
    pub fn new(id: &str) -> Result<Self, NameError> {
        label("id of a tunnel endpoint", id).map(Self)
    }

    /// Reads the URI of a certificate.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        Self::new(uri.strip_prefix(ENDPOINT).ok_or_else(|| NameError::Endpoint(short(uri)))?)
    }

    /// The URI for a certificate.
    pub fn uri(&self) -> String {
        format!("{ENDPOINT}{}", self.0)
    }

    /// The URI for the certificate of a sidecar.
    pub fn sidecar_uri(&self) -> String {
        format!("{SIDECAR}{}", self.0)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which endpoint a dial accepts. The server name of the TLS handshake carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dial {
    /// Any endpoint of the server, and no sidecar.
    Any,
    /// This endpoint of the server alone.
    Endpoint(EndpointId),
    /// This sidecar alone. Endpoints of the server hand the connection over to it.
    Sidecar(EndpointId),
}

impl Dial {
    /// The server name, a DNS name.
    pub fn server_name(&self) -> String {
        match self {
            Self::Any => ANY_ENDPOINT.to_owned(),
            Self::Endpoint(id) => format!("{id}.{ANY_ENDPOINT}"),
            Self::Sidecar(id) => format!("{id}{OF_SIDECAR}.{ANY_ENDPOINT}"),
        }
    }

    /// Reads a server name. `None`: the client does not dial a tunnel.
    pub fn from_server_name(name: &str) -> Option<Self> {
        match name.strip_suffix(ANY_ENDPOINT)? {
            "" => Some(Self::Any),
            id => {
                let id = id.strip_suffix('.')?;
                match id.strip_suffix(OF_SIDECAR) {
                    Some(id) => EndpointId::new(id).ok().map(Self::Sidecar),
                    None => EndpointId::new(id).ok().map(Self::Endpoint),
                }
            }
        }
    }

    /// Reads the URI of a certificate. Returns the dial that accepts only its owner.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        match uri.strip_prefix(SIDECAR) {
            Some(id) => EndpointId::new(id).map(Self::Sidecar),
            None => EndpointId::from_uri(uri).map(Self::Endpoint),
        }
    }

    /// Whether this dial accepts the owner of a certificate with the URI of `found`. A sidecar never stands in for the
    /// server: everyone who may use the server can run one.
    pub fn accepts(&self, found: &Self) -> bool {
        match self {
            Self::Any => matches!(found, Self::Endpoint(_)),
            Self::Endpoint(_) | Self::Sidecar(_) => self == found,
        }
    }

    /// The id that this dial asks for.
    pub fn id(&self) -> Option<&EndpointId> {
        match self {
            Self::Any => None,
            Self::Endpoint(id) | Self::Sidecar(id) => Some(id),
        }
    }
}

/// The SHA-256 of a certificate, of a public key or of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(Sha256::digest(bytes).iter()) {
            *to = *from;
        }
        Self(hash)
    }

    /// Wraps a fingerprint that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are equal, in constant time.
    pub fn same(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0_u8, |all, (one, other)| black_box(all | (one ^ other)));
        difference == 0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| NameError::Fingerprint(short(text)))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// Why a certificate is not valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// The lifetime of the certificate has not begun.
    #[error("becomes valid only in {0}")]
    NotYet(Span),
    /// The certificate has expired.
    #[error("expired {0} ago")]
    Expired(Span),
}

/// A number of seconds, printed for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            seconds @ 0..120 => (seconds, "second"),
            seconds @ 120..7200 => (seconds / 60, "minute"),
            seconds @ 7200..172_800 => (seconds / 3600, "hour"),
            seconds => (seconds / 86_400, "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

/// Whether a certificate with this lifetime is valid now. All times are seconds since 1970.
pub fn check_validity(not_before: u64, not_after: u64, now: u64) -> Result<(), ValidityError> {
    if now < not_before {
        Err(ValidityError::NotYet(Span(not_before - now)))
    } else if now > not_after {
        Err(ValidityError::Expired(Span(now - not_after)))
    } else {
        Ok(())
    }
}

/// Whether the certificate should be renewed: half of its lifetime is over. All times are seconds since 1970.
pub fn renewal_due(not_before: u64, not_after: u64, now: u64) -> bool {
    now >= not_before.saturating_add(not_after.saturating_sub(not_before) / 2)
}

/// When to ask for the next certificate, in seconds since 1970. `failed` is the time of the last failed attempt, if
/// there was one. `chance`, from 0 up to but not including 1, spreads agents that enrolled together: over a sixteenth
/// of the lifetime at first, and after a failure over half of the pause, which is an eighth of the time left.
pub fn renew_at(not_before: u64, not_after: u64, failed: Option<u64>, chance: f64) -> u64 {
    let part = |of: u64| Duration::from_secs(of).mul_f64(chance.clamp(0.0, 1.0)).as_secs();
    if let Some(failed) = failed {
        let pause = (not_after.saturating_sub(failed) / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        return failed.saturating_add(pause / 2 + part(pause / 2));
    }
    let life = not_after.saturating_sub(not_before);
    not_before.saturating_add(life / 2 + part(life / 16))
}

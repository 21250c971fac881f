//! Agents: which may dial a proxy, and which targets their streams may reach.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Revision, bounded, hash::short, unknown::is_unknown};

/// The rules for one agent. Its key in a configuration is its uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// Namespace of its `ForwardAgent`.
    #[serde(deserialize_with = "crate::bounded::name")]
    pub namespace: String,
    /// Name of its `ForwardAgent`.
    #[serde(deserialize_with = "crate::bounded::name")]
    pub name: String,
    /// Rotation of the agent's certificates. Those of earlier rotations are refused.
    #[serde(default)]
    pub rotation: u32,
    /// Whether no instance may connect.
    #[serde(default)]
    pub suspended: bool,
    /// Whether the agent is suspended because of a field that this build does not know. Never sent.
    #[serde(skip)]
    pub is_newer: bool,
    /// Most instances at the same time, at least 1.
    pub max_instances: u32,
    /// Targets of streams, as `HOST:PORT` or `HOST:FIRST-LAST`, with a prefix `udp/` for datagrams. The host is a name,
    /// an address or a network, IPv6 in brackets. Empty: no target is allowed.
    #[serde(default, deserialize_with = "crate::bounded::targets")]
    pub targets: Vec<String>,
    /// How the proxy itself enrols the agent. Absent: another program enrols it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<Enrolment>,
    /// In the configuration of sidecars, the uid of the gateway that the agent dials, and that hands its connections
    /// over. Absent: the agent dials the proxies of this configuration directly.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::bounded::backend")]
    pub gateway: Option<String>,
}

/// How an agent gets its first certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
    /// How many agents may enrol with one join string, at least 1.
    pub redemptions: u32,
    /// How long a join string is valid, in seconds.
    pub expire_seconds: u32,
}

impl Agent {
    /// Hash of all fields, which a proxy sends instead of the fields.
    ///
    /// The hash is the first 16 hex digits of SHA-256 over the JSON form in declaration order. It is stable across
    /// platforms and releases as long as the type is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(short(&Sha256::digest(serde_json::to_vec(self).unwrap_or_default())).into())
    }
}

/// The agents of a configuration, or of one part of an update, by uid.
pub(crate) fn agents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Agent>, D::Error> {
    let agents: BTreeMap<String, Received> = bounded::agents(deserializer)?;
    Ok(agents.into_iter().map(|(uid, agent)| (uid, agent.0)).collect())
}

/// An agent as received. An unknown field may be a restriction, so an agent with one is suspended and may not reach
/// anything.
struct Received(Agent);

/// The fields that an agent keeps if it has unknown ones.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    #[serde(deserialize_with = "crate::bounded::name")]
    namespace: String,
    #[serde(deserialize_with = "crate::bounded::name")]
    name: String,
    #[serde(default)]
    rotation: u32,
    max_instances: u32,
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        match Agent::deserialize(&raw) {
            Ok(agent) => Ok(Self(agent)),
            Err(error) if is_unknown(&error) => Known::deserialize(&raw).map(Self::suspended).map_err(D::Error::custom),
            // No release writes this document, older or newer: it is damaged and refused whole.
            Err(error) => Err(D::Error::custom(error)),
        }
    }
}

impl Received {
    fn suspended(known: Known) -> Self {
        let Known { namespace, name, rotation, max_instances } = known;
        Self(Agent {
            namespace,
            name,
            rotation,
            suspended: true,
            is_newer: true,
            max_instances,
            targets: Vec::new(),
            enrolment: None,
            gateway: None,
        })
    }
}

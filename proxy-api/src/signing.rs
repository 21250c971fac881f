//! Certificates for tunnels: a proxy's request to the operator to sign one, the answer, and the connected agents.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::weight::ITEM;

/// Most unanswered requests for certificates of one proxy. The operator refuses further ones as unavailable.
pub const MAX_UNANSWERED: usize = 16;

/// A request for a certificate. An operator that does not support such requests sends no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sign {
    /// Number of the request, repeated in the answer.
    #[serde(default)]
    pub id: u64,
    /// A PKCS #10 request, DER, as base64; at most [`crate::MAX_SIGN_REQUEST_BYTES`].
    #[serde(deserialize_with = "crate::bounded::sign_request")]
    pub request: String,
    /// The applicant.
    pub applicant: Applicant,
}

/// The party that asks for a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Applicant {
    /// The proxy itself, as an endpoint that agents dial.
    Endpoint,
    /// A client with a token.
    Token {
        /// Namespace of the agent for which the token was issued, according to the client.
        #[serde(deserialize_with = "crate::bounded::name")]
        namespace: String,
        /// Name of that agent.
        #[serde(deserialize_with = "crate::bounded::name")]
        name: String,
        /// The token, as base64url without padding. It is never printed.
        #[serde(deserialize_with = "crate::bounded::token")]
        token: String,
    },
    /// An agent with a certificate that the proxy has verified.
    Agent {
        /// Namespace of the agent.
        #[serde(deserialize_with = "crate::bounded::name")]
        namespace: String,
        /// Name of the agent.
        #[serde(deserialize_with = "crate::bounded::name")]
        name: String,
        /// Uid of the agent.
        #[serde(deserialize_with = "crate::bounded::name")]
        uid: String,
        /// Rotation of the certificate.
        rotation: u32,
    },
    /// The proxy itself, as a sidecar that agents of a gateway dial.
    Sidecar {
        /// Uid of the gateway that hands their connections over.
        #[serde(deserialize_with = "crate::bounded::name")]
        gateway: String,
    },
    /// An applicant that this build does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Debug for Applicant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => f.write_str("Endpoint"),
            Self::Token { namespace, name, .. } => write!(f, "Token({namespace}/{name})"),
            Self::Agent { namespace, name, uid, rotation } => write!(f, "Agent({namespace}/{name}, {uid}, {rotation})"),
            Self::Sidecar { gateway } => write!(f, "Sidecar({gateway})"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// The answer to a [`Sign`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// Number of the request.
    #[serde(default)]
    pub id: u64,
    /// The certificate, or why there is none.
    pub outcome: SignOutcome,
}

/// The outcome of a request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SignOutcome {
    /// There is no certificate.
    Refused {
        /// The reason.
        refused: SignRefusal,
    },
    /// A certificate is issued.
    Issued(Issued),
}

/// A certificate, and the root that signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// The certificate, DER, as base64; at most [`crate::MAX_CERTIFICATE_BYTES`].
    #[serde(deserialize_with = "crate::bounded::certificate")]
    pub certificate: String,
    /// The root certificate of the tunnels, in the same form.
    #[serde(deserialize_with = "crate::bounded::certificate")]
    pub root: String,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignRefusal {
    /// The kind of reason.
    #[serde(default)]
    pub reason: SignReason,
    /// The reason and the remedy, for the owner of the applicant; at most [`crate::MAX_REFUSAL_BYTES`].
    #[serde(default, serialize_with = "crate::bounded::cut_refusal", deserialize_with = "crate::bounded::refusal")]
    pub detail: String,
}

/// Categories of reasons for which there is no certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignReason {
    /// The token cannot be redeemed.
    Token,
    /// The applicant may have no certificate.
    Agent,
    /// The request for a certificate is not valid.
    Request,
    /// The operator cannot sign now; a later attempt may succeed.
    Unavailable,
    /// A reason that this build does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// All instances of agents that are connected to a proxy. Sent when they change, at most once a second; the last report
/// of a stream holds until the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentsReport {
    /// By uid of the agent; together at most [`crate::MAX_CONNECTED`] instances.
    #[serde(default, deserialize_with = "crate::bounded::connected")]
    pub agents: BTreeMap<String, Vec<ConnectedInstance>>,
}

/// A connected instance of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectedInstance {
    /// Name of the instance.
    #[serde(deserialize_with = "crate::bounded::instance_name")]
    pub instance: String,
    /// Version of its software.
    #[serde(default, deserialize_with = "crate::bounded::software")]
    pub version: String,
}

impl AgentsReport {
    /// Number of instances.
    #[must_use]
    pub fn items(&self) -> usize {
        self.agents.values().map(Vec::len).sum()
    }

    /// Bytes that this report takes in memory, approximately.
    #[must_use]
    pub fn weight(&self) -> usize {
        let of_agent = |(uid, instances): (&String, &Vec<ConnectedInstance>)| {
            let instances = instances.iter().map(|it| ITEM + it.instance.len() + it.version.len());
            ITEM + uid.len() + instances.sum::<usize>()
        };
        ITEM + self.agents.iter().map(of_agent).sum::<usize>()
    }
}

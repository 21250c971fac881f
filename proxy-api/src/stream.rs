//! The stream between a proxy and the operator.
//!
//! ```text
//! proxy ── Hello{version, digest} ──▶ operator      same digest: one empty Change; otherwise:
//!       ◀── tell_held ──                            request the held revisions
//!       ── Held, in parts ──▶
//!       ◀── Change, in parts ──                     applied only at the commit
//!       ── ReportPart ──▶                           after each apply and each later state change
//!       ── Load ──▶                                 when it changes, at most once every few seconds
//!       ── Drained ──▶                              the last message, if sessions were cut
//!       ◀── Trust ──                                when the trusted CAs change
//!       ◀── Inquiry ──                              when a person asks for live sessions, or for what waits for sinks
//! proxy ── Inspected ──▶                            the answer
//!       ── Sign ──▶                                 when an endpoint of tunnels or an agent needs a certificate
//!       ◀── Signed ──                               the answer
//!       ── AgentsReport ──▶                         when agents connect or leave, at most once a second
//! ```
//!
//! One bidirectional call, open as long as the proxy lives: gRPC method [`SERVICE`]`/`[`METHOD`]. Each message is the
//! JSON form of its type here and sets one field. Messages with only unknown fields are ignored (rule 1).

use serde::{Deserialize, Serialize};

use crate::{AgentsReport, Change, Digest, Held, Inquiry, Inspected, Load, ReportPart, Sign, Signed, Version};

/// Name of the gRPC service.
pub const SERVICE: &str = "portlane.v1.Configurations";
/// Name of the gRPC method.
pub const METHOD: &str = "Follow";
/// Largest message that a proxy accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Largest first message that an operator accepts, in bytes. A hello has a few hundred.
pub const MAX_HELLO_BYTES: usize = 16 << 10;
/// Largest message that an operator accepts after the hello, in bytes: [`crate::PARTS`] listeners with the longest ids
/// and failures.
pub const MAX_REPORT_BYTES: usize = 2 << 20;

/// A message from a proxy to the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FromProxy {
    /// The first message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<Hello>,
    /// The answer to `tell_held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// State of the proxy's listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportPart>,
    /// Load of the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// The answer to an inquiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspected: Option<Inspected>,
    /// Asks for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<Sign>,
    /// The connected agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentsReport>,
    /// Result of the drain: the last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
}

/// Result of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drained {
    /// Sessions that were cut off at the deadline.
    #[serde(default)]
    pub cut: u64,
}

/// Identity and state of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// Software version of the proxy, informational.
    #[serde(default, deserialize_with = "crate::bounded::software")]
    pub software: String,
    /// Version of the configuration in force.
    #[serde(flatten)]
    pub version: Version,
    /// Digest of the configuration in force.
    #[serde(default)]
    pub digest: Digest,
}

/// A message from the operator to a proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToProxy {
    /// Part of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Requests the revisions that the proxy holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tell_held: bool,
    /// CAs to trust from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Asks for live sessions, or for the lag of durable listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inquiry: Option<Inquiry>,
    /// The answer to a request for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// CA certificates that may sign the operator's serving certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// PEM, one or more certificates. A successor is distributed long before it signs.
    pub roots: String,
}

//! The stream between a proxy and the operator.
//!
//! ```text
//! proxy ── Hello{version, digest} ──▶ operator      same digest: one empty Change, else
//!       ◀── tell_held ──                            what do you hold?
//!       ── Held, in parts ──▶
//!       ◀── Change, in parts ──                     nothing is applied before the commit
//!       ── ReportPart ──▶                           after each apply, and at each later change of state
//!       ── Load ──▶                                 when it is another, every few seconds at most
//!       ── Drained ──▶                              the last message, if sessions were cut
//!       ◀── Trust ──                                whenever the roots to trust have changed
//! ```
//!
//! One call for as long as the proxy lives, both ways at once: gRPC method [`SERVICE`]`/`[`METHOD`], each message the JSON
//! form of the type here. A message has one of its fields; a side that knows none of them goes on (rule 1).

use serde::{Deserialize, Serialize};

use crate::{Change, Digest, Held, Load, ReportPart, Version};

/// Name of the gRPC service.
pub const SERVICE: &str = "portlane.v1.Configurations";
/// Name of its method.
pub const METHOD: &str = "Follow";
/// Largest message that either side takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Most items in one part of an update, of what is held, or of a report: a message of about a megabyte.
pub const PARTS: usize = 1000;

/// What a proxy sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FromProxy {
    /// The first message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<Hello>,
    /// The answer to `tell_held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// State of its listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportPart>,
    /// What it has to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// How it ended: the last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
}

/// The end of a proxy that was told to drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drained {
    /// Sessions that were still there at the deadline, and were cut.
    #[serde(default)]
    pub cut: u64,
}

/// Who speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// Release of the proxy, for people.
    #[serde(default)]
    pub software: String,
    /// The configuration in force.
    #[serde(flatten)]
    pub version: Version,
    /// Its digest.
    #[serde(default)]
    pub digest: Digest,
}

/// What the operator sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToProxy {
    /// Part of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Say what you hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tell_held: bool,
    /// Roots to trust from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
}

/// The certificates that an operator's own may descend from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// PEM, one or more; the successor of a root is here long before it signs.
    pub roots: String,
}

//! What a proxy tells back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CONTRACT, ListenerId, Revision, Version};

/// State of a proxy's listeners: whole after each apply and on reconnect, single listeners when one changes later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Contract version of the proxy.
    #[serde(default)]
    pub contract: u32,
    /// The configuration that was last applied.
    #[serde(flatten)]
    pub version: Version,
    /// State by listener.
    #[serde(default)]
    pub listeners: BTreeMap<ListenerId, ListenerReport>,
}

impl Default for Report {
    fn default() -> Self {
        Self { contract: CONTRACT, version: Version::default(), listeners: BTreeMap::new() }
    }
}

/// One listener of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerReport {
    /// The revision that the state is about.
    pub revision: Revision,
    /// Whether it runs.
    pub state: ListenerState,
    /// Why not, with `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Whether a listener runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenerState {
    /// Its socket is bound and takes sessions.
    Bound,
    /// This revision does not run.
    Failed,
    /// Removed; sessions are still running.
    Draining,
    /// A state of a newer proxy.
    #[serde(other)]
    Unknown,
}

/// Why a revision does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One word.
    pub reason: FailureReason,
    /// For a person: what was wrong and what to do.
    pub message: String,
    /// The previous revision, if it goes on serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Revision>,
}

/// Reasons for a failed listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureReason {
    /// Another socket holds the address.
    AddressInUse,
    /// The process may not bind this port.
    PermissionDenied,
    /// The socket is still needed by a listener that could not move.
    SocketHeld,
    /// Another error of the operating system.
    BindFailed,
    /// The listener says something that this proxy does not know.
    Unsupported,
    /// A reason of a newer proxy.
    #[serde(other)]
    Unknown,
}

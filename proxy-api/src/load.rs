//! The load of a proxy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Current load of a proxy. Sent when it changes, at most once every few seconds; the last value holds until the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Sum over all forwards.
    #[serde(flatten)]
    pub sum: Work,
    /// By origin, in the text form of [`crate::Origin`]; empty if there are more than [`crate::MAX_LOADS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::loads")]
    pub forwards: BTreeMap<String, Work>,
}

/// Sessions and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Live TCP connections and UDP flows.
    #[serde(default)]
    pub connections: u64,
    /// New connections and flows per second, averaged since the previous measurement.
    #[serde(default)]
    pub new_per_second: u64,
    /// Bytes per second, both directions together.
    #[serde(default)]
    pub bytes_per_second: u64,
}

//! How much a proxy has to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most forwards of which a proxy tells one by one; one with more tells the sum only.
pub const MAX_LOADS: usize = 64;

/// What a proxy has to do now. Told when it is another than before, every few seconds at most; what is not told again goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Over all forwards.
    #[serde(flatten)]
    pub sum: Work,
    /// By forward, `NAMESPACE/NAME`; empty if there are more than [`MAX_LOADS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forwards: BTreeMap<String, Work>,
}

/// Sessions and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Live TCP connections and UDP flows.
    #[serde(default)]
    pub connections: u64,
    /// New ones a second, on average since it was looked at before.
    #[serde(default)]
    pub new_per_second: u64,
    /// Bytes a second, both directions.
    #[serde(default)]
    pub bytes_per_second: u64,
}

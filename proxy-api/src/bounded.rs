//! Bounds on what a peer may send: the length of each text, and the number of items in each map and set.
//!
//! Bounds are checked while a message is decoded, so that a small message cannot become a large value in memory.

mod visitors;

use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serializer};

use self::visitors::{Connected, List, Map, Set, Text};
use crate::Origin;

/// Most agents of one configuration: twice the number of instances that one proxy accepts at the same time.
pub const MAX_AGENTS: usize = 2048;
/// Most targets of an agent.
pub const MAX_TARGETS: usize = 64;
/// Longest target, in bytes: a name of 253, with its protocol and ports.
pub const MAX_TARGET_BYTES: usize = 320;
/// Most other proxies that one proxy knows.
pub const MAX_PEERS: usize = 256;
/// Most sidecars that one proxy knows.
pub const MAX_SIDECARS: usize = 1024;
/// Longest id of a proxy as an endpoint of tunnels, in bytes: a DNS label.
pub const MAX_ENDPOINT_ID_BYTES: usize = 63;
/// Most bytes of a request for a certificate, decoded.
pub const MAX_SIGN_REQUEST_BYTES: usize = 4 << 10;
/// Most bytes of a certificate, decoded.
pub const MAX_CERTIFICATE_BYTES: usize = 8 << 10;
/// Longest token, in bytes: 32 bytes as base64url.
pub const MAX_TOKEN_BYTES: usize = 43;
/// Longest detail of a refusal, in bytes. A longer one is cut when it is written.
pub const MAX_REFUSAL_BYTES: usize = 512;
/// Most instances of agents that one proxy reports.
pub const MAX_CONNECTED: usize = 1024;
/// Most sessions in one answer.
pub const MAX_LIVE: usize = 1000;
/// Most objects whose sessions an answer counts one by one.
pub const MAX_COUNTED: usize = 256;
/// Most durable listeners in one answer.
pub const MAX_LAGS: usize = 256;
/// Most reasons for which a durable listener drops messages.
pub const MAX_REASONS: usize = 32;
/// Longest name of such a reason, in bytes.
pub const MAX_REASON_BYTES: usize = 64;
/// Longest error of a durable listener, in bytes. A longer one is cut when it is written.
pub const MAX_LAG_ERROR_BYTES: usize = 512;
/// Most forwards that a proxy reports individually; beyond that it reports only the sum.
pub const MAX_LOADS: usize = 64;
/// Most items in one part of an update, of held revisions or of a report: about one megabyte.
pub const PARTS: usize = 1000;
/// Longest revision or digest, in bytes. Hashes have 16 or 32 digits.
pub const MAX_HASH_BYTES: usize = 128;
/// Longest epoch, in bytes.
pub const MAX_EPOCH_BYTES: usize = 256;
/// Longest software version, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 256;
/// Longest name of an endpoint set, a forward or an agent, and longest uid of an agent, in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// Longest name of an instance of an agent, in bytes: a DNS label.
pub const MAX_INSTANCE_BYTES: usize = 63;
/// Longest message of a failure, in bytes. A longer one is cut when it is written.
pub const MAX_FAILURE_BYTES: usize = 1024;

/// A digest.
pub(crate) fn hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("a hash", MAX_HASH_BYTES))
}

/// A revision.
pub(crate) fn revision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    hash(deserializer).map(Arc::from)
}

/// An epoch.
pub(crate) fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("an epoch", MAX_EPOCH_BYTES))
}

/// A software version.
pub(crate) fn software<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("a software version", MAX_SOFTWARE_BYTES))
}

/// The message of a failure.
pub(crate) fn failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("the message of a failure", MAX_FAILURE_BYTES))
}

/// Writes the message of a failure, cut to the length that the other side accepts.
pub(crate) fn cut_failure<S: Serializer>(message: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(message, MAX_FAILURE_BYTES))
}

/// The detail of a refusal.
pub(crate) fn refusal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("the detail of a refusal", MAX_REFUSAL_BYTES))
}

/// Writes the detail of a refusal, cut to the length that the other side accepts.
pub(crate) fn cut_refusal<S: Serializer>(detail: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(detail, MAX_REFUSAL_BYTES))
}

/// The error of a durable listener.
pub(crate) fn lag_error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("the error of a durable listener", MAX_LAG_ERROR_BYTES))
}

/// Writes the error of a durable listener, cut to the length that the other side accepts.
pub(crate) fn cut_lag_error<S: Serializer>(error: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(error, MAX_LAG_ERROR_BYTES))
}

/// A request for a certificate, as base64.
pub(crate) fn sign_request<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("a request for a certificate", base64(MAX_SIGN_REQUEST_BYTES)))
}

/// A certificate, as base64.
pub(crate) fn certificate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("a certificate", base64(MAX_CERTIFICATE_BYTES)))
}

/// The token of a join string.
pub(crate) fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("a token", MAX_TOKEN_BYTES))
}

/// Length of `bytes` bytes as base64 with padding.
const fn base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// The start of a text, at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The name of an endpoint set, a forward or an agent, or the uid of an agent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a name", MAX_NAME_BYTES)).map(Self)
    }
}

/// The map of one part of a message.
pub(crate) fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Map::<K, V> { most: PARTS, of: PhantomData })
}

/// The map of one part of a message, by name.
pub(crate) fn named<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    named_within(deserializer, PARTS)
}

/// A map of at most `most` items, by name.
fn named_within<'de, D, V>(deserializer: D, most: usize) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    let named = deserializer.deserialize_map(Map::<Name, V> { most, of: PhantomData })?;
    Ok(named.into_iter().map(|(name, value)| (name.0, value)).collect())
}

/// The loads of forwards, by name.
pub(crate) fn loads<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    named_within(deserializer, MAX_LOADS)
}

/// The name of an agent, or its namespace.
pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Name::deserialize(deserializer).map(|name| name.0)
}

/// The targets of an agent.
pub(crate) fn targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Target(String);

    impl<'de> Deserialize<'de> for Target {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Text("a target", MAX_TARGET_BYTES)).map(Self)
        }
    }

    let targets = deserializer.deserialize_seq(List::<Target> { most: MAX_TARGETS, of: PhantomData })?;
    Ok(targets.into_iter().map(|target| target.0).collect())
}

/// The agents of a configuration, or of one part of an update, by uid.
pub(crate) fn agents<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    named_within(deserializer, MAX_AGENTS)
}

/// The uids of one part of an update, or of one sidecar.
pub(crate) fn uids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let uids = deserializer.deserialize_seq(Set::<Name> { most: MAX_AGENTS, of: PhantomData })?;
    Ok(uids.into_iter().map(|uid| uid.0).collect())
}

/// The id of a proxy as an endpoint of tunnels.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct EndpointId(String);

impl<'de> Deserialize<'de> for EndpointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("the id of an endpoint", MAX_ENDPOINT_ID_BYTES)).map(Self)
    }
}

/// The other proxies of a configuration, or of one part of an update, by id.
pub(crate) fn peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, IpAddr>, D::Error> {
    let peers = deserializer.deserialize_map(Map::<EndpointId, IpAddr> { most: MAX_PEERS, of: PhantomData })?;
    Ok(peers.into_iter().map(|(id, address)| (id.0, address)).collect())
}

/// The ids of one part of an update.
pub(crate) fn peer_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let ids = deserializer.deserialize_seq(Set::<EndpointId> { most: MAX_PEERS, of: PhantomData })?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// The sidecars of a configuration, or of one part of an update, by id.
pub(crate) fn sidecars<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    let all = deserializer.deserialize_map(Map::<EndpointId, V> { most: MAX_SIDECARS, of: PhantomData })?;
    Ok(all.into_iter().map(|(id, sidecar)| (id.0, sidecar)).collect())
}

/// The ids of removed sidecars of one part of an update.
pub(crate) fn sidecar_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let ids = deserializer.deserialize_seq(Set::<EndpointId> { most: MAX_SIDECARS, of: PhantomData })?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// The set of one part of a message.
pub(crate) fn set<'de, D, K>(deserializer: D) -> Result<BTreeSet<K>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
{
    deserializer.deserialize_seq(Set::<K> { most: PARTS, of: PhantomData })
}

/// The name of a backend, or of a server, or the uid of a gateway.
pub(crate) fn backend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Name>::deserialize(deserializer)?.map(|name| name.0))
}

/// The name of an instance of an agent.
pub(crate) fn instance<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Instance(String);

    impl<'de> Deserialize<'de> for Instance {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            instance_name(deserializer).map(Self)
        }
    }

    Ok(Option::<Instance>::deserialize(deserializer)?.map(|name| name.0))
}

/// The name of an instance of an agent, which must be present.
pub(crate) fn instance_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text("the name of an instance", MAX_INSTANCE_BYTES))
}

/// The connected instances of agents, by uid.
pub(crate) fn connected<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, Vec<V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Connected::<V>(PhantomData))
}

/// The sessions of one answer.
pub(crate) fn sessions<'de, D, V>(deserializer: D) -> Result<Vec<V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<V> { most: MAX_LIVE, of: PhantomData })
}

/// The durable listeners of one answer.
pub(crate) fn lags<'de, D, V>(deserializer: D) -> Result<Option<Vec<V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<V> { most: MAX_LAGS, of: PhantomData }).map(Some)
}

/// The numbers of messages that a durable listener dropped, by reason.
pub(crate) fn reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Reason(String);

    impl<'de> Deserialize<'de> for Reason {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Text("a reason", MAX_REASON_BYTES)).map(Self)
        }
    }

    let reasons = deserializer.deserialize_map(Map::<Reason, u64> { most: MAX_REASONS, of: PhantomData })?;
    Ok(reasons.into_iter().map(|(reason, count)| (reason.0, count)).collect())
}

/// The numbers of sessions of one answer, by object.
pub(crate) fn counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Origin, u64>, D::Error> {
    deserializer.deserialize_map(Map::<Origin, u64> { most: MAX_COUNTED, of: PhantomData })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("abc", 9), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aüb", 2), "a", "the second character has two bytes");
        assert_eq!(cut("", 0), "");
    }
}

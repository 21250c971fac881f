//! Updates: the difference between two configurations, in bounded messages.

mod pending;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use self::pending::Pending;
use crate::{
    Agent, CONTRACT, Configuration, Digest, DigestSum, EndpointSet, Held, ListenerId, MAX_AGENTS, MAX_LISTENERS,
    MAX_PEERS, MAX_SIDECAR_AGENTS, MAX_SIDECARS, Offer, Origin, Sidecar, Version, peer_revision,
};

/// Part of an update. No part is applied before the part with `commit` has arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Contract version of the writer.
    #[serde(default)]
    pub contract: u32,
    /// Version that the update leads to.
    #[serde(flatten)]
    pub version: Version,
    /// New and changed listeners.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upserts: BTreeMap<ListenerId, Offer>,
    /// Removed listeners.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removals: BTreeSet<ListenerId>,
    /// New and changed endpoint sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, EndpointSet>,
    /// Removed endpoint sets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub endpoint_removals: BTreeSet<String>,
    /// New and changed agents, by uid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::agent::agents")]
    pub agents: BTreeMap<String, Agent>,
    /// Uids of removed agents.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "crate::bounded::uids")]
    pub agent_removals: BTreeSet<String>,
    /// New and changed addresses of other proxies, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::peers")]
    pub peers: BTreeMap<String, IpAddr>,
    /// Ids of removed proxies.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "crate::bounded::peer_ids")]
    pub peer_removals: BTreeSet<String>,
    /// New and changed sidecars, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::sidecars")]
    pub sidecars: BTreeMap<String, Sidecar>,
    /// Ids of removed sidecars.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "crate::bounded::sidecar_ids")]
    pub sidecar_removals: BTreeSet<String>,
    /// With `commit`: digest of the configuration that this proxy should then hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Whether this is the last part.
    #[serde(default)]
    pub commit: bool,
}

impl Change {
    /// Whether this part names agents, other proxies or sidecars.
    fn names_tunnels(&self) -> bool {
        !self.agents.is_empty()
            || !self.agent_removals.is_empty()
            || !self.peers.is_empty()
            || !self.peer_removals.is_empty()
            || !self.sidecars.is_empty()
            || !self.sidecar_removals.is_empty()
    }

    /// Number of items of this part, weighted as in [`Configuration::changes_from`].
    fn items(&self) -> usize {
        let further: usize = self.endpoints.values().map(|set| set.endpoints.len() / ADDRESSES_PER_ITEM).sum();
        let new = self.upserts.len() + self.endpoints.len() + further + self.agents.len() + self.peers.len();
        let gone = self.removals.len() + self.endpoint_removals.len() + self.agent_removals.len();
        new + gone + self.peer_removals.len() + self.sidecars.len() + self.sidecar_removals.len()
    }
}

impl Configuration {
    /// The parts of an update that lead a proxy holding `held` to this configuration, at most `per_part` items each. An
    /// endpoint set counts by its number of addresses, an agent by that of its targets, a sidecar by that of its agents.
    ///
    /// The size depends only on what differs. Listeners of forwards in `unreadable` are never removed, because their
    /// desired state is unknown. The last part, always present, has `commit`.
    #[must_use]
    pub fn changes_from(&self, held: &Held, unreadable: &BTreeSet<Origin>, per_part: usize) -> Vec<Change> {
        let mut parts = Parts { version: &self.version, per_part: per_part.max(1), done: Vec::new(), items: 0 };
        // Removals first, so that a full proxy has room for the additions.
        let kept = |id: &ListenerId| unreadable.contains(&id.origin);
        for id in held.listeners.keys().filter(|id| !self.listeners.contains_key(id) && !kept(id)) {
            parts.open(1).removals.insert(id.clone());
        }
        for uid in held.agents.keys().filter(|uid| !self.agents.contains_key(*uid)) {
            parts.open(1).agent_removals.insert(uid.clone());
        }
        for id in held.peers.keys().filter(|id| !self.tunnels.peers.contains_key(*id)) {
            parts.open(1).peer_removals.insert(id.clone());
        }
        for id in held.sidecars.keys().filter(|id| !self.tunnels.sidecars.contains_key(*id)) {
            parts.open(1).sidecar_removals.insert(id.clone());
        }
        for (id, offer) in &self.listeners {
            if held.listeners.get(id) != Some(offer.revision()) {
                parts.open(1).upserts.insert(id.clone(), offer.clone());
            }
        }
        for (name, set) in &self.endpoints {
            if held.endpoints.get(name) != Some(&set.revision()) {
                parts.open(1 + set.endpoints.len() / ADDRESSES_PER_ITEM).endpoints.insert(name.clone(), set.clone());
            }
        }
        // The endpoint sets that unreadable forwards need are unknown too, so keep all.
        let gone = held.endpoints.keys().filter(|name| unreadable.is_empty() && !self.endpoints.contains_key(*name));
        for name in gone {
            parts.open(1).endpoint_removals.insert(name.clone());
        }
        for (uid, agent) in &self.agents {
            if held.agents.get(uid) != Some(&agent.revision()) {
                parts.open(1 + agent.targets.len() / TARGETS_PER_ITEM).agents.insert(uid.clone(), agent.clone());
            }
        }
        for (id, address) in &self.tunnels.peers {
            if held.peers.get(id) != Some(&peer_revision(*address)) {
                parts.open(1).peers.insert(id.clone(), *address);
            }
        }
        for (id, sidecar) in &self.tunnels.sidecars {
            if held.sidecars.get(id) != Some(&sidecar.revision()) {
                parts.open(1 + sidecar.agents.len() / UIDS_PER_ITEM).sidecars.insert(id.clone(), sidecar.clone());
            }
        }
        parts.finish()
    }
}

/// Addresses of an endpoint set that count as one item.
const ADDRESSES_PER_ITEM: usize = 16;
/// Targets of an agent that count as one item.
const TARGETS_PER_ITEM: usize = 4;
/// Agents of a sidecar that count as one item.
const UIDS_PER_ITEM: usize = 4;

struct Parts<'a> {
    version: &'a Version,
    per_part: usize,
    done: Vec<Change>,
    items: usize,
}

impl Parts<'_> {
    fn empty(&self) -> Change {
        Change { contract: CONTRACT, version: self.version.clone(), ..Change::default() }
    }

    /// Returns the part that has room for an item of this weight.
    fn open(&mut self, weight: usize) -> &mut Change {
        if self.done.is_empty() || self.items + weight > self.per_part {
            self.done.push(self.empty());
            self.items = 0;
        }
        self.items += weight;
        let last = self.done.len() - 1;
        &mut self.done[last]
    }

    fn finish(mut self) -> Vec<Change> {
        if self.done.is_empty() {
            self.done.push(self.empty());
        }
        if let Some(last) = self.done.last_mut() {
            last.commit = true;
        }
        self.done
    }
}

/// A change that was refused; the current configuration stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Older than the current version, or of another epoch in mid-stream.
    #[error("change {next:?} is older than {current:?}, or changes the epoch in mid-stream")]
    Stale {
        /// Version in force.
        current: Version,
        /// Version refused.
        next: Version,
    },
    /// A part of one version arrived before the commit of another.
    #[error("a part of version {found} arrived before the commit of version {expected}")]
    Mixed {
        /// Version being assembled.
        expected: u64,
        /// Version that arrived.
        found: u64,
    },
    /// More listeners than [`MAX_LISTENERS`].
    #[error("more than {MAX_LISTENERS} listeners in one update")]
    TooMany,
    /// More agents than [`MAX_AGENTS`].
    #[error("more than {MAX_AGENTS} agents in one update")]
    TooManyAgents,
    /// More other proxies than [`MAX_PEERS`].
    #[error("more than {MAX_PEERS} other proxies in one update")]
    TooManyPeers,
    /// More sidecars than [`MAX_SIDECARS`], or more agents of them than [`MAX_SIDECAR_AGENTS`].
    #[error("more than {MAX_SIDECARS} sidecars, or {MAX_SIDECAR_AGENTS} agents of them, in one update")]
    TooManySidecars,
}

/// Collects the parts of an update and yields the next configuration at its commit, with a digest for which only the
/// items of the update are hashed.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: Option<Pending>,
    on_stream: bool,
    /// Digest of the configuration in force; `None` until it is known.
    sum: Option<DigestSum>,
    hashed: usize,
    named: Named,
    /// The parts of the last update, unless they are many.
    last: Option<Vec<Change>>,
    /// The configuration before the last update.
    spare: Option<Configuration>,
    /// Whether an update has begun since the last call of [`Self::rest`].
    is_busy: bool,
    copies: usize,
}

/// Most items of an update, plus one for each part, for which the configuration before the update is reused. For a
/// larger update, repeating it costs more than a copy.
const MOST_REPEATED: usize = 256;

/// The names in an update. Nothing else differs between the configuration before it and the one after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// New, changed and removed listeners.
    pub listeners: BTreeSet<ListenerId>,
    /// New, changed and removed endpoint sets.
    pub endpoints: BTreeSet<String>,
    /// Whether the update names agents, other proxies or sidecars.
    pub tunnels: bool,
}

impl Assembler {
    /// Creates an assembler for a stream that begins with this configuration in force.
    #[must_use]
    pub fn of(current: &Configuration) -> Self {
        Self { sum: Some(current.digest_sum()), ..Self::default() }
    }

    /// Digest of the configuration in force: the one that the last commit led to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.sum.unwrap_or_default().digest()
    }

    /// Number of items of updates that were hashed for the digest. A stream's initial configuration does not count.
    #[must_use]
    pub fn hashed(&self) -> usize {
        self.hashed
    }

    /// Takes the names of the last committed update; empty if they were taken before.
    pub fn take_named(&mut self) -> Named {
        std::mem::take(&mut self.named)
    }

    /// Takes back the configuration that was in force before the last update, unmodified. The next update is assembled
    /// in it, instead of in a copy of the one in force.
    pub fn reuse(&mut self, before: Configuration) {
        self.spare = self.last.is_some().then_some(before);
    }

    /// Called at intervals: drops the configuration from [`Self::reuse`] if no update has begun since the last call.
    pub fn rest(&mut self) {
        if !std::mem::take(&mut self.is_busy) {
            self.spare = None;
        }
    }

    /// Number of updates for which the configuration in force was copied.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// Returns a configuration with the content of the one in force.
    fn like(&mut self, current: &Configuration) -> Configuration {
        self.is_busy = true;
        let (spare, last) = (self.spare.take(), self.last.take());
        let Some((mut next, parts)) = spare.zip(last) else {
            self.copies += 1;
            return current.clone();
        };
        for part in parts {
            pending::repeat(&mut next, part);
        }
        next
    }

    /// Takes one part. `current` is the configuration in force, the same until a commit; `Ok(Some(_))` replaces it.
    ///
    /// # Errors
    /// See [`ChangeError`]. The parts collected so far are dropped; the caller should open a new stream.
    pub fn take(&mut self, current: &Configuration, part: Change) -> Result<Option<Configuration>, ChangeError> {
        let result = self.try_take(current, part);
        if result.is_err() {
            self.pending = None;
        }
        result
    }

    fn try_take(&mut self, current: &Configuration, part: Change) -> Result<Option<Configuration>, ChangeError> {
        if !current.version.admits(&part.version, !self.on_stream) {
            return Err(ChangeError::Stale { current: current.version.clone(), next: part.version });
        }
        let sum = *self.sum.get_or_insert_with(|| current.digest_sum());
        let mut pending = match self.pending.take() {
            Some(pending) if pending.next.version == part.version => pending,
            Some(Pending { next, .. }) => {
                return Err(ChangeError::Mixed { expected: next.version.number, found: part.version.number });
            }
            None => {
                let version = part.version.clone();
                let next = Configuration { contract: part.contract, version, ..self.like(current) };
                Pending { next, sum, named: Named::default(), parts: Some(Vec::new()) }
            }
        };
        let (is_last, digest) = (part.commit, part.digest.clone());
        pending.keep(&part);
        self.hashed += pending.add(part);
        pending.within_bounds(is_last)?;
        if is_last {
            pending.agree(digest.as_ref());
            self.on_stream = true;
            self.last = pending.parts;
            (self.sum, self.named) = (Some(pending.sum), pending.named);
            return Ok(Some(pending.next));
        }
        self.pending = Some(pending);
        Ok(None)
    }
}

#[cfg(test)]
mod tests;

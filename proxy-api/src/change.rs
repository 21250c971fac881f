//! From one configuration to the next in bounded messages.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{CONTRACT, Configuration, Digest, EndpointSet, ListenerId, MAX_LISTENERS, Offer, Revision, Version};

/// Part of an update. Nothing of it is applied before a part with `commit` has arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Contract version of the writer.
    #[serde(default)]
    pub contract: u32,
    /// The version that the update leads to.
    #[serde(flatten)]
    pub version: Version,
    /// Listeners that are new or different.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upserts: BTreeMap<ListenerId, Offer>,
    /// Listeners that are gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removals: BTreeSet<ListenerId>,
    /// Endpoint sets that are new or different.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, EndpointSet>,
    /// Endpoint sets that are gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub endpoint_removals: BTreeSet<String>,
    /// With `commit`: the digest of what the operator now believes this proxy to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The last part.
    #[serde(default)]
    pub commit: bool,
}

/// What a proxy says it holds, in parts, if its digest is not the one that it should have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Revisions by listener.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: BTreeMap<ListenerId, Revision>,
    /// Revisions of endpoint sets by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, Revision>,
    /// The last part.
    #[serde(default)]
    pub commit: bool,
}

impl Held {
    /// The same in parts of at most so many entries; the last one has `commit`.
    #[must_use]
    pub fn into_parts(self, per_part: usize) -> Vec<Self> {
        let per_part = per_part.max(1);
        let mut parts = vec![Self::default()];
        let mut items = 0;
        let mut last = |parts: &mut Vec<Self>| {
            if items == per_part {
                parts.push(Self::default());
                items = 0;
            }
            items += 1;
            parts.len() - 1
        };
        for (id, revision) in self.listeners {
            let at = last(&mut parts);
            parts[at].listeners.insert(id, revision);
        }
        for (name, revision) in self.endpoints {
            let at = last(&mut parts);
            parts[at].endpoints.insert(name, revision);
        }
        if let Some(part) = parts.last_mut() {
            part.commit = true;
        }
        parts
    }
}

impl Configuration {
    /// What to say on connect to be told changes only.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            listeners: self.listeners.iter().map(|(id, offer)| (id.clone(), offer.revision().clone())).collect(),
            endpoints: self.endpoints.iter().map(|(name, set)| (name.clone(), set.revision())).collect(),
            commit: true,
        }
    }

    /// The parts that lead a proxy which holds `held` to this configuration, at most `per_part` items in each (an endpoint
    /// set counts by its addresses).
    ///
    /// Their size depends on what differs and not on what is equal. Listeners of the forwards in `unreadable` are not
    /// removed: nobody knows what they should be. There is always a last part with `commit`.
    #[must_use]
    pub fn changes_from(&self, held: &Held, unreadable: &BTreeSet<(String, String)>, per_part: usize) -> Vec<Change> {
        let mut parts = Parts { version: &self.version, per_part: per_part.max(1), done: Vec::new(), items: 0 };
        // Removals first, so that a full proxy has room for what comes.
        let kept = |id: &ListenerId| unreadable.contains(&(id.namespace.clone(), id.forward.clone()));
        for id in held.listeners.keys().filter(|id| !self.listeners.contains_key(id) && !kept(id)) {
            parts.open(1).removals.insert(id.clone());
        }
        for (id, offer) in &self.listeners {
            if held.listeners.get(id) != Some(offer.revision()) {
                parts.open(1).upserts.insert(id.clone(), offer.clone());
            }
        }
        for (name, set) in &self.endpoints {
            if held.endpoints.get(name) != Some(&set.revision()) {
                parts.open(1 + set.addresses.len() / ADDRESSES_PER_ITEM).endpoints.insert(name.clone(), set.clone());
            }
        }
        // Whose endpoints a listener that is kept would need is not known either.
        let gone = held.endpoints.keys().filter(|name| unreadable.is_empty() && !self.endpoints.contains_key(*name));
        for name in gone {
            parts.open(1).endpoint_removals.insert(name.clone());
        }
        parts.finish()
    }
}

/// Addresses of an endpoint set that count as one item.
const ADDRESSES_PER_ITEM: usize = 16;

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

    /// The part that takes an item of this weight.
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

/// A change that cannot be taken; the configuration in force stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Older than what is in force.
    #[error("change {next:?} is older than {current:?} in the same epoch, or of another epoch on an old stream")]
    Stale {
        /// In force.
        current: Version,
        /// Refused.
        next: Version,
    },
    /// A part of another version before the commit of the one under way.
    #[error("a part of version {found} arrived while version {expected} was not yet committed")]
    Mixed {
        /// Under way.
        expected: u64,
        /// Arrived.
        found: u64,
    },
    /// More listeners than a proxy takes.
    #[error("more than {MAX_LISTENERS} listeners in one update")]
    TooMany,
}

/// Collects the parts of an update and yields the next configuration at its commit.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: Option<Configuration>,
    on_stream: bool,
}

impl Assembler {
    /// Takes one part. `current` is the configuration in force; `Ok(Some(_))` replaces it.
    ///
    /// # Errors
    /// See [`ChangeError`]; what was collected is dropped and the stream should be made anew.
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
        let mut next = match self.pending.take() {
            Some(pending) if pending.version == part.version => pending,
            Some(pending) => {
                return Err(ChangeError::Mixed { expected: pending.version.number, found: part.version.number });
            }
            None => Configuration { contract: part.contract, version: part.version.clone(), ..current.clone() },
        };
        next.listeners.extend(part.upserts);
        next.listeners.retain(|id, _| !part.removals.contains(id));
        next.endpoints.extend(part.endpoints);
        next.endpoints.retain(|name, _| !part.endpoint_removals.contains(name));
        if next.listeners.len() > MAX_LISTENERS {
            return Err(ChangeError::TooMany);
        }
        if part.commit {
            self.on_stream = true;
            return Ok(Some(next));
        }
        self.pending = Some(next);
        Ok(None)
    }
}

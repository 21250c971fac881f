//! When the children of gateways are applied, and when the statuses of gateways are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{ForwardGateway, ForwardGatewayStatus};
use proxy_api::Transport;

use crate::{
    desired::{
        ca::Trusted,
        gateway::{Desired, Fleets, selector_text},
    },
    hash::hash,
    schedule::{Effect, StatusWrite, View},
    status::{
        conditions::Finding,
        gateway::{FleetFacts, gateway_status},
        patch,
    },
    translate::groups::Group,
    world::{ObjectKey, cache::Cache, subject::Subject},
};

/// Interval of applying children again, in case somebody changed them.
const RESYNC: Duration = Duration::from_secs(600);
/// Pause after children could not be applied.
const RETRY: Duration = Duration::from_secs(5);
/// Shortest time between two writes of one gateway's status.
const WRITES: Duration = Duration::from_secs(1);

/// The result of applying the children of a gateway.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The gateway.
    pub key: ObjectKey,
    /// Generation of the gateway that was applied.
    pub generation: Option<i64>,
    /// Hash of the applied children, see [`Desired::hash`].
    pub hash: String,
    /// Why applying failed; `None` on success.
    pub error: Option<String>,
}

#[derive(Default)]
struct Entry {
    ports: BTreeSet<(Transport, u16)>,
    /// Hash of the last applied children, and the time.
    applied: Option<(String, Duration)>,
    /// Generation of the gateway that was applied last.
    generation: Option<i64>,
    applying: bool,
    failed: Option<(String, Duration)>,
    /// Generation of the Deployment at the last comparison.
    seen: Option<i64>,
    /// The status must be evaluated.
    touched: bool,
    /// The children must be compared with the desired ones.
    changed: bool,
    wrote: Option<Duration>,
    /// The last written status.
    written: Option<ForwardGatewayStatus>,
}

/// The children and statuses of all gateways.
#[derive(Default)]
pub struct Gateways {
    fleets: Fleets,
    entries: BTreeMap<ObjectKey, Entry>,
}

impl Gateways {
    /// Begins a leader election term with the settings that all fleets share.
    #[must_use]
    pub fn new(fleets: Fleets) -> Self {
        Self { fleets, entries: BTreeMap::new() }
    }

    /// A gateway changed, or something that its children or status depend on.
    pub fn touch(&mut self, key: &ObjectKey) {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.touched = true;
        entry.changed = true;
    }

    /// The ports of a gateway's listeners changed.
    pub fn listeners(&mut self, key: &ObjectKey) {
        self.entries.entry(key.clone()).or_default().changed = true;
    }

    /// Records the result of applying children; returns whether the failure is a new one.
    pub fn applied(&mut self, applied: Applied, now: Duration) -> bool {
        let Applied { key, generation, hash, error } = applied;
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        entry.applying = false;
        entry.touched = true;
        entry.changed = true;
        match error {
            None => {
                entry.applied = Some((hash, now));
                entry.generation = generation;
                entry.failed = None;
                false
            }
            Some(why) => {
                let is_new = entry.failed.as_ref().map(|(before, _)| before) != Some(&why);
                entry.failed = Some((why, now));
                is_new
            }
        }
    }

    /// Returns the effects that are due. `trusted` are the CA certificates; `is_other`: they changed since the last
    /// call. `scaling` returns the condition `ScalingActive` of a gateway with `spec.autoscaling`.
    pub fn tick(
        &mut self,
        view: &View<'_>,
        trusted: &Trusted,
        is_other: bool,
        scaling: &dyn Fn(&ObjectKey) -> Option<Finding>,
        now: Duration,
    ) -> Vec<Effect> {
        let gateways = view.cache.gateways();
        self.entries.retain(|key, _| gateways.contains(key));
        let mut effects = Vec::new();
        for (key, gateway) in gateways.iter().filter_map(|key| Some((key, view.cache.gateway(key)?))) {
            self.entries.entry(key.clone()).or_default().changed |= is_other;
            effects.extend(self.children(key, &gateway, view, trusted, now));
            effects.extend(self.status(key, &gateway, view, scaling(key), now));
        }
        effects
    }

    fn children(
        &mut self,
        key: &ObjectKey,
        gateway: &ForwardGateway,
        View { cache, translator, .. }: &View<'_>,
        trusted: &Trusted,
        now: Duration,
    ) -> Option<Effect> {
        if trusted.signing.is_empty()
            || refusal(key, cache, &self.fleets).is_some()
            || gateway.metadata.deletion_timestamp.is_some()
        {
            return None;
        }
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.applying || entry.failed.as_ref().is_some_and(|(_, at)| now < *at + RETRY) {
            return None;
        }
        let is_old = entry.applied.as_ref().is_none_or(|(_, at)| now >= *at + RESYNC);
        if !std::mem::take(&mut entry.changed) && entry.failed.is_none() && !is_old {
            return None;
        }
        let group = Group::Gateway(key.clone());
        entry.ports = translator.ports(&group);
        let hash = hash_of(gateway, &self.fleets, trusted, &entry.ports);
        // A change of the Deployment by somebody else shows in its generation.
        let generation = cache.deployments.get(key).map(|state| state.generation);
        let changed = entry.applied.is_some() && entry.seen.is_some() && entry.seen != generation;
        entry.seen = generation;
        let fresh = entry.failed.is_none()
            && entry.applied.as_ref().is_some_and(|(applied, at)| *applied == hash && now < *at + RESYNC);
        if fresh && !changed {
            return None;
        }
        entry.applying = true;
        Some(Effect::ApplyChildren(Box::new(Desired {
            key: key.clone(),
            gateway: gateway.clone(),
            fleets: self.fleets.clone(),
            trusted: trusted.clone(),
            ports: entry.ports.clone(),
            hash,
        })))
    }

    fn status(
        &mut self,
        key: &ObjectKey,
        gateway: &ForwardGateway,
        View { cache, translator, wall_clock, .. }: &View<'_>,
        scaling: Option<Finding>,
        now: Duration,
    ) -> Option<Effect> {
        let entry = self.entries.get_mut(key)?;
        // A status written while children are applied would be outdated a moment later.
        if !entry.touched || entry.applying || entry.wrote.is_some_and(|wrote| now < wrote + WRITES) {
            return None;
        }
        entry.touched = false;
        let state = cache.deployments.get(key).cloned().unwrap_or_default();
        let service = cache.services.get(key).filter(|service| service.gateway.as_ref() == Some(&key.name));
        let facts = FleetFacts {
            refused: refusal(key, cache, &self.fleets),
            children: entry.failed.as_ref().map(|(why, _)| why.clone()),
            applied: entry.applied.is_some() && entry.generation == gateway.metadata.generation,
            replicas: state.replicas,
            ready: state.ready,
            addresses: service.map(|service| patch::forward_addresses(&service.addresses)).unwrap_or_default(),
            attached: u32::try_from(translator.attached(key)).unwrap_or(u32::MAX),
            selector: selector_text(key),
            scaling,
        };
        let next = gateway_status(gateway, &facts, wall_clock);
        let is_unreadable = cache.unreadable_gateway(key).is_some();
        if gateway.status.as_ref() == Some(&next) || is_unreadable && entry.written.as_ref() == Some(&next) {
            return None;
        }
        entry.wrote = Some(now);
        // Evaluate again: the cache may still show a status older than the written one.
        entry.touched = !is_unreadable;
        entry.written = Some(next.clone());
        let uid = gateway.metadata.uid.clone().unwrap_or_default();
        let status = patch::all_of_gateway(&next);
        Some(Effect::WriteStatus(StatusWrite { subject: Subject::Gateway(key.clone()), uid, status }))
    }
}

/// Why a gateway is not accepted and its children stay as they are: reason and message.
fn refusal(key: &ObjectKey, cache: &Cache, fleets: &Fleets) -> Option<(String, String)> {
    if let Some(why) = cache.unreadable_gateway(key) {
        let message = format!(
            "this operator cannot read the object ({why}); the fleet keeps running unchanged: install CRDs and \
             operator of the same release"
        );
        return Some(("Unsupported".to_owned(), message));
    }
    let message = fleets.namespaces.refusal(&key.namespace)?;
    Some(("FleetsNotPermitted".to_owned(), message))
}

/// Hash of everything that the children depend on.
fn hash_of(gateway: &ForwardGateway, fleets: &Fleets, trusted: &Trusted, ports: &BTreeSet<(Transport, u16)>) -> String {
    let spec = serde_json::to_string(&gateway.spec).unwrap_or_default();
    let all = format!("{spec}{:?}{fleets:?}{}{ports:?}", gateway.metadata.uid, trusted.signing);
    format!("{:016x}", hash(&all))
}

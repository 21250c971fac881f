//! When the children of gateways are applied, and what gateways' statuses say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{ForwardGateway, ForwardGatewayStatus};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use proxy_api::Transport;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Leading, Scalers};
use crate::{
    outputs::{
        children::{Desired, apply},
        status_writer::{StatusWriter, Write},
    },
    platform::{
        metrics::{Metrics, count},
        pki::Trusted,
    },
};
use operator_core::{
    Cache, Finding, FleetFacts, Group, ObjectKey, Subject,
    desired::gateway::{Fleets, selector_text},
    gateway_status,
    status::patch,
};

/// Children are applied again after so long, should anybody have changed them.
const RESYNC: Duration = Duration::from_secs(600);
/// Pause after an application that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Shortest time between two writes of one gateway's status.
const WRITES: Duration = Duration::from_secs(1);

/// What became of an application.
#[derive(Debug)]
pub struct Applied {
    key: ObjectKey,
    generation: Option<i64>,
    hash: String,
    error: Option<String>,
}

#[derive(Default)]
struct Entry {
    ports: BTreeSet<(Transport, u16)>,
    /// Hash of what was applied last, and when.
    applied: Option<(String, Instant)>,
    /// Generation of the gateway that was applied last.
    generation: Option<i64>,
    applying: bool,
    failed: Option<(String, Instant)>,
    /// Generation of the Deployment when it was last looked at.
    seen: Option<i64>,
    /// Its status is to be looked at.
    touched: bool,
    /// What its children are made of is to be looked at.
    changed: bool,
    wrote: Option<Instant>,
    /// The status that was written last.
    said: Option<ForwardGatewayStatus>,
}

/// All gateways.
pub struct Gateways {
    client: Client,
    fleets: Fleets,
    trusted: watch::Receiver<Trusted>,
    writer: StatusWriter,
    results: mpsc::Sender<Applied>,
    metrics: std::sync::Arc<Metrics>,
    entries: BTreeMap<ObjectKey, Entry>,
}

impl Gateways {
    /// None yet.
    #[must_use]
    pub fn new(
        client: Client,
        fleets: Fleets,
        trusted: watch::Receiver<Trusted>,
        writer: StatusWriter,
        results: mpsc::Sender<Applied>,
        metrics: std::sync::Arc<Metrics>,
    ) -> Self {
        Self { client, fleets, trusted, writer, results, metrics, entries: BTreeMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.entries.clear();
    }

    /// Something of a gateway is another.
    pub(super) fn touch(&mut self, key: &ObjectKey) {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.touched = true;
        entry.changed = true;
    }

    /// The listeners of a gateway have other ports.
    pub(super) fn listeners(&mut self, key: &ObjectKey) {
        self.entries.entry(key.clone()).or_default().changed = true;
    }

    /// An application has ended.
    pub(super) fn applied(&mut self, applied: Applied) {
        let Applied { key, generation, hash, error } = applied;
        count(&self.metrics.children, "result", if error.is_some() { "failed" } else { "applied" });
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.applying = false;
        entry.touched = true;
        entry.changed = true;
        match error {
            None => {
                entry.applied = Some((hash, Instant::now()));
                entry.generation = generation;
                entry.failed = None;
            }
            Some(why) => {
                if entry.failed.as_ref().map(|(before, _)| before) != Some(&why) {
                    tracing::warn!(gateway = %key, error = %why, "children cannot be applied and are tried again");
                }
                entry.failed = Some((why, Instant::now()));
            }
        }
    }

    /// Applies what is due, and writes what differs.
    pub(super) fn tick(&mut self, leading: &Leading, cache: &Cache, scalers: &Scalers, now: Instant) {
        let other_roots = self.trusted.has_changed().unwrap_or(false);
        self.trusted.mark_unchanged();
        let gateways = cache.gateways();
        self.entries.retain(|key, _| gateways.contains(key));
        for (key, gateway) in gateways.iter().filter_map(|key| Some((key, cache.gateway(key)?))) {
            self.entries.entry(key.clone()).or_default().changed |= other_roots;
            self.children(key, &gateway, cache, leading, now);
            let scaling = scalers.finding(&Subject::Gateway(key.clone()), cache);
            self.status(key, &gateway, cache, leading, scaling, now);
        }
    }

    fn children(&mut self, key: &ObjectKey, gateway: &ForwardGateway, cache: &Cache, leading: &Leading, now: Instant) {
        let trusted = self.trusted.borrow().clone();
        if trusted.signing.is_empty()
            || cache.unreadable_gateway(key).is_some()
            || gateway.metadata.deletion_timestamp.is_some()
        {
            return;
        }
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.applying || entry.failed.as_ref().is_some_and(|(_, at)| now < *at + RETRY) {
            return;
        }
        let is_old = entry.applied.as_ref().is_none_or(|(_, at)| now >= *at + RESYNC);
        if !std::mem::take(&mut entry.changed) && entry.failed.is_none() && !is_old {
            return;
        }
        let group = Group::Gateway(key.clone());
        entry.ports = leading.translator.ports(&group);
        let hash = hash(gateway, &self.fleets, &trusted, &entry.ports);
        // Somebody else's change of the Deployment shows in its generation.
        let generation = cache.deployments.get(key).map(|state| state.generation);
        let changed = entry.applied.is_some() && entry.seen.is_some() && entry.seen != generation;
        entry.seen = generation;
        let fresh = entry.failed.is_none()
            && entry.applied.as_ref().is_some_and(|(applied, at)| *applied == hash && now < *at + RESYNC);
        if fresh && !changed {
            return;
        }
        entry.applying = true;
        let desired = Desired {
            key: key.clone(),
            gateway: gateway.clone(),
            fleets: self.fleets.clone(),
            trusted,
            ports: entry.ports.clone(),
        };
        let (client, results) = (self.client.clone(), self.results.clone());
        tokio::spawn(async move {
            let error = apply(&client, &desired).await.err().map(|error| error.to_string());
            let generation = desired.gateway.metadata.generation;
            let _ = results.send(Applied { key: desired.key, generation, hash, error }).await;
        });
    }

    fn status(
        &mut self,
        key: &ObjectKey,
        gateway: &ForwardGateway,
        cache: &Cache,
        leading: &Leading,
        scaling: Option<Finding>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        // While children are applied nothing can be said that would not be otherwise a moment later.
        if !entry.touched || entry.applying || entry.wrote.is_some_and(|wrote| now < wrote + WRITES) {
            return;
        }
        entry.touched = false;
        let state = cache.deployments.get(key).cloned().unwrap_or_default();
        let service = cache.services.get(key).filter(|service| service.gateway.as_ref() == Some(&key.name));
        let facts = FleetFacts {
            refused: cache.unreadable_gateway(key).map(|why| {
                let message = format!("this operator cannot read the object ({why}); the fleet goes on as before");
                ("Unsupported".to_owned(), message)
            }),
            children: entry.failed.as_ref().map(|(why, _)| why.clone()),
            applied: entry.applied.is_some() && entry.generation == gateway.metadata.generation,
            replicas: state.replicas,
            ready: state.ready,
            addresses: service.map(|service| patch::forward_addresses(&service.addresses)).unwrap_or_default(),
            attached: u32::try_from(leading.translator.attached(key)).unwrap_or(u32::MAX),
            selector: selector_text(key),
            scaling,
        };
        let next = gateway_status(gateway, &facts, &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let is_unreadable = cache.unreadable_gateway(key).is_some();
        if gateway.status.as_ref() == Some(&next) || is_unreadable && entry.said.as_ref() == Some(&next) {
            return;
        }
        entry.wrote = Some(now);
        // Looked at again, as the cache may show an older status than was written.
        entry.touched = !is_unreadable;
        entry.said = Some(next.clone());
        let uid = gateway.metadata.uid.clone().unwrap_or_default();
        self.writer.write(Write { subject: Subject::Gateway(key.clone()), uid, status: patch::all_of_gateway(&next) });
    }
}

/// Hash of all that children depend on.
fn hash(gateway: &ForwardGateway, fleets: &Fleets, trusted: &Trusted, ports: &BTreeSet<(Transport, u16)>) -> String {
    let spec = serde_json::to_string(&gateway.spec).unwrap_or_default();
    let all = format!("{spec}{:?}{fleets:?}{}{ports:?}", gateway.metadata.uid, trusted.signing);
    format!("{:016x}", operator_core::hash::hash(&all))
}

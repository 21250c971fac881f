//! The facts about a gateway's fleet, for its status.

use std::time::Duration;

use crds::ForwardGateway;

use super::Entry;
use crate::{
    desired::gateway::selector_text,
    schedule::View,
    status::{
        claims::{claims_drained, claims_mounted},
        gateway::{FleetFacts, applied_generation},
        patch,
        rollout::outdated,
    },
    world::{ObjectKey, schema},
};

/// Completes these facts from the watches and the last apply.
pub(super) fn facts(
    key: &ObjectKey,
    gateway: &ForwardGateway,
    View { cache, translator, refusals, .. }: &View<'_>,
    entry: &Entry,
    known: FleetFacts,
    now: Duration,
) -> FleetFacts {
    let state = cache.fleet(key).cloned().unwrap_or_default();
    let service = cache.services.get(key).filter(|service| service.gateway.as_ref() == Some(&key.name));
    FleetFacts {
        warning: schema::warning(&cache.world.dropped, "ForwardGateway"),
        applied: entry.attempts.applied().map_or_else(
            || applied_generation(gateway).is_some_and(|it| Some(it) == gateway.metadata.generation),
            |applied| applied.generation == gateway.metadata.generation,
        ),
        replicas: state.replicas,
        ready: state.ready,
        addresses: service.map(|service| patch::forward_addresses(&service.addresses)).unwrap_or_default(),
        attached: u32::try_from(translator.attached(key)).unwrap_or(u32::MAX),
        selector: selector_text(key),
        draining: u32::try_from(cache.spare_claims(key).count()).unwrap_or(u32::MAX),
        drained: claims_drained(key, cache, refusals),
        mounted: claims_mounted(gateway, cache.held_pods(key), |pod| entry.starts.is_late(pod, now)),
        outdated: entry.behind.as_ref().map(|behind| outdated(behind, &state.image)),
        image: state.image,
        ..known
    }
}

//! Reads the Deployment or `StatefulSet` of a gateway: the state of its fleet.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, StatefulSet, StatefulSetSpec, StatefulSetStatus},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::key;
use crate::{
    names::{GATEWAY_REVISION, INSTALLATION_REVISION, PROXY_CONTAINER},
    world::{
        child::Mark,
        objects::{FleetState, Hold, Object, Progress, Revision},
    },
};

/// The most characters of the scheduler's message.
const MAX_WORDS: usize = 512;

/// Reads the Deployment of a gateway.
#[must_use]
pub fn deployment(deployment: &Deployment) -> Object {
    let (spec, status) = (deployment.spec.as_ref(), deployment.status.as_ref());
    let generation = deployment.metadata.generation;
    let state = FleetState {
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        owners: owners(&deployment.metadata),
        replicas: status.and_then(|status| status.replicas).unwrap_or(0),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        updated: None,
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        first: 0,
        generation,
        is_observed: status.is_some_and(|status| status.observed_generation >= generation),
        mark: Mark::of(&deployment.metadata),
        image: spec.map(|spec| image(&spec.template)).unwrap_or_default(),
        revision: revision(&deployment.metadata),
        rollout: spec.map(|spec| rollout(generation, spec, status)).unwrap_or_default(),
    };
    Object::Deployment(key(&deployment.metadata), state)
}

/// Reads the `StatefulSet` of a gateway.
#[must_use]
pub fn stateful_set(set: &StatefulSet) -> Object {
    let (spec, status) = (set.spec.as_ref(), set.status.as_ref());
    let generation = set.metadata.generation;
    let state = FleetState {
        uid: set.metadata.uid.clone().unwrap_or_default(),
        owners: owners(&set.metadata),
        replicas: status.map_or(0, |status| status.replicas),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        updated: Some(status.and_then(|status| status.updated_replicas).unwrap_or(0)),
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        first: spec.and_then(|spec| spec.ordinals.as_ref()?.start).unwrap_or(0),
        generation,
        is_observed: status.is_some_and(|status| status.observed_generation >= generation),
        mark: Mark::of(&set.metadata),
        image: spec.map(|spec| image(&spec.template)).unwrap_or_default(),
        revision: revision(&set.metadata),
        rollout: spec.map(|spec| rollout_of_set(generation, spec, status)).unwrap_or_default(),
    };
    Object::StatefulSet(key(&set.metadata), state)
}

fn owners(metadata: &ObjectMeta) -> Vec<String> {
    metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}

/// The revision of the pods, from the operator's annotations.
fn revision(metadata: &ObjectMeta) -> Revision {
    let annotation = |name: &str| {
        let annotations = metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(name)).cloned().unwrap_or_default()
    };
    Revision { installation: annotation(INSTALLATION_REVISION), gateway: annotation(GATEWAY_REVISION) }
}

/// The image of the proxies; empty if another client removed the container.
fn image(template: &PodTemplateSpec) -> String {
    let containers = template.spec.iter().flat_map(|pod| &pod.containers);
    let mut proxies = containers.filter(|container| container.name == PROXY_CONTAINER);
    proxies.next().and_then(|container| container.image.clone()).unwrap_or_default()
}

/// The obstacle that keeps the containers of a pod from starting.
pub(super) fn hold(pod: &Pod) -> Hold {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let of = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    if let Some(found) = of("PodScheduled").filter(|found| found.reason.as_deref() == Some("Unschedulable")) {
        return Hold::Unschedulable(found.message.iter().flat_map(|words| words.chars()).take(MAX_WORDS).collect());
    }
    match of("PodReadyToStartContainers") {
        Some(found) if found.status == "False" => Hold::Unprepared,
        _ => Hold::None,
    }
}

/// The progress of the rollout, by the rules of `kubectl rollout status`. The status of an older generation is ignored.
fn rollout(generation: Option<i64>, spec: &DeploymentSpec, status: Option<&DeploymentStatus>) -> Progress {
    let Some(status) = status.filter(|status| status.observed_generation >= generation) else {
        return Progress::Running;
    };
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|condition| condition.type_ == "Progressing" && condition.status == "False") {
        return Progress::Stopped;
    }
    let wanted = spec.replicas.unwrap_or(1);
    let (replicas, updated) = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
    if replicas > updated {
        // The controller replaces no pod of a paused Deployment, and enforces no progress deadline.
        if spec.paused == Some(true) { Progress::Stopped } else { Progress::Running }
    } else if updated < wanted || status.ready_replicas.unwrap_or(0) < updated {
        Progress::Unready
    } else {
        Progress::Complete
    }
}

/// The progress of a `StatefulSet`'s rollout, which replaces one pod after the other.
fn rollout_of_set(generation: Option<i64>, spec: &StatefulSetSpec, status: Option<&StatefulSetStatus>) -> Progress {
    let Some(status) = status.filter(|status| status.observed_generation >= generation) else {
        return Progress::Running;
    };
    let (wanted, updated) = (spec.replicas.unwrap_or(1), status.updated_replicas.unwrap_or(0));
    // The controller has not made the newest template the current one: the last pod of that template is not ready.
    let is_old = status.current_revision != status.update_revision;
    if status.replicas > updated || is_old {
        Progress::Running
    } else if updated < wanted || status.ready_replicas.unwrap_or(0) < updated {
        Progress::Unready
    } else {
        Progress::Complete
    }
}

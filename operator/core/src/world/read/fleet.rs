//! Reads the Deployment of a gateway: the state of its fleet.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus};

use super::key;
use crate::{
    names::{GATEWAY_REVISION, INSTALLATION_REVISION, PROXY_CONTAINER},
    world::{
        child::Mark,
        objects::{FleetState, Object, Progress, Revision},
    },
};

/// Reads the Deployment of a gateway.
#[must_use]
pub fn deployment(deployment: &Deployment) -> Object {
    let (spec, status) = (deployment.spec.as_ref(), deployment.status.as_ref());
    let annotation = |name: &str| {
        let annotations = deployment.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(name)).cloned().unwrap_or_default()
    };
    let state = FleetState {
        replicas: status.and_then(|status| status.replicas).unwrap_or(0),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        mark: Mark::of(&deployment.metadata),
        image: spec.map(image).unwrap_or_default(),
        revision: Revision { installation: annotation(INSTALLATION_REVISION), gateway: annotation(GATEWAY_REVISION) },
        rollout: spec.map(|spec| rollout(deployment.metadata.generation, spec, status)).unwrap_or_default(),
    };
    Object::Deployment(key(&deployment.metadata), state)
}

/// The image of the proxies; empty if another client removed the container.
fn image(spec: &DeploymentSpec) -> String {
    let containers = spec.template.spec.iter().flat_map(|pod| &pod.containers);
    let mut proxies = containers.filter(|container| container.name == PROXY_CONTAINER);
    proxies.next().and_then(|container| container.image.clone()).unwrap_or_default()
}

/// How far the rollout is, by the rules of `kubectl rollout status`. A status of an older generation says nothing.
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
        // The controller replaces no pod of a paused Deployment, and keeps no deadline.
        if spec.paused == Some(true) { Progress::Stopped } else { Progress::Running }
    } else if updated < wanted || status.ready_replicas.unwrap_or(0) < updated {
        Progress::Unready
    } else {
        Progress::Complete
    }
}

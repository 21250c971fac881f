//! Reads the claims of fleets, and the Jobs that send the messages on claims.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::{PersistentVolumeClaim, Pod, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;

use super::key;
use crate::{
    names::{DRAINED_FOR, DRAINS_LABEL, GATEWAY_LABEL},
    world::objects::{ClaimState, Drain, DrainerState, Object, Stage},
};

/// Reasons for which kubelet does not start a container until something changes.
const CANNOT_START: [&str; 5] =
    ["CreateContainerConfigError", "CreateContainerError", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"];

/// Reads the metadata of a claim. Its `StatefulSet` labels it like its pods.
#[must_use]
pub fn claim(claim: &PartialObjectMeta<PersistentVolumeClaim>) -> Object {
    let metadata = &claim.metadata;
    let gateway = label(metadata, GATEWAY_LABEL);
    let ordinal = ordinal(metadata, &format!("messages-{gateway}-"));
    let state = ClaimState {
        gateway,
        ordinal,
        uid: metadata.uid.clone().unwrap_or_default(),
        version: metadata.resource_version.clone().unwrap_or_default(),
        leaving: metadata.deletion_timestamp.is_some(),
    };
    Object::Claim(key(metadata), state)
}

/// Reads a Job that sends the messages on a claim.
#[must_use]
pub fn drainer(job: &Job) -> Object {
    let metadata = &job.metadata;
    let gateway = label(metadata, DRAINS_LABEL);
    let drained_for = metadata.annotations.as_ref().and_then(|all| all.get(DRAINED_FOR));
    let has = |kind: &str| {
        let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let ordinal = ordinal(metadata, &format!("{gateway}-drain-"));
    let state = DrainerState {
        gateway,
        ordinal,
        uid: metadata.uid.clone().unwrap_or_default(),
        drained_for: drained_for.cloned().unwrap_or_default(),
        stage: match (has("Complete"), has("Failed"), job.status.as_ref().is_some_and(lacks_pod)) {
            (true, ..) => Stage::Succeeded,
            (_, true, _) => Stage::GivenUp,
            (.., true) => Stage::LacksPod,
            _ => Stage::Begun,
        },
        leaving: metadata.deletion_timestamp.is_some(),
    };
    Object::Drainer(key(metadata), state)
}

/// Whether a Job has started, and has neither a pod nor a successful one. A terminating pod has to end first.
fn lacks_pod(status: &JobStatus) -> bool {
    let has_none = [status.active, status.terminating, status.succeeded].iter().all(|count| count.unwrap_or(0) == 0);
    status.start_time.is_some() && has_none
}

/// The state of a drainer's pod. A pod that has ended, for example because it was evicted, has a successor or needs
/// none.
pub(super) fn drain(pod: &Pod) -> Drain {
    let told = pod.status.as_ref();
    let has_ended = |now: &&PodStatus| matches!(now.phase.as_deref(), Some("Failed" | "Succeeded"));
    let Some(now) = told.filter(|now| !has_ended(now)) else { return Drain::default() };
    let mut conditions = now.conditions.iter().flatten();
    let states = now.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref());
    let mut waiting = states.filter_map(|state| state.waiting.as_ref()?.reason.as_deref());
    if conditions.any(|it| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("Unschedulable"))
        || waiting.any(|reason| CANNOT_START.contains(&reason))
    {
        return Drain::Unschedulable;
    }
    let mut containers = now.container_statuses.iter().flatten();
    let has_failed = containers.any(|container| {
        let states = [&container.state, &container.last_state].into_iter().flatten();
        states.filter_map(|one| one.terminated.as_ref()).any(|ended| ended.exit_code != 0)
    });
    if has_failed { Drain::Failed } else { Drain::Runs }
}

fn label(metadata: &ObjectMeta, label: &str) -> String {
    metadata.labels.as_ref().and_then(|labels| labels.get(label)).cloned().unwrap_or_default()
}

/// The ordinal after the prefix of the name; -1 if there is none: an object with another name is left alone.
fn ordinal(metadata: &ObjectMeta, prefix: &str) -> i32 {
    let name = metadata.name.as_deref().unwrap_or_default();
    let Some(written) = name.strip_prefix(prefix) else { return -1 };
    // The controller writes no leading zeros: `01` would be a second claim of pod 1.
    written.parse().ok().filter(|ordinal: &i32| ordinal.to_string() == written).unwrap_or(-1)
}

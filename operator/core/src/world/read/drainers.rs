//! Reads the claims of fleets, and the Jobs that send what claims have.

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;

use super::key;
use crate::{
    names::{DRAINS_LABEL, FLEET_GENERATION, GATEWAY_LABEL},
    world::objects::{ClaimState, DrainerState, Object},
};

/// Reads the metadata of a claim. The `StatefulSet` gives it the labels by which it selects its pods.
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

/// Reads a Job that sends what a claim has.
#[must_use]
pub fn drainer(job: &Job) -> Object {
    let metadata = &job.metadata;
    let gateway = label(metadata, DRAINS_LABEL);
    let generation = metadata.annotations.as_ref().and_then(|all| all.get(FLEET_GENERATION));
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ordinal = ordinal(metadata, &format!("{gateway}-drain-"));
    let state = DrainerState {
        gateway,
        ordinal,
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: generation.and_then(|generation| generation.parse().ok()),
        succeeded: conditions.any(|condition| condition.type_ == "Complete" && condition.status == "True"),
        leaving: metadata.deletion_timestamp.is_some(),
    };
    Object::Drainer(key(metadata), state)
}

fn label(metadata: &ObjectMeta, label: &str) -> String {
    metadata.labels.as_ref().and_then(|labels| labels.get(label)).cloned().unwrap_or_default()
}

/// The ordinal behind the prefix of the name. -1 is none: an object of another name is left alone.
fn ordinal(metadata: &ObjectMeta, prefix: &str) -> i32 {
    let name = metadata.name.as_deref().unwrap_or_default();
    name.strip_prefix(prefix).and_then(|ordinal| ordinal.parse().ok()).unwrap_or(-1)
}

//! Plans the writes that reconcile the children of a gateway, from the desired and the existing objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::{
    desired::{
        autoscaler::least,
        gateway::{Desired, children, unwanted},
        revision::revision,
    },
    names::{GATEWAY_REVISION, HANDOVER, INSTALLATION_REVISION, NAME},
    world::{
        child::ChildKind,
        managed_fields::{REPLICAS, has_field},
    },
};

/// The variable of a proxy with the CA certificates.
const ROOTS: &str = "PORTLANE_ROOTS";

/// The objects that have the namespace and name of a gateway.
pub type Found = BTreeMap<ChildKind, DynamicObject>;

/// A write of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Apply a manifest server-side, with force.
    Apply {
        /// Kind of the child.
        kind: ChildKind,
        /// The field manager.
        manager: &'static str,
        /// The fields to apply. If the child exists, its uid is among them, so that the API server refuses to write to
        /// an object that has replaced the child meanwhile.
        manifest: Value,
    },
    /// Delete an object.
    Remove {
        /// Kind of the child.
        kind: ChildKind,
        /// Uid that the object must still have.
        uid: String,
    },
}

/// The writes for one gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes, in order.
    pub steps: Vec<Step>,
    /// The object of another owner, at which the plan ends.
    pub taken: Option<Taken>,
}

/// An object with the name of a child exists, but the gateway does not own it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {name} exists and has another owner: rename the gateway or remove that object", .kind.as_str())]
pub struct Taken {
    /// Kind of the object.
    pub kind: ChildKind,
    /// Name of the object.
    pub name: String,
}

/// Plans the writes that reconcile the children of a gateway. `found` must have every existing object of
/// [`ChildKind::of_gateway`]. If the fleet has another owner, the plan is empty. If another child does, the plan ends at
/// that child, because later children depend on earlier ones.
#[must_use]
pub fn plan(desired: &Desired, found: &Found) -> Plan {
    let fleet_kind = ChildKind::of_fleet(&desired.gateway);
    let existing_fleet = match owned(desired, fleet_kind, found) {
        Ok(existing) => existing,
        Err(taken) => return Plan { steps: Vec::new(), taken: Some(taken) },
    };
    let roots = desired.trusted.for_fleet(existing_fleet.and_then(roots));
    let mut steps = Vec::new();
    for (kind, manifest) in children(&desired.key, &desired.gateway, &desired.fleets, roots, &desired.ports) {
        match owned(desired, kind, found) {
            Ok(existing) if kind == fleet_kind => steps.extend(fleet(desired, kind, manifest, existing)),
            Ok(existing) => steps.push(apply(kind, NAME, manifest, existing)),
            Err(taken) => return Plan { steps, taken: Some(taken) },
        }
    }
    for kind in unwanted(&desired.gateway, &desired.fleets) {
        // A child that should not exist does not conflict with an object of another owner.
        let existing = owned(desired, kind, found).unwrap_or_default();
        let uid = existing.and_then(|existing| existing.metadata.uid.clone());
        steps.extend(uid.map(|uid| Step::Remove { kind, uid }));
    }
    Plan { steps, taken: None }
}

/// The child if it exists; an error if the gateway does not own that object.
fn owned<'a>(desired: &Desired, kind: ChildKind, found: &'a Found) -> Result<Option<&'a DynamicObject>, Taken> {
    let Some(existing) = found.get(&kind) else { return Ok(None) };
    let uid = desired.gateway.metadata.uid.as_deref().unwrap_or_default();
    let mut owners = existing.metadata.owner_references.iter().flatten();
    if owners.any(|owner| owner.uid == uid) {
        return Ok(Some(existing));
    }
    Err(Taken { kind, name: desired.key.name.clone() })
}

fn apply(kind: ChildKind, manager: &'static str, mut manifest: Value, existing: Option<&DynamicObject>) -> Step {
    if let Some(uid) = existing.and_then(|existing| existing.metadata.uid.as_deref()) {
        manifest["metadata"]["uid"] = json!(uid);
    }
    Step::Apply { kind, manager, manifest }
}

/// The writes to the Deployment or `StatefulSet`. With `spec.autoscaling`, replicas belong to the HPA: a new fleet
/// begins with the minimum, and an existing fleet keeps its replicas while this operator gives them up.
fn fleet(desired: &Desired, kind: ChildKind, mut manifest: Value, existing: Option<&DynamicObject>) -> Vec<Step> {
    stamp(desired, &mut manifest, existing);
    let least = desired.gateway.spec.autoscaling.as_ref().map(least);
    let mut steps = Vec::new();
    match (least, existing) {
        (Some(least), None) => manifest["spec"]["replicas"] = json!(least),
        (Some(least), Some(existing)) if holds_replicas(existing) => {
            // Without a field manager, the API server would reset `replicas` to one. Zero replicas become the least
            // number, because an HPA does not scale up from zero.
            let replicas = existing.data["spec"]["replicas"].as_i64().filter(|replicas| *replicas > 0);
            let kept = json!({
                "apiVersion": kind.api_version(),
                "kind": kind.as_str(),
                "metadata": {"name": desired.key.name, "namespace": desired.key.namespace},
                "spec": {"replicas": replicas.unwrap_or(least.into())},
            });
            steps.push(apply(kind, HANDOVER, kept, Some(existing)));
        }
        _ => {}
    }
    steps.push(apply(kind, NAME, manifest, existing));
    steps
}

/// Records the revision of the pods. A fleet that keeps its pods keeps them unchanged, including the CA certificates:
/// applying the present template changes nothing, and starts no rollout.
fn stamp(desired: &Desired, manifest: &mut Value, existing: Option<&DynamicObject>) {
    let made = revision(&desired.gateway, &desired.fleets);
    let Some(existing) = existing.filter(|_| desired.keeps_pods) else {
        manifest["metadata"]["annotations"] =
            json!({INSTALLATION_REVISION: made.installation, GATEWAY_REVISION: made.gateway});
        return;
    };
    let known = |name: &str| existing.metadata.annotations.as_ref().and_then(|all| all.get(name));
    // A fleet without annotations is older than them: its pods match its gateway.
    let mut annotations = json!({GATEWAY_REVISION: known(GATEWAY_REVISION).unwrap_or(&made.gateway)});
    if let Some(installation) = known(INSTALLATION_REVISION) {
        annotations[INSTALLATION_REVISION] = json!(installation);
    }
    manifest["metadata"]["annotations"] = annotations;
    let mut template = existing.data["spec"]["template"].clone();
    if let Some(Value::Object(metadata)) = template.pointer_mut("/metadata") {
        metadata.remove("creationTimestamp");
    }
    let trusted = desired.trusted.for_fleet(roots(existing));
    let variables = template.pointer_mut("/spec/containers/0/env").and_then(Value::as_array_mut);
    for variable in variables.into_iter().flatten() {
        if variable["name"] == ROOTS {
            variable["value"] = json!(trusted);
        }
    }
    manifest["spec"]["template"] = template;
}

/// Whether this operator manages the replicas of a fleet.
fn holds_replicas(fleet: &DynamicObject) -> bool {
    let mut entries = fleet.metadata.managed_fields.iter().flatten();
    let holds = |entry: &ManagedFieldsEntry| entry.manager.as_deref() == Some(NAME) && has_field(entry, &REPLICAS);
    entries.any(holds)
}

/// The CA certificates in the pod template of a fleet.
fn roots(fleet: &DynamicObject) -> Option<&str> {
    let containers = &fleet.data["spec"]["template"]["spec"]["containers"];
    let mut variables = containers[0]["env"].as_array()?.iter();
    variables.find(|variable| variable["name"] == ROOTS)?["value"].as_str()
}

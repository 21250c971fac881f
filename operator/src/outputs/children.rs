//! Applies the children of gateways by server-side apply, with this operator as the field manager.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
};
use serde_json::Value;

use operator_core::{
    ObjectKey,
    desired::{
        autoscaler::least,
        gateway::{Desired, children, unwanted},
    },
    names::{HANDOVER, NAME},
    world::managed_fields::{REPLICAS, has_field},
};

/// Why a child could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name exists, and the gateway does not own it.
    #[error("{kind} {name} exists and belongs to somebody else: rename the gateway or remove that object")]
    Taken {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// The API server refused a request, or did not answer.
    #[error("cannot apply {kind} {name}: {}", said(source))]
    Api {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// Error of the API server.
        source: Box<kube::Error>,
    },
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Applies all children of one gateway.
///
/// # Errors
/// See [`ApplyError`]; the children before the failed one are applied.
pub async fn apply(client: &Client, desired: &Desired) -> Result<(), ApplyError> {
    let uid = desired.gateway.metadata.uid.clone().unwrap_or_default();
    let deployment = Place::of(client, "apps/v1", "Deployment", &desired.key).there(&uid).await?;
    let roots = desired.trusted.for_fleet(deployment.as_ref().and_then(roots));
    for mut child in children(&desired.key, &desired.gateway, &desired.fleets, roots, &desired.ports) {
        let text = |field: &str| child[field].as_str().unwrap_or_default();
        let place = Place::of(client, text("apiVersion"), text("kind"), &desired.key);
        match (text("kind"), desired.gateway.spec.autoscaling.as_ref(), deployment.as_ref()) {
            ("Deployment", Some(autoscaling), None) => child["spec"]["replicas"] = least(autoscaling).into(),
            ("Deployment", Some(autoscaling), Some(deployment)) => {
                place.hand_over_replicas(deployment, least(autoscaling)).await?;
            }
            ("Deployment", None, _) => {}
            _ => drop(place.there(&uid).await?),
        }
        place.apply(&child).await?;
    }
    for (version, kind) in unwanted(&desired.gateway, &desired.fleets) {
        Place::of(client, version, kind, &desired.key).remove(&uid).await?;
    }
    Ok(())
}

/// The CA certificates in the pod template of a Deployment.
fn roots(deployment: &DynamicObject) -> Option<&str> {
    let containers = &deployment.data["spec"]["template"]["spec"]["containers"];
    let mut variables = containers[0]["env"].as_array()?.iter();
    variables.find(|variable| variable["name"] == "PORTLANE_ROOTS")?["value"].as_str()
}

/// API and name of one child.
struct Place {
    api: Api<DynamicObject>,
    kind: String,
    name: String,
}

impl Place {
    fn of(client: &Client, version: &str, kind: &str, key: &ObjectKey) -> Self {
        let types = TypeMeta { api_version: version.to_owned(), kind: kind.to_owned() };
        let gvk = GroupVersionKind::try_from(&types).unwrap_or_else(|_| GroupVersionKind::gvk("", version, kind));
        let mut resource = ApiResource::from_gvk(&gvk);
        if kind == "NetworkPolicy" {
            "networkpolicies".clone_into(&mut resource.plural);
        }
        let api = Api::namespaced_with(client.clone(), &key.namespace, &resource);
        Self { api, kind: kind.to_owned(), name: key.name.clone() }
    }

    fn failed(&self, source: kube::Error) -> ApplyError {
        ApplyError::Api { kind: self.kind.clone(), name: self.name.clone(), source: Box::new(source) }
    }

    /// The object if it exists; an error if the gateway does not own it.
    async fn there(&self, uid: &str) -> Result<Option<DynamicObject>, ApplyError> {
        let there = self.api.get_opt(&self.name).await.map_err(|error| self.failed(error))?;
        let Some(there) = there else { return Ok(None) };
        let owners = there.metadata.owner_references.iter().flatten();
        if owners.into_iter().any(|owner| owner.uid == uid) {
            return Ok(Some(there));
        }
        Err(ApplyError::Taken { kind: self.kind.clone(), name: self.name.clone() })
    }

    async fn apply(&self, child: &Value) -> Result<(), ApplyError> {
        let parameters = PatchParams::apply(NAME).force();
        let applied = self.api.patch(&self.name, &parameters, &Patch::Apply(child)).await;
        applied.map(drop).map_err(|error| self.failed(error))
    }

    /// Keeps the replicas of a Deployment while this operator gives them up to an HPA. Without a field manager, the API
    /// server would reset `replicas` to one. Zero replicas become `least`, because an HPA does not scale up from zero.
    async fn hand_over_replicas(&self, deployment: &DynamicObject, least: i32) -> Result<(), ApplyError> {
        let entries = deployment.metadata.managed_fields.iter().flatten();
        let holds = |entry: &ManagedFieldsEntry| entry.manager.as_deref() == Some(NAME) && has_field(entry, &REPLICAS);
        if !entries.into_iter().any(holds) {
            return Ok(());
        }
        let replicas = deployment.data["spec"]["replicas"].as_i64().filter(|replicas| *replicas > 0);
        let kept = serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name},
            "spec": {"replicas": replicas.unwrap_or(least.into())},
        });
        let parameters = PatchParams::apply(HANDOVER).force();
        let kept = self.api.patch(&self.name, &parameters, &Patch::Apply(&kept)).await;
        kept.map(drop).map_err(|error| self.failed(error))
    }

    /// Deletes the object. An object of somebody else is not in the way of a child that should not exist.
    async fn remove(&self, uid: &str) -> Result<(), ApplyError> {
        let there = match self.there(uid).await {
            Err(ApplyError::Taken { .. }) => return Ok(()),
            there => there?,
        };
        let Some(there) = there else { return Ok(()) };
        let only = Preconditions { uid: there.metadata.uid, resource_version: None };
        let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match self.api.delete(&self.name, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(|error| self.failed(error)),
        }
    }
}

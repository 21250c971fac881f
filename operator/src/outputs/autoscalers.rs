//! Applies and deletes HPAs.

use std::fmt::Display;

use crds::TargetKind;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use operator_core::{
    NoScaler,
    desired::{
        autoscaler::{FAILED, Scaler},
        holder::{ends_earlier, obstacle},
    },
    names::NAME,
    world::child::Mark,
};

use crate::platform::deadline::{RequestError, answer};

/// Applies an HPA. If the target is missing, or another controller sets its replicas, an earlier HPA of this operator
/// is deleted instead. Returns the mark of the applied HPA.
///
/// # Errors
/// The reason why the HPA was not applied.
pub async fn apply(client: &Client, scaler: &Scaler) -> Result<Mark, NoScaler> {
    match free(client, scaler).await {
        Ok(()) => {}
        Err(why) => {
            if ends_earlier(&why) {
                remove(client, &scaler.key, &scaler.owner).await?;
            }
            return Err(why);
        }
    }
    let (api, parameters) = (api(client, scaler), PatchParams::apply(NAME).force());
    let applied = answer(api.patch(&scaler.key.name, &parameters, &Patch::Apply(&scaler.manifest))).await;
    applied.map(|hpa| Mark::of(&hpa.metadata)).map_err(|error| failed(&scaler.key.name, &error))
}

/// Deletes an HPA if the object with the uid `owner` owns the HPA.
///
/// # Errors
/// The API server refused a request, or did not answer.
pub async fn remove(client: &Client, key: &operator_core::ObjectKey, owner: &str) -> Result<(), NoScaler> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), &key.namespace);
    let existing = answer(api.get_opt(&key.name)).await.map_err(|error| failed(&key.name, &error))?;
    let Some(existing) = existing.filter(|existing| existing.owner_references().iter().any(|it| it.uid == owner))
    else {
        return Ok(());
    };
    let only = Preconditions { uid: existing.metadata.uid, resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    match answer(api.delete(&key.name, &parameters)).await {
        Err(error) if error.code() == Some(404) => Ok(()),
        other => other.map(drop).map_err(|error| failed(&key.name, &error)),
    }
}

fn api(client: &Client, scaler: &Scaler) -> Api<HorizontalPodAutoscaler> {
    Api::namespaced(client.clone(), &scaler.key.namespace)
}

/// Checks that the target exists and that no other controller sets its replicas.
async fn free(client: &Client, scaler: &Scaler) -> Result<(), NoScaler> {
    let target = target(client, scaler).await.map_err(|error| failed(&scaler.target, &error))?;
    let target = target.as_ref().map(|(metadata, replicas)| (metadata, *replicas));
    // If the list fails, a finding about the target itself must still be reported.
    if let Some(why) = obstacle(scaler, target, &[]) {
        return Err(why);
    }
    let api = api(client, scaler);
    let list = answer(api.list(&ListParams::default())).await;
    let others = list.map_err(|error| failed(&scaler.target, &error))?.items;
    obstacle(scaler, target, &others).map_or(Ok(()), Err)
}

/// Metadata and `spec.replicas` of the target, if the target exists.
async fn target(client: &Client, scaler: &Scaler) -> Result<Option<(ObjectMeta, Option<i32>)>, RequestError> {
    let (namespace, name) = (&scaler.key.namespace, scaler.target.as_str());
    Ok(match scaler.target_kind {
        TargetKind::Deployment => {
            let found = answer(Api::<Deployment>::namespaced(client.clone(), namespace).get_opt(name)).await?;
            found.map(|it| (it.metadata, it.spec.and_then(|spec| spec.replicas)))
        }
        TargetKind::StatefulSet => {
            let found = answer(Api::<StatefulSet>::namespaced(client.clone(), namespace).get_opt(name)).await?;
            found.map(|it| (it.metadata, it.spec.and_then(|spec| spec.replicas)))
        }
        TargetKind::ReplicaSet => {
            let found = answer(Api::<ReplicaSet>::namespaced(client.clone(), namespace).get_opt(name)).await?;
            found.map(|it| (it.metadata, it.spec.and_then(|spec| spec.replicas)))
        }
    })
}

/// The obstacle that the HPA of the workload of this name could not be applied or deleted.
#[must_use]
pub fn failed(name: &str, error: &impl Display) -> NoScaler {
    NoScaler { reason: FAILED, message: format!("cannot reconcile the HorizontalPodAutoscaler of {name}: {error}") }
}

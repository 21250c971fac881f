//! Makes and deletes drainers, and deletes the claims that they have emptied.

use k8s_openapi::api::{apps::v1::StatefulSet, batch::v1::Job, core::v1::PersistentVolumeClaim};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use operator_core::{
    names::NAME,
    schedule::drainers::{Emptied, Step},
};

use crate::outputs::deadline::{RequestError, answer};

/// Executes one write. An object that is gone, or that has changed, is no failure: what is due is derived again.
///
/// # Errors
/// A request failed.
pub async fn run(client: &Client, step: &Step) -> Result<(), RequestError> {
    let written = match step {
        Step::Create(drainer) => {
            let api = Api::<Job>::namespaced(client.clone(), &drainer.key.namespace);
            let (parameters, patch) = (PatchParams::apply(NAME).force(), Patch::Apply(&drainer.manifest));
            answer(api.patch(&drainer.key.name, &parameters, &patch)).await.map(drop)
        }
        Step::RemoveDrainer { key, uid } => {
            let api = Api::<Job>::namespaced(client.clone(), &key.namespace);
            let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
            answer(api.delete(&key.name, &parameters)).await.map(drop)
        }
        Step::RemoveClaim(emptied) => remove(client, emptied).await,
    };
    match written {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        other => other,
    }
}

/// Deletes a claim. The watch of the `StatefulSet` may be behind, so it is read again.
async fn remove(client: &Client, emptied: &Emptied) -> Result<(), RequestError> {
    let namespace = &emptied.key.namespace;
    let fleet = answer(Api::<StatefulSet>::namespaced(client.clone(), namespace).get_opt(&emptied.fleet.name)).await?;
    if !emptied.holds(fleet.and_then(|fleet| fleet.metadata.generation)) {
        return Ok(());
    }
    let only = Preconditions { uid: Some(emptied.uid.clone()), resource_version: Some(emptied.version.clone()) };
    let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    answer(api.delete(&emptied.key.name, &parameters)).await.map(drop)
}

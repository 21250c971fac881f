//! Creates and deletes drainers, and deletes the claims that they have emptied.

use hyper::Request;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::request,
};
use operator_core::{
    desired::drainer::Drainer,
    names::NAME,
    schedule::{
        drainers::{Answered, Emptied, Spare, Step},
        is_outdated,
    },
};
use tokio::try_join;

use crate::platform::deadline::{RequestError, answer};

/// Executes one write. Returns the answer if the write is for a claim.
pub async fn run(client: &Client, step: &Step) -> Option<Answered> {
    let result = execute(client, step).await;
    if let Err(error) = &result {
        tracing::warn!(object = %step.key(), %error, "cannot drain a claim, will retry");
    }
    let answer = match result {
        Err(error) if error.code().is_none() => return None,
        other => other.map_err(|error| error.to_string()),
    };
    step.spare().map(|spare| Answered { spare: spare.clone(), answer })
}

/// Executes one write. An object to delete that is gone or has changed is not a failure: the next write is derived
/// again.
async fn execute(client: &Client, step: &Step) -> Result<(), RequestError> {
    let written = match step {
        Step::Create(drainer, spare) => return create(client, drainer, spare).await,
        Step::RemoveDrainer { key, uid } => {
            let api = Api::<Job>::namespaced(client.clone(), &key.namespace);
            let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
            answer(api.delete(&key.name, &parameters)).await.map(drop)
        }
        Step::RemoveClaim(emptied) => remove(client, emptied).await,
    };
    match written {
        Err(error) if is_outdated(error.code()) => Ok(()),
        other => other,
    }
}

/// Creates a drainer. The watches of the `StatefulSet` and its pods may lag behind, so both are read again.
async fn create(client: &Client, drainer: &Drainer, spare: &Spare) -> Result<(), RequestError> {
    let fleet = read(client, spare).await?;
    // The pod is read last: once the controller has observed the generation, it does not create the pod any more.
    let has_pod = has_pod(client, spare).await?;
    if !is_free(spare, &fleet, has_pod) {
        return Ok(());
    }
    let created = async {
        let request = creation(drainer).map_err(kube::Error::BuildRequest)?;
        client.request::<Job>(request).await
    };
    answer(created).await.map(drop)
}

/// Returns the request that creates a drainer. The request must not change an existing Job, which a lagging watch may
/// not show: a Job that has succeeded would then prove that a claim is empty in a state in which it did not run.
fn creation(drainer: &Drainer) -> Result<Request<Vec<u8>>, request::Error> {
    let body = serde_json::to_vec(&drainer.manifest).map_err(request::Error::SerializeBody)?;
    let parameters = PostParams { field_manager: Some(NAME.to_owned()), ..PostParams::default() };
    kube::core::Request::new(Job::url_path(&(), Some(&drainer.key.namespace))).create(&parameters, body)
}

/// Deletes a claim. The watches of the `StatefulSet` and its pods may lag behind, so both are read again, at the same
/// time: neither is older than one request. The generation does not change if another client creates the pod.
async fn remove(client: &Client, emptied: &Emptied) -> Result<(), RequestError> {
    let (fleet, has_pod) = try_join!(read(client, &emptied.spare), has_pod(client, &emptied.spare))?;
    if !is_free(&emptied.spare, &fleet, has_pod) {
        return Ok(());
    }
    let only = Preconditions { uid: Some(emptied.uid.clone()), resource_version: Some(emptied.version.clone()) };
    let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &emptied.spare.claim.namespace);
    answer(api.delete(&emptied.spare.claim.name, &parameters)).await.map(drop)
}

/// Reads the present `StatefulSet`; an empty one if there is none.
async fn read(client: &Client, spare: &Spare) -> Result<StatefulSet, RequestError> {
    let api = Api::<StatefulSet>::namespaced(client.clone(), &spare.fleet.namespace);
    Ok(answer(api.get_opt(&spare.fleet.name)).await?.unwrap_or_default())
}

/// Whether the pod of a claim exists now.
async fn has_pod(client: &Client, spare: &Spare) -> Result<bool, RequestError> {
    let pods = Api::<Pod>::namespaced(client.clone(), &spare.pod.namespace);
    let named = ListParams::default().fields(&format!("metadata.name={}", spare.pod.name));
    Ok(!answer(pods.list_metadata(&named)).await?.items.is_empty())
}

/// Whether no pod uses a claim, nor will use it, given this `StatefulSet`.
fn is_free(spare: &Spare, fleet: &StatefulSet, has_pod: bool) -> bool {
    let observed = fleet.status.as_ref().and_then(|status| status.observed_generation);
    spare.is_free(fleet.metadata.uid.as_deref(), fleet.metadata.generation, observed, has_pod)
}

#[cfg(test)]
mod tests {
    use operator_core::ObjectKey;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drainer_is_created_and_never_written_over_a_job_that_is_there() {
        let drainer = Drainer { key: ObjectKey::new("ns", "edge-drain-1"), manifest: json!({"kind": "Job"}) };
        let request = creation(&drainer).expect("a request");
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/apis/batch/v1/namespaces/ns/jobs"));
        assert_eq!(request.body(), br#"{"kind":"Job"}"#);
    }
}

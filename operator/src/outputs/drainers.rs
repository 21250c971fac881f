//! Makes and deletes drainers, and deletes the claims that they have emptied.

use hyper::Request;
use k8s_openapi::api::{apps::v1::StatefulSet, batch::v1::Job, core::v1::PersistentVolumeClaim};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, PostParams, Preconditions},
    core::request,
};
use operator_core::{
    desired::drainer::Drainer,
    names::NAME,
    schedule::{
        drainers::{Emptied, Step},
        is_outdated,
    },
};

use crate::outputs::deadline::{RequestError, answer};

/// Executes one write. An object to delete that is gone, or that has changed, is no failure: what is due is derived
/// again.
///
/// # Errors
/// A request failed, or there is a Job of the drainer's name.
pub async fn run(client: &Client, step: &Step) -> Result<(), RequestError> {
    let written = match step {
        Step::Create(drainer) => return create(client, drainer).await,
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

async fn create(client: &Client, drainer: &Drainer) -> Result<(), RequestError> {
    let created = async {
        let request = creation(drainer).map_err(kube::Error::BuildRequest)?;
        client.request::<Job>(request).await
    };
    answer(created).await.map(drop)
}

/// The request that makes a drainer. It must not change a Job that is there, which a watch that is behind may not show:
/// one that has succeeded would then prove an empty claim for what it never saw.
fn creation(drainer: &Drainer) -> Result<Request<Vec<u8>>, request::Error> {
    let body = serde_json::to_vec(&drainer.manifest).map_err(request::Error::SerializeBody)?;
    let parameters = PostParams { field_manager: Some(NAME.to_owned()), ..PostParams::default() };
    kube::core::Request::new(Job::url_path(&(), Some(&drainer.key.namespace))).create(&parameters, body)
}

/// Deletes a claim. The watch of the `StatefulSet` may be behind, so it is read again.
async fn remove(client: &Client, emptied: &Emptied) -> Result<(), RequestError> {
    let namespace = &emptied.key.namespace;
    let fleet = answer(Api::<StatefulSet>::namespaced(client.clone(), namespace).get_opt(&emptied.fleet.name)).await?;
    let metadata = fleet.map(|fleet| fleet.metadata).unwrap_or_default();
    if !emptied.holds(metadata.uid.as_deref(), metadata.generation) {
        return Ok(());
    }
    let only = Preconditions { uid: Some(emptied.uid.clone()), resource_version: Some(emptied.version.clone()) };
    let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    answer(api.delete(&emptied.key.name, &parameters)).await.map(drop)
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

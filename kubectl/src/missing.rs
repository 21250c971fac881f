//! Errors about objects that do not exist, with the nearest names that do.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kubectl_core::{
    access::{Fetched, Place, Unknown, items},
    nearest::nearest,
};
use operator_core::{ObjectKey, names::PROXY_LABEL};

use crate::{cluster::Cluster, error::Error};

/// Fails if the selected namespace does not exist: a list of its objects would be empty. A user who may not read
/// namespaces sees the empty list.
pub(crate) async fn has_namespace(cluster: &Cluster) -> Result<(), Error> {
    let name = &cluster.namespace;
    let Ok(None) = cluster.get_global::<Namespace>(name).await else { return Ok(()) };
    let others = cluster.list_global::<Namespace>().await;
    let names = items(&others).iter().filter_map(|other| other.metadata.name.as_deref());
    Err(Error::NoNamespace { name: name.clone(), nearest: nearest(name, names).map(str::to_owned) })
}

/// Returns the error about a missing pod in the selected namespace, with the nearest pod that has a proxy; or the error
/// about a missing namespace.
pub(crate) async fn no_pod(cluster: &Cluster, pod: &ObjectKey) -> Error {
    if let Err(no_namespace) = has_namespace(cluster).await {
        return no_namespace;
    }
    Error::NoPod { pod: pod.to_string(), nearest: nearest_pod(cluster, pod, PROXY_LABEL).await }
}

/// Returns the answer of the live API about a pod; if the API has failed, checks whether the pod exists.
pub(crate) async fn of_pod<T>(cluster: &Cluster, pod: &ObjectKey, answer: Fetched<T>) -> Result<T, Error> {
    if matches!(answer, Err(Unknown::Failed { .. }))
        && let Ok(None) = cluster.get::<Pod>(&pod.namespace, &pod.name).await
    {
        return Err(no_pod(cluster, pod).await);
    }
    Ok(answer?)
}

/// Returns the nearest name of a pod in the same namespace.
pub(crate) async fn nearest_pod(cluster: &Cluster, pod: &ObjectKey, labels: &str) -> Option<String> {
    let place = Place::Namespace(pod.namespace.clone());
    let others = cluster.list::<Pod>(&place, ListParams::default().labels(labels)).await;
    let names = items(&others).iter().filter_map(|other| other.metadata.name.as_deref());
    nearest(&pod.name, names).map(str::to_owned)
}

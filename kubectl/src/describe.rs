//! `kubectl portlane describe FORWARD`: reads the dependencies of the forward and prints the report.

use std::collections::BTreeMap;

use crds::{ForwardAgent, ForwardGateway, PortForward};
use futures_util::{StreamExt, stream};
use k8s_openapi::{
    api::{
        core::v1::{Event, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use kube::api::ListParams;
use kubectl_core::{
    access::{Fetched, Listed, Place, items},
    check::{Check, Outcome},
    describe::{Facts, agents, report, services},
    nearest::nearest,
    placement::{gateway, key, pods},
    render,
};
use operator_core::ObjectKey;

use crate::{args, cluster::Cluster, error::Error, missing::has_namespace, output};

/// The most Services that are read at the same time.
const READ: usize = 8;

/// The results of reading a Service and its endpoints.
type ServiceRead = (ObjectKey, Fetched<Option<Service>>, Fetched<Listed<EndpointSlice>>);

/// The result of reading an agent.
type AgentRead = (ObjectKey, Fetched<Option<ForwardAgent>>);

/// Prints the report. Returns whether everything could be read.
pub(crate) async fn run(cluster: &Cluster, now: Timestamp, args: &args::Describe) -> Result<bool, Error> {
    let forward = find(cluster, &args.forward).await?;
    let key = key(&forward);
    let (query, fleet, wanted) = (pods(&forward), gateway(&forward), services(&forward));
    let dialling = stream::iter(agents(&forward)).map(|key| read_agent(cluster, key)).buffer_unordered(READ);
    let gateway = async {
        match &fleet {
            Some(gateway) => Some(cluster.get::<ForwardGateway>(&gateway.namespace, &gateway.name).await),
            None => None,
        }
    };
    // Events of a deleted forward of the same name belong to another object.
    let uid = forward.metadata.uid.as_deref().unwrap_or_default();
    let events = ListParams::default()
        .fields(&format!("involvedObject.kind=PortForward,involvedObject.name={},involvedObject.uid={uid}", key.name));
    let (pods_in, events_in) = (Place::Namespace(query.namespace), Place::Namespace(key.namespace.clone()));
    let read = stream::iter(wanted).map(|key| read_service(cluster, key)).buffer_unordered(READ);
    let (gateway, read, dialling, pods, events) = tokio::join!(
        gateway,
        read.collect::<Vec<ServiceRead>>(),
        dialling.collect::<Vec<AgentRead>>(),
        cluster.list::<Pod>(&pods_in, ListParams::default().labels(&query.labels)),
        cluster.list::<Event>(&events_in, events),
    );
    let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
    for (key, service, endpoints) in read {
        services.insert(key.clone(), service);
        slices.insert(key, endpoints);
    }
    let agents = dialling.into_iter().collect();
    let report = report(&Facts { now, forward, gateway, services, slices, agents, pods, events });
    output::print(&report, args.output.into(), render::describe)?;
    let is_known = |check: &Check| check.outcome != Outcome::Unknown;
    Ok(report.notes.is_empty() && report.steps.iter().all(|step| step.items.iter().all(is_known)))
}

/// Fails if the cluster does not have the kinds of Portlane: a list of a kind that does not exist is empty.
pub(crate) async fn has_kinds(cluster: &Cluster) -> Result<(), Error> {
    match cluster.published().await {
        Ok(None) => Err(Error::NoKinds),
        // A user who may not read the schemas sees the error about the object.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Reads a Service and its endpoints.
async fn read_service(cluster: &Cluster, key: ObjectKey) -> ServiceRead {
    let place = Place::Namespace(key.namespace.clone());
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={}", key.name));
    let (service, slices) =
        tokio::join!(cluster.get::<Service>(&key.namespace, &key.name), cluster.list::<EndpointSlice>(&place, params));
    (key, service, slices)
}

async fn read_agent(cluster: &Cluster, key: ObjectKey) -> AgentRead {
    let agent = cluster.get::<ForwardAgent>(&key.namespace, &key.name).await;
    (key, agent)
}

/// Reads the forward of this name. If it does not exist, the error contains the nearest existing name, or says that the
/// cluster has no forwards at all.
pub(crate) async fn find(cluster: &Cluster, name: &str) -> Result<PortForward, Error> {
    let namespace = cluster.namespace.clone();
    if let Some(forward) = cluster.get::<PortForward>(&namespace, name).await? {
        return Ok(forward);
    }
    let others = cluster.list::<PortForward>(&Place::Namespace(namespace.clone()), ListParams::default()).await;
    let names = items(&others).iter().filter_map(|forward| forward.metadata.name.as_deref());
    let nearest = nearest(name, names).map(str::to_owned);
    if items(&others).is_empty() {
        has_kinds(cluster).await?;
        has_namespace(cluster).await?;
    }
    Err(Error::NoForward { namespace, name: name.to_owned(), nearest })
}

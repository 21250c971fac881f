//! The watches that show the pods of a target: `EndpointSlice` objects of a Service, or pods by name or by labels.

use std::collections::BTreeMap;

use crds::PortForward;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::ListParams,
    core::{NamespaceResourceScope, ParseExpressionError, Selector},
    runtime::watcher,
};
use kubectl_core::{
    access::{Place, Unknown, items},
    forward::{
        endpoints::{Endpoint, Takes, Unresolved, of_pods, of_service, service_port},
        listener,
        mapping::{Mapping, Remote},
        target::{Kind, Target},
    },
    nearest::nearest,
    placement::{PodQuery, carries, pods},
};

use super::watched::Watched;
use crate::{
    cluster::{self, Asked, Cluster},
    describe,
    error::Error,
    missing::has_namespace,
};

/// The objects from which the pods of a target are derived.
pub(super) struct Source {
    target: Target,
    objects: Objects,
    namespace: String,
    pods_api: Api<Pod>,
}

enum Objects {
    Service { service: Watched<Service>, slices: Watched<EndpointSlice> },
    Pods { pods: Watched<Pod>, takes: Takes },
    Forward { forward: Watched<PortForward>, pods: Watched<Pod>, query: PodQuery },
}

impl Source {
    /// Starts the watches of a target, and waits for their first lists.
    pub(super) async fn open(cluster: &Cluster, target: &Target) -> Result<Self, Error> {
        let own = cluster.namespace.as_str();
        let (objects, namespace) = match target.kind {
            Kind::Service => (of_a_service(cluster, target).await?, own.to_owned()),
            Kind::Pod => {
                exists::<Pod>(cluster, target).await?;
                (
                    Objects::Pods { pods: Watched::start(cluster, own, named(target)), takes: Takes::Running },
                    own.to_owned(),
                )
            }
            Kind::Deployment => (of_a_deployment(cluster, target).await?, own.to_owned()),
            Kind::Forward => {
                let query = pods(&describe::find(cluster, &target.name).await?);
                let namespace = query.namespace.clone();
                let forward = Watched::start(cluster, own, named(target));
                (Objects::Forward { forward, pods: proxies(cluster, &query), query }, namespace)
            }
        };
        let pods_api = cluster.pods(&namespace);
        let mut source = Self { target: target.clone(), objects, namespace, pods_api };
        source.listed(cluster).await?;
        Ok(source)
    }

    async fn listed(&mut self, cluster: &Cluster) -> Result<(), Unknown> {
        let deadline = cluster.deadline();
        match &mut self.objects {
            Objects::Service { service, slices } => {
                service.listed(deadline).await?;
                slices.listed(deadline).await
            }
            Objects::Pods { pods, .. } => pods.listed(deadline).await,
            Objects::Forward { forward, pods, .. } => {
                forward.listed(deadline).await?;
                pods.listed(deadline).await
            }
        }
    }

    /// Waits for a change. Returns a new problem, if any.
    pub(super) async fn changed(&mut self, cluster: &Cluster) -> Option<Unknown> {
        match &mut self.objects {
            Objects::Service { service, slices } => tokio::select! {
                problem = service.changed() => problem,
                problem = slices.changed() => problem,
            },
            Objects::Pods { pods, .. } => pods.changed().await,
            Objects::Forward { forward, pods: proxy_pods, query } => {
                let problem = tokio::select! {
                    problem = forward.changed() => problem,
                    problem = proxy_pods.changed() => problem,
                };
                let newest = forward.with(|forwards| forwards.get(&self.target.name).map(pods));
                if let Some(newest) = newest.filter(|newest| *newest != *query) {
                    // The forward moved to other proxies, perhaps of another namespace.
                    *proxy_pods = proxies(cluster, &newest);
                    self.namespace.clone_from(&newest.namespace);
                    self.pods_api = cluster.pods(&newest.namespace);
                    *query = newest;
                }
                problem
            }
        }
    }

    /// The endpoints for a port of the target.
    pub(super) fn endpoints(&self, port: &Remote) -> Result<Vec<Endpoint>, Unresolved> {
        let target = &self.target;
        match &self.objects {
            Objects::Service { service, slices } => service.with(|services| match services.get(&target.name) {
                Some(service) => slices.with(|slices| of_service(target, service, slices.values(), port)),
                None => Ok(Vec::new()),
            }),
            Objects::Pods { pods, takes } => pods.with(|pods| of_pods(target, pods.values(), port, *takes)),
            Objects::Forward { forward, pods, query } => forward.with(|forwards| {
                let Some(forward) = forwards.get(&target.name) else { return Ok(Vec::new()) };
                let port = Remote::Number(listener::port(target, forward, port)?);
                let carriers = |pods: &BTreeMap<String, Pod>| {
                    let carriers = pods.values().filter(|pod| carries(pod, query.container));
                    of_pods(target, carriers, &port, Takes::Ready)
                };
                pods.with(carriers)
            }),
        }
    }

    /// Returns the number of a port of the target. `None`: only a pod can tell it, and there is none.
    pub(super) fn number(&self, port: &Remote) -> Result<Option<u16>, Unresolved> {
        let target = &self.target;
        if let Objects::Service { service, .. } = &self.objects {
            return service.with(|services| {
                let Some(service) = services.get(&target.name) else { return Ok(None) };
                let found = service_port(target, service, port)?;
                Ok(found.and_then(|found| u16::try_from(found.port).ok()).or(literal(port)))
            });
        }
        if let Objects::Forward { forward, .. } = &self.objects {
            return forward.with(|forwards| {
                let forward = forwards.get(&target.name);
                forward.map(|forward| listener::port(target, forward, port)).transpose()
            });
        }
        let endpoints = self.endpoints(port)?;
        Ok(literal(port).or(endpoints.first().map(|endpoint| endpoint.port)))
    }

    /// Returns the port to follow: the name of a listener rather than its number, which may change.
    pub(super) fn followed(&self, port: &Remote) -> Remote {
        let Objects::Forward { forward, .. } = &self.objects else { return port.clone() };
        let followed =
            forward.with(|forwards| forwards.get(&self.target.name).map(|forward| listener::followed(forward, port)));
        followed.unwrap_or_else(|| port.clone())
    }

    /// The ports that are forwarded if none is named.
    pub(super) fn usual(&self) -> Vec<Mapping> {
        let listeners = match &self.objects {
            Objects::Forward { forward, .. } => {
                forward.with(|forwards| forwards.get(&self.target.name).map(listener::all).unwrap_or_default())
            }
            Objects::Service { .. } | Objects::Pods { .. } => Vec::new(),
        };
        if listeners.is_empty() { vec![Mapping::ONLY] } else { listeners }
    }

    /// Namespace of the pods.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The pods of that namespace.
    pub(super) fn pods_api(&self) -> Api<Pod> {
        self.pods_api.clone()
    }
}

/// Returns a port that is given as a number.
fn literal(port: &Remote) -> Option<u16> {
    match port {
        Remote::Number(number) => Some(*number),
        Remote::Name(_) | Remote::Only => None,
    }
}

/// The configuration of a watch of one object.
fn named(target: &Target) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={}", target.name))
}

/// Starts a watch of the pods that should have a proxy.
fn proxies(cluster: &Cluster, query: &PodQuery) -> Watched<Pod> {
    Watched::start(cluster, &query.namespace, watcher::Config::default().labels(&query.labels))
}

async fn of_a_service(cluster: &Cluster, target: &Target) -> Result<Objects, Error> {
    exists::<Service>(cluster, target).await?;
    let own = cluster.namespace.as_str();
    let labels = format!("kubernetes.io/service-name={}", target.name);
    Ok(Objects::Service {
        service: Watched::start(cluster, own, named(target)),
        slices: Watched::start(cluster, own, watcher::Config::default().labels(&labels)),
    })
}

async fn of_a_deployment(cluster: &Cluster, target: &Target) -> Result<Objects, Error> {
    let deployment = exists::<Deployment>(cluster, target).await?;
    let selector = deployment.spec.map(|spec| spec.selector).unwrap_or_default();
    let unread = |error: ParseExpressionError| {
        let asked = Asked::of::<Deployment>("get", Place::Namespace(cluster.namespace.clone()));
        asked.failed(format!("the selector of {target} cannot be used: {error}"))
    };
    let selector = Selector::try_from(selector).map_err(unread)?;
    let config = watcher::Config::default().labels_from(&selector);
    Ok(Objects::Pods { pods: Watched::start(cluster, &cluster.namespace, config), takes: Takes::Ready })
}

/// Reads the target. If it does not exist, the error contains the nearest existing name.
async fn exists<K>(cluster: &Cluster, target: &Target) -> Result<K, Error>
where
    K: cluster::Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    let (namespace, name) = (cluster.namespace.clone(), target.name.clone());
    if let Some(object) = cluster.get::<K>(&namespace, &name).await? {
        return Ok(object);
    }
    let others = cluster.list::<K>(&Place::Namespace(namespace.clone()), ListParams::default()).await;
    let names = items(&others).iter().filter_map(|other| other.meta().name.as_deref());
    let nearest = nearest(&name, names).map(str::to_owned);
    if items(&others).is_empty() {
        has_namespace(cluster).await?;
    }
    Err(Error::NoObject { kind: target.kind.name(), namespace, name, nearest })
}

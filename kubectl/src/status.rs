//! `kubectl portlane status`: reads the cluster and prints the report.

use crds::{ForwardAgent, ForwardGateway, PortForward};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment, coordination::v1::Lease,
        core::v1::Pod, discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::api::ListParams;
use kubectl_core::{
    access::{Fetched, Listed, Place, Unknown, items},
    installation::{OPERATORS, Operator, OperatorFacts},
    render,
    status::{Facts, Verdict, counted, report},
};
use operator_core::{live_api, metrics_api, names::PROXY_LABEL};

use crate::{args, cluster::Cluster, error::Error, live, missing::has_namespace, output};

/// Namespace of the operator that the documentation uses.
const NAMESPACE: &str = "portlane";
/// The most operators that are read.
const OPERATORS_READ: usize = 8;

/// Prints the report. Returns its overall result.
pub(crate) async fn run(cluster: &Cluster, now: Timestamp, args: &args::Status) -> Result<Verdict, Error> {
    let namespace = Place::Namespace(cluster.namespace.clone());
    let place = if args.all_namespaces { Place::Everywhere } else { namespace };
    let ((searched, deployments), published, proxies, gateways, agents, forwards) = tokio::join!(
        operators(cluster, args.operator_namespace.as_deref()),
        cluster.published(),
        cluster.list::<Pod>(&place, ListParams::default().labels(PROXY_LABEL)),
        cluster.list::<ForwardGateway>(&place, ListParams::default()),
        cluster.list::<ForwardAgent>(&place, ListParams::default()),
        cluster.list::<PortForward>(&place, ListParams::default()),
    );
    let is_empty = items(&forwards).is_empty() && items(&gateways).is_empty() && items(&agents).is_empty();
    if !args.all_namespaces && is_empty && items(&proxies).is_empty() {
        has_namespace(cluster).await?;
    }
    let mut operators = Vec::new();
    for deployment in items(&deployments) {
        if let Some(operator) = Operator::read(deployment).filter(|_| operators.len() < OPERATORS_READ) {
            operators.push(Box::pin(facts(cluster, operator, deployment.clone())).await);
        }
    }
    let sessions = Box::pin(live::totals(cluster, counted(&operators, &forwards))).await;
    let facts = Facts {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        now,
        published,
        place: searched,
        deployments,
        operators,
        proxies,
        gateways,
        agents,
        forwards,
        sessions,
    };
    let report = report(&facts);
    output::print(&report, args.output, render::status)?;
    Ok(report.verdict())
}

/// Lists the Deployments among which operators are, and returns the namespaces that were searched. A user who may not
/// list everywhere most likely means the namespace of the documentation.
async fn operators(cluster: &Cluster, namespace: Option<&str>) -> (Place, Fetched<Listed<Deployment>>) {
    let list = async |place: Place| {
        let listed = cluster.list::<Deployment>(&place, ListParams::default().labels(OPERATORS)).await;
        (place, listed)
    };
    if let Some(namespace) = namespace {
        return list(Place::Namespace(namespace.to_owned())).await;
    }
    match list(Place::Everywhere).await {
        (_, Err(Unknown::Forbidden { .. })) => list(Place::Namespace(NAMESPACE.to_owned())).await,
        found => found,
    }
}

/// Reads the objects that belong to an operator.
async fn facts(cluster: &Cluster, operator: Operator, deployment: Deployment) -> OperatorFacts {
    let place = Place::Namespace(operator.namespace.clone());
    let endpoints = ListParams::default().labels(&format!("kubernetes.io/service-name={}", operator.service));
    let webhook = async {
        match &operator.webhook {
            Some(name) => Some(cluster.get_global::<MutatingWebhookConfiguration>(name).await),
            None => None,
        }
    };
    let registered = async |is_served: bool, version: &str, group: &str| {
        let name = format!("{version}.{group}");
        if is_served { Some(cluster.get_global::<APIService>(&name).await) } else { None }
    };
    let metrics = registered(operator.serves_metrics, metrics_api::api::VERSION, metrics_api::api::GROUP);
    let live = registered(operator.serves_live, live_api::VERSION, live_api::GROUP);
    let (lease, webhook, endpoints, metrics, live) = tokio::join!(
        cluster.get::<Lease>(&operator.namespace, &operator.lease),
        webhook,
        cluster.list::<EndpointSlice>(&place, endpoints),
        metrics,
        live,
    );
    OperatorFacts { operator, deployment, lease, webhook, endpoints, metrics, live }
}

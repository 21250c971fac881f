//! Starts the driver with its inputs and outputs.

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, SocketAddr},
};

use kube::Api;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::Replica;
use operator_core::{
    Cache, World,
    desired::gateway::Fleets,
    names::{ADMIN_PORT, HEALTH_PORT},
    schedule::TermNumber,
    world::rights::Rights,
};

use crate::{
    driver::{Driver, Effects, Inputs, Patience},
    inputs::{identity::Identities, questions::Question, streams::Streams, watch::Watches},
    outputs::{
        deletion_costs::CostWriter,
        enrolments::{Enroller, TunnelRoots},
        events::Events,
        notices::Notices,
        status_writer::StatusWriter,
    },
    platform::liveness::Heartbeat,
    settings::Settings,
};

/// The most messages that wait for the driver, in each channel except for that of results.
const MESSAGES: usize = 1024;
/// The most results of applying children and autoscalers that wait for the driver.
const RESULTS: usize = 64;

/// Starts the driver and everything that sends it messages. Returns the service that serves proxies' streams.
pub(super) fn start(
    replica: &Replica,
    synced: watch::Sender<bool>,
    questions: mpsc::Receiver<Question>,
    notices: Option<Notices>,
    heartbeat: Heartbeat,
) -> Streams {
    let Replica { settings, client, trusted, metrics, tasks, liveness, .. } = replica;
    let (messages, watched) = mpsc::channel(MESSAGES);
    let rights = Rights {
        watched: settings.watch_namespaces.clone(),
        fleets: settings.fleet_namespaces.clone(),
        claims: settings.fleet_claims,
        autoscaling: settings.autoscaling,
    };
    let scope = (&rights, settings.controller_class.as_str());
    let together = (tasks.clone(), liveness.clone(), replica.returns.clone());
    let (watching, sources) = Watches::start(replica.watches.clone(), scope, messages, metrics.clone(), together);
    let world = World {
        any_service: settings.allow_all_services,
        reserved: BTreeMap::from([(HEALTH_PORT, "health".to_owned())]),
        // A sidecar serves its admin API on a Unix socket, so only gateways reserve a port for it.
        reserved_in_gateways: BTreeMap::from([(ADMIN_PORT, "admin".to_owned())]),
        api_server: api_server().into_iter().collect(),
        protected: settings.protected_cidrs.clone(),
        ..World::default()
    };
    let cache = Cache::new(world, sources).bounded(settings.max_objects).of_class(&settings.controller_class);
    let (results, written) = mpsc::channel(MESSAGES);
    let writer = StatusWriter::new(client.clone(), results, metrics.clone(), tasks.clone(), liveness.clone());
    let writing = liveness.heartbeat("the writer of Events");
    let events = Events::start(client.clone(), settings.pod.clone(), notices, metrics.clone(), tasks, writing);
    let (applying, applied) = mpsc::channel(RESULTS);
    let secrets = Api::namespaced(client.clone(), &settings.namespace);
    let roots = TunnelRoots::new(secrets, &settings.tunnel_roots_secret, settings.tunnel_roots_per_namespace);
    let effects = Effects {
        client: client.clone(),
        enroller: Enroller::new(client.clone(), roots, metrics.clone()),
        statuses: writer,
        events,
        deletion_costs: settings.deletion_cost.then(|| CostWriter::new(client.clone(), metrics.clone())),
        autoscaling: rights.autoscaling,
        results: applying,
        metrics: metrics.clone(),
        term: TermNumber::default(),
        running: JoinSet::new(),
        tasks: tasks.clone(),
        patience: Patience::new(liveness.clone(), metrics.clone()),
    };
    let webhook = (replica.selectors.clone(), replica.api_servers.clone());
    let driver = Driver::new(cache, watching, synced, webhook, (fleets(settings), trusted.clone()), effects);
    let (reports, streams) = mpsc::channel(MESSAGES);
    let (term, lacks) = (replica.term.clone(), replica.lacks.clone());
    let inputs = Inputs { watches: watched, streams, written, applied, questions, lacks, term, heartbeat };
    tasks.service("driver", driver.run(inputs));
    let identities = Identities::new(client.clone(), metrics.clone());
    Streams::new(identities, reports, replica.term.clone(), trusted.clone(), metrics.clone())
}

/// The settings that the installation applies to fleets.
fn fleets(settings: &Settings) -> Fleets {
    Fleets {
        image: settings.proxy_image.clone(),
        pull_policy: settings.proxy_pull_policy.clone(),
        operator: settings.operator.clone(),
        bind: settings.fleet_bind_ip,
        namespaces: settings.fleet_namespaces.clone(),
        claims: settings.fleet_claims,
        network_policies: settings.fleet_network_policies,
        peers: settings.fleet_network_policy_from.clone().unwrap_or_default(),
        rollout: settings.fleet_rollout.into(),
        pods: settings.pods(),
        template: settings.fleet_pod_template.clone().unwrap_or_default(),
    }
}

/// The cluster IP of the API server, from the environment that kubelet sets in every container. `None` outside a
/// cluster, or if the variable contains a name.
fn api_server() -> Option<SocketAddr> {
    let ip: IpAddr = env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    let port = env::var("KUBERNETES_SERVICE_PORT").ok().and_then(|port| port.parse().ok());
    Some(SocketAddr::new(ip, port.unwrap_or(443)))
}

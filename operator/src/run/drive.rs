//! The driver and what feeds it.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};

use super::Replica;
use crate::{
    driver::{Costs, Driver, Gateways, Inputs, Scalers, Statuses, Writers},
    inputs::{identity::Identities, metrics_api::Question, streams::Streams, watch::Watches},
    outputs::{events::Events, notices::Notices, status_writer::StatusWriter},
};
use operator_core::{
    Cache, World,
    desired::gateway::Fleets,
    names::{ADMIN_PORT, HEALTH_PORT},
};

/// Messages of watches that may wait for the driver.
const MESSAGES: usize = 1024;
/// Results of applications that may wait for it.
const RESULTS: usize = 64;

/// Starts them; gives what serves streams.
pub(super) fn start(
    replica: &Replica,
    synced: watch::Sender<bool>,
    questions: mpsc::Receiver<Question>,
    notices: Option<Notices>,
) -> Streams {
    let Replica { settings, client, trusted, metrics, .. } = replica;
    let (messages, watched) = mpsc::channel(MESSAGES);
    let (watching, sources) =
        Watches::start(client.clone(), settings.watch_namespaces.clone(), messages, metrics.clone());
    let world = World {
        any_service: settings.allow_all_services,
        reserved: BTreeMap::from([(HEALTH_PORT, "health".to_owned())]),
        // The administration of a sidecar is on its socket.
        reserved_in_gateways: BTreeMap::from([(ADMIN_PORT, "admin".to_owned())]),
        ..World::default()
    };
    let cache = Cache::new(world, sources).bounded(settings.max_objects);
    let (results, written) = mpsc::channel(MESSAGES);
    let writer = StatusWriter::new(client.clone(), results, metrics.clone());
    let events = Events::start(client.clone(), settings.pod.clone(), notices, metrics.clone());
    let fleets = Fleets {
        image: settings.proxy_image.clone(),
        pull_policy: settings.proxy_pull_policy.clone(),
        operator: settings.operator.clone(),
    };
    let (applying, applied) = mpsc::channel(RESULTS);
    let gateways = Gateways::new(client.clone(), fleets, trusted.clone(), writer.clone(), applying, metrics.clone());
    let (scaling, scaled) = mpsc::channel(RESULTS);
    let scalers = Scalers::new(client.clone(), scaling, metrics.clone());
    let costs = Costs::new(settings.deletion_cost.then(|| client.clone()), metrics.clone());
    let writers = Writers { statuses: Statuses::new(writer, events), gateways, scalers, costs };
    let driver = Driver::new(cache, watching, metrics.clone(), synced, replica.selectors.clone(), writers);
    let (reports, streams) = mpsc::channel(MESSAGES);
    let term = replica.term.clone();
    tokio::spawn(driver.run(Inputs { watches: watched, streams, written, applied, scaled, questions, term }));
    Streams::new(Identities::new(client.clone()), reports, trusted.clone(), metrics.clone())
}

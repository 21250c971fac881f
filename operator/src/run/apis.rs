//! What API servers call (the webhook and the metrics API), and the webhook of the user that is called.

use std::{io, net::SocketAddr, sync::Arc, thread};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::{Replica, RunError, open};
use operator_core::desired::sidecar::Sidecar;

use crate::{
    inputs::{
        metrics_api::{MetricsApi, Question, WAITING},
        webhook::Injector,
    },
    outputs::{metrics_service::Upkeep, notices::Notices, webhook_ca::Webhook},
    platform::https::{self, Door},
};

/// Serves the webhook, and keeps its configuration if there is one. `ready` becomes true once pods may be made.
pub(super) async fn webhook(replica: &Replica, ready: watch::Sender<bool>) -> Result<(), RunError> {
    let settings = &replica.settings;
    let listener = open("webhook", settings.webhook_address).await?;
    let sidecar = Sidecar {
        image: settings.proxy_image.clone(),
        pull_policy: settings.proxy_pull_policy.clone(),
        operator: settings.operator.clone(),
        roots: String::new(),
        resources: settings.sidecar_resources.clone().unwrap_or_default(),
    };
    let (selectors, trusted) = (replica.selectors.clone(), replica.trusted.clone());
    let injector = Injector::new(selectors, sidecar, trusted.clone(), replica.metrics.clone());
    let door = Door::open(replica.leaf.clone()).map_err(RunError::Tls)?;
    // The door never changes, so that nobody holds its sender.
    let (_, door) = watch::channel(Some(Arc::new(door)));
    apart(listener, door, injector).map_err(RunError::Webhook)?;
    if let Some(name) = settings.webhook.clone() {
        let webhook = Webhook::new(replica.client.clone(), name, replica.metrics.clone());
        tokio::spawn(webhook.keep(replica.term.clone(), trusted, ready));
    } else {
        ready.send_replace(true);
    }
    Ok(())
}

/// Serves the webhook on a thread of its own: whoever makes a pod waits for the answer, and must not wait for whatever else a
/// busy operator does.
fn apart(listener: TcpListener, door: watch::Receiver<Option<Arc<Door>>>, injector: Injector) -> io::Result<()> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => https::serve(listener, door, Arc::new(injector)).await,
                Err(error) => tracing::error!(%error, "the webhook cannot be served: new pods go without a proxy"),
            }
        });
    };
    thread::Builder::new().name("webhook".to_owned()).spawn(work).map(drop)
}

/// Serves the metrics API, if it is to be; gives what its callers ask.
pub(super) async fn metrics(replica: &Replica) -> Result<mpsc::Receiver<Question>, RunError> {
    let (questions, asked) = mpsc::channel(WAITING);
    let settings = &replica.settings;
    if let (Some(address), Some(ip)) = (settings.custom_metrics_address, settings.pod_ip) {
        let listener = open("custom metrics", address).await?;
        let (door, doors) = watch::channel(None);
        tokio::spawn(https::serve(listener, doors, Arc::new(MetricsApi(questions))));
        let upkeep = Upkeep {
            client: replica.client.clone(),
            namespace: settings.namespace.clone(),
            service: settings.custom_metrics_service.clone(),
            address: SocketAddr::new(ip, address.port()),
            leaf: replica.leaf.clone(),
            door,
            metrics: replica.metrics.clone(),
        };
        tokio::spawn(upkeep.keep(replica.term.clone(), replica.trusted.clone()));
    }
    Ok(asked)
}

/// What sends notices, if it is to be.
pub(super) fn notices(replica: &Replica) -> Result<Option<Notices>, RunError> {
    let Some(file) = replica.settings.notice_url_file.clone() else { return Ok(None) };
    let notices = Notices::start(file, replica.settings.notice_format.into(), replica.metrics.clone());
    notices.map(Some).map_err(RunError::Notices)
}

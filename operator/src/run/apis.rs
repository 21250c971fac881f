//! The APIs that API servers call (the webhook and the aggregated APIs), and the sender of notices.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use proxy_grpc::Door;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::{Replica, RunError, open};
use operator_core::{desired::sidecar::Sidecar, live_api, metrics_api::api as metrics_api};

use crate::{
    inputs::{
        aggregated::Aggregated,
        live_api::LiveApi,
        metrics_api::MetricsApi,
        questions::{Question, WAITING},
        webhook::Injector,
    },
    outputs::{metrics_service::Upkeep, notices::Notices, webhook_ca::Webhook},
    platform::{
        doors,
        https::{self, TlsContext},
        tasks::Fault,
    },
    settings::AggregatedApi,
};

/// Serves the webhook and, if its configuration is named, maintains the CA bundle there. `ready` becomes true once API
/// servers trust the webhook, or the wait for that has been long enough.
pub(super) async fn webhook(replica: &Replica, ready: watch::Sender<bool>) -> Result<(), RunError> {
    let settings = &replica.settings;
    let listener = open("webhook", settings.webhook_address).await?;
    let sidecar = Sidecar {
        image: settings.proxy_image.clone(),
        pull_policy: settings.proxy_pull_policy.clone(),
        operator: settings.operator.clone(),
        roots: String::new(),
        resources: settings.sidecar_resources.clone().unwrap_or_default(),
        pods: settings.pods(),
        class: settings.controller_class.clone(),
    };
    let (selectors, trusted) = (replica.selectors.clone(), replica.trusted.clone());
    let injector = Injector::new(selectors, sidecar, trusted, replica.metrics.clone());
    let serving = replica.serving.clone();
    let tls = TlsContext::without_client_auth(serving.leaf).map_err(RunError::Tls)?;
    // This TLS context never changes, so its sender is dropped.
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    let door = doors::webhook(&replica.metrics, replica.api_servers.clone());
    apart(listener, tls, injector, door, replica).map_err(RunError::Webhook)?;
    if let Some(name) = settings.webhook.clone() {
        let webhook = Webhook::new(replica.client.clone(), name, replica.metrics.clone());
        let heartbeat = replica.liveness.heartbeat("the upkeep of the webhook's CA bundle");
        let upkeep = webhook.keep(replica.term.clone(), serving.trusted, ready, heartbeat);
        replica.tasks.service("CA bundle of the webhook", upkeep);
    } else {
        ready.send_replace(true);
    }
    Ok(())
}

/// Serves the webhook on a thread of its own: the creation of a pod waits for the webhook's answer, and should not wait
/// for other work of a busy operator.
fn apart(
    listener: TcpListener,
    tls: watch::Receiver<Option<Arc<TlsContext>>>,
    injector: Injector,
    door: Arc<Door>,
    replica: &Replica,
) -> io::Result<()> {
    let (tasks, ending) = (replica.tasks.clone(), replica.ending.clone());
    let heartbeat = replica.liveness.heartbeat("the webhook");
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    heartbeat.idle(https::serve(listener, tls, Arc::new(injector), door, ending)).await;
                }
                Err(error) => tracing::error!(%error, "cannot serve the webhook, so new pods get no sidecar"),
            }
        });
    };
    let work = move || {
        let name = "webhook".into();
        tasks.report(match catch_unwind(AssertUnwindSafe(serve)) {
            Ok(()) => Fault::Ended(name),
            Err(_) => Fault::Panicked(name),
        });
    };
    thread::Builder::new().name("webhook".to_owned()).spawn(work).map(drop)
}

/// Serves the aggregated APIs if their address is set. Returns the questions of callers.
pub(super) async fn aggregated(replica: &Replica) -> Result<mpsc::Receiver<Question>, RunError> {
    let (questions, asked) = mpsc::channel(WAITING);
    let settings = &replica.settings;
    if let Some(address) = settings.custom_metrics_address {
        let listener = open("custom metrics", address).await?;
        let (tls, contexts) = watch::channel(None);
        let door = doors::metrics_api(&replica.metrics);
        let serves = |api| settings.apis.contains(&api);
        let apis = Aggregated {
            metrics: serves(AggregatedApi::CustomMetrics).then(|| MetricsApi(questions.clone())),
            live: serves(AggregatedApi::Live).then(|| LiveApi::new(questions.clone(), replica.metrics.clone())),
        };
        let serving = https::serve(listener, contexts, Arc::new(apis), door, replica.ending.clone());
        let heartbeat = replica.liveness.heartbeat("the server of the aggregated APIs");
        replica.tasks.service("aggregated APIs", async move { heartbeat.idle(serving).await });
        let upkeep = Upkeep {
            client: replica.client.clone(),
            namespace: settings.namespace.clone(),
            service: settings.custom_metrics_service.clone(),
            apis: settings.apis.iter().map(|api| api_service(*api)).collect(),
            ips: settings.pod_ips.clone(),
            port: address.port(),
            leaf: replica.serving.leaf.clone(),
            tls,
            metrics: replica.metrics.clone(),
        };
        let heartbeat = replica.liveness.heartbeat("the upkeep of the aggregated APIs");
        let upkeep = upkeep.keep(replica.term.clone(), replica.serving.trusted.clone(), heartbeat);
        replica.tasks.service("upkeep of the aggregated APIs", upkeep);
    }
    Ok(asked)
}

/// Name of the `APIService` of an API.
fn api_service(api: AggregatedApi) -> String {
    let (version, group) = match api {
        AggregatedApi::CustomMetrics => (metrics_api::VERSION, metrics_api::GROUP),
        AggregatedApi::Live => (live_api::VERSION, live_api::GROUP),
    };
    format!("{version}.{group}")
}

/// Starts the sender of notices if the file with their URL is set.
pub(super) fn notices(replica: &Replica) -> Result<Option<Notices>, RunError> {
    let Some(file) = replica.settings.notice_url_file.clone() else { return Ok(None) };
    let format = replica.settings.notice_format.into();
    let heartbeat = replica.liveness.heartbeat("the sender of notices");
    let notices = Notices::start(file, format, replica.metrics.clone(), &replica.tasks, heartbeat);
    notices.map(Some).map_err(RunError::Notices)
}

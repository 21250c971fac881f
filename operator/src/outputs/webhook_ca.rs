//! Maintains the CA bundle in the webhook's configuration. The chart creates the configuration, the leader writes the
//! bundle.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use operator_core::{
    desired::{ca::Trusted, ca_bundles::of_webhook},
    names::NAME,
    schedule::upkeep::{Checked, Gate, Rounds},
};

use crate::platform::{
    deadline::RequestError,
    lease::Term,
    liveness::Heartbeat,
    metrics::{Metrics, count},
};

/// Interval between two checks of the bundle: the configuration may have been recreated.
const LOOK: Duration = Duration::from_secs(10);
/// The interval before this replica is ready, and the first pause after a check that failed.
const SOON: Duration = Duration::from_millis(500);
/// The longest time for which readiness waits for the bundle.
const PATIENCE: Duration = Duration::from_secs(15);

/// The bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot update the CA bundle of MutatingWebhookConfiguration {name}, so new pods may get no sidecar")]
struct WebhookError {
    name: String,
    #[source]
    source: RequestError,
}

/// Maintains the CA bundle of one configuration.
pub struct Webhook {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
    metrics: Arc<Metrics>,
}

impl Webhook {
    /// A writer of the bundle in the configuration of this name.
    #[must_use]
    pub fn new(client: Client, name: String, metrics: Arc<Metrics>) -> Self {
        Self { api: Api::all(client), name, metrics }
    }

    /// Keeps the bundle current while this replica leads, until the process ends. `ready` becomes true once the bundle
    /// is current, or the wait for it has been long enough: proxies must not wait for a webhook that pods can do
    /// without.
    pub async fn keep(
        self,
        mut term: watch::Receiver<Term>,
        mut trusted: watch::Receiver<Trusted>,
        ready: watch::Sender<bool>,
        heartbeat: Heartbeat,
    ) {
        let started = Instant::now();
        let (mut rounds, mut gate) = (Rounds::new(LOOK, SOON, LOOK), Gate::new(PATIENCE));
        loop {
            let bundle = trusted.borrow_and_update().bundle.clone();
            let leads = term.borrow_and_update().is_some();
            // Without a bundle there is nothing to check yet.
            let checked =
                if bundle.is_empty() { Ok(false) } else { Box::pin(self.trust(&bundle, leads, &heartbeat)).await };
            let is_ready = gate.opens(matches!(checked, Ok(true)), started.elapsed());
            let next = match &checked {
                Ok(_) => rounds.checked(if is_ready { Checked::Done } else { Checked::Incomplete }),
                Err(error) => rounds.checked(Checked::Failed(&error.to_string())),
            };
            if let Err(error) = checked {
                count(&self.metrics.api_errors, "request", "webhook");
                if next.is_news {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "cannot update the webhook's CA bundle, will retry");
                }
            }
            ready.send_replace(is_ready);
            let pause = next.pause.min(gate.left(started.elapsed()));
            let next_round = async {
                tokio::select! {
                    Ok(()) = term.changed() => {}
                    Ok(()) = trusted.changed() => {}
                    () = sleep(pause) => {}
                }
            };
            heartbeat.idle(next_round).await;
        }
    }

    /// Writes the bundle (PEM) into every entry with another bundle; without `write`, only checks the entries. Returns
    /// whether the wait is over: all entries have the bundle, or the configuration does not exist.
    async fn trust(&self, bundle: &str, write: bool, heartbeat: &Heartbeat) -> Result<bool, WebhookError> {
        let failed = |source| WebhookError { name: self.name.clone(), source };
        let Some(existing) = heartbeat.answer(self.api.get_opt(&self.name)).await.map_err(failed)? else {
            return Ok(true);
        };
        let Some(patch) = of_webhook(&existing, bundle) else { return Ok(true) };
        if !write {
            return Ok(false);
        }
        let patch = serde_json::from_value(patch).unwrap_or_default();
        let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        let patch = Patch::<()>::Json(patch);
        heartbeat.answer(self.api.patch(&self.name, &parameters, &patch)).await.map(|_| true).map_err(failed)
    }
}

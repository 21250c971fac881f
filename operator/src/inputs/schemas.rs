//! Checks at intervals whether the installed CRDs and this operator know the same fields. An older CRD drops fields
//! silently, and so does an older operator: a restriction in a manifest would have no effect.

use std::{sync::Arc, time::Duration};

use hyper::Request;
use kube::Client;
use operator_core::{
    schedule::{
        schemas::{Compared, Comparisons},
        upkeep::{Checked, Rounds},
    },
    world::schema::{Lack, lacks},
};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::platform::{
    deadline::RequestError,
    liveness::Heartbeat,
    metrics::{Metrics, count},
};

/// Interval between two checks.
const LOOK: Duration = Duration::from_secs(600);
/// The interval while a field is missing: an upgrade of the CRDs may be under way.
const SOON: Duration = Duration::from_secs(30);
/// Longest pause after checks that failed.
const RETRY: Duration = Duration::from_secs(300);

/// Why the CRDs could not be checked.
#[derive(Debug, thiserror::Error)]
enum CrdError {
    /// The schemas of this operator cannot be generated.
    #[error("cannot generate the schemas of this operator")]
    Own(#[source] serde_json::Error),
    /// The API server refused the request, or did not answer.
    #[error("cannot read the schemas that the API server publishes")]
    Published(#[source] RequestError),
}

impl CrdError {
    /// Whether the error means that the API server publishes no schema of the group at all.
    fn is_about_missing_crds(&self) -> bool {
        matches!(self, Self::Published(error) if error.code() == Some(404))
    }
}

/// Checks the CRDs until the process ends, and sends the fields that they lack. Readiness does not depend on the
/// result: forwards that need no new field work with old CRDs.
pub async fn keep(client: Client, compared: watch::Sender<Vec<Lack>>, metrics: Arc<Metrics>, heartbeat: Heartbeat) {
    let mut rounds = Rounds::new(LOOK, SOON, RETRY);
    let mut comparisons = Comparisons::default();
    loop {
        let pause = match Box::pin(check(&client, &heartbeat)).await {
            Ok(lacks) => {
                let outcome = comparisons.compared(&lacks);
                report(&lacks, outcome, &metrics);
                if outcome.is_settled {
                    compared.send_replace(lacks);
                }
                rounds.checked(outcome.checked).pause
            }
            Err(error) => {
                count(&metrics.crd_checks, "result", "failed");
                let next = rounds.checked(Checked::Failed(&error.to_string()));
                // The watches log the remedy for missing CRDs.
                if next.is_news && !error.is_about_missing_crds() {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "cannot check the installed CRDs, will retry");
                }
                next.pause
            }
        };
        heartbeat.idle(sleep(pause)).await;
    }
}

async fn check(client: &Client, heartbeat: &Heartbeat) -> Result<Vec<Lack>, CrdError> {
    let path = format!("/openapi/v3/apis/{}/{}", crds::GROUP, crds::VERSION);
    let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
    let published = async { client.request::<Value>(request?).await };
    let published = heartbeat.answer(published).await.map_err(CrdError::Published)?;
    let own = crds::crds().map_err(CrdError::Own)?;
    Ok(lacks(own.iter().map(|crd| &crd.document), &published))
}

/// Counts a check, and logs differences that are news.
fn report(lacks: &[Lack], compared: Compared, metrics: &Metrics) {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for Lack { kind, count, ignored_count, .. } in lacks {
        let kind = [("kind", kind.clone())];
        metrics.crd_fields_missing.get_or_create(&kind).set(number(*count));
        metrics.crd_fields_ignored.get_or_create(&kind).set(number(*ignored_count));
    }
    count(&metrics.crd_checks, "result", compared.result);
    if compared.is_news {
        lacks.iter().for_each(log);
    }
}

fn log(Lack { kind, count, fields, ignored_count, ignored }: &Lack) {
    if *count > 0 {
        let fields = fields.join(", ");
        tracing::warn!(
            kind,
            count,
            fields,
            "the installed CRD lacks fields, which the API server drops from manifests: \
             install the chart portlane-crds of the operator's release"
        );
    }
    if *ignored_count > 0 {
        let fields = ignored.join(", ");
        tracing::warn!(
            kind,
            count = ignored_count,
            fields,
            "the installed CRD is newer than the operator, which ignores these fields: \
             install the operator of the CRDs' release"
        );
    }
}

//! Checks at intervals whether the installed CRDs know every field of this operator. An older CRD drops fields without
//! a word, so a restriction in a manifest would have no effect.

use std::{sync::Arc, time::Duration};

use hyper::Request;
use kube::Client;
use operator_core::{
    schedule::upkeep::{Checked, Rounds},
    world::schema::{Lack, lacks},
};
use serde_json::Value;
use tokio::time::sleep;

use crate::platform::metrics::{Metrics, count};

/// Interval between two checks.
const LOOK: Duration = Duration::from_secs(600);
/// The same interval while a field is missing: an upgrade of the CRDs may be under way.
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
    Published(#[source] kube::Error),
}

/// Checks the CRDs until the process ends. Readiness does not depend on the result: forwards that need no new field
/// work with old CRDs.
pub async fn keep(client: Client, metrics: Arc<Metrics>) {
    let mut rounds = Rounds::new(LOOK, SOON, RETRY);
    let mut last = LastCheck::default();
    loop {
        let pause = match check(&client).await {
            Ok(lacks) => rounds.checked(report(&lacks, &mut last, &metrics)).pause,
            Err(error) => {
                count(&metrics.crd_checks, "result", "failed");
                let next = rounds.checked(Checked::Failed(&error.to_string()));
                if next.is_news {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "cannot check the installed CRDs, will retry");
                }
                next.pause
            }
        };
        sleep(pause).await;
    }
}

/// The last check, and what is logged of it.
#[derive(Default)]
struct LastCheck {
    /// The missing fields.
    lacks: Vec<Lack>,
    /// The log has these fields.
    is_logged: bool,
}

async fn check(client: &Client) -> Result<Vec<Lack>, CrdError> {
    let path = format!("/openapi/v3/apis/{}/{}", crds::GROUP, crds::VERSION);
    let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError).map_err(CrdError::Published)?;
    let published: Value = client.request(request).await.map_err(CrdError::Published)?;
    let own = crds::crds().map_err(CrdError::Own)?;
    Ok(lacks(own.iter().map(|crd| &crd.document), &published))
}

/// Counts and logs a check. Missing fields are logged once two checks agree: the API server publishes the schema of a
/// new CRD some seconds after the CRD.
fn report(lacks: &[Lack], last: &mut LastCheck, metrics: &Metrics) -> Checked<'static> {
    for Lack { kind, count, .. } in lacks {
        let missing = i64::try_from(*count).unwrap_or(i64::MAX);
        metrics.crd_fields_missing.get_or_create(&[("kind", kind.clone())]).set(missing);
    }
    let is_complete = lacks.iter().all(|lack| lack.count == 0);
    count(&metrics.crd_checks, "result", if is_complete { "complete" } else { "outdated" });
    if last.lacks != lacks {
        *last = LastCheck { lacks: lacks.to_vec(), is_logged: false };
    } else if !is_complete && !std::mem::replace(&mut last.is_logged, true) {
        for Lack { kind, count, fields } in lacks.iter().filter(|lack| lack.count > 0) {
            let fields = fields.join(", ");
            tracing::warn!(
                kind,
                count,
                fields,
                "the installed CRD lacks fields, which the API server drops from manifests: \
                install the chart portlane-crds of the operator's release"
            );
        }
    }
    if is_complete { Checked::Done } else { Checked::Incomplete }
}

//! The APIs that API servers aggregate: custom metrics, and the live API.
//!
//! Only the leader knows the proxies, so the leader makes itself the only endpoint of the Service of both APIs, by an
//! `EndpointSlice`. The server admits only the API server's aggregator, by its client certificate; the aggregator has
//! authenticated and authorized the request.

use std::time::Duration;

use hyper::{Method, StatusCode, body::Bytes};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use operator_core::{live_api::api::serves, metrics_api::api::failure};

use super::{
    live_api::{LiveApi, LiveQuestion},
    metrics_api::{MetricQuestion, MetricsApi},
};
use crate::platform::https::{Answer, Answers};

/// Questions that may wait for the driver.
pub const WAITING: usize = 64;
/// Timeout of the driver's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the driver. A driver that does not lead drops the sender of the reply.
#[derive(Debug)]
pub enum Question {
    /// About the load of pods.
    Metric(MetricQuestion),
    /// About proxies.
    Live(LiveQuestion),
}

/// The APIs of one server.
pub struct Aggregated {
    /// Custom metrics. Absent: not served.
    pub metrics: Option<MetricsApi>,
    /// The live API. Absent: not served.
    pub live: Option<LiveApi>,
}

impl Answers for Aggregated {
    async fn answer(&self, method: Method, path: String, query: String, _: Bytes) -> Answer {
        if method != Method::GET {
            return status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this API is read-only");
        }
        match (&self.metrics, &self.live) {
            (_, Some(live)) if serves(&path) => live.answer(&path, &query).await,
            (Some(metrics), _) if !serves(&path) => metrics.answer(&path, &query).await,
            _ => not_found("no such resource"),
        }
    }
}

/// Asks the driver. The error is the answer to the client.
pub(super) async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: Question,
    reply: oneshot::Receiver<T>,
) -> Result<T, Answer> {
    let known = match questions.try_send(question) {
        Ok(()) => timeout(PATIENCE, reply).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    let why = "this replica does not lead, or cannot answer yet";
    known.ok_or_else(|| status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why))
}

/// A Kubernetes `Status` object.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Answer {
    Answer::json(code, failure(code.as_u16(), reason, message))
}

pub(super) fn not_found(why: &str) -> Answer {
    status(StatusCode::NOT_FOUND, "NotFound", why)
}

pub(super) fn bad_request(why: &str) -> Answer {
    status(StatusCode::BAD_REQUEST, "BadRequest", why)
}

//! The metrics API (`custom.metrics.k8s.io/v1beta2`) for pods that run a proxy, which HPAs query.
//!
//! Only the leader knows the load of proxies, so the leader makes itself the only endpoint of the API's Service, by an
//! `EndpointSlice`. The server admits only the API server's aggregator, by its client certificate; the aggregator has
//! authorized the request.

use std::time::Duration;

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use operator_core::{
    ObjectKey, PodMetric,
    metrics_api::api::{Asked, Of, failure, group, resources, route, values},
};

use crate::platform::https::{Answer, Answers};

/// Questions that may wait for the driver.
pub const WAITING: usize = 64;
/// Timeout of the driver's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question of the metrics API to the driver.
#[derive(Debug)]
pub struct Question {
    /// Namespace of the pods.
    pub namespace: String,
    /// Selection among these pods.
    pub of: Of,
    /// The metric.
    pub metric: PodMetric,
    /// The forward that the metric is about. Absent: the sum over all forwards.
    pub forward: Option<ObjectKey>,
    /// Receives the names of pods with their values. A driver that does not lead drops the sender.
    pub reply: oneshot::Sender<Vec<(String, u64)>>,
}

/// Answers the requests of an aggregator.
pub struct MetricsApi(pub mpsc::Sender<Question>);

impl Answers for MetricsApi {
    async fn answer(&self, method: Method, path: String, query: String, _: Bytes) -> Answer {
        if method != Method::GET {
            return respond(StatusCode::METHOD_NOT_ALLOWED, failure(405, "MethodNotAllowed", "metrics are read-only"));
        }
        match route(&path, &query) {
            Ok(Asked::Group) => respond(StatusCode::OK, group()),
            Ok(Asked::Resources) => respond(StatusCode::OK, resources()),
            Ok(Asked::Pods { namespace, of, metric, forward }) => self.pods(namespace, of, metric, forward).await,
            Ok(Asked::Nothing) => respond(StatusCode::NOT_FOUND, failure(404, "NotFound", "no such resource")),
            Err(why) => respond(StatusCode::BAD_REQUEST, failure(400, "BadRequest", &why)),
        }
    }
}

impl MetricsApi {
    async fn pods(&self, namespace: String, of: Of, metric: PodMetric, forward: Option<ObjectKey>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let name = if let Of::Pod(name) = &of { Some(name.clone()) } else { None };
        let question = Question { namespace: namespace.clone(), of, metric, forward, reply };
        let known = match self.0.try_send(question) {
            Ok(()) => timeout(PATIENCE, answer).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        let Some(known) = known else {
            let why = "this replica does not lead, or cannot answer yet";
            return respond(StatusCode::SERVICE_UNAVAILABLE, failure(503, "ServiceUnavailable", why));
        };
        match name {
            Some(name) if known.is_empty() => {
                let why = format!("no metrics of pod {namespace}/{name}: does the pod exist, and does it run a proxy?");
                respond(StatusCode::NOT_FOUND, failure(404, "NotFound", &why))
            }
            _ => {
                let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                respond(StatusCode::OK, values(&namespace, metric, &known, &now))
            }
        }
    }
}

fn respond(status: StatusCode, body: Value) -> Answer {
    Answer { status, body: Ok(body) }
}

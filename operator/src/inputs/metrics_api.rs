//! The metrics API (`custom.metrics.k8s.io/v1beta2`) for pods that carry a proxy, which autoscalers ask.
//!
//! Only the leader knows what proxies have to do, so only it is behind the API's Service: it says so in an `EndpointSlice`.
//! Only the API server's aggregator is let in, by its certificate; it has checked who may ask.

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
/// Longest time for the driver to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the driver.
#[derive(Debug)]
pub struct Question {
    /// Namespace of the pods.
    pub namespace: String,
    /// Which of them.
    pub of: Of,
    /// What about them.
    pub metric: PodMetric,
    /// For which forward; in all, if for none.
    pub forward: Option<ObjectKey>,
    /// Names of pods with their values. Dropped by one that does not lead.
    pub reply: oneshot::Sender<Vec<(String, u64)>>,
}

/// Answers what an aggregator asks.
pub struct MetricsApi(pub mpsc::Sender<Question>);

impl Answers for MetricsApi {
    async fn answer(&self, method: Method, path: String, query: String, _: Bytes) -> Answer {
        if method != Method::GET {
            return told(StatusCode::METHOD_NOT_ALLOWED, failure(405, "MethodNotAllowed", "metrics can only be read"));
        }
        match route(&path, &query) {
            Ok(Asked::Group) => told(StatusCode::OK, group()),
            Ok(Asked::Resources) => told(StatusCode::OK, resources()),
            Ok(Asked::Pods { namespace, of, metric, forward }) => self.pods(namespace, of, metric, forward).await,
            Ok(Asked::Nothing) => told(StatusCode::NOT_FOUND, failure(404, "NotFound", "there is nothing here")),
            Err(why) => told(StatusCode::BAD_REQUEST, failure(400, "BadRequest", &why)),
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
            let why = "this replica does not lead, or is not up to date yet";
            return told(StatusCode::SERVICE_UNAVAILABLE, failure(503, "ServiceUnavailable", why));
        };
        match name {
            Some(name) if known.is_empty() => {
                let why = format!("nothing is known of pod {namespace}/{name}: is it there, and has it a proxy?");
                told(StatusCode::NOT_FOUND, failure(404, "NotFound", &why))
            }
            _ => {
                let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                told(StatusCode::OK, values(&namespace, metric, &known, &now))
            }
        }
    }
}

fn told(status: StatusCode, body: Value) -> Answer {
    Answer { status, body: Ok(body) }
}

//! Questions from the aggregated APIs to the driver, and answers in the form of the Kubernetes API.

use std::time::Duration;

use hyper::StatusCode;
use proxy_api::Origin;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use operator_core::{
    ObjectKey, PodMetric, Unheard,
    live_api::{
        api::Of,
        config::Configured,
        rates::Rates,
        together::{Carried, Forwards},
    },
    metrics_api::api::{self as metrics_api, failure},
};

use crate::{outputs::publish::Ask, platform::https::Answer};

/// The most questions that wait for the driver.
pub const WAITING: usize = 64;
/// Timeout of the driver's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the driver. A driver that does not lead drops the sender of the reply.
#[derive(Debug)]
pub enum Question {
    /// A question about the load of pods.
    Metric(MetricQuestion),
    /// A question about proxies.
    Live(LiveQuestion),
}

/// A question about the load of pods.
#[derive(Debug)]
pub struct MetricQuestion {
    /// Namespace of the pods.
    pub namespace: String,
    /// The selected pods.
    pub of: metrics_api::Of,
    /// The metric.
    pub metric: PodMetric,
    /// The forward that the metric is about. Absent: the sum over all forwards.
    pub forward: Option<Origin>,
    /// Receives the names of pods with their values; the error is a pod for whose value the caller has to wait.
    pub reply: oneshot::Sender<Result<Vec<(String, u64)>, Unheard>>,
}

/// A question about proxies. The reply is absent if the forward or the pod is unknown, or the pod runs no proxy.
#[derive(Debug)]
pub enum LiveQuestion {
    /// The proxies to query for sessions.
    Proxies {
        /// The forward or pod that has the sessions.
        of: Of,
        /// Receives the proxies.
        reply: oneshot::Sender<Option<Vec<LiveProxy>>>,
    },
    /// The proxies to query for the sessions of all forwards of a namespace or of the cluster.
    Together {
        /// Namespace of the forwards. Absent: all namespaces.
        namespace: Option<String>,
        /// Receives the proxies and the forwards.
        reply: oneshot::Sender<(Vec<LiveProxy>, Forwards)>,
    },
    /// The configuration of the proxy in a pod.
    Config {
        /// The pod.
        pod: ObjectKey,
        /// Receives the configuration and the reports of the proxy.
        reply: oneshot::Sender<Option<Configured>>,
    },
}

/// A proxy that may have live sessions.
#[derive(Debug)]
pub struct LiveProxy {
    /// The pod of the proxy.
    pub pod: ObjectKey,
    /// The queue of the proxy's stream. Absent: the proxy has no stream.
    pub asks: Option<mpsc::Sender<Ask>>,
    /// The rates of the requested sessions, by the proxy's last report of its load. Absent: unknown.
    pub rates: Option<Rates>,
    /// The namespaces of the forwards that the proxy carries. Absent in questions about one object.
    pub carried: Option<Carried>,
}

/// Sends a question to the driver. The error is the answer to the client.
pub(super) async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: Question,
    reply: oneshot::Receiver<T>,
) -> Result<T, Answer> {
    let known = match questions.try_send(question) {
        Ok(()) => timeout(PATIENCE, reply).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    known.ok_or_else(|| unavailable("this replica does not lead, or cannot answer yet"))
}

/// A Kubernetes `Status` object.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Answer {
    Answer::json(code, failure(code.as_u16(), reason, message))
}

pub(super) fn not_found(why: &str) -> Answer {
    status(StatusCode::NOT_FOUND, "NotFound", why)
}

/// The answer that makes an HPA leave replicas alone.
pub(super) fn unavailable(why: &str) -> Answer {
    status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why)
}

pub(super) fn bad_request(why: &str) -> Answer {
    status(StatusCode::BAD_REQUEST, "BadRequest", why)
}

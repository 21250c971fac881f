//! The metrics API (`custom.metrics.k8s.io/v1beta2`) for pods that run a proxy, which HPAs query.

use hyper::StatusCode;
use proxy_api::Origin;
use tokio::sync::{mpsc, oneshot};

use operator_core::{
    PodMetric, Unheard,
    metrics_api::api::{Asked, Of, group, resources, route, values},
};

use super::questions::{MetricQuestion, Question, ask, bad_request, not_found, unavailable};
use crate::platform::https::Answer;

/// Answers requests for metrics.
pub struct MetricsApi(pub mpsc::Sender<Question>);

impl MetricsApi {
    /// Answers a GET.
    pub(super) async fn answer(&self, path: &str, query: &str) -> Answer {
        match route(path, query) {
            Ok(Asked::Group) => Answer::json(StatusCode::OK, group()),
            Ok(Asked::Resources) => Answer::json(StatusCode::OK, resources()),
            Ok(Asked::Pods { namespace, of, metric, forward }) => {
                self.pods(namespace, of, metric, forward).await.unwrap_or_else(|refusal| refusal)
            }
            Ok(Asked::Nothing) => not_found("no such resource"),
            Err(why) => bad_request(&why),
        }
    }

    async fn pods(
        &self,
        namespace: String,
        of: Of,
        metric: PodMetric,
        forward: Option<Origin>,
    ) -> Result<Answer, Answer> {
        let (reply, answer) = oneshot::channel();
        let name = if let Of::Pod(name) = &of { Some(name.clone()) } else { None };
        let question = MetricQuestion { namespace: namespace.clone(), of, metric, forward, reply };
        let known = ask(&self.0, Question::Metric(question), answer).await?.map_err(|Unheard(pod)| {
            unavailable(&format!("pod {pod} has not reported its load to this new leader yet, ask again in a minute"))
        })?;
        match name {
            Some(name) if known.is_empty() => {
                let why = format!("no metrics of pod {namespace}/{name}: does the pod exist, and does it run a proxy?");
                Err(not_found(&why))
            }
            _ => {
                let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                Ok(Answer::json(StatusCode::OK, values(&namespace, metric, &known, &now)))
            }
        }
    }
}

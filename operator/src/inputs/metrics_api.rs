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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::https::Content;
    use operator_core::ObjectKey;
    use serde_json::{Value, json};

    /// Answers a request for all pods of a namespace, given what the driver knows.
    async fn answered(known: Result<Vec<(String, u64)>, Unheard>) -> (StatusCode, Value) {
        let (questions, mut asked) = mpsc::channel(1);
        let api = MetricsApi(questions);
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/pods/%2A/portlane_connections";
        let request = tokio::spawn(async move { api.answer(path, "").await });
        let Some(Question::Metric(question)) = asked.recv().await else { panic!("no question about a metric") };
        question.reply.send(known).expect("the request waits");
        let answer = request.await.expect("an answer");
        let Content::Json(body) = answer.content else { panic!("no JSON") };
        (answer.status, body)
    }

    #[tokio::test]
    async fn a_list_is_refused_while_a_pod_is_not_heard_of() {
        let (status, body) = answered(Err(Unheard(ObjectKey::new("ns", "p1")))).await;
        assert_eq!((status, &body["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("ServiceUnavailable")));
        assert!(body["message"].as_str().is_some_and(|message| message.contains("pod ns/p1")), "{body}");
        let (status, body) = answered(Ok(vec![("p1".to_owned(), 7)])).await;
        assert_eq!((status, &body["items"][0]["value"]), (StatusCode::OK, &json!("7")));
    }
}

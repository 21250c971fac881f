//! The mutating webhook that injects a sidecar into new pods.
//!
//! Every replica answers from its own cache, whether it leads or not. A pod with the label
//! `portlane.dev/inject: enabled` always gets a sidecar, because its forwards may be created later. In a namespace with
//! that label, a pod gets a sidecar if a forward selects the pod.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use crds::Selector;
use hyper::{Method, StatusCode, body::Bytes};
use imbl::OrdMap;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use operator_core::{
    ObjectKey,
    desired::{
        ca::Trusted,
        sidecar::{Injection, Sidecar, inject},
    },
    review::HEAVIEST,
};
use proxy_api::weight::Weight;

use crate::platform::{
    https::{Answer, Answers},
    metrics::{Metrics, count},
};

/// The largest review, in bytes, that the webhook's thread reads between other work: it takes about a millisecond.
/// Larger reviews are read on another thread, one at a time.
const READ_AT_ONCE: usize = 128 << 10;

/// Pod selectors of sidecar forwards. The driver writes them from its cache; every request reads them. Forwards of one
/// app, whose names are often neighbours, share a selector.
#[derive(Debug, Default)]
pub struct Selectors(ArcSwap<OrdMap<ObjectKey, Arc<Selector>>>);

impl Selectors {
    /// Sets the selector of a forward. Absent: the forward is gone or has no sidecar placement.
    pub fn set(&self, key: &ObjectKey, selector: Option<&Selector>) {
        let mut all = (**self.0.load()).clone();
        if all.get(key).map(|known| &**known) == selector {
            return;
        }
        match selector {
            Some(selector) => {
                let neighbours = [all.get_prev(key), all.get_next(key)].into_iter().flatten();
                let shared = neighbours.map(|(_, known)| known).find(|known| ***known == *selector).cloned();
                drop(all.insert(key.clone(), shared.unwrap_or_else(|| Arc::new(selector.clone()))));
            }
            None => drop(all.remove(key)),
        }
        self.0.store(Arc::new(all));
    }

    /// Whether any forward of a namespace selects a pod with these labels.
    #[must_use]
    pub fn select(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let all = self.0.load();
        let first = ObjectKey::new(namespace, "");
        all.range(first..).take_while(|(key, _)| key.namespace == namespace).any(|(_, it)| it.matches(labels))
    }
}

/// Why a body has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// The review would be too large as values in memory.
    TooComplex,
    /// The body is not an `AdmissionReview`.
    NotAReview,
}

/// Answers admission reviews.
#[derive(Clone)]
pub struct Injector {
    selectors: Arc<Selectors>,
    /// The sidecar without CA certificates, which each review takes from `trusted`.
    sidecar: Sidecar,
    trusted: watch::Receiver<Trusted>,
    metrics: Arc<Metrics>,
    /// The turn of a large review.
    large: Arc<Semaphore>,
}

impl Injector {
    /// An injector of this sidecar.
    #[must_use]
    pub fn new(
        selectors: Arc<Selectors>,
        sidecar: Sidecar,
        trusted: watch::Receiver<Trusted>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { selectors, sidecar, trusted, metrics, large: Arc::new(Semaphore::new(1)) }
    }

    /// The answer to an `AdmissionReview` (admission.k8s.io/v1). Absent if the request has no uid.
    #[must_use]
    pub fn review(&self, review: &Value) -> Option<Value> {
        let started = std::time::Instant::now();
        let request = &review["request"];
        let uid = request["uid"].as_str()?;
        let mut response = json!({"uid": uid, "allowed": true});
        let result = match self.decide(request) {
            None => "left",
            Some(Injection::Carried) => "carried",
            Some(Injection::Changed(patch, warnings)) => {
                let bytes = k8s_openapi::ByteString(serde_json::to_vec(&patch).ok()?);
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(bytes);
                let refused = !warnings.is_empty() && patch.len() == 1;
                let is_again = warnings.is_empty() && patch.len() == 1;
                if !warnings.is_empty() {
                    response["warnings"] =
                        warnings.iter().map(|warning| json!(format!("portlane: {warning}"))).collect();
                }
                if refused {
                    "refused"
                } else if is_again {
                    "carried"
                } else {
                    "injected"
                }
            }
        };
        count(&self.metrics.injections, "result", result);
        self.metrics.injection.observe(started.elapsed().as_secs_f64());
        Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    }

    /// Reads a review and answers it.
    async fn read(&self, body: Bytes) -> Result<Value, Unread> {
        if body.len() <= READ_AT_ONCE {
            return self.parsed(&body);
        }
        let turn = self.large.clone().acquire_owned().await.map_err(|_| Unread::NotAReview)?;
        let own = self.clone();
        let read = spawn_blocking(move || {
            // The turn lasts as long as the work, even if nobody waits for it any more.
            let _turn = turn;
            own.parsed(&body)
        });
        read.await.unwrap_or(Err(Unread::NotAReview))
    }

    /// The answer to a review. Any pod may send one, so its weight is checked before anything of it is stored.
    fn parsed(&self, body: &[u8]) -> Result<Value, Unread> {
        if !Weight::of(body).is_within(HEAVIEST) {
            count(&self.metrics.injections, "result", "too_complex");
            return Err(Unread::TooComplex);
        }
        let review = serde_json::from_slice(body).map_err(|_| Unread::NotAReview)?;
        self.review(&review).ok_or(Unread::NotAReview)
    }

    fn decide(&self, request: &Value) -> Option<Injection> {
        let pod = &request["object"];
        // A mirror pod only represents a static pod of a kubelet; changing it has no effect.
        let is_mirror = pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some();
        if request["kind"]["kind"] != "Pod" || !pod.is_object() || is_mirror {
            return None;
        }
        let labels: BTreeMap<String, String> =
            serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
        let namespace = request["namespace"].as_str().unwrap_or_default();
        let wanted = self.sidecar.is_for(&labels, || self.selectors.select(namespace, &labels));
        let roots = self.trusted.borrow().bundle.clone();
        // Without CA certificates, a sidecar would trust no operator. Without a sidecar, the pod still starts.
        (wanted && !roots.is_empty()).then(|| inject(pod, &Sidecar { roots, ..self.sidecar.clone() }))
    }
}

impl Answers for Injector {
    async fn answer(&self, method: Method, path: String, _: String, body: Bytes) -> Answer {
        if method != Method::POST || path != "/inject" {
            return Answer::plain(StatusCode::NOT_FOUND, "not found; try POST /inject");
        }
        match self.read(body).await {
            Ok(answer) => Answer::json(StatusCode::OK, answer),
            Err(Unread::TooComplex) => {
                Answer::plain(StatusCode::PAYLOAD_TOO_LARGE, "the review has too many objects or values")
            }
            Err(Unread::NotAReview) => Answer::plain(StatusCode::BAD_REQUEST, "not an AdmissionReview"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_of_one_app_share_a_selector_and_another_selector_is_their_own() {
        let selector = |app: &str| -> Selector {
            let text = format!("{{\"matchLabels\": {{\"app\": \"{app}\"}}}}");
            serde_json::from_str(&text).expect("a selector")
        };
        let key = |name: &str| ObjectKey::new("ns", name);
        let selectors = Selectors::default();
        for (name, app) in [("a", "shop"), ("c", "shop"), ("b", "shop"), ("d", "other")] {
            selectors.set(&key(name), Some(&selector(app)));
        }
        let all = selectors.0.load();
        assert!(Arc::ptr_eq(&all[&key("a")], &all[&key("b")]) && Arc::ptr_eq(&all[&key("b")], &all[&key("c")]));
        assert_eq!(*all[&key("d")], selector("other"));
        selectors.set(&key("b"), Some(&selector("third")));
        let labels = |app: &str| BTreeMap::from([("app".to_owned(), app.to_owned())]);
        assert!(["shop", "other", "third"].iter().all(|app| selectors.select("ns", &labels(app))));
        for name in ["a", "c"] {
            selectors.set(&key(name), None);
        }
        assert!(!selectors.select("ns", &labels("shop")));
    }

    /// The status of the answer to a review.
    async fn status(injector: &Injector, body: String) -> StatusCode {
        injector.answer(Method::POST, "/inject".to_owned(), String::new(), body.into()).await.status
    }

    // C3
    #[tokio::test]
    async fn a_review_of_a_million_small_objects_is_refused_before_it_is_parsed() {
        let metrics = Arc::new(Metrics::default());
        let trusted = watch::channel(Trusted::default()).1;
        let injector = Injector::new(Arc::default(), Sidecar::default(), trusted, metrics.clone());
        let bomb = |review: &str| format!("{review}, \"more\": [{}0]}}", "{\"\":0},".repeat(1 << 20));
        let review = r#"{"request": {"uid": "u", "kind": {"kind": "Pod"}, "object": {"metadata": {}}}"#;
        assert_eq!(status(&injector, bomb(review)).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(metrics.injections.get_or_create(&[("result", "too_complex")]).get(), 1);
        let large = format!("{review}, \"more\": \"{}\"}}", "{[,".repeat(1 << 20));
        assert_eq!(status(&injector, large).await, StatusCode::OK);
        assert_eq!(status(&injector, format!("{review}}}")).await, StatusCode::OK);
        assert_eq!(status(&injector, "{}".to_owned()).await, StatusCode::BAD_REQUEST);
    }
}

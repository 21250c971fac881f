//! The mutating webhook that injects a sidecar into new pods.
//!
//! Every replica answers from its own cache, whether it leads or not. A pod with the label
//! `portlane.dev/inject: enabled` always gets a sidecar, because its forwards may be created later. In a namespace with
//! that label, a pod gets a sidecar if a forward selects the pod.

use std::sync::Arc;

use arc_swap::ArcSwap;
use crds::Selector;
use hyper::{Method, StatusCode, body::Bytes};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use operator_core::{
    ObjectKey,
    desired::{
        ca::Trusted,
        sidecar::{Injection, Sidecar},
    },
    review::{
        HEAVIEST,
        answer::{self, Known},
        selectors::Selectors,
    },
};
use proxy_api::weight::Weight;

use crate::platform::{
    https::{Answer, Answers},
    metrics::{Metrics, count},
};

/// The largest review, in bytes, that the webhook's thread parses between other work, as that takes about a
/// millisecond. Larger reviews are parsed on another thread, one at a time.
const READ_AT_ONCE: usize = 128 << 10;

/// The pod selectors of sidecar forwards. The driver writes them from its cache, whose copies they share; every request
/// reads them.
#[derive(Debug, Default)]
pub struct SharedSelectors(ArcSwap<Selectors>);

impl SharedSelectors {
    /// Sets the selector of a forward. Absent: the forward is gone or has no sidecar placement.
    pub fn set(&self, key: &ObjectKey, selector: Option<&Arc<Selector>>) {
        let mut all = (**self.0.load()).clone();
        if all.set(key, selector) {
            self.0.store(Arc::new(all));
        }
    }
}

/// Why a body gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// The parsed review would take too much memory.
    TooComplex,
    /// The body is not an `AdmissionReview`.
    NotAReview,
}

/// Answers admission reviews.
#[derive(Clone)]
pub struct Injector {
    selectors: Arc<SharedSelectors>,
    /// The sidecar without CA certificates, which each review takes from `trusted`.
    sidecar: Sidecar,
    trusted: watch::Receiver<Trusted>,
    metrics: Arc<Metrics>,
    /// The turn of a large review.
    large: Arc<Semaphore>,
}

impl Injector {
    /// A webhook that injects this sidecar.
    #[must_use]
    pub fn new(
        selectors: Arc<SharedSelectors>,
        sidecar: Sidecar,
        trusted: watch::Receiver<Trusted>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { selectors, sidecar, trusted, metrics, large: Arc::new(Semaphore::new(1)) }
    }

    /// Answers an `AdmissionReview` (admission.k8s.io/v1). Absent if the request has no uid.
    #[must_use]
    pub fn review(&self, review: &Value) -> Option<Value> {
        let started = std::time::Instant::now();
        let (roots, selectors) = (self.trusted.borrow().bundle.clone(), self.selectors.0.load());
        let known = Known { sidecar: &self.sidecar, roots: &roots, selectors: &selectors };
        let answer = answer::answer(review, known)?;
        let result = match answer.injection {
            None => "left",
            Some(Injection::Carried | Injection::Relisted(_)) => "carried",
            Some(Injection::Refused(..)) => "refused",
            Some(Injection::Injected(..)) => "injected",
        };
        count(&self.metrics.injections, "result", result);
        self.metrics.injection.observe(started.elapsed().as_secs_f64());
        Some(answer.review)
    }

    /// Parses a review and answers it.
    async fn read(&self, body: Bytes) -> Result<Value, Unread> {
        if body.len() <= READ_AT_ONCE {
            return self.parsed(&body);
        }
        let turn = self.large.clone().acquire_owned().await.map_err(|_| Unread::NotAReview)?;
        let own = self.clone();
        let read = spawn_blocking(move || {
            // The turn lasts as long as the work, even if its caller no longer waits.
            let _turn = turn;
            own.parsed(&body)
        });
        read.await.unwrap_or(Err(Unread::NotAReview))
    }

    /// Parses and answers a review. Any pod may send one, so its weight is checked before any of it is stored.
    fn parsed(&self, body: &[u8]) -> Result<Value, Unread> {
        if !Weight::of(body).is_within(HEAVIEST) {
            count(&self.metrics.injections, "result", "too_complex");
            return Err(Unread::TooComplex);
        }
        let review = serde_json::from_slice(body).map_err(|_| Unread::NotAReview)?;
        self.review(&review).ok_or(Unread::NotAReview)
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
    fn what_the_driver_sets_is_what_a_review_reads() {
        let (selectors, key) = (SharedSelectors::default(), ObjectKey::new("ns", "web"));
        let shop: Arc<Selector> = serde_json::from_str(r#"{"matchLabels": {"app": "shop"}}"#).expect("a selector");
        let is_selected = || selectors.0.load().select("ns", &[("app".to_owned(), "shop".to_owned())].into());
        selectors.set(&key, Some(&shop));
        assert!(is_selected());
        let before = selectors.0.load_full();
        selectors.set(&key, Some(&shop));
        assert!(Arc::ptr_eq(&before, &selectors.0.load_full()), "nothing is stored when nothing changes");
        selectors.set(&key, None);
        assert!(!is_selected());
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

//! Decides which pod of a review gets a sidecar, and answers the API server.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::{
    desired::sidecar::{Injection, Sidecar, inject},
    review::selectors::Selectors,
};

/// The state of the webhook when it receives a review.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The sidecar without CA certificates.
    pub sidecar: &'a Sidecar,
    /// The CA certificates that proxies trust, PEM.
    pub roots: &'a str,
    /// The pods that forwards select.
    pub selectors: &'a Selectors,
}

/// The answer to a review.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The `AdmissionReview`.
    pub review: Value,
    /// The change to the pod; `None` if the pod is left as it is.
    pub injection: Option<Injection>,
}

/// Answers an `AdmissionReview` (admission.k8s.io/v1). Absent if the request has no uid. Every pod is allowed.
#[must_use]
pub fn answer(review: &Value, known: Known<'_>) -> Option<Answer> {
    let request = &review["request"];
    let uid = request["uid"].as_str()?;
    let mut response = json!({"uid": uid, "allowed": true});
    let injection = decide(request, known);
    let patch: &[Value] = injection.as_ref().map_or(&[], Injection::patch);
    let warnings: &[String] = injection.as_ref().map_or(&[], Injection::warnings);
    if !patch.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(ByteString(serde_json::to_vec(patch).ok()?));
    }
    if !warnings.is_empty() {
        response["warnings"] = warnings.iter().map(|warning| json!(format!("portlane: {warning}"))).collect();
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Some(Answer { review, injection })
}

/// Returns the change to the pod of a request; `None` if the pod is left as it is.
fn decide(request: &Value, Known { sidecar, roots, selectors }: Known<'_>) -> Option<Injection> {
    let pod = &request["object"];
    // A mirror pod only represents a static pod of a kubelet; changing it has no effect.
    let is_mirror = pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some();
    if request["kind"]["kind"] != "Pod" || !pod.is_object() || is_mirror {
        return None;
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    let namespace = request["namespace"].as_str().unwrap_or_default();
    let wanted = sidecar.is_for(&labels, || selectors.select(namespace, &labels));
    // Without CA certificates, a sidecar would trust no operator. Without a sidecar, the pod still starts.
    (wanted && !roots.is_empty()).then(|| inject(pod, &Sidecar { roots: roots.to_owned(), ..sidecar.clone() }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{names::INJECT_LABEL, world::ObjectKey};

    /// The selectors of a forward that selects the pods of `shop` in `ns`.
    fn selectors() -> Selectors {
        let mut selectors = Selectors::default();
        let shop = serde_json::from_value(json!({"matchLabels": {"app": "shop"}})).expect("a selector");
        selectors.set(&ObjectKey::new("ns", "web"), Some(&shop));
        selectors
    }

    fn answered(review: &Value, roots: &str) -> Option<Answer> {
        answer(review, Known { sidecar: &Sidecar::default(), roots, selectors: &selectors() })
    }

    /// The review of a pod that the forward selects.
    fn review() -> Value {
        let pod = json!({
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
        });
        json!({"request": {"uid": "u", "kind": {"kind": "Pod"}, "namespace": "ns", "object": pod}})
    }

    /// The review after a change of the value at this path.
    fn with(path: &str, value: Value) -> Value {
        let (mut review, (parent, name)) = (review(), path.rsplit_once('/').expect("a path"));
        review.pointer_mut(parent).expect("a parent")[name] = value;
        review
    }

    /// The fields of the response, in order.
    fn fields(answer: &Answer) -> BTreeSet<&str> {
        let response = answer.review["response"].as_object().expect("a response");
        response.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_pod_that_a_forward_selects_gets_a_sidecar_that_trusts_the_operator() {
        let answer = answered(&review(), "ROOTS").expect("an answer");
        let Some(Injection::Injected(patch, warnings)) = &answer.injection else { panic!("{answer:?}") };
        assert!(warnings.is_empty() && json!(patch).to_string().contains("\"ROOTS\""));
        let response = &answer.review["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u"), &json!(true)));
        let sent: ByteString = serde_json::from_value(response["patch"].clone()).expect("base64");
        assert_eq!(serde_json::from_slice::<Value>(&sent.0).expect("JSON"), json!(patch));
        assert_eq!(fields(&answer).len(), 4, "no warnings: {answer:?}");
        assert_eq!(answer.review["kind"], "AdmissionReview");
    }

    #[test]
    fn every_other_pod_starts_as_it_is() {
        let mirror = json!({"kubernetes.io/config.mirror": "hash"});
        let not_wanted = json!({"app": "shop", INJECT_LABEL: "disabled"});
        let cases = [
            ("no roots", review(), ""),
            ("another namespace", with("/request/namespace", json!("other")), "ROOTS"),
            ("not selected", with("/request/object/metadata/labels", json!({"app": "other"})), "ROOTS"),
            ("labels that are none", with("/request/object/metadata/labels", json!({"app": 1})), "ROOTS"),
            ("not wanted", with("/request/object/metadata/labels", not_wanted), "ROOTS"),
            ("a mirror pod", with("/request/object/metadata/annotations", mirror), "ROOTS"),
            ("not a pod", with("/request/kind/kind", json!("Service")), "ROOTS"),
            ("no object", with("/request/object", Value::Null), "ROOTS"),
        ];
        for (case, review, roots) in cases {
            let answer = answered(&review, roots).expect("an answer");
            assert_eq!((&answer.injection, fields(&answer)), (&None, BTreeSet::from(["allowed", "uid"])), "{case}");
        }
    }

    #[test]
    fn a_pod_that_is_refused_starts_with_a_warning() {
        let answer = answered(&with("/request/object/spec/hostNetwork", json!(true)), "ROOTS").expect("an answer");
        assert!(matches!(answer.injection, Some(Injection::Refused(..))), "{answer:?}");
        let response = &answer.review["response"];
        let warnings: Vec<String> = serde_json::from_value(response["warnings"].clone()).expect("warnings");
        assert!(warnings.len() == 1 && warnings[0].starts_with("portlane: a pod with hostNetwork"), "{warnings:?}");
        assert!(response["allowed"] == true && response["patch"].is_string());
    }

    #[test]
    fn a_pod_that_carries_a_sidecar_already_is_not_changed_again() {
        let Some(Injection::Injected(patch, _)) = answered(&review(), "ROOTS").expect("an answer").injection else {
            panic!("no sidecar")
        };
        let proxy = patch.iter().find(|step| step["path"] == "/spec/initContainers").expect("a container");
        let carries = with("/request/object/spec/initContainers", proxy["value"].clone());
        let answer = answered(&carries, "ROOTS").expect("an answer");
        assert_eq!(
            (&answer.injection, fields(&answer)),
            (&Some(Injection::Carried), BTreeSet::from(["allowed", "uid"]))
        );
    }

    #[test]
    fn a_request_without_a_uid_has_no_answer() {
        assert_eq!(answered(&with("/request/uid", Value::Null), "ROOTS"), None);
        assert_eq!(answered(&json!([]), "ROOTS"), None);
    }
}

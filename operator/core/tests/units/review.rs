//! The weight of reviews: a large pod is parsed, and a text that would fill the memory is not.

use operator_core::review::HEAVIEST;
use proxy_api::weight::Weight;
use serde_json::{Value, json};

/// Largest object, in bytes, that etcd stores.
const STORED: usize = 1536 << 10;

fn weight(text: &str) -> (usize, usize) {
    let weight = Weight::of(text.as_bytes());
    (weight.objects, weight.values)
}

/// The objects with fields and the values of a parsed text.
fn counted(value: &Value) -> (usize, usize) {
    let (own, inner): (usize, Vec<&Value>) = match value {
        Value::Object(fields) => (usize::from(!fields.is_empty()), fields.values().collect()),
        Value::Array(items) => (0, items.iter().collect()),
        _ => (0, Vec::new()),
    };
    inner.into_iter().map(counted).fold((own, 1), |all, more| (all.0 + more.0, all.1 + more.1))
}

/// The review of a pod with this many variables, whose fields a manager owns, as an API server sends it.
fn review(variables: usize) -> Value {
    let names = || (0..variables).map(|number| format!("VARIABLE_{number}"));
    let env: Vec<Value> = names().map(|name| json!({"name": name, "value": "{\"a\":[1,2],\"b\":\"\\\"\"}"})).collect();
    let owned: serde_json::Map<String, Value> = names()
        .map(|name| (format!("k:{{\"name\":\"{name}\"}}"), json!({".": {}, "f:name": {}, "f:value": {}})))
        .collect();
    let managed = json!([{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:env": owned}}}]);
    let containers = json!([{"name": "app", "image": "app", "command": [], "env": env}]);
    let pod = json!({"metadata": {"name": "app", "managedFields": managed}, "spec": {"containers": containers}});
    json!({"kind": "AdmissionReview", "request": {"uid": "u", "object": pod, "oldObject": null}})
}

#[test]
fn brackets_and_commas_within_strings_weigh_nothing() {
    assert_eq!(weight("0"), (0, 1));
    assert_eq!(weight(" { } "), (0, 1));
    assert_eq!(weight("[[], {}, [ ]]"), (0, 4));
    assert_eq!(weight(r#"{"a": [1, 2], "b": {"c": null}}"#), (2, 6));
    assert_eq!(weight(r#"{"{[,\"{,": "[{,\\", "b": "\\\""}"#), (1, 3));
    let review = review(10);
    for text in [review.to_string(), format!("{review:#}")] {
        assert_eq!(weight(&text), counted(&review));
    }
}

#[test]
fn the_largest_pod_that_a_cluster_stores_may_be_parsed() {
    let text = review(12_500).to_string();
    assert!(text.len() > STORED, "{}", text.len());
    let weight = Weight::of(text.as_bytes());
    assert!(weight.is_within(HEAVIEST), "{weight:?}");
}

#[test]
fn a_review_of_many_small_objects_or_values_may_not_be_parsed() {
    let of = |item: &str, times: usize| format!("[{}0]", item.repeat(times));
    assert!(Weight::of(of(r#"{"":0},"#, HEAVIEST.objects).as_bytes()).is_within(HEAVIEST));
    assert!(!Weight::of(of(r#"{"":0},"#, HEAVIEST.objects + 1).as_bytes()).is_within(HEAVIEST));
    assert!(Weight::of(of("0,", HEAVIEST.values - 2).as_bytes()).is_within(HEAVIEST));
    assert!(!Weight::of(of("0,", HEAVIEST.values - 1).as_bytes()).is_within(HEAVIEST));
    for item in ["[[0]],", "{},", r#"{"a":{"b":[]}},"#, "0 , "] {
        let bomb = of(item, (8 << 20) / item.len());
        assert!(!Weight::of(bomb.as_bytes()).is_within(HEAVIEST), "{item}");
        // Even if the text is cut before its end.
        assert!(!Weight::of(&bomb.as_bytes()[..bomb.len() - 3]).is_within(HEAVIEST), "{item}");
    }
}

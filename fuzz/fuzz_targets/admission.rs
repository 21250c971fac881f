//! What clients send to the HTTPS addresses of the operator: the review of a pod as JSON, or, beginning with a slash, the
//! path and query of an aggregated API.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use operator_core::{
    desired::sidecar::{Injection, Sidecar, inject},
    live_api,
    metrics_api::{
        api::{Asked, Of, route},
        labels::Labels,
    },
    review::HEAVIEST,
};
use proxy_api::weight::Weight;
use serde_json::Value;

/// Most bytes that a patch adds to three times the review: the container, and 3,072 ports.
const PATCH: usize = 64 << 10;
/// Most warnings of a review, and most bytes of one.
const WARNINGS: (usize, usize) = (16, 512);

fuzz_target!(|bytes: &[u8]| {
    if bytes.first() == Some(&b'/') {
        return aggregated(&String::from_utf8_lossy(bytes));
    }
    let weight = Weight::of(bytes);
    if !weight.is_within(HEAVIEST) {
        return;
    }
    let Ok(review) = serde_json::from_slice::<Value>(bytes) else { return };
    // A field that comes twice is stored once.
    assert!(stored(&review).is_within(weight), "{weight:?} are less than what is stored");
    let pod = &review["request"]["object"];
    let sidecar = Sidecar { operator: "operator:9443".to_owned(), roots: "ROOTS".to_owned(), ..Sidecar::default() };
    let injection = inject(pod, &sidecar);
    let (patch, warnings) = (injection.patch(), injection.warnings());
    let length = serde_json::to_vec(patch).expect("JSON").len();
    assert!(length <= 3 * bytes.len() + PATCH, "{length} bytes");
    let (most, longest) = WARNINGS;
    assert!(warnings.len() <= most && warnings.iter().all(|warning| warning.len() <= longest), "{warnings:?}");
    if !has_the_form_of_a_pod(pod) {
        return;
    }
    // A patch that does not fit would keep the pod from being created.
    let mut patched = pod.clone();
    patch.iter().for_each(|operation| add(&mut patched, operation));
    // A pod that was refused is refused again; one that has a proxy may get an annotation.
    match inject(&patched, &sidecar) {
        Injection::Carried | Injection::Relisted(_) => {}
        again @ Injection::Refused(..) => {
            assert!(matches!(injection, Injection::Refused(..)), "refused with a proxy: {again:?}");
        }
        again @ Injection::Injected(..) => panic!("a second proxy: {again:?}"),
    }
});

/// The weight of what a parser has stored.
fn stored(value: &Value) -> Weight {
    let (objects, inner): (usize, Vec<&Value>) = match value {
        Value::Object(fields) => (usize::from(!fields.is_empty()), fields.values().collect()),
        Value::Array(items) => (0, items.iter().collect()),
        _ => (0, Vec::new()),
    };
    inner.into_iter().map(stored).fold(Weight { objects, values: 1 }, |all, more| Weight {
        objects: all.objects + more.objects,
        values: all.values + more.values,
    })
}

/// Whether the values that a patch builds on are of the types that API servers send.
fn has_the_form_of_a_pod(pod: &Value) -> bool {
    let context = &pod["spec"]["securityContext"];
    pod["metadata"].is_object() && pod["spec"].is_object() && (context.is_null() || context.is_object())
}

/// Applies an operation of a JSON patch. Patches of the operator have no other than `add`.
fn add(pod: &mut Value, operation: &Value) {
    assert_eq!(operation["op"], "add");
    let (parent, name) = operation["path"].as_str().expect("a path").rsplit_once('/').expect("below the root");
    let value = operation["value"].clone();
    match pod.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.insert(name.replace("~1", "/").replace("~0", "~"), value)),
        Some(Value::Array(items)) if name == "-" => items.push(value),
        Some(Value::Array(items)) => items.insert(name.parse().expect("an index"), value),
        _ => panic!("{operation} does not fit"),
    }
}

fn aggregated(request: &str) {
    let (path, query) = request.split_once('?').unwrap_or((request, ""));
    if let Err(why) = live_api::api::route(path, query) {
        assert!(why.len() <= 3 * request.len() + 100, "{why}");
    }
    match route(path, query) {
        Ok(Asked::Pods { namespace, of, .. }) => {
            assert!(namespace.len() <= path.len());
            if let Of::Pod(name) = of {
                assert!(name.len() <= path.len());
            }
        }
        Ok(Asked::Group | Asked::Resources | Asked::Nothing) => {}
        Err(why) => assert!(why.len() <= 3 * request.len() + 100, "{why}"),
    }
    // A selector has an answer for any labels.
    if let Ok(labels) = Labels::parse(query) {
        assert!(!labels.is_empty() || labels.matches(&BTreeMap::new()));
    }
}

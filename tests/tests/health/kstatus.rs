//! The rules of kstatus for custom resources: what Flux and `kubectl apply` of inventories wait for.

use serde_json::Value;

/// The status of an object to kstatus. Deletion does not count here.
pub(crate) fn kstatus(object: &Value) -> &'static str {
    let observed = object["status"]["observedGeneration"].as_i64();
    if observed.is_some_and(|observed| Some(observed) != object["metadata"]["generation"].as_i64()) {
        return "InProgress";
    }
    let conditions = object["status"]["conditions"].as_array();
    let status = |type_: &str| {
        let mut all = conditions.into_iter().flatten();
        all.find(|condition| condition["type"] == type_).and_then(|condition| condition["status"].as_str())
    };
    if status("Reconciling") == Some("True") {
        return "InProgress";
    }
    if status("Stalled") == Some("True") {
        return "Failed";
    }
    match status("Ready") {
        // An object without conditions counts as applied.
        None | Some("True") => "Current",
        Some(_) => "InProgress",
    }
}

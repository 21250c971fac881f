//! What counts as an item of a part, and which parts concern tunnels.

use serde_json::{Value, json};

use super::*;

fn map(count: usize, value: &Value) -> Value {
    (0..count).map(|at| (format!("ns/f/{at}"), value.clone())).collect()
}

fn list(count: usize) -> Value {
    (0..count).map(|at| format!("ns/f/{at}")).collect()
}

#[test]
fn a_part_has_an_item_for_each_thing_that_it_names_and_one_more_for_16_addresses() {
    let set = json!({"addresses": vec!["192.0.2.1:1"; 33]});
    let part = json!({
        "upserts": map(2, &json!({"revision": "r", "newer": true})), "removals": list(2),
        "endpoints": map(3, &set), "endpointRemovals": list(3),
        "agents": map(2, &json!({"namespace": "ns", "name": "a", "maxInstances": 1})), "agentRemovals": list(5),
        "peers": map(3, &json!("192.0.2.1")), "peerRemovals": list(2),
        "sidecars": map(3, &json!({"address": "192.0.2.1", "agents": []})), "sidecarRemovals": list(5),
    });
    let part: Change = serde_json::from_value(part).expect("a part");
    assert_eq!(part.items(), (2 + 2) + (3 + 3 * 2 + 3) + (2 + 5) + (3 + 2) + (3 + 5));
    assert_eq!(Change::default().items(), 0);
}

#[test]
fn agents_other_proxies_and_sidecars_concern_tunnels_and_listeners_do_not() {
    let agent = json!({"namespace": "ns", "name": "a", "maxInstances": 1});
    let sidecar = json!({"address": "192.0.2.1", "agents": []});
    for (field, named, expected) in [
        ("upserts", map(1, &json!({"revision": "r", "newer": true})), false),
        ("endpoints", map(1, &json!({"addresses": []})), false),
        ("agents", map(1, &agent), true),
        ("agentRemovals", list(1), true),
        ("peers", map(1, &json!("192.0.2.1")), true),
        ("peerRemovals", list(1), true),
        ("sidecars", map(1, &sidecar), true),
        ("sidecarRemovals", list(1), true),
    ] {
        let part: Change = serde_json::from_value(json!({ field: named })).expect("a part");
        assert_eq!(part.names_tunnels(), expected, "{field}");
    }
}

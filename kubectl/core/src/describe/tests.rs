//! What the steps say of a forward that is not as it should be.

use serde_json::{Value, json};

use super::*;
use crate::access::{Place, Unknown};

/// What is known of a forward to a gateway with this status.
fn facts(is_suspended: bool, status: &Value) -> Facts {
    let listener = json!({"name": "pg", "protocol": "TCP", "port": 5432, "backends": []});
    let forward = json!({
        "metadata": {"name": "db", "namespace": "shop", "generation": 1},
        "spec": {"suspend": is_suspended, "placement": {"gateway": {"name": "edge"}}, "listeners": [listener]},
        "status": status,
    });
    Facts {
        now: Timestamp::from_second(0).expect("a time"),
        forward: serde_json::from_value(forward).expect("a forward"),
        gateway: None,
        services: BTreeMap::new(),
        slices: BTreeMap::new(),
        agents: BTreeMap::new(),
        pods: Ok(Listed::default()),
        events: Ok(Listed::default()),
    }
}

/// A status of the generation of the forward with this condition.
fn with_condition(type_: &str, status: &str, reason: &str) -> Value {
    let condition =
        json!({"type": type_, "status": status, "reason": reason, "message": "m", "lastTransitionTime": ""});
    json!({"observedGeneration": 1, "conditions": [condition]})
}

#[test]
fn a_spec_that_is_refused_is_a_fault_of_the_object_and_nothing_of_it_is_claimed() {
    let first = |reason: &str| {
        let steps = report(&facts(false, &with_condition("Accepted", "False", reason))).steps;
        steps.into_iter().take(2).map(|step| (step.check.outcome, step.check.detail)).collect::<Vec<_>>()
    };
    let said = |outcome, detail: &str| (outcome, detail.to_owned());
    let nothing = "nothing is claimed: see object";
    assert_eq!(first("Invalid"), [said(Outcome::Failed, "Invalid: m"), said(Outcome::Warning, nothing)]);
    let valid = "the operator has read generation 1, and the spec is valid";
    assert_eq!(first("PortConflict"), [said(Outcome::Ok, valid), said(Outcome::Failed, "PortConflict: m")]);
}

#[test]
fn a_forward_that_is_suspended_keeps_its_ports_and_deserves_attention() {
    let object = |is_suspended| {
        let steps = report(&facts(is_suspended, &with_condition("Accepted", "True", "Accepted"))).steps;
        steps.into_iter().next().map(|step| (step.check.outcome, step.check.detail.contains("the ports stay claimed")))
    };
    assert_eq!([true, false].map(object), [Some((Outcome::Warning, true)), Some((Outcome::Ok, false))]);
}

#[test]
fn rejections_that_status_counts_and_does_not_name_are_counted() {
    let more = |count: u32| {
        let rejected = json!([{"pod": "edge-1", "listener": "pg", "reason": "taken"}]);
        let plane = json!({"acked": 1, "total": 3, "summary": "1/3", "rejectedCount": count, "rejected": rejected});
        let items = report(&facts(false, &json!({"dataPlane": plane}))).steps.pop().map(|step| step.items);
        items.into_iter().flatten().find(|item| item.name == "more pods").map(|item| item.detail)
    };
    assert_eq!([1, 4].map(more), [None, Some("reject 3 more listeners".to_owned())]);
}

#[test]
fn sidecars_are_well_only_if_each_pod_has_one() {
    let outcome = |status: &str, reason: &str| {
        let items =
            report(&facts(false, &with_condition("Injected", status, reason))).steps.pop().map(|step| step.items);
        items.into_iter().flatten().find(|item| item.name == "Injected").map(|item| item.outcome)
    };
    assert_eq!(outcome("True", "Injected"), Some(Outcome::Ok));
    assert_eq!(outcome("True", "NoPods"), Some(Outcome::Warning), "it is also true of pods that are missing");
    assert_eq!(outcome("False", "Injected"), Some(Outcome::Warning), "it never affects Ready");
}

#[test]
fn a_service_has_as_many_endpoints_as_are_ready() {
    let detail = |ready: usize, all: usize| {
        let endpoint = |at: usize| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": at < ready}});
        let endpoints: Vec<Value> = (0..all).map(endpoint).collect();
        let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints});
        let (mut facts, key) = (facts(false, &json!({})), ObjectKey::new("shop", "pg"));
        facts.services.insert(key.clone(), Ok(Some(Service::default())));
        facts.slices.insert(key, Ok(Listed::from(vec![serde_json::from_value(slice).expect("a slice")])));
        backends::endpoints(&facts).into_iter().map(|check| check.detail).collect::<String>()
    };
    for (ready, all, expected) in [
        (0, 0, "no pod is behind the Service"),
        (0, 2, "none of 2 endpoints is ready"),
        (1, 1, "1 endpoint is ready"),
        (1, 2, "1 of 2 endpoints are ready"),
        (2, 2, "2 endpoints are ready"),
    ] {
        assert_eq!(detail(ready, all), expected);
    }
}

#[test]
fn twenty_pods_are_named_and_further_ones_are_counted_with_the_worst_of_them() {
    let last = |count: usize| {
        let pod = |at: usize| {
            let pod = json!({"metadata": {"name": format!("p{at}")}, "spec": {"containers": [{"name": "app"}]}});
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let mut facts = facts(false, &json!({}));
        facts.pods = Ok(Listed::from((0..count).map(pod).collect::<Vec<_>>()));
        let named = pods::pods(&facts);
        (named.len(), named.last().map(|check| (check.outcome, check.detail.clone())))
    };
    assert_eq!(last(22), (21, Some((Outcome::Failed, "2 more pods".to_owned()))));
    assert_eq!(last(20), (20, Some((Outcome::Failed, "has no proxy".to_owned()))));
}

#[test]
fn a_gateway_whose_fleet_is_outdated_deserves_attention() {
    let item = |reason: &str| {
        let condition = |type_: &str, reason: &str| with_condition(type_, "True", reason)["conditions"][0].clone();
        let gateway = json!({
            "metadata": {"name": "edge", "namespace": "shop"},
            "spec": {},
            "status": {"conditions": [condition("Ready", "Ready"), condition("Outdated", reason)]},
        });
        let mut facts = facts(false, &json!({}));
        facts.gateway = Some(Ok(Some(serde_json::from_value(gateway).expect("a gateway"))));
        let claims = report(&facts).steps.into_iter().nth(1).map(|step| step.items);
        claims.into_iter().flatten().next().map(|item| (item.outcome, item.detail, item.hint.is_some()))
    };
    let said = |detail: &str, has_hint| Some((Outcome::Warning, detail.to_owned(), has_hint));
    assert_eq!(item("Queued"), said("Queued: m", false), "the message names the fleet that goes first");
    assert_eq!(item("ProgressDeadlineExceeded"), said("ProgressDeadlineExceeded: m", true));
}

#[test]
fn a_listener_without_a_healthy_backend_leads_to_the_agents_that_it_depends_on() {
    let hint = |backends: Value, agent: Fetched<Value>| {
        let listener = json!({"name": "pg", "protocol": "TCP", "port": 5432, "backends": "None"});
        let mut facts = facts(false, &json!({"listeners": [listener]}));
        for listener in &mut facts.forward.spec.listeners {
            listener.backends = serde_json::from_value(backends.clone()).expect("backends");
        }
        let agent = agent.map(|status| {
            let target = json!({"host": "db.lan", "port": 5432});
            let metadata = json!({"name": "home", "namespace": "shop"});
            let object = json!({"metadata": metadata, "spec": {"targets": [target]}, "status": status});
            serde_json::from_value(object).expect("an agent")
        });
        facts.agents.insert(ObjectKey::new("shop", "home"), agent);
        let items = report(&facts).steps.into_iter().find(|step| step.check.name == "endpoints").map(|step| step.items);
        let listener = items.into_iter().flatten().find(|item| item.name == "listener pg");
        listener.and_then(|item| item.hint).unwrap_or_default()
    };
    let tunnel = || json!({"tunnel": {"agent": "home", "host": "db.lan", "port": 5432}});
    let address = || json!({"address": {"host": "192.0.2.1", "port": 5432}});
    let connected = || Ok(json!({"instances": [{"name": "pi4", "version": "0.1.0", "carriers": "1/1"}]}));
    let (agents, servers) =
        ("kubectl -n shop get forwardagents", "does the server listen, and does every NetworkPolicy");
    let away = hint(json!([tunnel()]), Ok(json!({})));
    assert!(away.starts_with("no agent is connected: see ") && away.contains(agents), "{away}");
    assert!(away.contains("the log of portlane agent") && !away.contains(servers), "{away}");
    let reached = hint(json!([tunnel()]), connected());
    assert!(reached.starts_with("is the agent connected to every proxy") && reached.contains(agents), "{reached}");
    let (resource, place) = ("forwardagents.portlane.dev".to_owned(), Place::Namespace("shop".to_owned()));
    let forbidden = Unknown::Forbidden { verb: "get", resource, place };
    assert_eq!(hint(json!([tunnel()]), Err(forbidden)), reached, "it is not known");
    let both = hint(json!([tunnel(), address()]), Ok(json!({})));
    assert!(both.starts_with("no agent is connected") && both.contains(servers), "{both}");
    let direct = hint(json!([address()]), connected());
    assert!(direct.starts_with(servers) && !direct.contains("agent"), "{direct}");
}

//! The status of a gateway, from what is known of its fleet.

use crds::{ForwardAddress, ForwardGateway, ForwardGatewayStatus};
use operator_core::{
    ConditionType, FleetFacts, Truth, gateway_status,
    status::{conditions::Finding, gateway::applied_generation},
};
use serde_json::{Value, json};

fn gateway(spec: &Value) -> ForwardGateway {
    let metadata = json!({"name": "edge", "namespace": "ns", "generation": 4});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway")
}

/// A fleet in which everything is as it should be.
fn good() -> FleetFacts {
    FleetFacts {
        applied: true,
        replicas: 2,
        ready: 1,
        attached: 3,
        selector: "portlane.dev/gateway=edge".to_owned(),
        ..FleetFacts::default()
    }
}

fn status(spec: &Value, facts: &FleetFacts) -> ForwardGatewayStatus {
    gateway_status(&gateway(spec), facts, "2026-01-01T00:00:00Z")
}

/// Type, status and reason of every condition.
fn conditions_of(spec: &Value, facts: &FleetFacts) -> Vec<String> {
    let conditions = status(spec, facts).conditions;
    conditions.iter().map(|it| format!("{} {} {}", it.type_, it.status, it.reason)).collect()
}

#[test]
fn a_fleet_that_runs_is_ready() {
    let facts = good();
    assert_eq!(
        conditions_of(&json!({}), &facts),
        ["Accepted True Accepted", "Programmed True Programmed", "Ready True Ready"]
    );
    let status = status(&json!({}), &facts);
    assert_eq!((status.observed_generation, status.replicas, status.attached_forwards), (Some(4), Some(2), Some(3)));
    assert_eq!(status.selector.as_deref(), Some("portlane.dev/gateway=edge"));
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(4)));
}

#[test]
fn a_warning_is_in_the_message_of_accepted_and_changes_no_condition() {
    let facts = FleetFacts { warning: Some("old CRD".to_owned()), ..good() };
    assert_eq!(conditions_of(&json!({}), &facts), conditions_of(&json!({}), &good()));
    let conditions = status(&json!({}), &facts).conditions;
    assert_eq!(conditions[0].message, "the spec is valid; warning: old CRD");
}

#[test]
fn a_spec_that_cannot_be_followed_is_stalled() {
    let refused = Some(("Unsupported".to_owned(), "why".to_owned()));
    let facts = FleetFacts { refused, ..good() };
    let expected = [
        "Accepted False Unsupported",
        "Programmed False NotAccepted",
        "Ready False Unsupported",
        "Stalled True Unsupported",
    ];
    assert_eq!(conditions_of(&json!({}), &facts), expected);
}

#[test]
fn children_that_cannot_be_applied_are_stalled() {
    let facts = FleetFacts { children: Some("forbidden".to_owned()), applied: false, ..good() };
    let expected = [
        "Accepted True Accepted",
        "Programmed False ChildrenFailed",
        "Ready False ChildrenFailed",
        "Stalled True ChildrenFailed",
    ];
    assert_eq!(conditions_of(&json!({}), &facts), expected);
    assert_eq!(status(&json!({}), &facts).conditions[1].message, "forbidden");
}

#[test]
fn children_that_are_being_applied_are_reconciling() {
    let facts = FleetFacts { applied: false, ..good() };
    let expected =
        ["Accepted True Accepted", "Programmed Unknown Pending", "Ready Unknown Pending", "Reconciling True Pending"];
    assert_eq!(conditions_of(&json!({}), &facts), expected);
}

#[test]
fn a_fleet_without_a_ready_proxy_is_reconciling() {
    let facts = FleetFacts { ready: 0, ..good() };
    assert_eq!(
        conditions_of(&json!({}), &facts)[1..],
        ["Programmed Unknown NoProxies", "Ready Unknown NoProxies", "Reconciling True NoProxies"]
    );
}

#[test]
fn a_fleet_without_a_ready_proxy_says_which_secret_and_config_map_its_pods_wait_for() {
    let facts = FleetFacts { ready: 0, ..good() };
    let message = |spec: &Value| status(spec, &facts).conditions[1].message.clone();
    let stream = json!({"url": "tls://nats", "credentialsRef": {"name": "creds"}, "caRef": {"name": "roots"}});
    let both = message(&json!({"jetStream": stream}));
    let files = "has Secret creds with the key creds and ConfigMap roots with the key ca.crt";
    assert!(both.ends_with(files), "{both}");
    for plain in [json!({}), json!({"jetStream": {"url": "nats://nats"}})] {
        assert!(message(&plain).ends_with("see the workload of the gateway and its pods"), "{plain}");
    }
}

#[test]
fn a_fleet_of_no_proxies_is_not_ready_and_waits_for_nothing() {
    let facts = FleetFacts { ready: 0, replicas: 0, ..good() };
    let none = conditions_of(&json!({"replicas": 0}), &facts);
    assert_eq!(none[1..], ["Programmed False ScaledToZero", "Ready False ScaledToZero"]);
    let autoscaling = json!({"replicas": 0, "autoscaling": {"maxReplicas": 5, "targetConnectionsPerPod": 9}});
    assert_eq!(
        conditions_of(&autoscaling, &facts)[1],
        "Programmed Unknown NoProxies",
        "an autoscaler has at least one"
    );
    assert_eq!(conditions_of(&json!({"replicas": 1}), &good())[1], "Programmed True Programmed");
}

#[test]
fn a_load_balancer_with_forwards_waits_for_its_address() {
    let balancer = json!({"service": {"type": "LoadBalancer"}});
    assert_eq!(conditions_of(&balancer, &good())[1], "Programmed Unknown AddressNotAssigned");
    assert_eq!(conditions_of(&json!({"service": {"type": "NodePort"}}), &good())[1], "Programmed True Programmed");
    let empty = FleetFacts { attached: 0, ..good() };
    assert_eq!(conditions_of(&balancer, &empty)[1], "Programmed True Programmed", "it has no port to be reached at");
    let addresses = vec![ForwardAddress { type_: "IPAddress".to_owned(), value: "192.0.2.1".to_owned() }];
    let given = FleetFacts { addresses: addresses.clone(), ..good() };
    assert_eq!(conditions_of(&balancer, &given)[1], "Programmed True Programmed");
    assert_eq!(status(&balancer, &given).addresses, addresses);
}

#[test]
fn scaling_stands_beside_ready_and_never_enters_it() {
    let scaling = Some(Finding::new(
        operator_core::ConditionType::ScalingActive,
        operator_core::Truth::False,
        "TargetTaken",
        "m",
    ));
    let facts = FleetFacts { scaling, ..good() };
    assert_eq!(conditions_of(&json!({}), &facts)[2..], ["Ready True Ready", "ScalingActive False TargetTaken"]);
}

#[test]
fn a_status_says_for_which_generation_the_children_are_applied() {
    let applied = |spec: &Value, facts: &FleetFacts| {
        let mut gateway = gateway(spec);
        gateway.status = Some(status(spec, facts));
        gateway.metadata.generation = Some(9);
        applied_generation(&gateway)
    };
    let failed = FleetFacts { children: Some("forbidden".to_owned()), ..good() };
    let refused = FleetFacts { refused: Some(("Unsupported".to_owned(), "why".to_owned())), ..good() };
    assert_eq!(applied(&json!({}), &good()), Some(4));
    assert_eq!(applied(&json!({}), &FleetFacts { ready: 0, ..good() }), Some(4));
    assert_eq!(applied(&json!({"replicas": 0}), &good()), Some(4));
    assert_eq!(applied(&json!({"service": {"type": "LoadBalancer"}}), &good()), Some(4));
    for other in [failed, refused, FleetFacts { applied: false, ..good() }] {
        assert_eq!(applied(&json!({}), &other), None);
    }
    assert_eq!(applied_generation(&gateway(&json!({}))), None, "there is no status yet");
}

#[test]
fn the_time_of_a_condition_moves_with_its_status_alone() {
    let mut gateway = gateway(&json!({}));
    gateway.status = Some(gateway_status(&gateway, &FleetFacts { applied: false, ..good() }, "first"));
    let next = gateway_status(&gateway, &FleetFacts { ready: 0, ..good() }, "second");
    assert!(next.conditions.iter().all(|condition| condition.last_transition_time == "first"), "reasons are others");
    gateway.status = Some(next);
    let times = |status: &ForwardGatewayStatus| -> Vec<String> {
        status.conditions.iter().map(|condition| condition.last_transition_time.clone()).collect()
    };
    assert_eq!(times(&gateway_status(&gateway, &good(), "third")), ["first", "third", "third"]);
}

#[test]
fn claims_that_are_drained_are_counted_while_there_are_any() {
    let of = |draining: u32| status(&json!({}), &FleetFacts { draining, ..good() });
    assert_eq!((of(0).draining_claims, of(2).draining_claims), (None, Some(2)));
    assert_eq!(of(0).conditions, of(2).conditions, "the fleet is ready");
}

#[test]
fn claims_that_are_drained_are_a_condition_that_leaves_the_gateway_ready() {
    let drained = Some(Finding::new(ConditionType::ClaimsDrained, Truth::False, "DrainFailed", "why"));
    let conditions = status(&json!({}), &FleetFacts { drained, ..good() }).conditions;
    let of = |type_: &str| {
        let found = conditions.iter().find(|condition| condition.type_ == type_).expect("a condition");
        (found.status.as_str(), found.reason.as_str())
    };
    assert_eq!((of("ClaimsDrained"), of("Ready")), (("False", "DrainFailed"), ("True", "Ready")));
}

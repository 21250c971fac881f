//! Gateways with `spec.durability`: pods that do not get their claims, and rollouts that make no progress.

use operator_core::{
    desired::revision::revision,
    schedule::StatusWrite,
    world::{
        objects::{ClaimState, FleetState, Hold, Object, PodInfo, Progress},
        watched::Kind,
    },
};
use serde_json::{Value, json};

use super::{Desk, fleets};
use crate::scene::{condition_of, events, fleet_pod, gateway, key, pair, writes};

/// A gateway with this claim, whose children were applied after a second.
fn desk(claim: &Value) -> Desk {
    desk_of(&json!({"durability": {"volumeClaim": claim}}))
}

/// The same for a gateway with this spec.
fn desk_of(spec: &Value) -> Desk {
    let mut desk = Desk::new();
    desk.see(gateway(spec));
    let effects = desk.at(1000);
    desk.succeed(&effects, 1000);
    let effects = desk.at(1000);
    desk.show(&effects);
    desk
}

/// A pod of the fleet that is not ready.
fn held(name: &str, hold: Hold) -> Object {
    Object::ProxyPod(key(name), PodInfo { hold, ..fleet_pod(name, false) })
}

fn unschedulable(name: &str) -> Object {
    held(name, Hold::Unschedulable("pod has unbound immediate PersistentVolumeClaims".to_owned()))
}

/// The status that is written at this time. The watch shows it.
fn written(desk: &mut Desk, millis: u64) -> StatusWrite {
    let effects = desk.at(millis);
    desk.show(&effects);
    let [write]: [StatusWrite; 1] = writes(&effects).try_into().expect("one status is written");
    write
}

fn message_of(write: &StatusWrite, type_: &str) -> String {
    let conditions = write.status["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|condition| condition["type"] == type_).expect("the condition");
    found["message"].as_str().expect("a message").to_owned()
}

#[test]
fn a_pod_that_no_node_can_run_is_named_with_its_claim_and_the_remedy() {
    let mut desk = desk(&json!({"size": "1Gi", "storageClassName": "fast"}));
    for name in ["edge-0", "edge-1"] {
        desk.see(unschedulable(name));
    }
    let write = written(&mut desk, 3000);
    assert_eq!(condition_of(&write, "ClaimsMounted"), pair("False", "PodUnschedulable"));
    let message = message_of(&write, "ClaimsMounted");
    let start = "messages-edge-0, messages-edge-1: no node can run pod edge-0 (pod has unbound immediate \
                 PersistentVolumeClaims)";
    assert!(message.starts_with(start), "{message}");
    assert!(message.contains("kubectl describe pod/edge-0 pvc/messages-edge-0"), "{message}");
    assert!(message.contains("if StorageClass fast is missing, create it"), "{message}");
    assert_eq!(condition_of(&write, "Ready"), pair("Unknown", "NoProxies"));
    assert!(message_of(&write, "Ready").contains(&message), "the column of kubectl get shows why");
    for name in ["edge-0", "edge-1"] {
        desk.see(Object::ProxyPod(key(name), fleet_pod(name, true)));
    }
    assert_eq!(condition_of(&written(&mut desk, 5000), "ClaimsMounted"), pair("", ""));
}

#[test]
fn four_claims_are_named_and_without_a_class_it_is_the_default_that_may_be_missing() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    for ordinal in 0..6 {
        desk.see(unschedulable(&format!("edge-{ordinal}")));
    }
    let message = message_of(&written(&mut desk, 3000), "ClaimsMounted");
    let start =
        "messages-edge-0, messages-edge-1, messages-edge-2, messages-edge-3 and 2 more: no node can run pod edge-0";
    assert!(message.starts_with(start) && message.contains("if a default StorageClass is missing"), "{message}");
}

#[test]
fn a_pod_that_its_node_does_not_start_is_told_after_two_minutes() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(held("edge-0", Hold::Unprepared));
    assert!(desk.at(3000).is_empty(), "the node has just got it");
    assert!(desk.at(122_999).is_empty());
    let write = written(&mut desk, 123_000);
    assert_eq!(condition_of(&write, "ClaimsMounted"), pair("False", "PodNotStarted"));
    let message = message_of(&write, "ClaimsMounted");
    assert!(message.starts_with("messages-edge-0: the node has not started pod edge-0 for two minutes"), "{message}");
    // The next pod of the name gets its own two minutes.
    let gone = desk.scene.gone(Kind::ProxyPods, "edge-0").touched;
    gone.gateways.iter().for_each(|key| desk.gateways.touch(key));
    let later = PodInfo { uid: "later".to_owned(), hold: Hold::Unprepared, ..fleet_pod("edge-0", false) };
    desk.see(Object::ProxyPod(key("edge-0"), later));
    assert_eq!(condition_of(&written(&mut desk, 125_000), "ClaimsMounted"), pair("", ""));
    assert!(desk.at(244_999).is_empty());
    assert_eq!(condition_of(&written(&mut desk, 245_000), "ClaimsMounted"), pair("False", "PodNotStarted"));
}

#[test]
fn a_pod_that_is_not_started_may_wait_for_the_files_of_nats_servers() {
    let stream = json!({"url": "nats://n", "credentialsRef": {"name": "nats"}});
    let mut desk = desk_of(&json!({"durability": {"volumeClaim": {"size": "1Gi"}}, "jetStream": stream}));
    desk.see(held("edge-0", Hold::Unprepared));
    assert!(desk.at(3000).is_empty(), "the node has just got it");
    let message = message_of(&written(&mut desk, 123_000), "ClaimsMounted");
    assert!(message.contains("because the namespace lacks Secret nats with the key creds, or the node"), "{message}");
}

#[test]
fn a_gateway_without_claims_tells_of_none() {
    let mut desk = Desk::applied_at(1000);
    desk.see(unschedulable("edge-0"));
    assert!(desk.at(3000).is_empty());
}

/// The fleet during a rollout, with this many new and ready pods of three.
fn rolling(desk: &Desk, updated: i32, ready: i32, is_observed: bool) -> Object {
    let gateway = desk.scene.cache.gateway(&key("edge")).expect("the gateway");
    let state = FleetState {
        uid: "fleet".to_owned(),
        replicas: 3,
        ready,
        updated: Some(updated),
        wanted: 3,
        generation: Some(2),
        is_observed,
        revision: revision(&gateway, &fleets()),
        rollout: Progress::Running,
        ..FleetState::default()
    };
    Object::StatefulSet(key("edge"), state)
}

#[test]
fn a_rollout_on_claims_that_does_not_get_on_for_ten_minutes_has_stopped() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(rolling(&desk, 1, 2, true));
    written(&mut desk, 3000);
    let again = desk.at(601_000);
    desk.succeed(&again, 601_000);
    assert!(desk.at(602_999).is_empty());
    let effects = desk.at(603_000);
    let told = events(&effects);
    assert_eq!((told.len(), told[0].reason.as_str()), (1, "ProgressDeadlineExceeded"));
    assert_eq!(condition_of(&writes(&effects)[0], "Outdated"), pair("True", "ProgressDeadlineExceeded"));
    desk.show(&effects);
    // The pod is ready after all, and its predecessor is next.
    desk.see(rolling(&desk, 1, 3, true));
    let write = written(&mut desk, 605_000);
    assert_eq!(condition_of(&write, "Outdated"), pair("", ""));
    assert!(events(&desk.at(1_204_999)).is_empty());
    assert_eq!(events(&desk.at(1_205_000)).len(), 1, "and it hangs once more");
}

#[test]
fn a_rollout_that_the_controller_has_not_seen_yet_has_not_stopped() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(rolling(&desk, 1, 2, false));
    for millis in [3000, 603_000, 1_203_000] {
        assert!(events(&desk.at(millis)).is_empty());
    }
}

/// A pod of the fleet that has an hour to end.
fn draining(name: &str) -> Object {
    Object::ProxyPod(key(name), PodInfo { leaving: true, grace: 3600, ..fleet_pod(name, false) })
}

#[test]
fn a_rollout_on_claims_waits_for_a_pod_that_drains_and_has_ten_minutes_once_it_is_gone() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(Object::ProxyPod(key("edge-1"), fleet_pod("edge-1", true)));
    desk.see(draining("edge-2"));
    desk.see(rolling(&desk, 0, 2, true));
    let told = |desk: &mut Desk, millis: u64| events(&desk.at(millis)).len();
    assert_eq!([3000, 603_000, 3_000_000].map(|millis| told(&mut desk, millis)), [0; 3], "it drains");
    desk.scene.gone(Kind::ProxyPods, "edge-2");
    assert_eq!([3_001_000, 3_600_999, 3_601_000].map(|millis| told(&mut desk, millis)), [0, 0, 1], "no pod came");
}

#[test]
fn a_pod_that_is_there_beyond_its_grace_period_stops_a_rollout_on_claims() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(draining("edge-2"));
    desk.see(rolling(&desk, 0, 2, true));
    let told = |desk: &mut Desk, millis: u64| events(&desk.at(millis)).len();
    assert_eq!([3000, 3_662_999, 3_663_000].map(|millis| told(&mut desk, millis)), [0, 0, 1]);
}

#[test]
fn a_pod_that_is_late_is_told_at_once_also_if_its_gateway_changes_at_that_moment() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(held("edge-0", Hold::Unprepared));
    assert!(desk.at(3000).is_empty(), "the node has just got it");
    desk.gateways.touch(&key("edge"));
    assert_eq!(condition_of(&written(&mut desk, 123_000), "ClaimsMounted"), pair("False", "PodNotStarted"));
}

#[test]
fn the_status_has_the_claims_without_pods_and_warns_of_fields_that_the_api_server_drops() {
    let mut desk = desk(&json!({"size": "1Gi"}));
    desk.see(rolling(&desk, 3, 3, true));
    for ordinal in 2..5 {
        let (gateway, name) = ("edge".to_owned(), format!("messages-edge-{ordinal}"));
        desk.see(Object::Claim(key(&name), ClaimState { gateway, ordinal, ..ClaimState::default() }));
    }
    desk.scene.cache.world.dropped = [("ForwardGateway".to_owned(), vec!["spec.tunnels".to_owned()])].into();
    let write = written(&mut desk, 3000);
    assert_eq!(write.status["drainingClaims"], 2, "the fleet has the pods 0 to 2");
    assert_eq!(condition_of(&write, "ClaimsDrained"), pair("False", "Draining"));
    assert!(message_of(&write, "Accepted").contains("spec.tunnels"));
}

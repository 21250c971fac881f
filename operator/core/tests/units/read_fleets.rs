//! What is read of a gateway's Deployment or `StatefulSet`, its claims and its drainers.

use operator_core::world::{
    objects::{ClaimState, Drain, DrainerState, FleetState, Hold, Object, Progress, Revision, Stage},
    read,
};
use serde_json::{Value, json};

fn fleet(deployment: Value) -> FleetState {
    let deployment = serde_json::from_value(deployment).expect("a Deployment");
    let Object::Deployment(_, state) = read::deployment(&deployment) else { panic!("a Deployment") };
    state
}

/// The progress of a rollout of three replicas in the second generation.
fn rollout(status: &Value) -> Progress {
    let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}});
    let spec = json!({"replicas": 3, "selector": {}, "template": pod});
    fleet(json!({"metadata": {"name": "edge", "namespace": "ns", "generation": 2}, "spec": spec, "status": status}))
        .rollout
}

#[test]
fn a_rollout_is_complete_once_every_pod_is_new_and_ready() {
    let at = |generation: i64, replicas: i32, updated: i32, ready: i32| {
        rollout(&json!({
            "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready,
        }))
    };
    assert_eq!(at(2, 3, 3, 3), Progress::Complete);
    assert_eq!(at(2, 3, 3, 2), Progress::Unready);
    assert_eq!(at(2, 4, 3, 4), Progress::Running, "an old pod is left");
    assert_eq!(at(2, 3, 2, 3), Progress::Running);
    assert_eq!(at(2, 2, 2, 2), Progress::Unready, "no old pod is left: the fleet is scaling up");
    assert_eq!(at(1, 3, 3, 3), Progress::Running, "the controller has not seen the change yet");
    assert_eq!(rollout(&json!({})), Progress::Running);
}

#[test]
fn a_rollout_beyond_its_progress_deadline_has_stopped() {
    let of = |generation: i64, status: &str| {
        let condition = json!({"type": "Progressing", "status": status, "reason": "ProgressDeadlineExceeded"});
        let other = json!({"type": "Available", "status": "False"});
        rollout(&json!({
            "observedGeneration": generation, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3,
            "conditions": [other, condition],
        }))
    };
    assert_eq!((of(2, "False"), of(2, "True")), (Progress::Stopped, Progress::Running));
    assert_eq!(of(1, "False"), Progress::Running, "of the generation before");
}

#[test]
fn a_rollout_of_a_paused_deployment_has_stopped() {
    let of = |updated: i32| {
        let spec = json!({"replicas": 3, "paused": true, "selector": {}, "template": {}});
        let status = json!({"replicas": 3, "updatedReplicas": updated, "readyReplicas": 3});
        fleet(json!({"metadata": {"name": "edge"}, "spec": spec, "status": status})).rollout
    };
    assert_eq!((of(0), of(3)), (Progress::Stopped, Progress::Complete), "a paused fleet with new pods holds up none");
}

#[test]
fn a_deployment_says_which_image_it_has_and_what_its_pods_are_made_of() {
    let annotations = json!({"portlane.dev/installation-revision": "i", "portlane.dev/gateway-revision": "g"});
    let containers = json!([{"name": "other", "image": "other:1"}, {"name": "proxy", "image": "proxy:1"}]);
    let spec = json!({"selector": {}, "template": {"metadata": {}, "spec": {"containers": containers}}});
    let state = fleet(json!({"metadata": {"name": "edge", "annotations": annotations}, "spec": spec}));
    let revision = Revision { installation: "i".to_owned(), gateway: "g".to_owned() };
    assert_eq!((state.image.as_str(), state.revision), ("proxy:1", revision));
}

#[test]
fn a_stateful_set_says_how_far_it_is_and_how_many_pods_it_should_have() {
    let at = |generation: i64, replicas: i32, updated: i32, ready: i32| {
        let annotations = json!({"portlane.dev/installation-revision": "i", "portlane.dev/gateway-revision": "g"});
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}});
        let set = json!({
            "metadata": {
                "name": "edge", "namespace": "ns", "uid": "f", "generation": 2, "annotations": annotations,
                "ownerReferences": [{"apiVersion": "v1", "kind": "ForwardGateway", "name": "edge", "uid": "g"}],
            },
            "spec": {
                "replicas": 3, "ordinals": {"start": 2}, "selector": {}, "serviceName": "edge", "template": pod,
            },
            "status": {
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated,
                "readyReplicas": ready,
            },
        });
        let set = serde_json::from_value(set).expect("a StatefulSet");
        let Object::StatefulSet(_, state) = read::stateful_set(&set) else { panic!("a StatefulSet") };
        state
    };
    let done = at(2, 3, 3, 3);
    assert_eq!((done.replicas, done.ready, done.wanted, done.generation), (3, 3, 3, Some(2)));
    assert_eq!((done.uid.as_str(), done.first, done.owners.as_slice()), ("f", 2, ["g".to_owned()].as_slice()));
    assert_eq!((done.image.as_str(), done.revision.gateway.as_str()), ("proxy:1", "g"));
    assert_eq!((done.is_observed, done.rollout), (true, Progress::Complete));
    assert_eq!(at(2, 3, 2, 3).rollout, Progress::Running);
    assert_eq!(at(2, 3, 3, 2).rollout, Progress::Unready);
    assert_eq!(at(2, 2, 2, 2).rollout, Progress::Unready, "the fleet is scaling up");
    let old = at(1, 3, 3, 3);
    assert_eq!((old.is_observed, old.rollout), (false, Progress::Running));
    assert_eq!((at(2, 3, 2, 3).updated, fleet(json!({"metadata": {"name": "edge"}})).updated), (Some(2), None));
}

#[test]
fn a_stateful_set_whose_last_new_pod_is_not_ready_is_within_its_rollout() {
    let of = |current: &str| {
        let set = json!({
            "metadata": {"name": "edge", "namespace": "ns"},
            "spec": {"replicas": 1, "selector": {}, "serviceName": "edge", "template": {}},
            "status": {
                "replicas": 1, "updatedReplicas": 1, "readyReplicas": 0, "currentRevision": current,
                "updateRevision": "edge-2",
            },
        });
        let set = serde_json::from_value(set).expect("a StatefulSet");
        let Object::StatefulSet(_, state) = read::stateful_set(&set) else { panic!("a StatefulSet") };
        state.rollout
    };
    assert_eq!((of("edge-1"), of("edge-2")), (Progress::Running, Progress::Unready));
}

#[test]
fn a_pod_of_a_fleet_says_what_keeps_it_from_being_started() {
    let hold = |labels: Value, conditions: Value| {
        let pod = json!({
            "metadata": {"name": "edge-0", "namespace": "ns", "labels": labels},
            "status": {"conditions": conditions},
        });
        let pod = serde_json::from_value(pod).expect("a Pod");
        let Object::ProxyPod(_, info) = read::proxy_pod(&pod) else { panic!("a pod with a proxy") };
        info.hold
    };
    let of = |conditions: Value| hold(json!({"portlane.dev/gateway": "edge"}), conditions);
    let refused = |message: &str| json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
    let ready_to_start = |status: &str| {
        json!([
            {"type": "PodScheduled", "status": "True"}, {"type": "PodReadyToStartContainers", "status": status},
        ])
    };
    assert_eq!(of(Value::Null), Hold::None);
    assert_eq!(of(refused("no volume")), Hold::Unschedulable("no volume".to_owned()));
    let Hold::Unschedulable(words) = of(refused(&"long ".repeat(1000))) else { panic!("no node can run it") };
    assert_eq!(words.len(), 512, "a status stays small");
    assert_eq!((of(ready_to_start("False")), of(ready_to_start("True"))), (Hold::Unprepared, Hold::None));
    assert_eq!(hold(json!({"portlane.dev/drains": "edge"}), refused("no volume")), Hold::None);
}

#[test]
fn a_claim_and_its_drainer_say_which_pod_of_which_gateway_they_are_of() {
    let claim = |name: &str| {
        let metadata = json!({
            "name": name, "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "labels": {"portlane.dev/gateway": "edge-a"},
        });
        let object = json!({"apiVersion": "v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        let object = serde_json::from_value(object).expect("metadata");
        let Object::Claim(_, state) = read::claim(&object) else { panic!("a claim") };
        state
    };
    let (uid, version) = ("u".to_owned(), "7".to_owned());
    let expected = ClaimState { gateway: "edge-a".to_owned(), ordinal: 12, uid, version, leaving: false };
    assert_eq!(claim("messages-edge-a-12"), expected);
    for foreign in ["data-edge-a-12", "messages-edge-a-012", "messages-edge-a--12", "messages-edge-a-b-12"] {
        assert!(claim(foreign).ordinal < 0, "{foreign} is a claim of somebody else");
    }
    assert!(claim("messages-edge-a-2147483648").ordinal < 0, "no pod has this ordinal");
    let drainer = |status: Value| {
        let metadata = json!({
            "name": "edge-a-drain-12", "namespace": "ns", "uid": "j", "labels": {"portlane.dev/drains": "edge-a"},
            "annotations": {"portlane.dev/drained-for": "c.f.4"},
        });
        let job = serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("a Job");
        let Object::Drainer(_, state) = read::drainer(&job) else { panic!("a drainer") };
        state
    };
    let running = DrainerState {
        gateway: "edge-a".to_owned(),
        ordinal: 12,
        uid: "j".to_owned(),
        drained_for: "c.f.4".to_owned(),
        stage: Stage::Begun,
        leaving: false,
    };
    assert_eq!(drainer(json!({"active": 1})), running);
    let start = "2026-01-01T00:00:00Z";
    assert_eq!(drainer(json!({"startTime": start, "active": 1})), running);
    assert_eq!(drainer(json!({"startTime": start, "active": 0, "terminating": 1})), running, "its pod has a successor");
    assert_eq!(drainer(json!({"startTime": start, "succeeded": 1})), running, "about to be complete");
    assert_eq!(drainer(json!({"startTime": start})), DrainerState { stage: Stage::LacksPod, ..running.clone() });
    let ended = |kind: &str| drainer(json!({"startTime": start, "conditions": [{"type": kind, "status": "True"}]}));
    assert_eq!(ended("Failed"), DrainerState { stage: Stage::GivenUp, ..running.clone() });
    assert_eq!(ended("Complete"), DrainerState { stage: Stage::Succeeded, ..running });
}

#[test]
fn a_pod_says_how_its_drainer_gets_on() {
    let drain = |labels: Value, status: Value| {
        let pod =
            json!({"metadata": {"name": "edge-drain-1-x", "namespace": "ns", "labels": labels}, "status": status});
        let pod = serde_json::from_value(pod).expect("a Pod");
        let Object::ProxyPod(_, info) = read::proxy_pod(&pod) else { panic!("a pod with a proxy") };
        info.drain
    };
    let of = |status: Value| drain(json!({"portlane.dev/drains": "edge"}), status);
    let container = |state: Value, last: Value| {
        let container = json!({
            "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": state, "lastState": last,
        });
        json!({"containerStatuses": [container]})
    };
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    let scheduled = |value: &str, reason: Value| {
        let condition = json!({"type": "PodScheduled", "status": value, "reason": reason});
        json!({"conditions": [condition]})
    };
    assert_eq!(of(json!({})), Drain::Runs);
    assert_eq!(of(scheduled("True", Value::Null)), Drain::Runs);
    assert_eq!(of(scheduled("False", json!("Unschedulable"))), Drain::Unschedulable);
    assert_eq!(of(container(json!({"running": {}}), json!({}))), Drain::Runs);
    assert_eq!(of(container(ended(0), json!({}))), Drain::Runs);
    assert_eq!(of(container(ended(1), json!({}))), Drain::Failed);
    let mut evicted = container(ended(137), json!({}));
    evicted["phase"] = json!("Failed");
    assert_eq!(of(evicted), Drain::Runs, "the Job makes another pod");
    let waits = |reason: &str| container(json!({"waiting": {"reason": reason}}), json!({}));
    assert_eq!(of(waits("ContainerCreating")), Drain::Runs);
    assert_eq!(of(waits("ImagePullBackOff")), Drain::Unschedulable);
    let again = container(json!({"running": {}}), ended(1));
    assert_eq!(of(again.clone()), Drain::Failed, "it is tried again");
    assert_eq!(drain(json!({"portlane.dev/gateway": "edge"}), again), Drain::Runs, "a pod that serves drains nothing");
}

//! What the Deployment of a gateway says of its fleet.

use operator_core::world::{
    objects::{FleetState, Object, Progress, Revision},
    read,
};
use serde_json::{Value, json};

fn fleet(deployment: Value) -> FleetState {
    let deployment = serde_json::from_value(deployment).expect("a Deployment");
    let Object::Deployment(_, state) = read::deployment(&deployment) else { panic!("a Deployment") };
    state
}

/// How far a rollout of three replicas in the second generation is.
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

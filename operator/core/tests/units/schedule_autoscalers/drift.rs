//! Autoscalers that another client changed or deleted, and writes of their status, which are no such change.

use operator_core::{
    Touched,
    schedule::autoscalers::{Autoscalers, Scaled},
    world::{
        objects::{AutoscalerState, Object},
        read,
        watched::{Kind, Seen},
    },
};
use serde_json::{Value, json};

use super::{Did, is_silent, scaling, shown, tick};
use crate::scene::{Scene, forward, keys, mark, ms, scaler};

/// Name of the autoscaler of the forward `web`.
const NAME: &str = "portforward-web";

/// The forward `web`, which scales a workload.
struct Desk {
    scene: Scene,
    autoscalers: Autoscalers,
}

impl Desk {
    /// With an autoscaler that was applied at 1 s, before the watch shows it.
    fn fresh() -> Self {
        let mut desk = Self { scene: Scene::new(), autoscalers: Autoscalers::default() };
        desk.scene.see(forward(scaling("web", "Deployment", "shop")));
        assert!(!desk.repairs_at(1000), "it is new");
        desk
    }

    /// The same autoscaler once the watch shows it.
    fn settled() -> Self {
        let mut desk = Self::fresh();
        desk.show("ours");
        desk
    }

    /// The watch shows the autoscaler, in which the operator manages this field.
    fn show(&mut self, field: &str) {
        let state = AutoscalerState { mark: mark(field), ..shown("web", "Deployment", "shop") };
        self.scene.see(scaler(NAME, state));
    }

    fn is_silent_at(&mut self, millis: u64) -> bool {
        is_silent(&tick(&mut self.autoscalers, &self.scene, ms(millis)))
    }

    /// The autoscaler is due, and is applied. Returns whether that repaired it.
    #[track_caller]
    fn repairs_at(&mut self, millis: u64) -> bool {
        let (mut did, _) = tick(&mut self.autoscalers, &self.scene, ms(millis));
        let Some(Did::Applied(subject, scaler)) = did.pop() else { panic!("it is not applied at {millis} ms") };
        assert!(did.is_empty(), "{did:?}");
        let end = Scaled { subject, scaler: Box::new(scaler), result: Ok(mark("ours")) };
        self.autoscalers.scaled(end, ms(millis)).expect("it scales").is_repaired
    }
}

#[test]
fn an_autoscaler_that_somebody_changed_is_applied_again_at_once() {
    let mut desk = Desk::settled();
    assert!(desk.is_silent_at(40_000));
    desk.show("theirs");
    assert!(desk.repairs_at(40_250));
    desk.show("ours");
    assert!(desk.is_silent_at(40_500) && desk.is_silent_at(100_249), "once");
    assert!(!desk.repairs_at(100_250), "a resync repairs nothing");
}

#[test]
fn an_autoscaler_that_somebody_deleted_is_applied_again_at_once() {
    let mut desk = Desk::settled();
    assert!(desk.is_silent_at(40_000));
    desk.scene.gone(Kind::Scalers, NAME);
    assert!(desk.repairs_at(40_250));
    desk.show("ours");
    assert!(desk.is_silent_at(40_500) && desk.is_silent_at(100_249), "once");
}

#[test]
fn a_change_within_5_s_after_an_apply_is_repaired_then() {
    let mut desk = Desk::settled();
    desk.show("theirs");
    assert!(desk.is_silent_at(5999));
    assert!(desk.repairs_at(6000));
}

#[test]
fn somebody_who_changes_an_autoscaler_again_and_again_is_answered_ever_later_and_once_a_minute_at_least() {
    let mut desk = Desk::settled();
    desk.show("theirs");
    let mut now = 10_000;
    assert!(desk.repairs_at(now));
    for pause in [10, 20, 40, 60, 60] {
        now += pause * 1000;
        assert!(desk.is_silent_at(now - 1), "the pause is {pause} s");
        assert!(desk.repairs_at(now));
    }
    desk.show("ours");
    assert!(!desk.repairs_at(now + 600_000), "they gave up");
    desk.show("theirs");
    assert!(desk.is_silent_at(now + 604_999));
    assert!(desk.repairs_at(now + 605_000), "the pause is short again");
}

#[test]
fn a_watch_that_has_listed_nothing_yet_shows_no_drift() {
    let mut desk = Desk::fresh();
    desk.scene.take(Kind::Scalers, Seen::Restarted);
    assert!(desk.is_silent_at(60_999));
    assert!(!desk.repairs_at(61_000), "a resync");
    desk.scene.take(Kind::Scalers, Seen::Synced);
    assert!(desk.repairs_at(66_000), "now it is known to be absent");
}

/// The autoscaler of `web` with this load, and this number of replicas that it asks for.
fn reported(load: u32, desired: u32) -> Object {
    let ours =
        json!({"manager": "portlane-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:maxReplicas": {}}}});
    let controller = json!({
        "manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
        "time": format!("2026-01-01T00:00:{load:02}Z"), "fieldsV1": {"f:status": {"f:currentMetrics": {}}},
    });
    let metric = json!({"metric": {"name": "portlane_connections"}, "current": {"averageValue": load.to_string()}});
    let autoscaler: Value = json!({
        "metadata": {
            "name": NAME, "namespace": "ns", "labels": {"portlane.dev/forward": "web"},
            "resourceVersion": load.to_string(), "managedFields": [ours, controller],
        },
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "shop"}, "maxReplicas": 3},
        "status": {
            "desiredReplicas": desired, "currentReplicas": 1,
            "currentMetrics": [{"type": "Pods", "pods": metric}],
        },
    });
    read::scaler(&serde_json::from_value(autoscaler).expect("an autoscaler"))
}

#[test]
fn a_status_that_reports_another_load_causes_no_work() {
    let mut desk = Desk::fresh();
    let touched = Touched { forwards: keys(&["web"]), ..Touched::default() };
    assert_eq!(desk.scene.see(reported(10, 1)).touched, touched);
    for load in 11..60 {
        assert_eq!(desk.scene.see(reported(load, 1)).touched, Touched::default());
    }
    let grown = desk.scene.see(reported(30, 2)).touched;
    assert_eq!((grown.forwards, grown.grown.len()), (keys(&["web"]), 1));
}

#[test]
fn an_autoscaler_has_the_mark_of_what_the_operator_applied() {
    let Object::Scaler(_, state) = reported(10, 1) else { panic!("an autoscaler") };
    assert_eq!(state.mark, mark("maxReplicas"));
}

#[test]
fn a_status_is_no_drift() {
    let mut desk = Desk::settled();
    for desired in 1..4 {
        let state = AutoscalerState { mark: mark("ours"), desired, ..shown("web", "Deployment", "shop") };
        desk.scene.see(scaler(NAME, state));
        assert!(desk.is_silent_at(40_000));
    }
}

#[test]
fn an_object_that_is_being_deleted_gets_its_autoscaler_no_more_and_keeps_the_one_that_is_left() {
    let mut desk = Desk::settled();
    let mut leaving = scaling("web", "Deployment", "shop");
    leaving["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
    desk.scene.see(forward(leaving));
    desk.show("theirs");
    assert!(desk.is_silent_at(40_000), "it is neither repaired nor deleted");
    desk.scene.gone(Kind::Scalers, NAME);
    assert!(desk.is_silent_at(120_000), "it is not created again");
    desk.scene.gone(Kind::Forwards, "web");
    assert!(desk.is_silent_at(120_250));
}

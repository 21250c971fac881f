//! The condition of an object that scales.

use crate::scene::{Scene, deployment, forward, gateway, ms, scaler, web};
use operator_core::{
    Subject,
    schedule::autoscalers::Autoscalers,
    world::objects::{AutoscalerCondition, AutoscalerConditions, AutoscalerState, Object},
};
use serde_json::json;

use super::{end, failed, of_forward, of_gateway, scaling, shown_of_gateway, tick, with_gateway};

/// The finding about the scaling of an object: status and reason.
fn finding_of(autoscalers: &Autoscalers, subject: &Subject, scene: &Scene) -> Option<(String, String)> {
    autoscalers.finding(subject, &scene.cache).map(|finding| (finding.status.as_str().to_owned(), finding.reason))
}

#[allow(clippy::unnecessary_wraps, reason = "the type of `finding_of`")]
fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.to_owned(), reason.to_owned()))
}

/// A gateway whose status reports this about its scaling.
fn standing(status: &str) -> Object {
    let Object::Gateway(key, read) =
        gateway(&json!({"autoscaling": {"maxReplicas": 5, "targetConnectionsPerPod": 100}}))
    else {
        panic!("a gateway")
    };
    let mut gateway = read.expect("readable");
    let condition = |type_: &str, status: &str, reason: &str| {
        let time = crate::scene::NOW;
        json!({"type": type_, "status": status, "reason": reason, "message": "m", "lastTransitionTime": time})
    };
    let conditions = [condition("Ready", "True", "Ready"), condition("ScalingActive", status, "Standing")];
    gateway.status = Some(serde_json::from_value(json!({"conditions": conditions})).expect("a status"));
    Object::Gateway(key, Box::new(Ok(gateway)))
}

#[test]
fn an_object_that_does_not_scale_has_no_condition_of_it() {
    let mut scene = Scene::with_web();
    let autoscalers = Autoscalers::default();
    scene.see(forward(web("web", 80, 1)));
    assert_eq!(finding_of(&autoscalers, &of_forward("web"), &scene), None);
    assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), None);
    assert_eq!(finding_of(&autoscalers, &of_forward("unknown"), &scene), None);
}

#[test]
fn a_new_leader_repeats_what_the_status_says_until_it_has_looked() {
    for status in ["True", "False", "Unknown"] {
        let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
        scene.see(standing(status));
        scene.see(deployment(2, 2));
        assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair(status, "Standing"));
        let did = tick(&mut autoscalers, &scene, ms(0));
        assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair(status, "Standing"), "it is under way");
        end(&mut autoscalers, did, &Ok(()), ms(250));
        assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair("Unknown", "Pending"));
    }
}

#[test]
fn a_new_leader_repeats_what_the_status_of_a_forward_says() {
    let mut scene = Scene::new();
    let mut manifest = scaling("web", "Deployment", "shop");
    manifest["status"] = json!({"conditions": [{
        "type": "ScalingActive", "status": "True", "reason": "Standing", "message": "m",
        "lastTransitionTime": crate::scene::NOW,
    }]});
    scene.see(forward(manifest));
    assert_eq!(finding_of(&Autoscalers::default(), &of_forward("web"), &scene), pair("True", "Standing"));
}

#[test]
fn the_conditions_of_the_autoscaler_are_those_of_the_object_that_owns_it() {
    let active = AutoscalerCondition { holds: true, ..AutoscalerCondition::default() };
    let conditions = AutoscalerConditions { able: None, active: Some(active) };
    let (mut scene, autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(standing("False"));
    scene.see(scaler("edge", AutoscalerState { conditions: conditions.clone(), ..shown_of_gateway("uid-earlier") }));
    assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair("False", "Standing"), "of an earlier gateway");
    scene.see(scaler("edge", AutoscalerState { conditions, ..shown_of_gateway("uid-edge") }));
    assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair("True", "ScalingActive"));
}

#[test]
fn the_reason_for_which_an_autoscaler_could_not_be_made_is_said() {
    let (mut scene, mut autoscalers) = (with_gateway(), Autoscalers::default());
    scene.see(deployment(2, 2));
    assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair("Unknown", "Pending"));
    let did = tick(&mut autoscalers, &scene, ms(0));
    end(&mut autoscalers, did, &failed("ReplicasHeld"), ms(0));
    assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair("False", "ReplicasHeld"));
}

#[test]
fn an_operator_that_may_create_no_autoscalers_says_so_and_leaves_those_that_exist() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::new(false));
    scene.see(standing("True"));
    scene.see(deployment(2, 2));
    assert_eq!(finding_of(&autoscalers, &of_gateway(), &scene), pair("False", "AutoscalingOff"));
    assert!(super::is_silent(&tick(&mut autoscalers, &scene, ms(0))));
    scene.see(forward(web("web", 80, 1)));
    assert_eq!(finding_of(&autoscalers, &of_forward("web"), &scene), None, "it asks for none");
}

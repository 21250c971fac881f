//! Who scales a workload, and when autoscalers are applied and deleted: with a virtual clock.

mod conditions;
mod drift;

use std::time::Duration;

use crds::TargetKind;
use operator_core::{
    NoScaler, ObjectKey, Subject,
    desired::autoscaler::{FAILED, Scaler},
    schedule::{
        Effect,
        autoscalers::{Autoscalers, Ended, Scaled},
    },
    world::{
        child::Mark,
        objects::{AutoscalerConditions, AutoscalerState, FleetState, Object},
        watched::Kind,
    },
};
use serde_json::{Value, json};

use crate::scene::{
    Scene, deployment, forward, gateway, key, ms, scaler, side, unreadable_forward, unreadable_gateway,
};

/// The effects of one tick, in words that can be compared.
#[derive(Debug, PartialEq)]
enum Did {
    Applied(Subject, Scaler),
    Deleted(ObjectKey, String),
}

fn tick(autoscalers: &mut Autoscalers, scene: &Scene, now: Duration) -> (Vec<Did>, Vec<Subject>) {
    let (effects, others) = autoscalers.tick(&scene.cache, now);
    let did = |effect: Effect| match effect {
        Effect::ApplyAutoscaler(subject, scaler) => Did::Applied(subject, *scaler),
        Effect::DeleteAutoscaler(key, owner) => Did::Deleted(key, owner),
        other => panic!("an autoscaler is applied or deleted: {other:?}"),
    };
    (effects.into_iter().map(did).collect(), others)
}

/// The subjects whose autoscalers are applied.
fn applied(did: &(Vec<Did>, Vec<Subject>)) -> Vec<Subject> {
    let subject = |did: &Did| match did {
        Did::Applied(subject, _) => Some(subject.clone()),
        Did::Deleted(..) => None,
    };
    did.0.iter().filter_map(subject).collect()
}

fn is_silent(did: &(Vec<Did>, Vec<Subject>)) -> bool {
    did.0.is_empty() && did.1.is_empty()
}

/// The result of applying.
fn end(autoscalers: &mut Autoscalers, did: (Vec<Did>, Vec<Subject>), result: &Result<(), NoScaler>, now: Duration) {
    for did in did.0 {
        if let Did::Applied(subject, scaler) = did {
            let result = result.clone().map(|()| Mark::default());
            let end = Scaled { subject: subject.clone(), scaler: Box::new(scaler), result };
            let ended = Ended { subject, is_repaired: false };
            assert_eq!(autoscalers.scaled(end, now), Some(ended), "its status may change");
        }
    }
}

fn failed(reason: &'static str) -> Result<(), NoScaler> {
    Err(NoScaler { reason, message: "refused".to_owned() })
}

fn of_forward(name: &str) -> Subject {
    Subject::Forward(key(name))
}

fn of_gateway() -> Subject {
    Subject::Gateway(key("edge"))
}

/// The manifest of a forward that scales a workload.
fn scaling(name: &str, kind: &str, target: &str) -> Value {
    let mut manifest = side(name, 80);
    manifest["spec"]["autoscaling"] =
        json!({"targetRef": {"kind": kind, "name": target}, "maxReplicas": 3, "targetConnectionsPerPod": 10});
    manifest
}

fn created(mut manifest: Value, day: u8) -> Value {
    manifest["metadata"]["creationTimestamp"] = json!(format!("2025-01-{day:02}T00:00:00Z"));
    manifest
}

/// What the watch shows of the autoscaler of a forward.
fn shown(forward: &str, kind: &str, target: &str) -> AutoscalerState {
    AutoscalerState {
        owner: format!("uid-{forward}"),
        subject: of_forward(forward),
        conditions: AutoscalerConditions::default(),
        desired: 1,
        least: 1,
        target: (kind.to_owned(), target.to_owned()),
        current: 1,
        mark: Mark::default(),
    }
}

fn shown_of_gateway(owner: &str) -> AutoscalerState {
    AutoscalerState { owner: owner.to_owned(), subject: of_gateway(), ..shown("edge", "Deployment", "edge") }
}

fn with_gateway() -> Scene {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({"autoscaling": {"maxReplicas": 5, "targetConnectionsPerPod": 100}})));
    scene
}

#[test]
fn the_autoscaler_of_a_gateway_waits_for_its_deployment() {
    let (mut scene, mut autoscalers) = (with_gateway(), Autoscalers::default());
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(0))));
    scene.see(deployment(2, 2));
    let did = tick(&mut autoscalers, &scene, ms(250));
    assert_eq!(applied(&did), [of_gateway()]);
    assert!(did.1.is_empty());
    let Did::Applied(_, scaler) = &did.0[0] else { panic!("it is applied") };
    assert_eq!((&scaler.key, scaler.owner.as_str()), (&key("edge"), "uid-edge"));
    assert_eq!((scaler.target_kind, scaler.target.as_str()), (TargetKind::Deployment, "edge"));
}

#[test]
fn the_autoscaler_of_a_gateway_with_claims_scales_its_stateful_set() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    let autoscaling = json!({"maxReplicas": 5, "targetConnectionsPerPod": 100});
    scene.see(gateway(&json!({"durability": {"volumeClaim": {"size": "1Gi"}}, "autoscaling": autoscaling})));
    scene.see(deployment(2, 2));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(0))), "a Deployment of that name is not its fleet");
    scene.see(Object::StatefulSet(key("edge"), FleetState::default()));
    let did = tick(&mut autoscalers, &scene, ms(250));
    let Did::Applied(_, scaler) = &did.0[0] else { panic!("it is applied") };
    assert_eq!((scaler.target_kind, scaler.target.as_str()), (TargetKind::StatefulSet, "edge"));
    assert_eq!(scaler.manifest["spec"]["scaleTargetRef"]["kind"], "StatefulSet");
}

#[test]
fn an_autoscaler_is_applied_once_at_a_time_and_again_every_60_s() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    assert_eq!(applied(&did), [of_forward("web")]);
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(250))), "it is under way");
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(40_000))), "it is under way still");
    end(&mut autoscalers, did, &Ok(()), ms(41_000));
    scene.see(scaler("portforward-web", shown("web", "Deployment", "shop")));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(100_999))));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(101_000))), [of_forward("web")]);
}

#[test]
fn an_autoscaler_whose_apply_gives_no_result_is_applied_again_after_60_s() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(1000))), [of_forward("web")]);
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(60_999))));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(61_000))), [of_forward("web")]);
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(61_250))), "it is under way");
}

#[test]
fn an_autoscaler_that_is_not_there_is_applied_again_after_5_s() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    end(&mut autoscalers, did, &Ok(()), ms(1000));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(5999))));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(6000))), [of_forward("web")]);
}

#[test]
fn an_autoscaler_that_could_not_be_applied_is_applied_again_after_5_s() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    scene.see(scaler("portforward-web", shown("web", "Deployment", "shop")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    end(&mut autoscalers, did, &failed(FAILED), ms(1000));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(5999))));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(6000))), [of_forward("web")]);
}

#[test]
fn an_edited_spec_is_applied_at_once() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    scene.see(scaler("portforward-web", shown("web", "Deployment", "shop")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    end(&mut autoscalers, did, &Ok(()), ms(0));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(250))));
    let mut edited = scaling("web", "Deployment", "shop");
    edited["spec"]["autoscaling"]["maxReplicas"] = json!(9);
    scene.see(forward(edited));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(500))), [of_forward("web")]);
}

#[test]
fn an_object_that_scales_again_after_a_while_without_is_applied_at_once() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    end(&mut autoscalers, did, &Ok(()), ms(0));
    scene.see(forward(side("web", 80)));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(250))));
    scene.see(forward(scaling("web", "Deployment", "shop")));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(500))), [of_forward("web")]);
}

#[test]
fn the_result_for_an_object_that_scales_no_more_means_nothing() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("web", "Deployment", "shop")));
    let mut did = tick(&mut autoscalers, &scene, ms(0));
    let Some(Did::Applied(subject, scaler)) = did.0.pop() else { panic!("it is applied") };
    scene.gone(Kind::Forwards, "web");
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(250))));
    let end = Scaled { subject, scaler: Box::new(scaler), result: Ok(Mark::default()) };
    assert_eq!(autoscalers.scaled(end, ms(500)), None);
}

#[test]
fn of_two_that_scale_one_workload_the_oldest_does_and_the_other_says_why_not() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(created(scaling("a-young", "Deployment", "shop"), 2)));
    scene.see(forward(created(scaling("b-old", "Deployment", "shop"), 1)));
    scene.see(forward(created(scaling("c-apart", "StatefulSet", "shop"), 3)));
    let did = tick(&mut autoscalers, &scene, ms(0));
    assert_eq!(applied(&did), [of_forward("b-old"), of_forward("c-apart")]);
    assert_eq!(did.1, [of_forward("a-young")], "its status changes");
    let finding = autoscalers.finding(&of_forward("a-young"), &scene.cache).expect("it asks for an autoscaler");
    assert_eq!((finding.status.as_str(), finding.reason.as_str()), ("False", "TargetTaken"));
    assert!(finding.message.contains("b-old"), "{}", finding.message);
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(250))), "the status is evaluated once");
}

#[test]
fn an_object_without_a_creation_time_comes_after_those_with_one() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(scaling("a-unknown", "Deployment", "shop")));
    scene.see(forward(created(scaling("b-known", "Deployment", "shop"), 9)));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(0))), [of_forward("b-known")]);
}

#[test]
fn a_workload_that_is_free_again_is_taken_5_s_after_the_last_look() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(created(scaling("a-young", "Deployment", "shop"), 2)));
    scene.see(forward(created(scaling("b-old", "Deployment", "shop"), 1)));
    tick(&mut autoscalers, &scene, ms(0));
    tick(&mut autoscalers, &scene, ms(10_000));
    scene.gone(Kind::Forwards, "b-old");
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(14_999))));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(15_000))), [of_forward("a-young")]);
}

#[test]
fn an_older_newcomer_takes_no_workload_from_an_autoscaler_that_is_there() {
    let ours = shown("a-young", "Deployment", "shop");
    let foreign = AutoscalerState { owner: "uid-of-another".to_owned(), ..ours.clone() };
    let elsewhere = AutoscalerState { target: ("Deployment".to_owned(), "blog".to_owned()), ..ours.clone() };
    for (state, first) in [(ours, "a-young"), (foreign, "b-old"), (elsewhere, "b-old")] {
        let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
        scene.see(forward(created(scaling("a-young", "Deployment", "shop"), 2)));
        scene.see(forward(created(scaling("b-old", "Deployment", "shop"), 1)));
        scene.see(scaler("portforward-a-young", state.clone()));
        assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(0))), [of_forward(first)], "{state:?}");
    }
}

#[test]
fn an_older_newcomer_takes_no_workload_from_an_autoscaler_that_was_applied() {
    for (result, first) in [(Ok(()), "a-young"), (failed("TargetNotFound"), "b-old")] {
        let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
        scene.see(forward(created(scaling("a-young", "Deployment", "shop"), 2)));
        let did = tick(&mut autoscalers, &scene, ms(0));
        end(&mut autoscalers, did, &result, ms(0));
        scene.see(forward(created(scaling("b-old", "Deployment", "shop"), 1)));
        assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(60_000))), [of_forward(first)], "{result:?}");
    }
}

#[test]
fn a_workload_that_was_scaled_before_counts_for_that_workload_alone() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(forward(created(scaling("a-young", "Deployment", "shop"), 2)));
    let did = tick(&mut autoscalers, &scene, ms(0));
    end(&mut autoscalers, did, &Ok(()), ms(0));
    scene.see(forward(created(scaling("a-young", "Deployment", "blog"), 2)));
    scene.see(forward(created(scaling("b-old", "Deployment", "blog"), 1)));
    assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(60_000))), [of_forward("b-old")]);
}

#[test]
fn an_object_whose_autoscaler_the_api_server_refuses_comes_last() {
    for (reason, next) in [(FAILED, "b-young"), ("TargetNotFound", "a-old")] {
        let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
        scene.see(forward(created(scaling("a-old", "Deployment", "shop"), 1)));
        scene.see(forward(created(scaling("b-young", "Deployment", "shop"), 2)));
        let did = tick(&mut autoscalers, &scene, ms(0));
        assert_eq!(applied(&did), [of_forward("a-old")]);
        end(&mut autoscalers, did, &failed(reason), ms(0));
        assert_eq!(applied(&tick(&mut autoscalers, &scene, ms(60_000))), [of_forward(next)], "{reason}");
    }
}

#[test]
fn the_fleet_of_a_gateway_is_scaled_by_the_gateway_alone() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(gateway(&json!({})));
    scene.see(forward(scaling("web", "Deployment", "edge")));
    scene.see(forward(scaling("set", "StatefulSet", "edge")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    assert_eq!(applied(&did), [of_forward("set")], "only a Deployment is a fleet");
    assert_eq!(did.1, [of_forward("web")]);
    let finding = autoscalers.finding(&of_forward("web"), &scene.cache).expect("it asks for an autoscaler");
    assert_eq!((finding.status.as_str(), finding.reason.as_str()), ("False", "TargetTaken"));
    assert!(finding.message.contains("edge"), "{}", finding.message);
}

#[test]
fn the_fleet_of_a_gateway_that_cannot_be_read_is_scaled_by_no_forward() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(unreadable_gateway());
    scene.see(forward(scaling("web", "Deployment", "edge")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    assert_eq!((applied(&did), did.1), (Vec::new(), vec![of_forward("web")]));
}

#[test]
fn an_autoscaler_that_nobody_wants_is_deleted_at_once_and_again_after_5_s() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(gateway(&json!({})));
    scene.see(scaler("edge", shown_of_gateway("uid-edge")));
    let deleted = || vec![Did::Deleted(key("edge"), "uid-edge".to_owned())];
    assert_eq!(tick(&mut autoscalers, &scene, ms(1000)).0, deleted());
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(5999))));
    assert_eq!(tick(&mut autoscalers, &scene, ms(6000)).0, deleted());
    scene.gone(Kind::Scalers, "edge");
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(6250))));
    scene.see(scaler("edge", shown_of_gateway("uid-edge")));
    assert_eq!(tick(&mut autoscalers, &scene, ms(6500)).0, deleted(), "it is another one");
}

#[test]
fn an_autoscaler_that_is_wanted_is_not_deleted() {
    let (mut scene, mut autoscalers) = (with_gateway(), Autoscalers::default());
    scene.see(deployment(2, 2));
    scene.see(scaler("edge", shown_of_gateway("uid-edge")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    assert_eq!((did.0.len(), applied(&did)), (1, vec![of_gateway()]));
}

#[test]
fn the_autoscaler_of_an_earlier_gateway_of_that_name_is_deleted() {
    let (mut scene, mut autoscalers) = (with_gateway(), Autoscalers::default());
    scene.see(scaler("edge", shown_of_gateway("uid-earlier")));
    let did = tick(&mut autoscalers, &scene, ms(0));
    assert_eq!(did.0, [Did::Deleted(key("edge"), "uid-earlier".to_owned())]);
}

#[test]
fn what_an_object_that_cannot_be_read_wants_is_not_known_and_nothing_is_deleted() {
    let (mut scene, mut autoscalers) = (Scene::new(), Autoscalers::default());
    scene.see(unreadable_forward("web", 2));
    scene.see(scaler("portforward-web", shown("web", "Deployment", "shop")));
    scene.see(gateway(&json!({})));
    scene.see(unreadable_gateway());
    scene.see(scaler("edge", shown_of_gateway("uid-edge")));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(0))));
    scene.see(forward(side("web", 80)));
    let did = tick(&mut autoscalers, &scene, ms(250));
    assert_eq!(did.0, [Did::Deleted(key("portforward-web"), "uid-web".to_owned())], "now it is known");
    scene.see(unreadable_forward("web", 3));
    assert!(is_silent(&tick(&mut autoscalers, &scene, ms(60_000))), "its last readable version does not count");
}

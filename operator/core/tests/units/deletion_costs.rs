//! Which pods of a fleet get which deletion cost, and when.

use operator_core::{
    Subject,
    schedule::deletion_costs::Costs,
    world::{
        child::Mark,
        objects::{AutoscalerConditions, AutoscalerState, Cost, Object, PodInfo},
        watched::Kind,
    },
};
use serde_json::json;

use crate::scene::{Scene, app_pod, fleet_pod, forward, gateway, key, ms, scaler, side};

/// A pod of the `ReplicaSet` `NAME-h1` of a Deployment.
fn of_deployment(name: &str, info: PodInfo) -> PodInfo {
    let mut labels = info.labels;
    labels.insert("pod-template-hash".to_owned(), "h1".to_owned());
    PodInfo { replica_set: Some(format!("{name}-h1")), labels, ..info }
}

fn pod(name: &str) -> PodInfo {
    of_deployment("edge", fleet_pod(name, true))
}

fn state(subject: Subject, target: &str, least: i32) -> AutoscalerState {
    AutoscalerState {
        owner: "uid".to_owned(),
        subject,
        conditions: AutoscalerConditions::default(),
        desired: 3,
        least,
        target: ("Deployment".to_owned(), target.to_owned()),
        current: 3,
        mark: Mark::default(),
    }
}

/// A fleet that an autoscaler scales down to `least`, with these pods and their sessions.
fn fleet(least: i32, pods: &[(&str, u64)]) -> Scene {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    scene.see(scaler("edge", state(Subject::Gateway(key("edge")), "edge", least)));
    for (name, sessions) in pods {
        scene.see(Object::ProxyPod(key(name), pod(name)));
        scene.load(name, *sessions);
    }
    scene
}

/// Pods and costs that are written at this time.
fn tick(costs: &mut Costs, scene: &Scene, millis: u64) -> Vec<(String, i32)> {
    let writes = costs.tick(&scene.view(), ms(millis));
    writes.into_iter().map(|write| (write.pod.name, write.cost)).collect()
}

fn written(name: &str, cost: i32) -> (String, i32) {
    (name.to_owned(), cost)
}

#[test]
fn two_costs_are_written_in_one_tick_and_those_that_are_furthest_off_first() {
    let (scene, mut costs) = (fleet(1, &[("few", 10), ("many", 100), ("most", 1000)]), Costs::default());
    assert_eq!(tick(&mut costs, &scene, 0), [written("most", 40), written("many", 27)]);
    assert_eq!(tick(&mut costs, &scene, 250), [written("few", 14)]);
    assert!(tick(&mut costs, &scene, 500).is_empty());
}

#[test]
fn a_cost_is_written_to_the_pod_that_was_seen() {
    let scene = fleet(0, &[("p1", 10)]);
    let writes = Costs::default().tick(&scene.view(), ms(0));
    assert_eq!((&writes[0].pod, writes[0].uid.as_str()), (&key("p1"), "uid-p1"));
}

#[test]
fn a_cost_that_the_cache_does_not_show_is_written_again_after_10_s() {
    let (scene, mut costs) = (fleet(0, &[("p1", 10)]), Costs::default());
    assert_eq!(tick(&mut costs, &scene, 1000), [written("p1", 14)]);
    assert!(tick(&mut costs, &scene, 10_999).is_empty());
    assert_eq!(tick(&mut costs, &scene, 11_000), [written("p1", 14)]);
}

#[test]
fn pods_whose_costs_are_never_shown_keep_no_other_pod_waiting_for_ever() {
    let names: Vec<String> = (0..100).map(|number| format!("stuck-{number}")).collect();
    let mut pods: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1000)).collect();
    pods.push(("few", 10));
    let (scene, mut costs) = (fleet(1, &pods), Costs::default());
    let ticks: Vec<Vec<(String, i32)>> = (0..120).map(|number| tick(&mut costs, &scene, number * 250)).collect();
    assert!(ticks.iter().flatten().any(|write| *write == written("few", 14)), "within 30 s");
    assert!(ticks.iter().all(|writes| writes.len() <= 2));
}

#[test]
fn a_pod_whose_stream_ended_has_the_cost_of_its_last_load_for_a_minute() {
    let mut scene = fleet(0, &[("p1", 10)]);
    scene.proxies.ended(&crate::scene::proxy("p1"), ms(1000));
    scene.proxies.connected(&crate::scene::proxy("p1"));
    assert_eq!(tick(&mut Costs::default(), &scene, 60_999), [written("p1", 14)]);
    assert!(tick(&mut Costs::default(), &scene, 61_000).is_empty(), "the cost stays as it is");
}

#[test]
fn a_fleet_at_its_minimum_needs_no_costs() {
    for (least, expected) in [(1, 1), (2, 0), (3, 0)] {
        let scene = fleet(least, &[("p1", 10), ("p2", 0)]);
        assert_eq!(tick(&mut Costs::default(), &scene, 0).len(), expected, "at least {least}");
    }
}

#[test]
fn a_pod_has_the_cost_that_it_should_have_or_one_that_somebody_else_set() {
    for (cost, expected) in
        [(Cost::Unset, 1), (Cost::Ours(13), 1), (Cost::Ours(14), 0), (Cost::Foreign, 0), (Cost::Ours(-14), 1)]
    {
        let mut scene = fleet(0, &[("p1", 10)]);
        scene.see(Object::ProxyPod(key("p1"), PodInfo { cost: cost.clone(), ..pod("p1") }));
        assert_eq!(tick(&mut Costs::default(), &scene, 0).len(), expected, "{cost:?}");
    }
}

#[test]
fn a_pod_without_sessions_needs_no_cost_and_loses_the_one_that_it_has() {
    let mut scene = fleet(0, &[("p1", 0)]);
    assert!(tick(&mut Costs::default(), &scene, 0).is_empty());
    scene.see(Object::ProxyPod(key("p1"), PodInfo { cost: Cost::Ours(9), ..pod("p1") }));
    assert_eq!(tick(&mut Costs::default(), &scene, 0), [written("p1", 0)]);
}

#[test]
fn pods_that_leave_are_of_another_workload_or_say_nothing_have_no_cost() {
    let mut scene = fleet(0, &[("leaves", 10), ("foreign", 10)]);
    scene.see(Object::ProxyPod(key("leaves"), PodInfo { leaving: true, ..pod("leaves") }));
    let foreign = PodInfo { replica_set: Some("canary-h1".to_owned()), ..pod("foreign") };
    scene.see(Object::ProxyPod(key("foreign"), foreign));
    scene.see(Object::ProxyPod(key("silent"), pod("silent")));
    scene.proxies.connected(&crate::scene::proxy("silent"));
    assert!(tick(&mut Costs::default(), &scene, 0).is_empty());
}

#[test]
fn pods_with_a_sidecar_have_a_cost_while_an_autoscaler_scales_their_workload() {
    let mut scene = Scene::new();
    scene.see(forward(side("web", 80)));
    for (name, deployment) in [("shop-1", "shop"), ("blog-1", "blog")] {
        scene.see(Object::Pod(key(name), app_pod(name)));
        scene.see(Object::ProxyPod(key(name), of_deployment(deployment, app_pod(name))));
        scene.load(name, 10);
    }
    assert!(tick(&mut Costs::default(), &scene, 0).is_empty());
    scene.see(scaler("portforward-web", state(Subject::Forward(key("web")), "shop", 0)));
    assert_eq!(tick(&mut Costs::default(), &scene, 0), [written("shop-1", 14)]);
    scene.gone(Kind::Scalers, "portforward-web");
    assert!(tick(&mut Costs::default(), &scene, 0).is_empty());
}

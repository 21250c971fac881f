//! Which pods run what, and which changes of them are urgent.

use crds::ForwardGateway;
use operator_core::{
    Changes, CrashLoop, Fleet, Group, Touched, Update,
    status::fleets::{Fleets, Moved, Pods},
    world::{
        objects::{Object, PodInfo},
        watched::Kind,
    },
};
use serde_json::json;

use crate::scene::{Scene, app_pod, fleet_pod, forward, gateway, key, keys, side, web};

/// No group has other pods.
const NOTHING: [Pods; 0] = [];

fn edge() -> Group {
    Group::Gateway(key("edge"))
}

fn fleet<'a>(scene: &'a Scene, group: &Group) -> &'a Fleet {
    scene.fleets.all().get(group).expect("a fleet")
}

fn moved(moved: &Moved) -> Vec<Pods> {
    moved.values().copied().collect()
}

fn see_pod(scene: &mut Scene, name: &str, info: PodInfo) -> Vec<Pods> {
    moved(&scene.see(Object::ProxyPod(key(name), info)).moved)
}

#[test]
fn the_fleet_of_a_gateway_is_the_pods_that_say_so_and_run_as_it_does() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    assert_eq!(see_pod(&mut scene, "p1", fleet_pod("p1", false)), [Pods::Other], "no pod is ready yet");
    assert_eq!(see_pod(&mut scene, "p1", fleet_pod("p1", true)), [Pods::AnyReady], "the first ready pod");
    assert_eq!(see_pod(&mut scene, "p2", fleet_pod("p2", true)), [Pods::Other], "one more");
    assert_eq!(see_pod(&mut scene, "p2", fleet_pod("p2", true)), NOTHING, "nothing is new");
    let thief = PodInfo { service_account: "default".to_owned(), ..fleet_pod("thief", true) };
    assert_eq!(see_pod(&mut scene, "thief", thief), NOTHING);
    assert_eq!((fleet(&scene, &edge()).members.clone(), fleet(&scene, &edge()).ready), (proxies(&["p1", "p2"]), 2));
    assert_eq!(scene.fleets.group_of(&key("p1"), &scene.translator), Some(&edge()));
    assert_eq!(scene.fleets.group_of(&key("thief"), &scene.translator), None);
}

#[test]
fn a_drainer_runs_what_the_fleet_runs_and_is_not_counted() {
    let mut scene = Scene::with_web();
    let drains = Some("edge".to_owned());
    let drainer = PodInfo { gateway: None, drains, ..fleet_pod("d1", true) };
    assert_eq!(see_pod(&mut scene, "d1", drainer.clone()), NOTHING);
    assert_eq!(scene.fleets.group_of(&key("d1"), &scene.translator), Some(&edge()));
    assert_eq!((fleet(&scene, &edge()).members.clone(), fleet(&scene, &edge()).ready), (proxies(&["p1"]), 1));
    let thief = PodInfo { service_account: "default".to_owned(), ..drainer };
    assert_eq!(see_pod(&mut scene, "d2", thief), NOTHING);
    assert_eq!(scene.fleets.group_of(&key("d2"), &scene.translator), None);
}

#[test]
fn a_drainer_that_is_there_before_its_gateway_runs_what_the_fleet_runs_once_it_comes() {
    let mut scene = Scene::new();
    let drainer = PodInfo { gateway: None, drains: Some("edge".to_owned()), ..fleet_pod("d1", true) };
    see_pod(&mut scene, "d1", drainer);
    assert_eq!(scene.fleets.group_of(&key("d1"), &scene.translator), None);
    scene.see(gateway(&json!({})));
    assert_eq!(scene.fleets.group_of(&key("d1"), &scene.translator), Some(&edge()));
}

#[test]
fn the_last_ready_pod_that_goes_is_urgent() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    see_pod(&mut scene, "p1", fleet_pod("p1", true));
    see_pod(&mut scene, "p2", fleet_pod("p2", true));
    assert_eq!(see_pod(&mut scene, "p2", fleet_pod("p2", false)), [Pods::Other], "the same pods, fewer of them ready");
    assert_eq!(fleet(&scene, &edge()).ready, 1);
    assert_eq!(see_pod(&mut scene, "p1", fleet_pod("p1", false)), [Pods::AnyReady]);
    assert_eq!(fleet(&scene, &edge()).ready, 0);
}

#[test]
fn a_pod_that_leaves_is_not_counted_and_stays_in_its_group_to_its_end() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    see_pod(&mut scene, "p1", fleet_pod("p1", true));
    see_pod(&mut scene, "p2", fleet_pod("p2", true));
    let leaving = PodInfo { leaving: true, ..fleet_pod("p2", true) };
    assert_eq!(see_pod(&mut scene, "p2", leaving), [Pods::Other]);
    assert_eq!(fleet(&scene, &edge()).members, proxies(&["p1"]));
    assert_eq!(scene.fleets.group_of(&key("p2"), &scene.translator), Some(&edge()));
    scene.fleets.take_placed();
    assert_eq!(moved(&scene.gone(Kind::ProxyPods, "p2").moved), NOTHING, "it was not counted any more");
    assert_eq!(scene.fleets.group_of(&key("p2"), &scene.translator), None);
    assert_eq!(scene.fleets.take_placed(), keys(&["p2"]));
    assert!(scene.fleets.take_placed().is_empty(), "the change is reported once");
}

#[test]
fn pods_that_are_there_before_their_gateway_are_its_fleet_once_it_comes() {
    let mut scene = Scene::new();
    assert_eq!(see_pod(&mut scene, "p1", fleet_pod("p1", true)), NOTHING);
    assert_eq!(moved(&scene.see(gateway(&json!({}))).moved), [Pods::AnyReady]);
    assert_eq!(fleet(&scene, &edge()).members, proxies(&["p1"]));
    scene.gone(Kind::Gateways, "edge");
    assert!(scene.fleets.all().is_empty());
    assert_eq!(scene.fleets.group_of(&key("p1"), &scene.translator), None);
}

#[test]
fn a_pod_that_moves_to_another_gateway_leaves_the_first() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    let metadata = json!({"name": "two", "namespace": "ns", "uid": "uid-two"});
    let two: ForwardGateway = serde_json::from_value(json!({"metadata": metadata, "spec": {}})).expect("a gateway");
    scene.see(Object::Gateway(key("two"), Box::new(Ok(two))));
    see_pod(&mut scene, "p1", fleet_pod("p1", true));
    let other = PodInfo { gateway: Some("two".to_owned()), service_account: "two".to_owned(), ..fleet_pod("p1", true) };
    assert_eq!(see_pod(&mut scene, "p1", other), [Pods::AnyReady, Pods::AnyReady]);
    assert!(fleet(&scene, &edge()).members.is_empty());
    assert_eq!(fleet(&scene, &Group::Gateway(key("two"))).members, proxies(&["p1"]));
}

#[test]
fn a_new_term_begins_with_the_fleets_of_all_gateways() {
    let mut scene = Scene::with_web();
    scene.fleets = Fleets::default();
    let everything = Touched { changes: Changes::all(), ..Touched::default() };
    let moved = scene.fleets.update(&everything, &Update::default(), &scene.cache, &scene.translator);
    assert_eq!(moved, Moved::from([(edge(), Pods::AnyReady)]));
    assert_eq!(fleet(&scene, &edge()).members, proxies(&["p1"]));
}

#[test]
fn a_fleet_knows_what_it_should_run() {
    let mut scene = Scene::with_web();
    let snapshot = |scene: &Scene| scene.translator.snapshot(&edge()).expect("it runs something").version.number;
    assert_eq!(fleet(&scene, &edge()).snapshot.version.number, snapshot(&scene));
    let before = snapshot(&scene);
    scene.see(forward(web("web", 81, 2)));
    assert!(snapshot(&scene) > before);
    assert_eq!(fleet(&scene, &edge()).snapshot.version.number, snapshot(&scene));
}

/// A cluster with the sidecar forward `web` and the pods `a` and `b`.
fn with_sidecars() -> (Scene, Group) {
    let mut scene = Scene::new();
    scene.see(forward(side("web", 80)));
    scene.see(Object::Pod(key("a"), app_pod("a")));
    scene.see(Object::Pod(key("b"), app_pod("b")));
    let group = scene.translator.group_of(&key("a")).expect("a group").clone();
    (scene, group)
}

fn crash_loop() -> PodInfo {
    let crash_loop = Some(CrashLoop { container: "app".to_owned(), exit_code: 1 });
    PodInfo { crash_loop, ..app_pod("a") }
}

#[test]
fn every_pod_of_a_sidecar_group_that_stays_counts_as_ready() {
    let (mut scene, group) = with_sidecars();
    assert_eq!((fleet(&scene, &group).members.clone(), fleet(&scene, &group).ready), (proxies(&["a", "b"]), 2));
    assert!(fleet(&scene, &group).issues.is_empty());
    assert_eq!(scene.fleets.group_of(&key("a"), &scene.translator), Some(&group));
    let leaving = PodInfo { leaving: true, ..app_pod("b") };
    assert_eq!(moved(&scene.see(Object::Pod(key("b"), leaving)).moved), [Pods::Other]);
    assert_eq!(fleet(&scene, &group).members, proxies(&["a"]));
    scene.fleets.take_placed();
    scene.gone(Kind::Pods, "a");
    scene.gone(Kind::Pods, "b");
    assert!(scene.fleets.all().is_empty());
    assert_eq!(scene.fleets.take_placed(), keys(&["a", "b"]));
}

#[test]
fn a_pod_that_comes_without_a_proxy_is_urgent() {
    let (mut scene, group) = with_sidecars();
    let uninjected = PodInfo { uid: "uid-c".to_owned(), ..PodInfo::default() };
    assert_eq!(moved(&scene.see(Object::Pod(key("c"), uninjected)).moved), [Pods::AnyReady]);
    let issues: Vec<(&operator_core::ProxyId, bool)> =
        fleet(&scene, &group).issues.iter().map(|(pod, issue)| (pod, issue.injected)).collect();
    assert_eq!(issues, [(&crate::scene::proxy("c"), false)]);
}

#[test]
fn a_problem_of_a_pod_that_stays_in_its_group_is_noted() {
    let (mut scene, group) = with_sidecars();
    let ignored = PodInfo { problem: Some("annotation".to_owned()), ..app_pod("a") };
    assert_eq!(moved(&scene.see(Object::Pod(key("a"), ignored)).moved), [Pods::AnyReady]);
    assert_eq!(fleet(&scene, &group).issues[&crate::scene::proxy("a")].problem.as_deref(), Some("annotation"));
    let other = PodInfo { problem: Some("another".to_owned()), ..app_pod("a") };
    assert_eq!(moved(&scene.see(Object::Pod(key("a"), other)).moved), [Pods::Other], "an issue was there before");
}

#[test]
fn a_crash_loop_is_noted_when_it_begins_and_when_it_ends() {
    let (mut scene, group) = with_sidecars();
    assert_eq!(see_pod(&mut scene, "a", app_pod("a")), NOTHING, "the app runs");
    assert_eq!(see_pod(&mut scene, "a", crash_loop()), [Pods::AnyReady]);
    assert!(fleet(&scene, &group).issues[&crate::scene::proxy("a")].crash_loop.is_some());
    assert_eq!(see_pod(&mut scene, "a", PodInfo { ready: true, ..crash_loop() }), NOTHING, "the crash loop continues");
    assert_eq!(see_pod(&mut scene, "a", app_pod("a")), [Pods::AnyReady]);
    assert!(fleet(&scene, &group).issues.is_empty());
}

#[test]
fn a_pod_without_a_proxy_beside_a_crash_loop_is_urgent() {
    let (mut scene, _) = with_sidecars();
    see_pod(&mut scene, "a", crash_loop());
    let uninjected = PodInfo { uid: "uid-c".to_owned(), ..PodInfo::default() };
    assert_eq!(moved(&scene.see(Object::Pod(key("c"), uninjected)).moved), [Pods::AnyReady]);
}

fn proxies(names: &[&str]) -> std::collections::BTreeSet<operator_core::ProxyId> {
    names.iter().map(|name| crate::scene::proxy(name)).collect()
}

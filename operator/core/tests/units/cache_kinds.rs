//! Which change of which object touches what: every kind that the cache takes.

mod objects;
mod reach;

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{
    Cache, Changes, Grant, Grown, ObjectKey, Subject, Touched, World,
    world::{
        child::{ChildKind, Mark, Shown},
        objects::{AutoscalerConditions, AutoscalerState, ClaimState, FleetState, Object, PodInfo, ServiceInfo},
        watched::{Kind, Seen, Source},
    },
};
use serde_json::json;

use crate::scene::{
    Scene, app_pod, child, deployment, fleet_pod, forward, gateway, key, keys, kind_of, mark, scaler, source,
    unreadable_forward, web,
};

fn see(cache: &mut Cache, object: Object) -> Touched {
    cache.apply(&source(kind_of(&object)), Seen::Upsert(Box::new(object)))
}

fn gone(cache: &mut Cache, kind: Kind, name: &str) -> Touched {
    cache.apply(&source(kind), Seen::Gone(key(name)))
}

fn complete() -> Cache {
    Scene::new().cache
}

fn pods_of(namespace: &str) -> Source {
    Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) }
}

#[test]
fn a_watch_that_has_ended_means_nothing() {
    let mut cache = Cache::new(World::default(), []);
    assert_eq!(see(&mut cache, forward(web("web", 80, 1))), Touched::default());
    assert!(cache.world.forwards.is_empty());
}

#[test]
fn a_list_is_complete_once() {
    let mut cache = complete();
    assert!(cache.is_synced());
    assert!(!cache.apply(&source(Kind::Services), Seen::Synced).synced, "it was complete before");
    cache.apply(&source(Kind::Services), Seen::Restarted);
    assert!(!cache.is_synced());
    assert!(cache.apply(&source(Kind::Services), Seen::Synced).synced);
}

#[test]
fn a_watch_that_ends_before_its_list_holds_up_nobody() {
    let mut cache = complete();
    cache.expect(&pods_of("gone"));
    assert!(!cache.is_synced());
    cache.forget_pods("gone");
    assert!(cache.is_synced());
    assert_eq!(cache.apply(&pods_of("gone"), Seen::Restarted), Touched::default());
    assert!(cache.is_synced(), "an event that comes late");
}

#[test]
fn a_namespace_that_is_watched_later_holds_up_nobody() {
    let mut cache = complete();
    cache.expect(&pods_of("early"));
    assert!(!cache.is_synced(), "nothing is published yet: it is waited for");
    cache.apply(&pods_of("early"), Seen::Restarted);
    cache.apply(&pods_of("early"), Seen::Synced);
    cache.open();
    cache.expect(&pods_of("late"));
    assert!(cache.is_synced() && !cache.knows_pods_of("late"));
    assert_eq!(cache.watched_pods(), BTreeSet::from(["early", "late", "ns"].map(str::to_owned)));
    cache.apply(&pods_of("late"), Seen::Restarted);
    assert!(cache.is_synced(), "its first list is under way");
    cache.apply(&pods_of("late"), Seen::Synced);
    assert!(cache.knows_pods_of("late"));
    cache.apply(&pods_of("late"), Seen::Restarted);
    assert!(!cache.is_synced(), "from its second list on it counts like every other");
    cache.expect(&pods_of("late"));
    assert!(!cache.is_synced(), "a watch that is known is not expected again");
}

#[test]
fn pods_of_a_namespace_that_is_watched_no_more_are_forgotten() {
    let mut cache = complete();
    see(&mut cache, Object::Pod(key("a"), app_pod("a")));
    see(&mut cache, Object::Pod(key("b"), app_pod("b")));
    assert_eq!(cache.forget_pods("ns").changes.pods, keys(&["a", "b"]));
    assert!(cache.world.pods.is_empty() && cache.watched_pods().is_empty() && !cache.knows_pods_of("ns"));
    assert_eq!(cache.forget_pods("other"), Touched::default());
}

#[test]
fn what_selects_a_pod_is_known_of_that_very_pod() {
    let mut cache = complete();
    see(&mut cache, Object::ProxyPod(key("a"), fleet_pod("a", true)));
    assert!(!cache.knows_selected(&key("a"), "uid-a"), "only its own watch has shown it");
    see(&mut cache, Object::Pod(key("a"), app_pod("a")));
    assert!(cache.knows_selected(&key("a"), "uid-a"));
    assert!(!cache.knows_selected(&key("a"), "uid-earlier"));
    cache.apply(&source(Kind::Pods), Seen::Restarted);
    assert!(!cache.knows_selected(&key("a"), "uid-a"), "the list is not complete");
}

#[test]
fn a_pod_is_known_by_either_watch() {
    let mut cache = complete();
    assert!(cache.pod(&key("a")).is_none());
    see(&mut cache, Object::Pod(key("a"), app_pod("a")));
    assert_eq!(cache.pod(&key("a")).map(|pod| pod.ready), Some(false));
    see(&mut cache, Object::ProxyPod(key("a"), fleet_pod("a", true)));
    assert_eq!(cache.pod(&key("a")).map(|pod| pod.ready), Some(true), "the watch of proxies knows more");
}

#[test]
fn the_gateway_of_a_pod_is_the_one_that_it_names_and_runs_as() {
    let mut cache = complete();
    see(&mut cache, Object::ProxyPod(key("a"), fleet_pod("a", true)));
    assert_eq!(cache.gateway_of(&key("a")), None, "there is no such gateway");
    see(&mut cache, gateway(&json!({})));
    assert_eq!(cache.gateway_of(&key("a")), Some(key("edge")));
    let other = PodInfo { service_account: "default".to_owned(), ..fleet_pod("a", true) };
    see(&mut cache, Object::ProxyPod(key("a"), other));
    assert_eq!(cache.gateway_of(&key("a")), None);
}

#[test]
fn a_pod_with_a_proxy_is_touched_when_anything_about_it_is_new() {
    let mut cache = complete();
    let expected = Touched { proxy_pods: keys(&["a"]), ..Touched::default() };
    assert_eq!(see(&mut cache, Object::ProxyPod(key("a"), fleet_pod("a", false))), expected);
    assert_eq!(see(&mut cache, Object::ProxyPod(key("a"), fleet_pod("a", false))), Touched::default());
    assert_eq!(see(&mut cache, Object::ProxyPod(key("a"), fleet_pod("a", true))), expected);
    assert!(cache.proxy_pods[&key("a")].ready);
    assert_eq!(gone(&mut cache, Kind::ProxyPods, "a"), expected);
    assert!(cache.proxy_pods.is_empty());
}

#[test]
fn a_pod_is_touched_when_a_translation_depends_on_what_is_new() {
    let mut cache = complete();
    let expected = Touched { changes: Changes { pods: keys(&["a"]), ..Changes::default() }, ..Touched::default() };
    assert_eq!(see(&mut cache, Object::Pod(key("a"), app_pod("a"))), expected);
    assert!(cache.world.pods[&key("a")].carries);
    let recreated = PodInfo { uid: "other".to_owned(), ..app_pod("a") };
    assert_eq!(see(&mut cache, Object::Pod(key("a"), recreated)), Touched::default());
    let mut of_fleet = app_pod("a");
    of_fleet.labels.insert("portlane.dev/proxy".to_owned(), "gateway".to_owned());
    assert_eq!(see(&mut cache, Object::Pod(key("a"), of_fleet)), expected, "it is in a fleet now");
    assert!(cache.world.pods.is_empty());
}

#[test]
fn a_namespace_is_touched_when_its_labels_are_new() {
    let mut cache = complete();
    let labels = |value: &str| BTreeMap::from([("edge".to_owned(), value.to_owned())]);
    let name = ObjectKey::new("", "shop");
    let namespace = |value: &str| Object::Namespace(name.clone(), labels(value));
    let expected = BTreeSet::from(["shop".to_owned()]);
    assert_eq!(see(&mut cache, namespace("a")).changes.namespaces, expected);
    assert_eq!(see(&mut cache, namespace("a")), Touched::default());
    assert_eq!(see(&mut cache, namespace("b")).changes.namespaces, expected);
    assert_eq!(cache.world.namespaces["shop"], labels("b"));
    let touched = cache.apply(&source(Kind::Namespaces), Seen::Gone(name.clone()));
    assert_eq!(touched.changes.namespaces, expected);
    assert!(cache.world.namespaces.is_empty());
}

fn grant(from: &str) -> Grant {
    Grant { kind: proxy_api::OriginKind::PortForward, from: from.to_owned(), to: "ns".to_owned(), service: None }
}

#[test]
fn grants_are_those_of_all_objects_together() {
    let mut cache = complete();
    let grants = |name: &str, from: &[&str]| Object::Grants(key(name), from.iter().map(|from| grant(from)).collect());
    assert!(see(&mut cache, grants("one", &["a", "b"])).changes.grants);
    assert!(!see(&mut cache, grants("two", &["a"])).changes.grants, "it permits nothing new");
    assert!(!gone(&mut cache, Kind::Grants, "two").changes.grants);
    assert_eq!(cache.world.grants, BTreeSet::from([grant("a"), grant("b")]));
    assert!(gone(&mut cache, Kind::Grants, "one").changes.grants);
    assert!(cache.world.grants.is_empty());
}

#[test]
fn a_deployment_touches_its_gateway() {
    let mut cache = complete();
    let expected = Touched { gateways: keys(&["edge"]), ..Touched::default() };
    assert_eq!(see(&mut cache, deployment(2, 1)), expected);
    assert_eq!(cache.deployments[&key("edge")].ready, 1);
    assert_eq!(gone(&mut cache, Kind::Deployments, "edge"), expected);
    assert!(cache.deployments.is_empty());
}

#[test]
fn a_fleet_on_claims_and_its_claims_touch_their_gateway() {
    let mut cache = complete();
    let expected = Touched { gateways: keys(&["edge"]), ..Touched::default() };
    assert_eq!(see(&mut cache, Object::StatefulSet(key("edge"), FleetState::default())), expected);
    let claim = ClaimState { gateway: "edge".to_owned(), ordinal: 1, ..ClaimState::default() };
    assert_eq!(see(&mut cache, Object::Claim(key("messages-edge-1"), claim)), expected);
    assert_eq!(gone(&mut cache, Kind::Claims, "messages-edge-1"), expected);
    assert_eq!(gone(&mut cache, Kind::StatefulSets, "edge"), expected);
    assert!(cache.claims.is_empty() && cache.stateful_sets.is_empty());
}

#[test]
fn a_child_touches_its_gateway_when_it_is_another_or_gone() {
    let touched = Touched { gateways: keys(&["edge"]), ..Touched::default() };
    for kind in [ChildKind::ServiceAccount, ChildKind::PodDisruptionBudget, ChildKind::NetworkPolicy] {
        let mut cache = complete();
        assert_eq!(cache.shown(kind, &key("edge")), Shown::Absent);
        assert_eq!(see(&mut cache, child(kind, "a")), touched);
        assert_eq!(see(&mut cache, child(kind, "a")), Touched::default(), "only its status is another");
        assert_eq!(see(&mut cache, child(kind, "b")), touched);
        assert_eq!(cache.shown(kind, &key("edge")), Shown::Present(mark("b")));
        assert_eq!(cache.shown(kind, &key("other")), Shown::Absent);
        assert_eq!(gone(&mut cache, kind.watch(), "edge"), touched);
        assert_eq!(cache.shown(kind, &key("edge")), Shown::Absent);
    }
}

#[test]
fn a_child_that_a_full_watch_does_not_show_may_exist() {
    let mut cache = Cache::new(World::default(), [source(Kind::Services)]).bounded(1);
    let list = |cache: &mut Cache, names: &[&str]| {
        cache.apply(&source(Kind::Services), Seen::Restarted);
        for name in names {
            see(cache, Object::Service(key(name), ServiceInfo::default()));
        }
        cache.apply(&source(Kind::Services), Seen::Synced);
        cache.shown(ChildKind::Service, &key("edge"))
    };
    assert_eq!(list(&mut cache, &["other"]), Shown::Absent);
    assert_eq!(list(&mut cache, &["other", "edge"]), Shown::Unknown, "it was left out");
    assert_eq!(list(&mut cache, &["other"]), Shown::Absent, "a new list shows everything");
}

#[test]
fn of_every_child_the_mark_is_known_and_each_kind_by_itself() {
    for kind in ChildKind::ALL {
        let mut cache = complete();
        see(&mut cache, child(kind, "a"));
        for other in ChildKind::ALL {
            let expected = if other == kind { Shown::Present(mark("a")) } else { Shown::Absent };
            assert_eq!(cache.shown(other, &key("edge")), expected, "{other:?} beside {kind:?}");
        }
        gone(&mut cache, kind.watch(), "edge");
        assert_eq!(cache.shown(kind, &key("edge")), Shown::Absent);
    }
}

#[test]
fn what_a_watch_has_not_listed_is_not_known_to_be_absent() {
    for kind in ChildKind::ALL {
        let mut cache = complete();
        cache.apply(&source(kind.watch()), Seen::Restarted);
        assert_eq!(cache.shown(kind, &key("edge")), Shown::Unknown);
        see(&mut cache, child(kind, "a"));
        assert_eq!(cache.shown(kind, &key("edge")), Shown::Present(mark("a")));
        let is_child_only = !matches!(kind, ChildKind::Deployment | ChildKind::StatefulSet | ChildKind::Service);
        assert_eq!(
            cache.is_synced(),
            is_child_only,
            "the operator does not wait for watches that only show drift: {kind:?}"
        );
    }
}

#[test]
fn a_child_is_known_by_the_watch_of_its_namespace() {
    let of = |namespace: &str| Source { kind: Kind::Budgets, namespace: Some(namespace.to_owned()) };
    let mut cache = Cache::new(World::default(), [of("ns"), of("other")]);
    cache.apply(&of("other"), Seen::Restarted);
    cache.apply(&of("other"), Seen::Synced);
    let shown = |cache: &Cache| cache.shown(ChildKind::PodDisruptionBudget, &key("edge"));
    assert_eq!(shown(&cache), Shown::Unknown);
    cache.apply(&of("ns"), Seen::Restarted);
    cache.apply(&of("ns"), Seen::Synced);
    assert_eq!(shown(&cache), Shown::Absent);
}

fn state(subject: Subject, current: i32, desired: i32, least: i32) -> AutoscalerState {
    AutoscalerState {
        owner: "uid".to_owned(),
        subject,
        conditions: AutoscalerConditions::default(),
        desired,
        least,
        target: ("Deployment".to_owned(), "edge".to_owned()),
        current,
        mark: Mark::default(),
    }
}

#[test]
fn an_autoscaler_touches_the_object_that_it_scales_for() {
    let mut cache = complete();
    let edge = || state(Subject::Gateway(key("edge")), 0, 0, 1);
    let gateways = Touched { gateways: keys(&["edge"]), ..Touched::default() };
    assert_eq!(see(&mut cache, scaler("edge", edge())), gateways);
    assert_eq!(gone(&mut cache, Kind::Scalers, "edge"), gateways);
    assert_eq!(gone(&mut cache, Kind::Scalers, "edge"), Touched::default(), "it is gone already");
    let touched = see(&mut cache, scaler("s", state(Subject::Forward(key("web")), 0, 0, 1)));
    assert_eq!(touched, Touched { forwards: keys(&["web"]), ..Touched::default() });
}

#[test]
fn an_autoscaler_that_asks_for_more_than_before_has_grown() {
    let subject = || Subject::Gateway(key("edge"));
    // What it asked for, and what there was; what it asks for now.
    let cases = [
        ((3, 3), 5, Some(3)),
        ((3, 3), 3, None),
        ((5, 5), 3, None),
        ((0, 4), 6, Some(4)),
        ((0, 4), 4, None),
        ((0, 0), 2, None),
        ((0, 0), 3, Some(2)),
        ((1, 1), 2, None),
        ((1, 4), 3, Some(2)),
    ];
    for ((desired, current), now, from) in cases {
        let mut cache = complete();
        let first = see(&mut cache, scaler("edge", state(subject(), current, desired, 2)));
        assert!(first.grown.is_empty(), "the first look at an autoscaler is no growth");
        let grown = see(&mut cache, scaler("edge", state(subject(), current, now, 2))).grown;
        let expected: Vec<Grown> = from.map(|from| Grown { subject: subject(), from, to: now }).into_iter().collect();
        assert_eq!(grown, expected, "{desired} of {current}, then {now}");
    }
}

#[test]
fn a_forward_is_touched_by_its_spec_its_identity_and_the_ports_that_it_holds() {
    let mut scene = Scene::with_web();
    let mut edited = |change: &dyn Fn(&mut crds::PortForward)| scene.edit("web", change).touched;
    let only_status = Touched { forwards: keys(&["web"]), ..Touched::default() };
    assert_eq!(edited(&|_| {}), only_status);
    assert!(!edited(&|forward| forward.metadata.uid = Some("other".to_owned())).changes.is_empty());
    assert!(!edited(&|forward| forward.metadata.generation = Some(9)).changes.is_empty());
    assert!(!edited(&|forward| forward.spec.suspend = Some(true)).changes.is_empty());
    let status = |value: serde_json::Value| serde_json::from_value(value).expect("a status");
    let listeners = |health: &str| json!([{"name": "a", "protocol": "TCP", "port": 80, "backends": health}]);
    let held = |forward: &mut crds::PortForward| forward.status = Some(status(json!({"listeners": listeners("All")})));
    assert!(!edited(&held).changes.is_empty());
    let unhealthy =
        |forward: &mut crds::PortForward| forward.status = Some(status(json!({"listeners": listeners("None")})));
    assert_eq!(edited(&unhealthy), only_status, "what proxies see of backends decides nothing");
    let moved = |forward: &mut crds::PortForward| {
        forward.status = Some(status(json!({"listeners": listeners("None"), "placement": "sidecar"})));
    };
    assert!(!edited(&moved).changes.is_empty());
}

#[test]
fn a_forward_that_cannot_be_read_is_touched_once_for_each_version() {
    let mut cache = complete();
    let forwards = keys(&["web"]);
    assert_eq!(see(&mut cache, unreadable_forward("web", 1)).changes.forwards, forwards);
    let again = see(&mut cache, unreadable_forward("web", 1));
    assert!(again.changes.is_empty() && again.forwards == forwards);
    assert_eq!(see(&mut cache, unreadable_forward("web", 2)).changes.forwards, forwards);
    let Object::Forward(name, read) = unreadable_forward("web", 2) else { panic!("a forward") };
    let mut unreadable = read.expect_err("unreadable");
    unreadable.why = "another reason".to_owned();
    let touched = see(&mut cache, Object::Forward(name, Box::new(Err(unreadable))));
    assert_eq!(touched.changes.forwards, forwards);
    assert_eq!(see(&mut cache, forward(web("web", 80, 2))).changes.forwards, forwards);
    see(&mut cache, unreadable_forward("web", 3));
    let back = see(&mut cache, forward(web("web", 80, 2)));
    assert_eq!(back.changes.forwards, forwards, "it is the one that was readable before, and can be read again");
    assert_eq!(gone(&mut cache, Kind::Forwards, "web").changes.forwards, forwards);
    assert!(cache.forward(&key("web")).is_none());
}

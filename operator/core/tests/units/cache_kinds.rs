//! Which change of which object touches what: every kind that the cache takes.

use std::collections::{BTreeMap, BTreeSet};

use crds::Protocol;
use operator_core::{
    Cache, Changes, Grant, Grown, ObjectKey, Service, Subject, Touched, World,
    world::{
        objects::{AutoscalerConditions, AutoscalerState, Object, PodInfo, ServiceInfo, SliceInfo},
        watched::{Kind, Seen, Source},
    },
};
use serde_json::json;

use crate::scene::{
    Scene, app_pod, deployment, fleet_pod, forward, gateway, gateway_of, key, keys, kind_of, scaler, side, source,
    unreadable_forward, unreadable_gateway, web,
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
fn a_namespace_that_is_watched_later_holds_up_nobody() {
    let mut cache = complete();
    cache.expect(pods_of("early"));
    assert!(!cache.is_synced(), "nothing is published yet: it is waited for");
    cache.apply(&pods_of("early"), Seen::Restarted);
    cache.apply(&pods_of("early"), Seen::Synced);
    cache.open();
    cache.expect(pods_of("late"));
    assert!(cache.is_synced() && !cache.knows_pods_of("late"));
    assert_eq!(cache.watched_pods(), BTreeSet::from(["early", "late", "ns"].map(str::to_owned)));
    cache.apply(&pods_of("late"), Seen::Restarted);
    assert!(cache.is_synced(), "its first list is under way");
    cache.apply(&pods_of("late"), Seen::Synced);
    assert!(cache.knows_pods_of("late"));
    cache.apply(&pods_of("late"), Seen::Restarted);
    assert!(!cache.is_synced(), "from its second list on it counts like every other");
    cache.expect(pods_of("late"));
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
    assert_eq!(see(&mut cache, deployment(2, 1, 1)), expected);
    assert_eq!(cache.deployments[&key("edge")].ready, 1);
    assert_eq!(gone(&mut cache, Kind::Deployments, "edge"), expected);
    assert!(cache.deployments.is_empty());
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

#[test]
fn namespaces_with_sidecar_forwards_are_known_as_long_as_they_have_one() {
    let mut cache = complete();
    let namespaces = |cache: &Cache| cache.sidecar_namespaces().cloned().collect::<Vec<String>>();
    see(&mut cache, forward(web("web", 80, 1)));
    assert!(namespaces(&cache).is_empty());
    see(&mut cache, forward(side("one", 80)));
    see(&mut cache, forward(side("two", 81)));
    assert_eq!(namespaces(&cache), ["ns"]);
    gone(&mut cache, Kind::Forwards, "one");
    assert_eq!(namespaces(&cache), ["ns"]);
    see(&mut cache, forward(web("two", 81, 2)));
    assert!(namespaces(&cache).is_empty(), "it is in a gateway now");
}

#[test]
fn objects_that_ask_for_an_autoscaler_are_known() {
    let mut cache = complete();
    let scaling = |cache: &Cache| cache.scaling().collect::<Vec<Subject>>();
    see(&mut cache, gateway(&json!({})));
    see(&mut cache, forward(side("web", 80)));
    assert!(scaling(&cache).is_empty());
    let autoscaling = json!({"maxReplicas": 5, "targetConnectionsPerPod": 9});
    see(&mut cache, gateway(&json!({"autoscaling": autoscaling})));
    let mut manifest = side("web", 80);
    manifest["spec"]["autoscaling"] = json!({"targetRef": {"kind": "Deployment", "name": "shop"}, "maxReplicas": 5});
    see(&mut cache, forward(manifest));
    assert_eq!(scaling(&cache), [Subject::Gateway(key("edge")), Subject::Forward(key("web"))]);
    see(&mut cache, forward(side("web", 80)));
    assert_eq!(scaling(&cache), [Subject::Gateway(key("edge"))]);
}

#[test]
fn a_gateway_is_touched_by_its_spec_and_its_identity() {
    let mut cache = complete();
    let gateways = keys(&["edge"]);
    assert_eq!(see(&mut cache, gateway(&json!({}))).changes.gateways, gateways);
    let same = see(&mut cache, gateway_of(&json!({}), 2));
    assert!(same.changes.is_empty() && same.gateways == gateways, "its status may be another");
    assert_eq!(see(&mut cache, gateway(&json!({"replicas": 3}))).changes.gateways, gateways);
    let Object::Gateway(name, read) = gateway(&json!({"replicas": 3})) else { panic!("a gateway") };
    let mut recreated = read.expect("readable");
    recreated.metadata.uid = Some("other".to_owned());
    let touched = see(&mut cache, Object::Gateway(name, Box::new(Ok(recreated))));
    assert_eq!(touched.changes.gateways, gateways);
    assert_eq!(gone(&mut cache, Kind::Gateways, "edge").changes.gateways, gateways);
    assert!(cache.gateways().is_empty() && cache.gateway(&key("edge")).is_none());
}

#[test]
fn a_gateway_that_cannot_be_read_stays_as_it_was_with_its_new_metadata() {
    let mut cache = complete();
    see(&mut cache, gateway_of(&json!({"replicas": 3}), 7));
    assert!(cache.can_read(&Subject::Gateway(key("edge"))) && cache.unreadable_gateway(&key("edge")).is_none());
    let touched = see(&mut cache, unreadable_gateway());
    assert!(touched.changes.is_empty() && touched.gateways == keys(&["edge"]));
    assert!(!cache.can_read(&Subject::Gateway(key("edge"))));
    assert_eq!(cache.unreadable_gateway(&key("edge")), Some("unknown variant"));
    let known = cache.gateway(&key("edge")).expect("there");
    assert_eq!((known.spec.replicas, known.metadata.generation), (Some(3), Some(1)));
    assert_eq!(cache.gateways(), keys(&["edge"]));
    see(&mut cache, gateway(&json!({})));
    assert!(cache.can_read(&Subject::Gateway(key("edge"))), "it was mended");
}

#[test]
fn an_object_can_be_read_if_it_is_there_and_its_newest_version_can() {
    let mut cache = complete();
    let web_can = |cache: &Cache| cache.can_read(&Subject::Forward(key("web")));
    assert!(!web_can(&cache) && !cache.can_read(&Subject::Gateway(key("edge"))));
    see(&mut cache, forward(web("web", 80, 1)));
    assert!(web_can(&cache));
    see(&mut cache, unreadable_forward("web", 2));
    assert!(!web_can(&cache));
}

fn with_ports(ports: &[(&str, u16)], gateway: Option<&str>) -> Object {
    let ports = ports.iter().map(|(name, port)| ((*name).to_owned(), Protocol::Tcp, *port)).collect();
    let info = ServiceInfo { ports, gateway: gateway.map(str::to_owned), ..ServiceInfo::default() };
    Object::Service(key("svc"), info)
}

#[test]
fn a_service_of_a_gateway_touches_the_gateway() {
    let mut cache = complete();
    let touched = see(&mut cache, with_ports(&[("web", 80)], Some("edge")));
    assert_eq!((touched.gateways, touched.changes.services), (keys(&["edge"]), keys(&["svc"])));
    let again = see(&mut cache, with_ports(&[("web", 80)], Some("edge")));
    assert_eq!(again, Touched { gateways: keys(&["edge"]), ..Touched::default() }, "its addresses may be others");
    let gone = gone(&mut cache, Kind::Services, "svc");
    assert_eq!((gone.gateways, gone.changes.services), (keys(&["edge"]), keys(&["svc"])));
    assert!(cache.services.is_empty());
}

#[test]
fn the_ports_and_the_host_of_a_service_are_its_shape() {
    let mut cache = complete();
    let services = |touched: &Touched| touched.changes.services == keys(&["svc"]);
    assert!(services(&see(&mut cache, with_ports(&[("web", 80)], None))));
    assert!(services(&see(&mut cache, with_ports(&[("web", 81)], None))));
    let external = |host: &str| {
        Object::Service(key("svc"), ServiceInfo { external: Some(host.to_owned()), ..ServiceInfo::default() })
    };
    assert!(services(&see(&mut cache, external("a.example"))));
    assert!(services(&see(&mut cache, external("b.example"))));
    assert!(see(&mut cache, external("b.example")).changes.is_empty());
    let udp = ServiceInfo { ports: vec![("web".to_owned(), Protocol::Udp, 81)], ..ServiceInfo::default() };
    see(&mut cache, with_ports(&[("web", 81)], None));
    assert!(services(&see(&mut cache, Object::Service(key("svc"), udp))), "another protocol");
}

fn slice(name: &str, service: &str, is_udp: bool, address: &str) -> Object {
    let addresses = BTreeSet::from([address.parse::<std::net::SocketAddr>().expect("an address").into()]);
    let endpoints = BTreeMap::from([(("web".to_owned(), is_udp), addresses)]);
    Object::Slice(key(name), SliceInfo { service: service.to_owned(), endpoints, ..SliceInfo::default() })
}

fn endpoints(cache: &Cache) -> Vec<String> {
    let Some(Service::Cluster(ports)) = cache.world.services.get(&key("svc")) else { return Vec::new() };
    ports.iter().flat_map(|port| &port.endpoints).map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn endpoints_follow_their_service_protocol_and_slice() {
    let mut cache = complete();
    see(&mut cache, slice("one", "svc", false, "10.0.0.1:80"));
    see(&mut cache, with_ports(&[("web", 80)], None));
    assert_eq!(endpoints(&cache), ["10.0.0.1:80"], "the slice came first");
    let touched = see(&mut cache, slice("two", "svc", true, "10.0.0.2:80"));
    assert!(touched.changes.is_empty(), "that is UDP");
    let touched = see(&mut cache, slice("one", "svc", false, "10.0.0.3:80"));
    assert_eq!(touched.changes.endpoints, keys(&["svc"]));
    assert_eq!(endpoints(&cache), ["10.0.0.3:80"], "a slice replaces what it said");
    see(&mut cache, slice("one", "other", false, "10.0.0.3:80"));
    assert!(endpoints(&cache).is_empty(), "it is of another Service now");
    see(&mut cache, slice("three", "svc", false, "10.0.0.4:80"));
    assert_eq!(gone(&mut cache, Kind::Slices, "three").changes.endpoints, keys(&["svc"]));
    assert!(endpoints(&cache).is_empty());
}

#[test]
fn changes_add_up() {
    let one = Changes { all: true, grants: true, forwards: keys(&["a"]), ..Changes::default() };
    let other = Changes {
        all: true,
        grants: true,
        forwards: keys(&["b"]),
        gateways: keys(&["c"]),
        services: keys(&["d"]),
        endpoints: keys(&["e"]),
        pods: keys(&["f"]),
        namespaces: BTreeSet::from(["g".to_owned()]),
    };
    let mut sum = one.clone();
    sum.absorb(other.clone());
    assert_eq!(sum, Changes { forwards: keys(&["a", "b"]), ..other.clone() });
    sum.absorb(Changes::default());
    assert!(sum.all && sum.grants && !sum.is_empty() && Changes::default().is_empty());
    let mut touched = Touched { synced: true, ..Touched::default() };
    touched.absorb(Touched { synced: true, changes: other.clone(), forwards: keys(&["x"]), ..Touched::default() });
    touched.absorb(Touched { proxy_pods: keys(&["y"]), gateways: keys(&["z"]), ..Touched::default() });
    let expected = Touched {
        synced: true,
        changes: other,
        forwards: keys(&["x"]),
        proxy_pods: keys(&["y"]),
        gateways: keys(&["z"]),
        grown: Vec::new(),
    };
    assert_eq!(touched, expected);
}

#[test]
fn an_object_beyond_the_limit_is_known_once_there_is_room() {
    let forwards = source(Kind::Forwards);
    let mut cache = Cache::new(World::default(), [forwards.clone()]).bounded(1);
    cache.apply(&forwards, Seen::Restarted);
    see(&mut cache, forward(web("a", 80, 1)));
    assert_eq!(see(&mut cache, forward(web("b", 81, 1))), Touched::default());
    cache.apply(&forwards, Seen::Synced);
    assert_eq!((see(&mut cache, forward(web("c", 82, 1))), cache.left_out), (Touched::default(), 2));
    gone(&mut cache, Kind::Forwards, "a");
    assert!(!see(&mut cache, forward(web("c", 82, 1))).changes.is_empty());
    assert_eq!(cache.left_out, 2);
}

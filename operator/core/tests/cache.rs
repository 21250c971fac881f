//! The cache turns watch events into changes of the world.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::collections::BTreeMap;

use crds::{PortForward, Protocol};
use operator_core::{
    Cache, ObjectKey, Service, World,
    world::{
        objects::{Object, PodInfo, ServiceInfo, SliceInfo, Unreadable},
        watched::{Kind, Seen, Source},
    },
};

fn source(kind: Kind) -> Source {
    Source { kind, namespace: None }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn endpoint(address: &str) -> proxy_api::Endpoint {
    address.parse::<std::net::SocketAddr>().expect("an address").into()
}

fn upsert(object: Object) -> Seen {
    Seen::Upsert(Box::new(object))
}

fn forward(name: &str, port: u16) -> PortForward {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {
            "placement": {"sidecar": {"selector": {}}},
            "listeners": [{"name": "l", "protocol": "TCP", "port": port, "backends": [{"local": {"port": 1}}]}],
        },
    }))
    .expect("a forward")
}

fn readable(name: &str, port: u16) -> Seen {
    upsert(Object::Forward(key(name), Box::new(Ok(forward(name, port)))))
}

#[test]
fn the_cache_is_not_synced_before_every_list_and_after_a_gap() {
    let forwards = source(Kind::Forwards);
    let mut cache = Cache::new(World::default(), [forwards.clone(), source(Kind::Services)]);
    cache.apply(&forwards, Seen::Restarted);
    cache.apply(&forwards, readable("a", 1));
    assert!(!cache.apply(&forwards, Seen::Synced).synced && !cache.is_synced(), "Services are not listed yet");
    cache.apply(&source(Kind::Services), Seen::Restarted);
    assert!(cache.apply(&source(Kind::Services), Seen::Synced).synced && cache.is_synced());
    cache.apply(&forwards, Seen::Restarted);
    assert!(!cache.is_synced(), "a watch lists again after a gap");
    cache.apply(&forwards, readable("b", 2));
    assert!(
        cache.world.forwards.contains_key(&key("a")),
        "objects that the new list has not shown yet stay until the list ends"
    );
    assert!(cache.apply(&forwards, Seen::Synced).synced);
    let names: Vec<&str> = cache.world.forwards.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["b"], "'a' was deleted during the gap");
    cache.expect(&Source { kind: Kind::Pods, namespace: Some("ns".into()) });
    assert!(!cache.is_synced(), "one more source must sync");
}

#[test]
fn objects_beyond_the_limit_are_left_out_and_counted() {
    let forwards = source(Kind::Forwards);
    let mut cache = Cache::new(World::default(), [forwards.clone()]).bounded(2);
    let list = |cache: &mut Cache, names: &[&str]| {
        cache.apply(&forwards, Seen::Restarted);
        for name in names {
            cache.apply(&forwards, readable(name, 1));
        }
        cache.apply(&forwards, Seen::Synced);
        cache.world.forwards.keys().map(|key| key.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((list(&mut cache, &["a", "b", "c"]), cache.left_out), (vec!["a".to_owned(), "b".to_owned()], 1));
    cache.apply(&forwards, readable("b", 2));
    assert_eq!(cache.left_out, 1, "a known object may change");
    assert_eq!(list(&mut cache, &["c", "d"]), ["c", "d"], "a new list starts with all the room");
}

#[test]
fn a_forward_that_becomes_unreadable_stays_as_it_was_and_is_marked_unreadable() {
    let forwards = source(Kind::Forwards);
    let mut cache = Cache::new(World::default(), [forwards.clone()]);
    cache.apply(&forwards, readable("a", 1));
    let metadata = serde_json::from_value(serde_json::json!({"generation": 7})).expect("metadata");
    let newer = Unreadable { why: "unknown variant `SCTP`".into(), metadata, class: String::new() };
    let unreadable = upsert(Object::Forward(key("a"), Box::new(Err(newer))));
    assert!(cache.apply(&forwards, unreadable).changes.forwards.contains(&key("a")));
    assert_eq!(cache.world.forwards[&key("a")].spec.listeners[0].port, Some(1));
    let translation = operator_core::translate(&cache.world);
    assert_eq!(translation.verdicts[&(&key("a")).into()].accepted.reason.as_str(), "Unsupported");
    assert_eq!(
        cache.forward(&key("a")).expect("there").metadata.generation,
        Some(7),
        "the status is about the newest generation"
    );
    cache.apply(&forwards, readable("a", 2));
    assert!(cache.world.unreadable.is_empty(), "the forward is readable again");
}

#[test]
fn a_status_write_causes_no_translation() {
    let forwards = source(Kind::Forwards);
    let mut cache = Cache::new(World::default(), [forwards.clone()]);
    assert!(!cache.apply(&forwards, readable("a", 1)).changes.is_empty());
    let mut same = forward("a", 1);
    same.status = Some(crds::PortForwardStatus { observed_generation: Some(1), ..Default::default() });
    let touched = cache.apply(&forwards, upsert(Object::Forward(key("a"), Box::new(Ok(same)))));
    assert!(touched.changes.is_empty() && touched.forwards.contains(&key("a")));
    assert!(!cache.apply(&forwards, readable("a", 2)).changes.is_empty());
}

#[test]
fn endpoints_come_from_all_slices_of_a_service_and_go_with_them() {
    let (services, slices) = (source(Kind::Services), source(Kind::Slices));
    let mut cache = Cache::new(World::default(), [services.clone(), slices.clone()]);
    let info = ServiceInfo { ports: vec![("web".into(), Protocol::Tcp, 80)], ..ServiceInfo::default() };
    cache.apply(&services, upsert(Object::Service(key("web"), info)));
    let slice = |address: &str| {
        let addresses = std::iter::once(endpoint(address)).collect();
        SliceInfo {
            service: "web".into(),
            endpoints: BTreeMap::from([(("web".to_owned(), false), addresses)]),
            ..SliceInfo::default()
        }
    };
    cache.apply(&slices, upsert(Object::Slice(key("web-1"), slice("10.0.0.1:8080"))));
    cache.apply(&slices, upsert(Object::Slice(key("web-2"), slice("10.0.0.2:8080"))));
    let endpoints = |cache: &Cache| match &cache.world.services[&key("web")] {
        Service::Cluster(ports) => ports[0].endpoints.len(),
        Service::Portless(_) | Service::External { .. } => panic!("the Service has ports"),
    };
    assert_eq!(endpoints(&cache), 2);
    let again = cache.apply(&slices, upsert(Object::Slice(key("web-2"), slice("10.0.0.2:8080"))));
    assert!(again.changes.is_empty(), "the same slice again changes nothing");
    let touched = cache.apply(&slices, Seen::Gone(key("web-1"))).changes;
    assert!(
        touched.endpoints.contains(&key("web")) && touched.services.is_empty(),
        "only endpoints change, the ports stay"
    );
    assert_eq!(endpoints(&cache), 1);
    cache.apply(&services, Seen::Gone(key("web")));
    assert!(cache.world.services.is_empty());
}

#[test]
fn the_service_of_the_api_server_comes_and_goes_with_its_own_watches() {
    let of_default = |kind: Kind| Source { kind, namespace: Some("default".to_owned()) };
    let (services, slices) = (of_default(Kind::ApiServer), of_default(Kind::ApiServerSlices));
    let mut cache = Cache::new(World::default(), [services.clone(), slices.clone()]);
    assert!(!cache.is_synced(), "its addresses are known before the operator works");
    let kubernetes = ObjectKey::new("default", "kubernetes");
    let info = ServiceInfo { ports: vec![("https".into(), Protocol::Tcp, 443)], ..ServiceInfo::default() };
    cache.apply(&services, upsert(Object::Service(kubernetes.clone(), info)));
    let addresses = std::iter::once(endpoint("192.0.2.10:6443")).collect();
    let endpoints = BTreeMap::from([(("https".to_owned(), false), addresses)]);
    let slice = SliceInfo { service: "kubernetes".into(), endpoints, ..SliceInfo::default() };
    cache.apply(&slices, upsert(Object::Slice(kubernetes.clone(), slice)));
    let known = |cache: &Cache| -> usize {
        let Some(Service::Cluster(ports)) = cache.world.services.get(&kubernetes) else { return 0 };
        ports.iter().map(|port| port.endpoints.len()).sum()
    };
    assert_eq!(known(&cache), 1);
    let gone = cache.apply(&slices, Seen::Gone(kubernetes.clone()));
    assert!(gone.changes.endpoints.contains(&kubernetes) && known(&cache) == 0);
    cache.apply(&services, Seen::Gone(kubernetes.clone()));
    assert!(cache.world.services.is_empty());
}

#[test]
fn a_service_without_ports_has_the_pods_of_its_slices() {
    let (services, slices) = (source(Kind::Services), source(Kind::Slices));
    let mut cache = Cache::new(World::default(), [services.clone(), slices.clone()]);
    cache.apply(&services, upsert(Object::Service(key("rtp"), ServiceInfo::default())));
    let hosts = |address: &str| std::iter::once(address.parse().expect("an address")).collect();
    let slice = |address: &str| SliceInfo { service: "rtp".into(), hosts: hosts(address), ..SliceInfo::default() };
    let touched = cache.apply(&slices, upsert(Object::Slice(key("rtp-1"), slice("10.0.0.1"))));
    assert!(touched.changes.endpoints.contains(&key("rtp")));
    assert_eq!(cache.world.services[&key("rtp")], Service::Portless(hosts("10.0.0.1")));
    // A Service gains or loses ports before its slices follow: the pods stay known throughout.
    let ports = ServiceInfo { ports: vec![("rtp".into(), Protocol::Udp, 5004)], ..ServiceInfo::default() };
    assert!(cache.apply(&services, upsert(Object::Service(key("rtp"), ports))).changes.services.contains(&key("rtp")));
    let addresses = std::iter::once(endpoint("10.0.0.1:5004")).collect();
    let with_port =
        SliceInfo { endpoints: BTreeMap::from([(("rtp".to_owned(), true), addresses)]), ..slice("10.0.0.1") };
    cache.apply(&slices, upsert(Object::Slice(key("rtp-1"), with_port)));
    assert!(matches!(&cache.world.services[&key("rtp")], Service::Cluster(ports) if ports[0].endpoints.len() == 1));
    cache.apply(&services, upsert(Object::Service(key("rtp"), ServiceInfo::default())));
    assert_eq!(cache.world.services[&key("rtp")], Service::Portless(hosts("10.0.0.1")));
}

#[test]
fn pods_of_a_fleet_are_no_sidecars_and_a_terminating_pod_stays_until_it_is_gone() {
    let pods = Source { kind: Kind::Pods, namespace: Some("ns".into()) };
    let mut cache = Cache::new(World::default(), [pods.clone()]);
    let pod = |role: Option<&str>, leaving| {
        let labels = role.map(|role| ("portlane.dev/proxy".to_owned(), role.to_owned())).into_iter().collect();
        PodInfo { labels, leaving, ..PodInfo::default() }
    };
    for (name, role, leaving) in [("app", None, false), ("fleet", Some("gateway"), false), ("old", None, true)] {
        cache.apply(&pods, upsert(Object::Pod(key(name), pod(role, leaving))));
    }
    let names: Vec<&str> = cache.world.pods.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["app", "old"]);
    assert!(cache.world.pods[&key("old")].leaving);
    let touched = cache.apply(&pods, upsert(Object::Pod(key("app"), pod(None, true))));
    assert!(touched.changes.pods.contains(&key("app")), "pod counts must be updated");
    cache.apply(&pods, Seen::Gone(key("app")));
    assert!(!cache.world.pods.contains_key(&key("app")));
    cache.forget_pods("ns");
    assert!(cache.pod(&key("app")).is_none() && cache.watched_pods().is_empty());
}

//! Gateways, Services, endpoints, and what the cache knows of all objects together.

use crate::cluster_agents::agent;
use crate::scene::{
    forward, gateway, gateway_of, key, keys, ms, side, source, unreadable_forward, unreadable_gateway, web,
};
use crds::Protocol;
use operator_core::{
    Cache, Changes, Service, Subject, Touched, World,
    world::{
        objects::{Object, ServiceInfo, SliceInfo, Unreadable},
        watched::{Kind, Seen},
    },
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

use super::{complete, gone, see};

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
    let home_can = |cache: &Cache| cache.can_read(&Subject::Agent(key("home")));
    assert!(!home_can(&cache));
    see(&mut cache, agent("home", 1, &json!({})));
    assert!(home_can(&cache));
    see(&mut cache, Object::Agent(key("home"), Box::new(Err(Unreadable::default()))));
    assert!(!home_can(&cache));
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
fn a_service_that_leaves_a_gateway_or_has_its_name_touches_the_gateway() {
    let mut cache = complete();
    see(&mut cache, with_ports(&[("web", 80)], Some("edge")));
    let left = see(&mut cache, with_ports(&[("web", 80)], None));
    assert_eq!(left.gateways, keys(&["edge"]), "a user removed the label");
    assert!(see(&mut cache, with_ports(&[("web", 80)], None)).gateways.is_empty());
    see(&mut cache, gateway(&json!({})));
    let foreign = || Object::Service(key("edge"), ServiceInfo::default());
    assert_eq!(see(&mut cache, foreign()).gateways, keys(&["edge"]), "the name is taken");
    assert_eq!(gone(&mut cache, Kind::Services, "edge").gateways, keys(&["edge"]), "and free again");
    assert!(gone(&mut cache, Kind::Services, "svc").gateways.is_empty());
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
    assert_eq!(endpoints(&cache), ["10.0.0.3:80"], "a slice replaces its earlier version");
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
        agents: keys(&["k"]),
        agents_at: keys(&["l"]),
        crowded: keys(&["m"]),
        gateways: keys(&["c"]),
        services: keys(&["d"]),
        endpoints: keys(&["e"]),
        podless: keys(&["h"]),
        reach: keys(&["i"]),
        fronts: keys(&["j"]),
        peers: keys(&["n"]),
        sidecar_pods: keys(&["o"]),
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
    let agents = keys(&["w"]);
    touched.absorb(Touched { proxy_pods: keys(&["y"]), gateways: keys(&["z"]), agents, ..Touched::default() });
    let expected = Touched {
        synced: true,
        changes: other,
        forwards: keys(&["x"]),
        proxy_pods: keys(&["y"]),
        gateways: keys(&["z"]),
        agents: keys(&["w"]),
        grown: Vec::new(),
    };
    assert_eq!(touched, expected);
}

// C14
#[test]
fn a_watch_that_left_objects_out_lists_again_once_there_is_room_but_no_more_than_once_a_minute() {
    let forwards = source(Kind::Forwards);
    let mut cache = Cache::new(World::default(), [forwards.clone()]).bounded(1);
    let list = |cache: &mut Cache, names: &[&str]| {
        cache.apply(&forwards, Seen::Restarted);
        for name in names {
            see(cache, forward(web(name, 80, 1)));
        }
        cache.apply(&forwards, Seen::Synced);
        cache.left_out
    };
    assert_eq!(list(&mut cache, &["a", "b", "c"]), 2);
    assert!(cache.due_lists(ms(0)).is_empty(), "no room yet");
    gone(&mut cache, Kind::Forwards, "b");
    assert!(cache.due_lists(ms(0)).is_empty(), "an object that was left out made no room");
    gone(&mut cache, Kind::Forwards, "a");
    assert_eq!(cache.due_lists(ms(0)), std::slice::from_ref(&forwards));
    assert!(cache.due_lists(ms(1)).is_empty(), "once");
    assert_eq!(list(&mut cache, &["b", "c"]), 1);
    gone(&mut cache, Kind::Forwards, "b");
    assert!(cache.due_lists(ms(59_999)).is_empty());
    assert_eq!(cache.due_lists(ms(60_000)), std::slice::from_ref(&forwards));
    assert_eq!(list(&mut cache, &["c"]), 0, "everything is known");
    gone(&mut cache, Kind::Forwards, "c");
    assert!(cache.due_lists(ms(200_000)).is_empty());
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

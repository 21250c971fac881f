//! The reach of a gateway's fleet, and which endpoints are pods.

use std::{collections::BTreeSet, net::IpAddr};

use operator_core::{
    Cache,
    world::{
        objects::{Object, PodInfo, ServiceInfo, SliceInfo},
        reach::{Front, Reach},
        watched::{Kind, Seen},
    },
};
use serde_json::json;

use super::{complete, gone, see};
use crate::scene::{fleet_pod, gateway, key, keys, source};

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// A pod of the fleet of `edge` with this address, on this node.
fn pod(name: &str, ip: &str, node: &str) -> PodInfo {
    let labels = [("app".to_owned(), "edge".to_owned())].into();
    PodInfo { ips: ips(&[ip]), node_ips: ips(&[node]), labels, ..fleet_pod(name, true) }
}

/// A Service at 10.96.0.1 that selects the pods with this label.
fn service(app: &str) -> ServiceInfo {
    let front = Front { addresses: ips(&["10.96.0.1"]), ..Front::default() };
    ServiceInfo { selector: [("app".to_owned(), app.to_owned())].into(), front, ..ServiceInfo::default() }
}

fn reach(cache: &Cache) -> Reach {
    cache.world.reach.get(&key("edge")).cloned().unwrap_or_default()
}

fn fronts(cache: &Cache) -> Vec<String> {
    reach(cache).fronts.into_keys().collect()
}

#[test]
fn a_fleet_is_reached_at_its_pods_and_runs_on_their_nodes() {
    let mut cache = complete();
    assert!(see(&mut cache, Object::ProxyPod(key("p1"), pod("p1", "10.0.0.1", "192.0.2.1"))).changes.is_empty());
    let touched = see(&mut cache, gateway(&json!({})));
    assert_eq!((touched.changes.reach, touched.changes.fronts), (keys(&["edge"]), keys(&[])));
    let touched = see(&mut cache, Object::ProxyPod(key("p2"), pod("p2", "10.0.0.2", "192.0.2.1")));
    assert_eq!(touched.changes.reach, keys(&["edge"]));
    assert_eq!((reach(&cache).pods, reach(&cache).nodes), (ips(&["10.0.0.1", "10.0.0.2"]), ips(&["192.0.2.1"])));
    let unready = PodInfo { ready: false, ..pod("p2", "10.0.0.2", "192.0.2.1") };
    assert!(see(&mut cache, Object::ProxyPod(key("p2"), unready)).changes.is_empty(), "its address is the same");
    let leaving = PodInfo { leaving: true, ..pod("p2", "10.0.0.2", "192.0.2.1") };
    assert_eq!(see(&mut cache, Object::ProxyPod(key("p2"), leaving)).changes.reach, keys(&["edge"]));
    assert_eq!(reach(&cache).pods, ips(&["10.0.0.1"]), "another pod may get the address of one that leaves");
    let thief = PodInfo { service_account: "default".to_owned(), ..pod("thief", "10.0.0.9", "192.0.2.9") };
    assert!(see(&mut cache, Object::ProxyPod(key("thief"), thief)).changes.is_empty(), "a label alone does not count");
    assert_eq!(gone(&mut cache, Kind::ProxyPods, "p1").changes.reach, keys(&["edge"]));
    assert!(cache.world.reach.is_empty());
}

#[test]
fn the_services_that_select_a_fleet_are_in_front_of_it() {
    let mut cache = complete();
    see(&mut cache, gateway(&json!({})));
    assert!(see(&mut cache, Object::Service(key("lb"), service("edge"))).changes.fronts.is_empty(), "there is no pod");
    let touched = see(&mut cache, Object::ProxyPod(key("p1"), pod("p1", "10.0.0.1", "192.0.2.1")));
    assert_eq!((touched.changes.fronts, fronts(&cache)), (keys(&["edge"]), vec!["lb".to_owned()]));
    see(&mut cache, Object::Service(key("web"), service("web")));
    see(&mut cache, Object::Service(key("none"), ServiceInfo { selector: [].into(), ..service("edge") }));
    assert_eq!(fronts(&cache), ["lb"], "the others select other pods, or none");
    let child = ServiceInfo { gateway: Some("edge".to_owned()), ..service("not known") };
    assert_eq!(see(&mut cache, Object::Service(key("edge"), child.clone())).changes.fronts, keys(&["edge"]));
    assert_eq!(fronts(&cache), ["edge", "lb"], "the gateway's own Service counts before its pods are there");
    assert!(see(&mut cache, Object::Service(key("edge"), child)).changes.reach.is_empty());
    assert_eq!(gone(&mut cache, Kind::Services, "lb").changes.fronts, keys(&["edge"]));
    assert_eq!(gone(&mut cache, Kind::Gateways, "edge").changes.fronts, keys(&["edge"]));
    assert!(cache.world.reach.is_empty());
}

#[test]
fn an_endpoint_is_a_pod_by_a_slice_that_says_so_of_a_service_with_a_selector() {
    let slice = |hosts: &[&str], podless: &[&str]| SliceInfo {
        service: "svc".to_owned(),
        hosts: ips(hosts),
        podless: ips(podless),
        ..SliceInfo::default()
    };
    let mut cache = complete();
    see(&mut cache, Object::Service(key("svc"), service("web")));
    let podless = |cache: &Cache| cache.world.podless.get(&key("svc")).cloned().unwrap_or_default();
    assert!(see(&mut cache, Object::Slice(key("one"), slice(&["10.0.0.1"], &[]))).changes.podless.is_empty());
    let by_hand = slice(&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(see(&mut cache, Object::Slice(key("two"), by_hand)).changes.podless, keys(&["svc"]));
    assert_eq!(podless(&cache), ips(&["10.0.0.2"]), "the other one is a pod by the other slice");
    let without = ServiceInfo { selector: [].into(), ..service("web") };
    assert_eq!(see(&mut cache, Object::Service(key("svc"), without)).changes.podless, keys(&["svc"]));
    assert_eq!(podless(&cache), ips(&["10.0.0.1", "10.0.0.2"]), "without a selector no controller checks a slice");
    gone(&mut cache, Kind::Services, "svc");
    assert!(cache.world.podless.is_empty());
}

// C11: a list costs one walk over Services and proxies for each fleet that the list concerns.
#[test]
fn a_list_of_services_computes_the_reach_of_a_fleet_once() {
    let mut cache = complete();
    see(&mut cache, gateway(&json!({})));
    see(&mut cache, Object::ProxyPod(key("p1"), pod("p1", "10.0.0.1", "192.0.2.1")));
    let before = cache.reaches;
    cache.apply(&source(Kind::Services), Seen::Restarted);
    for number in 0..100 {
        see(&mut cache, Object::Service(key(&format!("s{number}")), service("edge")));
    }
    assert_eq!(cache.reaches, before, "the list is not complete");
    let touched = cache.apply(&source(Kind::Services), Seen::Synced);
    assert_eq!(cache.reaches, before + 1);
    assert_eq!((touched.changes.fronts, fronts(&cache).len()), (keys(&["edge"]), 100));
}

#[test]
fn readiness_and_ports_do_not_compute_the_reach_of_a_fleet() {
    let mut cache = complete();
    see(&mut cache, gateway(&json!({})));
    see(&mut cache, Object::ProxyPod(key("p1"), pod("p1", "10.0.0.1", "192.0.2.1")));
    see(&mut cache, Object::Service(key("s"), service("edge")));
    let before = cache.reaches;
    see(&mut cache, Object::ProxyPod(key("p1"), PodInfo { ready: false, ..pod("p1", "10.0.0.1", "192.0.2.1") }));
    let ports = vec![("http".to_owned(), crds::Protocol::Tcp, 80)];
    see(&mut cache, Object::Service(key("s"), ServiceInfo { ports, ..service("edge") }));
    assert_eq!(cache.reaches, before);
    see(&mut cache, Object::Service(key("s"), service("other")));
    assert_eq!((cache.reaches, fronts(&cache)), (before + 1, Vec::new()));
}

#[test]
fn agents_reach_pods_with_a_sidecar_and_no_others() {
    let mut cache = complete();
    let pod = |role: &str, gateway: Option<&str>| {
        let labels = [("portlane.dev/proxy".to_owned(), role.to_owned())].into();
        let (uid, ip, gateway) = ("u".to_owned(), "10.0.0.1".parse().ok(), gateway.map(str::to_owned));
        PodInfo { uid, labels, ip, gateway, ..PodInfo::default() }
    };
    let mut is_reached = |pod: PodInfo| {
        see(&mut cache, Object::ProxyPod(key("a"), pod));
        cache.world.sidecar_pods.contains_key(&key("a"))
    };
    assert!(is_reached(pod("sidecar", None)));
    assert!(!is_reached(pod("drainer", None)) && !is_reached(pod("sidecar", Some("edge"))));
    assert!(is_reached(pod("sidecar", None)));
    assert!(!is_reached(PodInfo { uid: String::new(), ..pod("sidecar", None) }), "no certificate names this pod");
}

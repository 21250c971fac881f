//! `EndpointSlices` whose label moves from one Service to another: a user who may write them can do that, or write one by
//! hand. A controller reverts some of it within about a second.

use std::net::IpAddr;

use operator_core::{
    Group, ObjectKey,
    world::{
        objects::{Object, PodInfo},
        read,
    },
};
use proxy_api::{Digest, Origin};
use serde_json::{Value, json};

use crate::{
    read_objects::of,
    scene::{Scene, fleet_pod},
};

/// The manager of slices with the pods of Services that have a selector.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// A slice of the namespace `shop` with one endpoint.
struct Slice {
    name: &'static str,
    /// The manager, by the label of the slice.
    by: &'static str,
    /// Namespace of the pod that the endpoint refers to; empty: it refers to none.
    pod_of: &'static str,
    address: &'static str,
    port: u16,
}

/// The pod behind `pg`, and the one behind `web`.
const PG: Slice = Slice { name: "pg-1", by: CONTROLLER, pod_of: "shop", address: "10.1.0.1", port: 5432 };
const WEB: Slice = Slice { name: "web-1", by: CONTROLLER, pod_of: "shop", address: "10.1.0.2", port: 5432 };
/// What a user wrote for `ext`.
const EXT: Slice = Slice { name: "ext-1", by: "staff", pod_of: "", address: "198.51.100.7", port: 5432 };

/// The Services `pg` and `web`, whose pods a selector finds, and `ext` without a selector. A forward of the same name
/// leads to each of them, in a gateway of another namespace.
struct Cluster {
    scene: Scene,
}

fn edge() -> ObjectKey {
    ObjectKey::new("infra", "edge")
}

fn service(namespace: &str, name: &str, spec: &Value) -> Object {
    read::service(&of(json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec})))
}

/// The forward of the namespace `shop` from this port to the Service of its name.
fn forward(name: &str, port: u16) -> Object {
    let backend = json!({"service": {"name": name, "port": 5432}});
    let forward = json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "placement": {"gateway": {"name": "edge", "namespace": "infra"}},
            "listeners": [{"name": "l", "protocol": "TCP", "port": port, "backends": [backend]}],
        },
    });
    Object::Forward(ObjectKey::new("shop", name), Box::new(Ok(of(forward))))
}

impl Cluster {
    /// The gateway admits every namespace, and allows these networks.
    fn new(networks: &[&str]) -> Self {
        let mut scene = Scene::new();
        let allowed = json!({"namespaces": {"from": "All"}, "addressCIDRs": networks});
        let gateway = json!({"metadata": {"name": "edge", "namespace": "infra"}, "spec": {"allowedForwards": allowed}});
        scene.see(Object::Gateway(edge(), Box::new(Ok(of(gateway)))));
        let node: IpAddr = "10.0.0.9".parse().expect("an address");
        let pod = PodInfo { node_ips: [node].into(), ..fleet_pod("edge-1", true) };
        scene.see(Object::ProxyPod(ObjectKey::new("infra", "edge-1"), pod));
        let ports = json!([{"name": "pg", "port": 5432}]);
        for (port, name) in [(1, "pg"), (2, "web")] {
            scene.see(service("shop", name, &json!({"selector": {"app": name}, "ports": ports})));
            scene.see(forward(name, port));
        }
        scene.see(service("shop", "ext", &json!({"ports": ports})));
        scene.see(forward("ext", 3));
        let mut cluster = Self { scene };
        cluster.see(&PG, "pg");
        cluster.see(&WEB, "web");
        cluster.see(&EXT, "ext");
        cluster
    }

    /// The API server, with the address of its Service and its own.
    fn with_api_server(mut self) -> Self {
        let spec = json!({"clusterIPs": ["10.96.0.1"], "ports": [{"name": "https", "port": 443}]});
        self.scene.see(service("default", "kubernetes", &spec));
        self.scene.see(read::slice(&of(json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.10"]}],
            "ports": [{"name": "https", "port": 6443}],
        }))));
        self
    }

    /// The slice belongs to this Service from now on.
    fn see(&mut self, slice: &Slice, service: &str) {
        let mut endpoint = json!({"addresses": [slice.address]});
        if !slice.pod_of.is_empty() {
            endpoint["targetRef"] = json!({"kind": "Pod", "namespace": slice.pod_of, "name": "p"});
        }
        let labels = json!({
            "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": slice.by,
        });
        self.scene.see(read::slice(&of(json!({
            "metadata": {"name": slice.name, "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [endpoint],
            "ports": [{"name": "pg", "port": slice.port}],
        }))));
    }

    /// The endpoints of a Service that proxies get.
    fn used(&self, service: &str) -> Vec<String> {
        let snapshot = self.scene.translator.snapshot(&Group::Gateway(edge())).expect("the gateway has a program");
        let (configuration, service) = (snapshot.configuration(), format!("shop/{service}:"));
        let sets = configuration.endpoints.iter().filter(|(name, _)| name.starts_with(&service));
        sets.flat_map(|(_, set)| set.endpoints.iter()).map(|endpoint| endpoint.address.to_string()).collect()
    }

    fn warning(&self, forward: &str) -> &str {
        let verdict = self.scene.translator.verdict(&Origin::port_forward("shop", forward)).expect("a verdict");
        verdict.warnings.first().map(String::as_str).unwrap_or_default()
    }

    fn reason(&self, forward: &str) -> &'static str {
        let verdict = self.scene.translator.verdict(&Origin::port_forward("shop", forward)).expect("a verdict");
        verdict.resolved_refs.reason.as_str()
    }

    /// The digest of everything that proxies get.
    fn digest(&self) -> Digest {
        let snapshot = self.scene.translator.snapshot(&Group::Gateway(edge())).expect("the gateway has a program");
        snapshot.digest.clone()
    }
}

#[test]
fn the_pods_of_a_slice_go_with_its_label_and_come_back_with_it() {
    let mut cluster = Cluster::new(&[]);
    let before = cluster.digest();
    assert_eq!(cluster.used("pg"), ["10.1.0.1:5432"]);
    assert_eq!(cluster.used("web"), ["10.1.0.2:5432"]);
    cluster.see(&PG, "web");
    assert!(cluster.used("pg").is_empty());
    assert_eq!(cluster.used("web"), ["10.1.0.1:5432", "10.1.0.2:5432"], "it is a pod of the namespace");
    cluster.see(&PG, "pg");
    assert_eq!(cluster.digest(), before);
}

#[test]
fn what_is_a_pod_for_one_service_is_an_address_for_a_service_without_a_selector() {
    let mut cluster = Cluster::new(&["198.51.100.0/24"]);
    let before = cluster.digest();
    assert_eq!(cluster.used("ext"), ["198.51.100.7:5432"]);
    assert_eq!(cluster.reason("ext"), "ResolvedRefs");
    cluster.see(&PG, "ext");
    assert!(cluster.used("pg").is_empty());
    assert_eq!(cluster.used("ext"), ["198.51.100.7:5432"]);
    assert!(cluster.warning("ext").contains("such as 10.1.0.1:5432, which has no pod"), "{}", cluster.warning("ext"));
    cluster.see(&PG, "pg");
    assert_eq!((cluster.digest(), cluster.warning("ext")), (before, ""));
}

#[test]
fn a_slice_that_joins_a_service_brings_no_special_address_however_wide_the_networks_are() {
    let mut cluster = Cluster::new(&["0.0.0.0/0"]).with_api_server();
    let before = cluster.digest();
    for (address, port) in [
        ("169.254.169.254", 80),
        ("127.0.0.1", 9181),
        ("10.0.0.8", 10_250),
        ("10.0.0.9", 5432),
        ("192.0.2.10", 6443),
        ("10.96.0.1", 443),
    ] {
        let forged = Slice { name: "ext-1", by: "staff", pod_of: "shop", address, port };
        cluster.see(&forged, "pg");
        assert_eq!(cluster.used("pg"), ["10.1.0.1:5432"], "{address}:{port}");
        assert_eq!(cluster.reason("pg"), "ResolvedRefs", "its pod is left");
        let said = format!("1 of the endpoints of Service shop/pg may not be used, such as {address}:{port}, which");
        assert!(cluster.warning("pg").starts_with(&said), "{address}:{port}: {}", cluster.warning("pg"));
        assert!(cluster.used("ext").is_empty(), "its slice is gone");
        cluster.see(&EXT, "ext");
        assert_eq!((cluster.digest(), cluster.warning("pg")), (before.clone(), ""), "{address}:{port}");
    }
}

#[test]
fn a_slice_that_joins_a_service_brings_no_pod_of_another_namespace() {
    let none: &[&str] = &[];
    for networks in [none, &["198.51.100.0/24"]] {
        let mut cluster = Cluster::new(networks);
        let before = cluster.digest();
        // A pod is one of the namespace, and only the controller of slices says so.
        for (by, pod_of) in [(CONTROLLER, "victim"), (CONTROLLER, ""), ("staff", "shop")] {
            let forged = Slice { name: "ext-1", by, pod_of, address: "10.2.0.5", port: 5432 };
            cluster.see(&forged, "pg");
            assert_eq!(cluster.used("pg"), ["10.1.0.1:5432"], "{by}, {pod_of}");
            assert!(cluster.warning("pg").contains("10.2.0.5:5432, which has no pod"), "{by}, {pod_of}");
            cluster.see(&EXT, "ext");
            assert_eq!((cluster.digest(), cluster.warning("pg")), (before.clone(), ""), "{by}, {pod_of}");
        }
    }
}

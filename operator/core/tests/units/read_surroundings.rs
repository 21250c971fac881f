//! What pods, Services and slices say about where a fleet is, and what counts as a pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use operator_core::{
    Grant, ObjectKey,
    world::{objects::Object, read},
};
use proxy_api::{OriginKind, Transport};
use serde_json::{Value, json};

use crate::read_objects::{of, proxy_pod, service, with_status};

#[test]
fn an_endpoint_is_a_pod_if_the_controller_of_slices_says_that_it_is_a_pod_of_the_namespace() {
    let podless = |by: &str, kind: &str, namespace: &str| {
        let target = json!({"kind": kind, "namespace": namespace, "name": "web-0"});
        let labels = json!({"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": by});
        let slice = of(json!({
            "metadata": {"name": "web-1", "namespace": "ns", "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": target}, {"addresses": ["10.0.0.2"]}],
        }));
        let Object::Slice(_, info) = read::slice(&slice) else { panic!("a slice") };
        info.podless.iter().map(ToString::to_string).collect::<Vec<String>>()
    };
    let both = ["10.0.0.1", "10.0.0.2"];
    assert_eq!(podless("endpointslice-controller.k8s.io", "Pod", "ns"), ["10.0.0.2"]);
    assert_eq!(podless("endpointslice-controller.k8s.io", "Pod", "other"), both);
    assert_eq!(podless("endpointslice-controller.k8s.io", "Node", "ns"), both);
    assert_eq!(podless("endpointslicemirroring-controller.k8s.io", "Pod", "ns"), both);
    assert_eq!(podless("staff", "Pod", "ns"), both);
}

#[test]
fn a_service_says_where_it_listens_and_which_ports_lead_elsewhere() {
    let spec = json!({
        "clusterIPs": ["10.96.0.1", "None"], "externalIPs": ["192.0.2.7"], "loadBalancerIP": "192.0.2.8",
        "selector": {"app": "edge"},
        "ports": [
            {"port": 80, "targetPort": 8080}, {"port": 443, "targetPort": 443}, {"port": 53, "protocol": "UDP", "targetPort": 5353},
            {"port": 9, "targetPort": "name"}, {"port": 10},
        ],
    });
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "LB.example.com."}]}});
    let info = service(&spec, &status);
    let addresses: Vec<String> = info.front.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.96.0.1", "192.0.2.7", "192.0.2.8", "192.0.2.9"]);
    assert_eq!(info.front.hosts, BTreeSet::from(["lb.example.com".to_owned()]));
    assert_eq!(info.front.moved, BTreeSet::from([(Transport::Tcp, 80, 8080), (Transport::Udp, 53, 5353)]));
    assert_eq!(info.selector, BTreeMap::from([("app".to_owned(), "edge".to_owned())]));
    let target = |transport, port| info.front.target(transport, port);
    assert_eq!((target(Transport::Tcp, 80), target(Transport::Udp, 80), target(Transport::Tcp, 81)), (8080, 80, 81));
}

#[test]
fn a_pod_with_a_proxy_says_its_addresses_and_those_of_its_node() {
    let info = proxy_pod(with_status(&json!({
        "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}],
        "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}],
    })));
    let texts = |ips: &BTreeSet<IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<String>>();
    assert_eq!(texts(&info.ips), ["10.0.0.1", "2001:db8::1"]);
    assert_eq!(texts(&info.node_ips), ["192.0.2.1"]);
    let older = proxy_pod(with_status(&json!({"podIP": "10.0.0.1", "hostIP": "192.0.2.1"})));
    assert_eq!(
        (texts(&older.ips), texts(&older.node_ips)),
        (vec!["10.0.0.1".to_owned()], vec!["192.0.2.1".to_owned()])
    );
    let of_two = json!({"podIP": "2001:db8::1", "podIPs": [{"ip": "2001:db8::1"}, {"ip": "10.0.0.1"}]});
    assert_eq!(proxy_pod(with_status(&of_two)).ip, "2001:db8::1".parse().ok(), "the first is the cluster's choice");
}

#[test]
fn a_grant_is_for_forwards_of_each_namespace_that_it_names_and_for_services() {
    let grants = |from: Value, to: Value| {
        let object = of(json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"name": "g", "namespace": "data"}, "spec": {"from": from, "to": to},
        }));
        let Object::Grants(name, grants) = read::grants(&object) else { panic!("grants") };
        assert_eq!(name, ObjectKey::new("data", "g"));
        grants
    };
    let from = |group: &str, kind: &str, namespace: &str| json!({"group": group, "kind": kind, "namespace": namespace});
    let forwards = |namespace: &str| from("portlane.dev", "PortForward", namespace);
    let grant = |from: &str, service: Option<&str>| Grant {
        kind: OriginKind::PortForward,
        from: from.to_owned(),
        to: "data".to_owned(),
        service: service.map(str::to_owned),
    };
    let services = json!([{"group": "", "kind": "Service"}, {"kind": "Service", "name": "db"}]);
    let expected = ["a", "b"].map(|from| [grant(from, None), grant(from, Some("db"))]);
    let expected: BTreeSet<Grant> = expected.into_iter().flatten().collect();
    assert_eq!(grants(json!([forwards("a"), forwards("b")]), services.clone()), expected);
    for other in [from("example.com", "PortForward", "a"), from("portlane.dev", "TCPRoute", "a")] {
        assert!(grants(json!([other]), services.clone()).is_empty(), "{other}");
    }
    for other in [json!({"group": "apps", "kind": "Service"}), json!({"group": "", "kind": "Secret"})] {
        assert!(grants(json!([forwards("a")]), json!([other])).is_empty(), "{other}");
    }
}

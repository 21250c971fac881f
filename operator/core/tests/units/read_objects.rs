//! What is read of the objects of the API server, and what is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crds::{ForwardGateway, PortForward, Protocol};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use kube::core::{PartialObjectMeta, error_boundary::InvalidObject};
use operator_core::{
    CrashLoop, ObjectKey, Subject,
    world::{
        child::{ChildKind, Mark},
        guarded::Guarded,
        managed_fields::{REPLICAS, has_field},
        objects::{AutoscalerCondition, AutoscalerState, Cost, FleetState, Object, PodInfo, ServiceInfo, SliceInfo},
        read,
    },
};
use proxy_api::Transport;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub(crate) fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

/// Metadata with everything that an object may have.
fn full_metadata() -> Value {
    json!({
        "name": "web", "namespace": "ns", "uid": "u", "generation": 3,
        "labels": {"app": "shop"},
        "annotations": {"note": "long"},
        "managedFields": [{"manager": "kubectl"}],
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}],
    })
}

fn guarded<K>(read: Result<K, InvalidObject>) -> Guarded<K> {
    Guarded { read, class: String::new() }
}

fn assert_stripped(metadata: &ObjectMeta) {
    assert_eq!((metadata.uid.as_deref(), metadata.generation), (Some("u"), Some(3)));
    let large = (&metadata.labels, &metadata.annotations, &metadata.managed_fields, &metadata.owner_references);
    assert_eq!(large, (&None, &None, &None, &None), "what is large and means nothing here");
}

#[test]
fn forwards_are_read_without_what_is_large() {
    let forward: PortForward = of(json!({"metadata": full_metadata(), "spec": {"placement": {}, "listeners": []}}));
    let Object::Forward(name, read) = read::forward(guarded(Ok(forward))) else { panic!("a forward") };
    assert_eq!(name, key("web"));
    assert_stripped(&read.expect("readable").metadata);
    let invalid = InvalidObject { error: "why".to_owned(), metadata: of(full_metadata()) };
    let Object::Forward(name, read) = read::forward(guarded(Err(invalid))) else { panic!("a forward") };
    let unreadable = read.expect_err("unreadable");
    assert_eq!((name, unreadable.why.as_str()), (key("web"), "why"));
    assert_stripped(&unreadable.metadata);
}

#[test]
fn gateways_are_read_without_what_is_large() {
    let gateway: ForwardGateway = of(json!({"metadata": full_metadata(), "spec": {}}));
    let Object::Gateway(name, read) = read::gateway(guarded(Ok(gateway))) else { panic!("a gateway") };
    assert_eq!(name, key("web"));
    assert_stripped(&read.expect("readable").metadata);
    let invalid = InvalidObject { error: "why".to_owned(), metadata: of(full_metadata()) };
    let Object::Gateway(name, read) = read::gateway(guarded(Err(invalid))) else { panic!("a gateway") };
    let unreadable = read.expect_err("unreadable");
    assert_eq!((name, unreadable.why.as_str()), (key("web"), "why"));
    assert_stripped(&unreadable.metadata);
}

pub(crate) fn service(spec: &Value, status: &Value) -> ServiceInfo {
    let labels = json!({"portlane.dev/gateway": "edge"});
    let service =
        of(json!({"metadata": {"name": "web", "namespace": "ns", "labels": labels}, "spec": spec, "status": status}));
    let Object::Service(name, info) = read::service(&service) else { panic!("a Service") };
    assert_eq!(name, key("web"));
    info
}

#[test]
fn a_service_has_the_ports_that_a_proxy_can_use() {
    let ports = json!([
        {"name": "web", "port": 80}, {"port": 443, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "other", "port": 9, "protocol": "SCTP"}, {"name": "beyond", "port": 70_000},
    ]);
    let info = service(&json!({"ports": ports}), &json!({}));
    let expected = [("web", Protocol::Tcp, 80), ("", Protocol::Tcp, 443), ("dns", Protocol::Udp, 53)];
    assert_eq!(info.ports, expected.map(|(name, protocol, port)| (name.to_owned(), protocol, port)));
    assert_eq!((info.external, info.gateway.as_deref()), (None, Some("edge")));
}

#[test]
fn a_service_is_another_name_for_a_host_by_its_type_alone() {
    let host = json!("db.example.com");
    let external = service(&json!({"type": "ExternalName", "externalName": host}), &json!({}));
    assert_eq!(external.external.as_deref(), Some("db.example.com"));
    assert_eq!(service(&json!({"type": "ClusterIP", "externalName": host}), &json!({})).external, None);
}

#[test]
fn a_service_is_reached_from_outside_if_it_can_be_or_else_inside() {
    let address = |type_: &str, value: &str| (type_.to_owned(), value.to_owned());
    let inside = json!(["10.0.0.1", "None", "fd00::1"]);
    let given = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}, {}]}});
    let of = |type_: &str, status: &Value| service(&json!({"type": type_, "clusterIPs": inside}), status).addresses;
    let outside = vec![address("IPAddress", "192.0.2.1"), address("Hostname", "lb.example.com")];
    assert_eq!(of("LoadBalancer", &given), outside);
    assert!(of("LoadBalancer", &json!({})).is_empty(), "one that waits for its address says no other");
    assert_eq!(of("NodePort", &given), outside);
    let inside = vec![address("IPAddress", "10.0.0.1"), address("IPAddress", "fd00::1")];
    assert_eq!(of("ClusterIP", &json!({})), inside);
}

#[test]
fn a_slice_has_its_ready_addresses_at_each_port() {
    let slice = of(json!({
        "metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1", "no address"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {}},
            {"addresses": ["10.0.0.3"]},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": false}},
        ],
        "ports": [
            {"name": "web", "port": 8080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"},
            {"name": "other", "port": 9, "protocol": "SCTP"}, {"name": "none"}, {"name": "beyond", "port": 70_000},
        ],
    }));
    let Object::Slice(name, SliceInfo { service, endpoints, hosts, podless }) = read::slice(&slice) else {
        panic!("a slice")
    };
    assert_eq!((name, service.as_str()), (key("web-1"), "web"));
    assert_eq!(podless, hosts, "nothing says that they are pods");
    let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let expected: BTreeSet<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    assert_eq!(hosts, expected);
    let at = |port: u16| -> BTreeSet<proxy_api::Endpoint> {
        let address = |ip: &str| format!("{ip}:{port}").parse::<SocketAddr>().expect("an address");
        ips.iter().map(|ip| address(ip).into()).collect()
    };
    let expected = BTreeMap::from([(("web".to_owned(), false), at(8080)), ((String::new(), true), at(53))]);
    assert_eq!(endpoints, expected);
}

/// A pod as the watch of metadata shows it.
fn pod(metadata: Value) -> PodInfo {
    let pod: PartialObjectMeta<Pod> = PartialObjectMeta { metadata: of(metadata), ..PartialObjectMeta::default() };
    let Object::Pod(name, info) = read::pod(&pod) else { panic!("a pod") };
    assert_eq!(name, key("p"));
    info
}

#[test]
fn the_metadata_of_a_pod_says_what_forwards_depend_on() {
    let info = pod(json!({
        "name": "p", "namespace": "ns", "uid": "u", "labels": {"portlane.dev/gateway": "edge", "app": "shop"},
        "annotations": {"portlane.dev/injection-problem": "why", "portlane.dev/app-ports": "80/TCP"},
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }));
    let labels = [("app", "shop"), ("portlane.dev/gateway", "edge")];
    let expected = PodInfo {
        uid: "u".to_owned(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        leaving: true,
        gateway: Some("edge".to_owned()),
        problem: Some("why".to_owned()),
        app_ports: BTreeSet::from([(Transport::Tcp, 80)]),
        ..PodInfo::default()
    };
    assert_eq!(info, expected);
    assert_eq!(pod(json!({"name": "p", "namespace": "ns"})), PodInfo::default());
}

/// Managed fields in which a manager holds an annotation.
fn managed(manager: &str, annotation: &str) -> Value {
    let field = format!("f:{annotation}");
    let fields = json!({"f:metadata": {"f:annotations": {field: {}}}});
    let entry = json!({"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields});
    json!([{"manager": "kubelet"}, entry])
}

#[test]
fn a_cost_is_of_the_operator_if_its_managed_fields_say_so() {
    let cost = |value: &str, managed: &Value| {
        read::cost_of(&of(json!({"annotations": {COST: value}, "managedFields": managed})))
    };
    assert_eq!(read::cost_of(&ObjectMeta::default()), Cost::Unset);
    assert_eq!(read::cost_of(&of(json!({"annotations": {"other": "1"}}))), Cost::Unset);
    assert_eq!(cost("27", &managed("portlane-operator", COST)), Cost::Ours(27));
    assert_eq!(cost("x", &managed("portlane-operator", COST)), Cost::Foreign, "no number");
    assert_eq!(cost("27", &managed("somebody", COST)), Cost::Foreign);
    assert_eq!(cost("27", &managed("portlane-operator", "other")), Cost::Foreign);
    assert_eq!(cost("27", &json!(null)), Cost::Foreign);
}

#[test]
fn a_field_is_held_if_the_whole_way_to_it_is_there() {
    let entry = |fields: Value| -> ManagedFieldsEntry { of(json!({"fieldsV1": fields})) };
    assert!(has_field(&entry(json!({"f:spec": {"f:replicas": {}}})), &REPLICAS));
    assert!(!has_field(&entry(json!({"f:spec": {"f:template": {}}})), &REPLICAS));
    assert!(!has_field(&entry(json!({"f:replicas": {}})), &REPLICAS));
    assert!(!has_field(&ManagedFieldsEntry::default(), &REPLICAS));
}

/// A pod with a proxy as its watch shows it.
pub(crate) fn proxy_pod(pod: Value) -> PodInfo {
    let Object::ProxyPod(name, info) = read::proxy_pod(&of(pod)) else { panic!("a pod with a proxy") };
    assert_eq!(name, key("p"));
    info
}

pub(crate) fn with_status(status: &Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [{"name": "app"}]}, "status": status})
}

#[test]
fn a_pod_with_a_proxy_is_ready_by_its_condition() {
    let ready = |type_: &str, status: &str| {
        proxy_pod(with_status(&json!({"conditions": [{"type": type_, "status": status}]}))).ready
    };
    assert!(ready("Ready", "True"));
    assert!(!ready("Ready", "False"));
    assert!(!ready("Initialized", "True"));
    assert!(!proxy_pod(with_status(&json!({}))).ready);
}

#[test]
fn a_pod_with_a_proxy_has_the_time_of_its_creation() {
    let mut pod = with_status(&json!({}));
    assert_eq!(proxy_pod(pod.clone()).created, None);
    pod["metadata"]["creationTimestamp"] = json!("1970-01-02T00:00:01Z");
    assert_eq!(proxy_pod(pod).created, Some(86_401));
}

#[test]
fn a_pod_with_a_proxy_leaves_once_it_is_deleted_or_has_ended() {
    let leaving = |phase: &str| proxy_pod(with_status(&json!({"phase": phase}))).leaving;
    assert!(leaving("Succeeded") && leaving("Failed"));
    assert!(proxy_pod(with_status(&json!({"phase": "Failed"}))).ended);
    assert!(!leaving("Running") && !leaving("Pending"));
    let time = "2026-01-01T00:00:00Z";
    let times = json!({"name": "p", "namespace": "ns", "deletionTimestamp": time, "deletionGracePeriodSeconds": 9});
    let deleted = proxy_pod(json!({"metadata": times}));
    assert!(deleted.leaving && !deleted.ended && deleted.grace == 9);
}

#[test]
fn a_pod_with_a_proxy_belongs_to_the_replica_set_that_controls_it() {
    let set = |kind: &str, controller: Value| {
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": "shop-1", "uid": "x", "controller": controller});
        let metadata = json!({"name": "p", "namespace": "ns", "ownerReferences": [owner]});
        proxy_pod(json!({"metadata": metadata})).replica_set
    };
    assert_eq!(set("ReplicaSet", json!(true)).as_deref(), Some("shop-1"));
    assert_eq!(set("ReplicaSet", json!(false)), None);
    assert_eq!(set("ReplicaSet", json!(null)), None);
    assert_eq!(set("StatefulSet", json!(true)), None);
}

#[test]
fn a_pod_with_a_proxy_says_its_account_its_cost_and_a_crash_loop() {
    let app = json!({
        "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
    });
    let mut pod = with_status(&json!({"containerStatuses": [app]}));
    pod["metadata"]["annotations"] = json!({COST: "27"});
    pod["metadata"]["managedFields"] = managed("portlane-operator", COST);
    pod["spec"]["serviceAccountName"] = json!("edge");
    let info = proxy_pod(pod.clone());
    assert_eq!((info.service_account.as_str(), info.cost), ("edge", Cost::Ours(27)));
    assert_eq!(info.crash_loop, Some(CrashLoop { container: "app".to_owned(), exit_code: 3 }));
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(proxy_pod(pod).crash_loop, None, "a pod that is being deleted does not loop");
}

#[test]
fn a_namespace_has_its_labels() {
    let metadata = of(json!({"name": "shop", "labels": {"edge": "ok"}}));
    let namespace: PartialObjectMeta<Namespace> = PartialObjectMeta { metadata, ..PartialObjectMeta::default() };
    let Object::Namespace(name, labels) = read::namespace(&namespace) else { panic!("a namespace") };
    assert_eq!(name, ObjectKey::new("", "shop"));
    assert_eq!(labels, BTreeMap::from([("edge".to_owned(), "ok".to_owned())]));
}

/// The managed fields of the operator.
fn applied_entry() -> Value {
    json!({"manager": "portlane-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}})
}

#[test]
fn the_mark_of_an_object_is_what_the_operator_applied_and_nobody_changed() {
    let mark = |entries: Value| Mark::of(&of(json!({"managedFields": entries})));
    let ours = mark(json!([applied_entry()]));
    let with = |field: &str, value: Value| {
        let mut entry = applied_entry();
        entry[field] = value;
        entry
    };
    let others = json!([with("manager", json!("kubectl")), with("operation", json!("Update")), applied_entry()]);
    assert_eq!(mark(others), ours, "others manage other fields");
    assert_eq!(mark(json!([with("time", json!("2026-01-01T00:00:00Z"))])), ours, "when does not matter");
    assert_ne!(mark(json!([with("fieldsV1", json!({"f:spec": {}}))])), ours, "another client took the field");
    let absent = [
        json!([]),
        json!([with("manager", json!("kubectl"))]),
        json!([with("operation", json!("Update"))]),
        json!([with("subresource", json!("status"))]),
    ];
    assert!(absent.into_iter().all(|entries| mark(entries) == Mark::default()), "the operator applied nothing");
    assert_eq!(Mark::of(&ObjectMeta::default()), Mark::default());
}

#[test]
fn of_a_child_and_of_a_service_the_mark_is_read() {
    let metadata: ObjectMeta = of(json!({"name": "web", "namespace": "ns", "managedFields": [applied_entry()]}));
    let Object::Child(kind, name, mark) = read::child(ChildKind::NetworkPolicy, &metadata) else { panic!("a child") };
    assert_eq!((kind, name, mark), (ChildKind::NetworkPolicy, key("web"), Mark::of(&metadata)));
    let Object::Service(_, info) = read::service(&of(json!({"metadata": metadata}))) else { panic!("a Service") };
    assert_eq!(info.mark, mark);
}

#[test]
fn a_deployment_says_how_many_pods_there_are() {
    let state = |deployment: Value| {
        let Object::Deployment(name, state) = read::deployment(&of(deployment)) else { panic!("a Deployment") };
        assert_eq!(name, key("edge"));
        state
    };
    let metadata = json!({"name": "edge", "namespace": "ns", "managedFields": [applied_entry()]});
    let full = state(json!({"metadata": metadata, "status": {"replicas": 3, "readyReplicas": 2}}));
    let mark = Mark::of(&of(json!({"managedFields": [applied_entry()]})));
    assert_eq!(full, FleetState { replicas: 3, ready: 2, wanted: 1, is_observed: true, mark, ..FleetState::default() });
    assert_ne!(mark, Mark::default());
    let new = state(json!({"metadata": {"name": "edge", "namespace": "ns"}}));
    // One pod is due where the object does not say how many.
    assert_eq!(new, FleetState { wanted: 1, ..FleetState::default() });
}

fn scaler(value: Value) -> AutoscalerState {
    let Object::Scaler(name, state) = read::scaler(&of(value)) else { panic!("an autoscaler") };
    assert_eq!(name, key("edge"));
    *state
}

#[test]
fn an_autoscaler_says_for_whom_it_scales_what() {
    let full = scaler(json!({
        "metadata": {
            "name": "edge", "namespace": "ns", "labels": {"portlane.dev/gateway": "edge"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ForwardGateway", "name": "edge", "uid": "uid-edge"}],
        },
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "edge"}, "minReplicas": 2, "maxReplicas": 9},
        "status": {
            "desiredReplicas": 4, "currentReplicas": 3,
            "conditions": [
                {"type": "AbleToScale", "status": "True", "reason": "able", "message": "a"},
                {"type": "ScalingActive", "status": "False", "reason": "active", "message": "b"},
                {"type": "ScalingLimited", "status": "True"},
            ],
        },
    }));
    assert_eq!((full.owner.as_str(), full.subject), ("uid-edge", Subject::Gateway(key("edge"))));
    assert_eq!((full.desired, full.current, full.least), (4, 3, 2));
    assert_eq!(full.target, ("Deployment".to_owned(), "edge".to_owned()));
    let condition = |holds, reason: &str, message: &str| {
        Some(AutoscalerCondition { holds, reason: reason.to_owned(), message: message.to_owned() })
    };
    assert_eq!(full.conditions.able, condition(true, "able", "a"));
    assert_eq!(full.conditions.active, condition(false, "active", "b"));
}

#[test]
fn an_autoscaler_that_has_not_looked_yet_asks_for_nothing() {
    let labels = json!({"portlane.dev/gateway": "edge", "portlane.dev/forward": "web"});
    let metadata = json!({"name": "edge", "namespace": "ns", "labels": labels});
    let new = scaler(json!({
        "metadata": metadata, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "shop"}, "maxReplicas": 9},
    }));
    assert_eq!(new.subject, Subject::Forward(key("web")));
    assert_eq!((new.desired, new.current, new.least, new.owner.as_str()), (0, 0, 1, ""));
    assert_eq!((new.conditions.able, new.conditions.active), (None, None));
}

//! The live API through an API server's aggregation: who has a live session where, and what a proxy runs.

use std::net::TcpListener;

use harness::{
    ControlPlane, FleetPod, Namespace, Operator, Scene, block_on, connect, free_port, programs::KubernetesVersion,
    roots, round_trip, until,
};
use serde_json::{Value, json};

use super::{
    forward, gateway,
    lying_proxies::{hello, open},
    own_address, service, until_ready,
};
use crate::live_api;

/// A person who may see the sessions of forwards.
const VIEWER: &str = "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: viewer}
rules: [{apiGroups: [live.portlane.dev], resources: [portforwards/sessions], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: viewer}]
";

/// Asks for the sessions of all forwards of the cluster.
const EVERYWHERE: [&str; 3] = ["get", "--raw", "/apis/live.portlane.dev/v1alpha1/portforwards/*/sessions"];

fn path(namespace: &Namespace<'_>, rest: &str) -> String {
    format!("/apis/live.portlane.dev/v1alpha1/namespaces/{}/{rest}", namespace.name())
}

/// The response to a GET.
#[track_caller]
fn get(namespace: &Namespace<'_>, rest: &str) -> Value {
    let response = namespace.kubectl(&["get", "--raw", &path(namespace, rest)]).ok();
    serde_json::from_str(&response).expect("JSON")
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// On a server of its own: an aggregated API that does not answer disturbs every other test.
#[test]
fn people_see_live_sessions_and_what_a_proxy_runs_as_far_as_the_cluster_permits() {
    let server = ControlPlane::start(KubernetesVersion::Newest);
    if !crate::server::without_kubelets(&server) {
        return;
    }
    server.install_crds();
    let other = server.namespace("live-other");
    let (address, own) = (format!("{}:{}", own_address(), free_port()), own_address().to_string());
    let options =
        ["--custom-metrics-address", &address, "--pod-ips", &own, "--apis", "live", "--watch-namespaces", other.name()];
    let scene = Scene::ready_gateway_with(server.namespace("live"), &options);
    let namespace = &scene.namespace;
    live_api::register(namespace);
    namespace.apply(VIEWER);
    let discovery = ["get", "--raw", "/apis/live.portlane.dev/v1alpha1"];
    until("the API server aggregates the API", || namespace.kubectl(&discovery).success);
    assert!(namespace.kubectl(&discovery).ok().contains("portforwards/sessions"));

    sessions_are_listed(&scene, &other);
    only_those_who_may_see_them(namespace);
    a_failed_listener_has_its_reason(&scene);
    a_silent_proxy_is_named(namespace, &scene.operator);
}

fn sessions_are_listed(scene: &Scene<'_>, other: &Namespace<'_>) {
    let (namespace, port) = (&scene.namespace, free_port());
    let allowed = format!("{{namespaces: {{from: All}}, addressCIDRs: ['{}/32']}}", own_address());
    namespace.apply(&gateway(&format!("{{replicas: 1, allowedForwards: {allowed}}}")));
    other.apply(&service("web", scene.backend.port));
    let theirs = forward("theirs", port, "{service: {name: web, port: 80}}");
    let elsewhere = format!("gateway: {{name: edge, namespace: {}}}", namespace.name());
    other.apply(&theirs.replace("gateway: {name: edge}", &elsewhere));
    until_ready(other, "theirs", "True", "Ready");

    let mut sessions = [connect(scene.port), connect(scene.port), connect(port)].map(|it| it.expect("it listens"));
    for session in &mut sessions {
        assert_eq!(round_trip(session, b"bytes").expect("echo"), b"bytes");
    }
    let clients = sessions.each_ref().map(|session| json!(session.local_addr().expect("an address").to_string()));
    let (web, theirs) = ("portforwards/web/sessions", "portforwards/theirs/sessions");
    until("both sessions have their bytes", || {
        let list = get(namespace, web);
        let have_bytes = |item: &Value| item["bytesUp"] == 5 && item["bytesDown"] == 5;
        items(&list).len() == 2 && items(&list).iter().all(have_bytes)
    });
    let list = get(namespace, web);
    assert_eq!((&list["kind"], &list["total"], &list["unanswered"]), (&json!("SessionList"), &json!(2), &json!([])));
    for item in items(&list) {
        assert!(clients[..2].contains(&item["client"]), "{item} is one of {clients:?}");
        assert_eq!(item["pod"], format!("{}/p1", namespace.name()));
        assert_eq!(
            (&item["listener"], &item["protocol"]),
            (&json!(format!("{}/web/tcp", namespace.name())), &json!("TCP"))
        );
        assert_eq!(item["endpoint"], format!("{}:{}", own_address(), scene.backend.port));
    }
    let list = get(other, theirs);
    assert_eq!((&list["total"], &items(&list)[0]["client"]), (&json!(1), &clients[2]));
    let all = get(namespace, "portforwards/*/sessions");
    assert_eq!((&all["total"], items(&all).len()), (&json!(2), 2), "of this namespace only: {all}");
    let own = &all["forwards"][0];
    assert_eq!((&own["forward"], &own["total"]), (&json!(format!("{}/web", namespace.name())), &json!(2)), "{all}");
    let everywhere: Value = serde_json::from_str(&namespace.kubectl(&EVERYWHERE).ok()).expect("JSON");
    assert_eq!((&everywhere["total"], everywhere["forwards"].as_array().map(Vec::len)), (&json!(3), Some(2)));
    let list = get(namespace, &format!("{web}?limit=1"));
    assert_eq!((&list["total"], items(&list).len()), (&json!(2), 1), "the limit bounds the list, and not the total");
    let list = get(namespace, "pods/p1/sessions");
    assert_eq!((&list["total"], items(&list).len()), (&json!(3), 3), "of the pod, all sessions are listed");
}

/// The API server authorizes, for each resource and namespace.
fn only_those_who_may_see_them(namespace: &Namespace<'_>) {
    let raw = |rest: &str, user: &str| namespace.kubectl(&["get", "--raw", &path(namespace, rest), "--as", user]);
    raw("portforwards/web/sessions", "viewer").ok();
    raw("portforwards/*/sessions", "viewer").ok();
    assert!(raw("portforwards/web/sessions?lag=true", "viewer").ok().contains("LagList"), "with the same right");
    for (rest, user) in [
        ("portforwards/web/sessions", "stranger"),
        ("portforwards/*/sessions", "stranger"),
        ("portforwards/web/sessions?lag=true", "stranger"),
        ("pods/p1/sessions", "viewer"),
        ("pods/p1/config", "viewer"),
    ] {
        let refused = raw(rest, user).refused();
        assert!(refused.contains("cannot get resource"), "{rest} as {user}: {refused}");
    }
    let refused = namespace.kubectl(&[&EVERYWHERE[..], &["--as", "viewer"]].concat()).refused();
    assert!(refused.contains("at the cluster scope"), "the right is that of one namespace: {refused}");
    let admin = |rest: &str| namespace.kubectl(&["get", "--raw", &path(namespace, rest)]).refused();
    let unknown = admin("portforwards/nothing/sessions");
    assert!(unknown.contains("does not exist"), "{unknown}");
    let unknown = admin("pods/nothing/config");
    assert!(unknown.contains("runs no proxy"), "{unknown}");
}

fn a_failed_listener_has_its_reason(scene: &Scene<'_>) {
    let namespace = &scene.namespace;
    let config = get(namespace, "pods/p1/config");
    assert_eq!((&config["kind"], &config["connected"]), (&json!("ProxyConfig"), &json!(true)));
    until("all listeners are in force", || get(namespace, "pods/p1/config")["inForce"] == true);

    let holder = TcpListener::bind("0.0.0.0:0").expect("a port");
    let taken = holder.local_addr().expect("an address").port();
    namespace.apply(&forward("taken", taken, "{service: {name: web, port: 80}}"));
    until_ready(namespace, "taken", "False", "Rejected");
    let config = get(namespace, "pods/p1/config");
    let listener = |name: &str| {
        let id = format!("{}/{name}/tcp", namespace.name());
        let mut listeners = config["listeners"].as_array().into_iter().flatten();
        listeners.find(|listener| listener["id"] == id).unwrap_or_else(|| panic!("{id} in {config}"))
    };
    let (web, failed) = (listener("web"), listener("taken"));
    assert_eq!(
        (&config["inForce"], &web["state"], &web["spec"]["socket"]["port"]),
        (&json!(false), &json!("Bound"), &json!(scene.port))
    );
    assert_eq!((&failed["state"], &failed["failure"]["reason"]), (&json!("Failed"), &json!("AddressInUse")));
    let message = failed["failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("in use"), "{message}");
}

fn a_silent_proxy_is_named(namespace: &Namespace<'_>, operator: &Operator) {
    let token = FleetPod::of_gateway(namespace, "edge", "p2").token(namespace, "edge", "portlane-operator");
    let bundle = roots(namespace);
    // It follows, and answers nothing: as a proxy does that is older than the API.
    let silent = block_on(open(operator.stream, &token, &bundle));
    block_on(async { silent.send(&hello()).await.expect("sent") });
    until("the operator knows the pod and its stream", || {
        namespace.kubectl(&["get", "--raw", &path(namespace, "pods/p2/config")]).stdout.contains("\"connected\":true")
    });
    let mut list = Value::Null;
    // The stream may be open before the pod counts for the forwards of its gateway.
    until("the silent proxy is named", || {
        list = get(namespace, "portforwards/web/sessions");
        list["unanswered"] == json!([format!("{}/p2", namespace.name())])
    });
    assert_eq!((&list["total"], items(&list).len()), (&json!(0), 0), "the sessions of the test have ended");
    assert!(operator.metric("portlane_operator_inquiries_total{result=\"timeout\"}") >= 1.0);
    drop(silent);
}

//! Two operators of two classes beside each other: each serves its own objects, and leaves those of the other alone.

use crds::PortForward;
use harness::{
    Backend, Behaviour, FleetPod, FleetProxy, Namespace, Operator, echoes, free_port, programs::KubernetesVersion,
    until,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use serde_json::json;

use super::{condition, own_address, until_ready};

/// Options of the operator of the class `blue`, which shares its namespace with the other one.
const BLUE: [&str; 6] =
    ["--controller-class", "blue", "--lease", "blue-operator", "--roots-secret", "blue-operator-roots"];

/// A gateway of this class; none if empty.
fn gateway(name: &str, class: &str) -> String {
    json!({
        "apiVersion": "portlane.dev/v1alpha1", "kind": "ForwardGateway", "metadata": {"name": name},
        "spec": with_class(json!({"replicas": 1}), class),
    })
    .to_string()
}

/// A forward of this class in a gateway, to an echo server of this machine.
fn forward(name: &str, class: &str, gateway: &str, port: u16, backend: &Backend) -> String {
    let address = json!({"host": own_address(), "port": backend.port});
    let listener = json!({"name": "tcp", "protocol": "TCP", "port": port, "backends": [{"address": address}]});
    json!({
        "apiVersion": "portlane.dev/v1alpha1", "kind": "PortForward", "metadata": {"name": name},
        "spec": with_class(json!({"placement": {"gateway": {"name": gateway}}, "listeners": [listener]}), class),
    })
    .to_string()
}

fn with_class(mut spec: serde_json::Value, class: &str) -> serde_json::Value {
    if !class.is_empty() {
        spec["controllerClass"] = json!(class);
    }
    spec
}

/// A ready Pod of the blue gateway `side`, and its proxy, which trusts the blue operator.
fn blue_proxy(namespace: &Namespace<'_>, operator: &Operator) -> FleetProxy {
    namespace.until::<Deployment>("side", "is created", |_| true);
    let labels = json!({
        "portlane.dev/proxy": "gateway", "portlane.dev/gateway": "side", "portlane.dev/controller-class": "blue",
    });
    let pod = FleetPod::create(namespace, "blue-1", "side", &labels);
    let secret = namespace.get::<Secret>("blue-operator-roots").expect("the CA of the blue operator");
    let roots = secret.data.and_then(|mut data| data.remove("ca.crt")).expect("CA certificates");
    let roots = String::from_utf8(roots.0).expect("PEM");
    let proxy = pod.proxy_trusting(namespace, "side", operator, &roots);
    pod.set_ready(namespace, true);
    proxy
}

/// The label with the class on the Deployment of a gateway.
fn class_of(namespace: &Namespace<'_>, gateway: &str) -> Option<String> {
    let labels = namespace.get::<Deployment>(gateway).expect("the Deployment").metadata.labels.unwrap_or_default();
    labels.get("portlane.dev/controller-class").cloned()
}

#[test]
fn two_operators_of_two_classes_serve_their_own_objects_and_leave_the_others_alone() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("classes");
    let plain = Operator::start(&namespace);
    let blue = Operator::with(&namespace, &BLUE);
    let backend = Backend::reachable(Behaviour::Echo);
    let (web_port, blue_port) = (free_port(), free_port());
    let objects = [
        gateway("edge", ""),
        gateway("side", "blue"),
        forward("web", "", "edge", web_port, &backend),
        forward("web-blue", "blue", "side", blue_port, &backend),
        forward("astray", "", "side", free_port(), &backend),
    ];
    namespace.apply(&objects.join("\n---\n"));

    // Each serves its own, through proxies of its own.
    let (_pod, _proxy) = FleetPod::ready_in_gateway(&namespace, "edge", "p1", &plain);
    let blue_proxy = blue_proxy(&namespace, &blue);
    until_ready(&namespace, "web", "True", "Ready");
    until_ready(&namespace, "web-blue", "True", "Ready");
    until("both forwards serve", || echoes(web_port) && echoes(blue_port));
    let known = |operator: &Operator| operator.metric("portlane_operator_forwards");
    until("each operator knows its own forwards alone", || (known(&plain), known(&blue)) == (2.0, 1.0));
    let connected = |operator: &Operator| operator.metric("portlane_operator_connected_proxies");
    until("each operator counts its own proxies alone", || (connected(&plain), connected(&blue)) == (1.0, 1.0));
    assert_eq!((class_of(&namespace, "edge"), class_of(&namespace, "side").as_deref()), (None, Some("blue")));

    // A forward in a gateway of another class says so.
    let astray = until_ready(&namespace, "astray", "False", "GatewayNotFound");
    let conditions = astray.status.expect("a status").conditions;
    let accepted = conditions.iter().find(|condition| condition.type_ == "Accepted").expect("the condition");
    assert!(accepted.message.contains("'blue'"), "{}", accepted.message);

    // The class cannot be changed.
    let change = |object: &str, class: &str| {
        let patch = format!("{{\"spec\": {{\"controllerClass\": {class}}}}}");
        namespace.kubectl(&["patch", object, "--type=merge", "--patch", &patch]).refused()
    };
    for (object, class) in [("pf/web", "\"blue\""), ("pf/web-blue", "null"), ("fgw/side", "\"green\"")] {
        let refused = change(object, class);
        assert!(refused.contains("controllerClass cannot be changed"), "{object}: {refused}");
    }

    // Without its operator, nobody acts on a blue object, and its proxy keeps serving.
    drop(blue.program.kill());
    let moved = free_port();
    namespace.apply(&forward("web-blue", "blue", "side", moved, &backend));
    namespace.apply(&forward("web", "", "edge", moved, &backend));
    until_ready(&namespace, "web", "True", "Ready");
    let late = namespace.get::<PortForward>("web-blue").expect("the forward");
    let observed = late.status.as_ref().and_then(|status| status.observed_generation);
    assert_eq!((observed, late.metadata.generation), (Some(1), Some(2)), "nobody has observed the edit");
    assert_eq!(condition(&late, "Ready").0, "True", "the status of before");
    assert!(echoes(blue_port) && blue_proxy.is_ready(), "the blue proxy keeps its configuration");
}

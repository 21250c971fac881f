//! Every rule of the CRDs refuses a manifest that breaks the rule, with the rule's message, and accepts the nearest
//! manifest that keeps the rule.

mod durable;

use std::collections::BTreeSet;

use harness::{ControlPlane, Namespace};
use serde_json::Value;

on_both!(every_rule_refuses_with_its_message_and_accepts_what_is_right);

/// A rule by its message, a manifest that breaks the rule, and a manifest that keeps the rule.
struct Case {
    message: &'static str,
    wrong: String,
    right: String,
}

fn forward(name: &str, placement: &str, listeners: &str, more: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, \
         spec: {{placement: {placement}, listeners: [{listeners}]{more}}}}}"
    )
}

fn gateway(name: &str, spec: &str) -> String {
    format!("{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: {name}}}, spec: {spec}}}")
}

/// The part of an agent is its targets.
fn of_agent(message: &'static str, wrong: &str, right: &str) -> Case {
    let agent = |targets: &str| {
        format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: ForwardAgent, metadata: {{name: home}}, \
             spec: {{targets: [{targets}]}}}}"
        )
    };
    case(message, agent(wrong), agent(right))
}

const SIDECAR: &str = "{sidecar: {selector: {}}}";
const GATEWAY: &str = "{gateway: {name: g}}";
const LISTENER: &str = "{name: a, protocol: TCP, port: 7000, backends: [{service: {name: s, port: 1}}]}";
const TUNNEL: &str = "{tunnel: {agent: home, host: 127.0.0.1, port: 1}}";

fn listener(backend: &str) -> String {
    format!("{{name: a, protocol: TCP, port: 7000, backends: [{backend}]}}")
}

fn workload(replicas: &str) -> String {
    format!(", autoscaling: {{targetRef: {{kind: Deployment, name: a}}, {replicas}, targetConnectionsPerPod: 1}}")
}

fn case(message: &'static str, wrong: String, right: String) -> Case {
    Case { message, wrong, right }
}

/// The parts of a forward are its placement, its listeners and further fields.
fn of_forward(message: &'static str, wrong: [&str; 3], right: [&str; 3]) -> Case {
    case(message, forward("f", wrong[0], wrong[1], wrong[2]), forward("f", right[0], right[1], right[2]))
}

fn of_backend(message: &'static str, wrong: &str, right: &str) -> Case {
    case(message, forward("f", SIDECAR, &listener(wrong), ""), forward("f", SIDECAR, &listener(right), ""))
}

fn of_gateway(message: &'static str, wrong: &str, right: &str) -> Case {
    case(message, gateway("g", wrong), gateway("g", right))
}

fn of_listener(message: &'static str, wrong: &str, right: &str) -> Case {
    let with = |more: &str| forward("f", SIDECAR, &LISTENER.replace("}]}", &format!("}}], {more}}}")), "");
    case(message, with(wrong), with(right))
}

fn of_flows(message: &'static str, wrong: &str, right: &str) -> Case {
    let with = |more: &str| {
        let listener = LISTENER.replace("TCP", "UDP").replace("}]}", &format!("}}], {more}}}"));
        forward("f", SIDECAR, &listener, "")
    };
    case(message, with(wrong), with(right))
}

fn cases() -> Vec<Case> {
    [of_gateways(), of_autoscaling(), of_forwards(), of_listeners(), durable::cases(), of_agents(), of_names()]
        .into_iter()
        .flatten()
        .collect()
}

fn of_gateways() -> Vec<Case> {
    vec![
        of_gateway(
            "loadBalancerClass and allocateLoadBalancerNodePorts need type LoadBalancer",
            "{service: {loadBalancerClass: example.com/a}}",
            "{service: {type: LoadBalancer, loadBalancerClass: example.com/a}}",
        ),
        of_gateway(
            "externalTrafficPolicy needs type LoadBalancer or NodePort",
            "{service: {type: ClusterIP, externalTrafficPolicy: Local}}",
            "{service: {type: NodePort, externalTrafficPolicy: Local}}",
        ),
        of_gateway(
            "selector must be set if, and only if, from is Selector",
            "{allowedForwards: {namespaces: {from: All, selector: {}}}}",
            "{allowedForwards: {namespaces: {from: Selector, selector: {}}}}",
        ),
        of_gateway(
            "endPort of an allocation range must not be less than port",
            "{allocation: [{port: 2001, endPort: 2000}]}",
            "{allocation: [{port: 2000, endPort: 2000}]}",
        ),
        of_gateway(
            "endPort of an allowed range must not be less than port",
            "{allowedForwards: {ports: [{protocol: TCP, port: 2, endPort: 1}]}}",
            "{allowedForwards: {ports: [{protocol: TCP, port: 2, endPort: 2}]}}",
        ),
        of_gateway(
            "exactly one of names and selector must be set",
            "{allowedForwards: {tenants: [{name: a, namespaces: {names: [a], selector: {}}}]}}",
            "{allowedForwards: {tenants: [{name: a, namespaces: {names: [a]}}]}}",
        ),
        of_gateway(
            "every key must be the name of a label, such as app or example.com/app",
            "{podTemplate: {labels: {'a b': c}}}",
            "{podTemplate: {labels: {a_b: c}}}",
        ),
        of_gateway(
            "every key must be the name of an annotation, such as example.com/note",
            "{service: {annotations: {example.com/a/b: c}}}",
            "{service: {annotations: {Example.com/a: c}}}",
        ),
        of_gateway("exactly one of tag and digest must be set", "{proxyImage: {}}", "{proxyImage: {tag: next}}"),
        of_gateway(
            "must be a network such as 10.0.0.0/8",
            "{allowedForwards: {addressCIDRs: [10.0.0.0]}}",
            "{allowedForwards: {addressCIDRs: [10.0.0.0/8]}}",
        ),
    ]
}

fn of_autoscaling() -> Vec<Case> {
    vec![
        of_gateway(
            "autoscaling needs targetConnectionsPerPod or metrics",
            "{autoscaling: {maxReplicas: 3}}",
            "{autoscaling: {maxReplicas: 3, metrics: [{type: Resource}]}}",
        ),
        of_gateway(
            "autoscaling.minReplicas must not be more than maxReplicas",
            "{autoscaling: {minReplicas: 4, maxReplicas: 3, targetConnectionsPerPod: 1}}",
            "{autoscaling: {minReplicas: 3, maxReplicas: 3, targetConnectionsPerPod: 1}}",
        ),
        of_forward(
            "autoscaling of a workload needs targetConnectionsPerPod or metrics",
            [SIDECAR, LISTENER, ", autoscaling: {targetRef: {kind: Deployment, name: a}, maxReplicas: 3}"],
            [
                SIDECAR,
                LISTENER,
                ", autoscaling: {targetRef: {kind: Deployment, name: a}, maxReplicas: 3, targetConnectionsPerPod: 1}",
            ],
        ),
        of_forward(
            "autoscaling.minReplicas of a workload must not be more than maxReplicas",
            [SIDECAR, LISTENER, &workload("minReplicas: 4, maxReplicas: 3")],
            [SIDECAR, LISTENER, &workload("minReplicas: 3, maxReplicas: 3")],
        ),
        of_forward(
            "autoscaling needs placement.sidecar: a gateway scales by its own autoscaling",
            [GATEWAY, LISTENER, &workload("maxReplicas: 3")],
            [SIDECAR, LISTENER, &workload("maxReplicas: 3")],
        ),
    ]
}

fn of_forwards() -> Vec<Case> {
    vec![
        of_forward("exactly one of sidecar and gateway must be set", ["{}", LISTENER, ""], [SIDECAR, LISTENER, ""]),
        of_forward(
            "listeners[].port is required in a sidecar: only a gateway allocates ports",
            [SIDECAR, "{name: a, protocol: TCP, backends: [{local: {port: 1}}]}", ""],
            [GATEWAY, "{name: a, protocol: TCP, backends: [{service: {name: s, port: 1}}]}", ""],
        ),
        of_forward(
            "a local backend needs placement.sidecar: a gateway has no app pod that a local backend could reach",
            [GATEWAY, "{name: a, protocol: TCP, backends: [{local: {port: 1}}]}", ""],
            [SIDECAR, "{name: a, protocol: TCP, port: 2, backends: [{local: {port: 1}}]}", ""],
        ),
        of_forward(
            "healthCheckPort of a backend needs healthCheck",
            [SIDECAR, "{name: a, protocol: TCP, port: 2, backends: [{local: {port: 1}, healthCheckPort: 3}]}", ""],
            [
                SIDECAR,
                "{name: a, protocol: TCP, port: 2, backends: [{local: {port: 1}, healthCheckPort: 3}], healthCheck: {tcp: {}}}",
                "",
            ],
        ),
        of_forward(
            "two listeners have the same protocol and port (TLS listeners may, with different hostnames)",
            [SIDECAR, &format!("{LISTENER}, {}", LISTENER.replace("name: a", "name: b")), ""],
            [SIDECAR, &format!("{LISTENER}, {}", LISTENER.replace("name: a", "name: b").replace("TCP", "UDP")), ""],
        ),
        of_forward(
            "initialBackoffMillis must not be greater than maxBackoffMillis",
            [SIDECAR, LISTENER, ", retry: {initialBackoffMillis: 3, maxBackoffMillis: 2}"],
            [SIDECAR, LISTENER, ", retry: {initialBackoffMillis: 2, maxBackoffMillis: 2}"],
        ),
        of_forward(
            "values must be given for In and NotIn, and for no other operator",
            ["{sidecar: {selector: {matchExpressions: [{key: a, operator: In}]}}}", LISTENER, ""],
            ["{sidecar: {selector: {matchExpressions: [{key: a, operator: Exists}]}}}", LISTENER, ""],
        ),
        of_forward(
            "tls must be set if, and only if, protocol is TLS",
            [SIDECAR, &LISTENER.replace("TCP", "TLS"), ""],
            [SIDECAR, &LISTENER.replace("TCP", "TLS, tls: {hostnames: [a.example]}"), ""],
        ),
        of_forward(
            "endPort leads the ports of a backend beyond 65535",
            [SIDECAR, "{name: a, protocol: TCP, port: 10, endPort: 20, backends: [{local: {port: 65526}}]}", ""],
            [SIDECAR, "{name: a, protocol: TCP, port: 10, endPort: 20, backends: [{local: {port: 65525}}]}", ""],
        ),
    ]
}

fn of_listeners() -> Vec<Case> {
    vec![
        of_listener("endPort needs port, and must not be less than port", "endPort: 6999", "endPort: 7001"),
        of_listener("the listeners must not have more than 1024 ports together", "endPort: 8024", "endPort: 8023"),
        of_listener(
            "exactly one of http, tcp, mysql and postgres must be set",
            "healthCheck: {}",
            "healthCheck: {tcp: {}}",
        ),
        of_listener(
            "send needs expect: without expect, no check reads the answer",
            "healthCheck: {tcp: {send: a}}",
            "healthCheck: {tcp: {send: a, expect: b}}",
        ),
        of_listener(
            "timeoutSeconds must not be greater than intervalSeconds",
            "healthCheck: {tcp: {}, intervalSeconds: 1, timeoutSeconds: 2}",
            "healthCheck: {tcp: {}, intervalSeconds: 1}",
        ),
        of_listener(
            "trustedCIDRs is required unless accept is Disabled: otherwise any client could claim any address",
            "proxyProtocol: {accept: Optional}",
            "proxyProtocol: {accept: Optional, trustedCIDRs: [10.0.0.0/8]}",
        ),
        of_flows(
            "healthCheck of a UDP listener must name the TCP port to check",
            "healthCheck: {http: {path: /}}",
            "healthCheck: {http: {port: 80}}",
        ),
        of_flows(
            "proxyProtocol is not for UDP listeners",
            "proxyProtocol: {send: V1}",
            "proxyProtocol: {accept: Disabled, send: Disabled}",
        ),
        of_backend(
            "exactly one of service, address, local and tunnel must be set",
            "{weight: 1}",
            "{local: {port: 1}}",
        ),
        of_forward(
            "endPort is not for a listener with a tunnel backend: give each port a listener of its own",
            [SIDECAR, &listener(TUNNEL).replace("port: 7000", "port: 7000, endPort: 7001"), ""],
            [SIDECAR, &listener("{local: {port: 1}}").replace("port: 7000", "port: 7000, endPort: 7001"), ""],
        ),
        of_backend(
            "must be an IP address or a DNS name",
            "{address: {host: a_b, port: 1}}",
            "{address: {host: a-b, port: 1}}",
        ),
    ]
}

fn of_agents() -> Vec<Case> {
    vec![
        of_agent(
            "two targets are the same: remove one of them",
            "{host: a, port: 1}, {host: a, port: 1, endPort: 1, protocol: TCP}",
            "{host: a, port: 1}, {host: a, port: 1, protocol: UDP}",
        ),
        of_agent(
            "endPort of a target must not be less than port",
            "{host: a, port: 2, endPort: 1}",
            "{host: a, port: 2, endPort: 2}",
        ),
        of_agent(
            "must be an IP address, a network or a DNS name",
            "{host: a_b, port: 1}",
            "{host: 10.0.0.0/8, port: 1}, {host: a-b, port: 1}",
        ),
    ]
}

fn of_names() -> Vec<Case> {
    let (long, longest) = ("f".repeat(53), "f".repeat(52));
    let label = "DNS-1035 label: lower case letters, digits and '-', starting with a letter";
    vec![
        case(
            "metadata.name must be at most 52 characters",
            forward(&long, SIDECAR, LISTENER, ""),
            forward(&longest, SIDECAR, LISTENER, ""),
        ),
        case(
            Box::leak(format!("metadata.name must be a {label} (it also names Services)").into_boxed_str()),
            forward("a.b", SIDECAR, LISTENER, ""),
            forward("a-b", SIDECAR, LISTENER, ""),
        ),
        case("metadata.name must be at most 52 characters long", gateway(&long, "{}"), gateway(&longest, "{}")),
        case(
            Box::leak(format!("metadata.name must be a {label}").into_boxed_str()),
            gateway("1a", "{}"),
            gateway("a1", "{}"),
        ),
    ]
}

fn every_rule_refuses_with_its_message_and_accepts_what_is_right(server: &ControlPlane) {
    let namespace = server.namespace("rules");
    let cases = cases();
    for case in &cases {
        let refused = create(&namespace, &case.wrong).expect_err(case.message);
        assert!(refused.contains(case.message), "{:?} is not in: {refused}", case.message);
        create(&namespace, &case.right).unwrap_or_else(|refusal| panic!("{}: {refusal}", case.message));
    }
    let tried: BTreeSet<&str> = cases.iter().map(|case| case.message).collect();
    let promised = messages();
    let promised: BTreeSet<&str> = promised.iter().map(String::as_str).collect();
    assert_eq!(promised, tried, "every rule of the committed CRDs has a row in this table");
}

/// Whether the server accepts a manifest; if not, the server's message.
fn create(namespace: &Namespace<'_>, manifest: &str) -> Result<(), String> {
    namespace.dry_run(&serde_yaml::from_str(manifest).expect("YAML"))
}

/// The messages of all rules of the committed CRDs on single objects. Rules on changes have tests of their own
/// (`operator/classes`).
fn messages() -> BTreeSet<String> {
    fn is_on_objects(rule: &Value) -> bool {
        !rule["rule"].as_str().is_some_and(|rule| rule.contains("oldSelf"))
    }
    fn below(value: &Value, found: &mut BTreeSet<String>) {
        for rule in
            value["x-kubernetes-validations"].as_array().into_iter().flatten().filter(|rule| is_on_objects(rule))
        {
            found.insert(rule["message"].as_str().expect("every rule has a message").to_owned());
        }
        match value {
            Value::Object(fields) => fields.values().for_each(|value| below(value, found)),
            Value::Array(items) => items.iter().for_each(|value| below(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for committed in [
        include_str!("../../../crds/portlane.dev_portforwards.yaml"),
        include_str!("../../../crds/portlane.dev_forwardgateways.yaml"),
        include_str!("../../../crds/portlane.dev_forwardagents.yaml"),
    ] {
        below(&serde_yaml::from_str(committed).expect("YAML"), &mut found);
    }
    found
}

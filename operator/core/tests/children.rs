//! Golden file of the children of a gateway. `UPDATE=1 cargo test -p portlane-operator-core --test children` rewrites
//! the file.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, fs, path::Path};

use crds::ForwardGateway;
use operator_core::ObjectKey;
use operator_core::desired::gateway::{Fleets, children};
use proxy_api::Transport;

fn gateway(spec: &serde_json::Value) -> ForwardGateway {
    let metadata = serde_json::json!({"name": "edge", "namespace": "infra", "uid": "u-1"});
    serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).expect("a gateway")
}

fn of(gateway: &ForwardGateway, ports: &[(Transport, u16)]) -> Vec<serde_json::Value> {
    let fleets = Fleets {
        image: "example.com/proxy:1".into(),
        pull_policy: "IfNotPresent".into(),
        operator: "portlane-operator.portlane.svc:9443".into(),
        network_policies: true,
        ..Fleets::default()
    };
    let ports: BTreeSet<_> = ports.iter().copied().collect();
    let children = children(&ObjectKey::new("infra", "edge"), gateway, &fleets, "ROOTS", &ports);
    children.into_iter().map(|(_, manifest)| manifest).collect()
}

#[test]
fn the_children_of_a_full_gateway_are_what_the_golden_file_says() {
    let gateway = gateway(&serde_json::json!({
        "replicas": 3,
        "drainSeconds": 60,
        "service": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "example.com/lb",
            "annotations": {"example.com/scheme": "internal"}, "allocateLoadBalancerNodePorts": false,
        },
        "podTemplate": {
            "labels": {"team": "edge", "portlane.dev/gateway": "mine"},
            "annotations": {"example.com/note": "text"},
            "resources": {"limits": {"memory": "256Mi"}},
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
                    "topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}},
                }}],
            }},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
            ],
            "priorityClassName": "high",
        },
    }));
    let mut actual = String::new();
    for child in of(&gateway, &[(Transport::Tcp, 53), (Transport::Udp, 53)]) {
        actual += "---\n";
        actual += &serde_yaml::to_string(&child).expect("YAML");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/children.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &actual).expect("write");
    }
    assert_eq!(fs::read_to_string(&golden).unwrap_or_default(), actual);
    assert!(!actual.contains("mine"), "a label of the user cannot move a pod out of its fleet");
}

#[test]
fn a_listener_changes_no_pod_and_a_gateway_without_listeners_has_no_service() {
    let gateway = gateway(&serde_json::json!({}));
    let kinds = |children: &[serde_json::Value]| -> Vec<String> {
        children.iter().map(|child| child["kind"].as_str().expect("kind").to_owned()).collect()
    };
    let (none, some) = (of(&gateway, &[]), of(&gateway, &[(Transport::Tcp, 80)]));
    assert_eq!(kinds(&none), ["ServiceAccount", "Deployment", "PodDisruptionBudget", "NetworkPolicy"]);
    assert_eq!(kinds(&some)[4], "Service");
    assert_eq!(none[1], some[1], "a new listener restarts no pod");
}

#[test]
fn a_network_policy_has_adjacent_ports_as_one_range_and_stays_small() {
    let gateway = gateway(&serde_json::json!({"service": {"type": "None"}}));
    let ports = |ports: Vec<u16>| {
        let ports: Vec<_> = ports.into_iter().map(|port| (Transport::Tcp, port)).collect();
        of(&gateway, &ports)[3]["spec"]["ingress"][0]["ports"].as_array().expect("ports").clone()
    };
    let open = ports(vec![80, 81, 82, 90]);
    assert_eq!(open[0], serde_json::json!({"protocol": "TCP", "port": 80, "endPort": 82}));
    assert_eq!((open.len(), &open[1]["port"]), (3, &serde_json::json!(90)));
    assert_eq!(ports((1..500).map(|port| port * 2).collect()).len(), 3, "all TCP ports, all UDP ports, and health");
}

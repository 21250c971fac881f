//! Golden files of the children of a gateway. `UPDATE=1 cargo test -p portlane-operator-core --test children` rewrites
//! them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, fs, path::Path};

use crds::ForwardGateway;
use operator_core::ObjectKey;
use operator_core::desired::{
    drainer::drainer,
    gateway::{Fleets, children},
};
use proxy_api::Transport;

fn gateway(spec: &serde_json::Value) -> ForwardGateway {
    let metadata = serde_json::json!({"name": "edge", "namespace": "infra", "uid": "u-1"});
    serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).expect("a gateway")
}

fn fleets() -> Fleets {
    Fleets {
        image: "example.com/proxy:1".into(),
        pull_policy: "IfNotPresent".into(),
        operator: "portlane-operator.portlane.svc:9443".into(),
        network_policies: true,
        ..Fleets::default()
    }
}

fn of(gateway: &ForwardGateway, ports: &[(Transport, u16)]) -> Vec<serde_json::Value> {
    let ports: BTreeSet<_> = ports.iter().copied().collect();
    let children = children(&ObjectKey::new("infra", "edge"), gateway, &fleets(), "ROOTS", &ports);
    children.into_iter().map(|(_, manifest)| manifest).collect()
}

fn full() -> serde_json::Value {
    serde_json::json!({
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
    })
}

fn is_golden(file: &str, actual: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, actual).expect("write");
    }
    assert_eq!(fs::read_to_string(&golden).unwrap_or_default(), actual);
}

#[test]
fn the_children_of_a_full_gateway_are_what_the_golden_file_says() {
    let mut actual = String::new();
    for child in of(&gateway(&full()), &[(Transport::Tcp, 53), (Transport::Udp, 53)]) {
        actual += "---\n";
        actual += &serde_yaml::to_string(&child).expect("YAML");
    }
    is_golden("children.yaml", &actual);
    assert!(!actual.contains("mine"), "a label of the user cannot move a pod out of its fleet");
}

#[test]
fn a_fleet_on_claims_and_the_drainer_of_a_claim_are_what_the_golden_file_says() {
    let mut spec = full();
    spec["durability"] = serde_json::json!({"volumeClaim": {"size": "32Gi", "storageClassName": "fast"}});
    let gateway = gateway(&spec);
    let children = of(&gateway, &[(Transport::Tcp, 53)]);
    let kinds: Vec<&str> = children.iter().filter_map(|child| child["kind"].as_str()).collect();
    assert_eq!(kinds, ["ServiceAccount", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "Service"]);
    let claim = ObjectKey::new("infra", "messages-edge-2");
    let made = drainer((&ObjectKey::new("infra", "edge"), &gateway), &fleets(), "ROOTS", (&claim, 2), "claim.fleet.7");
    assert_eq!(made.key, ObjectKey::new("infra", "edge-drain-2"));
    let labels = &made.manifest["spec"]["template"]["metadata"]["labels"];
    for child in &children[1..] {
        let spec = &child["spec"];
        let selector = spec["selector"]["matchLabels"].as_object().or_else(|| spec["selector"].as_object());
        let selector = selector.or_else(|| spec["podSelector"]["matchLabels"].as_object()).expect("a selector");
        assert!(selector.iter().any(|(key, value)| labels[key] != *value), "{}: {selector:?}", child["kind"]);
    }
    let mut actual = String::new();
    for object in [&children[1], &made.manifest] {
        actual += "---\n";
        actual += &serde_yaml::to_string(object).expect("YAML");
    }
    is_golden("children_on_claims.yaml", &actual);
}

#[test]
fn a_fleet_with_nats_servers_has_their_files_and_does_not_start_without_them_and_a_drainer_has_none() {
    let server = serde_json::json!({"url": "tls://n", "credentialsRef": {"name": "a"}, "caRef": {"name": "b"}});
    let claim = serde_json::json!({"volumeClaim": {"size": "1Gi"}});
    let gateway = gateway(&serde_json::json!({"jetStream": server, "durability": claim}));
    let pod = of(&gateway, &[])[1]["spec"]["template"]["spec"].clone();
    let is_of_stream = |item: &&serde_json::Value| item["name"].as_str().is_some_and(|name| name.contains("jetstream"));
    let named = |list: &serde_json::Value| -> Vec<serde_json::Value> {
        list.as_array().expect("a list").iter().filter(is_of_stream).cloned().collect()
    };
    let source = |name: &str, key: &str| serde_json::json!({"name": name, "items": [{"key": key, "path": key}], "optional": false});
    let sources = serde_json::json!([{"secret": source("a", "creds")}, {"configMap": source("b", "ca.crt")}]);
    let volume = serde_json::json!({"name": "jetstream", "projected": {"sources": sources}});
    assert_eq!(named(&pod["volumes"]), [volume]);
    let container = &pod["containers"][0];
    let folder = "/var/run/secrets/portlane-jetstream";
    let mount = serde_json::json!({"name": "jetstream", "mountPath": folder, "readOnly": true});
    assert_eq!(named(&container["volumeMounts"]), [mount]);
    let env = container["env"].as_array().expect("variables");
    let value = |name: &str| env.iter().find(|it| it["name"] == name).and_then(|it| it["value"].as_str());
    assert_eq!(value("PORTLANE_JETSTREAM_CREDENTIALS"), Some("/var/run/secrets/portlane-jetstream/creds"));
    assert_eq!(value("PORTLANE_JETSTREAM_CA"), Some("/var/run/secrets/portlane-jetstream/ca.crt"));
    let claim = ObjectKey::new("infra", "messages-edge-2");
    let made = drainer((&ObjectKey::new("infra", "edge"), &gateway), &fleets(), "ROOTS", (&claim, 2), "claim.fleet.7");
    let text = made.manifest.to_string().to_lowercase();
    assert!(!text.contains("jetstream"), "{text}");
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

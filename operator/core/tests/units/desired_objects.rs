//! Autoscalers, who holds the replicas of a workload, and children of gateways that no golden file shows.

use std::{collections::BTreeSet, net::Ipv6Addr};

use crds::{Autoscaling, ForwardGateway, PortForward, TargetKind};
use k8s_openapi::{api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use operator_core::{
    NoScaler, ObjectKey,
    desired::{
        autoscaler::{FAILED, Scaler, least, of_forward, of_gateway},
        ca::{Root, Roots, Trusted},
        gateway::{Fleets, children, selector_text, unwanted},
        holder::{ends_earlier, holder, obstacle},
        pods::Pods,
    },
    world::child::ChildKind,
};
use proxy_api::Transport;
use serde_json::{Value, json};

fn gateway(spec: &Value) -> ForwardGateway {
    let metadata = json!({"name": "edge", "namespace": "ns", "uid": "uid-edge"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway")
}

fn forward(autoscaling: &Value) -> PortForward {
    let metadata = json!({"name": "web", "namespace": "ns", "uid": "uid-web"});
    let spec = json!({"placement": {"sidecar": {"selector": {}}}, "listeners": [], "autoscaling": autoscaling});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a forward")
}

fn edge() -> ObjectKey {
    ObjectKey::new("ns", "edge")
}

fn scaler() -> Scaler {
    let autoscaling = json!({"targetRef": {"kind": "StatefulSet", "name": "shop"}, "maxReplicas": 3});
    of_forward(&ObjectKey::new("ns", "web"), &forward(&autoscaling)).expect("an autoscaler")
}

#[test]
fn the_autoscaler_of_a_gateway_scales_its_deployment_by_connections() {
    let autoscaling = json!({"minReplicas": 3, "maxReplicas": 9, "targetConnectionsPerPod": 500});
    let scaler = of_gateway(&edge(), &gateway(&json!({"autoscaling": autoscaling}))).expect("an autoscaler");
    assert_eq!((&scaler.key, scaler.owner.as_str()), (&edge(), "uid-edge"));
    assert_eq!((scaler.target_kind, scaler.target.as_str()), (TargetKind::Deployment, "edge"));
    let metadata = &scaler.manifest["metadata"];
    assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("edge"), &json!("ns")));
    let labels = json!({"app.kubernetes.io/managed-by": "portlane-operator", "portlane.dev/gateway": "edge"});
    assert_eq!(metadata["labels"], labels);
    let owner = json!([{
        "apiVersion": "portlane.dev/v1alpha1", "kind": "ForwardGateway", "name": "edge", "uid": "uid-edge",
        "controller": true, "blockOwnerDeletion": true,
    }]);
    assert_eq!(metadata["ownerReferences"], owner);
    let metric = json!({"type": "Pods", "pods": {
        "metric": {"name": "portlane_connections"}, "target": {"type": "AverageValue", "averageValue": "500"},
    }});
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "edge"},
        "minReplicas": 3, "maxReplicas": 9, "metrics": [metric],
    });
    assert_eq!(scaler.manifest["spec"], spec);
    assert_eq!(of_gateway(&edge(), &gateway(&json!({}))), None);
}

#[test]
fn the_autoscaler_of_a_forward_counts_the_connections_of_that_forward() {
    let own = json!({"type": "Resource", "resource": {"name": "cpu"}});
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    let autoscaling = json!({
        "targetRef": {"kind": "Deployment", "name": "shop"}, "maxReplicas": 4, "targetConnectionsPerPod": 10,
        "metrics": [own], "behavior": behavior,
    });
    let scaler = of_forward(&ObjectKey::new("ns", "web"), &forward(&autoscaling)).expect("an autoscaler");
    assert_eq!(scaler.key, ObjectKey::new("ns", "portforward-web"), "a gateway of that name may have one too");
    let labels = json!({"app.kubernetes.io/managed-by": "portlane-operator", "portlane.dev/forward": "web"});
    assert_eq!(scaler.manifest["metadata"]["labels"], labels);
    let spec = &scaler.manifest["spec"];
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"], &spec["behavior"]), (&json!(1), &json!(4), &behavior));
    let metric = &spec["metrics"][0]["pods"]["metric"];
    assert_eq!(metric["selector"], json!({"matchLabels": {"forward": "web"}}));
    assert_eq!(spec["metrics"][1], own);
    let without = of_forward(&ObjectKey::new("ns", "web"), &forward(&json!(null)));
    assert_eq!(without, None);
}

#[test]
fn a_fleet_has_at_least_two_proxies_if_nothing_else_is_said() {
    let of = |min_replicas, max_replicas| least(&Autoscaling { min_replicas, max_replicas, ..Autoscaling::default() });
    assert_eq!((of(None, 9), of(None, 1), of(Some(4), 9)), (2, 1, 4));
}

fn autoscaler(name: &str, owner: &str, kind: &str, target: &str) -> HorizontalPodAutoscaler {
    let owner = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner});
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "ownerReferences": [owner]},
        "spec": {"scaleTargetRef": {"kind": kind, "name": target}, "maxReplicas": 3},
    }))
    .expect("an autoscaler")
}

/// Why an autoscaler for the `StatefulSet` `shop` cannot be made beside these.
fn why(others: &[HorizontalPodAutoscaler]) -> Option<&'static str> {
    obstacle(&scaler(), Some((&ObjectMeta::default(), Some(3))), others).map(|why| why.reason)
}

#[test]
fn an_autoscaler_needs_a_target_whose_replicas_nobody_else_sets() {
    let missing = obstacle(&scaler(), None, &[]).expect("an obstacle");
    assert_eq!(missing.reason, "TargetNotFound");
    assert!(missing.message.contains("StatefulSet shop"), "{}", missing.message);
    let fields = json!({"f:spec": {"f:replicas": {}}});
    let entry = json!({"manager": "argocd", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let held: ObjectMeta = serde_json::from_value(json!({"managedFields": [entry]})).expect("metadata");
    let held = obstacle(&scaler(), Some((&held, Some(3))), &[]).expect("an obstacle");
    assert_eq!(held.reason, "ReplicasHeld");
    let failed = NoScaler { reason: FAILED, message: String::new() };
    assert!(ends_earlier(&missing) && ends_earlier(&held) && !ends_earlier(&failed), "a failure proves nothing");
    assert!(held.message.contains("argocd"), "{}", held.message);
    assert_eq!(why(&[]), None);
}

#[test]
fn an_autoscaler_takes_no_name_and_no_target_from_another_one() {
    assert_eq!(why(&[autoscaler("portforward-web", "other", "Deployment", "blog")]), Some("NameTaken"));
    assert_eq!(why(&[autoscaler("theirs", "other", "StatefulSet", "shop")]), Some("TargetTaken"));
    let apart = [
        autoscaler("ours", "uid-web", "StatefulSet", "shop"),
        autoscaler("portforward-web", "uid-web", "StatefulSet", "shop"),
        autoscaler("kind", "other", "Deployment", "shop"),
        autoscaler("name", "other", "StatefulSet", "blog"),
    ];
    assert_eq!(why(&apart), None);
}

#[test]
fn replicas_in_a_manifest_are_held_by_whoever_wrote_it() {
    let applied = json!({"kubectl.kubernetes.io/last-applied-configuration": "{\"spec\": {\"replicas\": 2}}"});
    let metadata = |managed: Value| -> ObjectMeta {
        serde_json::from_value(json!({"annotations": applied, "managedFields": managed})).expect("metadata")
    };
    let entry = |manager: &str| {
        let fields = json!({"f:spec": {"f:replicas": {}}});
        json!([{"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}])
    };
    assert_eq!(holder(&metadata(entry("argocd")), Some(1)).as_deref(), Some("argocd"));
    assert_eq!(
        holder(&metadata(json!(null)), Some(1)).as_deref(),
        Some("kubectl apply"),
        "its managed fields are gone"
    );
    assert_eq!(holder(&metadata(entry("portlane-operator")), Some(1)).as_deref(), Some("kubectl apply"));
    let unreadable = json!({"kubectl.kubernetes.io/last-applied-configuration": "no JSON"});
    let unreadable: ObjectMeta = serde_json::from_value(json!({"annotations": unreadable})).expect("metadata");
    assert_eq!(holder(&unreadable, Some(3)), None);
}

#[test]
fn terraform_holds_replicas_as_helm_does() {
    let fields = json!({"f:spec": {"f:replicas": {}}});
    let entry = json!({"manager": "terraform-provider-helm_v2", "operation": "Update", "fieldsV1": fields});
    let metadata: ObjectMeta = serde_json::from_value(json!({"managedFields": [entry]})).expect("metadata");
    assert_eq!(holder(&metadata, Some(3)).as_deref(), Some("terraform-provider-helm_v2"));
    assert_eq!(holder(&metadata, Some(1)), None);
    assert_eq!(holder(&metadata, None), None);
}

fn fleets(network_policies: bool) -> Fleets {
    Fleets { network_policies, ..Fleets::default() }
}

/// The children under an operator that creates network policies.
fn of(spec: &Value, ports: &[(Transport, u16)]) -> Vec<Value> {
    let ports: BTreeSet<(Transport, u16)> = ports.iter().copied().collect();
    let children = children(&edge(), &gateway(spec), &fleets(true), "", &ports);
    children.into_iter().map(|(_, manifest)| manifest).collect()
}

#[test]
fn the_replicas_of_a_fleet_are_two_if_nothing_is_said_and_its_autoscalers_if_it_has_one() {
    assert_eq!(of(&json!({}), &[])[1]["spec"]["replicas"], 2);
    assert_eq!(of(&json!({"replicas": 0}), &[])[1]["spec"]["replicas"], 0);
    let autoscaling = json!({"autoscaling": {"maxReplicas": 5, "targetConnectionsPerPod": 9}});
    assert_eq!(of(&autoscaling, &[])[1]["spec"].get("replicas"), None);
    assert_eq!(selector_text(&edge()), "portlane.dev/gateway=edge");
}

#[test]
fn a_fleet_drains_for_five_minutes_if_nothing_is_said() {
    let pod = &of(&json!({}), &[])[1]["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 310, "it leaves, drains, and has some time to spare");
    let variables = pod["containers"][0]["env"].as_array().expect("variables");
    let drain = variables.iter().find(|variable| variable["name"] == "PORTLANE_DRAIN_SECONDS").expect("there");
    assert_eq!(drain["value"], "300");
    let absent = ["nodeSelector", "tolerations", "priorityClassName", "affinity", "topologySpreadConstraints"];
    assert!(absent.iter().all(|field| pod.get(field).is_none()));
}

#[test]
fn the_service_of_a_gateway_has_the_type_that_was_asked_for() {
    let kind = |spec: Value| of(&spec, &[(Transport::Udp, 53)])[4]["spec"]["type"].clone();
    assert_eq!(kind(json!({})), "ClusterIP");
    assert_eq!(kind(json!({"service": {"type": "ClusterIP"}})), "ClusterIP");
    assert_eq!(kind(json!({"service": {"type": "NodePort"}})), "NodePort");
    assert_eq!(kind(json!({"service": {"type": "LoadBalancer"}})), "LoadBalancer");
    let plain = &of(&json!({}), &[(Transport::Udp, 53)])[4];
    let ports = json!([{"name": "udp-53", "protocol": "UDP", "port": 53, "targetPort": 53}]);
    assert_eq!(plain["spec"]["ports"], ports);
    let absent = ["externalTrafficPolicy", "loadBalancerClass", "allocateLoadBalancerNodePorts"];
    assert!(absent.iter().all(|field| plain["spec"].get(field).is_none()));
    assert_eq!(plain["metadata"].get("annotations"), None);
    assert_eq!(of(&json!({"service": {"type": "None"}}), &[(Transport::Udp, 53)]).len(), 4);
}

// C14
#[test]
fn a_fleet_has_a_network_policy_only_if_the_operator_is_told_to_make_one() {
    let kinds = |network_policies: bool| -> Vec<Value> {
        let ports = BTreeSet::from([(Transport::Tcp, 80)]);
        let children = children(&edge(), &gateway(&json!({})), &fleets(network_policies), "", &ports);
        children.into_iter().map(|(_, child)| child["kind"].clone()).collect()
    };
    assert_eq!(kinds(true), ["ServiceAccount", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service"]);
    assert_eq!(kinds(false), ["ServiceAccount", "Deployment", "PodDisruptionBudget", "Service"]);
}

#[test]
fn the_policy_of_a_fleet_admits_its_peers_and_without_peers_every_source() {
    let from = |peers: Value| -> Value {
        let peers = serde_json::from_value(peers).expect("peers");
        let ports = BTreeSet::from([(Transport::Tcp, 80)]);
        let fleets = Fleets { peers, ..fleets(true) };
        let children = children(&edge(), &gateway(&json!({})), &fleets, "", &ports);
        let policy = children.into_iter().find(|(kind, _)| *kind == ChildKind::NetworkPolicy).expect("a policy").1;
        assert_eq!(policy["spec"]["ingress"].as_array().map(Vec::len), Some(1));
        policy["spec"]["ingress"][0]["from"].clone()
    };
    assert_eq!(from(json!([])), Value::Null);
    let peers = json!([{"namespaceSelector": {"matchLabels": {"team": "shop"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]);
    assert_eq!(from(peers.clone()), peers);
}

#[test]
fn what_a_gateway_should_not_have_is_removed() {
    let of = |spec: &Value, network_policies: bool| -> Vec<ChildKind> {
        unwanted(&gateway(spec), &fleets(network_policies)).collect()
    };
    let (policy, service) = (ChildKind::NetworkPolicy, ChildKind::Service);
    assert!(of(&json!({}), true).is_empty());
    assert_eq!(of(&json!({}), false), [policy]);
    assert!(of(&json!({"service": {"type": "NodePort"}}), true).is_empty());
    assert_eq!(of(&json!({"service": {"type": "None"}}), true), [service]);
    assert_eq!(of(&json!({"service": {"type": "None"}}), false), [policy, service]);
}

#[test]
fn a_fleet_has_the_pull_secrets_and_the_user_that_the_operator_is_told() {
    let pod = |pods: Pods| {
        let fleets = Fleets { pods, ..Fleets::default() };
        let children = children(&edge(), &gateway(&json!({})), &fleets, "", &BTreeSet::new());
        children[1].1["spec"]["template"]["spec"].clone()
    };
    let ids = ["runAsUser", "runAsGroup", "fsGroup"];
    let plain = pod(Pods::default());
    assert_eq!(plain.get("imagePullSecrets"), None);
    assert!(ids.iter().all(|id| plain["securityContext"][id] == 65532), "{plain}");
    let told = pod(Pods { pull_secrets: vec!["mirror".into()], cluster_ids: true });
    assert_eq!(told["imagePullSecrets"], json!([{"name": "mirror"}]));
    assert!(ids.iter().all(|id| told["securityContext"].get(id).is_none()), "{told}");
}

#[test]
fn a_gateway_completes_its_pod_template_by_that_of_the_installation() {
    let defaults = json!({
        "labels": {"team": "net", "cost": "1"}, "annotations": {"a": "b"}, "nodeSelector": {"pool": "edge"},
        "resources": {"requests": {"cpu": "1"}}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
        "affinity": {"nodeAffinity": {}}, "topologySpreadConstraints":
            [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    });
    let template = serde_json::from_value(defaults).expect("a template");
    let fleets = Fleets { template, ..Fleets::default() };
    let template = |own: Value| {
        let gateway = gateway(&json!({"podTemplate": own}));
        let children = children(&edge(), &gateway, &fleets, "", &BTreeSet::new());
        children[1].1["spec"]["template"].clone()
    };
    let plain = template(json!({}));
    assert_eq!(plain["metadata"]["labels"]["team"], "net");
    assert_eq!(plain["metadata"]["annotations"]["a"], "b");
    assert_eq!(plain["spec"]["nodeSelector"], json!({"pool": "edge"}));
    assert_eq!(plain["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(plain["spec"]["priorityClassName"], "high");
    assert_eq!(plain["spec"]["topologySpreadConstraints"][0]["topologyKey"], "zone");
    assert_eq!(plain["spec"]["affinity"], json!({"nodeAffinity": {}}));
    assert_eq!(plain["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "1"}}));
    let own = template(json!({
        "labels": {"team": "web"}, "nodeSelector": {"zone": "a"}, "priorityClassName": "low",
        "resources": {"limits": {"cpu": "2"}}, "tolerations": [{"key": "a", "operator": "Exists"}],
    }));
    assert_eq!(own["metadata"]["labels"]["team"], "web");
    assert_eq!(own["metadata"]["labels"]["cost"], "1");
    assert_eq!(own["spec"]["nodeSelector"], json!({"zone": "a"}));
    assert_eq!(own["spec"]["priorityClassName"], "low");
    assert_eq!(own["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "2"}}));
    assert_eq!(own["spec"]["tolerations"], json!([{"key": "a", "operator": "Exists"}]));
}

#[test]
fn a_fleet_serves_both_families_unless_the_address_is_set() {
    let health = |bind: &str| {
        let fleets = Fleets { bind: bind.parse().expect("an address"), ..Fleets::default() };
        let children = children(&edge(), &gateway(&json!({})), &fleets, "", &BTreeSet::new());
        let env =
            children[1].1["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables").clone();
        env.into_iter().find(|variable| variable["name"] == "PORTLANE_HEALTH_ADDRESS").expect("there")["value"].clone()
    };
    assert_eq!(Fleets::default().bind, Ipv6Addr::UNSPECIFIED);
    assert_eq!((health("::"), health("0.0.0.0")), (json!("[::]:9180"), json!("0.0.0.0:9180")));
    assert_eq!(of(&json!({}), &[(Transport::Tcp, 80)])[4]["spec"]["ipFamilyPolicy"], "PreferDualStack");
}

#[test]
fn neighbouring_ports_of_two_transports_are_two_ranges() {
    let open = |ports: &[(Transport, u16)]| of(&json!({}), ports)[3]["spec"]["ingress"][0]["ports"].clone();
    let health = json!({"protocol": "TCP", "port": 9180});
    let expected = json!([{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 81}, health]);
    assert_eq!(open(&[(Transport::Tcp, 80), (Transport::Udp, 81)]), expected);
    let last = json!([{"protocol": "TCP", "port": 65_534, "endPort": 65_535}, health]);
    assert_eq!(open(&[(Transport::Tcp, 65_534), (Transport::Tcp, 65_535)]), last);
}

#[test]
fn a_network_policy_spells_out_a_hundred_ranges_and_no_more() {
    let open = |count: u16| {
        let ports: Vec<(Transport, u16)> = (1..=count).map(|at| (Transport::Tcp, 2 * at)).collect();
        of(&json!({}), &ports)[3]["spec"]["ingress"][0]["ports"].as_array().expect("ports").len()
    };
    assert_eq!((open(100), open(101)), (101, 3));
}

#[test]
fn a_fleet_keeps_its_certificates_while_they_lead_to_the_operator() {
    let trusted = Trusted { bundle: "A;B;".to_owned(), signing: "A;".to_owned(), since: 1 };
    assert_eq!(trusted.for_fleet(None), "A;B;");
    assert_eq!(trusted.for_fleet(Some("A;old;")), "A;old;", "another template would roll the fleet");
    assert_eq!(trusted.for_fleet(Some("old;")), "A;B;");
}

#[test]
fn a_certificate_that_ends_now_is_dropped_and_one_that_ends_later_is_not() {
    let year = 365 * 24 * 3600;
    let root = |made: u64, end: u64| Root { made, end, certificate: format!("c{made};"), key: String::new() };
    let roots = || Roots { roots: vec![root(1, 10 * year), root(2, 20 * year)] };
    let at = |now: u64| {
        let (roots, changed) = roots().rotated(now, || Ok::<_, ()>(root(3, 30 * year))).expect("made");
        (roots.bundle(), changed)
    };
    assert_eq!(at(10 * year - 1), ("c1;c2;".to_owned(), false));
    assert_eq!(at(10 * year), ("c2;".to_owned(), true));
    assert_eq!(at(19 * year), ("c2;".to_owned(), true));
    assert_eq!(at(19 * year + 1), ("c2;c3;".to_owned(), true));
    let failed = roots().rotated(19 * year + 1, || Err("no entropy"));
    assert_eq!(failed, Err("no entropy"));
}

#[test]
fn the_newest_certificate_signs_once_it_has_been_known_for_30_days() {
    let days = |count: u64| count * 24 * 3600;
    let root = |made: u64| Root { made, end: days(9999), certificate: String::new(), key: String::new() };
    let roots = Roots { roots: vec![root(0), root(days(100))] };
    assert_eq!(roots.signing(days(130) - 1).map(|root| root.made), Some(0));
    assert_eq!(roots.signing(days(130)).map(|root| root.made), Some(days(100)));
    assert_eq!(Roots { roots: vec![root(5)] }.signing(5).map(|root| root.made), Some(5), "there is no other");
    assert_eq!(Roots::default().signing(0), None);
    assert_eq!((roots.since(), Roots::default().since()), (0, 0));
    assert_eq!(Roots { roots: vec![root(7), root(9)] }.since(), 7);
}

/// The resources of a proxy whose gateway has this pod template.
fn resources(template: &Value) -> Value {
    let gateway = gateway(&json!({"podTemplate": template}));
    let children = children(&edge(), &gateway, &fleets(false), "", &BTreeSet::new());
    let fleet = children.iter().find(|(kind, _)| *kind == ChildKind::Deployment).expect("a fleet");
    fleet.1["spec"]["template"]["spec"]["containers"][0]["resources"].clone()
}

// D7
#[test]
fn a_fleet_has_a_memory_limit_unless_its_gateway_names_other_resources() {
    let default = resources(&json!({}));
    assert_eq!(default, json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}));
    let own = json!({"requests": {"cpu": "1"}});
    assert_eq!(resources(&json!({"resources": own})), own);
    let whole = json!({"requests": {"cpu": 1, "memory": 134_217_728}});
    assert_eq!(resources(&json!({"resources": whole})), json!({"requests": {"cpu": "1", "memory": "134217728"}}));
}

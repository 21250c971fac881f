//! Values that the chart refuses, before anything of it is installed.

use harness::CHARTS;

use super::render;

/// Values, and the message of the chart's own checks (`templates/checks.yaml`).
const CONTRADICTIONS: &[(&str, &str)] = &[
    (
        "{serviceAccount: {create: false}}",
        "serviceAccount.create is false: set serviceAccount.name to the ServiceAccount that the operator runs as",
    ),
    (
        "{serviceAccount: {name: default}}",
        "serviceAccount.name is default, which would give the operator's rights to every pod of the namespace: choose \
         another account",
    ),
    (
        "{ports: {webhook: 9443}}",
        r#"ports must differ from each other: {"customMetrics":"9445","health":"9080","stream":"9443","webhook":"9443"}"#,
    ),
    (
        "{hostNetwork: true, ports: {webhook: 10250}}",
        "hostNetwork is true and a port is 10250, which kubelet uses on every node: choose another port",
    ),
    ("{dnsPolicy: None}", "dnsPolicy is None: set dnsConfig.nameservers"),
    (
        "{updateStrategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}}",
        "updateStrategy.type is Recreate: remove updateStrategy.rollingUpdate",
    ),
    (
        "{updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}}",
        "updateStrategy.rollingUpdate has maxSurge 0 and maxUnavailable 0: raise one of them",
    ),
    (
        "{image: {repository: 'localhost:5000/operator:v1'}}",
        "image.repository has a tag or a digest: set image.tag or image.digest",
    ),
    (
        "{proxyImage: {repository: 'proxy@sha256:0'}}",
        "proxyImage.repository has a tag or a digest: set proxyImage.tag or proxyImage.digest",
    ),
    (
        "{gateways: {enabled: false, namespaces: [edge]}}",
        "gateways.namespaces has edge, and gateways.enabled is false: enable gateways, or empty the list",
    ),
    (
        "{watchNamespaces: [shop], gateways: {namespaces: [edge]}}",
        "gateways.namespaces has edge, which the operator does not watch: add it to watchNamespaces",
    ),
    (
        "{tunnels: {namespaces: [homes]}}",
        "tunnels.namespaces has homes, and tunnels.enabled is false: enable tunnels, or empty the list",
    ),
    (
        "{watchNamespaces: [shop], tunnels: {enabled: true, namespaces: [homes]}}",
        "tunnels.namespaces has homes, which the operator does not watch: add it to watchNamespaces",
    ),
    (
        "{replicas: 0, injection: {failurePolicy: Fail}}",
        "replicas is 0 and injection.failurePolicy is Fail, so no pod that asks for a proxy could be created: set \
         injection.failurePolicy to Ignore",
    ),
    (
        "{replicas: 0, customMetrics: {enabled: true}}",
        "replicas is 0 and customMetrics.enabled is true, and an API that nobody serves blocks the deletion of every \
         namespace: set customMetrics.enabled to false",
    ),
    (
        "{podDisruptionBudget: {minAvailable: 2}}",
        "podDisruptionBudget.minAvailable is 2 with 2 replicas, so no node with an operator could be drained: lower it",
    ),
    (
        "{podDisruptionBudget: {maxUnavailable: 0}}",
        "podDisruptionBudget.maxUnavailable is 0, so no node with an operator could be drained: raise it",
    ),
    (
        "{doors: {unauthenticated: 32}}",
        "doors.unauthenticatedPerSource is above doors.unauthenticated, so one source could take every connection: lower it",
    ),
    (
        "{monitoring: {serviceMonitor: {enabled: true}}}",
        "monitoring.serviceMonitor.enabled is true and networkPolicy.operator.metricsFrom is empty, so Prometheus could \
         not reach the operator: add the peers of Prometheus to metricsFrom",
    ),
    (
        "{networkPolicy: {fleets: {from: [{podSelector: {}}]}}}",
        "networkPolicy.fleets.from has peers and networkPolicy.fleets.enabled is false, so no fleet gets a policy: set \
         enabled to true, or empty the list",
    ),
    (
        "{networkPolicy: {fleets: {enabled: true}}}",
        "networkPolicy.fleets.enabled is true and networkPolicy.fleets.from is empty, which would open the ports of all \
         fleets to every source: add the peers that may connect, or {} if every source may",
    ),
    (
        "{networkPolicy: {operator: {enabled: false, metricsFrom: [{podSelector: {}}]}}}",
        "networkPolicy.operator.metricsFrom has peers and networkPolicy.operator.enabled is false, so the operator gets \
         no policy: set enabled to true, or empty the list",
    ),
    (
        "{monitoring: {rules: {disabled: [PortlaneNoLeader, NoLeader]}}}",
        "monitoring.rules.disabled has NoLeader, which is not an alert: remove it",
    ),
    ("{extraEnv: [{name: A, value: x}, {name: A, value: y}]}", "extraEnv has A more than once: remove one"),
    (
        "{extraVolumes: [{name: notices, emptyDir: {}}], notices: {secret: hook}}",
        "extraVolumes has notices, and another volume has this name: rename it",
    ),
    (
        "{extraVolumeMounts: [{name: ca, mountPath: /ca}]}",
        "extraVolumeMounts has ca, which is not a volume: add it to extraVolumes",
    ),
];

/// Values, and what the message of the schema names.
const WRONG_TYPES: &[(&str, &str)] = &[
    ("{ports: {webhook: 0}}", "/ports/webhook"),
    ("{image: {digest: latest}}", "/image/digest"),
    ("{image: null}", "missing property 'image'"),
    ("{networkPolicy: {operator: null}}", "missing property 'operator'"),
    ("{replicas: '2'}", "got string, want integer"),
    ("{replicas: -1}", "/replicas"),
    ("{nameOverride: Portlane}", "/nameOverride"),
    ("{watchNamespaces: shop}", "/watchNamespaces"),
    ("{watchNamespaces: [shop, shop]}", "/watchNamespaces"),
    ("{protectedCIDRs: [203.0.113.10]}", "/protectedCIDRs/0"),
    ("{injection: {failurePolicy: Maybe}}", "/injection/failurePolicy"),
    ("{hostnetwork: true}", "'hostnetwork' not allowed"),
    ("{portlane: {replicas: 1}}", "'portlane' not allowed"),
    ("{gateways: {podTemplate: {replicas: 3}}}", "'replicas' not allowed"),
    ("{gateways: {podTemplate: {resources: {limits: {cpu: 2.5}}}}}", "/gateways/podTemplate/resources/limits/cpu"),
    ("{rbac: {aggregate: {gateways: view}}}", "/rbac/aggregate/gateways"),
    ("{commonLabels: {a: 1}}", "/commonLabels/a"),
    ("{monitoring: {podMonitor: {interval: 30}}}", "/monitoring/podMonitor/interval"),
    ("{monitoring: {rules: {interval: half a minute}}}", "/monitoring/rules/interval"),
    ("{monitoring: {rules: {runbookUrl: 'https://example.com/#top'}}}", "/monitoring/rules/runbookUrl"),
    ("{nodeSelector: {a: true}}", "/nodeSelector/a"),
    ("{extraEnv: [{value: x}]}", "missing property 'name'"),
    ("{resources: {claims: [{name: device}]}}", "'claims' not allowed"),
    ("{topologySpreadConstraints: [{maxSkew: 1}]}", "missing properties 'topologyKey', 'whenUnsatisfiable'"),
];

#[test]
fn values_that_contradict_each_other_give_one_message_with_the_remedy() {
    for (values, message) in CONTRADICTIONS {
        assert_eq!(messages(values), [*message], "{values}");
    }
}

#[test]
fn two_contradictions_are_reported_at_once() {
    let both = messages("{dnsPolicy: None, podDisruptionBudget: {maxUnavailable: 0}}");
    assert_eq!(both.len(), 2, "{both:?}");
}

/// What helm prints of the chart's own checks: one message a line.
fn messages(values: &str) -> Vec<String> {
    let refused = render(CHARTS[1], values).refused();
    let (_, message) = refused.split_once("): ").unwrap_or_else(|| panic!("{values}: {refused}"));
    message.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn values_of_a_wrong_type_or_an_unknown_name_are_refused_with_their_place() {
    for (values, part) in WRONG_TYPES {
        let refused = render(CHARTS[1], values).refused();
        assert!(refused.contains(part), "{values}: {refused}");
    }
}

#[test]
fn a_cluster_that_is_too_old_or_has_another_metrics_api_is_refused() {
    let on = |options: &[&str]| {
        let template = ["template", "portlane", CHARTS[1], "--set", "customMetrics.enabled=true"];
        harness::CommandOutput::of(harness::helm_command().args(template).args(options), "").refused()
    };
    let old = on(&["--kube-version", "1.29.0"]);
    assert!(old.contains("requires kubeVersion: >=1.30.0-0"), "{old}");
    let older = on(&["--kube-version", "1.33.0"]);
    assert!(older.contains("customMetrics.enabled needs Kubernetes 1.34"), "{older}");
    let taken = on(&["--kube-version", "1.34.0", "--api-versions", "custom.metrics.k8s.io/v1beta1"]);
    assert!(taken.contains("set customMetrics.enabled to false"), "{taken}");
}

/// A registered API that an aggregator cannot reach would block the deletion of every namespace.
#[test]
fn the_live_api_is_left_out_on_a_cluster_whose_aggregator_would_not_find_it() {
    let on = |version: &str| {
        let template = ["template", "portlane", CHARTS[1], "--kube-version", version];
        harness::CommandOutput::of(harness::helm_command().args(template), "").ok()
    };
    for (version, is_served) in [("1.33.9", false), ("1.34.0", true), ("1.34.2-eks-1a2b3c", true)] {
        let manifests = on(version);
        assert_eq!(manifests.contains("kind: APIService"), is_served, "{version}");
        assert_eq!(manifests.contains("live.portlane.dev"), is_served, "{version}");
        assert_eq!(manifests.contains("portlane-metrics"), is_served, "{version}");
    }
}

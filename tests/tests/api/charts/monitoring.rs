//! What the chart renders for Prometheus and Grafana.

use std::fs;

use harness::ControlPlane;
use serde_json::Value;

use super::{checkout, values::Case};

/// Stand-ins for the CRDs of the Prometheus Operator and of cert-manager, with the fields that the chart sets.
const KINDS: &str = include_str!("kinds.yaml");

pub(super) const MONITORING: &[Case] = &[
    (
        "{}",
        &[
            ("Service/portlane-operator", "/spec/ports/2", "null"),
            ("ServiceMonitor/portlane-operator", "", "null"),
            ("PodMonitor/portlane-proxies", "", "null"),
            ("PrometheusRule/portlane", "", "null"),
            ("ConfigMap/portlane-dashboard-forward", "", "null"),
        ],
    ),
    (
        "{networkPolicy: {operator: {metricsFrom: [{podSelector: {}}]}}, monitoring: {serviceMonitor: {enabled: true, \
         interval: 30s, labels: {release: p}}, podMonitor: {enabled: true, scrapeTimeout: 5s}}}",
        &[
            ("Service/portlane-operator", "/spec/ports/2/targetPort", "health"),
            (
                "ServiceMonitor/portlane-operator",
                "/spec/endpoints",
                "[{port: health, path: /metrics, honorLabels: true, interval: 30s}]",
            ),
            ("ServiceMonitor/portlane-operator", "/metadata/labels/release", "p"),
            (
                "ServiceMonitor/portlane-operator",
                "/spec/selector/matchLabels",
                "{app.kubernetes.io/name: portlane, app.kubernetes.io/instance: portlane, \
                 app.kubernetes.io/component: operator}",
            ),
            ("PodMonitor/portlane-proxies", "/spec/namespaceSelector", "{any: true}"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/0/port", "health"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/0/honorLabels", "true"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/0/relabelings/0/regex", "gateway"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/1/port", "portlane-health"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/1/scrapeTimeout", "5s"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/1/relabelings/0/regex", "sidecar"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/1/metricRelabelings", "null"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/2/port", "health"),
            ("PodMonitor/portlane-proxies", "/spec/podMetricsEndpoints/2/relabelings/0/regex", "drainer"),
            (
                "PodMonitor/portlane-proxies",
                "/spec/podMetricsEndpoints/2/relabelings/1",
                "{sourceLabels: [__meta_kubernetes_pod_label_portlane_dev_drains], targetLabel: gateway}",
            ),
            (
                "PodMonitor/portlane-proxies",
                "/spec/podMetricsEndpoints/2/metricRelabelings/0/regex",
                "portlane_(backend|connections|tenant)_.+",
            ),
        ],
    ),
    (
        "{watchNamespaces: [shop], monitoring: {podMonitor: {enabled: true}, rules: {enabled: true, interval: 1m, \
         disabled: [PortlaneNoLeader], runbookUrl: 'https://example.com/$1'}, dashboards: {enabled: true, labels: {a: \
         b}, annotations: {grafana_folder: Net}}}}",
        &[
            ("PodMonitor/portlane-proxies", "/spec/namespaceSelector", "{matchNames: [shop]}"),
            ("PrometheusRule/portlane", "/spec/groups/0/interval", "1m"),
            ("PrometheusRule/portlane", "/spec/groups/0/rules/0/alert", "PortlaneForwardsNotReady"),
            (
                "PrometheusRule/portlane",
                "/spec/groups/0/rules/0/annotations/runbook_url",
                "https://example.com/$1#by-reason",
            ),
            ("ConfigMap/portlane-dashboard-overview", "/metadata/labels/grafana_dashboard", "'1'"),
            ("ConfigMap/portlane-dashboard-overview", "/metadata/labels/a", "b"),
            ("ConfigMap/portlane-dashboard-forward", "/metadata/annotations", "{grafana_folder: Net}"),
        ],
    ),
];

/// Makes an API server know the kinds of the Prometheus Operator and of cert-manager.
#[track_caller]
pub(super) fn add_kinds(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    server.kubectl_with(&["apply", "--server-side", "-f", "-"], KINDS).ok();
    let monitoring =
        ["servicemonitors", "podmonitors", "prometheusrules"].map(|it| format!("{it}.monitoring.coreos.com"));
    for kind in monitoring.into_iter().chain(["certificates.cert-manager.io".to_owned()]) {
        let crd = format!("crd/{kind}");
        server.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &crd]).ok();
    }
}

/// Leaves the names of alerts in a `PrometheusRule`, and the name of its file in place of a dashboard.
#[track_caller]
pub(super) fn shorten_monitoring(object: &mut Value) {
    if object["kind"] == "PrometheusRule" {
        for group in object["spec"]["groups"].as_object_mut().into_iter().flat_map(|groups| groups.values_mut()) {
            let alerts = group["rules"].as_array().into_iter().flatten().map(|rule| rule["alert"].clone());
            group["rules"] = alerts.collect();
        }
    }
    if object["kind"] == "ConfigMap" {
        for (name, text) in object["data"].as_object_mut().into_iter().flatten() {
            let Some(name) = name.strip_prefix("portlane-") else { continue };
            let file = format!("charts/portlane/monitoring/{name}");
            let plain = fs::read_to_string(checkout(&file)).expect("a dashboard");
            assert!(text.as_str().map(str::trim_end) == Some(plain.trim_end()), "{file} is not what the chart has");
            *text = Value::from(format!("that of {file}"));
        }
    }
}

//! The series that the test of dashboards takes from a file, which has no API server to run a leading operator with.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use harness::{
    Scene, connect, free_port, http_get,
    programs::KubernetesVersion,
    scene::{forward, until_ready},
    until,
};

/// What Prometheus scrapes in `peers monitoring::`.
const RECORDED: &str = include_str!("../../peers/monitoring/recorded.txt");
/// `namespaces` refuses a watch to an operator, and reads this series.
const ELSEWHERE: &str = "portlane_operator_watches_refused";
/// A pod whose sidecar has another image than the operator gives to new pods.
const OLD_SIDECAR: &str = "{apiVersion: v1, kind: Pod, metadata: {name: old, labels: {portlane.dev/proxy: sidecar}}, spec: \
    {serviceAccountName: edge, automountServiceAccountToken: false, containers: [{name: app, image: none}], initContainers: \
    [{name: portlane-proxy, restartPolicy: Always, image: 'example.com/proxy:0.0.9'}]}}";

/// Names of series, and names of their labels.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = rest.split(['{', ',']).filter_map(|label| label.split_once("=\""));
        all.entry(name.to_owned()).or_default().extend(labels.map(|(label, _)| label.to_owned()));
    }
    all
}

#[test]
fn a_leader_and_a_proxy_of_a_gateway_serve_the_series_that_dashboards_are_tested_with() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let scene = Scene::ready_gateway(server.namespace("recorded"));
    let namespace = &scene.namespace;
    namespace.apply(&forward("broken", free_port(), "{service: {name: missing, port: 80}}"));
    until_ready(namespace, "broken", "False", "BackendNotFound");
    namespace.apply(OLD_SIDECAR);
    // The port of the webhook speaks TLS.
    let mut stranger = connect(scene.operator.webhook).expect("it listens");
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("written");
    let recorded = series(RECORDED);
    assert_eq!(recorded.len(), 9, "{recorded:?}");
    for (name, labels) in recorded.into_iter().filter(|(name, _)| name != ELSEWHERE) {
        let port = if name.starts_with("portlane_operator_") { scene.operator.health } else { scene.proxy.health };
        let shown = || series(&http_get(port, "/metrics").expect("metrics").1).remove(&name);
        until(&format!("{name} is served"), || shown().is_some());
        assert_eq!(shown(), Some(labels), "labels of {name}");
    }
}

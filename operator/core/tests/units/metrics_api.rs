//! Paths, selectors and documents of the metrics API.

use std::collections::BTreeMap;

use operator_core::{
    PodMetric,
    metrics_api::{
        api::{Asked, Of, failure, group, resources, route, values},
        labels::Labels,
    },
};
use proxy_api::Origin;
use serde_json::json;

const BASE: &str = "/apis/custom.metrics.k8s.io/v1beta2";

#[test]
fn paths_of_other_groups_and_versions_are_not_here() {
    for path in [
        "/apis/metrics.k8s.io",
        "/apis/metrics.k8s.io/v1beta2",
        "/apis/custom.metrics.k8s.io/v1beta1",
        "/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns/pods/p/portlane_connections",
        "/apis/external.metrics.k8s.io/v1beta2/namespaces/ns/pods/p/portlane_connections",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/services/p/portlane_connections",
    ] {
        assert_eq!(route(path, ""), Ok(Asked::Nothing), "{path}");
    }
    assert_eq!(route(&format!("{BASE}/"), ""), Ok(Asked::Resources));
    assert!(route("/apis/%ff", "").is_err());
}

#[test]
fn one_pod_is_asked_for_by_its_name() {
    let path = format!("{BASE}/namespaces/ns/pods/p/portlane_new_connections_per_second");
    let expected = |forward: Option<Origin>| Asked::Pods {
        namespace: "ns".to_owned(),
        of: Of::Pod("p".to_owned()),
        metric: PodMetric::NewPerSecond,
        forward,
    };
    assert_eq!(route(&path, "other=x"), Ok(expected(None)));
    assert_eq!(route(&path, "metricLabelSelector="), Ok(expected(None)), "an empty selector selects everything");
    let db = Origin::port_forward("ns", "db");
    assert_eq!(route(&path, "metricLabelSelector=forward%3Ddb"), Ok(expected(Some(db))));
    for selector in ["forward!%3Ddb", "forward", "forward%3Ddb,x%3Dy", "forward in (a,b)", "client%3Ddb"] {
        assert!(route(&path, &format!("metricLabelSelector={selector}")).is_err(), "{selector}");
    }
    assert!(route(&path, "labelSelector=a b").is_err());
}

#[test]
fn documents_are_those_that_api_servers_expect() {
    let version = json!({"groupVersion": "custom.metrics.k8s.io/v1beta2", "version": "v1beta2"});
    let expected = json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": "custom.metrics.k8s.io", "versions": [version],
        "preferredVersion": version,
    });
    assert_eq!(group(), expected);
    let list = resources();
    assert_eq!((&list["kind"], &list["groupVersion"]), (&json!("APIResourceList"), &version["groupVersion"]));
    let names: Vec<&str> = list["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .map(|resource| resource["name"].as_str().expect("a name"))
        .collect();
    let expected =
        ["pods/portlane_connections", "pods/portlane_new_connections_per_second", "pods/portlane_bytes_per_second"];
    assert_eq!(names, expected);
    let refusal = failure(403, "Forbidden", "who are you");
    assert_eq!((&refusal["kind"], &refusal["code"]), (&json!("Status"), &json!(403)));
    assert_eq!((&refusal["reason"], &refusal["message"]), (&json!("Forbidden"), &json!("who are you")));
    let list = values("ns", PodMetric::Connections, &[("p".to_owned(), 7)], "now");
    let expected = json!({
        "describedObject": {"kind": "Pod", "namespace": "ns", "name": "p", "apiVersion": "v1"},
        "metric": {"name": "portlane_connections", "selector": null}, "timestamp": "now", "value": "7",
    });
    assert_eq!(list["items"], json!([expected]));
    assert_eq!(list["kind"], "MetricValueList");
}

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Labels::parse(selector).expect("a selector").matches(&labels)
}

#[test]
fn every_requirement_of_a_selector_must_hold() {
    let shop = [("app", "shop"), ("tier", "web")];
    assert!(matches("app=shop,tier=web", &shop) && !matches("app=shop,tier=db", &shop));
    assert!(matches("app", &shop) && !matches("app", &[]));
    assert!(matches("!app", &[]) && !matches("!app", &shop));
    assert!(!matches("app=shop", &[]) && matches("app!=shop", &[]));
    assert!(!matches("app!=shop", &shop) && matches("app!=blog", &shop));
    assert!(matches("app in (blog,shop)", &shop) && !matches("app in (blog)", &shop) && !matches("app in (shop)", &[]));
    assert!(!matches("app notin (blog,shop)", &shop) && matches("app notin (blog)", &shop));
    assert!(matches("app notin (shop)", &[]));
}

#[test]
fn a_comma_within_parentheses_separates_values() {
    let shop = [("app", "shop"), ("tier", "web")];
    assert!(matches("app in (a,shop), tier in (web,x)", &shop));
    assert!(!matches("app in (a,shop),tier in (a,b)", &shop));
    assert!(matches(" app = shop ,, tier == web ", &shop));
    assert!(Labels::parse("app in ((a,b),c)").is_ok(), "a comma in the inner list separates nothing outside");
    assert!(Labels::parse(")app=shop").is_err());
}

#[test]
fn keys_are_letters_digits_and_some_signs() {
    for key in ["a", "portlane.dev/gateway", "a-b_c.d/e9"] {
        assert!(Labels::parse(key).is_ok_and(|labels| !labels.is_empty()), "{key}");
    }
    for key in ["a b", "ä", "a:b", "!", "=x", "in (a)"] {
        assert!(Labels::parse(key).is_err(), "{key}");
    }
}

#[test]
fn a_selector_has_at_most_64_requirements() {
    let all = |count: usize| vec!["a"; count].join(",");
    assert!(Labels::parse(&all(64)).is_ok() && Labels::parse(&all(65)).is_err());
}

#[test]
fn one_label_with_one_value_is_told_from_other_selectors() {
    let only = |text: &str| {
        let labels = Labels::parse(text).expect("a selector");
        labels.only().map(|(name, value)| format!("{name}={value}"))
    };
    assert_eq!(only("forward in (db)").as_deref(), Some("forward=db"));
    for other in ["", "forward", "forward!=db", "forward in (a,b)", "forward=a,x=y"] {
        assert_eq!(only(other), None, "{other}");
    }
    assert!(Labels::parse("").expect("a selector").is_empty());
}

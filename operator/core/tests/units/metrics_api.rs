//! Paths, selectors and documents of the metrics API, and which pods have a value at what time.

use std::collections::BTreeMap;

use operator_core::{
    ObjectKey, PodMetric, Proxies, Unheard,
    metrics_api::{
        api::{Asked, Of, failure, group, resources, route, values},
        labels::Labels,
    },
    world::objects::PodInfo,
};
use proxy_api::{Load, Origin, Work};
use serde_json::json;

use crate::scene::{fleet_pod, key, ms, proxy};

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

/// When the leader began to publish.
const BEGAN: u64 = 100_000;
/// Long after that.
const LATER: u64 = BEGAN + 1_000_000;

/// The ready pods of a fleet, and the reports of their proxies to the leader.
struct Fleet {
    pods: BTreeMap<ObjectKey, PodInfo>,
    proxies: Proxies,
}

impl Fleet {
    /// Every proxy has a stream, but has not reported yet.
    fn new(names: &[&str]) -> Self {
        let pods = names.iter().map(|name| (key(name), fleet_pod(name, true))).collect();
        let mut proxies = Proxies::default();
        for name in names {
            proxies.connected(&proxy(name));
        }
        Self { pods, proxies }
    }

    /// A fleet of three, one of which has all sessions.
    fn uneven() -> Self {
        let mut fleet = Self::new(&["full", "idle-1", "idle-2"]);
        for (name, connections) in [("full", 300), ("idle-1", 0), ("idle-2", 0)] {
            fleet.says(name, connections);
        }
        fleet
    }

    fn says(&mut self, name: &str, connections: u64) {
        let load = Load { sum: Work { connections, ..Work::default() }, ..Load::default() };
        self.proxies.loaded(&proxy(name), load);
    }

    fn asked(&self, forward: Option<&Origin>, millis: u64) -> Result<Vec<(String, u64)>, Unheard> {
        self.proxies.loads_of(&self.pods, (PodMetric::Connections, forward), (ms(BEGAN), ms(millis)))
    }

    /// What an HPA gets at this time.
    fn told(&self, millis: u64) -> Result<Vec<(String, u64)>, Unheard> {
        self.asked(None, millis)
    }
}

fn values_of<const COUNT: usize>(all: [(&str, u64); COUNT]) -> Vec<(String, u64)> {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[test]
fn a_pod_whose_stream_ended_has_its_last_load_for_a_minute() {
    let mut fleet = Fleet::uneven();
    fleet.proxies.ended(&proxy("full"), ms(LATER));
    for after in [0, 10_000, 59_999] {
        let expected = Ok(values_of([("full", 300), ("idle-1", 0), ("idle-2", 0)]));
        assert_eq!(fleet.told(LATER + after), expected, "after {after} ms");
    }
    let expected = Ok(values_of([("idle-1", 0), ("idle-2", 0)]));
    assert_eq!(fleet.told(LATER + 60_000), expected, "a broken pod stops nothing");
}

#[test]
fn a_proxy_that_is_back_has_its_load_of_before_until_it_reports() {
    let mut fleet = Fleet::uneven();
    let value = |fleet: &Fleet, after: u64| fleet.told(LATER + after).expect("values").first().cloned();
    let full = |connections| Some(("full".to_owned(), connections));
    fleet.proxies.ended(&proxy("full"), ms(LATER));
    fleet.proxies.connected(&proxy("full"));
    assert_eq!(value(&fleet, 59_999), full(300), "the proxy is silent");
    // A stream that ends before a load was reported changes nothing.
    fleet.proxies.ended(&proxy("full"), ms(LATER + 50_000));
    fleet.proxies.connected(&proxy("full"));
    assert_eq!(value(&fleet, 60_000), Some(("idle-1".to_owned(), 0)));
    fleet.says("full", 7);
    assert_eq!(value(&fleet, 60_000), full(7));
    assert_eq!(value(&fleet, 9_000_000), full(7), "a load counts until it changes");
    fleet.proxies.ended(&proxy("full"), ms(LATER + 9_000_000));
    assert_eq!(value(&fleet, 9_000_000), full(7), "and not the one of the stream before");
}

#[test]
fn the_load_of_a_pod_goes_with_the_pod() {
    let mut fleet = Fleet::uneven();
    fleet.proxies.ended(&proxy("full"), ms(LATER));
    fleet.proxies.gone(&proxy("full"));
    assert_eq!(fleet.told(LATER), Ok(values_of([("idle-1", 0), ("idle-2", 0)])));
}

#[test]
fn a_new_leader_tells_nothing_before_it_has_heard_of_all_ready_pods_or_a_minute_is_over() {
    let mut fleet = Fleet::new(&["full", "idle"]);
    fleet.says("idle", 0);
    for after in [0, 59_999] {
        assert_eq!(fleet.told(BEGAN + after), Err(Unheard(key("full"))), "after {after} ms");
    }
    assert_eq!(fleet.told(BEGAN + 60_000), Ok(values_of([("idle", 0)])), "a broken pod stops nothing");
    fleet.says("full", 300);
    assert_eq!(fleet.told(BEGAN), Ok(values_of([("full", 300), ("idle", 0)])));
}

#[test]
fn a_new_leader_does_not_wait_for_pods_that_are_not_ready_or_leave() {
    for unused in [fleet_pod("new", false), PodInfo { leaving: true, ..fleet_pod("new", true) }] {
        let mut fleet = Fleet::new(&["full"]);
        fleet.says("full", 300);
        fleet.pods.insert(key("new"), unused);
        assert_eq!(fleet.told(BEGAN), Ok(values_of([("full", 300)])));
    }
}

#[test]
fn a_pod_that_starts_later_does_not_keep_a_fleet_from_growing() {
    let mut fleet = Fleet::uneven();
    fleet.pods.insert(key("new"), fleet_pod("new", true));
    let expected = Ok(values_of([("full", 300), ("idle-1", 0), ("idle-2", 0)]));
    assert_eq!(fleet.told(LATER), expected, "the pod has no stream");
    fleet.proxies.connected(&proxy("new"));
    assert_eq!(fleet.told(LATER), expected, "the pod has not reported");
}

#[test]
fn a_proxy_that_reports_only_its_sum_has_been_heard_of() {
    let fleet = Fleet::uneven();
    let expected = Ok(values_of([("idle-1", 0), ("idle-2", 0)]));
    assert_eq!(fleet.asked(Some(&Origin::port_forward("ns", "web")), BEGAN), expected);
}

#[test]
fn an_autoscaler_counts_the_pods_of_its_namespace_that_stay() {
    let labelled = |app: &str, leaving: bool| {
        let labels = [("app".to_owned(), app.to_owned())].into();
        PodInfo { labels, leaving, ..PodInfo::default() }
    };
    let pods = BTreeMap::from([
        (ObjectKey::new("a", "p"), labelled("shop", false)),
        (key("leaves"), labelled("shop", true)),
        (key("other"), labelled("other", false)),
        (key("p"), labelled("shop", false)),
        (ObjectKey::new("z", "p"), labelled("shop", false)),
    ]);
    let asked = |of: &Of| of.among(&pods, "ns").into_iter().map(|(pod, _)| pod.name.clone()).collect::<Vec<_>>();
    assert_eq!(asked(&Of::All(Labels::parse("app=shop").expect("a selector"))), ["p"]);
    assert_eq!(asked(&Of::Pod("leaves".to_owned())), ["leaves"], "it is asked for by its name");
    assert!(asked(&Of::Pod("absent".to_owned())).is_empty());
}

//! What the page of `kubectl portlane ui` gets: `tests/page/shop.yaml` is what a cluster has at two readings, and
//! `shop.json` is the state after the second. `UPDATE=1 cargo test -p portlane-kubectl-core --test page` rewrites it;
//! review the diff.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod responses;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use kubectl_core::{
    access::{Listed, Place, Unknown},
    live::{Of, Rates, Request, Session},
    page::{LISTENERS, Notice, Page, Reading, State, proxies},
    top::Sample,
};
use operator_core::ObjectKey;
use proxy::core::control::page::{Health, Listed as ProxyEndpoint, Seen, Totals, shown, state};
use proxy_api::{BackendHealth, Failure, FailureReason, ListenerId, ListenerReport, ListenerState, Report, Revision};
use responses::response;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What the page reads of the state of a proxy if it is there: counts that only proxies have.
const OPTIONAL: [&str; 6] = ["version", "closed", "dropped", "refusedAddresses", "reached", "failures"];

#[derive(Serialize)]
struct Golden {
    state: State,
    notices: Vec<Notice>,
    sessions: Vec<Session>,
}

fn scene() -> Value {
    serde_yaml::from_str(include_str!("page/shop.yaml")).expect("YAML")
}

fn objects<T: DeserializeOwned>(scene: &Value, name: &str) -> Listed<T> {
    Listed::from(serde_json::from_value::<Vec<T>>(scene[name].clone()).expect("objects"))
}

fn reading(scene: &Value, sessions: &str, seconds: u64) -> Reading {
    let list = |name: &str| scene[name].as_array().expect("a list").clone();
    let config = |found: &Value| match response(found) {
        (Of::Pod(pod), Ok(config)) => (pod, Ok(config)),
        (Of::Pod(pod), Err(_)) => (pod.clone(), Err(Request::config(&pod).refused(403, "", "refused"))),
        (Of::Forward(_), _) => panic!("a pod"),
    };
    Reading {
        at: seconds * 1000,
        sample: Sample {
            at: Duration::from_secs(seconds),
            forwards: objects(scene, "forwards"),
            pods: Ok(objects(scene, "pods")),
            sessions: list(sessions).iter().map(response).collect(),
        },
        configs: list("configs").iter().map(config).collect(),
        events: Ok(objects(scene, "events")),
    }
}

fn page() -> Page {
    Page::new("namespace shop".to_owned(), Duration::from_secs(20))
}

#[test]
fn the_state_is_that_of_the_golden_file() {
    let (scene, mut page) = (scene(), page());
    page.take(reading(&scene, "before", 10));
    let state = page.take(reading(&scene, "now", 12));
    let golden = Golden { state, notices: page.notices(), sessions: page.sessions() };
    let text = serde_json::to_string_pretty(&golden).expect("JSON") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/shop.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).expect("write");
    }
    assert_eq!(text, fs::read_to_string(&path).expect("a golden file"), "UPDATE=1 rewrites it");
}

#[test]
fn counters_begin_with_the_first_reading_and_only_grow() {
    let (scene, mut page) = (scene(), page());
    let first = page.take(reading(&scene, "now", 10)).totals;
    assert_eq!((first.live, first.opened, first.up), (2, 0, 0), "what was before is not counted");
    page.take(reading(&scene, "before", 12));
    let last = page.take(reading(&scene, "now", 14)).totals;
    assert!(last.live == 2 && last.up >= first.up && last.opened >= first.opened, "{last:?}");
}

#[test]
fn rates_of_proxies_are_shown_if_each_forward_has_them() {
    let (mut scene, mut page) = (scene(), page());
    assert_eq!(page.take(reading(&scene, "now", 10)).rates, None, "the operator is older");
    for list in scene["now"].as_array_mut().expect("a list") {
        // A refusal has no list.
        list.as_object_mut().expect("a response").remove("code");
        list["newPerSecond"] = 500.into();
        list["bytesPerSecond"] = 7.into();
    }
    let forwards = scene["now"].as_array().map_or(0, Vec::len) as u64;
    let state = page.take(reading(&scene, "now", 12));
    assert_eq!(state.rates, Some(Rates { new: 500 * forwards, bytes: 7 * forwards }));
}

#[test]
fn a_reading_that_fails_leaves_the_state_and_names_the_missing_right() {
    let (scene, mut page) = (scene(), page());
    let why = || {
        let resource = "portforwards.portlane.dev".to_owned();
        Unknown::Forbidden { verb: "list", resource, place: Place::Namespace("shop".to_owned()) }.to_string()
    };
    let empty = page.fail(5, why());
    assert_eq!((empty.at, empty.forwards.len(), empty.cluster.notes), (5, 0, vec![why()]));
    let good = page.take(reading(&scene, "now", 10));
    let failed = page.fail(99, why());
    assert_eq!((failed.at, failed.cluster.notes), (good.at, vec![why()]));
    assert_eq!(failed.forwards, good.forwards);
}

#[test]
fn of_many_listeners_those_in_trouble_are_shown() {
    let (mut scene, mut page) = (scene(), page());
    let listener =
        |at: usize| serde_json::json!({"name": format!("l{at}"), "protocol": "TCP", "port": at, "backends": []});
    let many: Vec<Value> = (1..=LISTENERS + 7).map(listener).collect();
    let held = |it: &Value| serde_json::json!({"name": it["name"], "protocol": "TCP", "port": it["port"]});
    scene["forwards"][1]["status"]["listeners"] = many.iter().map(held).collect();
    scene["forwards"][1]["status"]["dataPlane"] =
        serde_json::json!({"acked": 2, "total": 2, "summary": "2/2", "rejectedCount": 0});
    scene["forwards"][1]["spec"]["listeners"] = many.into();
    let state = page.take(reading(&scene, "now", 10));
    let shown: usize = state.forwards.iter().map(|forward| forward.listeners.len()).sum();
    assert_eq!((state.listeners.all, state.listeners.omitted, shown), (LISTENERS + 9, 9, LISTENERS));
    assert_eq!(state.forwards.last().map(|forward| forward.name.as_str()), Some("shop/web"), "it has failed");
}

/// The paths of all fields; items of lists have one path.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(name, _)| !OPTIONAL.contains(&name.as_str())) {
                let path = format!("{path}.{name}");
                fields(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, path, found)),
        _ => {}
    }
}

#[test]
fn a_state_has_every_field_that_the_page_reads_of_a_proxy() {
    let id: ListenerId = "shop/db/pg".parse().expect("an id");
    let failure = Failure { reason: FailureReason::AddressInUse, message: "taken".to_owned(), serving: None };
    let listener = ListenerReport {
        revision: Revision::default(),
        state: ListenerState::Failed,
        failure: Some(failure),
        backends: BackendHealth::All,
        reached: None,
        looped: false,
        delivery: None,
    };
    let report = Report { listeners: BTreeMap::from([(id.clone(), listener)]), ..Report::default() };
    let address = SocketAddr::from(([192, 0, 2, 1], 1)).into();
    let backend = proxy::core::control::page::Backend {
        name: String::new(),
        weight: 1,
        priority: 0,
        sessions: 0,
        failures: 0,
        endpoints: 1,
        healthy: 1,
        listed: vec![ProxyEndpoint { address, health: Health::Healthy, live: 0 }],
    };
    let seen = BTreeMap::from([(id, Seen { backends: vec![backend], ..Seen::default() })]);
    let of_proxy = serde_json::json!(state(&report, &shown(&report), seen, Totals::default(), 1));
    let of_cluster = serde_json::json!(page().take(reading(&scene(), "now", 10)));
    let (mut read, mut has) = (BTreeSet::new(), BTreeSet::new());
    fields(&of_proxy, "", &mut read);
    fields(&of_cluster, "", &mut has);
    let missing: Vec<&String> = read.difference(&has).collect();
    assert!(read.len() > 20 && missing.is_empty(), "{missing:?}");
}

#[test]
fn a_reader_learns_that_not_every_proxy_was_asked() {
    let is_told = |asked: usize| {
        let mut scene = scene();
        scene["configs"].as_array_mut().expect("a list").truncate(asked);
        let notes = page().take(reading(&scene, "now", 10)).cluster.notes;
        notes.iter().any(|note| note.starts_with(&format!("the listeners of {asked} of 2 proxies were read")))
    };
    assert_eq!([0, 1, 2].map(is_told), [false, true, false], "without the right, none is asked");
}

#[test]
fn proxies_that_can_be_asked_are_in_pods_that_live_and_carry_one() {
    let pod = |name: &str, metadata: &str, phase: &str| {
        let text = format!("{{metadata: {{name: {name}, namespace: shop{metadata}}}, status: {{phase: {phase}}}}}");
        serde_yaml::from_str(&text).expect("a pod")
    };
    let (carries, leaves) = (", labels: {portlane.dev/proxy: sidecar}", ", deletionTimestamp: '2026-01-01T00:00:00Z'");
    let pods = vec![
        pod("b", carries, "Running"),
        pod("a", carries, "Pending"),
        pod("ended", carries, "Succeeded"),
        pod("leaves", &format!("{carries}{leaves}"), "Running"),
        pod("bare", "", "Running"),
    ];
    assert_eq!(proxies(&Ok(Listed::from(pods))), ["a", "b"].map(|name| ObjectKey::new("shop", name)));
}

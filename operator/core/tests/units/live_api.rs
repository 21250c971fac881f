//! Paths and documents of the live API, and which proxies it asks.

use std::collections::BTreeMap;

use operator_core::{
    Group, ObjectKey, ProxyId,
    live_api::{
        api::{Asked, DEFAULT_LIMIT, MAX_LIMIT, Of, group, resources, route, serves},
        carriers::carriers,
        config::Configured,
        rates::Rates,
        sessions::{Gathered, MAX_TEXTS},
    },
    status::proxies::Proxies,
    translate::program::Published,
    world::objects::{Object, PodInfo},
};
use proxy_api::{
    Delivery, ListenerReport, LiveSession, LiveSessions, Load, MAX_LIVE, MAX_NAME_BYTES, Origin, Report, Selection,
    SessionId, Transport, Work,
};
use serde_json::{Value, json};

use crate::scene::{Scene, app_pod, fleet_pod, forward, key, keys, proxy, side, web};

const BASE: &str = "/apis/live.portlane.dev/v1alpha1";

#[test]
fn paths_name_a_forward_or_a_pod_and_what_is_asked_of_it() {
    assert_eq!(route("/apis/live.portlane.dev", ""), Ok(Asked::Group));
    assert_eq!(route(&format!("{BASE}/"), "timeout=32s"), Ok(Asked::Resources));
    let at = |path: &str| route(&format!("{BASE}/namespaces/shop/{path}"), "");
    let db = ObjectKey::new("shop", "db");
    let sessions = |of| Ok(Asked::Sessions { of, limit: DEFAULT_LIMIT, session: None });
    let forward = || Of::Forward(Origin::port_forward("shop", "db"));
    assert_eq!(at("portforwards/db/sessions"), sessions(forward()));
    assert_eq!(at("portforwards/d%62/sessions"), sessions(forward()));
    assert_eq!(at("pods/db/sessions"), sessions(Of::Pod(db.clone())));
    assert_eq!(at("pods/db/config"), Ok(Asked::Config(db)));
    let together = |namespace: Option<&str>| {
        Ok(Asked::Together { namespace: namespace.map(str::to_owned), limit: DEFAULT_LIMIT, session: None })
    };
    assert_eq!(
        (at("portforwards/*/sessions"), at("portforwards/%2A/sessions")),
        (together(Some("shop")), together(Some("shop")))
    );
    assert_eq!(route(&format!("{BASE}/portforwards/*/sessions"), ""), together(None));
    assert_eq!(route(&format!("{BASE}/portforwards/db/sessions"), ""), Ok(Asked::Nothing), "a forward has a namespace");
    for path in ["portforwards/db/config", "portforwards/db", "pods", "pods/db/sessions/x", "pods/db/log"] {
        assert_eq!(at(path), Ok(Asked::Nothing), "{path}");
    }
    let other = route("/apis/live.portlane.dev/v1/namespaces/shop/pods/db/config", "");
    assert_eq!((other, route("/apis/portlane.dev", "")), (Ok(Asked::Nothing), Ok(Asked::Nothing)));
    assert!(route(&format!("{BASE}/namespaces/%ff/pods/db/config"), "").is_err());
    let lag = |path: &str, query: &str| route(&format!("{BASE}/namespaces/shop/{path}/sessions"), query);
    assert_eq!(lag("portforwards/db", "limit=0&lag=true"), Ok(Asked::Lag(forward())));
    assert_eq!(lag("portforwards/*", "lag=true"), Ok(Asked::LagTogether { namespace: Some("shop".to_owned()) }));
    assert_eq!(lag("portforwards/db", "lag=false"), sessions(forward()));
    assert!(lag("portforwards/db", "lag=1").is_err_and(|why| why.contains("lag '1' is neither true nor false")));
    assert!(serves(BASE) && serves("/apis/live.portlane.dev"));
    assert!(!serves("/apis/live.portlane.devil/v1alpha1") && !serves("/apis") && !serves("/apis/portlane.dev"));
}

#[test]
fn another_version_has_neither_resources_nor_the_sessions_of_all_forwards() {
    for path in ["", "/portforwards/*/sessions", "/namespaces/shop/portforwards/*/sessions"] {
        assert_eq!(route(&format!("/apis/live.portlane.dev/v1{path}"), ""), Ok(Asked::Nothing), "{path}");
    }
}

#[test]
fn a_limit_is_a_number_and_has_a_maximum() {
    let limit = |query: &str| match route(&format!("{BASE}/namespaces/shop/pods/db/sessions"), query) {
        Ok(Asked::Sessions { limit, .. }) => Ok(limit),
        Ok(other) => panic!("{other:?}"),
        Err(why) => Err(why),
    };
    assert_eq!((limit(""), limit("other=7")), (Ok(DEFAULT_LIMIT), Ok(DEFAULT_LIMIT)));
    assert_eq!((limit("limit=0"), limit("x=1&limit=7")), (Ok(0), Ok(7)));
    assert_eq!(limit("limit=999999"), Ok(MAX_LIMIT));
    for bad in ["limit=", "limit=-1", "limit=x", "limit=99999999999999999999999"] {
        assert!(limit(bad).is_err_and(|why| why.contains("limit")), "{bad}");
    }
}

#[test]
fn discovery_names_three_resources_to_get() {
    assert_eq!(
        (&group()["name"], &group()["versions"][0]["version"]),
        (&json!("live.portlane.dev"), &json!("v1alpha1"))
    );
    let list = resources();
    assert_eq!(list["groupVersion"], "live.portlane.dev/v1alpha1");
    let resources = list["resources"].as_array().expect("resources");
    let names: Vec<&str> = resources.iter().map(|resource| resource["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["pods/config", "pods/sessions", "portforwards/sessions"]);
    assert!(resources.iter().all(|resource| resource["verbs"] == json!(["get"]) && resource["namespaced"] == true));
}

/// A session of the listener `a` of a forward.
pub(crate) fn session(forward: &str) -> LiveSession {
    LiveSession {
        session: None,
        listener: format!("ns/{forward}/a").parse().expect("an id"),
        protocol: Transport::Tcp,
        client: "192.0.2.1:40000".parse().expect("an address"),
        backend: None,
        endpoint: None,
        instance: None,
        server_name: None,
        bytes_up: 3,
        bytes_down: 5,
        seconds: 7,
    }
}

pub(crate) fn live(total: u64, sessions: Vec<LiveSession>) -> LiveSessions {
    LiveSessions { total, sessions, ..LiveSessions::default() }
}

pub(crate) fn of_web(limit: usize) -> Selection {
    Selection { origin: Some(Origin::port_forward("ns", "web")), limit, ..Selection::default() }
}

pub(crate) fn document(gathered: Gathered) -> Value {
    serde_json::from_str(&gathered.document().expect("JSON")).expect("JSON")
}

#[test]
fn the_sessions_of_all_proxies_are_one_list_with_those_that_did_not_answer() {
    let mut gathered = Gathered::new(of_web(10), keys(&["p1", "p2", "p3"]));
    gathered.take(&key("p2"), live(1, vec![session("web")]));
    gathered.take(&key("p1"), live(7, vec![session("web")]));
    gathered.take(&key("p1"), live(7, vec![session("web")]));
    gathered.take(&key("stranger"), live(7, vec![session("web")]));
    let list = document(gathered);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("SessionList"), &json!("live.portlane.dev/v1alpha1")));
    assert_eq!((&list["metadata"], &list["total"]), (&json!({}), &json!(8)), "an answer counts once");
    assert_eq!(list["unanswered"], json!(["ns/p3"]));
    let expected = json!({
        "pod": "ns/p1", "listener": "ns/web/a", "protocol": "TCP", "client": "192.0.2.1:40000", "backend": null,
        "endpoint": null, "bytesUp": 3, "bytesDown": 5, "seconds": 7,
    });
    assert_eq!((&list["items"][0], &list["items"][1]["pod"]), (&expected, &json!("ns/p2")));
}

#[test]
fn sessions_beyond_the_limit_count_and_are_not_listed() {
    let mut gathered = Gathered::new(of_web(3), keys(&["p1", "p2", "p3"]));
    assert_eq!(gathered.room(), 3);
    gathered.take(&key("p1"), live(2, vec![session("web"); 2]));
    assert_eq!(gathered.room(), 1);
    gathered.take(&key("p2"), live(900, vec![session("web"); 9]));
    assert_eq!(gathered.room(), 0, "the others are asked for their totals");
    gathered.take(&key("p3"), live(u64::MAX, Vec::new()));
    let list = document(gathered);
    assert_eq!(
        (list["items"].as_array().map(Vec::len), &list["total"]),
        (Some(3), &json!(i64::MAX)),
        "clients read it as a number with a sign"
    );
    assert_eq!(Gathered::new(of_web(MAX_LIMIT), keys(&[])).room(), MAX_LIVE, "no proxy lists more");
}

#[test]
fn a_full_list_stays_full_whoever_answers_later() {
    let mut gathered = Gathered::new(of_web(1), keys(&["p1", "p2", "p3"]));
    for pod in ["p1", "p2", "p3"] {
        gathered.take(&key(pod), live(2, vec![session("web"); 2]));
    }
    assert_eq!(gathered.room(), 0);
    let list = document(gathered);
    assert_eq!((list["items"].as_array().map(Vec::len), &list["total"]), (Some(1), &json!(6)));
}

#[test]
fn a_proxy_that_lists_sessions_of_other_forwards_is_not_believed() {
    let mut gathered = Gathered::new(of_web(10), keys(&["p1", "p2"]));
    gathered.take(&key("p1"), live(2, vec![session("other"), session("web")]));
    gathered.take(&key("p2"), live(0, vec![session("web")]));
    let list = document(gathered);
    assert_eq!((list["items"].as_array().map(Vec::len), &list["total"]), (Some(2), &json!(3)));
    let mut all = Gathered::new(Selection { limit: 10, ..Selection::default() }, keys(&["p1"]));
    all.take(&key("p1"), live(2, vec![session("other"), session("web")]));
    assert_eq!(document(all)["items"].as_array().map(Vec::len), Some(2), "of a pod, all sessions are listed");
}

/// As [`session`], with an id.
fn known(forward: &str, id: u64) -> LiveSession {
    LiveSession { session: Some(SessionId(id)), ..session(forward) }
}

#[test]
fn one_session_is_found_by_its_id_also_beside_proxies_that_know_no_ids() {
    let asked = route(&format!("{BASE}/namespaces/ns/portforwards/web/sessions"), "limit=5&session=00000000000000ab");
    let of = Of::Forward(Origin::port_forward("ns", "web"));
    assert_eq!(asked, Ok(Asked::Sessions { of, limit: 5, session: Some(SessionId(0xab)) }));
    for bad in ["session=", "session=ab", "session=00000000000000ag"] {
        let why = route(&format!("{BASE}/namespaces/ns/pods/p1/sessions"), bad).expect_err(bad);
        assert!(why.contains("16 hexadecimal digits"), "{why}");
    }
    let wanted = Selection { session: Some(SessionId(0xab)), ..of_web(10) };
    let mut gathered = Gathered::new(wanted, keys(&["p1", "p2"]));
    gathered.take(&key("p1"), live(1, vec![known("web", 0xab)]));
    gathered.take(&key("p2"), live(900, vec![session("web"), known("web", 0xac), known("other", 0xab)]));
    let list = document(gathered);
    assert_eq!((&list["total"], list["items"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    assert_eq!((&list["items"][0]["pod"], &list["items"][0]["session"]), (&json!("ns/p1"), &json!("00000000000000ab")));
}

#[test]
fn rates_are_those_of_all_proxies_or_absent_and_count_sessions_that_no_list_has() {
    let (p1, p2) = (ProxyId::Pod(key("p1")), ProxyId::Pod(key("p2")));
    let web = Origin::port_forward("ns", "web");
    let mut proxies = Proxies::default();
    let work = |new_per_second, bytes_per_second| Work { connections: 0, new_per_second, bytes_per_second };
    proxies.connected(&p1);
    let load = Load { sum: work(900, u64::MAX), forwards: [("ns/web".to_owned(), work(700, u64::MAX))].into() };
    proxies.loaded(&p1, load);
    proxies.connected(&p2);
    let list = |proxies: &Proxies, selection: Selection| {
        let of = |proxy: &ProxyId| Rates::of(proxies, proxy, selection.origin.as_ref());
        let rates = [(key("p1"), of(&p1)), (key("p2"), of(&p2))].into();
        document(Gathered::new(selection, keys(&["p1", "p2"])).rated(rates))
    };
    let partly = list(&proxies, of_web(10));
    assert_eq!((partly.get("newPerSecond"), partly.get("bytesPerSecond")), (None, None), "p2 has not reported");
    let expected = json!([{"pod": "ns/p1", "newPerSecond": 700, "bytesPerSecond": i64::MAX}]);
    assert_eq!(partly["rates"], expected);
    proxies.loaded(&p2, Load { sum: work(5, 6), forwards: [("ns/web".to_owned(), work(3, 4))].into() });
    let whole = list(&proxies, of_web(10));
    assert_eq!((&whole["newPerSecond"], &whole["bytesPerSecond"]), (&json!(703), &json!(i64::MAX)));
    assert_eq!((&whole["total"], whole["items"].as_array().map(Vec::len)), (&json!(0), Some(0)), "no session is left");
    assert_eq!(Rates::of(&proxies, &p2, None), Some(Rates { new_per_second: 5, bytes_per_second: 6 }));
    assert_eq!(Rates::of(&proxies, &p2, Some(&web)), Some(Rates { new_per_second: 3, bytes_per_second: 4 }));
    let one = list(&proxies, Selection { session: Some(SessionId(1)), ..of_web(10) });
    assert_eq!((one.get("newPerSecond"), one.get("rates")), (None, None), "one session has no rates");
}

#[test]
fn the_texts_of_a_list_are_bounded() {
    let name = || Some("x".repeat(MAX_NAME_BYTES));
    let long = LiveSession { backend: name(), server_name: name(), ..session("web") };
    let pods = ["p1", "p2", "p3", "p4", "p5"];
    let mut gathered = Gathered::new(of_web(MAX_LIMIT), keys(&pods));
    for pod in pods {
        gathered.take(&key(pod), live(1000, vec![long.clone(); MAX_LIVE]));
    }
    assert_eq!(gathered.room(), 0);
    let text = gathered.document().expect("JSON");
    assert!(text.len() < 2 * MAX_TEXTS, "{} bytes", text.len());
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let listed = list["items"].as_array().map_or(0, Vec::len);
    assert!(listed > 3000 && listed < 5000, "{listed} sessions");
    assert_eq!(list["total"], 5000);
}

#[test]
fn a_list_of_escaped_texts_is_no_longer_and_its_numbers_have_a_sign() {
    let name = || Some("\u{1}".repeat(MAX_NAME_BYTES));
    let numbers = LiveSession { bytes_up: u64::MAX, bytes_down: u64::MAX, seconds: u64::MAX, ..session("web") };
    let long = LiveSession { backend: name(), server_name: name(), ..numbers };
    let mut gathered = Gathered::new(of_web(MAX_LIMIT), keys(&["p1", "p2"]));
    gathered.take(&key("p1"), live(1000, vec![long.clone(); MAX_LIVE]));
    gathered.take(&key("p2"), live(1000, vec![long; MAX_LIVE]));
    let text = gathered.document().expect("JSON");
    assert!(text.len() < 2 * MAX_TEXTS, "{} bytes", text.len());
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let numbers = ["bytesUp", "bytesDown", "seconds"].map(|name| list["items"][0][name].as_i64());
    assert_eq!(numbers, [Some(i64::MAX); 3]);
}

/// The names of the pods that are asked for the sessions of a forward.
fn asked(scene: &Scene, name: &str) -> Vec<String> {
    let verdict = scene.translator.verdict(&Origin::port_forward("ns", name)).expect("a verdict");
    let carriers = carriers(verdict, scene.fleets.all(), &scene.proxies);
    carriers.iter().map(|proxy: &ProxyId| proxy.name().to_owned()).collect()
}

#[test]
fn the_proxies_of_all_groups_of_a_forward_carry_it() {
    let mut scene = Scene::with_web();
    scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", false)));
    scene.see(forward(side("db", 81)));
    scene.see(Object::Pod(key("app"), app_pod("app")));
    assert_eq!(asked(&scene, "web"), ["p1", "p2"], "also a pod that is not ready");
    assert_eq!(asked(&scene, "db"), ["app"]);
    scene.see(Object::Pod(key("bare"), PodInfo { labels: BTreeMap::new(), ..app_pod("bare") }));
    assert_eq!(asked(&scene, "db"), ["app"], "a pod without a proxy has no sessions");
    scene.proxies.connected(&proxy("bare"));
    assert_eq!(asked(&scene, "db"), ["app", "bare"], "a connected proxy is one, however its pod was created");
}

fn configured(scene: &Scene, pod: &str) -> Value {
    let group = Group::Gateway(key("edge"));
    let snapshot = scene.translator.snapshot(&group).expect("a snapshot").clone();
    let state = scene.proxies.get(&proxy(pod)).cloned();
    let text = Configured { pod: key(pod), snapshot, state }.document().expect("JSON");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_configuration_of_a_proxy_shows_the_state_of_each_listener() {
    let mut scene = Scene::with_web();
    let before = configured(&scene, "p1");
    assert_eq!(
        (&before["kind"], &before["metadata"]),
        (&json!("ProxyConfig"), &json!({"namespace": "ns", "name": "p1"}))
    );
    assert_eq!((&before["connected"], &before["inForce"]), (&json!(false), &json!(false)));
    assert_eq!((before.get("applied"), &before["listeners"][0]["state"]), (None, &json!("Pending")));

    scene.report("p1", &[]);
    let bound = configured(&scene, "p1");
    let listener = &bound["listeners"][0];
    assert_eq!((&bound["applied"], &bound["inForce"]), (&bound["version"]["number"], &json!(true)));
    assert_eq!((&listener["id"], &listener["state"]), (&json!("ns/web/a"), &json!("Bound")));
    assert_eq!(listener["spec"]["socket"]["port"], 80);
    assert_eq!(listener["spec"]["revision"], listener["revision"]);
    assert!(bound["endpoints"].is_object());

    scene.report("p1", &["a"]);
    let failed = configured(&scene, "p1");
    assert_eq!((&failed["inForce"], &failed["listeners"][0]["state"]), (&json!(false), &json!("Failed")));
    assert_eq!(failed["listeners"][0]["failure"], json!({"reason": "AddressInUse", "message": "address in use"}));
    assert_eq!(failed["listeners"][0].get("serving"), None);

    scene.report("p1", &[]);
    scene.see(forward(web("web", 81, 2)));
    let pending = configured(&scene, "p1");
    assert_eq!((&pending["inForce"], &pending["listeners"][0]["state"]), (&json!(false), &json!("Pending")));
}

#[test]
fn the_configuration_of_a_proxy_shows_how_its_durable_listeners_deliver() {
    let mut scene = Scene::with_web();
    scene.report("p1", &[]);
    assert_eq!(configured(&scene, "p1")["listeners"][0].get("delivery"), None, "it has not said so");
    let snapshot = scene.translator.snapshot(&Group::Gateway(key("edge"))).expect("a snapshot").clone();
    let mut report = Report { version: snapshot.version.clone(), ..Report::default() };
    for (id, Published { offer, .. }) in &snapshot.listeners {
        let usual = ListenerReport::usual(offer.revision().clone());
        let listener = ListenerReport { delivery: Some(Delivery::Stalled), ..usual };
        report.listeners.insert(id.clone(), listener);
    }
    for part in report.parts_since(None, &snapshot.digest, true, 8) {
        scene.proxies.reported(&proxy("p1"), part, true);
    }
    assert_eq!(configured(&scene, "p1")["listeners"][0]["delivery"], "Stalled");
}

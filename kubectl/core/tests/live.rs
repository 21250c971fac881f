//! Golden files of the verbs that read the live API: `tests/live/NAME.yaml` is what the API answers, `NAME.80.txt` and
//! `NAME.160.txt` are what a person sees on terminals of these widths.
//!
//! `UPDATE=1 cargo test -p portlane-kubectl-core --test live` rewrites the outputs; review the diff. The first document
//! of a scene has the verb and its options. Each further document is a response, or the `code` of a refusal.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod golden_files;
mod responses;

use std::{collections::BTreeMap, time::Duration};

use crds::PortForward;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kubectl_core::{
    access::{Fetched, Listed, Place},
    config,
    conns::{self, Sort},
    lag,
    live::Reading,
    logs::Record,
    render::{self, Look},
    top::{
        self,
        view::{Extent, Key, View},
    },
    trace::{self, Found, Probe, Target},
};
use operator_core::ObjectKey;
use responses::response;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

struct Scene {
    head: Value,
    responses: Vec<Value>,
}

impl Scene {
    fn read(text: &str) -> Self {
        let mut documents = serde_yaml::Deserializer::from_str(text).map(|it| Value::deserialize(it).expect("YAML"));
        let head = documents.next().expect("a first document");
        Self { head, responses: documents.collect() }
    }

    fn text(&self, look: Look) -> String {
        match self.head["verb"].as_str() {
            Some("config") => render::config(&self.config(), look),
            Some("conns") => render::conns(&self.conns(), look),
            Some("lag") => render::lag(&self.lag(), look),
            Some("trace") => render::trace(&self.trace(), look),
            Some("top") => render::top(&self.top(), look),
            other => panic!("{other:?}"),
        }
    }

    fn top(&self) -> top::Report {
        let objects = |name: &str| self.head[name].clone();
        let sample = |name: &str, seconds: u64| {
            let lists = self.responses.iter().filter_map(|it| it[name].as_array()).flatten();
            top::Sample {
                at: Duration::from_secs(seconds),
                forwards: Listed::from(serde_json::from_value::<Vec<_>>(objects("forwards")).expect("forwards")),
                pods: Ok(Listed::from(serde_json::from_value::<Vec<_>>(objects("pods")).expect("pods"))),
                sessions: lists.map(response).collect(),
            }
        };
        top::report(Some(&sample("before", 10)), &sample("now", 12))
    }

    fn trace(&self) -> trace::Report {
        let facts = self.responses.first().expect("what the cluster has");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let from = ObjectKey::new(text(&self.head["from"]["namespace"]), text(&self.head["from"]["name"]));
        let policies: BTreeMap<String, Vec<NetworkPolicy>> = object(&facts["policies"]);
        let service = || (Ok(Some(object(&facts["service"]))), list(&facts["slices"]));
        trace::report(&trace::Facts {
            forward: object(&facts["forward"]),
            listener: text(&self.head["listener"]),
            from: (from, Ok(Some(object(&facts["client"])))),
            nearest: None,
            service: facts["service"].is_object().then(service),
            proxies: list(&facts["proxies"]),
            policies: policies.into_iter().map(|(namespace, found)| (namespace, Ok(Listed::from(found)))).collect(),
            probe: probe(&facts["probe"]),
        })
    }

    fn config(&self) -> config::Report {
        let (namespace, name) = self.head["pod"].as_str().and_then(|pod| pod.split_once('/')).expect("a pod");
        let response = self.responses.first().cloned().expect("a response");
        let config = serde_json::from_value(response).expect("a ProxyConfig");
        config::report(&ObjectKey::new(namespace, name), config)
    }

    fn lag(&self) -> lag::Report {
        if self.head["forwards"].is_array() {
            let forwards: Vec<PortForward> = object(&self.head["forwards"]);
            let asked = lag::request(&(Place::Everywhere, lag::durable(&forwards)));
            let answer = |value: &Value| match value["code"].as_u64().and_then(|code| u16::try_from(code).ok()) {
                Some(code) => Err(asked.refused(code, "", "refused")),
                None => Ok(object(value)),
            };
            return lag::of_cluster(&forwards, self.responses.iter().map(answer).collect(), None);
        }
        let response = self.responses.first().cloned().expect("a response");
        lag::report(serde_json::from_value(response).expect("listeners"), Vec::new())
    }

    fn conns(&self) -> conns::Report {
        let limit = self.head["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).expect("a limit");
        let client = self.head["client"].as_str().map(|client| client.parse().expect("a network"));
        let sort = match self.head["sort"].as_str() {
            Some("Bytes") => Sort::Bytes,
            other => panic!("{other:?}"),
        };
        let reading: Vec<Reading> = self.responses.iter().map(response).collect();
        conns::report(&reading, conns::Query { sort, client, session: None, limit }, None)
    }
}

fn object<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("an object of the kind")
}

#[allow(clippy::unnecessary_wraps, reason = "the form that the core takes")]
fn list<T: DeserializeOwned>(value: &Value) -> Fetched<Listed<T>> {
    Ok(Listed::from(object::<Vec<T>>(value)))
}

/// What became of the connection into the pod `app-1`.
fn probe(value: &Value) -> Probe {
    let pod = ObjectKey::new("shop", "app-1");
    let target = Target { pod: pod.clone(), port: 5432 };
    if let Some(why) = value["skipped"].as_str() {
        return Probe::Skipped(why.to_owned());
    }
    if let Some(line) = value["ended"].as_str() {
        let record = Record::parse(&pod.name, line, &ObjectKey::new("shop", "db")).expect("a record");
        return Probe::Ended { target, record: Found::One(record) };
    }
    if let Some(number) = value["several"].as_u64() {
        return Probe::Open { target, has_bytes: false, session: Ok(Found::Several(number)) };
    }
    Probe::Open { target, has_bytes: false, session: Ok(Found::One(Box::new(object(&value["open"])))) }
}

fn scenes() -> Vec<(String, Scene)> {
    let scenes = golden_files::scenes("live");
    assert!(!scenes.is_empty(), "no scenes");
    scenes.into_iter().map(|(name, text)| (name, Scene::read(&text))).collect()
}

#[test]
fn outputs_are_those_of_the_golden_files() {
    for (name, scene) in scenes() {
        golden_files::compare(&name, |look| scene.text(look));
    }
}

fn of_top() -> top::Report {
    let (_, scene) = scenes().into_iter().find(|(name, _)| name.ends_with("/top")).expect("the scene exists");
    scene.top()
}

#[test]
fn a_screen_keeps_the_total_the_titles_and_the_keys_wherever_it_is_scrolled() {
    let (report, extent) = (of_top(), Extent { lines: 12, room: 3 });
    let look = Look { width: Some(80), is_wide: false, is_coloured: false };
    let screen = |keys: &[Key]| {
        let view = keys.iter().fold(View::default(), |view, key| view.press(*key, extent));
        let (text, found) = render::top_screen(&report, view, look, 5);
        assert_eq!(found, extent, "{text}");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let is_titles = |line: &str| line.starts_with("  SESSIONS↓  NEW/S  BYTES/S  HEALTH") && line.ends_with("  FORWARD");
    let start = screen(&[]);
    assert!(start[0].starts_with("3 sessions, ") && start[1].is_empty() && is_titles(&start[2]), "{start:?}");
    assert!(start[3].ends_with("shop/db"), "{start:?}");
    assert!(start[4].starts_with("s sort: sessions  q quit  ") && start[4].ends_with("  1-3 of 12"), "{start:?}");
    let middle = screen(&[Key::Down, Key::Down]);
    assert!(middle[0] == start[0] && is_titles(&middle[1]), "{middle:?}");
    assert!(middle[2].ends_with("shop/orders-database-replica") && middle[4].ends_with("  3-5 of 12"), "{middle:?}");
    let end = screen(&[Key::End]);
    let note = "  ? the proxy of pod shop/edge-5f7c-fghij has not answered";
    assert!(end[0] == start[0] && end[3] == note && end[4].ends_with("  10-12 of 12"), "{end:?}");
}

#[test]
fn a_screen_marks_the_column_that_its_rows_are_sorted_by() {
    let report = of_top();
    let look = Look { width: Some(160), is_wide: false, is_coloured: false };
    let (_, extent) = render::top_screen(&report, View::default(), look, 24);
    let screen = |key: Key| render::top_screen(&report, View::default().press(key, extent), look, 24).0;
    let by_name = screen(Key::SortLeft);
    assert!(by_name.contains("  FORWARD↑\n") && by_name.contains("  POD↑\n"), "{by_name}");
    assert!(!by_name.contains("SESSIONS↓") && by_name.contains("s sort: name  "), "{by_name}");
    let place = |pod: &str| by_name.find(pod).expect("the pod is shown");
    assert!(place("net/edge-1") < place("shop/edge-5f7c-abcde"), "{by_name}");
    let by_rate = screen(Key::SortRight);
    assert!(by_rate.contains("  SESSIONS  NEW/S↓  BYTES/S"), "{by_rate}");
    assert!(!render::top(&report, look).contains('↓'), "where nobody can press a key, nothing is marked");
}

#[test]
fn a_screen_is_as_high_as_the_terminal_and_no_wider() {
    let report = top::Report { notes: Vec::new(), ..of_top() };
    for (width, height) in [(20, 1), (20, 2), (20, 3), (20, 24), (80, 5), (80, 24), (160, 50)] {
        let look = Look { width: Some(width), is_wide: false, is_coloured: false };
        let (text, extent) = render::top_screen(&report, View::default(), look, height);
        assert_eq!(text.lines().count(), height, "{width} by {height}:\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width} by {height}:\n{text}");
        assert!(extent.room < height, "{width} by {height}: {extent:?}");
        let is_helped = text.lines().next_back().is_some_and(|line| line.starts_with("s sort: sessions"));
        assert_eq!(is_helped, height > 2, "{width} by {height}:\n{text}");
    }
}

#[test]
fn no_table_is_wider_than_the_terminal() {
    let is_table = |scene: &Scene| scene.head["verb"] == "conns" || scene.head["verb"] == "top";
    for (name, scene) in scenes().into_iter().filter(|(_, scene)| is_table(scene)) {
        for width in [20, 80, 160] {
            let text = scene.text(Look { width: Some(width), is_wide: true, is_coloured: false });
            let mut tables = text.lines().take_while(|line| !line.starts_with("Not everything"));
            assert!(tables.all(|line| line.chars().count() <= width), "{name} at {width}:\n{text}");
        }
    }
}

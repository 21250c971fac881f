//! What an update of the translation looks at, in counts: work follows what a change concerns.

use std::{collections::BTreeSet, sync::Arc};

use crds::{PortForward, PortForwardStatus};
use operator_core::{
    Changes, ObjectKey, Pod, Snapshot, Translator, Update, World, translate::work::Work, world::reach::Reach,
};
use proxy_api::Version;
use serde_json::{Value, json};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

/// A forward with one listener; `day` is when it was created.
fn forward(name: &str, placement: &Value, listener: &Value, day: u32) -> PortForward {
    let mut listener = listener.clone();
    listener["name"] = json!("l");
    listener["backends"] = json!([{"address": {"host": "192.0.2.1", "port": 1}}]);
    let created = format!("2025-{:02}-{:02}T00:00:00Z", 1 + day / 28 % 12, 1 + day % 28);
    let manifest = json!({
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
        "spec": {"placement": placement, "listeners": [listener]},
    });
    serde_json::from_value(manifest).expect("a forward")
}

fn sidecar(labels: &Value) -> Value {
    json!({"sidecar": {"selector": {"matchLabels": labels}}})
}

fn tcp(port: u32) -> Value {
    json!({"protocol": "TCP", "port": port})
}

fn range(first: u32, last: u32) -> Value {
    json!({"protocol": "TCP", "port": first, "endPort": last})
}

/// A listener for connections that ask for this name.
fn named(name: &str) -> Value {
    json!({"protocol": "TLS", "port": 443, "tls": {"hostnames": [name]}})
}

fn pod(labels: &[(&str, &str)]) -> Pod {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Pod { labels, carries: true, ..Pod::default() }
}

/// A world that changes, with its translation.
#[derive(Default)]
struct Scene {
    world: World,
    translator: Translator,
    number: u64,
}

impl Scene {
    fn update(&mut self, changes: &Changes) -> Update {
        self.number += 1;
        let version = Version { epoch: "term".to_owned(), number: self.number };
        self.translator.update(&self.world, changes, &version)
    }

    fn all(&mut self) -> Work {
        self.update(&Changes::all()).work
    }

    fn put(&mut self, forward: PortForward) {
        let name = forward.metadata.name.clone().expect("a name");
        self.world.forwards.insert(key(&name), Box::new(forward));
    }

    fn set(&mut self, forward: PortForward) -> Update {
        let key = key(forward.metadata.name.as_deref().expect("a name"));
        self.put(forward);
        self.update(&Changes { forwards: BTreeSet::from([key]), ..Changes::default() })
    }

    fn set_pod(&mut self, name: &str, pod: Option<Pod>) -> Update {
        match pod {
            Some(pod) => drop(self.world.pods.insert(key(name), pod)),
            None => drop(self.world.pods.remove(&key(name))),
        }
        self.update(&Changes { pods: BTreeSet::from([key(name)]), ..Changes::default() })
    }

    /// Moves the fleet of the gateway `edge` to nodes with these addresses.
    fn set_nodes(&mut self, nodes: &[&str]) -> Work {
        let nodes = nodes.iter().map(|node| node.parse().expect("an address")).collect();
        self.world.reach.insert(key("edge"), Reach { nodes, ..Reach::default() });
        self.update(&Changes { reach: [key("edge")].into(), ..Changes::default() }).work
    }

    /// What the proxy of a pod should run.
    fn run_by(&self, name: &str) -> Arc<Snapshot> {
        let group = self.translator.group_of(&key(name)).expect("a group");
        self.translator.snapshot(group).expect("a snapshot").clone()
    }

    /// This many forwards in the gateway `edge`.
    fn in_gateway(count: u32, spec: &Value, listener: impl Fn(u32) -> Value) -> Self {
        let mut scene = Self::default();
        let metadata = json!({"name": "edge", "namespace": "ns"});
        let gateway = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway");
        scene.world.gateways.insert(key("edge"), gateway);
        for at in 0..count {
            scene.put(in_edge(at, &listener(at)));
        }
        scene
    }
}

fn in_edge(at: u32, listener: &Value) -> PortForward {
    forward(&format!("f{at:05}"), &json!({"gateway": {"name": "edge"}}), listener, at)
}

/// This many forwards as `portlane validate` sees them: each with a pod that has the labels of its selector.
fn validated(count: u32, labels: impl Fn(u32) -> Value) -> Work {
    let mut scene = Scene::default();
    for at in 0..count {
        let name = format!("f{at:05}");
        let labels = labels(at);
        scene.put(forward(&name, &sidecar(&labels), &tcp(1000 + at), at));
        let labels = serde_json::from_value(labels).expect("labels");
        scene.world.pods.insert(key(&name), Pod { labels, ..Pod::default() });
    }
    scene.all()
}

#[test]
fn a_verdict_reserves_no_room_for_listeners_that_its_forward_does_not_have() {
    let mut scene = Scene::default();
    scene.put(forward("f", &sidecar(&json!({"app": "a"})), &tcp(80), 0));
    scene.all();
    let verdict = scene.translator.verdict(&(&key("f")).into()).expect("a verdict");
    assert_eq!((verdict.listeners.len(), verdict.listeners.capacity()), (1, 1));
}

#[test]
fn forwards_with_one_selector_are_validated_with_as_much_work_as_with_many() {
    // T15
    let count = 2000;
    let distinct = validated(count, |at| json!({"app": format!("a{at}")}));
    for same in [json!({}), json!({"app": "shop"})] {
        let work = validated(count, |_| same.clone());
        assert_eq!((work.judged, work.claims), (distinct.judged, distinct.claims));
        assert!(work.selectors <= 2 * u64::from(count) && work.pods <= 2 * u64::from(count), "{work:?}");
    }
    assert_eq!((distinct.judged, distinct.claims), (count.into(), count.into()));
    assert!(distinct.selectors <= 2 * u64::from(count), "{distinct:?}");
}

/// This many forwards that all select the pods `a` and `b`.
fn on_one_pod(count: u32) -> Scene {
    let mut scene = Scene::default();
    for at in 0..count {
        scene.put(forward(&format!("f{at:05}"), &sidecar(&json!({"app": "shop"})), &tcp(1000 + at), at));
    }
    for name in ["a", "b"] {
        scene.world.pods.insert(key(name), pod(&[("app", "shop")]));
    }
    scene.all();
    scene
}

// C11
#[test]
fn a_pod_that_joins_others_is_compared_with_the_selectors_and_nothing_is_judged() {
    let mut scene = on_one_pod(1000);
    let update = scene.set_pod("c", Some(pod(&[("app", "shop")])));
    assert_eq!(update.work, Work { selectors: 1000, pods: 1, claims: 0, judged: 0, ..Work::default() });
    assert_eq!((update.pods.len(), update.placed.len(), update.programs.len()), (1, 1, 0));
    let leaving = Pod { leaving: true, ..pod(&[("app", "shop")]) };
    assert_eq!(scene.set_pod("c", Some(leaving)).work.judged, 0, "others stay");
    assert_eq!(scene.set_pod("c", None).work, Work { selectors: 0, pods: 1, claims: 0, judged: 0, ..Work::default() });
}

#[test]
fn the_last_pod_that_stays_turns_the_verdicts_of_its_own_forwards() {
    let mut scene = on_one_pod(10);
    scene.put(forward("other", &sidecar(&json!({"app": "blog"})), &tcp(80), 0));
    scene.all();
    let leaving = || Some(Pod { leaving: true, ..pod(&[("app", "shop")]) });
    assert_eq!(scene.set_pod("a", leaving()).work.judged, 0);
    assert_eq!(scene.set_pod("b", leaving()).work.judged, 10);
    assert_eq!(scene.set_pod("b", Some(pod(&[("app", "shop")]))).work.judged, 10);
}

#[test]
fn a_pod_that_no_forward_selects_is_compared_with_none() {
    let mut scene = on_one_pod(1000);
    let work = scene.set_pod("other", Some(pod(&[("app", "blog"), ("tier", "x")]))).work;
    assert_eq!(work, Work { pods: 1, ..Work::default() });
}

#[test]
fn a_change_of_one_forward_decides_its_own_claim_alone() {
    let mut scene = on_one_pod(1000);
    let changed = forward("f00007", &sidecar(&json!({"app": "shop"})), &tcp(3000), 7);
    assert_eq!(scene.set(changed).work, Work { selectors: 0, pods: 0, claims: 1, judged: 1, ..Work::default() });
}

#[test]
fn a_forward_that_joins_others_or_leaves_them_has_its_own_group_judged_once_and_its_own_listener_sent() {
    let mut scene = on_one_pod(1000);
    // As many forwards that it does not concern, in the same namespace.
    for at in 0..1000 {
        scene.put(forward(&format!("g{at:05}"), &sidecar(&json!({"app": "blog"})), &tcp(1000 + at), at));
    }
    scene.world.pods.insert(key("blog"), pod(&[("app", "blog")]));
    scene.all();
    let alone = scene.run_by("a");
    let joined = scene.set(forward("late", &sidecar(&json!({"app": "shop"})), &tcp(5000), 400));
    let together = scene.run_by("a");
    scene.world.forwards.remove(&key("late"));
    let left = scene.update(&Changes { forwards: [key("late")].into(), ..Changes::default() });
    for (update, now, before) in [(joined, &together, &alone), (left, &scene.run_by("a"), &together)] {
        let work = update.work;
        // The three pods of the namespace are compared with its selector, and the two that it selects are placed.
        assert_eq!((work.pods, update.placed.len(), update.programs.len()), (5, 2, 2), "{work:?}");
        // Pods with the same labels are compared with the selectors of their group once.
        assert!(work.selectors <= 1002, "{work:?}");
        // Every forward of a group has the name of the group in its verdict.
        assert!(work.claims <= 1001 && work.judged <= 1001, "{work:?}");
        assert!(update.verdicts.iter().all(|verdict| !verdict.name.starts_with('g')), "others are not concerned");
        let sent = now.changes_since(before);
        let items: usize = sent.iter().map(|part| part.upserts.len() + part.removals.len()).sum();
        assert_eq!((sent.len(), items), (1, 1), "a proxy gets what it does not have");
    }
}

#[test]
fn listeners_that_share_a_port_by_name_contend_for_the_name_alone() {
    let mut scene = Scene::in_gateway(2000, &json!({}), |at| named(&format!("h{at}.example")));
    assert_eq!(scene.all().claims, 2000);
    let changed = scene.set(in_edge(7, &named("other.example")));
    assert_eq!((changed.work.claims, changed.work.judged), (1, 1));
    let taken = scene.set(in_edge(9, &named("h8.example")));
    assert_eq!(
        (taken.work.claims, taken.work.judged),
        (2, 1),
        "the holder of the name, and the forward that claims it"
    );
    scene.set(in_edge(9, &named("h9.example")));
    let whole = scene.set(in_edge(5, &tcp(443)));
    assert_eq!((whole.work.claims, whole.work.judged), (2000, 1), "a claim to the port itself concerns all of them");
    let back = scene.set(in_edge(5, &named("h5.example")));
    assert_eq!((back.work.claims, back.work.judged), (2000, 1));
}

#[test]
fn a_name_contends_with_a_wildcard_of_another_namespace_around_it_and_with_no_other_name() {
    let spec = json!({"allowedForwards": {"namespaces": {"from": "All"}, "addressCIDRs": ["192.0.2.0/24"]}});
    let mut scene = Scene::in_gateway(1000, &spec, |at| named(&format!("x.h{at}.example")));
    let placement = json!({"gateway": {"name": "edge", "namespace": "ns"}});
    let mut wildcard = forward("wildcard", &placement, &named("*.h7.example"), 300);
    wildcard.metadata.namespace = Some("other".to_owned());
    scene.world.forwards.insert(ObjectKey::new("other", "wildcard"), Box::new(wildcard));
    assert_eq!(scene.all().claims, 1001);
    let away = scene.set(in_edge(7, &named("x.other.example")));
    assert_eq!((away.work.claims, away.work.judged), (2, 2), "the wildcard gets its name");
    let back = scene.set(in_edge(7, &named("x.h7.example")));
    assert_eq!((back.work.claims, back.work.judged), (2, 2), "the older name takes it back");
    let beside = scene.set(in_edge(8, &named("y.h8.example")));
    assert_eq!((beside.work.claims, beside.work.judged), (1, 1));
}

#[test]
fn a_range_contends_with_the_ranges_that_it_overlaps() {
    let apart = |at: u32| range(1000 + at * 50, 1049 + at * 50);
    let mut scene = Scene::in_gateway(500, &json!({"service": {"type": "None"}}), apart);
    assert_eq!(scene.all().claims, 500);
    let shorter = scene.set(in_edge(7, &range(1350, 1398)));
    assert_eq!((shorter.work.claims, shorter.work.judged), (1, 1));
    let overlapping = scene.set(in_edge(9, &range(1440, 1480)));
    assert_eq!((overlapping.work.claims, overlapping.work.judged), (2, 1), "with the range before it");
}

#[test]
fn a_range_that_gets_its_ports_back_takes_them_from_a_listener_that_did_not_contend_with_the_holder() {
    // The second range overlaps both others, and the first and the last do not meet.
    let chain = |at: u32| range(1000 + at * 10, 1010 + at * 10);
    let mut scene = Scene::in_gateway(3, &json!({"service": {"type": "None"}}), chain);
    let reasons = |scene: &Scene| {
        ["f00000", "f00001", "f00002"].map(|name| {
            let verdict = scene.translator.verdict(&(&key(name)).into());
            verdict.map(|verdict| verdict.accepted.reason.as_str())
        })
    };
    assert_eq!(scene.all().claims, 3);
    assert_eq!(reasons(&scene), [Some("Accepted"), Some("PortConflict"), Some("Accepted")]);
    scene.world.forwards.remove(&key("f00000"));
    let gone = scene.update(&Changes { forwards: BTreeSet::from([key("f00000")]), ..Changes::default() });
    assert_eq!(gone.work.claims, 2);
    assert_eq!(reasons(&scene), [None, Some("Accepted"), Some("PortConflict")]);
}

#[test]
fn a_listener_that_accepts_any_port_tries_ports_for_itself_alone() {
    let any = json!({"protocol": "TCP"});
    let spec = json!({"service": {"type": "None"}, "allocation": [{"port": 10000, "endPort": 19999}]});
    let mut scene = Scene::in_gateway(1000, &spec, |_| any.clone());
    scene.all();
    let added = scene.set(in_edge(1000, &any)).work;
    assert!(added.claims < 50, "{added:?}");
    // The status of a listener lists the port that it was given: no other listener has to search.
    let given = scene.translator.verdict(&(&key("f00500")).into()).expect("a verdict").clone();
    let listeners: Vec<_> = given.listeners.iter().filter_map(operator_core::ListenerVerdict::held).collect();
    let mut written = (*scene.world.forwards[&key("f00500")]).clone();
    let status = PortForwardStatus { listeners, placement: Some(given.placement), ..PortForwardStatus::default() };
    written.status = Some(status);
    let work = scene.set(written).work;
    assert!(work.claims <= 1 && work.judged == 1, "{work:?}");
}

#[test]
fn ranges_that_are_full_are_searched_once() {
    let spec = json!({"service": {"type": "None"}, "allocation": [{"port": 10000, "endPort": 10099}]});
    let mut scene = Scene::in_gateway(2000, &spec, |_| json!({"protocol": "TCP"}));
    let work = scene.all();
    assert!(work.claims < 100 * 100 + 100, "{work:?}: 100 searches that find, and one that does not");
    let later = forward("later", &json!({"gateway": {"name": "edge"}}), &json!({"protocol": "TCP"}), 335);
    assert_eq!(scene.set(later).work.claims, 0);
}

#[test]
fn a_listener_that_gets_no_port_of_a_full_service_concerns_no_other() {
    // Created on one of 336 days: those of the last days get none of the 100 ports.
    let mut scene = Scene::in_gateway(2000, &json!({}), |at| tcp(1000 + at));
    assert_eq!(scene.all().claims, 2000);
    let elsewhere = scene.set(in_edge(1999, &tcp(5000)));
    assert_eq!((elsewhere.work.claims, elsewhere.work.judged), (1, 1));
    let contested = scene.set(in_edge(1999, &tcp(1000)));
    assert_eq!((contested.work.claims, contested.work.judged), (1, 1), "a port that another one holds");
    let added = scene.set(in_edge(2010, &tcp(6000)));
    assert_eq!((added.work.claims, added.work.judged), (1, 1));
    scene.world.forwards.remove(&key("f01998"));
    let gone = scene.update(&Changes { forwards: [key("f01998")].into(), ..Changes::default() });
    assert_eq!((gone.work.claims, gone.work.judged), (0, 1));
    let holder = scene.set(in_edge(0, &tcp(7000)));
    assert_eq!(holder.work.claims, 2000, "a listener that had a port concerns all others");
}

#[test]
fn a_listener_that_accepts_any_port_of_a_full_service_tries_none() {
    let any = json!({"protocol": "TCP"});
    let mut scene = Scene::in_gateway(2000, &json!({}), |_| any.clone());
    assert!(scene.all().claims >= 100);
    let added = scene.set(in_edge(2010, &any));
    assert_eq!((added.work.claims, added.work.judged), (0, 1));
}

#[test]
fn a_node_that_joins_or_leaves_a_fleet_concerns_the_forwards_that_name_its_address() {
    let mut scene = Scene::in_gateway(1000, &json!({"service": {"type": "None"}}), |at| tcp(1000 + at));
    let mut other = in_edge(7, &tcp(1007));
    for backend in other.spec.listeners.iter_mut().flat_map(|listener| &mut listener.backends) {
        backend.address.as_mut().expect("an address").host = "192.0.2.77".to_owned();
    }
    scene.put(other);
    scene.all();
    assert_eq!(scene.set_nodes(&["10.0.0.9"]).judged, 0);
    assert_eq!(scene.set_nodes(&["10.0.0.9", "192.0.2.77"]).judged, 1);
    assert_eq!(scene.set_nodes(&["10.0.0.8", "192.0.2.77"]).judged, 0, "it stays");
    assert_eq!(scene.set_nodes(&["10.0.0.8"]).judged, 1);
}

#[test]
fn a_node_that_joins_or_leaves_a_fleet_concerns_the_forwards_of_services_with_its_address() {
    let mut scene = Scene::in_gateway(1000, &json!({"service": {"type": "None"}}), |at| tcp(1000 + at));
    for (at, name, address) in [(7, "db", "192.0.2.77"), (8, "other", "192.0.2.78")] {
        let endpoint = format!("{address}:1");
        let service = json!({"cluster": [{"protocol": "TCP", "port": 1, "endpoints": [endpoint]}]});
        scene.world.services.insert(key(name), serde_json::from_value(service).expect("a Service"));
        scene.world.podless.insert(key(name), BTreeSet::from([address.parse().expect("an address")]));
        let mut forward = in_edge(at, &tcp(1000 + at));
        let backend = json!([{"service": {"name": name, "port": 1}}]);
        forward.spec.listeners[0].backends = serde_json::from_value(backend).expect("a backend");
        scene.put(forward);
    }
    scene.all();
    assert_eq!(scene.set_nodes(&["10.0.0.9"]).judged, 0);
    assert_eq!(scene.set_nodes(&["10.0.0.9", "192.0.2.77"]).judged, 1);
    assert_eq!(scene.set_nodes(&["10.0.0.8", "192.0.2.77"]).judged, 0, "it stays");
    assert_eq!(scene.set_nodes(&["10.0.0.8"]).judged, 1);
}

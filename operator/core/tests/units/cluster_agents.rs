//! Agents of a cluster: which gateway takes them, which forwards reach them, and when their statuses are written.

use std::time::Duration;

use operator_core::{
    Group, ObjectKey, Touched,
    schedule::{Effect, StatusWrite, agents::Agents},
    status::{agent::Enrolment, instances::Report},
    translate,
    world::{
        objects::{Object, PodInfo},
        watched::{Kind, Seen},
    },
};
use proxy_api::{MAX_AGENTS, MAX_PEERS};
use serde_json::{Value, json};

use crate::scene::{Scene, condition_of, events, fleet_pod, forward, gateway, key, ms, pair, proxy, source, writes};

/// An agent of the gateway `edge` that was created on this day.
pub(crate) fn agent(name: &str, day: u8, spec: &Value) -> Object {
    let mut manifest = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1, "resourceVersion": "1",
            "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z"),
        },
        "spec": {"gateway": {"name": "edge"}, "targets": [{"host": "127.0.0.1", "port": 5432}]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        manifest["spec"][field] = value.clone();
    }
    Object::Agent(key(name), Box::new(Ok(serde_json::from_value(manifest).expect("an agent"))))
}

/// The forward `db` with a backend of the agent `home`.
pub(crate) fn tunnelled(placement: &Value) -> Object {
    forward(json!({
        "metadata": {"name": "db", "namespace": "ns", "uid": "uid-db", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "placement": placement,
            "listeners": [{
                "name": "a", "protocol": "TCP", "port": 5432,
                "backends": [{"tunnel": {"agent": "home", "host": "127.0.0.1", "port": 5432}}],
            }],
        },
    }))
}

pub(crate) fn open() -> Object {
    gateway(&json!({"tunnels": {}}))
}

/// Uids of the agents in the configuration of `edge`.
fn configured(scene: &Scene) -> Vec<String> {
    let snapshot = scene.translator.snapshot(&Group::Gateway(key("edge"))).expect("the gateway is there");
    snapshot.configuration().agents.into_keys().collect()
}

/// Reason and message of `ResolvedRefs` of the forward `db`, after every part of the translation is compared with a
/// translation of the whole world.
fn resolved(scene: &Scene) -> (&'static str, String) {
    let (now, whole) = (scene.translator.translation(), translate(&scene.cache.world));
    assert_eq!(now.verdicts, whole.verdicts);
    for (group, configuration) in &whole.configurations {
        assert_eq!(now.configurations[group].agents, configuration.agents, "{group}");
    }
    let verdict = scene.translator.verdict(&(&key("db")).into()).expect("a verdict");
    (verdict.resolved_refs.reason.as_str(), verdict.resolved_refs.message.clone())
}

#[test]
fn a_gateway_gets_the_agents_that_name_it_once_it_has_tunnels_and_a_status_changes_nothing() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    scene.see(agent("home", 1, &json!({})));
    assert!(configured(&scene).is_empty());
    scene.see(open());
    assert_eq!(configured(&scene), ["uid-home"]);
    let mut shown = scene.cache.agent(&key("home")).expect("the agent is there").into_owned();
    shown.metadata.resource_version = Some("2".to_owned());
    shown.status = Some(crds::ForwardAgentStatus::default());
    let news = scene.see(Object::Agent(key("home"), Box::new(Ok(shown))));
    assert!(news.touched.changes.is_empty() && news.update.programs.is_empty());
    scene.see(agent("home", 1, &json!({"gateway": {"name": "other"}})));
    assert!(configured(&scene).is_empty());
    scene.see(agent("home", 1, &json!({})));
    assert_eq!(configured(&scene), ["uid-home"]);
    scene.gone(Kind::Agents, "home");
    assert!(configured(&scene).is_empty());
}

#[test]
fn a_forward_reaches_an_agent_on_the_gateway_of_the_agent_and_in_sidecars() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    scene.see(tunnelled(&json!({"gateway": {"name": "edge"}})));
    let unmet = |scene: &Scene, words: &str| {
        let (reason, message) = resolved(scene);
        assert!(reason == "BackendNotFound" && message.contains(words), "{reason}: {message}");
    };
    unmet(&scene, "ForwardAgent ns/home does not exist");
    scene.see(agent("home", 1, &json!({})));
    unmet(&scene, "ForwardGateway ns/edge has no spec.tunnels");
    scene.see(open());
    assert_eq!(resolved(&scene).0, "ResolvedRefs");
    scene.see(agent("home", 1, &json!({"targets": [{"host": "127.0.0.1", "port": 22}]})));
    assert_eq!(resolved(&scene).0, "AddressNotAllowed");
    scene.see(agent("home", 1, &json!({"gateway": {"name": "other"}})));
    unmet(&scene, "ForwardGateway ns/other does not exist");
    scene.see(agent("home", 1, &json!({})));
    scene.see(tunnelled(&json!({"sidecar": {"selector": {}}})));
    assert_eq!(resolved(&scene).0, "ResolvedRefs");
    scene.see(gateway(&json!({"tunnels": {"allowedAgents": {"namespaces": {"from": "Selector", "selector": {
        "matchLabels": {"team": "a"},
    }}}}})));
    unmet(&scene, "does not admit agents of namespace 'ns'");
    scene.see(tunnelled(&json!({"gateway": {"name": "edge"}})));
    scene.see(Object::Namespace(key("ns"), [("team".to_owned(), "a".to_owned())].into()));
    assert_eq!(resolved(&scene).0, "ResolvedRefs");
    scene.gone(Kind::Agents, "home");
    unmet(&scene, "does not exist");
}

/// The peers in the configuration of `edge`, which is compared with a translation of the whole world.
fn peers(scene: &Scene) -> Vec<(String, String)> {
    let group = Group::Gateway(key("edge"));
    let found = scene.translator.snapshot(&group).expect("the gateway is there").configuration();
    assert_eq!(found.tunnels, translate(&scene.cache.world).configurations[&group].tunnels);
    found.tunnels.peers.into_iter().map(|(id, ip)| (id, ip.to_string())).collect()
}

/// A pod of the fleet with these addresses.
fn pod(name: &str, ready: bool, ips: &[&str]) -> Object {
    let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    Object::ProxyPod(key(name), PodInfo { ips, ..fleet_pod(name, ready) })
}

#[test]
fn proxies_of_a_gateway_with_tunnels_know_the_ready_pods_of_their_fleet() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    scene.see(pod("p1", true, &["10.0.0.1", "2001:db8::1"]));
    assert!(peers(&scene).is_empty(), "without tunnels nobody needs them");
    scene.see(open());
    let named = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(id, ip)| ((*id).to_owned(), (*ip).to_owned())).collect()
    };
    assert_eq!(peers(&scene), named(&[("uidp1", "10.0.0.1")]));
    let news = scene.see(pod("p2", false, &["10.0.0.2"]));
    assert!(news.touched.changes.peers.is_empty());
    scene.see(pod("p3", true, &[]));
    assert_eq!(peers(&scene), named(&[("uidp1", "10.0.0.1")]), "one is not ready, and one has no address");
    let news = scene.see(pod("p2", true, &["10.0.0.2"]));
    assert_eq!((news.touched.changes.peers.len(), news.touched.changes.reach.len()), (1, 0));
    assert!(news.update.programs.iter().eq([&Group::Gateway(key("edge"))]), "{:?}", news.update.programs);
    assert_eq!(peers(&scene), named(&[("uidp1", "10.0.0.1"), ("uidp2", "10.0.0.2")]));
    let same = scene.see(pod("p2", true, &["10.0.0.2"]));
    assert!(same.touched.changes.is_empty() && same.update.programs.is_empty());
    let ips = std::collections::BTreeSet::from([std::net::IpAddr::from([10, 0, 0, 2])]);
    let recreated = PodInfo { uid: "uid-new".to_owned(), ips, ..fleet_pod("p2", true) };
    scene.see(Object::ProxyPod(key("p2"), recreated));
    assert_eq!(peers(&scene), named(&[("uidnew", "10.0.0.2"), ("uidp1", "10.0.0.1")]));
    scene.see(pod("p2", true, &["10.0.0.2"]));
    scene.see(pod("p1", false, &["10.0.0.1", "2001:db8::1"]));
    assert_eq!(peers(&scene), named(&[("uidp2", "10.0.0.2")]));
    scene.gone(Kind::ProxyPods, "p2");
    assert!(peers(&scene).is_empty());
}

#[test]
fn proxies_know_no_more_peers_than_they_read() {
    let mut scene = Scene::new();
    scene.see(open());
    for number in 0..=MAX_PEERS {
        let ip = format!("10.0.{}.{}", number / 256, number % 256);
        scene.see(pod(&format!("p{number:03}"), true, &[&ip]));
    }
    assert_eq!(peers(&scene).len(), MAX_PEERS);
}

/// The writes for one agent.
pub(crate) fn written(agents: &mut Agents, scene: &Scene, name: &str, now: Duration) -> Option<StatusWrite> {
    agents.look_at(&key(name));
    let effects: Vec<Effect> = agents.tick(&scene.view(), 1, now);
    writes(&effects).pop()
}

#[test]
fn a_gateway_takes_the_oldest_agents_and_another_one_when_one_of_them_is_gone() {
    let mut scene = Scene::new();
    scene.see(open());
    let mut touched = Touched::default();
    let older = (0..MAX_AGENTS).map(|at| agent(&format!("a{at}"), 1, &json!({})));
    for object in older.chain([agent("young", 2, &json!({}))]) {
        touched.absorb(scene.cache.apply(&source(Kind::Agents), Seen::Upsert(Box::new(object))));
    }
    scene.translate(touched);
    let is_taken = |scene: &Scene| configured(scene).contains(&"uid-young".to_owned());
    let accepted = |scene: &Scene| {
        let write = written(&mut Agents::new(ms(0)), scene, "young", ms(0)).expect("a write");
        condition_of(&write, "Accepted")
    };
    assert_eq!(configured(&scene).len(), MAX_AGENTS);
    assert_eq!((is_taken(&scene), accepted(&scene)), (false, pair("False", "QuotaExceeded")));
    let news = scene.gone(Kind::Agents, "a7");
    assert_eq!((is_taken(&scene), accepted(&scene)), (true, pair("True", "Accepted")));
    let mut agents = Agents::new(ms(0));
    agents.translated(&news.touched.changes, &scene.cache.world);
    let effects = agents.tick(&scene.view(), usize::MAX, ms(0));
    assert!(writes(&effects).len() > 1, "the places of all of them may have changed");
}

#[test]
fn an_agent_that_leaves_gives_its_instances_to_those_that_wait_in_its_namespace() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({"tunnels": {"allowedAgents": {"maxInstancesPerNamespace": 6}}})));
    scene.see(agent("old", 1, &json!({})));
    scene.see(agent("young", 2, &json!({})));
    scene.see(agent("small", 3, &json!({"maxInstances": 2})));
    let status = |scene: &Scene| {
        let write = written(&mut Agents::new(ms(0)), scene, "young", ms(0)).expect("a write");
        condition_of(&write, "Accepted")
    };
    assert_eq!((configured(&scene), status(&scene)), (uids(&["old", "small"]), pair("False", "QuotaExceeded")));
    let news = scene.gone(Kind::Agents, "old");
    assert_eq!((configured(&scene), status(&scene)), (uids(&["small", "young"]), pair("True", "Accepted")));
    let mut agents = Agents::new(ms(0));
    agents.translated(&news.touched.changes, &scene.cache.world);
    let effects = agents.tick(&scene.view(), usize::MAX, ms(0));
    assert_eq!(writes(&effects).len(), 2, "both may have another place");
    scene.see(agent("small", 3, &json!({"maxInstances": 7})));
    assert_eq!(configured(&scene), uids(&["young"]));
    scene.see(open());
    assert_eq!(configured(&scene), uids(&["small", "young"]));
}

#[test]
fn an_agent_of_another_namespace_gets_what_an_older_one_leaves_of_the_half_that_it_has_without_a_number() {
    let mut scene = Scene::new();
    let tunnels = |most: u32| json!({"tunnels": {"maxAgents": most, "allowedAgents": {"namespaces": {"from": "All"}}}});
    scene.see(gateway(&tunnels(8)));
    let of_other = |name: &str, day: u8| {
        let spec = json!({"gateway": {"name": "edge", "namespace": "ns"}});
        let Object::Agent(_, read) = agent(name, day, &spec) else { panic!("an agent") };
        Object::Agent(ObjectKey::new("other", name), read)
    };
    scene.see(of_other("old", 1));
    scene.see(of_other("young", 2));
    scene.see(agent("own", 3, &json!({"maxInstances": 64})));
    assert_eq!(configured(&scene), uids(&["old", "own"]));
    scene.see(gateway(&tunnels(16)));
    assert_eq!(configured(&scene), uids(&["old", "own", "young"]));
    scene.see(gateway(&tunnels(8)));
    scene.take(Kind::Agents, Seen::Gone(ObjectKey::new("other", "old")));
    assert_eq!(configured(&scene), uids(&["own", "young"]));
}

fn uids(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("uid-{name}")).collect()
}

/// The watch shows the written status.
fn show(scene: &mut Scene, agents: &mut Agents, write: &StatusWrite, version: &str, now: Duration) {
    scene.show(write, version);
    agents.written(&write.subject, Some(version), false, now);
    agents.seen(&key("home"), scene.cache.agent(&key("home")).as_deref());
    assert!(agents.tick(&scene.view(), 10, now).is_empty(), "the status is as it should be");
}

fn conditions(write: &StatusWrite) -> [(String, String); 4] {
    ["Accepted", "Enrolled", "Connected", "Ready"].map(|type_| condition_of(write, type_))
}

#[test]
fn the_status_follows_the_secret_and_the_reports_of_the_proxies_of_the_gateway() {
    let mut scene = Scene::new();
    scene.see(open());
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    scene.see(agent("home", 1, &json!({})));
    let mut agents = Agents::new(ms(0));
    let write = written(&mut agents, &scene, "home", ms(0)).expect("a write");
    let pending = pair("Unknown", "Pending");
    assert_eq!(conditions(&write), [pair("True", "Accepted"), pending.clone(), pending.clone(), pending.clone()]);
    show(&mut scene, &mut agents, &write, "2", ms(1));

    let enrolment = Enrolment { secret: Some("home-enrolment".to_owned()), left: 1, ..Enrolment::default() };
    agents.enrolled(&key("home"), enrolment);
    let write = written(&mut agents, &scene, "home", ms(2)).expect("a write");
    let [_, enrolled, _, ready] = conditions(&write);
    assert_eq!((enrolled, ready), (pair("False", "NotEnrolled"), pair("False", "NotEnrolled")));
    assert_eq!(write.status["enrolmentSecret"], "home-enrolment");
    show(&mut scene, &mut agents, &write, "3", ms(3));

    let report = || Report::from([("uid-home".to_owned(), [("pi4".to_owned(), "0.9.0".to_owned())].into())]);
    agents.reported(&proxy("p1"), report());
    let write = written(&mut agents, &scene, "home", ms(4)).expect("a write");
    let [_, _, connected, ready] = conditions(&write);
    assert_eq!((connected, ready), (pair("True", "Connected"), pair("True", "Ready")));
    assert_eq!(write.status["instances"], json!([{"name": "pi4", "version": "0.9.0", "carriers": "1/1"}]));
    show(&mut scene, &mut agents, &write, "4", ms(5));

    agents.reported(&proxy("stranger"), report());
    assert_eq!(written(&mut agents, &scene, "home", ms(6)), None, "a proxy of no gateway speaks for no agent");
    agents.ended(&proxy("p1"), ms(1000));
    assert_eq!(written(&mut agents, &scene, "home", ms(60_999)), None);
    let write = writes(&agents.tick(&scene.view(), 10, ms(61_000))).pop().expect("a write");
    assert_eq!(conditions(&write)[2], pair("False", "NotConnected"));
    assert_eq!(write.status["instances"], Value::Null);
}

/// The events about the agent `home`, each as whether it is a warning and its reason, and its written status.
fn told(agents: &mut Agents, scene: &Scene, now: Duration) -> (Vec<(bool, String)>, StatusWrite) {
    agents.look_at(&key("home"));
    let effects = agents.tick(&scene.view(), 1, now);
    let told = events(&effects).into_iter().map(|event| (event.warning, event.reason)).collect();
    (told, writes(&effects).pop().expect("a write"))
}

#[test]
fn who_enrols_connects_and_leaves_is_told_once_each() {
    let mut scene = Scene::new();
    scene.see(open());
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    scene.see(agent("home", 1, &json!({})));
    let mut agents = Agents::new(ms(0));
    let one = |warning: bool, reason: &str| vec![(warning, reason.to_owned())];
    let (events, write) = told(&mut agents, &scene, ms(0));
    assert!(events.is_empty(), "nothing has happened to a new agent");
    show(&mut scene, &mut agents, &write, "2", ms(1));

    agents.enrolled(&key("home"), Enrolment { enrolled: 1, ..Enrolment::default() });
    let (events, write) = told(&mut agents, &scene, ms(2));
    assert_eq!(events, one(false, "Enrolled"));
    agents.written(&write.subject, None, true, ms(3));
    let (events, write) = told(&mut agents, &scene, ms(4));
    assert!(events.is_empty(), "a write that is tried again tells nothing again");
    show(&mut scene, &mut agents, &write, "3", ms(5));

    let report = || Report::from([("uid-home".to_owned(), [("pi4".to_owned(), "0.9.0".to_owned())].into())]);
    agents.reported(&proxy("p1"), report());
    let (events, write) = told(&mut agents, &scene, ms(6));
    assert_eq!(events, one(false, "Connected"));
    show(&mut scene, &mut agents, &write, "4", ms(7));
    agents.reported(&proxy("p1"), Report::new());
    let (events, write) = told(&mut agents, &scene, ms(8));
    assert_eq!(events, one(true, "NotConnected"));
    show(&mut scene, &mut agents, &write, "5", ms(9));
    agents.reported(&proxy("p1"), report());
    let (events, write) = told(&mut agents, &scene, ms(10));
    assert_eq!(events, one(false, "Connected"));
    show(&mut scene, &mut agents, &write, "6", ms(11));

    scene.see(gateway(&json!({})));
    let (events, write) = told(&mut agents, &scene, ms(12));
    assert_eq!(events, one(true, "NotAllowedByGateway"));
    show(&mut scene, &mut agents, &write, "7", ms(13));
}

#[test]
fn an_agent_that_is_suspended_is_ready_and_one_of_another_operator_is_left_alone() {
    let mut scene = Scene::new();
    scene.see(open());
    scene.see(agent("home", 1, &json!({"suspend": true})));
    let write = written(&mut Agents::new(ms(0)), &scene, "home", ms(0)).expect("a write");
    let [accepted, _, connected, ready] = conditions(&write);
    let suspended = pair("True", "Suspended");
    assert_eq!((accepted, connected, ready), (suspended.clone(), pair("False", "Suspended"), suspended));
    scene.see(gateway(&json!({"tunnels": {}, "controllerClass": "blue"})));
    assert_eq!(written(&mut Agents::new(ms(0)), &scene, "home", ms(0)), None);
}

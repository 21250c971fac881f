//! Sidecars with backends behind agents: which agents they receive, which gateways receive them, and who signs for
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use operator_core::{
    Group,
    enrolment::{Case, judge},
    names::sidecar_id,
    schedule::{StatusWrite, agents::Agents, statuses::Statuses},
    status::instances::{Report, of_sidecar},
    translate,
    world::{
        followers::Applicant as Proxy,
        objects::{Object, PodInfo},
        watched::Kind,
    },
};
use proxy_api::{Agent, Applicant, SIDECAR_TUNNEL_PORT, SignReason, Transport};
use serde_json::json;

use crate::{
    cluster_agents::{agent, open, tunnelled, written},
    scene::{
        News, Scene, app_pod, condition_of, fleet_pod, forward, gateway, key, keys, ms, pair, proxy, side, unscaled,
        writes,
    },
};

/// A pod with a sidecar that was created at this second and has the address 10.0.0.`end`.
fn app(scene: &mut Scene, name: &str, created: u64, end: u8) -> News {
    scene.see(Object::Pod(key(name), app_pod(name)));
    scene.see(proxied(name, created, end, |pod| pod))
}

/// The pod as the watch of pods with a proxy shows it, with a change.
fn proxied(name: &str, created: u64, end: u8, change: impl FnOnce(PodInfo) -> PodInfo) -> Object {
    let ip = IpAddr::from([10, 0, 0, end]);
    let ips = BTreeSet::from([ip]);
    Object::ProxyPod(key(name), change(PodInfo { ip: Some(ip), ips, created: Some(created), ..app_pod(name) }))
}

/// A cluster in which the sidecar of `a` has a backend of the agent `home`, which dials `edge`.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.see(open());
    scene.see(agent("home", 1, &json!({})));
    scene.see(tunnelled(&json!({"sidecar": {"selector": {}}})));
    app(&mut scene, "a", 1, 1);
    scene
}

/// The sidecars in the configuration of `edge`, as addresses with the agents that learn of them, after every
/// configuration is compared with a translation of the whole world.
fn named(scene: &Scene) -> Vec<(String, Vec<String>)> {
    let (now, whole) = (scene.translator.translation(), translate(&scene.cache.world));
    assert_eq!(now.configurations, whole.configurations);
    let Some(edge) = now.configurations.get(&Group::Gateway(key("edge"))) else { return Vec::new() };
    let of_edge = |uid: &str| sidecar_id(&format!("uid-{uid}"), "uid-edge");
    let known = ["a", "b", "c"].map(of_edge);
    assert!(edge.tunnels.sidecars.keys().all(|id| known.contains(id)), "{:?}", edge.tunnels.sidecars);
    let entry = |sidecar: &proxy_api::Sidecar| (sidecar.address.to_string(), sidecar.agents.iter().cloned().collect());
    let mut named: Vec<(String, Vec<String>)> = edge.tunnels.sidecars.values().map(entry).collect();
    named.sort();
    named
}

fn of_home(addresses: &[&str]) -> Vec<(String, Vec<String>)> {
    addresses.iter().map(|address| ((*address).to_owned(), vec!["uid-home".to_owned()])).collect()
}

/// The agents in the configuration of the sidecar of `a`.
fn met(scene: &Scene) -> Vec<Agent> {
    let group = scene.translator.group_of(&key("a")).expect("the forward selects the pod");
    let snapshot = scene.translator.snapshot(group).expect("the group runs something");
    snapshot.configuration().agents.into_values().collect()
}

#[test]
fn a_sidecar_hears_of_the_agents_that_its_listeners_reach_with_the_gateway_that_they_dial() {
    let mut scene = scene();
    scene.see(agent("unused", 2, &json!({})));
    let known = met(&scene);
    let [home] = known.as_slice() else { panic!("one agent: {known:?}") };
    assert_eq!((home.name.as_str(), home.gateway.as_deref()), ("home", Some("uid-edge")));
    let of_fleet = scene.translator.snapshot(&Group::Gateway(key("edge"))).expect("a fleet").configuration().agents;
    assert!(of_fleet.len() == 2 && of_fleet.values().all(|agent| agent.gateway.is_none()));
    scene.see(agent("home", 1, &json!({"suspend": true, "enrolment": {"rotation": 2}})));
    assert_eq!(met(&scene).first().map(|home| (home.suspended, home.rotation)), Some((true, 2)));
    scene.see(agent("home", 1, &json!({"gateway": {"name": "none"}})));
    assert!(met(&scene).is_empty() && named(&scene).is_empty(), "no gateway takes the agent");
    scene.see(agent("home", 1, &json!({})));
    assert_eq!((met(&scene).len(), named(&scene)), (1, of_home(&["10.0.0.1"])));
    scene.see(tunnelled(&json!({"gateway": {"name": "edge"}})));
    assert!(named(&scene).is_empty(), "the forward is on the gateway itself");
}

#[test]
fn a_sidecar_forgets_an_agent_that_its_listeners_no_longer_reach() {
    let mut scene = scene();
    assert_eq!(met(&scene).len(), 1);
    scene.see(forward(side("db", 5432)));
    assert!(met(&scene).is_empty() && named(&scene).is_empty());
}

#[test]
fn connections_are_handed_over_to_no_address_of_a_node() {
    let mut scene = scene();
    scene.see(Object::Pod(key("b"), app_pod("b")));
    scene.see(proxied("b", 2, 2, |pod| PodInfo { node_ips: pod.ips.clone(), ..pod }));
    assert_eq!(named(&scene), of_home(&["10.0.0.1"]), "a pod with hostNetwork");
    let other = BTreeSet::from([IpAddr::from([192, 0, 2, 1])]);
    scene.see(proxied("b", 2, 2, |pod| PodInfo { node_ips: other, ..pod }));
    assert_eq!(named(&scene), of_home(&["10.0.0.1", "10.0.0.2"]));
}

#[test]
fn a_pod_of_two_families_is_reached_at_the_address_that_its_sidecar_listens_at() {
    let mut scene = scene();
    let listens: IpAddr = "2001:db8::1".parse().expect("an address");
    scene.see(proxied("a", 1, 1, |mut pod| {
        pod.ips.insert(listens);
        PodInfo { ip: Some(listens), ..pod }
    }));
    assert_eq!(named(&scene), of_home(&["2001:db8::1"]));
}

#[test]
fn a_gateway_hears_of_sidecars_with_an_address_whether_they_are_ready_or_not() {
    let mut scene = scene();
    assert_eq!(named(&scene), of_home(&["10.0.0.1"]));
    let news = app(&mut scene, "b", 2, 2);
    assert!(news.update.programs.iter().eq([&Group::Gateway(key("edge"))]), "{:?}", news.update.programs);
    assert_eq!(named(&scene), of_home(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(news.update.work.sidecars, 2, "the pods of the gateway's agents are compared");
    let of_fleet = scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    assert_eq!(of_fleet.update.work.sidecars, 0);
    let same = scene.see(proxied("b", 2, 2, |pod| PodInfo { ready: true, ..pod }));
    assert!(same.touched.changes.is_empty() && same.update.programs.is_empty());
    scene.see(proxied("b", 2, 2, |pod| PodInfo { leaving: true, ..pod }));
    let and_leaving = [of_home(&["10.0.0.1"]), vec![("10.0.0.2".to_owned(), Vec::new())]].concat();
    assert_eq!(named(&scene), and_leaving, "it leaves, and its sessions continue");
    assert_eq!(scene.translator.reached(&key("edge"), "uid-home").map(BTreeSet::len), Some(1));
    scene.see(proxied("b", 2, 2, |pod| PodInfo { leaving: true, ended: true, ..pod }));
    assert_eq!(named(&scene), of_home(&["10.0.0.1"]), "it has ended");
    app(&mut scene, "c", 3, 3);
    scene.gone(Kind::ProxyPods, "c");
    assert_eq!(named(&scene), of_home(&["10.0.0.1"]));
    scene.gone(Kind::Agents, "home");
    assert!(named(&scene).is_empty() && met(&scene).is_empty());
    scene.see(agent("home", 1, &json!({})));
    scene.see(gateway(&json!({})));
    assert!(named(&scene).is_empty() && met(&scene).is_empty(), "the gateway has no tunnels");
}

/// The message of `Accepted`, which is true.
fn accepted(write: &StatusWrite) -> String {
    assert_eq!(condition_of(write, "Accepted"), pair("True", "Accepted"));
    let conditions = write.status["conditions"].as_array().cloned().unwrap_or_default();
    let accepted = conditions.into_iter().find(|it| it["type"] == "Accepted").expect("the condition");
    accepted["message"].as_str().expect("words").to_owned()
}

/// The message in the status of the agent.
fn said_of_home(scene: &Scene) -> String {
    accepted(&written(&mut Agents::new(ms(0)), scene, "home", ms(0)).expect("a write"))
}

/// The message in the status of the forward.
fn said_of_db(scene: &Scene) -> String {
    let mut statuses = Statuses::new(ms(0));
    let mut at = |millis: u64| {
        statuses.look_at(keys(&["db"]), ms(millis));
        statuses.evaluate(&scene.view(), &unscaled, 1, ms(millis))
    };
    // A forward that waits for its proxies is written a moment later.
    let effects = [at(0), at(1000)].concat();
    accepted(writes(&effects).first().expect("a write"))
}

#[test]
fn pods_beyond_the_bound_of_an_agent_are_said_in_its_status_and_in_those_of_its_forwards() {
    let mut scene = scene();
    for number in 2..=32 {
        let news = app(&mut scene, &format!("p{number}"), u64::from(number), number);
        assert!(news.update.agents.is_empty());
    }
    assert!(!said_of_home(&scene).contains("warning") && !said_of_db(&scene).contains("warning"));
    let news = app(&mut scene, "young", 100, 100);
    assert!(news.update.agents.iter().eq(["uid-home"]) && news.update.unreached == keys(&["db"]), "both are looked at");
    let message = said_of_home(&scene);
    assert!(message.contains("1 pod with sidecars") && message.contains("32 oldest pods"), "{message}");
    let message = said_of_db(&scene);
    assert!(message.contains("warning: ForwardAgent ns/home does not reach 1 pod"), "{message}");
    for number in 101..=110 {
        let news = app(&mut scene, &format!("p{number}"), u64::from(number), number);
        assert_eq!(news.update.work.sidecars, 32, "a large group costs no more than its oldest pods");
    }
    assert!(said_of_home(&scene).contains("11 pods with sidecars"));
    for number in 101..=110 {
        scene.gone(Kind::ProxyPods, &format!("p{number}"));
    }
    let news = scene.gone(Kind::ProxyPods, "young");
    assert_eq!(news.update.unreached, keys(&["db"]));
    assert!(!said_of_home(&scene).contains("warning") && !said_of_db(&scene).contains("warning"));
}

/// A report of these instances of one agent, with this version.
fn report(uid: &str, names: &[&str], version: &str) -> Report {
    let instances: BTreeMap<String, String> =
        names.iter().map(|name| ((*name).to_owned(), version.to_owned())).collect();
    Report::from([(uid.to_owned(), instances)])
}

#[test]
fn a_sidecar_counts_as_reached_if_it_reports_an_instance_that_the_gateway_knows() {
    let mut scene = scene();
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    let news = app(&mut scene, "b", 2, 2);
    assert!(news.update.reaching.iter().eq(["uid-home"]));
    let mut agents = Agents::new(ms(0));
    let reports: [(&str, &[&str]); 3] = [("p1", &["pi4"]), ("a", &["invented", "pi4"]), ("stranger", &["pi4"])];
    for (name, names) in reports {
        agents.reported(&proxy(name), report("uid-home", names, "0.9.0"));
    }
    let write = written(&mut agents, &scene, "home", ms(0)).expect("a write");
    let expected = json!([{"name": "pi4", "version": "0.9.0", "carriers": "1/1", "sidecars": "1/2"}]);
    assert_eq!(write.status["instances"], expected);
}

#[test]
fn the_operator_keeps_no_more_of_the_report_of_a_sidecar_than_its_configuration_has_room_for() {
    let mut said = report("u-1", &["a", "b", "c"], "0.9.0");
    said.extend(report("u-2", &["a"], "0.9.0"));
    let most = |uid: &str| if uid == "u-1" { 2 } else { 0 };
    assert_eq!(of_sidecar(said, most), report("u-1", &["a", "b"], ""));
}

#[test]
fn a_pod_whose_app_has_the_port_of_sidecars_is_named_to_nobody_and_the_forward_warns() {
    let mut scene = scene();
    let warnings = |scene: &Scene| {
        let verdict = scene.translator.verdict(&(&key("db")).into()).expect("a verdict");
        verdict.warnings.clone()
    };
    assert!(warnings(&scene).is_empty());
    let app_ports = [(Transport::Tcp, SIDECAR_TUNNEL_PORT)].into();
    scene.see(Object::Pod(key("a"), PodInfo { app_ports, ..app_pod("a") }));
    assert!(named(&scene).is_empty());
    let warnings = warnings(&scene);
    assert!(warnings.iter().any(|it| it.contains(&format!("{SIDECAR_TUNNEL_PORT}/TCP"))), "{warnings:?}");
}

/// The outcome of a request by the sidecar of `a`.
fn judged(scene: &Scene, applicant: &Applicant) -> Result<(String, Case), (SignReason, String)> {
    let proxy = Proxy { pod: &key("a"), uid: "uid-a", service_account: "" };
    let group = scene.fleets.group_of(&key("a"), &scene.translator);
    let runs = group.and_then(|group| scene.translator.snapshot(group));
    let judged = judge(&scene.cache, proxy, applicant, runs.map(|runs| &**runs));
    judged.map(|judged| (judged.gateway_uid, judged.case)).map_err(|why| (why.reason, why.detail))
}

#[test]
fn a_sidecar_gets_certificates_of_the_gateways_whose_agents_its_listeners_reach_and_no_others() {
    let mut scene = scene();
    let of = |uid: &str| Applicant::Sidecar { gateway: uid.to_owned() };
    let Ok((root, Case::Sidecar(id))) = judged(&scene, &of("uid-edge")) else { panic!("a sidecar") };
    assert_eq!((root.as_str(), id.to_string()), ("uid-edge", sidecar_id("uid-a", "uid-edge")));
    let agent = Applicant::Agent {
        namespace: "ns".to_owned(),
        name: "home".to_owned(),
        uid: "uid-home".to_owned(),
        rotation: 0,
    };
    let refused = [
        (of("uid-other"), "agent of the ForwardGateway with uid uid-other"),
        (Applicant::Endpoint, "a sidecar enrols no agents"),
        (agent, "a sidecar enrols no agents"),
    ];
    for (applicant, words) in refused {
        let (reason, detail) = judged(&scene, &applicant).expect_err("refused");
        assert!(reason == SignReason::Agent && detail.contains(words), "{detail}");
    }
    scene.see(gateway(&json!({})));
    assert!(judged(&scene, &of("uid-edge")).is_err(), "the gateway has no tunnels any more");
}

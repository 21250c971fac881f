//! All forwards of a place in one response of the live API.

use std::collections::BTreeSet;

use operator_core::{
    Group, ProxyId,
    live_api::{
        carriers::carriers_in,
        rates::Rates,
        sessions::Gathered,
        together::{Forwards, MAX_FORWARDS, Together},
    },
    world::objects::Object,
};
use proxy_api::{LiveSession, LiveSessions, Load, Origin, Selection, Work};
use serde_json::json;

use crate::{
    live_api::{document, live, of_web, session},
    scene::{Scene, app_pod, fleet_pod, forward, key, keys, side},
};

/// A request for the sessions of all forwards of the namespace `ns`.
fn of_all(limit: usize) -> Selection {
    Selection { namespace: Some("ns".to_owned()), by_origin: true, limit, ..Selection::default() }
}

/// An answer with these numbers of sessions by forward of `ns`, and no list.
fn counted(total: u64, counts: &[(&str, u64)]) -> LiveSessions {
    let origins = counts.iter().map(|(name, count)| (Origin::port_forward("ns", *name), *count)).collect();
    LiveSessions { total, origins, ..LiveSessions::default() }
}

#[test]
fn the_sessions_of_all_forwards_are_counted_by_forward_also_beyond_the_list() {
    let rates = Rates { new_per_second: 3, bytes_per_second: 4 };
    let forwards = [("db", None), ("web", Some(rates))].map(|(name, rates)| (Origin::port_forward("ns", name), rates));
    let forwards = Forwards { rates: forwards.into(), omitted: 7 };
    let mut gathered = Gathered::new(of_all(1), keys(&["p1", "p2"])).counting(forwards);
    let one = LiveSessions { sessions: vec![session("web"); 2], ..counted(900, &[("web", 900)]) };
    gathered.take(&key("p1"), one);
    gathered.take(&key("p2"), counted(9, &[("web", 1), ("db", 2), ("gone", 5)]));
    let list = document(gathered);
    assert_eq!((&list["total"], list["items"].as_array().map(Vec::len)), (&json!(909), Some(1)));
    let expected = json!([
        {"forward": "ns/db", "total": 2},
        {"forward": "ns/web", "total": 901, "newPerSecond": 3, "bytesPerSecond": 4},
    ]);
    assert_eq!(list["forwards"], expected);
    assert_eq!((&list["omittedForwards"], &list["uncounted"]), (&json!(7), &json!(1)), "p2 has one of yet another");
    let one_forward = document(Gathered::new(of_web(1), keys(&[])));
    assert_eq!((one_forward.get("forwards"), one_forward.get("uncounted")), (None, None));
}

#[test]
fn a_proxy_that_counts_no_forwards_is_believed_as_far_as_its_list_is_whole() {
    let forwards = Forwards { rates: [(Origin::port_forward("ns", "web"), None)].into(), omitted: 0 };
    let mut gathered = Gathered::new(of_all(10), keys(&["p1", "p2"])).counting(forwards);
    let elsewhere = LiveSession { listener: "other/web/a".parse().expect("an id"), ..session("web") };
    gathered.take(&key("p1"), live(3, vec![session("web"), elsewhere.clone(), session("web")]));
    gathered.take(&key("p2"), live(900, vec![session("web"), elsewhere]));
    let list = document(gathered);
    assert_eq!((&list["total"], list["items"].as_array().map(Vec::len)), (&json!(2), Some(2)));
    assert_eq!((&list["forwards"], list.get("uncounted")), (&json!([{"forward": "ns/web", "total": 2}]), None));
    assert_eq!(list["unanswered"], json!(["ns/p2"]), "its total may be that of other namespaces");
    assert_eq!(list.get("omittedForwards"), None, "the list has all forwards");
}

/// What is known of the forwards of a namespace of a scene.
fn together(scene: &Scene, namespace: Option<&str>) -> Together {
    let carriers = |group: &Group| -> BTreeSet<ProxyId> {
        carriers_in(group, scene.fleets.all(), &scene.proxies).cloned().collect()
    };
    Together::new(scene.translator.verdicts(), namespace, carriers, &scene.proxies)
}

#[test]
fn forwards_of_a_place_have_the_proxies_of_their_groups_and_the_rates_that_all_of_them_report() {
    let mut scene = Scene::with_web();
    scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", false)));
    scene.see(forward(side("db", 81)));
    scene.see(Object::Pod(key("app"), app_pod("app")));
    let work = |new_per_second| Work { connections: 1, new_per_second, bytes_per_second: 2 };
    let load = |forwards: &[(&str, u64)]| Load {
        sum: work(900),
        forwards: forwards.iter().map(|(name, new)| ((*name).to_owned(), work(*new))).collect(),
    };
    let (p1, app) = (ProxyId::Pod(key("p1")), ProxyId::Pod(key("app")));
    for (proxy, forwards) in [(&p1, &[("ns/web", 3), ("other/web", 500)][..]), (&app, &[("ns/db", 5)][..])] {
        scene.proxies.connected(proxy);
        scene.proxies.loaded(proxy, load(forwards));
    }
    let all = together(&scene, Some("ns"));
    let pods: Vec<&str> = all.proxies.keys().map(ProxyId::name).collect();
    assert_eq!(pods, ["app", "p1", "p2"]);
    for proxy in all.proxies.keys() {
        let namespaces: Vec<&str> =
            all.carried[proxy].iter().flat_map(|of_group| of_group.iter()).map(String::as_str).collect();
        assert_eq!(namespaces, ["ns"], "{proxy:?}");
    }
    let new: Vec<_> = all.proxies.values().map(|rates| rates.map(|it| it.new_per_second)).collect();
    assert_eq!(new, [Some(5), Some(3), None], "of this namespace");
    let forwards = all.forwards.rates.iter();
    let rates: Vec<_> =
        forwards.map(|(origin, rates)| (origin.name.as_str(), rates.map(|it| it.new_per_second))).collect();
    assert_eq!(rates, [("db", Some(5)), ("web", None)], "p2 has not reported");
    assert_eq!(together(&scene, None).forwards, all.forwards);
    assert_eq!(together(&scene, Some("elsewhere")), Together::default());
}

#[test]
fn no_more_forwards_are_counted_than_a_response_holds() {
    let scene = Scene::with_web();
    let (_, verdict) = scene.translator.verdicts().next().expect("a verdict");
    let origins: Vec<Origin> =
        (0..MAX_FORWARDS + 3).map(|at| Origin::port_forward("ns", format!("f{at:06}"))).collect();
    let verdicts = origins.iter().map(|origin| (origin, verdict));
    let carriers = |group: &Group| -> BTreeSet<ProxyId> {
        carriers_in(group, scene.fleets.all(), &scene.proxies).cloned().collect()
    };
    let all = Together::new(verdicts, None, carriers, &scene.proxies);
    assert_eq!((all.forwards.rates.len(), all.forwards.omitted, all.proxies.len()), (MAX_FORWARDS, 3, 1));
}

//! Which forwards a report causes to be evaluated: counts of what is queued.

use operator_core::{
    Subject,
    schedule::statuses::Statuses,
    world::{objects::Object, watched::Kind},
};
use serde_json::json;

use super::{Desk, silent};
use crate::scene::{Scene, app_pod, fleet_pod, forward, gateway, key, keys, ms, proxy, side, web, writes};

/// A gateway with these proxies and this many forwards, all evaluated and none written: they wait.
fn waiting(pods: &[&str], forwards: u16) -> Desk {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({"service": {"type": "None"}})));
    for pod in pods {
        scene.see(Object::ProxyPod(key(pod), fleet_pod(pod, true)));
    }
    for at in 0..forwards {
        scene.see(forward(web(&format!("f{at:03}"), 1000 + at, 1)));
    }
    scene.see(forward(side("aside", 80)));
    scene.see(Object::Pod(key("app"), app_pod("app")));
    let mut desk = Desk::new(scene);
    let all = (0..forwards).map(|at| key(&format!("f{at:03}"))).chain([key("aside")]).collect();
    desk.statuses.look_at(all, ms(1000));
    assert!(silent(&desk.at_most(1000, 999)));
    assert_eq!((desk.statuses.outstanding(), desk.statuses.queued()), (usize::from(forwards) + 1, 0));
    desk
}

#[test]
fn a_report_has_nothing_evaluated_that_waits_for_another_proxy() {
    // C11
    let mut desk = waiting(&["p1", "p2", "p3"], 200);
    for other in ["p3", "p2"] {
        desk.scene.report(other, &[]);
        desk.reported(other, true, 1100);
        assert_eq!(desk.statuses.queued(), 0, "every forward waits for p1 too");
    }
    desk.scene.report("app", &[]);
    desk.reported("app", true, 1100);
    assert_eq!(desk.statuses.queued(), 1, "the forward of that pod");
    desk.scene.report("p1", &[]);
    desk.reported("p1", true, 1100);
    assert_eq!(desk.statuses.queued(), 201);
    assert_eq!(writes(&desk.at_most(1110, 999)).len(), 201);
    assert_eq!(desk.statuses.outstanding(), 0);
    desk.reported("p1", true, 1200);
    assert_eq!(desk.statuses.queued(), 0, "nothing waits for it any more");
}

#[test]
fn a_forward_is_not_evaluated_for_every_proxy_that_it_waits_for() {
    let names: Vec<String> = (0..100).map(|at| format!("p{at:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut desk = waiting(&names, 1);
    let mut evaluated = 0;
    // The proxy that proves that the forward waits, the first by name, is the last to report.
    for (step, pod) in (0..).zip(names.iter().rev()) {
        desk.scene.report(pod, &[]);
        desk.reported(pod, true, 1100 + step);
        evaluated += desk.statuses.queued();
        desk.at_most(1110 + step, 999);
    }
    assert_eq!(evaluated, 1);
    assert_eq!(desk.statuses.outstanding(), 1, "the sidecar of the other forward");
}

#[test]
fn a_forward_that_joins_others_in_a_pod_has_no_status_of_theirs_written_if_the_proxy_reports_in_time() {
    let names: Vec<String> = (0..100).map(|at| format!("f{at:03}")).collect();
    let mut scene = Scene::new();
    scene.see(Object::Pod(key("app"), app_pod("app")));
    for (name, port) in names.iter().zip(1000..) {
        scene.see(forward(side(name, port)));
    }
    scene.report("app", &[]);
    let mut desk = Desk::new(scene);
    desk.statuses.look_at(names.iter().map(|name| key(name)).collect(), ms(1000));
    let first = desk.at_most(1000, 999);
    assert_eq!(writes(&first).len(), 100);
    desk.write(&first, 1100);
    assert!(silent(&desk.at_most(1110, 999)));
    // The pod has another group now, so that its proxy has agreed to nothing yet.
    let joined = desk.scene.see(forward(side("late", 5000)));
    desk.scene.proxies.moved(&proxy("app"));
    desk.statuses.verdicts(joined.update.verdicts, ms(2000));
    desk.statuses.fleets(&joined.moved, &desk.scene.translator, ms(2000));
    assert_eq!(desk.statuses.queued(), 101, "each forward of the group once");
    assert!(silent(&desk.at_most(2000, 999)));
    assert_eq!((desk.statuses.outstanding(), desk.statuses.queued()), (101, 0));
    desk.scene.report("app", &[]);
    desk.reported("app", true, 2100);
    let written = writes(&desk.at_most(2110, 999));
    assert_eq!(written.iter().map(|write| &write.subject).collect::<Vec<_>>(), [&Subject::Forward(key("late"))]);
    assert_eq!(desk.statuses.outstanding(), 0);
}

#[test]
fn a_proxy_that_leaves_is_waited_for_no_longer() {
    let mut desk = waiting(&["p1", "p2"], 3);
    desk.scene.report("p2", &[]);
    desk.reported("p2", true, 1100);
    desk.scene.gone(Kind::ProxyPods, "p1");
    desk.statuses.pods(&keys(&["p1"]), ms(1200));
    assert_eq!(desk.statuses.queued(), 3);
    assert_eq!(writes(&desk.at(1210)).len(), 3);
}

#[test]
fn the_report_of_a_proxy_that_nothing_waits_for_is_counted_with_the_next_refresh() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    desk.step("web", 1000);
    let others: Vec<String> = (10..22).map(|at| format!("p{at}")).collect();
    for pod in &others {
        let moved = desk.scene.see(Object::ProxyPod(key(pod), fleet_pod(pod, true))).moved;
        desk.statuses.fleets(&moved, &desk.scene.translator, ms(2000));
    }
    let effects = desk.at(31_000);
    assert_eq!(writes(&effects)[0].status["dataPlane"]["summary"], "1/13");
    desk.write(&effects, 31_000);
    desk.at(61_010);
    // Eight of the twelve are named; the last is not.
    desk.scene.report("p21", &[]);
    desk.reported("p21", true, 70_000);
    assert_eq!(desk.statuses.queued(), 0);
    assert_eq!(writes(&desk.at(70_250))[0].status["dataPlane"]["summary"], "2/13");
    desk.scene.report("p10", &[]);
    desk.reported("p10", true, 80_000);
    assert_eq!(desk.statuses.queued(), 1, "a proxy that a status may name");
}

#[test]
fn a_new_term_waits_for_nothing() {
    let mut statuses = Statuses::new(ms(0));
    statuses.pods(&keys(&["p1"]), ms(10));
    assert_eq!((statuses.due(), statuses.queued()), (None, 0));
}

#[test]
fn a_verdict_on_another_kind_evaluates_no_forward_of_the_same_name() {
    let mut statuses = Statuses::new(ms(0));
    let forward = proxy_api::Origin::port_forward("ns", "web");
    let route = proxy_api::Origin { kind: "TCPRoute".parse().expect("a kind"), ..forward.clone() };
    statuses.verdicts([route].into(), ms(0));
    assert_eq!(statuses.queued(), 0);
    statuses.verdicts([forward].into(), ms(0));
    assert_eq!(statuses.queued(), 1);
}

#[test]
fn a_forward_whose_proxy_leaves_waits_for_the_next_one() {
    let mut desk = waiting(&["p1", "p2"], 1);
    desk.scene.gone(Kind::ProxyPods, "p1");
    desk.statuses.pods(&keys(&["p1"]), ms(1100));
    assert!(silent(&desk.at(1110)));
    desk.scene.report("p2", &[]);
    desk.reported("p2", true, 1200);
    assert_eq!(desk.statuses.queued(), 1);
}

#[test]
fn a_status_that_names_late_proxies_depends_on_each_of_them() {
    let mut desk = waiting(&["p1", "p2"], 1);
    assert!(!silent(&desk.at_most(31_000, 999)), "both are late");
    desk.scene.report("p2", &[]);
    desk.reported("p2", true, 31_100);
    assert_eq!(desk.statuses.queued(), 1);
}

#[test]
fn forwards_that_wait_are_evaluated_at_the_end_of_the_grace_and_not_before() {
    let mut desk = waiting(&["p1"], 1);
    desk.statuses.refresh(ms(1399));
    assert_eq!(desk.statuses.queued(), 0);
    desk.statuses.refresh(ms(1400));
    assert_eq!(desk.statuses.queued(), 2);
}

#[test]
fn a_forward_that_every_proxy_runs_is_evaluated_by_itself_no_more() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    desk.step("web", 1000);
    desk.at(1010);
    desk.statuses.refresh(ms(600_000));
    assert_eq!((desk.statuses.queued(), desk.statuses.due()), (0, None));
}

#[test]
fn the_counts_of_a_forward_that_is_gone_are_refreshed_no_more() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    desk.step("web", 1000);
    desk.at(1010);
    let moved = desk.scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true))).moved;
    desk.statuses.fleets(&moved, &desk.scene.translator, ms(2000));
    desk.scene.gone(Kind::Forwards, "web");
    desk.statuses.seen(&key("web"), None, ms(3000));
    desk.at(3000);
    desk.statuses.refresh(ms(60_000));
    assert_eq!(desk.statuses.queued(), 0);
}

//! When statuses of forwards are written: with a virtual clock, and with silence asserted before each time.

use std::collections::BTreeSet;

use operator_core::{
    ObjectKey, Subject,
    schedule::{Effect, statuses::Statuses},
    status::{
        conditions::Finding,
        fleets::{Moved, Pods},
    },
    world::{
        objects::Object,
        watched::{Kind, Seen},
    },
};
use serde_json::json;

use crate::scene::{
    Scene, app_pod, events, fleet_pod, forward, gateway, key, keys, ms, pair, said, side, source, unreadable_forward,
    unscaled, web, writes,
};

/// A cluster, the schedule of its statuses, and the resource version of the last write.
struct Desk {
    scene: Scene,
    statuses: Statuses,
    version: u32,
}

impl Desk {
    fn new(scene: Scene) -> Self {
        Self { scene, statuses: Statuses::new(ms(0)), version: 1 }
    }

    /// What the driver does at this time: it moves what has come due, and evaluates if that is due.
    fn at(&mut self, millis: u64) -> Vec<Effect> {
        self.at_most(millis, 9)
    }

    fn at_most(&mut self, millis: u64, room: usize) -> Vec<Effect> {
        let now = ms(millis);
        self.statuses.refresh(now);
        if self.statuses.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let view = self.scene.view();
        self.statuses.evaluate(&view, &unscaled, room, now)
    }

    /// Evaluates a forward now, for whatever reason.
    fn look(&mut self, name: &str, millis: u64) -> Vec<Effect> {
        self.statuses.look_at(keys(&[name]), ms(millis));
        self.at(millis)
    }

    /// The writes succeed, and the watch shows them.
    fn write(&mut self, effects: &[Effect], millis: u64) {
        for write in writes(effects) {
            self.version += 1;
            let version = self.version.to_string();
            self.statuses.written(&write.subject, Some(&version), false, ms(millis));
            self.scene.show(&write, &version);
            let Subject::Forward(key) = &write.subject else { panic!("statuses of forwards only") };
            let forward = self.scene.cache.forward(key);
            self.statuses.seen(key, forward.as_deref(), ms(millis));
        }
    }

    /// Evaluates and writes; gives what the status says of `Programmed`, empty if nothing is written.
    fn step(&mut self, name: &str, millis: u64) -> (String, String) {
        let effects = self.look(name, millis);
        self.write(&effects, millis);
        writes(&effects).first().map(|write| said(write, "Programmed")).unwrap_or_default()
    }
}

fn silent(effects: &[Effect]) -> bool {
    effects.is_empty()
}

#[test]
fn a_forward_that_every_proxy_runs_is_written_at_once_with_one_event() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    let effects = desk.look("web", 1000);
    let written = writes(&effects);
    assert_eq!((written.len(), effects.len()), (1, 2));
    assert_eq!((&written[0].subject, written[0].uid.as_str()), (&Subject::Forward(key("web")), "uid-web"));
    assert_eq!(said(&written[0], "Ready"), pair("True", "Ready"));
    assert_eq!(written[0].status["observedGeneration"], 1);
    assert_eq!(written[0].status["listeners"][0]["port"], 80);
    let told = events(&effects);
    assert_eq!((told[0].reason.as_str(), told[0].warning), ("Ready", false));
    assert_eq!(told[0].object.name.as_deref(), Some("web"));
    assert_eq!(desk.statuses.outstanding(), 0);
    desk.write(&effects, 1100);
    assert!(silent(&desk.at(1110)) && silent(&desk.look("web", 90_000)), "nothing is new");
}

#[test]
fn pending_is_written_only_after_a_grace_of_400_ms() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    assert_eq!((desk.statuses.outstanding(), desk.statuses.due()), (1, None));
    assert!(silent(&desk.at(1399)) && silent(&desk.look("web", 1399)));
    let effects = desk.at(1400);
    assert_eq!(writes(&effects).len(), 1);
    assert_eq!(said(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
    assert!(events(&effects).is_empty(), "Unknown is no news");
}

#[test]
fn a_proxy_that_reports_within_the_grace_saves_the_first_write() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    desk.scene.report("p1", &[]);
    desk.statuses.reported(keys(&["web"]), false, ms(1200));
    assert_eq!(desk.statuses.due(), Some(ms(1210)));
    let effects = desk.at(1210);
    assert_eq!(said(&writes(&effects)[0], "Programmed"), pair("True", "Programmed"));
    assert_eq!(desk.statuses.outstanding(), 0);
    desk.write(&effects, 1300);
    assert!(silent(&desk.at(1400)) && silent(&desk.at(31_000)), "what was planned finds nothing to write");
}

#[test]
fn an_autoscaler_that_is_pending_has_no_grace() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    desk.statuses.look_at(keys(&["web"]), ms(1000));
    let pending = |_: &ObjectKey| {
        Some(Finding::new(
            operator_core::ConditionType::ScalingActive,
            operator_core::Truth::Unknown,
            "Pending",
            "not yet",
        ))
    };
    let effects = desk.statuses.evaluate(&desk.scene.view(), &pending, 1, ms(1000));
    assert_eq!(said(&writes(&effects)[0], "ScalingActive"), pair("Unknown", "Pending"));
    assert_eq!(said(&writes(&effects)[0], "Ready"), pair("True", "Ready"));
}

#[test]
fn a_proxy_that_does_not_report_is_late_after_30_s() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    let effects = desk.at(1400);
    desk.write(&effects, 1500);
    assert!(silent(&desk.at(1510)));
    assert!(silent(&desk.at(30_999)) && silent(&desk.look("web", 30_999)));
    let effects = desk.at(31_000);
    assert_eq!(said(&writes(&effects)[0], "Programmed"), pair("False", "ReportTimeout"));
    assert_eq!(events(&effects)[0].reason, "ReportTimeout");
    assert_eq!(desk.statuses.outstanding(), 1, "it is waited for still");
}

#[test]
fn a_new_generation_has_a_grace_and_30_s_of_its_own() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.scene.edit("web", |forward| {
        forward.metadata.generation = Some(2);
        forward.spec.listeners[0].port = Some(81);
    });
    assert!(silent(&desk.look("web", 50_000)) && silent(&desk.at(50_399)));
    let effects = desk.at(50_400);
    assert_eq!(said(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
    assert_eq!(writes(&effects)[0].status["observedGeneration"], 2);
}

#[test]
fn a_generation_that_comes_while_proxies_are_waited_for_starts_the_30_s_again() {
    let mut desk = Desk::new(Scene::with_web());
    desk.look("web", 1000);
    let effects = desk.at(1400);
    desk.write(&effects, 1400);
    desk.scene.edit("web", |forward| {
        forward.metadata.generation = Some(2);
        forward.spec.listeners[0].port = Some(81);
    });
    assert!(silent(&desk.look("web", 20_000)));
    let effects = desk.at(20_400);
    assert_eq!(said(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
    desk.write(&effects, 20_400);
    assert!(silent(&desk.at(31_000)), "the time of the old generation");
    assert!(silent(&desk.at(49_999)));
    assert_eq!(said(&writes(&desk.at(50_000))[0], "Programmed"), pair("False", "ReportTimeout"));
}

#[test]
fn another_verdict_starts_the_30_s_again_and_is_evaluated_at_once() {
    let mut desk = Desk::new(Scene::with_web());
    desk.look("web", 1000);
    let effects = desk.at(1400);
    desk.write(&effects, 1400);
    desk.at(1410);
    desk.statuses.verdicts(BTreeSet::new(), ms(19_000));
    assert_eq!(desk.statuses.due(), None, "no verdict changed");
    desk.statuses.verdicts(keys(&["web"]).iter().map(Into::into).collect(), ms(20_000));
    assert_eq!(desk.statuses.due(), Some(ms(20_000)));
    assert!(silent(&desk.at(20_000)) && silent(&desk.at(31_000)) && silent(&desk.at(49_999)));
    assert_eq!(said(&writes(&desk.at(50_000))[0], "Programmed"), pair("False", "ReportTimeout"));
}

#[test]
fn the_first_pods_of_a_forward_have_30_s_from_when_they_came() {
    let mut desk = Desk::new(Scene::new());
    desk.scene.see(forward(side("web", 80)));
    assert_eq!(desk.step("web", 1000), pair("True", "NoMatchingPods"));
    assert!(silent(&desk.at(1010)));
    desk.scene.see(Object::Pod(key("app"), app_pod("app")));
    assert_eq!(
        desk.step("web", 100_000),
        pair("True", "NoMatchingPods"),
        "what it holds is written, and no proxy is late"
    );
    assert!(silent(&desk.at(100_010)) && silent(&desk.at(129_999)));
    assert_eq!(said(&writes(&desk.at(130_000))[0], "Programmed"), pair("False", "ReportTimeout"));
}

#[test]
fn counts_are_written_30_s_after_the_last_write_and_not_before() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.at(1010);
    let moved = desk.scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true))).moved;
    desk.statuses.fleets(&moved, &desk.scene.translator, ms(2000));
    assert_eq!(desk.statuses.due(), Some(ms(2010)));
    assert!(silent(&desk.at(2010)), "the number of pods waits");
    assert!(silent(&desk.look("web", 3000)), "it waits as well if something else has the forward evaluated");
    assert!(silent(&desk.at(30_999)));
    let effects = desk.at(31_000);
    assert_eq!(writes(&effects)[0].status["dataPlane"]["summary"], "1/2");
    assert!(events(&effects).is_empty(), "counts are no news");
    desk.write(&effects, 31_000);
    assert!(silent(&desk.at(61_000)), "they are written once");
}

#[test]
fn a_forward_that_is_evaluated_30_s_after_its_last_write_has_its_counts_written() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.at(1010);
    desk.scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true)));
    // No refresh comes in between: the evaluation alone decides.
    desk.statuses.look_at(keys(&["web"]), ms(31_000));
    let effects = desk.statuses.evaluate(&desk.scene.view(), &unscaled, 1, ms(31_000));
    assert_eq!(writes(&effects).len(), 1);
}

#[test]
fn a_transition_does_not_wait_for_the_counts() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.at(1010);
    desk.scene.report("p1", &["a"]);
    assert_eq!(desk.step("web", 2000), pair("False", "Rejected"));
}

#[test]
fn a_new_term_refreshes_no_counts_in_its_first_30_s() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true)));
    desk.statuses = Statuses::new(ms(100_000));
    assert!(silent(&desk.look("web", 100_000)) && silent(&desk.at(129_999)));
    assert_eq!(writes(&desk.at(130_000)).len(), 1);
}

#[test]
fn the_counts_of_twelve_forwards_are_refreshed_in_one_tick() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    let names: Vec<String> = (0..13).map(|at| format!("f{at:02}")).collect();
    for (port, name) in (80..).zip(&names) {
        scene.see(forward(web(name, port, 1)));
    }
    scene.report("p1", &[]);
    let mut desk = Desk::new(scene);
    desk.statuses.look_at(names.iter().map(|name| key(name)).collect(), ms(1000));
    let effects = desk.at_most(1000, 99);
    assert_eq!(writes(&effects).len(), 13);
    desk.write(&effects, 1000);
    desk.at_most(1010, 99);
    let moved = desk.scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true))).moved;
    desk.statuses.fleets(&moved, &desk.scene.translator, ms(2000));
    assert!(silent(&desk.at_most(30_999, 99)));
    assert_eq!(writes(&desk.at_most(31_000, 99)).len(), 12);
    assert_eq!(writes(&desk.at_most(31_250, 99)).len(), 1);
}

#[test]
fn a_fleet_that_loses_its_last_ready_proxy_is_written_at_once() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.at(1010);
    let moved = desk.scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", false))).moved;
    assert_eq!(moved.values().copied().collect::<Vec<Pods>>(), [Pods::AnyReady]);
    desk.statuses.fleets(&moved, &desk.scene.translator, ms(2000));
    assert_eq!(desk.statuses.due(), Some(ms(2010)));
    assert_eq!(said(&writes(&desk.at(2010))[0], "Programmed"), pair("False", "NoProxies"));
}

#[test]
fn fleets_without_news_have_nothing_evaluated() {
    let mut desk = Desk::new(Scene::with_web());
    desk.statuses.fleets(&Moved::new(), &desk.scene.translator, ms(1000));
    desk.statuses.look_at(BTreeSet::new(), ms(1000));
    assert_eq!(desk.statuses.due(), None);
}

#[test]
fn the_end_of_a_report_has_every_forward_evaluated_that_waits() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    desk.scene.report("p1", &[]);
    desk.statuses.reported(BTreeSet::new(), false, ms(1100));
    assert!(silent(&desk.at(1110)), "a part of a report names what it is about");
    desk.statuses.reported(BTreeSet::new(), true, ms(1200));
    assert_eq!(said(&writes(&desk.at(1210))[0], "Programmed"), pair("True", "Programmed"));
}

#[test]
fn one_write_of_a_forward_is_under_way_at_a_time() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    let first = desk.look("web", 1000);
    assert_eq!(writes(&first).len(), 1);
    desk.scene.report("p1", &["a"]);
    assert!(silent(&desk.look("web", 1100)) && silent(&desk.at(1200)), "the first write has not ended");
    desk.statuses.written(&Subject::Forward(key("web")), Some("2"), false, ms(1300));
    assert_eq!(desk.statuses.due(), Some(ms(1300)), "something changed during the write");
    assert_eq!(said(&writes(&desk.at(1300))[0], "Programmed"), pair("False", "Rejected"));
}

#[test]
fn a_write_during_which_nothing_changed_has_nothing_evaluated() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(writes(&desk.look("web", 1000)).len(), 1);
    desk.statuses.written(&Subject::Forward(key("web")), Some("2"), false, ms(1100));
    assert_eq!(desk.statuses.due(), None);
    desk.statuses.written(&Subject::Forward(key("unknown")), Some("3"), true, ms(1100));
    assert!(silent(&desk.at(9000)));
}

#[test]
fn a_failed_write_is_made_again_after_2_s_without_another_event() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(events(&desk.look("web", 1000)).len(), 1);
    desk.statuses.written(&Subject::Forward(key("web")), None, true, ms(1500));
    assert!(silent(&desk.at(3499)));
    let effects = desk.at(3500);
    assert_eq!((writes(&effects).len(), events(&effects).len()), (1, 0));
}

#[test]
fn a_write_that_cannot_succeed_is_not_made_again_by_itself() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(writes(&desk.look("web", 1000)).len(), 1);
    desk.statuses.written(&Subject::Forward(key("web")), None, false, ms(1500));
    assert!(silent(&desk.at(3500)) && silent(&desk.at(9000)));
    assert_eq!(writes(&desk.look("web", 9000)).len(), 1, "the next evaluation finds that the status was not written");
}

#[test]
fn no_more_statuses_are_written_than_there_is_room_for() {
    let mut scene = Scene::with_web();
    scene.see(forward(web("other", 81, 1)));
    scene.report("p1", &[]);
    let mut desk = Desk::new(scene);
    desk.statuses.look_at(keys(&["web", "other"]), ms(1000));
    assert!(silent(&desk.at_most(1000, 0)));
    let effects = desk.at_most(1250, 1);
    assert_eq!(writes(&effects).len(), 1);
    assert_eq!(writes(&effects)[0].subject, Subject::Forward(key("other")));
    assert_eq!(desk.statuses.due(), None, "the queue of the writer is full");
    desk.statuses.written(&Subject::Gateway(key("edge")), Some("9"), false, ms(1300));
    assert_eq!(desk.statuses.due(), Some(ms(1300)), "any write that ends makes room");
    let effects = desk.at_most(1300, 1);
    assert_eq!(writes(&effects)[0].subject, Subject::Forward(key("web")));
}

#[test]
fn forwards_with_room_are_written_in_one_evaluation() {
    let mut scene = Scene::with_web();
    scene.see(forward(web("other", 81, 1)));
    scene.report("p1", &[]);
    let mut desk = Desk::new(scene);
    desk.statuses.look_at(keys(&["web", "other"]), ms(1000));
    assert_eq!(writes(&desk.at_most(1000, 2)).len(), 2);
}

#[test]
fn an_evaluation_that_visits_very_many_pods_leaves_the_rest_to_the_next_one() {
    let mut scene = Scene::new();
    for at in 0..100_000 {
        let pod = fleet_pod("p", true);
        let proxy_pod = Object::ProxyPod(key(&format!("p{at}")), pod);
        scene.cache.apply(&source(Kind::ProxyPods), Seen::Upsert(Box::new(proxy_pod)));
    }
    scene.see(gateway(&json!({})));
    scene.see(forward(web("one", 80, 1)));
    scene.see(forward(web("two", 81, 1)));
    let mut desk = Desk::new(scene);
    desk.statuses.look_at(keys(&["one", "two"]), ms(1000));
    assert!(silent(&desk.at(1000)), "both wait for their proxies");
    assert_eq!((desk.statuses.due(), desk.statuses.outstanding()), (Some(ms(1010)), 1));
    desk.at(1010);
    assert_eq!((desk.statuses.due(), desk.statuses.outstanding()), (None, 2));
}

#[test]
fn a_written_status_is_remembered_until_the_cache_shows_its_version() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(writes(&desk.look("web", 1000)).len(), 1);
    desk.statuses.written(&Subject::Forward(key("web")), Some("7"), false, ms(1100));
    let mut older = web("web", 80, 1);
    older["metadata"]["resourceVersion"] = json!("6");
    desk.scene.see(forward(older));
    desk.statuses.seen(&key("web"), Some(&desk.scene.forward("web")), ms(1200));
    assert_eq!(desk.statuses.due(), Some(ms(1210)));
    assert!(silent(&desk.at(1210)), "the cache is behind");
    let mut cleared = web("web", 80, 1);
    cleared["metadata"]["resourceVersion"] = json!("7");
    desk.scene.see(forward(cleared));
    desk.statuses.seen(&key("web"), Some(&desk.scene.forward("web")), ms(1300));
    assert_eq!(writes(&desk.at(1310)).len(), 1, "the cache is up to date, and the status is another one");
}

#[test]
fn a_written_status_that_the_cache_does_not_show_is_forgotten_after_10_s() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(writes(&desk.look("web", 1000)).len(), 1);
    desk.statuses.written(&Subject::Forward(key("web")), Some("7"), false, ms(1100));
    assert!(silent(&desk.look("web", 5000)) && silent(&desk.look("web", 11_000)));
    assert_eq!(writes(&desk.look("web", 11_001)).len(), 1);
}

#[test]
fn an_object_that_never_could_be_read_gets_conditions_alone_and_once() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.see(unreadable_forward("newer", 4));
    let effects = desk.look("newer", 1000);
    let written = writes(&effects);
    assert_eq!(said(&written[0], "Accepted"), pair("False", "Unsupported"));
    let fields: BTreeSet<&str> = written[0].status.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = BTreeSet::from(["conditions", "observedGeneration"]);
    assert_eq!(fields, expected, "what else its status holds is left alone");
    assert_eq!(written[0].status["observedGeneration"], 4);
    desk.statuses.written(&written[0].subject, Some("9"), false, ms(1100));
    assert!(silent(&desk.look("newer", 5000)) && silent(&desk.look("newer", 60_000)), "the cache never shows it");
}

#[test]
fn an_object_that_cannot_be_read_any_more_keeps_what_it_holds() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.at(1010);
    desk.scene.see(unreadable_forward("web", 2));
    let effects = desk.look("web", 2000);
    let written = writes(&effects);
    assert_eq!(said(&written[0], "Accepted"), pair("False", "Unsupported"));
    assert_eq!(written[0].status["listeners"][0]["port"], 80);
}

#[test]
fn a_verdict_about_an_older_version_is_not_written() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    let newer = Seen::Upsert(Box::new(forward(web("web", 80, 2))));
    let touched = desk.scene.cache.apply(&source(Kind::Forwards), newer);
    assert!(silent(&desk.look("web", 1000)), "the translation has not looked at it yet");
    desk.scene.translate(touched);
    assert_eq!(desk.step("web", 1020), pair("True", "Programmed"));
}

#[test]
fn a_sidecar_forward_waits_for_the_list_of_the_pods_of_its_namespace() {
    let mut desk = Desk::new(Scene::new());
    desk.scene.see(forward(side("web", 80)));
    desk.scene.cache.apply(&source(Kind::Pods), Seen::Restarted);
    assert!(silent(&desk.look("web", 1000)));
    desk.scene.cache.apply(&source(Kind::Pods), Seen::Synced);
    assert!(silent(&desk.at(1999)));
    assert_eq!(said(&writes(&desk.at(2000))[0], "Programmed"), pair("True", "NoMatchingPods"));
}

#[test]
fn a_forward_in_a_gateway_does_not_wait_for_pods_of_its_namespace() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    desk.scene.cache.apply(&source(Kind::Pods), Seen::Restarted);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
}

#[test]
fn a_forward_that_is_gone_is_forgotten() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    assert_eq!(desk.statuses.outstanding(), 1);
    desk.scene.gone(Kind::Forwards, "web");
    desk.statuses.seen(&key("web"), None, ms(1100));
    assert_eq!((desk.statuses.outstanding(), desk.statuses.due()), (0, None));
    assert!(silent(&desk.at(1400)) && silent(&desk.at(31_000)));
}

#[test]
fn nothing_is_due_while_nothing_may_be_written() {
    let mut desk = Desk::new(Scene::with_web());
    desk.statuses.look_at(keys(&["web"]), ms(1000));
    assert_eq!(desk.statuses.due(), Some(ms(1000)));
    desk.statuses.look_at(keys(&["web"]), ms(900));
    desk.statuses.look_at(keys(&["web"]), ms(1100));
    assert_eq!(desk.statuses.due(), Some(ms(900)), "the earliest counts");
    desk.statuses.pause();
    assert_eq!(desk.statuses.due(), None);
}

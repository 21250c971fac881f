//! When statuses of forwards are written: with a virtual clock, and with silence asserted before each time.

mod waiting;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{
    ObjectKey, Subject,
    schedule::{Effect, statuses::Statuses},
    status::{
        conditions::Finding,
        fleets::{Moved, Pods},
    },
    world::objects::Object,
};
use serde_json::json;

use crate::scene::{
    Scene, app_pod, condition_of, events, fleet_pod, forward, gateway, key, keys, ms, pair, proxy, side, unscaled, web,
    writes,
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

    /// The driver's work at this time: it moves what has come due, and evaluates if that is due.
    fn at(&mut self, millis: u64) -> Vec<Effect> {
        self.at_most(millis, 9)
    }

    fn at_most(&mut self, millis: u64, room: usize) -> Vec<Effect> {
        let now = ms(millis);
        self.statuses.refresh(now);
        if self.statuses.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.statuses.evaluate(&self.scene.view(), &unscaled, room, now)
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

    /// A proxy reported; every listener is as it was.
    fn reported(&mut self, pod: &str, whole: bool, millis: u64) {
        let group = self.scene.fleets.group_of(&key(pod), &self.scene.translator);
        self.statuses.reported((&proxy(pod), group), BTreeSet::new(), whole, ms(millis));
    }

    /// Evaluates and writes; returns what the status says about `Programmed`, empty if nothing is written.
    fn step(&mut self, name: &str, millis: u64) -> (String, String) {
        let effects = self.look(name, millis);
        self.write(&effects, millis);
        writes(&effects).first().map(|write| condition_of(write, "Programmed")).unwrap_or_default()
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
    assert_eq!(condition_of(&written[0], "Ready"), pair("True", "Ready"));
    assert_eq!(written[0].status["observedGeneration"], 1);
    assert_eq!(written[0].status["listeners"][0]["port"], 80);
    let sent = events(&effects);
    assert_eq!((sent[0].reason.as_str(), sent[0].warning), ("Ready", false));
    assert_eq!(sent[0].object.name.as_deref(), Some("web"));
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
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
    assert!(events(&effects).is_empty(), "Unknown is no news");
}

#[test]
fn forwards_that_are_not_ready_are_counted_by_reason() {
    let mut desk = Desk::new(Scene::with_web());
    desk.look("web", 1000);
    assert_eq!(desk.statuses.unready(), &BTreeMap::from([("Pending".to_owned(), 1)]));
    desk.scene.report("p1", &[]);
    desk.look("web", 1100);
    assert_eq!(desk.statuses.unready(), &BTreeMap::from([("Pending".to_owned(), 0)]));
}

#[test]
fn a_forward_that_is_gone_is_no_longer_counted() {
    let mut desk = Desk::new(Scene::with_web());
    desk.look("web", 1000);
    desk.statuses.seen(&key("web"), None, ms(1100));
    assert_eq!(desk.statuses.unready(), &BTreeMap::from([("Pending".to_owned(), 0)]));
}

#[test]
fn a_proxy_that_reports_within_the_grace_saves_the_first_write() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    desk.scene.report("p1", &[]);
    desk.statuses.reported((&proxy("p1"), None), keys(&["web"]), false, ms(1200));
    assert_eq!(desk.statuses.due(), Some(ms(1210)));
    let effects = desk.at(1210);
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("True", "Programmed"));
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
    assert_eq!(condition_of(&writes(&effects)[0], "ScalingActive"), pair("Unknown", "Pending"));
    assert_eq!(condition_of(&writes(&effects)[0], "Ready"), pair("True", "Ready"));
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
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("False", "ReportTimeout"));
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
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
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
    assert_eq!(condition_of(&writes(&effects)[0], "Programmed"), pair("Unknown", "Pending"));
    desk.write(&effects, 20_400);
    assert!(silent(&desk.at(31_000)), "the time of the old generation");
    assert!(silent(&desk.at(49_999)));
    assert_eq!(condition_of(&writes(&desk.at(50_000))[0], "Programmed"), pair("False", "ReportTimeout"));
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
    assert_eq!(condition_of(&writes(&desk.at(50_000))[0], "Programmed"), pair("False", "ReportTimeout"));
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
    assert_eq!(condition_of(&writes(&desk.at(130_000))[0], "Programmed"), pair("False", "ReportTimeout"));
}

#[test]
fn another_verdict_while_the_first_pods_start_delays_what_is_said_of_them_by_30_s_and_not_for_ever() {
    let mut desk = Desk::new(Scene::new());
    desk.scene.see(forward(side("web", 80)));
    assert_eq!(desk.step("web", 1000), pair("True", "NoMatchingPods"));
    desk.scene.see(Object::Pod(key("app"), app_pod("app")));
    assert_eq!(desk.step("web", 100_000), pair("True", "NoMatchingPods"));
    desk.at(100_010);
    desk.statuses.verdicts(keys(&["web"]).iter().map(Into::into).collect(), ms(110_000));
    assert!(silent(&desk.at(110_000)) && silent(&desk.at(130_000)) && silent(&desk.at(139_999)));
    assert_eq!(condition_of(&writes(&desk.at(140_000))[0], "Programmed"), pair("False", "ReportTimeout"));
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
    // No refresh happens in between: only the evaluation decides.
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
    assert_eq!(condition_of(&writes(&desk.at(2010))[0], "Programmed"), pair("False", "NoProxies"));
}

/// T27
#[test]
fn a_fleet_that_starts_for_the_first_time_is_no_warning_until_that_takes_two_minutes() {
    let mut scene = Scene::new();
    scene.see(forward(web("web", 80, 1)));
    let mut desk = Desk::new(scene);
    let effects = desk.look("web", 1000);
    assert!(events(&effects).is_empty(), "its gateway may be applied after it");
    desk.write(&effects, 1000);
    desk.scene.see(gateway(&json!({})));
    let effects = desk.look("web", 2000);
    assert_eq!(condition_of(&writes(&effects)[0], "Ready"), pair("False", "NoProxies"));
    assert!(events(&effects).is_empty(), "the fleet has just been created");
    desk.write(&effects, 2000);
    assert!(events(&desk.at(121_999)).is_empty());
    let warned = events(&desk.at(122_000));
    assert_eq!(warned.iter().map(|it| (it.warning, it.reason.as_str())).collect::<Vec<_>>(), [(true, "NoProxies")]);
    assert!(events(&desk.look("web", 300_000)).is_empty(), "once");
}

#[test]
fn a_fleet_that_was_ready_and_has_no_proxy_any_more_is_a_warning_at_once() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    desk.scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", false)));
    let effects = desk.look("web", 2000);
    let warned = events(&effects);
    assert_eq!(warned.iter().map(|it| (it.warning, it.reason.as_str())).collect::<Vec<_>>(), [(true, "NoProxies")]);
    desk.write(&effects, 2000);
    assert!(events(&desk.at(122_000)).is_empty(), "once");
}

#[test]
fn fleets_without_news_have_nothing_evaluated() {
    let mut desk = Desk::new(Scene::with_web());
    desk.statuses.fleets(&Moved::new(), &desk.scene.translator, ms(1000));
    desk.statuses.look_at(BTreeSet::new(), ms(1000));
    assert_eq!(desk.statuses.due(), None);
}

#[test]
fn the_end_of_a_report_has_the_forwards_evaluated_that_wait_for_the_proxy() {
    let mut desk = Desk::new(Scene::with_web());
    assert!(silent(&desk.look("web", 1000)));
    desk.scene.report("p1", &[]);
    desk.reported("p1", false, 1100);
    assert!(silent(&desk.at(1110)), "a part of a report names what it is about");
    desk.reported("p1", true, 1200);
    assert_eq!(condition_of(&writes(&desk.at(1210))[0], "Programmed"), pair("True", "Programmed"));
}

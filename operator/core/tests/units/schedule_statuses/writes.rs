//! How statuses are written: one at a time, again if that fails, what the cache shows of it, and the Events beside it.

use crate::scene::{
    Scene, condition_of, events, fleet_pod, forward, gateway, key, keys, ms, pair, side, source, unreadable_forward,
    web, writes,
};
use operator_core::{
    Subject,
    schedule::statuses::Statuses,
    world::{
        objects::Object,
        watched::{Kind, Seen},
    },
};
use proxy_api::Delivery;
use serde_json::json;
use std::collections::BTreeSet;

use super::{Desk, silent};

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
    assert_eq!(condition_of(&writes(&desk.at(1300))[0], "Programmed"), pair("False", "Rejected"));
}

#[test]
fn a_status_that_the_cache_shows_before_the_end_of_its_write_is_not_kept() {
    let mut desk = Desk::new(Scene::with_web());
    desk.scene.report("p1", &[]);
    let effects = desk.look("web", 1000);
    assert_eq!((writes(&effects).len(), desk.statuses.unseen()), (1, 1));
    desk.scene.show(&writes(&effects)[0], "2");
    desk.statuses.seen(&key("web"), desk.scene.cache.forward(&key("web")).as_deref(), ms(1100));
    assert!(silent(&desk.at(1200)), "the write has not ended");
    desk.statuses.written(&Subject::Forward(key("web")), Some("2"), false, ms(1300));
    assert!(silent(&desk.at(1300)), "the cache shows what was written");
    assert_eq!(desk.statuses.unseen(), 0);
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
    assert_eq!(condition_of(&written[0], "Accepted"), pair("False", "Unsupported"));
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
    assert_eq!(condition_of(&written[0], "Accepted"), pair("False", "Unsupported"));
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
    assert_eq!(condition_of(&writes(&desk.at(2000))[0], "Programmed"), pair("True", "NoMatchingPods"));
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

#[test]
fn a_forward_whose_state_flips_is_written_at_a_bounded_rate_and_its_last_state_is() {
    let mut desk = Desk::new(Scene::with_web());
    let mut written = 0;
    for flip in 0..99 {
        let failed: &[&str] = if flip % 2 == 0 { &["a"] } else { &[] };
        desk.scene.report("p1", failed);
        let now = 1000 + flip * 100;
        let effects = desk.look("web", now);
        written += writes(&effects).len();
        desk.write(&effects, now);
    }
    assert_eq!(written, 14, "10 at once, then one in two seconds");
    desk.statuses.refresh(ms(10_999));
    assert_eq!(desk.statuses.queued(), 0, "it is not looked at before it may be written");
    assert!(silent(&desk.at(10_999)));
    assert_eq!(condition_of(&writes(&desk.at(11_000))[0], "Programmed"), pair("False", "Rejected"));
}

/// A forward whose gateway has no proxy, since a moment ago according to its status.
fn without_proxies() -> Desk {
    let mut scene = Scene::new();
    scene.see(forward(web("web", 80, 1)));
    let mut desk = Desk::new(scene);
    desk.step("web", 1000);
    desk.scene.see(gateway(&json!({})));
    let effects = desk.look("web", 2000);
    assert_eq!(condition_of(&writes(&effects)[0], "Ready"), pair("False", "NoProxies"));
    desk.write(&effects, 2000);
    desk
}

#[test]
fn a_new_leader_warns_of_a_fleet_whose_two_minutes_to_start_were_not_over() {
    let mut desk = without_proxies();
    desk.statuses = Statuses::new(ms(50_000));
    assert!(events(&desk.look("web", 50_000)).is_empty());
    assert!(events(&desk.at(169_999)).is_empty());
    assert_eq!(events(&desk.at(170_000)).len(), 1);
}

#[test]
fn a_new_leader_says_nothing_of_a_fleet_that_an_earlier_leader_has_warned_of() {
    let mut desk = without_proxies();
    let mut forward = desk.scene.forward("web");
    for condition in &mut forward.status.as_mut().expect("a status").conditions {
        condition.last_transition_time = "2025-12-31T23:57:00Z".to_owned();
    }
    forward.metadata.resource_version = Some("99".to_owned());
    desk.scene.see(Object::Forward(key("web"), Box::new(Ok(forward))));
    desk.statuses = Statuses::new(ms(50_000));
    assert!(events(&desk.look("web", 50_000)).is_empty() && events(&desk.at(170_000)).is_empty());
}

#[test]
fn a_listener_whose_delivery_falls_behind_and_flows_again_is_an_event_each_beside_its_status() {
    let mut desk = Desk::new(Scene::with_web());
    let durable = serde_json::from_value(json!({"send": {"relp": {}}})).expect("a durable part");
    desk.scene.edit("web", |forward| forward.spec.listeners[0].durable = Some(durable));
    desk.scene.deliver("p1", Delivery::Flowing);
    assert_eq!(desk.step("web", 1000), pair("True", "Programmed"));
    for (millis, delivery, warning, reason) in
        [(40_000, Delivery::Behind, true, "DeliveryBehind"), (80_000, Delivery::Flowing, false, "DeliveryFlowing")]
    {
        desk.scene.deliver("p1", delivery);
        let effects = desk.look("web", millis);
        assert_eq!(writes(&effects)[0].status["listeners"][0]["delivery"], format!("{delivery:?}"));
        let sent = events(&effects);
        assert_eq!(sent.iter().map(|it| (it.warning, it.reason.as_str())).collect::<Vec<_>>(), [(warning, reason)]);
        assert_eq!((sent[0].object.name.as_deref(), sent[0].listener()), (Some("web"), Some("a")));
        desk.write(&effects, millis);
    }
}

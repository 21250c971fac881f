//! When the statuses of agents are written: with a virtual clock.

use std::{collections::BTreeSet, time::Duration};

use crds::ForwardAgent;
use operator_core::{
    schedule::{StatusWrite, agents::Agents},
    status::agent::Enrolment,
    world::objects::{Object, Unreadable},
};
use serde_json::json;

use crate::{
    cluster_agents::{agent, open, written},
    scene::{Scene, condition_of, fleet_pod, gateway, key, ms, pair, proxy, writes},
};

/// A cluster with the agent `home` of the gateway `edge`.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.see(open());
    scene.see(agent("home", 1, &json!({})));
    scene
}

/// The agent `home` after a change.
fn home(change: impl FnOnce(&mut ForwardAgent)) -> Object {
    let Object::Agent(key, read) = agent("home", 1, &json!({})) else { panic!("an agent") };
    let mut agent = read.expect("readable");
    change(&mut agent);
    Object::Agent(key, Box::new(Ok(agent)))
}

/// The watch shows the agent `home`.
fn seen(agents: &mut Agents, scene: &Scene) {
    agents.seen(&key("home"), scene.cache.agent(&key("home")).as_deref());
}

/// A write succeeds, and the watch shows it.
fn shown(agents: &mut Agents, scene: &mut Scene, write: &StatusWrite, version: &str, now: Duration) {
    agents.written(&write.subject, Some(version), false, now);
    scene.show(write, version);
    seen(agents, scene);
}

/// The writes that are due, without a look that somebody asked for.
fn due(agents: &mut Agents, scene: &Scene, now: Duration) -> Vec<StatusWrite> {
    writes(&agents.tick(&scene.view(), usize::MAX, now))
}

fn enrolled(count: u32) -> Enrolment {
    Enrolment { enrolled: count, ..Enrolment::default() }
}

#[test]
fn a_new_leader_waits_a_minute_for_reports_before_it_says_that_nobody_is_connected() {
    let mut scene = scene();
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    let mut agents = Agents::new(ms(5000));
    let write = written(&mut agents, &scene, "home", ms(5000)).expect("a write");
    assert_eq!(condition_of(&write, "Connected"), pair("Unknown", "Pending"));
    shown(&mut agents, &mut scene, &write, "2", ms(5001));
    assert!(due(&mut agents, &scene, ms(64_999)).is_empty());
    let late = due(&mut agents, &scene, ms(65_000));
    assert_eq!(
        late.iter().map(|write| condition_of(write, "Connected")).collect::<Vec<_>>(),
        [pair("False", "NotConnected")]
    );
}

#[test]
fn one_write_of_an_agent_is_under_way_at_a_time() {
    let (scene, mut agents) = (scene(), Agents::new(ms(0)));
    let write = written(&mut agents, &scene, "home", ms(0)).expect("a write");
    agents.enrolled(&key("home"), enrolled(1));
    assert!(due(&mut agents, &scene, ms(1)).is_empty(), "the first write has not ended");
    agents.written(&write.subject, Some("2"), false, ms(2));
    let next = due(&mut agents, &scene, ms(2));
    assert_eq!(next.iter().map(|write| condition_of(write, "Enrolled").0).collect::<Vec<_>>(), ["True"]);
}

#[test]
fn a_failed_write_of_an_agent_is_made_again_after_2_s() {
    let (scene, mut agents) = (scene(), Agents::new(ms(0)));
    let write = written(&mut agents, &scene, "home", ms(1000)).expect("a write");
    agents.written(&write.subject, None, true, ms(1500));
    assert!(due(&mut agents, &scene, ms(3499)).is_empty());
    assert_eq!(due(&mut agents, &scene, ms(3500)), [write]);
}

#[test]
fn a_write_of_an_agent_that_cannot_succeed_is_not_made_again_by_itself() {
    let (scene, mut agents) = (scene(), Agents::new(ms(0)));
    let write = written(&mut agents, &scene, "home", ms(1000)).expect("a write");
    agents.written(&write.subject, None, false, ms(1500));
    assert!(due(&mut agents, &scene, ms(9000)).is_empty());
    assert_eq!(written(&mut agents, &scene, "home", ms(9000)), Some(write));
}

#[test]
fn a_written_status_of_an_agent_is_remembered_until_the_cache_shows_its_version() {
    let (mut scene, mut agents) = (scene(), Agents::new(ms(0)));
    let write = written(&mut agents, &scene, "home", ms(1000)).expect("a write");
    agents.written(&write.subject, Some("7"), false, ms(1100));
    for (version, writes) in [("6", 0), ("7", 1)] {
        scene.see(home(|agent| agent.metadata.resource_version = Some(version.to_owned())));
        seen(&mut agents, &scene);
        assert_eq!(due(&mut agents, &scene, ms(1200)).len(), writes, "the cache shows version {version}");
    }
}

#[test]
fn a_written_status_of_an_agent_that_the_cache_does_not_show_is_forgotten_after_10_s() {
    let (scene, mut agents) = (scene(), Agents::new(ms(0)));
    let write = written(&mut agents, &scene, "home", ms(1000)).expect("a write");
    agents.written(&write.subject, Some("7"), false, ms(1100));
    assert_eq!(written(&mut agents, &scene, "home", ms(11_000)), None);
    assert_eq!(written(&mut agents, &scene, "home", ms(11_001)), Some(write));
}

#[test]
fn an_agent_that_cannot_be_read_says_so_once() {
    let mut scene = scene();
    let metadata = json!({"name": "home", "namespace": "ns", "uid": "uid-home", "generation": 2});
    let metadata = serde_json::from_value(metadata).expect("metadata");
    let unreadable = Unreadable { why: "unknown variant".to_owned(), metadata, class: String::new() };
    scene.see(Object::Agent(key("home"), Box::new(Err(unreadable))));
    let mut agents = Agents::new(ms(0));
    let write = written(&mut agents, &scene, "home", ms(1000)).expect("a write");
    assert_eq!(condition_of(&write, "Accepted"), pair("False", "Unsupported"));
    agents.written(&write.subject, Some("7"), false, ms(1100));
    assert_eq!(written(&mut agents, &scene, "home", ms(50_000)), None, "the cache never shows it");
}

#[test]
fn an_agent_whose_state_flips_is_written_at_a_bounded_rate_and_its_last_state_is() {
    let (mut scene, mut agents, mut count) = (scene(), Agents::new(ms(0)), 0);
    for flip in 0..99_u64 {
        let now = ms(1000 + flip * 100);
        agents.enrolled(&key("home"), enrolled(u32::from(flip % 2 == 0)));
        for write in due(&mut agents, &scene, now) {
            count += 1;
            shown(&mut agents, &mut scene, &write, &(10 + flip).to_string(), now);
        }
    }
    assert_eq!(count, 14, "10 at once, then one in two seconds");
    assert!(due(&mut agents, &scene, ms(10_999)).is_empty());
    let last = due(&mut agents, &scene, ms(11_000));
    assert_eq!(last.iter().map(|write| condition_of(write, "Enrolled").0).collect::<Vec<_>>(), ["True"]);
}

#[test]
fn no_more_statuses_of_agents_are_written_than_there_is_room_for() {
    let mut scene = scene();
    scene.see(agent("away", 2, &json!({})));
    let mut agents = Agents::new(ms(0));
    for name in ["away", "home"] {
        agents.look_at(&key(name));
    }
    let count = |room: usize| writes(&agents.tick(&scene.view(), room, ms(0))).len();
    assert_eq!([0, 1, 9].map(count), [0, 1, 1]);
}

#[test]
fn a_new_agent_of_the_same_name_inherits_nothing() {
    let (mut scene, mut agents) = (scene(), Agents::new(ms(0)));
    seen(&mut agents, &scene);
    agents.enrolled(&key("home"), enrolled(1));
    seen(&mut agents, &scene);
    let write = written(&mut agents, &scene, "home", ms(0)).expect("a write");
    assert_eq!(condition_of(&write, "Enrolled"), pair("True", "Enrolled"));
    scene.see(home(|agent| agent.metadata.uid = Some("uid-later".to_owned())));
    seen(&mut agents, &scene);
    let write =
        written(&mut agents, &scene, "home", ms(1)).expect("the write of the earlier agent does not hold it up");
    assert_eq!((condition_of(&write, "Enrolled"), write.uid.as_str()), (pair("Unknown", "Pending"), "uid-later"));
}

#[test]
fn agents_are_evaluated_when_the_pods_of_their_gateway_or_the_pods_that_they_reach_change() {
    let uids = BTreeSet::from(["uid-home".to_owned()]);
    let changes: [fn(&mut Agents, &Scene, &BTreeSet<String>); 2] =
        [|agents, scene, _| agents.fleet(&key("edge"), &scene.cache.world), |agents, _, uids| agents.reaching(uids)];
    for change in changes {
        let (mut scene, mut agents) = (scene(), Agents::new(ms(0)));
        let write = written(&mut agents, &scene, "home", ms(0)).expect("a write");
        shown(&mut agents, &mut scene, &write, "2", ms(1));
        assert!(due(&mut agents, &scene, ms(2)).is_empty());
        scene.see(gateway(&json!({})));
        assert!(due(&mut agents, &scene, ms(3)).is_empty(), "nobody has said that anything changed");
        change(&mut agents, &scene, &uids);
        assert_eq!(due(&mut agents, &scene, ms(4)).len(), 1);
    }
}

#[test]
fn a_report_of_other_instances_has_their_agent_evaluated() {
    let mut scene = scene();
    scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    let mut agents = Agents::new(ms(0));
    let write = written(&mut agents, &scene, "home", ms(0)).expect("a write");
    shown(&mut agents, &mut scene, &write, "2", ms(1));
    assert!(due(&mut agents, &scene, ms(2)).is_empty());
    let report = [("uid-home".to_owned(), [("pi4".to_owned(), "0.9.0".to_owned())].into())].into();
    agents.reported(&proxy("p1"), report);
    let told = due(&mut agents, &scene, ms(3));
    assert_eq!(told.iter().map(|write| condition_of(write, "Connected").0).collect::<Vec<_>>(), ["True"]);
}

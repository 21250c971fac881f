//! When the Secrets of agents are checked: how many at once, and what happens meanwhile.

use operator_core::{
    enrolment::{Offered, Wanted},
    schedule::{Effect, enrolments::Enrolments},
    status::agent::Enrolment,
};
use serde_json::json;

use crate::{
    cluster_agents::{agent, open},
    scene::{Scene, key, ms},
};

/// The Secrets that are checked now.
fn checked(enrolments: &mut Enrolments, scene: &Scene, millis: u64) -> Vec<Wanted> {
    let wanted = |effect| match effect {
        Effect::OfferEnrolment(wanted) => *wanted,
        other => panic!("a check of a Secret: {other:?}"),
    };
    enrolments.tick(&scene.cache, ms(millis)).into_iter().map(wanted).collect()
}

/// The check for an agent ended well.
fn ended(name: &str, uid: &str) -> Offered {
    Offered { key: key(name), uid: uid.to_owned(), result: Ok((Enrolment::default(), None)) }
}

/// A gateway with these agents, whose Secrets are all to be checked.
fn waiting(names: &[String]) -> (Scene, Enrolments) {
    let (mut scene, mut enrolments) = (Scene::new(), Enrolments::default());
    scene.see(open());
    for name in names {
        scene.see(agent(name, 1, &json!({})));
    }
    enrolments.gateway(&key("edge"), &scene.cache.world);
    (scene, enrolments)
}

#[test]
fn thirty_two_secrets_are_checked_at_a_time() {
    let names: Vec<String> = (0..34).map(|number| format!("a{number:02}")).collect();
    let (scene, mut enrolments) = waiting(&names);
    assert_eq!(checked(&mut enrolments, &scene, 0).len(), 32);
    assert!(checked(&mut enrolments, &scene, 1).is_empty());
    assert!(enrolments.offered(ended("a00", "uid-a00"), ms(2)).is_some());
    assert_eq!(checked(&mut enrolments, &scene, 3).len(), 1, "one of the others has its turn");
    assert!(checked(&mut enrolments, &scene, 4).is_empty());
}

#[test]
fn what_changes_during_a_check_has_the_secret_checked_again() {
    let (mut scene, mut enrolments) = waiting(&["home".to_owned()]);
    assert_eq!(checked(&mut enrolments, &scene, 0).len(), 1);
    let news = scene.see(agent("home", 1, &json!({"enrolment": {"rotation": 1}})));
    enrolments.translated(&news.touched.changes, &scene.cache.world);
    assert!(checked(&mut enrolments, &scene, 1).is_empty(), "one check at a time");
    assert!(enrolments.offered(ended("home", "uid-home"), ms(2)).is_some());
    let again = checked(&mut enrolments, &scene, 3);
    assert_eq!(again.iter().map(|wanted| wanted.identity.rotation()).collect::<Vec<_>>(), [1]);
}

#[test]
fn the_result_for_an_earlier_agent_of_the_name_is_not_told() {
    let (scene, mut enrolments) = waiting(&["home".to_owned()]);
    assert_eq!(checked(&mut enrolments, &scene, 0).len(), 1);
    assert_eq!(enrolments.offered(ended("home", "uid-earlier"), ms(1)), None);
}

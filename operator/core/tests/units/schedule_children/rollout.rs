//! Rollouts of fleets in a virtual cluster: the tests play the controller of Deployments.

use crds::ForwardGateway;
use operator_core::{
    desired::{
        ca::Trusted,
        fleets::Rollout,
        gateway::{Desired, Fleets},
        revision::revision,
    },
    schedule::{
        Effect,
        children::{Applied, Gateways, Marks},
    },
    world::objects::{FleetState, Object, Progress, Revision},
};
use serde_json::{Value, json};

use crate::scene::{Scene, condition_of, events, key, ms, pair, unscaled, writes};

/// A cluster whose operator may be replaced by another release.
struct Yard {
    scene: Scene,
    gateways: Gateways,
    now: u64,
    /// The fleets whose pods were replaced, in order.
    rolled: Vec<String>,
    /// The fleet whose Deployment the API server refuses.
    refused: Option<&'static str>,
    effects: Vec<Effect>,
}

fn named(name: &str, spec: &Value) -> Object {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1});
    let gateway: ForwardGateway =
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a gateway");
    Object::Gateway(key(name), Box::new(Ok(gateway)))
}

fn fleets(image: &str, rollout: Rollout) -> Fleets {
    Fleets { image: image.to_owned(), rollout, ..Fleets::default() }
}

impl Yard {
    /// Gateways whose fleets run `proxy:1`.
    fn of(names: &[&str]) -> Self {
        let gateways = Gateways::new(fleets("proxy:1", Rollout::OneByOne));
        let (rolled, effects) = (Vec::new(), Vec::new());
        let mut yard = Self { scene: Scene::new(), gateways, now: 0, rolled, refused: None, effects };
        for name in names {
            yard.see(named(name, &json!({})));
        }
        yard.tick();
        assert_eq!(yard.rolled, names, "new fleets wait for none");
        for name in names {
            yard.becomes(name, Progress::Complete);
        }
        yard.tick();
        yard.rolled.clear();
        yard
    }

    /// Another leader, of a release with this image.
    fn upgrade(&mut self, image: &str, rollout: Rollout) {
        self.gateways = Gateways::new(fleets(image, rollout));
        self.tick();
    }

    fn see(&mut self, object: Object) {
        let touched = self.scene.see(object).touched;
        touched.gateways.iter().for_each(|key| self.gateways.touch(key));
    }

    /// Two rounds of the operator, so that statuses follow what was applied.
    fn tick(&mut self) {
        self.effects.clear();
        for _ in 0..2 {
            self.now += 2000;
            let trusted = Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 1 };
            let effects = self.gateways.tick(&self.scene.view(), &trusted, false, &unscaled, ms(self.now));
            for effect in &effects {
                if let Effect::ApplyChildren(desired) = effect {
                    self.apply(desired);
                }
            }
            for write in writes(&effects) {
                self.scene.show(&write, &self.now.to_string());
            }
            self.effects.extend(effects);
        }
    }

    fn apply(&mut self, desired: &Desired) {
        if self.refused == Some(desired.key.name.as_str()) {
            let result = Err("denied by a policy".to_owned());
            let applied = Applied { key: desired.key.clone(), attempt: desired.attempt, result };
            self.gateways.applied(applied, ms(self.now));
            return;
        }
        let old = self.scene.cache.deployments.get(&desired.key).cloned();
        let made = revision(&desired.gateway, &desired.fleets);
        let state = match old {
            Some(old) if desired.keeps_pods => old,
            Some(old) if old.revision == made => old,
            _ => {
                self.rolled.push(desired.key.name.clone());
                let image = desired.fleets.image.clone();
                let rollout = Progress::Running;
                FleetState { replicas: 2, ready: 2, image, revision: made, rollout, ..FleetState::default() }
            }
        };
        let applied = Applied { key: desired.key.clone(), attempt: desired.attempt, result: Ok(Marks::new()) };
        self.gateways.applied(applied, ms(self.now));
        self.see(Object::Deployment(desired.key.clone(), state));
    }

    /// The rollout of a fleet makes progress.
    fn becomes(&mut self, name: &str, rollout: Progress) {
        let state = self.scene.cache.deployments[&key(name)].clone();
        self.see(Object::Deployment(key(name), FleetState { rollout, ..state }));
    }

    /// The new pods of a fleet are ready.
    fn ready(&mut self, name: &str) {
        self.becomes(name, Progress::Complete);
        self.tick();
    }

    fn image(&self, name: &str) -> &str {
        &self.scene.cache.deployments[&key(name)].image
    }

    /// Status and reason of the condition `Outdated`, and its message.
    fn outdated(&self, name: &str) -> ((String, String), String) {
        let gateway = self.scene.cache.gateway(&key(name)).expect("the gateway is there");
        let conditions = gateway.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == "Outdated");
        found.map(|found| ((found.status, found.reason), found.message)).unwrap_or_default()
    }

    fn counts(&self) -> Vec<(&'static str, usize)> {
        self.gateways.counts().by_state().filter(|(_, count)| *count > 0).collect()
    }
}

#[test]
fn fleets_take_on_another_image_one_after_the_other_in_the_order_of_their_names() {
    let mut yard = Yard::of(&["a", "b", "c"]);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    yard.tick();
    assert_eq!(yard.rolled, ["a"]);
    assert_eq!(yard.counts(), [("queued", 2), ("rolling", 1)]);
    let (outdated, message) = yard.outdated("c");
    assert_eq!(outdated, pair("True", "Queued"));
    assert!(message.contains("keeps proxy:1, and gets proxy:2 after the fleet of ns/a"), "{message}");
    assert_eq!(yard.outdated("a").0, pair("", ""));
    yard.becomes("a", Progress::Unready);
    yard.tick();
    assert_eq!(yard.rolled, ["a"], "every pod is new, but some are not ready");
    yard.ready("a");
    assert_eq!(yard.rolled, ["a", "b"]);
    yard.ready("b");
    yard.ready("c");
    assert_eq!(
        (yard.rolled.as_slice(), yard.counts()),
        (["a", "b", "c"].map(str::to_owned).as_slice(), vec![("current", 3)])
    );
    assert!(["a", "b", "c"].iter().all(|name| yard.image(name) == "proxy:2" && yard.outdated(name).0 == pair("", "")));
}

#[test]
fn an_operator_that_starts_in_the_middle_goes_on_where_the_other_one_was() {
    let mut yard = Yard::of(&["a", "b", "c"]);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    yard.ready("a");
    assert_eq!(yard.rolled, ["a", "b"]);
    for _ in 0..3 {
        yard.upgrade("proxy:2", Rollout::OneByOne);
        assert_eq!(yard.rolled, ["a", "b"], "b is not ready");
    }
    yard.becomes("b", Progress::Complete);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    assert_eq!(yard.rolled, ["a", "b", "c"]);
}

#[test]
fn a_gateway_that_is_made_meanwhile_gets_the_new_image_at_once() {
    let mut yard = Yard::of(&["b", "c"]);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    yard.see(named("a", &json!({})));
    yard.tick();
    assert_eq!((yard.rolled.as_slice(), yard.image("a")), (["b", "a"].map(str::to_owned).as_slice(), "proxy:2"));
}

#[test]
fn a_rollout_stops_at_a_fleet_that_does_not_become_ready_and_says_so_once() {
    let mut yard = Yard::of(&["a", "b", "c"]);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    yard.ready("a");
    yard.becomes("b", Progress::Stopped);
    yard.tick();
    let told = events(&yard.effects);
    assert_eq!((told.len(), told[0].reason.as_str(), told[0].warning), (1, "ProgressDeadlineExceeded", true));
    assert_eq!(told[0].object.name.as_deref(), Some("b"));
    assert_eq!(yard.outdated("b").0, pair("True", "ProgressDeadlineExceeded"));
    assert!(yard.outdated("c").1.contains("after the fleet of ns/b, whose rollout has stopped"));
    assert_eq!(yard.counts(), [("current", 1), ("queued", 1), ("stopped", 1)]);
    yard.tick();
    assert!(events(&yard.effects).is_empty() && yard.rolled == ["a", "b"]);

    // Its owner pins it to the previous image, and the others continue.
    yard.see(named("b", &json!({"proxyImage": {"tag": "1"}})));
    yard.tick();
    assert_eq!((yard.rolled.len(), yard.image("b")), (3, "proxy:1"));
    yard.ready("b");
    assert_eq!(yard.image("c"), "proxy:2");
    assert_eq!(yard.outdated("b").0, pair("True", "Pinned"));
}

#[test]
fn a_fleet_whose_deployment_is_refused_is_a_rollout_that_has_stopped() {
    let mut yard = Yard::of(&["a", "b"]);
    yard.refused = Some("a");
    yard.upgrade("proxy:2", Rollout::OneByOne);
    for _ in 0..10 {
        yard.tick();
    }
    let message = yard.outdated("b").1;
    assert!(message.contains("after the fleet of ns/a, whose rollout has stopped"), "{message}");
    assert_eq!(yard.counts(), [("queued", 1), ("stopped", 1)]);
}

#[test]
fn an_image_that_is_taken_back_heals_the_fleet_that_it_hit_first() {
    let mut yard = Yard::of(&["a", "b", "c"]);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    yard.ready("a");
    yard.becomes("b", Progress::Stopped);
    yard.rolled.clear();
    yard.upgrade("proxy:1", Rollout::OneByOne);
    assert_eq!(yard.rolled, ["b"]);
    yard.ready("b");
    yard.ready("a");
    assert_eq!(yard.rolled, ["b", "a"], "c never had another image");
    assert_eq!(yard.counts(), [("current", 3)]);
}

#[test]
fn a_waiting_fleet_takes_on_an_edit_of_its_gateway_with_the_image_that_it_has() {
    let mut yard = Yard::of(&["a", "b"]);
    yard.upgrade("proxy:2", Rollout::OneByOne);
    yard.see(named("b", &json!({"replicas": 5})));
    yard.tick();
    assert_eq!(yard.rolled, ["a"], "replicas change no pod");
    yard.see(named("b", &json!({"replicas": 5, "drainSeconds": 9})));
    yard.tick();
    assert_eq!((yard.rolled.as_slice(), yard.image("b")), (["a", "b"].map(str::to_owned).as_slice(), "proxy:1"));
    yard.becomes("b", Progress::Complete);
    yard.ready("a");
    assert_eq!(yard.image("b"), "proxy:2");
}

#[test]
fn all_fleets_take_on_another_image_at_once_if_the_installation_says_so() {
    let mut yard = Yard::of(&["a", "b", "c"]);
    yard.upgrade("proxy:2", Rollout::AllAtOnce);
    assert_eq!(
        (yard.rolled.as_slice(), yard.counts()),
        (["a", "b", "c"].map(str::to_owned).as_slice(), vec![("rolling", 3)])
    );
}

#[test]
fn pinned_fleets_keep_their_image_until_their_gateway_asks_for_another() {
    let mut yard = Yard::of(&["a", "b"]);
    yard.upgrade("proxy:2", Rollout::Pinned);
    yard.tick();
    assert!(yard.rolled.is_empty());
    assert_eq!((yard.outdated("a").0, yard.counts()), (pair("True", "Pinned"), vec![("pinned", 2)]));
    yard.see(named("b", &json!({"proxyImage": {"tag": "2"}})));
    yard.tick();
    yard.ready("b");
    assert_eq!((yard.rolled.as_slice(), yard.image("b")), (["b".to_owned()].as_slice(), "proxy:2"));
    assert_eq!((yard.outdated("b").0, yard.counts()), (pair("", ""), vec![("current", 1), ("pinned", 1)]));
}

#[test]
fn a_fleet_that_is_older_than_the_marks_gets_the_image_that_its_gateway_pins() {
    let mut yard = Yard::of(&["a", "b"]);
    for name in ["a", "b"] {
        let state = yard.scene.cache.deployments[&key(name)].clone();
        yard.see(Object::Deployment(key(name), FleetState { revision: Revision::default(), ..state }));
    }
    yard.see(named("a", &json!({"proxyImage": {"tag": "2"}})));
    yard.see(named("b", &json!({"proxyImage": {"tag": "1"}})));
    yard.upgrade("proxy:3", Rollout::Pinned);
    assert_eq!((yard.rolled.as_slice(), yard.image("a")), (["a".to_owned()].as_slice(), "proxy:2"));
    assert_eq!(yard.image("b"), "proxy:1", "b has the image of its pin");
}

#[test]
fn a_pinned_fleet_whose_deployment_is_deleted_while_it_waits_is_made_with_the_image_of_its_pin() {
    let mut yard = Yard::of(&["a"]);
    yard.see(named("a", &json!({"proxyImage": {"tag": "0"}})));
    yard.tick();
    yard.ready("a");
    let other = Fleets { pull_policy: "Always".to_owned(), ..fleets("proxy:2", Rollout::Pinned) };
    yard.gateways = Gateways::new(other);
    yard.tick();
    let kept = yard.effects.iter().filter_map(|effect| {
        let Effect::ApplyChildren(desired) = effect else { return None };
        desired.keeps_pods.then_some(desired.fleets.image.as_str())
    });
    assert_eq!(kept.collect::<Vec<_>>(), ["proxy:0"]);
}

#[test]
fn a_gateway_that_pins_its_image_rolls_at_once_and_is_left_alone_by_upgrades() {
    let mut yard = Yard::of(&["a", "b"]);
    yard.see(named("a", &json!({"proxyImage": {"tag": "1"}})));
    yard.tick();
    yard.ready("a");
    yard.rolled.clear();
    yard.upgrade("proxy:2", Rollout::OneByOne);
    assert_eq!((yard.rolled.as_slice(), yard.image("a")), (["b".to_owned()].as_slice(), "proxy:1"));
    yard.ready("b");
    yard.see(named("a", &json!({})));
    yard.tick();
    assert_eq!(yard.image("a"), "proxy:2", "nothing else is outdated");
}

#[test]
fn a_fleet_that_may_not_run_here_holds_up_no_other() {
    let mut yard = Yard::of(&["a", "b"]);
    let Object::Gateway(name, read) = named("a", &json!({})) else { panic!("a gateway") };
    let mut deleted = read.expect("readable");
    deleted.metadata.deletion_timestamp = Some(serde_json::from_value(json!(crate::scene::NOW)).expect("a time"));
    yard.see(Object::Gateway(name, Box::new(Ok(deleted))));
    yard.upgrade("proxy:2", Rollout::OneByOne);
    assert_eq!(yard.rolled, ["b"]);
}

#[test]
fn a_status_names_the_image_and_is_written_ever_less_often_if_it_never_shows() {
    let mut yard = Yard::of(&["a"]);
    let gateway = yard.scene.cache.gateway(&key("a")).expect("the gateway is there").into_owned();
    assert_eq!(gateway.status.as_ref().and_then(|status| status.proxy_image.as_deref()), Some("proxy:1"));
    // A CRD that is older than the operator drops the field.
    let mut dropped = gateway;
    if let Some(status) = &mut dropped.status {
        status.proxy_image = None;
    }
    yard.see(Object::Gateway(key("a"), Box::new(Ok(dropped))));
    let trusted = Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 1 };
    let mut count = 0;
    for second in 0..600 {
        let now = ms(yard.now + 2000 + second * 1000);
        let effects = yard.gateways.tick(&yard.scene.view(), &trusted, false, &unscaled, now);
        assert!(writes(&effects).iter().all(|write| condition_of(write, "Ready") == pair("True", "Ready")));
        count += writes(&effects).len();
    }
    assert!((5..15).contains(&count), "{count} writes in ten minutes");
}

#[test]
fn a_fleet_whose_turn_it_is_is_rolling_before_its_deployment_has_the_changes() {
    let mut yard = Yard::of(&["a", "b"]);
    yard.gateways = Gateways::new(fleets("proxy:2", Rollout::OneByOne));
    let trusted = Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 1 };
    yard.gateways.tick(&yard.scene.view(), &trusted, false, &unscaled, ms(yard.now + 1));
    assert_eq!(yard.counts(), [("queued", 1), ("rolling", 1)]);
}

#[test]
fn a_fleet_that_has_adopted_all_changes_is_applied_with_its_pods() {
    let mut yard = Yard::of(&["a"]);
    yard.see(named("a", &json!({"replicas": 5})));
    yard.tick();
    let kept = yard.effects.iter().filter_map(|effect| {
        let Effect::ApplyChildren(desired) = effect else { return None };
        Some(desired.keeps_pods)
    });
    assert_eq!(kept.collect::<Vec<_>>(), [false]);
}

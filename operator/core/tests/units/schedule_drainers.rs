//! Claims of pods that a smaller fleet no longer has, in a virtual cluster: the tests play the controllers of
//! `StatefulSet`s and Jobs.

use std::time::Duration;

use operator_core::{
    ObjectKey,
    desired::{ca::Trusted, gateway::Fleets},
    schedule::drainers::{Drainers, Step},
    world::{
        objects::{ClaimState, DrainerState, FleetState, Object, PodInfo},
        rights::FleetNamespaces,
        watched::{Kind, Seen},
    },
};
use serde_json::json;

use crate::scene::{Scene, deployment, fleet_pod, gateway, key, ms, source, unreadable_gateway};

/// The fleet `edge` on claims.
struct Yard {
    scene: Scene,
    drainers: Drainers,
    now: Duration,
}

impl Yard {
    /// A fleet that shall have so many pods, and claims of these ordinals, without pods.
    fn new(wanted: i32, claims: &[i32]) -> Self {
        let mut scene = Scene::new();
        scene.see(gateway(&json!({"durability": {"volumeClaim": {"size": "1Gi"}}})));
        let mut yard = Self { scene, drainers: Drainers::new(Fleets::default()), now: ms(0) };
        yard.scale(wanted, 1);
        for ordinal in claims {
            yard.claim(*ordinal, false);
        }
        yard
    }

    fn scale(&mut self, wanted: i32, generation: i64) {
        let state = FleetState { wanted, generation: Some(generation), is_observed: true, ..FleetState::default() };
        self.scene.see(Object::StatefulSet(key("edge"), state));
    }

    fn claim(&mut self, ordinal: i32, leaving: bool) {
        let (uid, version) = (format!("uid-{ordinal}"), "7".to_owned());
        let state = ClaimState { gateway: "edge".to_owned(), ordinal, uid, version, leaving };
        self.scene.see(Object::Claim(claim(ordinal), state));
    }

    fn job(&mut self, ordinal: i32, generation: i64, succeeded: bool) {
        let (gateway, uid) = ("edge".to_owned(), format!("job-{ordinal}"));
        let generation = Some(generation);
        let state = DrainerState { gateway, ordinal, uid, generation, succeeded, leaving: false };
        self.scene.see(Object::Drainer(job(ordinal), state));
    }

    fn pod(&mut self, ordinal: i32) {
        let name = format!("edge-{ordinal}");
        self.scene.see(Object::ProxyPod(key(&name), PodInfo { leaving: true, ..fleet_pod(&name, false) }));
    }

    fn trusted() -> Trusted {
        Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 0 }
    }

    /// The writes that are due, after the time in which an earlier write would have shown.
    fn steps(&mut self) -> Vec<String> {
        self.now += ms(10_000);
        self.at_once()
    }

    fn at_once(&mut self) -> Vec<String> {
        let steps = self.drainers.tick(&self.scene.view(), &Self::trusted(), self.now);
        steps.iter().map(word).collect()
    }
}

fn claim(ordinal: i32) -> ObjectKey {
    key(&format!("messages-edge-{ordinal}"))
}

fn job(ordinal: i32) -> ObjectKey {
    key(&format!("edge-drain-{ordinal}"))
}

fn word(step: &Step) -> String {
    let verb = match step {
        Step::Create(_) => "create",
        Step::RemoveDrainer { .. } => "stop",
        Step::RemoveClaim(_) => "remove",
    };
    format!("{verb} {}", step.key().name)
}

#[test]
fn a_claim_that_the_fleet_no_longer_has_is_drained_and_then_removed() {
    let mut yard = Yard::new(1, &[0, 1]);
    yard.pod(1);
    assert!(yard.steps().is_empty(), "its pod still sends");
    yard.scene.gone(Kind::ProxyPods, "edge-1");
    assert_eq!(yard.steps(), ["create edge-drain-1"]);
    assert!(yard.at_once().is_empty(), "the watch does not show it yet");
    assert_eq!(yard.steps(), ["create edge-drain-1"], "the write has failed");
    yard.job(1, 1, false);
    assert!(yard.steps().is_empty(), "messages are left");
    yard.job(1, 1, true);
    assert_eq!(yard.steps(), ["remove messages-edge-1"]);
    yard.claim(1, true);
    assert_eq!(yard.steps(), ["stop edge-drain-1"], "a pod that has ended still holds the claim");
    yard.scene.gone(Kind::Drainers, "edge-drain-1");
    assert!(yard.steps().is_empty());
    yard.scene.gone(Kind::Claims, "messages-edge-1");
    assert!(yard.steps().is_empty());
}

#[test]
fn a_claim_is_removed_only_as_it_was_when_it_was_empty() {
    let mut yard = Yard::new(1, &[1]);
    yard.job(1, 1, true);
    let steps = yard.drainers.tick(&yard.scene.view(), &Yard::trusted(), ms(0));
    let [Step::RemoveClaim(emptied)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((emptied.uid.as_str(), emptied.version.as_str(), &emptied.fleet), ("uid-1", "7", &key("edge")));
    assert!(emptied.holds(Some(1)));
    assert!(!emptied.holds(Some(2)), "the fleet may have the claim again");
    assert!(!emptied.holds(None));
}

#[test]
fn a_fleet_that_grows_again_keeps_its_claims_and_what_they_got_meanwhile() {
    for succeeded in [false, true] {
        let mut yard = Yard::new(1, &[0, 1]);
        yard.job(1, 1, succeeded);
        yard.scale(3, 2);
        assert_eq!(yard.steps(), ["stop edge-drain-1"]);
    }
    // Nobody has seen the fleet grow and shrink again.
    let mut yard = Yard::new(1, &[0, 1]);
    yard.job(1, 1, true);
    yard.scale(1, 3);
    assert_eq!(yard.steps(), ["stop edge-drain-1"], "the pod of between may have left messages");
    yard.scene.gone(Kind::Drainers, "edge-drain-1");
    assert_eq!(yard.steps(), ["create edge-drain-1"]);
}

#[test]
fn four_drainers_of_a_gateway_run_at_a_time_and_one_that_does_not_succeed_stays() {
    let mut yard = Yard::new(0, &[0, 1, 2, 3, 4, 5]);
    let first = ["create edge-drain-0", "create edge-drain-1", "create edge-drain-2", "create edge-drain-3"];
    assert_eq!(yard.steps(), first);
    for ordinal in 0..4 {
        yard.job(ordinal, 1, false);
    }
    assert!(yard.steps().is_empty());
    yard.job(2, 1, true);
    assert_eq!(yard.steps(), ["remove messages-edge-2", "create edge-drain-4"]);
    assert_eq!(yard.scene.cache.spare_claims(&key("edge")).count(), 6, "for the status");
}

#[test]
fn the_fleet_of_a_gateway_on_claims_is_its_stateful_set() {
    let mut yard = Yard::new(3, &[]);
    yard.scene.see(deployment(5, 5));
    let wanted = |yard: &Yard| yard.scene.cache.fleet(&key("edge")).map(|fleet| fleet.wanted);
    assert_eq!(wanted(&yard), Some(3), "a Deployment of a gateway of that name is about to go");
    yard.scene.see(gateway(&json!({})));
    assert_eq!(wanted(&yard), Some(0));
}

#[test]
fn a_drainer_without_a_claim_goes() {
    let mut yard = Yard::new(1, &[0]);
    yard.job(1, 1, false);
    assert_eq!(yard.steps(), ["stop edge-drain-1"]);
}

#[test]
fn what_is_not_known_for_sure_changes_nothing() {
    let is_idle = |change: &dyn Fn(&mut Yard)| {
        let mut yard = Yard::new(1, &[1, 2]);
        yard.job(2, 1, true);
        assert_eq!(yard.steps().len(), 2, "a claim to drain, and one to remove");
        change(&mut yard);
        yard.steps().is_empty()
    };
    assert!(is_idle(&|yard| drop(yard.scene.gone(Kind::StatefulSets, "edge"))), "the claims outlive their fleet");
    assert!(is_idle(&|yard| drop(yard.scene.gone(Kind::Gateways, "edge"))));
    assert!(is_idle(&|yard| drop(yard.scene.see(unreadable_gateway()))));
    for kind in [Kind::StatefulSets, Kind::Claims, Kind::Drainers] {
        assert!(is_idle(&|yard| drop(yard.scene.cache.apply(&source(kind), Seen::Restarted))), "{kind:?}");
    }
    let behind = FleetState { wanted: 1, generation: Some(1), ..FleetState::default() };
    let is_behind = |yard: &mut Yard| drop(yard.scene.see(Object::StatefulSet(key("edge"), behind.clone())));
    assert!(is_idle(&is_behind), "the controller has not seen this generation yet");
    let fleets = Fleets { namespaces: FleetNamespaces::None, ..Fleets::default() };
    assert!(is_idle(&|yard| yard.drainers = Drainers::new(fleets.clone())), "the operator runs no fleets here");
}

//! Claims of pods that a smaller fleet no longer has, in a virtual cluster: the tests play the controllers of
//! `StatefulSet`s and Jobs.

mod others;

use std::{collections::BTreeMap, time::Duration};

use operator_core::{
    ObjectKey,
    desired::{ca::Trusted, gateway::Fleets},
    schedule::drainers::{Drainers, Step},
    status::{claims::claims_drained, conditions::Truth},
    world::{
        objects::{ClaimState, Drain, DrainerState, FleetState, Object, PodInfo, Stage},
        rights::FleetNamespaces,
        watched::{Kind, Seen},
    },
};
use serde_json::json;

use crate::scene::{News, Scene, deployment, fleet_pod, gateway, key, ms, source, unreadable_gateway};

/// The fleet `edge` on claims.
struct Yard {
    scene: Scene,
    drainers: Drainers,
    now: Duration,
}

impl Yard {
    /// A fleet that should have this many pods, and claims of these ordinals, without pods.
    fn new(wanted: i32, claims: &[i32]) -> Self {
        let mut scene = Scene::new();
        scene.see(asking(0));
        let mut yard = Self { scene, drainers: Drainers::new(Fleets::default()), now: ms(0) };
        yard.scale(wanted, 1);
        for ordinal in claims {
            yard.claim(*ordinal, false);
        }
        yard
    }

    fn scale(&mut self, wanted: i32, generation: i64) {
        self.scale_of("fleet", wanted, generation);
    }

    /// The `StatefulSet` of this uid.
    fn scale_of(&mut self, uid: &str, wanted: i32, generation: i64) {
        let (uid, generation, owners) = (uid.to_owned(), Some(generation), vec!["uid-edge".to_owned()]);
        let state = FleetState { uid, wanted, generation, owners, is_observed: true, ..FleetState::default() };
        self.scene.see(Object::StatefulSet(key("edge"), state));
    }

    fn claim(&mut self, ordinal: i32, leaving: bool) {
        self.claim_of(&format!("uid-{ordinal}"), ordinal, leaving);
    }

    /// The claim of this uid.
    fn claim_of(&mut self, uid: &str, ordinal: i32, leaving: bool) {
        let (uid, version) = (uid.to_owned(), "7".to_owned());
        let state = ClaimState { gateway: "edge".to_owned(), ordinal, uid, version, leaving };
        self.scene.see(Object::Claim(claim(ordinal), state));
    }

    fn job(&mut self, ordinal: i32, generation: i64, succeeded: bool) {
        self.job_at(ordinal, generation, if succeeded { Stage::Succeeded } else { Stage::Begun });
    }

    fn job_at(&mut self, ordinal: i32, generation: i64, stage: Stage) {
        let (gateway, uid) = ("edge".to_owned(), format!("job-{ordinal}"));
        let drained_for = format!("uid-{ordinal}.fleet.{generation}");
        let drainer = DrainerState { gateway, ordinal, uid, drained_for, stage, ..DrainerState::default() };
        self.scene.see(Object::Drainer(job(ordinal), drainer));
    }

    /// The state of this ordinal's drainer, from its pod.
    fn drains(&mut self, ordinal: i32, drain: Drain) -> News {
        let job = job(ordinal).name;
        let name = format!("{job}-x7k2p");
        let labels = BTreeMap::from([("batch.kubernetes.io/job-name".to_owned(), job)]);
        let (gateway, drains) = (None, Some("edge".to_owned()));
        let info = PodInfo { labels, gateway, drains, drain, ..fleet_pod(&name, false) };
        self.scene.see(Object::ProxyPod(key(&name), info))
    }

    fn pod(&mut self, ordinal: i32) {
        let name = format!("edge-{ordinal}");
        self.scene.see(Object::ProxyPod(key(&name), PodInfo { leaving: true, ..fleet_pod(&name, false) }));
    }

    fn trusted() -> Trusted {
        Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 0 }
    }

    /// The due writes, after the time in which an earlier write would have shown.
    fn steps(&mut self) -> Vec<String> {
        self.now += ms(10_000);
        self.at_once()
    }

    fn at_once(&mut self) -> Vec<String> {
        let steps = self.drainers.tick(&self.scene.view(), &Self::trusted(), self.now);
        steps.iter().map(word).collect()
    }
}

/// The gateway, which asks for this many pods.
fn asking(replicas: i32) -> Object {
    gateway(&json!({"replicas": replicas, "durability": {"volumeClaim": {"size": "1Gi"}}}))
}

fn claim(ordinal: i32) -> ObjectKey {
    key(&format!("messages-edge-{ordinal}"))
}

fn job(ordinal: i32) -> ObjectKey {
    key(&format!("edge-drain-{ordinal}"))
}

fn word(step: &Step) -> String {
    let verb = match step {
        Step::Create(..) => "create",
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
    let spare = &emptied.spare;
    assert_eq!((emptied.uid.as_str(), emptied.version.as_str(), &spare.fleet), ("uid-1", "7", &key("edge")));
    assert!(spare.holds(Some("fleet"), Some(1)));
    assert!(!spare.holds(Some("fleet"), Some(2)), "the fleet may have the claim again");
    assert!(!spare.holds(Some("later"), Some(1)), "another fleet may have had the claim");
    assert!(!spare.holds(None, None));
}

#[test]
fn a_drainer_proves_nothing_of_a_later_fleet_or_claim_of_the_same_name() {
    let mut yard = Yard::new(1, &[1]);
    let steps = yard.drainers.tick(&yard.scene.view(), &Yard::trusted(), ms(0));
    let [Step::Create(made, spare)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(made.manifest["metadata"]["annotations"]["portlane.dev/drained-for"], "uid-1.fleet.1");
    assert_eq!((&spare.fleet, &spare.pod), (&key("edge"), &key("edge-1")));
    yard.job(1, 1, true);
    yard.scale_of("later", 1, 1);
    assert_eq!(yard.steps(), ["stop edge-drain-1"], "its pods may have left messages");
    let mut yard = Yard::new(1, &[1]);
    yard.job(1, 1, true);
    yard.claim_of("restored", 1, false);
    assert_eq!(yard.steps(), ["stop edge-drain-1"], "it may have come from a snapshot");
}

#[test]
fn a_drainer_is_made_only_while_the_fleet_has_no_pod_for_the_claim_and_makes_none() {
    let mut yard = Yard::new(1, &[1]);
    let steps = yard.drainers.tick(&yard.scene.view(), &Yard::trusted(), ms(0));
    let [Step::Create(_, spare)] = steps.as_slice() else { panic!("{steps:?}") };
    let is_free = |generation, observed, has_pod| spare.is_free(Some("fleet"), Some(generation), observed, has_pod);
    assert!(is_free(1, Some(1), false));
    assert!(!is_free(1, Some(1), true), "the watch of pods is behind");
    assert!(!is_free(1, Some(0), false) && !is_free(1, None, false), "the controller may still make the pod");
    assert!(!is_free(2, Some(2), false), "the fleet may have the claim again");
    assert!(!spare.is_free(Some("later"), Some(1), Some(1), false) && !spare.is_free(None, None, None, false));
}

#[test]
fn a_claim_for_which_the_gateway_asks_again_stays_before_its_fleet_knows() {
    for succeeded in [false, true] {
        let mut yard = Yard::new(1, &[0, 1]);
        yard.job(1, 1, succeeded);
        yard.scene.see(asking(2));
        assert_eq!(yard.steps(), ["stop edge-drain-1"]);
        yard.scene.gone(Kind::Drainers, "edge-drain-1");
        assert!(yard.steps().is_empty());
    }
}

#[test]
fn a_drainer_that_was_given_up_or_lacks_what_the_fleet_has_since_is_made_anew() {
    let mut yard = Yard::new(1, &[1]);
    yard.job_at(1, 1, Stage::GivenUp);
    assert_eq!(yard.steps(), ["stop edge-drain-1"]);
    for drain in [Drain::Runs, Drain::Unschedulable, Drain::Failed] {
        let mut yard = Yard::new(1, &[1]);
        yard.job(1, 1, false);
        yard.drains(1, drain);
        assert!(yard.steps().is_empty(), "it would be made as it is");
        yard.scale(1, 2);
        let expected: &[&str] = if drain == Drain::Runs { &[] } else { &["stop edge-drain-1"] };
        assert_eq!(yard.steps(), expected, "{drain:?}");
    }
}

#[test]
fn a_fleet_that_grows_again_keeps_its_claims_and_what_they_got_meanwhile() {
    for succeeded in [false, true] {
        let mut yard = Yard::new(1, &[0, 1]);
        yard.job(1, 1, succeeded);
        yard.scale(3, 2);
        assert_eq!(yard.steps(), ["stop edge-drain-1"]);
    }
    // The watches did not show that the fleet grew and shrank again.
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
fn drainers_that_need_a_person_hold_up_others_only_at_sixteen() {
    let claims: Vec<i32> = (0..20).collect();
    let mut yard = Yard::new(0, &claims);
    for ordinal in 0..4 {
        yard.job(ordinal, 1, false);
        yard.drains(ordinal, if ordinal < 3 { Drain::Failed } else { Drain::Unschedulable });
    }
    let next = ["create edge-drain-4", "create edge-drain-5", "create edge-drain-6", "create edge-drain-7"];
    assert_eq!(yard.steps(), next);
    for ordinal in 4..15 {
        yard.job(ordinal, 1, false);
        yard.drains(ordinal, Drain::Failed);
    }
    assert_eq!(yard.steps(), ["create edge-drain-15"]);
    yard.job(15, 1, false);
    assert!(yard.steps().is_empty(), "no more, whatever they do");
    yard.job(0, 1, true);
    assert_eq!(yard.steps(), ["remove messages-edge-0", "create edge-drain-16"]);
}

#[test]
fn the_status_says_what_the_claims_wait_for_that_need_a_person_most() {
    let mut yard = Yard::new(1, &[0]);
    let waits = |yard: &Yard| claims_drained(&key("edge"), &yard.scene.cache, &yard.scene.refusals);
    assert_eq!(waits(&yard), None);
    for ordinal in 1..8 {
        yard.claim(ordinal, false);
    }
    let is = |yard: &Yard, reason: &str, start: &str| {
        let found = waits(yard).expect("a condition");
        assert_eq!((found.status, found.reason.as_str()), (Truth::False, reason));
        assert!(found.message.starts_with(start), "{}", found.message);
        found.message
    };
    let all = "messages-edge-1, messages-edge-2, messages-edge-3, messages-edge-4 and 3 more: ";
    is(&yard, "Draining", all);
    for ordinal in 1..5 {
        yard.job(ordinal, 1, false);
    }
    is(&yard, "Draining", all);
    let refused = |yard: &mut Yard, ordinal: i32, answer: Result<(), &str>| {
        yard.scene.refusals.record(&claim(ordinal), answer.map_err(str::to_owned), &yard.scene.cache)
    };
    assert!(refused(&mut yard, 1, Err("it exists")) && refused(&mut yard, 5, Err("exceeded quota")));
    assert!(!refused(&mut yard, 5, Err("exceeded quota")), "nothing is new");
    let message = is(&yard, "DrainRefused", "messages-edge-5: cannot create the Job edge-drain-5");
    assert!(message.ends_with("exceeded quota"), "the first Job is there at last: {message}");
    assert!(refused(&mut yard, 5, Ok(())));
    is(&yard, "Draining", all);
    let (gateway, uid) = ("edge".to_owned(), "job-1".to_owned());
    let lacks_pod = DrainerState { gateway, ordinal: 1, uid, stage: Stage::LacksPod, ..DrainerState::default() };
    let news = yard.scene.see(Object::Drainer(job(1), lacks_pod));
    assert!(news.touched.gateways.contains(&key("edge")), "the status is written again");
    is(&yard, "DrainLacksPod", "messages-edge-1: the Job has no pod");
    yard.drains(2, Drain::Unschedulable);
    is(&yard, "DrainUnschedulable", "messages-edge-2: no node");
    yard.drains(4, Drain::Failed);
    yard.drains(3, Drain::Failed);
    let message = is(&yard, "DrainFailed", "messages-edge-3, messages-edge-4: ");
    assert!(message.contains("kubectl logs --previous job/edge-drain-3"), "{message}");
}

#[test]
fn a_pod_that_drains_touches_the_status_when_it_gets_on_otherwise() {
    let mut yard = Yard::new(1, &[1]);
    yard.job(1, 1, false);
    let is_touched = |yard: &mut Yard, drain: Drain| yard.drains(1, drain).touched.gateways.contains(&key("edge"));
    assert!(is_touched(&mut yard, Drain::Runs));
    assert!(!is_touched(&mut yard, Drain::Runs), "nothing is new");
    assert!(is_touched(&mut yard, Drain::Failed));
}

#[test]
fn a_fleet_whose_ordinals_start_later_keeps_the_claims_that_it_has() {
    let mut yard = Yard::new(1, &[0, 1, 5, 6]);
    let (uid, generation, owners) = ("fleet".to_owned(), Some(1), vec!["uid-edge".to_owned()]);
    let state = FleetState { uid, owners, wanted: 1, first: 5, generation, is_observed: true, ..FleetState::default() };
    yard.scene.see(Object::StatefulSet(key("edge"), state));
    assert_eq!(yard.steps(), ["create edge-drain-0", "create edge-drain-1", "create edge-drain-6"]);
    yard.claim(-1, false);
    assert_eq!(yard.scene.cache.spare_claims(&key("edge")).count(), 3);
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
fn a_job_of_another_name_is_neither_deleted_nor_counted() {
    let mut yard = Yard::new(1, &[1]);
    for number in 0..4 {
        let (gateway, uid) = ("edge".to_owned(), format!("mine-{number}"));
        let state = DrainerState { gateway, ordinal: -1, uid, ..DrainerState::default() };
        yard.scene.see(Object::Drainer(key(&format!("mine-{number}")), state));
    }
    assert_eq!(yard.steps(), ["create edge-drain-1"]);
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
    for kind in [Kind::StatefulSets, Kind::Claims, Kind::Drainers, Kind::ProxyPods] {
        assert!(is_idle(&|yard| drop(yard.scene.cache.apply(&source(kind), Seen::Restarted))), "{kind:?}");
    }
    let known = FleetState { wanted: 1, generation: Some(1), ..FleetState::default() };
    let behind = FleetState { owners: vec!["uid-edge".to_owned()], ..known.clone() };
    let of_others = FleetState { owners: vec!["uid-of-before".to_owned()], is_observed: true, ..known };
    for (fleet, why) in
        [(behind, "the controller has not seen this generation yet"), (of_others, "it was orphaned, with its claims")]
    {
        assert!(is_idle(&|yard| drop(yard.scene.see(Object::StatefulSet(key("edge"), fleet.clone())))), "{why}");
    }
    let nowhere = Fleets { namespaces: FleetNamespaces::None, ..Fleets::default() };
    for fleets in [nowhere, Fleets { claims: false, ..Fleets::default() }] {
        assert!(is_idle(&|yard| yard.drainers = Drainers::new(fleets.clone())), "the operator runs no such fleet here");
    }
}

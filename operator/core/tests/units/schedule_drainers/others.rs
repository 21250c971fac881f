//! Gateways, Jobs and pods that keep a claim as it is, and what a write is about.

use operator_core::{
    ObjectKey,
    desired::gateway::Fleets,
    schedule::drainers::{Drainers, Step},
    world::objects::{Drain, DrainerState, FleetState, Object, PodInfo, Stage},
};
use serde_json::json;

use super::{Yard, claim, job};
use crate::scene::{NOW, fleet_pod, gateway, key, ms};

#[test]
fn a_drainer_that_is_being_deleted_is_waited_for() {
    for stage in [Stage::Succeeded, Stage::GivenUp, Stage::Begun] {
        let mut yard = Yard::new(1, &[1]);
        let (gateway, uid, drained_for) = ("edge".to_owned(), "job-1".to_owned(), "uid-1.fleet.1".to_owned());
        let leaving = DrainerState { gateway, ordinal: 1, uid, drained_for, stage, leaving: true };
        yard.scene.see(Object::Drainer(job(1), leaving));
        assert!(yard.steps().is_empty(), "{stage:?}");
    }
}

#[test]
fn the_claims_of_a_gateway_that_leaves_or_has_no_durability_stay_as_they_are() {
    let Object::Gateway(name, read) = super::asking(0) else { panic!("a gateway") };
    let mut deleted = read.expect("readable");
    deleted.metadata.deletion_timestamp = Some(serde_json::from_value(json!(NOW)).expect("a time"));
    for changed in [Object::Gateway(name, Box::new(Ok(deleted))), gateway(&json!({"replicas": 0}))] {
        let mut yard = Yard::new(1, &[1]);
        assert_eq!(yard.steps(), ["create edge-drain-1"]);
        yard.scene.see(changed);
        assert!(yard.steps().is_empty());
    }
}

#[test]
fn a_write_for_a_claim_says_which_claim_is_spare() {
    let spare = |yard: &mut Yard| {
        let steps = yard.drainers.tick(&yard.scene.view(), &Yard::trusted(), ms(0));
        let [step]: [Step; 1] = steps.try_into().expect("one step");
        step.spare().map(|spare| spare.claim.clone())
    };
    let mut yard = Yard::new(1, &[1]);
    assert_eq!(spare(&mut yard), Some(claim(1)));
    yard.drainers = Drainers::default();
    yard.job(1, 1, true);
    assert_eq!(spare(&mut yard), Some(claim(1)));
    yard.drainers = Drainers::default();
    yard.claim(1, true);
    assert_eq!(spare(&mut yard), None, "a drainer is deleted");
}

#[test]
fn a_drainer_runs_the_image_of_its_fleet_or_that_of_the_installation() {
    for (image, expected) in [("r.example/proxy:7", "r.example/proxy:7"), ("", "r.example/proxy:8")] {
        let mut yard = Yard::new(1, &[1]);
        let (uid, image, owners) = ("fleet".to_owned(), image.to_owned(), vec!["uid-edge".to_owned()]);
        let state = FleetState { uid, image, owners, wanted: 1, generation: Some(1), ..FleetState::default() };
        yard.scene.see(Object::StatefulSet(key("edge"), FleetState { is_observed: true, ..state }));
        yard.drainers = Drainers::new(Fleets { image: "r.example/proxy:8".to_owned(), ..Fleets::default() });
        let steps = yard.drainers.tick(&yard.scene.view(), &Yard::trusted(), ms(0));
        let [Step::Create(made, _)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(made.manifest["spec"]["template"]["spec"]["containers"][0]["image"], expected);
    }
}

#[test]
fn only_the_pods_of_a_job_say_how_it_gets_on() {
    let mut yard = Yard::new(0, &[1, 10]);
    yard.job(1, 1, false);
    yard.job(10, 1, false);
    let drains = |yard: &Yard, ordinal: i32| yard.scene.cache.drain(&job(ordinal));
    yard.drains(10, Drain::Failed);
    assert_eq!((drains(&yard, 1), drains(&yard, 10)), (Drain::Runs, Drain::Failed), "the names begin alike");
    let pod = |change: fn(PodInfo) -> PodInfo| {
        let labels = [("batch.kubernetes.io/job-name".to_owned(), job(1).name)].into();
        let (gateway, drains, drain) = (None, Some("edge".to_owned()), Drain::Failed);
        change(PodInfo { labels, gateway, drains, drain, ..fleet_pod("p", false) })
    };
    let mut see = |key: ObjectKey, pod: PodInfo| {
        yard.scene.see(Object::ProxyPod(key, pod));
        drains(&yard, 1)
    };
    let elsewhere = ObjectKey::new("other", "edge-drain-1-a");
    assert_eq!(see(elsewhere, pod(|pod| pod)), Drain::Runs, "of another namespace");
    let of_other = |pod: PodInfo| PodInfo { drains: Some("other".to_owned()), ..pod };
    assert_eq!(see(key("edge-drain-1-a"), pod(of_other)), Drain::Runs, "of another gateway");
    assert_eq!(see(key("edge-drain-1-a"), pod(|pod| PodInfo { leaving: true, ..pod })), Drain::Runs, "it leaves");
    assert_eq!(see(key("edge-drain-1-a"), pod(|pod| pod)), Drain::Failed);
}

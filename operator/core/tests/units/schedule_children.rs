//! When the children of gateways are applied and when statuses of gateways are written: with a virtual clock.

mod attempts;
mod claims;
mod drift;
mod rollout;

use std::{cell::Cell, collections::BTreeSet};

use operator_core::{
    ObjectKey, Subject,
    desired::{
        ca::Trusted,
        gateway::{Desired, Fleets},
    },
    schedule::{
        Effect,
        children::{Applied, Ended, Gateways, Marks},
    },
    status::conditions::Finding,
    world::{
        objects::{Object, ServiceInfo},
        watched::Kind,
    },
};
use proxy_api::Transport;
use serde_json::{Value, json};

use crate::scene::{
    Scene, condition_of, deployment, fleet_pod, forward, gateway, gateway_of, key, ms, pair, unreadable_gateway,
    unscaled, web, writes,
};

/// A cluster with one gateway, and the schedule of its children.
struct Desk {
    scene: Scene,
    gateways: Gateways,
    trusted: Trusted,
    version: u32,
}

fn fleets() -> Fleets {
    Fleets {
        image: "example.com/proxy:1".into(),
        pull_policy: "Always".into(),
        operator: "operator:9443".into(),
        ..Fleets::default()
    }
}

impl Desk {
    fn new() -> Self {
        let mut scene = Scene::new();
        scene.see(gateway(&json!({})));
        let mut gateways = Gateways::new(fleets());
        gateways.touch(&key("edge"));
        let trusted = Trusted { bundle: "A;B;".to_owned(), signing: "A;".to_owned(), since: 1 };
        Self { scene, gateways, trusted, version: 1 }
    }

    /// A desk whose children were applied at this time, and whose status was written then.
    fn applied_at(millis: u64) -> Self {
        let mut desk = Self::new();
        let effects = desk.at(millis);
        assert_eq!(desk.succeed(&effects, millis), Ended::Applied);
        let effects = desk.at(millis);
        assert_eq!((effects.len(), writes(&effects).len()), (1, 1));
        desk.show(&effects);
        assert!(desk.at(millis + 1000).is_empty(), "the cache shows what was written");
        desk
    }

    fn at(&mut self, millis: u64) -> Vec<Effect> {
        let view = self.scene.view();
        self.gateways.tick(&view, &self.trusted, false, &unscaled, ms(millis))
    }

    /// The watch shows the statuses that were written.
    fn show(&mut self, effects: &[Effect]) {
        for write in writes(effects) {
            self.version += 1;
            self.scene.show(&write, &self.version.to_string());
        }
    }

    /// A watch shows an object, and the driver passes on what that touches.
    fn see(&mut self, object: Object) {
        let touched = self.scene.see(object).touched;
        touched.gateways.iter().for_each(|key| self.gateways.touch(key));
    }

    fn succeed(&mut self, effects: &[Effect], millis: u64) -> Ended {
        self.end(effects, Ok(Marks::new()), millis)
    }

    fn fail(&mut self, effects: &[Effect], why: &str, millis: u64) -> Ended {
        self.end(effects, Err(why.to_owned()), millis)
    }

    /// The children were applied, or not.
    fn end(&mut self, effects: &[Effect], result: Result<Marks, String>, millis: u64) -> Ended {
        let desired = children(effects);
        let applied = Applied { key: desired.key, attempt: desired.attempt, result };
        self.gateways.applied(applied, ms(millis))
    }
}

/// The only effect: children to apply.
fn children(effects: &[Effect]) -> Desired {
    let [Effect::ApplyChildren(desired)] = effects else {
        panic!("children are applied and nothing else: {effects:?}")
    };
    (**desired).clone()
}

#[test]
fn children_are_applied_with_all_that_they_are_made_of() {
    let mut desk = Desk::new();
    desk.scene.see(forward(web("web", 80, 1)));
    let desired = children(&desk.at(0));
    assert_eq!((&desired.key, desired.gateway.metadata.uid.as_deref()), (&key("edge"), Some("uid-edge")));
    assert_eq!(desired.ports, BTreeSet::from([(Transport::Tcp, 80)]));
    assert_eq!((&desired.fleets, &desired.trusted), (&fleets(), &desk.trusted));
}

#[test]
fn nothing_is_applied_without_a_certificate_that_signs() {
    let mut desk = Desk::new();
    desk.trusted = Trusted::default();
    let effects = desk.at(0);
    assert_eq!((effects.len(), writes(&effects).len()), (1, 1), "the status is written all the same");
    desk.trusted = Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 1 };
    assert!(matches!(desk.at(5000).as_slice(), [Effect::ApplyChildren(_), ..]));
}

#[test]
fn nothing_is_done_while_children_are_applied() {
    let mut desk = Desk::new();
    children(&desk.at(0));
    desk.gateways.touch(&key("edge"));
    desk.gateways.listeners(&key("edge"));
    assert!(desk.at(250).is_empty() && desk.at(59_999).is_empty());
}

#[test]
fn children_are_applied_again_after_600_s_and_not_before() {
    let mut desk = Desk::applied_at(1000);
    assert!(desk.at(600_999).is_empty());
    desk.gateways.touch(&key("edge"));
    assert!(desk.at(600_999).is_empty(), "nothing that they are made of is new");
    children(&desk.at(601_000));
}

#[test]
fn a_listener_has_children_applied_at_once() {
    let mut desk = Desk::applied_at(1000);
    let update = desk.scene.see(forward(web("web", 80, 1))).update;
    assert!(!update.ports.is_empty());
    assert!(desk.at(2500).is_empty(), "the schedule received no change");
    desk.gateways.listeners(&key("edge"));
    let desired = children(&desk.at(2500));
    assert_eq!(desired.ports, BTreeSet::from([(Transport::Tcp, 80)]));
    desk.succeed(&[Effect::ApplyChildren(Box::new(desired))], 3000);
    assert_eq!(writes(&desk.at(3000)).len(), 1, "one more forward is attached");
}

#[test]
fn another_spec_has_children_applied_at_once() {
    let mut desk = Desk::applied_at(1000);
    desk.scene.see(gateway_of(&json!({"replicas": 3}), 2));
    desk.gateways.touch(&key("edge"));
    assert_eq!(children(&desk.at(2500)).gateway.spec.replicas, Some(3));
}

#[test]
fn another_certificate_that_signs_has_children_applied_at_once() {
    let mut desk = Desk::applied_at(1000);
    desk.trusted.bundle = "A;B;C;".to_owned();
    let view = desk.scene.view();
    let effects = desk.gateways.tick(&view, &desk.trusted, true, &unscaled, ms(2500));
    assert!(effects.is_empty(), "fleets stay as they are while the old one signs");
    desk.trusted.signing = "B;".to_owned();
    let effects = desk.gateways.tick(&view, &desk.trusted, true, &unscaled, ms(2750));
    assert_eq!(children(&effects).trusted.signing, "B;");
}

#[test]
fn a_certificate_and_a_listener_that_change_together_have_children_applied() {
    let mut desk = Desk::applied_at(1000);
    desk.gateways.listeners(&key("edge"));
    desk.trusted.signing = "B;".to_owned();
    let view = desk.scene.view();
    children(&desk.gateways.tick(&view, &desk.trusted, true, &unscaled, ms(2500)));
}

#[test]
fn a_result_for_a_gateway_that_is_not_known_is_no_news() {
    let mut gateways = Gateways::new(fleets());
    let applied = Applied { key: key("edge"), attempt: 1, result: Err("forbidden".to_owned()) };
    assert_eq!(gateways.applied(applied, ms(0)), Ended::Outdated);
}

#[test]
fn a_gateway_that_comes_back_has_its_children_applied_at_once() {
    let mut desk = Desk::applied_at(1000);
    desk.scene.gone(Kind::Gateways, "edge");
    assert!(desk.at(2000).is_empty());
    desk.scene.see(gateway(&json!({})));
    children(&desk.at(2250));
}

#[test]
fn a_gateway_that_is_being_deleted_has_no_children_applied() {
    let mut desk = Desk::new();
    let Object::Gateway(key, read) = gateway(&json!({})) else { panic!("a gateway") };
    let mut deleted = read.expect("readable");
    let time = serde_json::from_value(json!(crate::scene::NOW)).expect("a time");
    deleted.metadata.deletion_timestamp = Some(time);
    desk.scene.see(Object::Gateway(key, Box::new(Ok(deleted))));
    let effects = desk.at(0);
    assert_eq!((effects.len(), writes(&effects).len()), (1, 1));
}

#[test]
fn a_gateway_that_cannot_be_read_says_so_once_and_keeps_its_children() {
    let mut desk = Desk::new();
    desk.scene.see(unreadable_gateway());
    let effects = desk.at(0);
    let written = writes(&effects);
    assert_eq!((effects.len(), condition_of(&written[0], "Accepted")), (1, pair("False", "Unsupported")));
    assert_eq!((&written[0].subject, written[0].uid.as_str()), (&Subject::Gateway(key("edge")), "uid-edge"));
    for at in [1000, 5000, 700_000] {
        desk.gateways.touch(&key("edge"));
        assert!(desk.at(at).is_empty(), "the cache never shows that status");
    }
}

#[test]
fn a_gateway_is_programmed_once_this_generation_was_applied() {
    let mut desk = Desk::new();
    desk.see(deployment(2, 1));
    let effects = desk.at(0);
    desk.see(gateway_of(&json!({}), 2));
    desk.succeed(&effects, 250);
    let effects = desk.at(250);
    assert_eq!(children(&effects).gateway.metadata.generation, Some(2), "the same spec in a new generation");
    desk.succeed(&effects, 500);
    assert_eq!(condition_of(&writes(&desk.at(500))[0], "Programmed"), pair("True", "Programmed"));
}

#[test]
fn a_gateway_whose_newest_generation_was_not_applied_is_pending() {
    let mut desk = Desk::new();
    desk.see(deployment(2, 1));
    let effects = desk.at(0);
    desk.succeed(&effects, 0);
    desk.see(gateway_of(&json!({"replicas": 3}), 2));
    desk.trusted = Trusted::default();
    assert_eq!(condition_of(&writes(&desk.at(250))[0], "Programmed"), pair("Unknown", "Pending"));
}

#[test]
fn a_gateway_whose_children_never_were_applied_is_pending() {
    let mut desk = Desk::new();
    desk.trusted = Trusted::default();
    let Object::Gateway(key, read) = gateway(&json!({})) else { panic!("a gateway") };
    let mut fresh = read.expect("readable");
    fresh.metadata.generation = None;
    desk.scene.see(Object::Gateway(key, Box::new(Ok(fresh))));
    assert_eq!(condition_of(&writes(&desk.at(0))[0], "Programmed"), pair("Unknown", "Pending"));
}

#[test]
fn statuses_of_one_gateway_are_written_a_second_apart() {
    let mut desk = Desk::applied_at(1000);
    desk.see(deployment(2, 1));
    let effects = desk.at(5000);
    assert_eq!(writes(&effects)[0].status["replicas"], 2);
    desk.show(&effects);
    desk.see(deployment(3, 1));
    assert!(desk.at(5999).is_empty());
    assert_eq!(writes(&desk.at(6000))[0].status["replicas"], 3);
}

#[test]
fn a_status_that_the_cache_does_not_show_is_written_again_after_a_second() {
    let mut desk = Desk::new();
    let effects = desk.at(0);
    desk.succeed(&effects, 1000);
    let first = writes(&desk.at(1000));
    assert_eq!(first.len(), 1);
    assert!(desk.at(1999).is_empty());
    assert_eq!(writes(&desk.at(2000)), first);
}

#[test]
fn a_status_says_addresses_forwards_and_scaling() {
    let mut desk = Desk::applied_at(1000);
    let service = |gateway: Option<&str>| {
        let addresses = vec![("IPAddress".to_owned(), "192.0.2.9".to_owned())];
        let info = ServiceInfo { addresses, gateway: gateway.map(str::to_owned), ..ServiceInfo::default() };
        Object::Service(key("edge"), info)
    };
    desk.scene.see(service(Some("other")));
    desk.scene.see(forward(web("web", 80, 1)));
    desk.gateways.touch(&key("edge"));
    let effects = desk.at(3000);
    desk.succeed(&effects, 3000);
    let effects = desk.at(3000);
    let written = writes(&effects);
    assert_eq!(written[0].status["attachedForwards"], 1);
    assert_eq!(written[0].status["addresses"], json!(null), "a Service of another owner");
    assert_eq!(written[0].status["selector"], "portlane.dev/gateway=edge");
    desk.show(&effects);
    desk.scene.see(service(Some("edge")));
    desk.gateways.touch(&key("edge"));
    let scaling = |_: &ObjectKey| {
        Some(Finding::new(
            operator_core::ConditionType::ScalingActive,
            operator_core::Truth::True,
            "ScalingActive",
            "m",
        ))
    };
    let view = desk.scene.view();
    let effects = desk.gateways.tick(&view, &desk.trusted, false, &scaling, ms(9000));
    let written = writes(&effects);
    assert_eq!(written[0].status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.9"}]));
    assert_eq!(condition_of(&written[0], "ScalingActive"), pair("True", "ScalingActive"));
}

#[test]
fn pods_of_a_fleet_do_not_have_its_status_evaluated_by_themselves() {
    let mut desk = Desk::applied_at(1000);
    desk.scene.see(Object::ProxyPod(key("p1"), fleet_pod("p1", true)));
    assert!(desk.at(9000).is_empty(), "the Deployment has the number of its pods");
}

#[test]
fn a_gateway_where_no_fleet_may_run_is_refused_and_has_no_children() {
    let mut desk = Desk::new();
    let namespaces = "other".parse().expect("a list");
    desk.gateways = Gateways::new(Fleets { namespaces, ..fleets() });
    desk.gateways.touch(&key("edge"));
    let effects = desk.at(0);
    let written = writes(&effects);
    assert_eq!((effects.len(), condition_of(&written[0], "Accepted")), (1, pair("False", "FleetsNotPermitted")));
    assert_eq!(condition_of(&written[0], "Programmed"), pair("False", "NotAccepted"));
    desk.show(&effects);
    assert!(desk.at(1_000_000).is_empty(), "no children are applied later either");
}

#[test]
fn a_gateway_with_claims_is_refused_where_fleets_may_have_none() {
    let mut desk = Desk::new();
    desk.gateways = Gateways::new(Fleets { claims: false, ..fleets() });
    desk.scene.see(gateway(&json!({"durability": {"volumeClaim": {"size": "1Gi"}}})));
    desk.gateways.touch(&key("edge"));
    let effects = desk.at(0);
    let written = writes(&effects);
    assert_eq!((effects.len(), condition_of(&written[0], "Accepted")), (1, pair("False", "FleetsNotPermitted")));
    desk.show(&effects);
    assert!(desk.at(1_000_000).is_empty(), "no children are applied later either");
}

#[test]
fn a_gateway_without_claims_has_its_fleet_where_fleets_may_have_none() {
    let fleets = Fleets { claims: false, ..fleets() };
    let refusal = |spec: &Value| {
        let gateway = serde_json::from_value(json!({"metadata": {"name": "edge"}, "spec": spec})).expect("a gateway");
        fleets.refusal("ns", &gateway)
    };
    assert_eq!(refusal(&json!({})), None);
    let refused = refusal(&json!({"durability": {"volumeClaim": {"size": "1Gi"}}})).expect("refused");
    assert!(refused.contains("claims.enabled"), "{refused}");
}

#[test]
fn the_autoscaler_of_a_gateway_is_looked_at_only_when_its_status_is_evaluated() {
    let mut desk = Desk::applied_at(0);
    let looks = Cell::new(0);
    let scaling = |_: &ObjectKey| {
        looks.set(looks.get() + 1);
        None
    };
    let view = desk.scene.view();
    desk.gateways.tick(&view, &desk.trusted, false, &scaling, ms(2000));
    assert_eq!(looks.get(), 0);
    desk.gateways.touch(&key("edge"));
    desk.gateways.tick(&view, &desk.trusted, false, &scaling, ms(2001));
    assert_eq!(looks.get(), 1);
}

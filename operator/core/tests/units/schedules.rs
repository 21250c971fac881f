//! Which schedule hears of what, and what is due by all of them together: with a virtual clock.

use std::{collections::BTreeSet, time::Duration};

use operator_core::{
    Subject,
    desired::{ca::Trusted, gateway::Fleets},
    schedule::{
        Effect,
        children::{Applied, Marks},
        cut_off::Counted,
        schedules::{Due, Looked, Schedules},
    },
    world::{
        child::Mark,
        objects::{AutoscalerConditions, AutoscalerState, Object, PodInfo},
    },
};
use proxy_api::Transport;
use serde_json::json;

use crate::cluster_agents::agent;
use crate::scene::{News, Scene, fleet_pod, forward, gateway, key, ms, scaler, web, writes};

/// A cluster, and the schedules of its leader, which has heard of nothing yet.
struct Desk {
    scene: Scene,
    schedules: Schedules,
    trusted: Trusted,
}

impl Desk {
    fn new(scene: Scene) -> Self {
        let fleets = Fleets { image: "example.com/proxy:1".to_owned(), ..Fleets::default() };
        let trusted = Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since: 10_000 };
        Self { scene, schedules: Schedules::new(&fleets, false, ms(0)), trusted }
    }

    /// The watches show something, which is translated and published.
    fn hear(&mut self, news: impl FnOnce(&mut Scene) -> News, now: Duration) {
        let News { touched, update, moved } = news(&mut self.scene);
        self.schedules.seen(&touched, &self.scene.cache, true, now);
        let looked = Looked { touched, update, moved };
        self.schedules.looked(looked, &self.scene.cache.world, &self.scene.translator, now);
    }

    fn tick(&mut self, has_costs: bool, now: Duration) -> Due {
        self.schedules.tick(&self.scene.view(), (&self.trusted, false), (9, has_costs), now)
    }

    /// Applies the children that are due at this time. Returns their ports.
    fn apply(&mut self, now: Duration) -> Vec<BTreeSet<(Transport, u16)>> {
        let mut ports = Vec::new();
        for effect in self.tick(false, now).effects {
            if let Effect::ApplyChildren(desired) = effect {
                let (key, attempt) = (desired.key.clone(), desired.attempt);
                self.schedules.gateways.applied(Applied { key, attempt, result: Ok(Marks::new()) }, now);
                ports.push(desired.ports);
            }
        }
        ports
    }
}

#[test]
fn nothing_is_due_in_an_empty_and_silent_cluster() {
    let mut desk = Desk::new(Scene::new());
    assert!((0..3600).all(|second| desk.tick(true, ms(second * 1000)).effects.is_empty()));
    assert_eq!(desk.schedules.statuses.due(), None);
}

#[test]
fn a_change_of_a_forward_makes_its_status_and_the_children_of_its_gateway_due() {
    let mut desk = Desk::new(Scene::with_web());
    assert_eq!(desk.apply(ms(0)), [BTreeSet::from([(Transport::Tcp, 80)])]);
    assert!(desk.apply(ms(500)).is_empty() && desk.schedules.statuses.due().is_none(), "silence");
    desk.hear(|scene| scene.see(forward(web("web", 81, 2))), ms(1000));
    assert_eq!((desk.schedules.statuses.queued(), desk.schedules.statuses.due()), (1, Some(ms(1000))));
    desk.scene.report("p1", &[]);
    let effects = desk.schedules.evaluate(&desk.scene.view(), 9, ms(1000));
    let written: Vec<Subject> = writes(&effects).into_iter().map(|write| write.subject).collect();
    assert_eq!(written, [Subject::Forward(key("web"))]);
    assert_eq!(desk.apply(ms(1000)), [BTreeSet::from([(Transport::Tcp, 81)])]);
}

#[test]
fn nothing_is_written_without_room_for_it() {
    let mut desk = Desk::new(Scene::with_web());
    desk.hear(|scene| scene.see(forward(web("web", 81, 2))), ms(1000));
    desk.scene.report("p1", &[]);
    assert!(desk.schedules.evaluate(&desk.scene.view(), 0, ms(1000)).is_empty());
    assert_eq!(desk.schedules.statuses.queued(), 1, "it waits");
}

#[test]
fn a_pod_that_joins_its_fleet_makes_the_statuses_of_its_forwards_due() {
    let mut desk = Desk::new(Scene::with_web());
    desk.hear(|scene| scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true))), ms(1000));
    assert!(desk.schedules.statuses.due().is_some());
}

#[test]
fn a_replica_that_does_not_lead_keeps_no_statuses() {
    let mut desk = Desk::new(Scene::with_web());
    let touched = desk.scene.see(forward(web("web", 81, 2))).touched;
    for (leads, queued) in [(false, 0), (true, 1)] {
        desk.schedules.seen(&touched, &desk.scene.cache, leads, ms(1000));
        assert_eq!((desk.schedules.statuses.queued(), desk.schedules.statuses.due().is_some()), (queued, leads));
    }
}

#[test]
fn deletion_costs_are_due_only_where_they_are_written() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    let state = AutoscalerState {
        owner: "uid".to_owned(),
        subject: Subject::Gateway(key("edge")),
        conditions: AutoscalerConditions::default(),
        desired: 3,
        least: 0,
        target: ("Deployment".to_owned(), "edge".to_owned()),
        current: 3,
        mark: Mark::default(),
    };
    scene.see(scaler("edge", state));
    let labels = [("pod-template-hash".to_owned(), "h1".to_owned())].into();
    let pod = PodInfo { replica_set: Some("edge-h1".to_owned()), labels, ..fleet_pod("p1", true) };
    scene.see(Object::ProxyPod(key("p1"), pod));
    scene.load("p1", 10);
    let mut desk = Desk::new(scene);
    let mut costs = |has_costs: bool| {
        let effects = desk.tick(has_costs, ms(0)).effects;
        effects.iter().filter(|effect| matches!(effect, Effect::WriteCost(_))).count()
    };
    assert_eq!((costs(false), costs(true)), (0, 1));
}

#[test]
fn proxies_that_a_new_ca_has_cut_off_are_counted() {
    let mut scene = Scene::new();
    scene.see(Object::ProxyPod(key("p1"), PodInfo { created: Some(1), ..fleet_pod("p1", true) }));
    let cut_off = Desk::new(scene).tick(false, ms(0)).cut_off;
    assert_eq!(cut_off, Some(Counted { count: 1, first: Some(key("p1")) }));
}

#[test]
fn a_status_is_looked_at_if_somebody_asks_for_that() {
    let mut scene = Scene::with_web();
    scene.see(agent("home", 1, &json!({})));
    let mut desk = Desk::new(scene);
    desk.schedules.look_at(&Subject::Forward(key("web")), ms(1000));
    assert_eq!((desk.schedules.statuses.queued(), desk.schedules.statuses.due()), (1, Some(ms(1000))));
    let home = Subject::Agent(key("home"));
    let is_written =
        |desk: &mut Desk| writes(&desk.tick(false, ms(1000)).effects).iter().any(|write| write.subject == home);
    assert!(!is_written(&mut desk));
    desk.schedules.look_at(&home, ms(1000));
    assert!(is_written(&mut desk));
}

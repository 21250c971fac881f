//! The status that a person reads, from the world and the reports of proxies.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

#[path = "status/limits.rs"]
mod limits;
mod support;

use std::{collections::BTreeMap, sync::Arc};

use crds::PortForwardStatus;
use operator_core::{
    Changes, CrashLoop, Fleet, Group, Moment, ObjectKey, PodIssue, Proxies, ProxyId, Published, Snapshot, Translator,
    World, data_plane, same_but_for_counts, status,
};
use proxy_api::{
    BackendHealth, Failure, FailureReason, ListenerId, ListenerReport, ListenerState, ReachedLimit, Report, ReportPart,
    Version,
};

const WORLD: &str = "
kind: World
pods: {}
---
kind: ForwardGateway
metadata: {name: edge, namespace: ns}
spec: {}
---
kind: PortForward
metadata: {name: web, namespace: ns, generation: 3}
spec:
  placement: {gateway: {name: edge}}
  listeners:
  - {name: a, protocol: TCP, port: 80, backends: [{address: {host: 192.0.2.1, port: 1}}]}
  - {name: b, protocol: TCP, port: 81, backends: [{address: {host: 192.0.2.1, port: 2}}]}
";

/// A gateway with its pods, as the operator sees them.
struct Scene {
    world: World,
    translator: Translator,
    fleets: BTreeMap<Group, Fleet>,
    proxies: Proxies,
    number: u64,
    /// The health of backends that proxies report.
    backends: BackendHealth,
    /// The limit that proxies report as reached.
    reached: Option<ReachedLimit>,
    /// Whether proxies report a loop.
    looped: bool,
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

fn pod(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn proxy(name: &str) -> ProxyId {
    pod(name).into()
}

fn id(listener: &str) -> ListenerId {
    format!("ns/web/{listener}").parse().expect("id")
}

impl Scene {
    fn new(manifests: &str, pods: &[&str]) -> Self {
        let mut scene = Self {
            world: support::world(manifests),
            translator: Translator::default(),
            fleets: BTreeMap::new(),
            proxies: Proxies::default(),
            number: 0,
            backends: BackendHealth::All,
            reached: None,
            looped: false,
        };
        scene.publish(pods);
        scene
    }

    fn publish(&mut self, pods: &[&str]) {
        self.number += 1;
        let version = Version { epoch: "term".into(), number: self.number };
        self.translator.update(&self.world, &Changes::all(), &version);
        for (group, snapshot) in self.translator.snapshots() {
            let members = pods.iter().map(|name| proxy(name)).collect();
            self.fleets
                .insert(group.clone(), Fleet { snapshot: snapshot.clone(), members, ready: 1, ..Fleet::default() });
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.fleets.values().next().expect("one").snapshot.clone()
    }

    /// Reports that a proxy has bound all listeners except the `failed` ones.
    fn report(&mut self, name: &str, failed: &[&str]) {
        let snapshot = self.snapshot();
        let listener = |(id, Published { offer, .. }): (&ListenerId, &Published)| {
            let failure = failed.contains(&id.listener.as_str()).then(|| Failure {
                reason: FailureReason::AddressInUse,
                message: "bind 0.0.0.0:80: address in use".into(),
                serving: None,
            });
            let state = if failure.is_some() { ListenerState::Failed } else { ListenerState::Bound };
            let (backends, reached, looped) = (self.backends, self.reached, self.looped);
            let usual = ListenerReport::usual(offer.revision().clone());
            (id.clone(), ListenerReport { state, failure, backends, reached, looped, ..usual })
        };
        let report = Report {
            version: snapshot.version.clone(),
            listeners: snapshot.listeners.iter().map(listener).collect(),
            ..Report::default()
        };
        self.proxies.connected(&proxy(name));
        for part in report.parts_since(None, &snapshot.digest, true, 1) {
            self.proxies.reported(&proxy(name), part, true);
        }
    }

    fn status(&mut self, seconds: u64) -> PortForwardStatus {
        let verdict = self.translator.verdict(&(&key()).into()).expect("judged");
        let seen = data_plane(&(&key()).into(), verdict, &self.fleets, &self.proxies);
        let now = format!("2026-01-01T00:00:{seconds:02}Z");
        let moment = Moment { now, outstanding_seconds: seconds, ..Moment::default() };
        let forward = self.world.forwards.get_mut(&key()).expect("there");
        let next = status(forward, verdict, &seen, &moment);
        forward.status = Some(next.clone());
        next
    }
}

#[test]
fn an_app_in_a_crash_loop_is_reported_and_blocks_nothing() {
    let manifests = WORLD.replace("placement: {gateway: {name: edge}}", "placement: {sidecar: {selector: {}}}");
    let mut scene = Scene::new(&manifests, &[]);
    scene.world.pods.insert(pod("p1"), operator_core::Pod { carries: true, ..operator_core::Pod::default() });
    scene.world.gateways.clear();
    scene.fleets.clear();
    scene.publish(&["p1"]);
    scene.report("p1", &[]);
    let crash_loop = CrashLoop { container: "app".into(), exit_code: 1 };
    let issue = PodIssue { injected: true, problem: None, crash_loop: Some(crash_loop) };
    scene.fleets.values_mut().for_each(|fleet| drop(fleet.issues.insert(proxy("p1"), issue.clone())));
    let status = scene.status(1);
    assert_eq!(condition(&status, "Injected"), pair("True", "AppFailing"));
    assert_eq!(condition(&status, "Ready"), pair("True", "Ready"));
}

fn condition(status: &PortForwardStatus, type_: &str) -> (String, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
    condition.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_forward_is_ready_once_every_proxy_has_reported() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    scene.report("p1", &[]);
    let waits = scene.status(1);
    assert_eq!(condition(&waits, "Programmed"), pair("Unknown", "Pending"));
    assert_eq!(
        (condition(&waits, "Ready"), condition(&waits, "Reconciling")),
        (pair("Unknown", "Pending"), pair("True", "Pending"))
    );
    assert_eq!(waits.data_plane.as_ref().expect("counts").summary, "1/2");
    scene.report("p2", &[]);
    let ready = scene.status(2);
    assert_eq!(condition(&ready, "Ready"), pair("True", "Ready"));
    assert_eq!(condition(&ready, "Reconciling"), pair("", ""), "Reconciling is present only while true");
    assert!(ready.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
    assert_eq!((ready.ports.as_deref(), ready.to.as_deref()), (Some("80/TCP,81/TCP"), Some("192.0.2.1:1 (+1)")));
    assert_eq!(scene.status(9), ready, "time alone changes nothing");
}

#[test]
fn proxies_that_join_or_leave_flip_no_condition_but_a_rejection_does() {
    let mut scene = Scene::new(WORLD, &["p1"]);
    scene.report("p1", &[]);
    let ready = scene.status(1);
    scene.publish(&["p1", "p2", "p3"]);
    let grown = scene.status(40);
    assert!(same_but_for_counts(&ready, &grown), "{grown:?}");
    assert_eq!(grown.data_plane.as_ref().expect("counts").summary, "1/3");
    scene.report("p2", &["a"]);
    let rejected = scene.status(41);
    assert_eq!(condition(&rejected, "Programmed"), pair("False", "Rejected"));
    let counts = rejected.data_plane.as_ref().expect("counts");
    assert_eq!((counts.rejected_count, counts.rejected[0].pod.as_str()), (1, "p2"));
    let moved = |status: &PortForwardStatus, type_: &str| {
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| condition.type_ == type_).expect("there").last_transition_time.clone()
    };
    assert_eq!(
        moved(&rejected, "Accepted"),
        moved(&ready, "Accepted"),
        "the transition time moves only with the status"
    );
    assert_eq!(moved(&rejected, "Programmed"), "2026-01-01T00:00:41Z");
    scene.report("p2", &[]);
    assert_eq!(
        condition(&scene.status(42), "Programmed"),
        pair("False", "ReportTimeout"),
        "p3 has not reported for 30 s"
    );
    scene.report("p3", &[]);
    assert_eq!(condition(&scene.status(43), "Ready"), pair("True", "Ready"), "the forward recovers");
}

#[test]
fn late_proxies_are_named_after_half_a_minute() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    scene.report("p1", &[]);
    assert_eq!(condition(&scene.status(29), "Programmed"), pair("Unknown", "Pending"));
    let late = scene.status(30);
    assert_eq!(condition(&late, "Programmed"), pair("False", "ReportTimeout"));
    let message = &late.conditions.iter().find(|condition| condition.type_ == "Programmed").expect("there").message;
    assert!(message.contains("p2") && !message.contains("p1,"), "{message}");
}

#[test]
fn a_report_about_another_revision_or_number_does_not_count() {
    let mut scene = Scene::new(WORLD, &["p1"]);
    scene.report("p1", &[]);
    scene.status(1);
    let mut changed = support::world(&WORLD.replace("port: 81", "port: 82").replace("generation: 3", "generation: 4"));
    changed.forwards.get_mut(&key()).expect("there").status = scene.world.forwards[&key()].status.clone();
    scene.world = changed;
    scene.publish(&["p1"]);
    assert_eq!(
        condition(&scene.status(2), "Programmed"),
        pair("Unknown", "Pending"),
        "the report was about the old generation"
    );
    let stale = ReportPart {
        version: scene.snapshot().version.clone(),
        listeners: BTreeMap::from([(
            id("b"),
            ListenerReport {
                revision: proxy_api::Revision("other".into()),
                state: ListenerState::Bound,
                failure: None,
                backends: BackendHealth::All,
                reached: None,
                looped: false,
                delivery: None,
            },
        )]),
        commit: true,
        ..ReportPart::default()
    };
    scene.proxies.reported(&proxy("p1"), stale, false);
    assert_eq!(condition(&scene.status(3), "Programmed"), pair("Unknown", "Pending"));
    scene.report("p1", &[]);
    assert_eq!(condition(&scene.status(4), "Ready"), pair("True", "Ready"));
}

#[test]
fn an_accepted_forward_says_which_setting_has_no_effect() {
    let message = |manifests: &str| {
        let status = Scene::new(manifests, &["p1"]).status(1);
        let accepted = status.conditions.iter().find(|it| it.type_ == "Accepted").expect("a condition");
        assert_eq!(accepted.status, "True");
        accepted.message.clone()
    };
    assert!(!message(WORLD).contains("warning"));
    let one = WORLD.replacen("port: 1}}", "port: 1}, priority: 2}", 1);
    assert!(message(&one).ends_with(
        "; warning: priority 2 in listener 'a' has no effect: no backend of the listener has another priority"
    ));
    let two = one.replacen("port: 2}}", "port: 2}, weight: 5}", 1);
    assert!(message(&two).ends_with("(and 1 more)"), "{}", message(&two));
}

#[test]
fn a_forward_is_not_ready_in_a_gateway_without_a_ready_proxy() {
    let mut scene = Scene::new(WORLD, &[]);
    scene.fleets.values_mut().for_each(|fleet| fleet.ready = 0);
    assert_eq!(condition(&scene.status(1), "Ready"), pair("False", "NoProxies"));
}

#[test]
fn a_forward_is_ready_in_sidecars_although_there_are_no_pods() {
    let sidecar = WORLD.replace("gateway: {name: edge}}", "sidecar: {selector: {}}}");
    let mut scene = Scene::new(&sidecar, &[]);
    assert_eq!(
        condition(&scene.status(1), "Ready"),
        pair("True", "NoMatchingPods"),
        "a GitOps sync wave must not wait for pods"
    );
}

#[test]
fn the_health_of_backends_sums_up_all_proxies_and_is_no_transition() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    let backends = |status: &PortForwardStatus| status.listeners[0].backends;
    assert_eq!(backends(&scene.status(1)), None, "no proxy has reported");
    scene.report("p1", &[]);
    scene.report("p2", &[]);
    let all = scene.status(2);
    assert_eq!(backends(&all), Some(crds::BackendHealth::All));
    scene.backends = BackendHealth::None;
    scene.report("p2", &[]);
    let some = scene.status(3);
    assert_eq!(backends(&some), Some(crds::BackendHealth::Some), "one proxy reports healthy backends, the other none");
    assert!(same_but_for_counts(&all, &some) && all != some);
    assert_eq!(condition(&some, "Ready"), pair("True", "Ready"));
    scene.report("p1", &[]);
    assert_eq!(backends(&scene.status(4)), Some(crds::BackendHealth::None));
    scene.backends = BackendHealth::All;
    scene.report("p1", &[]);
    scene.report("p2", &[]);
    assert_eq!(backends(&scene.status(5)), Some(crds::BackendHealth::All));
}

#[test]
fn what_only_a_person_can_fix_is_stalled() {
    let missing = WORLD.replace("address: {host: 192.0.2.1, port: 1}", "service: {name: none, port: 1}");
    let mut scene = Scene::new(&missing, &["p1"]);
    let status = scene.status(1);
    assert_eq!(condition(&status, "Ready"), pair("False", "BackendNotFound"));
    assert_eq!(condition(&status, "Stalled"), pair("", ""), "the Service may still be created");
    let invalid = WORLD.replace("port: 81", "port: 80");
    let status = Scene::new(&invalid, &["p1"]).status(1);
    assert_eq!(
        (condition(&status, "Ready"), condition(&status, "Stalled")),
        (pair("False", "Invalid"), pair("True", "Invalid"))
    );
    let suspended = WORLD.replace("placement:", "suspend: true\n  placement:");
    assert_eq!(condition(&Scene::new(&suspended, &["p1"]).status(1), "Ready"), pair("True", "Suspended"));
}

#[test]
fn the_first_pods_of_a_forward_have_30_seconds_to_report() {
    let manifests = WORLD.replace("placement: {gateway: {name: edge}}", "placement: {sidecar: {selector: {}}}");
    let mut scene = Scene::new(&manifests, &[]);
    assert_eq!(condition(&scene.status(0), "Programmed"), pair("True", "NoMatchingPods"));
    scene.world.pods.insert(pod("p1"), operator_core::Pod { carries: true, ..operator_core::Pod::default() });
    // Only the group of this pod remains.
    scene.world.gateways.clear();
    scene.fleets.clear();
    scene.publish(&["p1"]);
    assert_eq!(
        condition(&scene.status(5), "Programmed"),
        pair("True", "NoMatchingPods"),
        "the pod has only just appeared"
    );
    assert_eq!(condition(&scene.status(31), "Programmed"), pair("False", "ReportTimeout"));
    scene.report("p1", &[]);
    assert_eq!(condition(&scene.status(32), "Programmed"), pair("True", "Programmed"));
}

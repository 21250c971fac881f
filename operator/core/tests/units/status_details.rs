//! Parts of statuses: the sum over proxies, patches, load, and what an autoscaler says.

mod forward;

use std::collections::BTreeSet;

use crds::{Condition, DataPlaneStatus, ForwardAddress, ForwardGatewayStatus, PortForwardStatus};
use operator_core::{
    Ack, ConditionType, CrashLoop, DataPlane, Finding, NoScaler, PodIssue, PodMetric, Proxies, Truth, conditions,
    data_plane, scaling,
    status::{
        fleets::Fleets,
        patch::{addresses, all_of, all_of_gateway, findings_of, forward_addresses},
    },
    world::objects::{AutoscalerCondition, AutoscalerConditions, Object, PodInfo, ServiceInfo},
};
use proxy_api::{
    BackendHealth, ListenerId, ListenerReport, ListenerState, Load, Origin, ReportPart, Revision, Version, Work,
};
use serde_json::{Value, json};

use crate::scene::{Scene, app_pod, forward, key, side};

/// A cluster with the sidecar forward `web` and these pods, injected or not.
fn sidecars(injected: &[&str], uninjected: &[&str]) -> Scene {
    let mut scene = Scene::new();
    scene.see(forward(side("web", 80)));
    for name in injected {
        scene.see(Object::Pod(key(name), app_pod(name)));
    }
    for name in uninjected {
        scene.see(Object::Pod(key(name), PodInfo { uid: format!("uid-{name}"), ..PodInfo::default() }));
    }
    scene
}

fn sum(scene: &Scene, forward: &str) -> DataPlane {
    let verdict = scene.translator.verdict(&(&key(forward)).into()).expect("a verdict");
    data_plane(&(&key(forward)).into(), verdict, scene.fleets.all(), &scene.proxies)
}

const NINE: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

#[test]
fn eight_late_pods_are_named_and_all_are_counted() {
    let mut scene = sidecars(&NINE, &[]);
    let all = sum(&scene, "web");
    assert_eq!((all.total, all.acked), (9, 0));
    assert_eq!(all.late, NINE[..8].iter().map(|name| crate::scene::proxy(name)).collect::<Vec<_>>());
    scene.report("a", &[]);
    let one = sum(&scene, "web");
    assert_eq!((one.total, one.acked, one.late.len(), one.late[7].name()), (9, 1, 8, "i"));
}

#[test]
fn eight_rejections_are_named_and_all_are_counted() {
    let mut scene = sidecars(&NINE, &[]);
    for pod in NINE {
        scene.report(pod, &["a"]);
    }
    let all = sum(&scene, "web");
    assert_eq!((all.rejected_count, all.rejected.len(), all.acked, all.late.len()), (9, 8, 0, 0));
    assert_eq!((all.rejected[0].pod.as_str(), all.rejected[0].listener.as_str()), ("a", "a"));
}

#[test]
fn eight_pods_of_each_kind_of_issue_are_named_and_all_are_counted() {
    let uninjected = NINE.map(|name| format!("without-{name}"));
    let uninjected = uninjected.each_ref().map(String::as_str);
    let mut scene = sidecars(&NINE, &uninjected);
    let crash_loop = CrashLoop { container: "app".to_owned(), exit_code: 1 };
    for pod in NINE {
        let crash_loop = Some(crash_loop.clone());
        scene.see(Object::ProxyPod(key(pod), PodInfo { crash_loop, ..app_pod(pod) }));
    }
    let all = sum(&scene, "web");
    assert_eq!((all.total, all.uninjected, all.crash_looping), (18, 9, 9));
    let injected = all.issues.iter().filter(|(_, issue)| issue.injected).count();
    assert_eq!((all.issues.len(), injected), (16, 8));
}

#[test]
fn a_pod_whose_proxy_is_connected_has_one_however_it_was_created() {
    let mut scene = sidecars(&[], &["a", "b"]);
    assert_eq!((sum(&scene, "web").uninjected, sum(&scene, "web").issues.len()), (2, 2));
    scene.report("a", &[]);
    let one = sum(&scene, "web");
    assert_eq!((one.uninjected, one.acked, one.total), (1, 1, 2));
    let issues: Vec<(&str, bool)> = one.issues.iter().map(|(pod, issue)| (pod.as_str(), issue.injected)).collect();
    assert_eq!(issues, [("b", false)]);
}

#[test]
fn an_issue_of_a_pod_that_has_a_proxy_after_all_is_not_that_it_has_none() {
    let mut scene = sidecars(&[], &[]);
    let problem = Some("annotation".to_owned());
    scene.see(Object::Pod(key("a"), PodInfo { problem, ..PodInfo::default() }));
    scene.report("a", &[]);
    let one = sum(&scene, "web");
    assert_eq!((one.uninjected, one.issues.len(), one.issues[0].1.injected), (0, 1, true));
}

#[test]
fn a_pod_has_an_issue_if_it_has_no_proxy_or_something_is_wrong() {
    let pod = |carries, problem: Option<&str>| operator_core::Pod {
        carries,
        problem: problem.map(str::to_owned),
        ..operator_core::Pod::default()
    };
    let crash_loop = CrashLoop { container: "app".to_owned(), exit_code: 1 };
    assert_eq!(PodIssue::of(&pod(true, None), None), None);
    assert!(PodIssue::of(&pod(false, None), None).is_some_and(|issue| !issue.injected));
    assert!(PodIssue::of(&pod(true, Some("why")), None).is_some_and(|issue| issue.injected));
    let looping = PodIssue::of(&pod(true, None), Some(&crash_loop)).expect("an issue");
    assert_eq!((looping.injected, looping.crash_loop), (true, Some(crash_loop)));
}

#[test]
fn a_port_that_is_lost_in_some_pods_is_a_rejection_there() {
    let mut scene = Scene::new();
    let of = |name: &str, label: &str| {
        let mut manifest = side(name, 80);
        manifest["spec"]["placement"] = json!({"sidecar": {"selector": {"matchLabels": {label: "x"}}}});
        forward(manifest)
    };
    scene.see(of("one", "app"));
    scene.see(of("two", "tier"));
    let pod = |labels: &[&str]| {
        let labels = labels.iter().map(|label| ((*label).to_owned(), "x".to_owned())).collect();
        PodInfo { labels, ..PodInfo::default() }
    };
    scene.see(Object::Pod(key("both"), pod(&["app", "tier", "portlane.dev/proxy"])));
    scene.see(Object::Pod(key("second"), pod(&["tier", "portlane.dev/proxy"])));
    let two = sum(&scene, "two");
    assert_eq!((two.rejected_count, two.rejected[0].pod.as_str(), two.total), (1, "both", 2));
    assert_eq!(sum(&scene, "one").rejected_count, 0);
    // C14: the proxy of `both` runs everything that it was sent, and not the forward.
    scene.report("both", &[]);
    scene.report("second", &[]);
    let (one, two) = (sum(&scene, "one"), sum(&scene, "two"));
    assert_eq!((one.acked, one.total, two.acked, two.total), (1, 1, 1, 2));
    // The fleets are those of an operator that has not seen the pod yet: nothing is counted there.
    scene.fleets = Fleets::default();
    assert_eq!(sum(&scene, "two").rejected_count, 0);
}

#[test]
fn a_gateway_has_no_proxies_while_none_is_ready_and_a_sidecar_never_says_so() {
    let mut scene = Scene::with_web();
    assert!(!sum(&scene, "web").no_proxies);
    scene.see(Object::ProxyPod(key("p1"), crate::scene::fleet_pod("p1", false)));
    assert!(sum(&scene, "web").no_proxies);
    assert!(!sum(&sidecars(&["a"], &[]), "web").no_proxies);
}

fn id(listener: &str) -> ListenerId {
    format!("ns/web/{listener}").parse().expect("an id")
}

fn report(state: ListenerState, backends: BackendHealth) -> ListenerReport {
    ListenerReport { state, backends, ..ListenerReport::usual(Revision("r".into())) }
}

fn part(number: u64, listeners: &[(&str, ListenerReport)]) -> ReportPart {
    ReportPart {
        version: Version { epoch: "term".to_owned(), number },
        listeners: listeners.iter().map(|(name, report)| (id(name), report.clone())).collect(),
        commit: true,
        ..ReportPart::default()
    }
}

#[test]
fn a_proxy_that_agrees_runs_what_it_does_not_mention() {
    let (pod, mut proxies) = (crate::scene::proxy("p1"), Proxies::default());
    let ack = |proxies: &Proxies, since: u64| {
        proxies.get(&crate::scene::proxy("p1")).map(|state| state.ack(&id("a"), &Revision("r".into()), since))
    };
    assert!(proxies.reported(&pod, part(3, &[]), true).is_empty(), "it has no stream");
    assert_eq!((ack(&proxies, 3), proxies.connected_count()), (None, 0));
    proxies.connected(&pod);
    assert_eq!((ack(&proxies, 0), proxies.connected_count()), (Some(Ack::Pending), 1), "it has not agreed to anything");
    proxies.reported(&pod, part(3, &[]), true);
    assert_eq!((ack(&proxies, 3), ack(&proxies, 4)), (Some(Ack::Bound), Some(Ack::Pending)));
    proxies.reported(&pod, part(2, &[]), true);
    assert_eq!(ack(&proxies, 3), Some(Ack::Bound), "a number does not go back");
    proxies.moved(&pod);
    assert_eq!(ack(&proxies, 0), Some(Ack::Pending), "it should run something else");
    proxies.reported(&pod, part(4, &[]), false);
    assert_eq!(ack(&proxies, 4), Some(Ack::Pending), "it runs something else than was sent");
    proxies.gone(&pod);
    assert_eq!((ack(&proxies, 4), proxies.connected_count()), (None, 0));
}

#[test]
fn what_a_proxy_mentions_counts_for_that_revision() {
    let (pod, mut proxies) = (crate::scene::proxy("p1"), Proxies::default());
    proxies.connected(&pod);
    let bound = report(ListenerState::Bound, BackendHealth::All);
    assert_eq!(proxies.reported(&pod, part(1, &[("a", bound.clone())]), false), BTreeSet::from([id("a")]));
    let ack = |proxies: &Proxies, revision: &str| {
        proxies.get(&crate::scene::proxy("p1")).map(|state| state.ack(&id("a"), &Revision(revision.into()), 1))
    };
    assert_eq!((ack(&proxies, "r"), ack(&proxies, "other")), (Some(Ack::Bound), Some(Ack::Pending)));
    proxies.reported(&pod, part(1, &[("a", bound)]), true);
    assert_eq!(ack(&proxies, "other"), Some(Ack::Bound), "what is agreed on is not remembered one by one");
    let failed = report(ListenerState::Failed, BackendHealth::All);
    proxies.reported(&pod, part(1, &[("a", failed)]), true);
    assert_eq!(ack(&proxies, "r"), Some(Ack::Pending), "a failure without a reason says nothing");
    let some = report(ListenerState::Bound, BackendHealth::Some);
    proxies.reported(&pod, part(1, &[("a", some)]), true);
    let backends = |proxies: &Proxies| proxies.get(&crate::scene::proxy("p1")).map(|state| state.backends(&id("a")));
    assert_eq!((ack(&proxies, "r"), backends(&proxies)), (Some(Ack::Bound), Some(BackendHealth::Some)));
    let gone = ReportPart { gone: [id("a")].into(), ..part(1, &[]) };
    assert!(proxies.reported(&pod, gone, true).is_empty());
    assert_eq!(backends(&proxies), Some(BackendHealth::All));
}

#[test]
fn a_complete_report_replaces_all_before_it_and_a_part_commits_nothing() {
    let (pod, mut proxies) = (crate::scene::proxy("p1"), Proxies::default());
    proxies.connected(&pod);
    let some = report(ListenerState::Bound, BackendHealth::Some);
    let first = ReportPart { commit: false, ..part(5, &[("a", some)]) };
    proxies.reported(&pod, first, true);
    assert_eq!(proxies.get(&pod).map(|state| state.applied), Some(0), "it is not complete yet");
    let whole = ReportPart { whole: true, ..part(5, &[]) };
    assert_eq!(proxies.reported(&pod, whole, true), BTreeSet::from([id("a")]));
    assert_eq!(proxies.get(&pod).map(|state| (state.applied, state.backends(&id("a")))), Some((5, BackendHealth::All)));
}

#[test]
fn metrics_of_pods_have_names_and_are_found_by_them() {
    let names = ["portlane_connections", "portlane_new_connections_per_second", "portlane_bytes_per_second"];
    assert_eq!(PodMetric::ALL.map(PodMetric::name), names);
    for metric in PodMetric::ALL {
        assert_eq!(PodMetric::named(metric.name()), Some(metric));
    }
    assert_eq!(PodMetric::named("other"), None);
    let (pod, mut proxies) = (crate::scene::proxy("p1"), Proxies::default());
    proxies.connected(&pod);
    let sum = Work { connections: 1, new_per_second: 2, bytes_per_second: 3 };
    proxies.loaded(&pod, Load { sum, ..Load::default() });
    assert_eq!(PodMetric::ALL.map(|metric| proxies.load(&pod, metric, None)), [Some(1), Some(2), Some(3)]);
}

#[test]
fn an_idle_proxy_has_nothing_to_do_for_any_forward() {
    let (pod, mut proxies) = (crate::scene::proxy("p1"), Proxies::default());
    proxies.connected(&pod);
    proxies.loaded(&pod, Load::default());
    assert_eq!(proxies.load(&pod, PodMetric::Connections, Some(&Origin::port_forward("ns", "web"))), Some(0));
}

#[test]
fn an_autoscaler_that_has_said_nothing_is_pending() {
    assert_eq!(scaling(Ok(()), None).reason, "Pending");
    let empty = AutoscalerConditions::default();
    assert_eq!(
        (scaling(Ok(()), Some(&empty)).status, scaling(Ok(()), None).type_),
        (Truth::Unknown, ConditionType::ScalingActive)
    );
    let why = NoScaler { reason: "TargetNotFound", message: "m".to_owned() };
    assert_eq!(
        (scaling(Err(&why), Some(&empty)).status, scaling(Err(&why), None).reason.as_str()),
        (Truth::False, "TargetNotFound")
    );
}

#[test]
fn only_metrics_of_pods_and_objects_need_the_metrics_api() {
    let reason = |reason: &str, message: &str| {
        let active = AutoscalerCondition { holds: false, reason: reason.to_owned(), message: message.to_owned() };
        scaling(Ok(()), Some(&AutoscalerConditions { able: None, active: Some(active) })).reason
    };
    let absent = "no known available metric versions found";
    assert_eq!(reason("FailedGetObjectMetric", "no custom metrics API is registered"), "NoMetricsProvider");
    assert_eq!(reason("FailedGetResourceMetric", absent), "FailedGetResourceMetric");
    assert_eq!(reason("FailedGetPodsMetric", "timeout"), "FailedGetPodsMetric");
}

fn condition(type_: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        observed_generation: None,
        last_transition_time: "then".to_owned(),
        reason: "R".to_owned(),
        message: message.to_owned(),
    }
}

#[test]
fn a_patch_takes_away_what_a_status_lacks() {
    let status = PortForwardStatus { observed_generation: Some(2), ..PortForwardStatus::default() };
    let patch = all_of(&status);
    for field in ["conditions", "listeners", "dataPlane", "ports", "to", "placement", "addresses"] {
        assert_eq!(patch.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(patch["observedGeneration"], 2);
    let counts = Some(DataPlaneStatus { total: 1, acked: 1, summary: "1/1".to_owned(), ..DataPlaneStatus::default() });
    let patch = all_of(&PortForwardStatus { data_plane: counts, ports: Some("80/TCP".to_owned()), ..status });
    assert_eq!(patch["dataPlane"].get("rejected"), Some(&Value::Null));
    assert_eq!((&patch["dataPlane"]["summary"], &patch["ports"]), (&json!("1/1"), &json!("80/TCP")));
    let gateway = all_of_gateway(&ForwardGatewayStatus { replicas: Some(1), ..ForwardGatewayStatus::default() });
    assert_eq!(
        gateway,
        json!({"replicas": 1, "conditions": null, "addresses": null, "drainingClaims": null, "proxyImage": null})
    );
}

#[test]
fn findings_alone_leave_the_rest_of_a_status() {
    let conditions = vec![condition("Ready", "m")];
    let status = PortForwardStatus {
        observed_generation: Some(2),
        conditions,
        ports: Some("80/TCP".to_owned()),
        ..PortForwardStatus::default()
    };
    let patch = findings_of(&status);
    assert_eq!((&patch["observedGeneration"], &patch["conditions"][0]["type"]), (&json!(2), &json!("Ready")));
    assert_eq!(patch.get("ports"), None);
}

#[test]
fn a_forward_is_reached_at_the_addresses_of_its_own_gateway() {
    let mut scene = Scene::with_web();
    let of = |scene: &Scene, name: &str| {
        let verdict = scene.translator.verdict(&(&key(name)).into()).expect("a verdict");
        addresses(verdict, &scene.cache)
    };
    assert!(of(&scene, "web").is_empty());
    let service = |gateway: &str| {
        let addresses = vec![("Hostname".to_owned(), "lb.example.com".to_owned())];
        Object::Service(
            key("edge"),
            ServiceInfo { addresses, gateway: Some(gateway.to_owned()), ..ServiceInfo::default() },
        )
    };
    scene.see(service("other"));
    assert!(of(&scene, "web").is_empty(), "a Service of another owner");
    scene.see(service("edge"));
    let expected = ForwardAddress { type_: "Hostname".to_owned(), value: "lb.example.com".to_owned() };
    assert_eq!(of(&scene, "web"), [expected]);
    scene.see(forward(side("app", 81)));
    assert!(of(&scene, "app").is_empty());
}

#[test]
fn sixteen_addresses_are_all_that_a_status_has() {
    let addresses: Vec<(String, String)> = (0..20).map(|at| ("IPAddress".to_owned(), at.to_string())).collect();
    let short = forward_addresses(&addresses);
    assert_eq!((short.len(), short[15].value.as_str(), short[0].type_.as_str()), (16, "15", "IPAddress"));
}

#[test]
fn the_time_of_a_condition_is_that_of_its_own_type_and_status() {
    let old = [condition("Accepted", "m"), Condition { status: "False".to_owned(), ..condition("Ready", "m") }];
    let finding = |type_, status| Finding::new(type_, status, "R", "x".repeat(5000));
    let new = conditions(
        &old,
        vec![finding(ConditionType::Accepted, Truth::True), finding(ConditionType::Ready, Truth::True)],
        Some(7),
        "now",
    );
    let times: Vec<&str> = new.iter().map(|condition| condition.last_transition_time.as_str()).collect();
    assert_eq!(times, ["then", "now"]);
    assert!(new.iter().all(|condition| condition.message.len() == 4096 && condition.observed_generation == Some(7)));
}

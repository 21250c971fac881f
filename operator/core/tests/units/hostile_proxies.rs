//! What one proxy, or one namespace, can make the operator store and do.

use std::time::Duration;

use operator_core::{
    Ack, Cache, Carrier, DrainRates, EventRates, ObjectKey, Proxies, ProxyId, Recent, World,
    status::proxies::{ALL_FAILURE_TEXTS, FAILURE_TEXTS, LISTENERS},
    world::{
        objects::{Object, PodInfo},
        watched::{Kind, Seen, Source},
    },
};
use proptest::prelude::*;
use proxy_api::{
    BackendHealth, Failure, FailureReason, ListenerId, ListenerReport, ListenerState, Origin, ReportPart, Revision,
};

use crate::scene::{key, proxy};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(at: usize) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", "web"), format!("l{at}"))
}

fn revision() -> Revision {
    Revision("r".into())
}

/// A report that these listeners fail, with messages of this many bytes.
fn failed(listeners: impl IntoIterator<Item = usize>, bytes: usize) -> ReportPart {
    let failure = || Failure { reason: FailureReason::BindFailed, message: "m".repeat(bytes), serving: None };
    let report = || ListenerReport {
        reached: None,
        looped: false,
        delivery: None,
        revision: revision(),
        state: ListenerState::Failed,
        failure: Some(failure()),
        backends: BackendHealth::All,
    };
    ReportPart {
        listeners: listeners.into_iter().map(|at| (id(at), report())).collect(),
        commit: true,
        ..ReportPart::default()
    }
}

fn messages(proxies: &Proxies, listeners: usize) -> Vec<String> {
    let state = proxies.get(&proxy("p")).expect("connected");
    let message = |at: usize| match state.ack(&id(at), &revision(), 0) {
        Ack::Failed(failure) => failure.message,
        other => panic!("listener {at} is {other:?}"),
    };
    (0..listeners).map(message).collect()
}

// C2
#[test]
fn messages_of_failures_have_a_budget_for_each_proxy_and_no_failure_is_lost() {
    let mut proxies = Proxies::default();
    proxies.connected(&proxy("p"));
    proxies.reported(&proxy("p"), failed(0..200, 1024), true);
    let kept = messages(&proxies, 200);
    let whole = kept.iter().filter(|message| message.len() == 1024).count();
    assert_eq!(whole, FAILURE_TEXTS / 1024);
    assert!(kept.iter().all(|message| message.len() == 1024 || message.contains("see the log of the proxy")));
    // Other messages replace the earlier ones, and a complete report starts over.
    proxies.reported(&proxy("p"), failed(0..200, 1), true);
    proxies.reported(&proxy("p"), failed(0..2, 1024), true);
    assert_eq!(messages(&proxies, 2).concat().len(), 2048);
    proxies.reported(&proxy("p"), failed(0..200, 1024), true);
    proxies.reported(&proxy("p"), ReportPart { whole: true, ..failed(0..60, 1024) }, true);
    assert_eq!(messages(&proxies, 60).concat().len(), 60 * 1024);
}

// C2
#[test]
fn a_message_that_is_replaced_leaves_its_room_to_others() {
    let mut proxies = Proxies::default();
    proxies.connected(&proxy("p"));
    let fitting = FAILURE_TEXTS / 1024;
    for bytes in [1024, 1, 1024] {
        proxies.reported(&proxy("p"), failed(0..fitting, bytes), true);
    }
    assert!(messages(&proxies, fitting).iter().all(|message| message.len() == 1024));
}

/// The failure of a listener of a proxy.
fn failure(proxies: &Proxies, name: &str, at: usize) -> Option<Failure> {
    match proxies.get(&proxy(name))?.ack(&id(at), &revision(), 0) {
        Ack::Failed(failure) => Some(failure),
        Ack::Bound | Ack::Pending => None,
    }
}

// C2
#[test]
fn messages_of_all_proxies_have_a_budget_and_a_failure_beyond_it_counts_with_its_reason() {
    let mut proxies = Proxies::default();
    let liars: Vec<String> = (0..ALL_FAILURE_TEXTS / FAILURE_TEXTS).map(|at| format!("liar{at}")).collect();
    for name in liars.iter().map(String::as_str).chain(["honest"]) {
        proxies.connected(&proxy(name));
        proxies.reported(&proxy(name), failed([0], FAILURE_TEXTS), true);
    }
    let bytes = |name: &str| failure(&proxies, name, 0).expect("it fails").message.len();
    assert!(liars.iter().all(|name| bytes(name) == FAILURE_TEXTS), "who comes first keeps its message");
    let honest = failure(&proxies, "honest", 0).expect("it fails");
    assert_eq!(honest.reason, FailureReason::BindFailed);
    assert!(honest.message.starts_with("the message of this failure was discarded, "), "{}", honest.message);
    // The proxy reports again after a liar has left.
    proxies.gone(&proxy("liar0"));
    proxies.reported(&proxy("honest"), failed([0], 100), true);
    assert_eq!(failure(&proxies, "honest", 0).expect("it fails").message.len(), 100);
}

// C2
#[test]
fn a_fixed_message_takes_no_room_whoever_wrote_it() {
    let mut proxies = Proxies::with_room(200);
    proxies.connected(&proxy("p"));
    proxies.reported(&proxy("p"), failed([0], 201), true);
    let mut copied = failed([1], 0);
    for report in copied.listeners.values_mut() {
        report.failure = failure(&proxies, "p", 0);
    }
    proxies.reported(&proxy("p"), copied, true);
    proxies.reported(&proxy("p"), failed([0, 1], 100), true);
    assert!(messages(&proxies, 2).iter().all(|message| message.len() == 100), "both fit");
}

/// What happens to a proxy.
#[derive(Clone, Debug)]
enum Step {
    Reports(Box<ReportPart>),
    Connects,
    Ends,
    Leaves,
}

/// The proxies of the property.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Bytes for all of their messages.
const ROOM: usize = 1000;

fn step() -> impl Strategy<Value = Step> {
    let listeners = || prop::collection::btree_set(0_usize..6, 0..6);
    let failing = (any::<bool>(), listeners(), 0_usize..400)
        .prop_map(|(whole, failing, bytes)| Step::Reports(Box::new(ReportPart { whole, ..failed(failing, bytes) })));
    let removed = listeners().prop_map(|removed| {
        Step::Reports(Box::new(ReportPart { gone: removed.into_iter().map(id).collect(), ..failed([], 0) }))
    });
    prop_oneof![4 => failing, 2 => removed, 1 => Just(Step::Connects), 1 => Just(Step::Ends), 1 => Just(Step::Leaves)]
}

fn happen(proxies: &mut Proxies, id: &ProxyId, step: Step) {
    match step {
        Step::Reports(part) => {
            if proxies.get(id).is_none() {
                proxies.connected(id);
            }
            proxies.reported(id, *part, true);
        }
        Step::Connects => proxies.connected(id),
        Step::Ends => proxies.ended(id, seconds(0)),
        Step::Leaves => proxies.gone(id),
    }
}

/// The failures of some proxies.
fn failures<'a>(proxies: &Proxies, names: impl IntoIterator<Item = &'a str>) -> Vec<Failure> {
    names.into_iter().flat_map(|name| (0..6).filter_map(move |at| failure(proxies, name, at))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    // C2
    #[test]
    fn whatever_proxies_report_and_whoever_leaves_the_sum_of_messages_is_bounded_and_others_keep_theirs(
        steps in prop::collection::vec((prop::sample::select(NAMES.to_vec()), step()), 1..40),
    ) {
        let mut proxies = Proxies::with_room(ROOM);
        for (name, step) in steps {
            let others: Vec<&str> = NAMES.into_iter().filter(|other| *other != name).collect();
            let before = failures(&proxies, others.iter().copied());
            happen(&mut proxies, &proxy(name), step);
            prop_assert_eq!(failures(&proxies, others), before);
            // The messages of these proxies have no other letter, and the fixed ones do not start with it.
            let all = failures(&proxies, NAMES);
            let kept = all.iter().filter(|failure| failure.message.starts_with('m')).map(|failure| failure.message.len());
            let sum: usize = kept.sum();
            prop_assert!(sum <= ROOM, "{sum} bytes");
        }
        for name in NAMES {
            proxies.gone(&proxy(name));
        }
        happen(&mut proxies, &proxy("a"), Step::Reports(Box::new(failed([0], ROOM))));
        prop_assert_eq!(failure(&proxies, "a", 0).map(|failure| failure.message.len()), Some(ROOM), "all room is back");
    }
}

// C2
#[test]
fn an_agreement_implies_nothing_once_listeners_were_left_out_until_a_complete_report() {
    let mut proxies = Proxies::default();
    proxies.connected(&proxy("p"));
    proxies.reported(&proxy("p"), failed(0..LISTENERS, 0), true);
    let ack = |proxies: &Proxies, at: usize| proxies.get(&proxy("p")).expect("connected").ack(&id(at), &revision(), 0);
    assert_eq!(ack(&proxies, LISTENERS), Ack::Bound, "every failure was kept");
    proxies.reported(&proxy("p"), failed([LISTENERS], 0), true);
    assert_eq!(ack(&proxies, LISTENERS), Ack::Pending, "there was no room for its failure");
    proxies.reported(&proxy("p"), ReportPart { whole: true, ..failed([], 0) }, true);
    assert_eq!(ack(&proxies, LISTENERS), Ack::Bound);
}

// C12
#[test]
fn the_ends_of_drains_are_few_for_one_proxy_and_one_namespace_and_others_have_theirs() {
    let mut rates = DrainRates::default();
    let pod = |namespace: &str, at: usize| ProxyId::Pod(ObjectKey::new(namespace, format!("p{at}")));
    let admitted = |rates: &mut DrainRates, proxy: &ProxyId, now| (0..100).filter(|_| rates.admits(proxy, now)).count();
    assert_eq!(admitted(&mut rates, &pod("a", 0), seconds(0)), 2);
    let others: usize = (1..100).map(|at| admitted(&mut rates, &pod("a", at), seconds(0))).sum();
    assert_eq!(others, 18, "a namespace has twenty");
    assert_eq!(admitted(&mut rates, &pod("b", 0), seconds(0)), 2, "another namespace has its own");
    assert_eq!(admitted(&mut rates, &pod("a", 0), seconds(301)), 1, "a restarted container later on");
}

#[test]
fn a_drain_counts_only_while_its_proxy_is_connected() {
    let mut proxies = Proxies::default();
    assert!(!proxies.drained(&proxy("p"), seconds(0)));
    proxies.connected(&proxy("p"));
    assert!(proxies.drained(&proxy("p"), seconds(0)));
}

// C12
#[test]
fn no_namespace_takes_the_room_of_the_events_of_another() {
    let mut rates = EventRates::default();
    let admitted = |rates: &mut EventRates, namespace, now| (0..1000).filter(|_| rates.admits(namespace, now)).count();
    assert_eq!(admitted(&mut rates, "loud", seconds(0)), 150);
    assert_eq!(admitted(&mut rates, "loud", seconds(2)), 10);
    assert_eq!(admitted(&mut rates, "quiet", seconds(2)), 150);
}

// C10
#[test]
fn an_answer_holds_for_its_time_and_the_oldest_leaves_for_another() {
    let mut recent = Recent::new(seconds(10), 2);
    recent.put("a", 1, seconds(0));
    recent.put("b", 2, seconds(1));
    recent.put("a", 3, seconds(9));
    assert_eq!((recent.get("a", seconds(9)), recent.get("b", seconds(9))), (Some(3), Some(2)));
    assert_eq!((recent.get("a", seconds(10)), recent.get("b", seconds(10))), (None, Some(2)), "it was not prolonged");
    recent.put("c", 4, seconds(10));
    recent.put("d", 5, seconds(10));
    assert_eq!((recent.get("b", seconds(10)), recent.get("c", seconds(10)), recent.len()), (None, Some(4), 2));
    assert!(!recent.is_empty());
    assert_eq!(recent.get("d", seconds(20)), None);
    assert!(recent.is_empty());
}

#[test]
fn a_cache_without_room_keeps_the_last_answer() {
    let mut recent = Recent::new(seconds(10), 0);
    recent.put("a", 1, seconds(0));
    assert_eq!(recent.get("a", seconds(0)), Some(1));
    recent.put("b", 2, seconds(0));
    assert_eq!((recent.get("a", seconds(0)), recent.get("b", seconds(0)), recent.len()), (None, Some(2), 1));
}

fn pod(labels: &[(&str, &str)], service_account: &str) -> PodInfo {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let labels: std::collections::BTreeMap<String, String> = labels.collect();
    PodInfo {
        uid: "u".to_owned(),
        gateway: labels.get("portlane.dev/gateway").cloned(),
        drains: labels.get("portlane.dev/drains").cloned(),
        labels,
        service_account: service_account.to_owned(),
        ..PodInfo::default()
    }
}

/// The role of the pod `p`, whose token belongs to the `ServiceAccount` of its spec, or to another one.
fn carrier(labels: &[(&str, &str)], service_account: &str, claimed: &str) -> Carrier {
    let proxies = Source { kind: Kind::ProxyPods, namespace: None };
    let mut cache = Cache::new(World::default(), [proxies.clone()]);
    let object = Object::ProxyPod(key("p"), pod(labels, service_account));
    drop(cache.apply(&proxies, Seen::Upsert(Box::new(object))));
    cache.carrier(&key("p"), "u", claimed)
}

// C2
#[test]
fn only_pods_of_fleets_and_pods_with_a_sidecar_may_follow() {
    let (proxy, gateway) = ("portlane.dev/proxy", "portlane.dev/gateway");
    let unexpected = |labels: &[(&str, &str)]| matches!(carrier(labels, "edge", "edge"), Carrier::Unexpected(_));
    let fleet = [(proxy, "gateway"), (gateway, "edge")];
    assert_eq!(carrier(&fleet, "edge", "edge"), Carrier::Gateway(key("edge")));
    assert_eq!(carrier(&[(proxy, "sidecar")], "app", "app"), Carrier::Sidecar, "whether a forward selects it or not");
    assert_eq!(carrier(&fleet, "edge", "other"), Carrier::Unknown, "the token is of another pod");
    assert!(matches!(carrier(&fleet, "app", "app"), Carrier::Unexpected(why) if why.contains("ServiceAccount")));
    let drainer = [(proxy, "drainer"), ("portlane.dev/drains", "edge")];
    assert_eq!(carrier(&drainer, "edge", "edge"), Carrier::Gateway(key("edge")), "it sends what a claim has");
    assert!(matches!(carrier(&drainer, "app", "app"), Carrier::Unexpected(why) if why.contains("ServiceAccount")));
    assert!(unexpected(&[(proxy, "drainer")]) && unexpected(&[drainer[0], drainer[1], (gateway, "edge")]));
    assert!(unexpected(&[(proxy, "x")]));
    let why = |labels: &[(&str, &str)]| match carrier(labels, "edge", "edge") {
        Carrier::Unexpected(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(&[(proxy, "gateway")]).contains("has no label portlane.dev/gateway"));
    assert!(why(&[(proxy, "sidecar"), (gateway, "edge")]).contains("a sidecar has the label portlane.dev/gateway"));
}

// C2
#[test]
fn a_pod_without_the_label_may_not_follow_and_a_pod_that_is_not_known_yet_tries_again() {
    let pods = Source { kind: Kind::Pods, namespace: Some("ns".to_owned()) };
    let mut cache = Cache::new(World::default(), [pods.clone()]);
    assert_eq!(cache.carrier(&key("p"), "u", "app"), Carrier::Unknown);
    drop(cache.apply(&pods, Seen::Upsert(Box::new(Object::Pod(key("p"), pod(&[], ""))))));
    assert!(matches!(cache.carrier(&key("p"), "u", "app"), Carrier::Unexpected(_)));
    assert_eq!(cache.carrier(&key("p"), "older", "app"), Carrier::Unknown);
    let labelled = Object::Pod(key("p"), pod(&[("portlane.dev/proxy", "sidecar")], ""));
    drop(cache.apply(&pods, Seen::Upsert(Box::new(labelled))));
    assert_eq!(cache.carrier(&key("p"), "u", "app"), Carrier::Unknown, "the watch of proxies shows it soon");
}

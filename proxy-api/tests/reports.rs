//! Reports of a proxy: the parts of a report, and the implied state of a listener that no part names.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy_api::{
    BackendHealth, CONTRACT, Delivery, Digest, ListenerId, ListenerReport, ListenerState, ReachedLimit, Report,
    ReportPart, Revision, Version,
};

fn id(name: &str) -> ListenerId {
    format!("ns/forward/{name}").parse().expect("a listener id")
}

fn state(state: ListenerState, backends: BackendHealth) -> ListenerReport {
    ListenerReport { state, backends, ..ListenerReport::usual(Revision("r".into())) }
}

const BOUND: (ListenerState, BackendHealth) = (ListenerState::Bound, BackendHealth::All);
const DEGRADED: (ListenerState, BackendHealth) = (ListenerState::Bound, BackendHealth::Some);
const FAILED: (ListenerState, BackendHealth) = (ListenerState::Failed, BackendHealth::All);

fn report(listeners: &[(&str, (ListenerState, BackendHealth))]) -> Report {
    Report {
        version: Version { epoch: "e".to_owned(), number: 7 },
        listeners: listeners.iter().map(|(name, (now, backends))| (id(name), state(*now, *backends))).collect(),
        ..Report::default()
    }
}

fn digest() -> Digest {
    Digest("d".repeat(32))
}

/// Names of the listeners of a part; a minus marks ended listeners.
fn named(part: &ReportPart) -> String {
    let listeners = part.listeners.keys().map(|id| id.listener.clone());
    let gone = part.gone.iter().map(|id| format!("-{}", id.listener));
    listeners.chain(gone).collect::<Vec<_>>().join(" ")
}

fn all_named(parts: &[ReportPart]) -> Vec<String> {
    parts.iter().map(named).collect()
}

#[test]
fn only_a_bound_listener_with_all_backends_healthy_is_usual() {
    for (now, is_usual) in [
        (BOUND, true),
        (DEGRADED, false),
        ((ListenerState::Bound, BackendHealth::None), false),
        (FAILED, false),
        ((ListenerState::Draining, BackendHealth::All), false),
        ((ListenerState::Draining, BackendHealth::Some), false),
    ] {
        assert_eq!(state(now.0, now.1).is_usual(), is_usual, "{now:?}");
    }
}

#[test]
fn a_reached_limit_is_news_and_one_of_a_newer_proxy_is_read_as_unknown() {
    let usual = state(ListenerState::Bound, BackendHealth::All);
    assert!(usual.is_usual());
    let limits =
        [(ReachedLimit::Tenant, "Tenant"), (ReachedLimit::Source, "Source"), (ReachedLimit::Lookups, "Lookups")];
    for (limit, text) in limits {
        let limited = ListenerReport { reached: Some(limit), ..usual.clone() };
        assert!(!limited.is_usual());
        let json = serde_json::json!({"revision": "r", "state": "Bound", "reached": text});
        assert_eq!(serde_json::to_value(&limited).expect("encodes"), json);
        assert_eq!(serde_json::from_value::<ListenerReport>(json).expect("decodes"), limited);
    }
    let newer = serde_json::json!({"revision": "r", "state": "Bound", "reached": "Memory"});
    let read: ListenerReport = serde_json::from_value(newer).expect("decodes");
    assert_eq!(read.reached, Some(ReachedLimit::Unknown));
}

#[test]
fn a_loop_is_news_beside_a_reached_limit_and_an_older_proxy_reports_none() {
    let usual = state(ListenerState::Bound, BackendHealth::All);
    let older = serde_json::json!({"revision": "r", "state": "Bound"});
    assert_eq!(serde_json::to_value(&usual).expect("encodes"), older);
    assert_eq!(serde_json::from_value::<ListenerReport>(older).expect("decodes"), usual);
    let looped = ListenerReport { looped: true, reached: Some(ReachedLimit::Tenant), ..usual.clone() };
    assert!(!looped.is_usual() && !ListenerReport { looped: true, ..usual }.is_usual());
    let json = serde_json::json!({"revision": "r", "state": "Bound", "reached": "Tenant", "looped": true});
    assert_eq!(serde_json::to_value(&looped).expect("encodes"), json);
    assert_eq!(serde_json::from_value::<ListenerReport>(json).expect("decodes"), looped);
}

#[test]
fn the_delivery_of_a_durable_listener_is_news_and_one_of_a_newer_proxy_is_read_as_unknown() {
    let usual = state(ListenerState::Bound, BackendHealth::All);
    let stalled = ListenerReport { delivery: Some(Delivery::Stalled), ..usual.clone() };
    let flowing = ListenerReport { delivery: Some(Delivery::Flowing), ..usual };
    assert!(!stalled.is_usual() && !flowing.is_usual());
    let json = serde_json::json!({"revision": "r", "state": "Bound", "delivery": "Stalled"});
    assert_eq!(serde_json::to_value(&stalled).expect("encodes"), json);
    assert_eq!(serde_json::from_value::<ListenerReport>(json).expect("decodes"), stalled);
    let newer = serde_json::json!({"revision": "r", "state": "Bound", "delivery": "Sideways"});
    let read: ListenerReport = serde_json::from_value(newer).expect("decodes");
    assert_eq!(read.delivery, Some(Delivery::Unknown));
    let all = [Delivery::Flowing, Delivery::Behind, Delivery::Stalled, Delivery::Full, Delivery::StoreFailed];
    assert!(all.is_sorted());
}

#[test]
fn healthy_backends_are_not_written_and_an_absent_health_means_all() {
    let json = |now: (ListenerState, BackendHealth)| serde_json::to_value(state(now.0, now.1)).expect("encodes");
    assert_eq!(json(BOUND), serde_json::json!({"revision": "r", "state": "Bound"}));
    assert_eq!(json(DEGRADED), serde_json::json!({"revision": "r", "state": "Bound", "backends": "Some"}));
    let read: ListenerReport = serde_json::from_value(json(BOUND)).expect("decodes");
    assert_eq!(read, state(BOUND.0, BOUND.1));
}

#[test]
fn the_first_report_on_a_stream_is_whole_and_names_every_listener_unless_both_sides_agree() {
    let now = report(&[("a", BOUND), ("b", DEGRADED), ("c", FAILED)]);
    let parts = now.parts_since(None, &digest(), false, 9);
    assert_eq!(all_named(&parts), ["a b c"]);
    let part = &parts[0];
    assert_eq!((part.contract, &part.version, &part.digest), (CONTRACT, &now.version, &digest()));
    assert!(part.whole && part.commit);
    assert_eq!(part.listeners, now.listeners);
    let agreed = now.parts_since(None, &digest(), true, 9);
    assert_eq!(all_named(&agreed), ["b c"], "a listener in the usual state is implied");
    assert!(agreed[0].whole);
}

#[test]
fn a_later_report_names_changed_and_ended_listeners() {
    let before = report(&[("a", BOUND), ("b", DEGRADED), ("c", BOUND), ("d", FAILED)]);
    let now = report(&[("a", BOUND), ("b", BOUND), ("d", FAILED), ("e", BOUND)]);
    for agreed in [false, true] {
        let parts = now.parts_since(Some(&before), &digest(), agreed, 9);
        assert_eq!(all_named(&parts), ["b e -c"], "also a listener that is in the usual state again");
        assert!(!parts[0].whole && parts[0].commit);
    }
}

/// All reports of three listeners, each of which is absent, bound or failed.
fn all_reports() -> Vec<Report> {
    let of = |number: usize| {
        let states = [number % 3, number / 3 % 3, number / 9].map(|state| [None, Some(BOUND), Some(FAILED)][state]);
        let listeners = ["a", "b", "c"].into_iter().zip(states).filter_map(|(name, state)| Some((name, state?)));
        report(&listeners.collect::<Vec<_>>())
    };
    (0..27).map(of).collect()
}

#[test]
fn the_parts_name_what_changed_what_is_new_and_what_is_gone() {
    for (before, now) in all_reports().iter().flat_map(|now| all_reports().into_iter().map(move |before| (before, now)))
    {
        let is_news = |id: &ListenerId, state: &ListenerReport| before.listeners.get(id) != Some(state);
        let news = now.listeners.iter().filter(|(id, state)| is_news(id, state)).map(|(id, _)| id.listener.clone());
        let gone = before.listeners.keys().filter(|id| !now.listeners.contains_key(*id));
        let expected: Vec<String> = news.chain(gone.map(|id| format!("-{}", id.listener))).collect();
        for per_part in 1..4 {
            let parts = now.parts_since(Some(&before), &digest(), true, per_part);
            assert_eq!(all_named(&parts).join(" "), expected.join(" "), "{before:?} {now:?}");
            let mut states = parts.iter().flat_map(|part| &part.listeners);
            assert!(states.all(|(id, state)| now.listeners.get(id) == Some(state)), "{before:?} {now:?}");
            let all = ["a", "b", "c", "d"].map(id).into();
            assert_eq!(now.parts_among(&before, &all, &digest(), per_part), parts, "{before:?} {now:?}");
        }
    }
}

#[test]
fn of_listeners_that_may_differ_no_others_are_looked_at() {
    let before = report(&[("a", BOUND), ("b", BOUND), ("c", BOUND), ("d", BOUND)]);
    // A comparison of all entries would name the last two as well.
    let now = report(&[("a", FAILED), ("c", FAILED)]);
    let parts = now.parts_among(&before, &["a", "b"].map(id).into(), &digest(), 9);
    assert_eq!(all_named(&parts), ["a -b"]);
    assert!(!parts[0].whole && parts[0].commit);
}

#[test]
fn a_report_without_news_is_one_empty_part() {
    let now = report(&[("a", BOUND), ("b", FAILED)]);
    let parts = now.parts_since(Some(&now), &digest(), true, 9);
    let expected = ReportPart {
        contract: CONTRACT,
        version: now.version.clone(),
        digest: digest(),
        commit: true,
        ..ReportPart::default()
    };
    assert_eq!(parts, [expected]);
}

#[test]
fn the_parts_of_a_report_are_filled_and_only_the_last_one_commits() {
    let before = report(&[("x", BOUND), ("y", BOUND)]);
    let now = report(&[("a", BOUND), ("b", BOUND), ("c", BOUND)]);
    let parts = now.parts_since(Some(&before), &digest(), false, 2);
    assert_eq!(all_named(&parts), ["a b", "c -x", "-y"]);
    assert_eq!(parts.iter().map(|part| part.commit).collect::<Vec<_>>(), [false, false, true]);
    let whole = now.parts_since(None, &digest(), false, 2);
    assert_eq!(all_named(&whole), ["a b", "c"]);
    assert_eq!(whole.iter().map(|part| part.whole).collect::<Vec<_>>(), [true, false]);
    for part in &whole {
        assert_eq!((part.contract, &part.version, &part.digest), (CONTRACT, &now.version, &digest()));
    }
    assert_eq!(now.parts_since(None, &digest(), false, 0).len(), 3, "a part has at least one listener");
}

#[test]
fn a_report_states_the_contract_of_its_proxy() {
    assert_eq!(Report::default().contract, CONTRACT);
}

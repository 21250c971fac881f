//! The state that the admin page shows.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy::core::{
    backends::{
        balance::Entry,
        endpoint::{Checked, Endpoint},
    },
    control::page::{ALL_ENDPOINTS, Backend, ENDPOINTS, Health, LISTENERS, Seen, Tally, Totals, backend, shown, state},
};
use proxy_api::{
    BackendHealth, Failure, FailureReason, ListenerId, ListenerReport, ListenerState, Outlier, Report, Revision,
};

fn id(text: &str) -> ListenerId {
    text.parse().expect("an id")
}

fn report(listeners: impl IntoIterator<Item = (ListenerId, ListenerState)>) -> Report {
    let entry = |state| ListenerReport {
        revision: Revision::default(),
        state,
        failure: (state == ListenerState::Failed).then(|| Failure {
            reason: FailureReason::AddressInUse,
            message: "taken".to_owned(),
            serving: None,
        }),
        backends: BackendHealth::All,
        reached: None,
        looped: false,
        delivery: None,
    };
    let listeners = listeners.into_iter().map(|(id, state)| (id, entry(state))).collect();
    Report { listeners, ..Report::default() }
}

fn entry(endpoints: u16) -> Entry {
    let endpoint = |port| Arc::new(Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port))));
    Entry {
        id: "b".into(),
        weight: 1,
        priority: 0,
        endpoints: (1..=endpoints).map(endpoint).collect(),
        stats: Arc::default(),
    }
}

#[test]
fn listeners_are_grouped_by_forward_with_their_state_and_what_was_read_of_them() {
    let report = report([
        (id("ns/f/a"), ListenerState::Bound),
        (id("ns/f/b"), ListenerState::Failed),
        (id("ns/g/a"), ListenerState::Draining),
    ]);
    let counts = Totals { live: 1, opened: 2, refused: 0, up: 3, down: 4 };
    let seen = Seen { address: Some("*:1/TCP".to_owned()), counts, ..Seen::default() };
    let seen = BTreeMap::from([(id("ns/f/a"), seen)]);
    let state = state(&report, &shown(&report), seen, counts, 5);
    assert_eq!(state.listeners, Tally { all: 3, bound: 1, failed: 1, draining: 1, omitted: 0 });
    let json = serde_json::to_value(&state).expect("JSON");
    assert!(json["at"] == 5 && json["totals"]["down"] == 4, "{json}");
    let names: Vec<_> = state.forwards.iter().map(|it| (it.name.as_str(), it.listeners.len())).collect();
    assert_eq!(names, [("ns/f", 2), ("ns/g", 1)]);
    let first = &json["forwards"][0]["listeners"];
    assert!(first[0]["address"] == "*:1/TCP" && first[0]["counts"]["up"] == 3, "{first}");
    assert!(first[1]["failure"]["message"] == "taken" && first[1]["address"].is_null(), "{first}");
    assert_eq!(first[1]["backends"], serde_json::json!([]), "a listener that never ran has the same fields");
}

#[test]
fn of_many_listeners_those_that_do_not_run_are_shown() {
    let many = (0..LISTENERS).map(|at| (id(&format!("a/f/{at}")), ListenerState::Bound));
    let report = report(many.chain([(id("z/f/last"), ListenerState::Failed)]));
    let shown = shown(&report);
    assert!(shown.contains(&id("z/f/last")));
    let state = state(&report, &shown, BTreeMap::new(), Totals::default(), 0);
    assert_eq!((state.listeners.all, state.listeners.omitted), (LISTENERS + 1, 1));
    let rows: usize = state.forwards.iter().map(|forward| forward.listeners.len()).sum();
    assert_eq!(rows, LISTENERS);
    assert_eq!(state.forwards.last().map(|forward| forward.name.as_str()), Some("z/f"));
}

#[test]
fn of_many_endpoints_the_unhealthy_ones_are_listed_and_all_are_counted() {
    let entry = entry(100);
    entry.endpoints[98].set_checked(Checked::Down);
    entry.endpoints[99].failed(Outlier { consecutive_failures: 1, eject_seconds: 10 }, 0);
    entry.endpoints[99].active.store(7, Relaxed);
    let mut room = ALL_ENDPOINTS;
    let backend = backend(&entry, 1, &mut room);
    assert_eq!((backend.endpoints, backend.healthy, backend.listed.len()), (100, 98, ENDPOINTS));
    let first: Vec<(Health, u32)> = backend.listed.iter().take(3).map(|it| (it.health, it.live)).collect();
    assert_eq!(first, [(Health::CheckFailed, 0), (Health::Ejected, 7), (Health::Healthy, 0)]);
}

#[test]
fn an_endpoint_behind_an_agent_without_a_connection_is_not_healthy_and_listed_after_the_unhealthy_ones() {
    let entry = entry(4);
    entry.endpoints[1].set_checked(Checked::Unknown);
    entry.endpoints[2].set_detached(true);
    entry.endpoints[3].set_checked(Checked::Down);
    let seen = || {
        let mut room = ALL_ENDPOINTS;
        backend(&entry, 1, &mut room)
    };
    let listed = |of: &Backend| of.listed.iter().map(|it| it.health).collect::<Vec<Health>>();
    let lost = seen();
    assert_eq!((lost.endpoints, lost.healthy), (4, 2));
    assert_eq!(listed(&lost), [Health::CheckFailed, Health::NotConnected, Health::Unknown, Health::Healthy]);
    entry.endpoints[2].set_detached(false);
    let back = seen();
    assert_eq!((back.endpoints, back.healthy), (4, 3));
    assert_eq!(listed(&back), [Health::CheckFailed, Health::Unknown, Health::Healthy, Health::Healthy]);
}

#[test]
fn the_page_has_words_for_the_health_of_every_endpoint() {
    let script = portlane_page::file("/page.js").expect("the script").content;
    let (_, words) = script.split_once("const words = {").expect("words");
    let (words, _) = words.split_once('}').expect("the end of the words");
    for health in [Health::Healthy, Health::Unknown, Health::Ejected, Health::CheckFailed, Health::NotConnected] {
        assert!(words.contains(&format!("{health:?}: \"")), "{health:?} is not in {words}");
    }
}

#[test]
fn a_state_lists_a_bounded_number_of_endpoints() {
    let (entry, mut room) = (entry(10), 15);
    let listed: Vec<usize> = (0..3).map(|_| backend(&entry, 0, &mut room).listed.len()).collect();
    assert_eq!((listed, room), (vec![10, 5, 0], 0));
}

#[test]
fn totals_add_up() {
    let one = Totals { live: 1, opened: 2, refused: 3, up: 4, down: 5 };
    let sum: Totals = [one, one].into_iter().sum();
    assert_eq!(sum, Totals { live: 2, opened: 4, refused: 6, up: 8, down: 10 });
}

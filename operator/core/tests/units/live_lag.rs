//! The lag of durable listeners in a response of the live API.

use std::{collections::BTreeSet, sync::Arc};

use operator_core::live_api::{
    lag::{Lags, MAX_LISTED},
    sessions::MAX_TEXTS,
};
use proxy_api::{
    Delivery, Lag, LiveSessions, MAX_LAG_ERROR_BYTES, MAX_LAGS, MAX_REASON_BYTES, MAX_REASONS, Origin, Selection,
};
use serde_json::{Value, json};

use crate::scene::{key, keys};

/// The listener `a` of a forward.
fn lag(forward: &str) -> Lag {
    Lag {
        listener: format!("ns/{forward}/a").parse().expect("an id"),
        delivery: Delivery::Behind,
        oldest_seconds: 7,
        backlog: 3,
        log_bytes: 64,
        received: 9,
        delivered: 6,
        resent: 1,
        dropped: 2,
        dropped_by_reason: [("Full".to_owned(), 2)].into(),
        dead_lettered: 0,
        lanes: 1,
        error: "refused".to_owned(),
    }
}

fn of_logs() -> Selection {
    Selection { origin: Some(Origin::port_forward("ns", "logs")), lag: true, ..Selection::default() }
}

/// As many durable listeners as an answer has, each as this one.
fn many(lag: &Lag) -> Vec<Lag> {
    let named = |at: usize| Lag { listener: format!("ns/logs/l{at}").parse().expect("an id"), ..lag.clone() };
    (0..MAX_LAGS).map(named).collect()
}

/// An answer with these durable listeners.
fn answer(lag: Vec<Lag>) -> LiveSessions {
    LiveSessions { total: lag.len() as u64, lag: Some(lag), ..LiveSessions::default() }
}

fn document(lags: Lags) -> Value {
    serde_json::from_str(&lags.document().expect("JSON")).expect("JSON")
}

#[test]
fn the_listeners_of_all_proxies_are_one_list_with_those_that_did_not_answer_or_cannot_tell() {
    let mut lags = Lags::new(of_logs(), keys(&["p1", "p2", "p3", "p4"]));
    lags.take(&key("p2"), answer(vec![lag("logs"), lag("other")]));
    lags.take(&key("p1"), answer(vec![lag("logs")]));
    lags.take(&key("p1"), answer(vec![lag("logs")]));
    lags.take(&key("stranger"), answer(vec![lag("logs")]));
    lags.take(&key("p3"), LiveSessions { total: 900, ..LiveSessions::default() });
    let list = document(lags);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("LagList"), &json!("live.portlane.dev/v1alpha1")));
    assert_eq!((&list["unanswered"], &list["older"]), (&json!(["ns/p4"]), &json!(["ns/p3"])));
    let first = json!({
        "pod": "ns/p1", "listener": "ns/logs/a", "delivery": "Behind", "oldestSeconds": 7, "backlog": 3, "logBytes": 64,
        "received": 9, "delivered": 6, "resent": 1, "dropped": 2, "droppedByReason": {"Full": 2}, "deadLettered": 0,
        "lanes": 1, "error": "refused",
    });
    assert_eq!((&list["items"][0], &list["items"][1]["pod"]), (&first, &json!("ns/p2")));
    assert_eq!((list["items"].as_array().map(Vec::len), list.get("omitted")), (Some(2), None));
}

#[test]
fn a_proxy_tells_each_listener_once_and_none_of_namespaces_whose_forwards_it_does_not_carry() {
    let of_all = Selection { lag: true, ..Selection::default() };
    let carried = |namespaces: &[&str]| {
        let one = |namespace: &&str| Arc::new(BTreeSet::from([(*namespace).to_owned()]));
        namespaces.iter().map(one).collect::<Vec<_>>()
    };
    let carried = [(key("gateway"), carried(&["ns", "other"])), (key("liar"), carried(&["other"]))];
    let mut lags = Lags::new(of_all, keys(&["gateway", "liar"])).carrying(carried.into());
    let elsewhere = Lag { listener: "other/logs/a".parse().expect("an id"), ..lag("logs") };
    lags.take(&key("gateway"), answer(vec![lag("logs"), elsewhere.clone()]));
    lags.take(&key("liar"), answer(vec![lag("logs"), elsewhere.clone(), elsewhere]));
    let list = document(lags);
    let items = list["items"].as_array().expect("a list");
    let told: Vec<_> = items.iter().map(|item| (item["pod"].as_str(), item["listener"].as_str())).collect();
    let of = |pod, listener| (Some(pod), Some(listener));
    let expected = [of("ns/gateway", "ns/logs/a"), of("ns/gateway", "other/logs/a"), of("ns/liar", "other/logs/a")];
    assert_eq!((told.as_slice(), list.get("omitted")), (&expected[..], None));
}

#[test]
fn what_does_not_fit_into_a_response_is_counted_and_numbers_have_a_sign() {
    let pods: Vec<String> = (0..=MAX_LISTED / MAX_LAGS).map(|at| format!("p{at:02}")).collect();
    let names: Vec<&str> = pods.iter().map(String::as_str).collect();
    let mut lags = Lags::new(of_logs(), keys(&names));
    let large = Lag { backlog: u64::MAX, dropped_by_reason: [("Full".to_owned(), u64::MAX)].into(), ..lag("logs") };
    for pod in &names {
        lags.take(&key(pod), answer(many(&large)));
    }
    let list = document(lags);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(MAX_LISTED));
    assert_eq!(list["omitted"], pods.len() * MAX_LAGS - MAX_LISTED);
    let item = &list["items"][0];
    assert_eq!((item["backlog"].as_i64(), item["droppedByReason"]["Full"].as_i64()), (Some(i64::MAX), Some(i64::MAX)));

    let mut lags = Lags::new(of_logs(), keys(&["p1"]));
    lags.take(&key("p1"), LiveSessions { total: u64::MAX, ..answer(vec![lag("logs")]) });
    assert_eq!(document(lags)["omitted"].as_i64(), Some(i64::MAX), "a proxy may have more than it lists");
}

#[test]
fn the_texts_of_a_list_are_bounded_also_if_they_are_escaped() {
    let long = Lag { error: "\u{1}".repeat(MAX_LAG_ERROR_BYTES), ..lag("logs") };
    let pods: Vec<String> = (0..8).map(|at| format!("p{at}")).collect();
    let names: Vec<&str> = pods.iter().map(String::as_str).collect();
    let mut lags = Lags::new(of_logs(), keys(&names));
    for pod in &names {
        lags.take(&key(pod), answer(many(&long)));
    }
    let text = lags.document().expect("JSON");
    assert!(text.len() < 2 * MAX_TEXTS, "{} bytes", text.len());
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert!(list["omitted"].as_u64() > Some(0), "{} items", list["items"].as_array().map_or(0, Vec::len));
}

#[test]
fn proxies_that_lie_take_no_room_from_those_that_answer_after_them() {
    let reason = |at: usize| (format!("{at:02}{}", "\u{1}".repeat(MAX_REASON_BYTES - 2)), 1);
    let long = Lag {
        error: "\u{1}".repeat(MAX_LAG_ERROR_BYTES),
        dropped_by_reason: (0..MAX_REASONS).map(reason).collect(),
        ..lag("logs")
    };
    assert!(2 * MAX_LAGS * long.weight() > MAX_TEXTS, "both together have more than all the room");
    let mut lags = Lags::new(of_logs(), keys(&["honest", "liar1", "liar2"]));
    for (pod, lag) in [("liar1", &long), ("liar2", &long), ("honest", &lag("logs"))] {
        lags.take(&key(pod), answer(many(lag)));
    }
    let list = document(lags);
    let items = list["items"].as_array().expect("a list");
    let count = |pod: &str| items.iter().filter(|item| item["pod"] == pod).count();
    assert_eq!(count("ns/honest"), MAX_LAGS);
    assert_eq!(list["omitted"], 2 * MAX_LAGS - count("ns/liar1") - count("ns/liar2"));
    assert!(count("ns/liar1") > 0, "it has its part, too");
}

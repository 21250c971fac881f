//! What texts and messages take in memory, before they are parsed and while they wait.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy_api::{
    AgentsReport, BackendHealth, ConnectedInstance, Failure, FailureReason, Held, ListenerId, ListenerReport,
    ListenerState, LiveSession, ReportPart, Revision, weight::Weight,
};
use serde_json::json;

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn revision(bytes: usize) -> Revision {
    Revision(text(bytes).into())
}

/// A listener whose kind, namespace, forward and name have these lengths.
fn id(lengths: [usize; 4]) -> ListenerId {
    lengths.map(text).join("/").parse().expect("an id")
}

/// The weight of a message grows by one with each byte of each of its texts.
fn each_byte_counts_once<const N: usize>(weight: impl Fn([usize; N]) -> usize) {
    let before = weight([2; N]);
    for at in 0..N {
        let mut lengths = [2; N];
        lengths[at] += 1;
        assert_eq!(weight(lengths), before + 1, "text {at}");
    }
}

#[test]
fn a_text_weighs_its_objects_and_values_and_brackets_and_commas_within_strings_weigh_nothing() {
    let weight = |text: &str| {
        let weight = Weight::of(text.as_bytes());
        (weight.objects, weight.values)
    };
    assert_eq!(weight("0"), (0, 1));
    assert_eq!(weight(" { } "), (0, 1));
    assert_eq!(weight("[[], {}, [ ]]"), (0, 4));
    assert_eq!(weight(r#"{"a": [1, 2], "b": {"c": null}}"#), (2, 6));
    assert_eq!(weight(r#"{"{[,\"{,": "[{,\\", "b": "\\\""}"#), (1, 3));
}

#[test]
fn a_text_is_within_a_bound_that_neither_number_exceeds() {
    let is_within = |objects, values| Weight { objects, values }.is_within(Weight { objects: 2, values: 3 });
    assert!(is_within(2, 3) && !is_within(3, 3) && !is_within(2, 4));
}

#[test]
fn each_byte_of_a_report_counts() {
    each_byte_counts_once(|[kind, namespace, forward, name, own, message, serving]: [usize; 7]| {
        let failure =
            Failure { reason: FailureReason::BindFailed, message: text(message), serving: Some(revision(serving)) };
        let report = ListenerReport {
            revision: revision(own),
            state: ListenerState::Failed,
            failure: Some(failure),
            backends: BackendHealth::None,
            reached: None,
            looped: false,
            delivery: None,
        };
        let listeners = [(id([kind, namespace, forward, name]), report)].into();
        ReportPart { listeners, ..ReportPart::default() }.weight()
    });
    each_byte_counts_once(|ids| ReportPart { gone: [id(ids)].into(), ..ReportPart::default() }.weight());
}

#[test]
fn each_byte_of_what_a_proxy_holds_counts() {
    each_byte_counts_once(|[listener, of_listener, set, of_set]: [usize; 4]| {
        let listeners = [(id([1, 1, 1, listener]), revision(of_listener))].into();
        let endpoints = [(text(set), revision(of_set))].into();
        Held { listeners, endpoints, ..Held::default() }.weight()
    });
}

#[test]
fn each_byte_of_the_agents_of_a_proxy_counts() {
    each_byte_counts_once(|[uid, instance, version]: [usize; 3]| {
        let instance = ConnectedInstance { instance: text(instance), version: text(version) };
        AgentsReport { agents: [(text(uid), vec![instance])].into() }.weight()
    });
}

#[test]
fn a_session_weighs_its_texts_as_they_are_written() {
    let weight = |listener: &ListenerId, texts: [&str; 3]| {
        let [backend, instance, server_name] = texts;
        let session = json!({
            "listener": listener, "protocol": "TCP", "client": "192.0.2.1:1",
            "backend": backend, "instance": instance, "serverName": server_name,
        });
        serde_json::from_value::<LiveSession>(session).expect("a session").weight()
    };
    each_byte_counts_once(|[listener, backend, instance, server_name]: [usize; 4]| {
        weight(&id([1, 1, 1, listener]), [&text(backend), &text(instance), &text(server_name)])
    });
    let plain = weight(&id([1; 4]), ["x", "x", "x"]);
    for (odd, bytes) in [("\"", 2), ("\\", 2), ("\u{1}", 6), (" ", 1)] {
        assert_eq!(serde_json::to_string(odd).expect("JSON").len(), bytes + 2, "with its quotes");
        assert_eq!(weight(&id([1; 4]), ["x", odd, "x"]), plain - 1 + bytes, "{odd:?}");
    }
}

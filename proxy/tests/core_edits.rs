//! The names of the settings that differ between two versions of a listener.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proxy::core::changes::edits::edits;
use proxy_api::{AccessLogMode, Configuration, Limits, Listener, Policy, Target};

const V1: &str = include_str!("../../proxy-api/tests/documents/v1.yaml");

/// The differences that an edit of the listener of the document makes.
fn after(edit: impl FnOnce(&mut Listener)) -> Vec<String> {
    let configuration = Configuration::decode(V1.as_bytes()).expect("a document of version 1");
    let before = configuration.supported().next().expect("a listener").1;
    let mut changed = before.clone();
    edit(&mut changed);
    edits(before, &changed.sealed())
}

#[test]
fn what_is_equal_is_not_named() {
    assert_eq!(after(|_| {}), [""; 0]);
    assert_eq!(after(|listener| listener.socket.port = 1), [""; 0], "where it listens is no setting");
}

#[test]
fn a_setting_is_named_as_in_the_manifest_with_both_values() {
    assert_eq!(after(|listener| listener.timeouts.idle_seconds = 5), ["timeouts.idleSeconds 3600 -> 5"]);
    assert_eq!(after(|listener| listener.policy = Policy::Random), ["loadBalancing.policy LeastConnections -> Random"]);
    assert_eq!(
        after(|listener| listener.access_log.mode = AccessLogMode::Disabled),
        ["accessLog.mode Close -> Disabled"]
    );
    assert_eq!(
        after(|listener| listener.timeouts.max_session_seconds = Some(60)),
        ["timeouts.maxSessionSeconds none -> 60"]
    );
}

#[test]
fn a_backend_that_stays_is_named_and_one_that_goes_is_not() {
    let edited = after(|listener| {
        listener.backends[0].weight = 1;
        listener.backends.remove(1);
    });
    assert_eq!(edited, ["backends[svc/shop/pg:5432].weight 90 -> 1"]);
    let moved = after(|listener| {
        listener.backends[1].target = Target::Address { host: "db.example.com".to_owned(), port: 1 };
    });
    assert_eq!(moved, ["backends[addr/db.example.com:5432].target.address.port 5432 -> 1"]);
}

#[test]
fn settings_and_their_values_are_bounded() {
    let edited = after(|listener| {
        listener.limits = Some(Box::new(Limits { max_connections: Some(1), ..Limits::default() }));
        listener.destinations.cidrs = vec!["192.0.2.0/24".parse().expect("a network"); 9];
        listener.retry.attempts = 1;
    });
    assert_eq!(edited.len(), 5, "{edited:?}");
    assert_eq!(edited[0], "destinations.cidrs [] -> [\"192.0.2.0/24\",\"192.0.2.0/24\",\"192.0.2…");
    assert!(edited[4].ends_with(" more"), "{edited:?}");
}

#[test]
fn four_settings_are_named_and_the_fifth_is_counted() {
    let four = |listener: &mut Listener| {
        let times = &mut listener.timeouts;
        (times.connect_seconds, times.idle_seconds, times.half_close_seconds, times.udp_idle_seconds) = (9, 9, 9, 9);
    };
    let edited = after(four);
    assert_eq!((edited.len(), edited.iter().any(|edit| edit.ends_with(" more"))), (4, false), "{edited:?}");
    let edited = after(|listener| {
        four(listener);
        listener.timeouts.keepalive_seconds = 9;
    });
    assert_eq!((edited.len(), edited[4].as_str()), (5, "1 more"), "{edited:?}");
}

#[test]
fn a_value_of_40_characters_is_shown_and_a_longer_one_is_cut_to_39() {
    let shown = |host: String| {
        let edited = after(|listener| listener.backends[1].target = Target::Address { host, port: 5432 });
        edited[0].rsplit(' ').next().expect("a value").to_owned()
    };
    assert_eq!(shown("x".repeat(40)), "x".repeat(40));
    assert_eq!(shown("x".repeat(41)), format!("{}…", "x".repeat(39)));
}

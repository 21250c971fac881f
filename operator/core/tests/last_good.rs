//! A mistake in an edit leaves the last good version; a permission that is taken away does not.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot go on panics")]

mod support;

use operator_core::{Group, keep_last_good, translate};
use proxy_api::Configuration;

const GOOD: &str = "
kind: World
laptop: {}
---
kind: PortForward
metadata: {name: a, namespace: ns}
spec:
  placement: {sidecar: {selector: {}}}
  listeners:
  - {name: one, protocol: TCP, port: 1001, backends: [{address: {host: 10.0.0.1, port: 1}}]}
  - {name: two, protocol: TCP, port: 1002, backends: [{address: {host: 10.0.0.1, port: 2}}]}
";

fn after(edit: impl Fn(&str) -> String) -> (Configuration, Configuration, usize) {
    let laptop = |text: &str| {
        let mut translation = translate(&support::world(text));
        (translation.configurations.remove(&Group::Laptop).expect("laptop"), translation.verdicts)
    };
    let (previous, _) = laptop(GOOD);
    let (mut next, verdicts) = laptop(&edit(GOOD));
    let kept = keep_last_good(&previous, &mut next, &verdicts).len();
    (previous, next, kept)
}

#[test]
fn a_backend_that_is_its_own_listener_leaves_the_listener_as_it_was() {
    let (previous, next, kept) = after(|text| text.replace("host: 10.0.0.1, port: 1}", "host: 127.0.0.1, port: 1001}"));
    assert_eq!((kept, next.listeners), (1, previous.listeners));
}

#[test]
fn a_service_that_is_not_known_leaves_the_listener_as_it_was() {
    let (previous, next, kept) =
        after(|text| text.replace("{address: {host: 10.0.0.1, port: 2}}", "{service: {name: x, port: 1}}"));
    assert_eq!((kept, next.listeners), (1, previous.listeners));
}

#[test]
fn the_last_good_version_gives_way_to_whoever_has_its_socket_now() {
    let (_, next, kept) = after(|text| {
        text.replace("{address: {host: 10.0.0.1, port: 2}}", "{service: {name: x, port: 1}}")
            .replace("{name: two, protocol: TCP, port: 1002", "{name: two, protocol: TCP, port: 1003")
            .replace("port: 1001", "port: 1002")
    });
    assert_eq!((kept, next.listeners.len()), (0, 1));
}

#[test]
fn what_was_removed_or_suspended_stays_away() {
    let removed = after(|text| text.lines().filter(|line| !line.contains("two")).collect::<Vec<_>>().join("\n"));
    assert_eq!((removed.1.listeners.len(), removed.2), (1, 0));
    let suspended = after(|text| text.replace("spec:", "spec:\n  suspend: true"));
    assert_eq!((suspended.1.listeners.len(), suspended.2), (0, 0));
}

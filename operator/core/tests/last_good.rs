//! A mistake in an edit keeps the last good version running; a withdrawn permission does not.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

mod support;

use operator_core::{Changes, Group, Outcome, Translator};
use proxy_api::{Configuration, Version};

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

/// The configurations before and after an edit, and the number of listeners that keep running although their new
/// version is refused.
fn after(edit: impl Fn(&str) -> String) -> (Configuration, Configuration, usize) {
    let mut translator = Translator::default();
    let mut laptop = |number: u64, text: &str| {
        let version = Version { epoch: String::new(), number };
        translator.update(&support::world(text), &Changes::all(), &version);
        let refused = translator.verdicts().flat_map(|(key, verdict)| {
            let refused = |outcome: &Outcome| !matches!(outcome, Outcome::Published(_));
            let listeners = verdict.listeners.iter().filter(move |listener| refused(&listener.outcome));
            listeners.map(move |listener| format!("{key}/{}", listener.name).parse().expect("an id"))
        });
        let refused: Vec<proxy_api::ListenerId> = refused.collect();
        let configuration = translator.snapshot(&Group::Laptop).expect("laptop").configuration();
        let kept = refused.iter().filter(|id| configuration.listeners.contains_key(*id)).count();
        (configuration, kept)
    };
    let (previous, _) = laptop(1, GOOD);
    let (next, kept) = laptop(2, &edit(GOOD));
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
fn the_last_good_version_gives_way_to_a_new_holder_of_its_socket() {
    let (_, next, kept) = after(|text| {
        text.replace("{address: {host: 10.0.0.1, port: 2}}", "{service: {name: x, port: 1}}")
            .replace("{name: two, protocol: TCP, port: 1002", "{name: two, protocol: TCP, port: 1003")
            .replace("port: 1001", "port: 1002")
    });
    assert_eq!((kept, next.listeners.len()), (0, 1));
}

#[test]
fn a_removed_or_suspended_listener_stays_away() {
    let removed = after(|text| text.lines().filter(|line| !line.contains("two")).collect::<Vec<_>>().join("\n"));
    assert_eq!((removed.1.listeners.len(), removed.2), (1, 0));
    let suspended = after(|text| text.replace("spec:", "spec:\n  suspend: true"));
    assert_eq!((suspended.1.listeners.len(), suspended.2), (0, 0));
}

#[test]
fn a_forward_that_becomes_invalid_keeps_running_in_its_pods() {
    let world = |listeners: &str| {
        support::world(&format!(
            "kind: World\npods: {{ns/p: {{}}}}\n---\nkind: PortForward\nmetadata: {{name: a, namespace: ns}}\nspec: {{placement: \
             {{sidecar: {{selector: {{}}}}}}, listeners: [{listeners}]}}\n---\nkind: PortForward\nmetadata: {{name: b, namespace: \
             ns}}\nspec: {{placement: {{sidecar: {{selector: {{}}}}}}, listeners: [{{name: l, protocol: TCP, port: 2, backends: \
             [{{local: {{port: 9}}}}]}}]}}\n"
        ))
    };
    let listener = |port: u16| format!("{{name: l, protocol: TCP, port: {port}, backends: [{{local: {{port: 9}}}}]}}");
    let mut translator = Translator::default();
    let mut update = |number: u64, listeners: &str| {
        let version = Version { epoch: String::new(), number };
        translator.update(&world(listeners), &Changes::all(), &version);
        let group = translator.group_of(&operator_core::ObjectKey::new("ns", "p")).expect("a group").clone();
        translator.snapshot(&group).expect("runs").configuration().listeners
    };
    let before = update(1, &listener(1));
    assert_eq!(before.len(), 2);
    assert_eq!(update(2, ""), before, "a spec without listeners is a mistake");
    assert_ne!(update(3, &listener(3)), before);
    let won = update(4, &listener(2));
    assert_eq!(won.len(), 1, "both forwards claim one port");
    assert_eq!(update(5, ""), won, "a mistake does not hand the port to the forward that waits for it");
}

//! Translating, writing the verdict to status, and translating again: nothing moves.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod support;

use crds::PortForwardStatus;
use operator_core::{Translation, World, translate};

/// What a status writer does with a verdict.
fn write_status(world: &mut World, translation: &Translation) {
    for (key, verdict) in &translation.verdicts {
        let listeners = verdict.listeners.iter().filter_map(operator_core::ListenerVerdict::held);
        let status = PortForwardStatus { listeners: listeners.collect(), ..PortForwardStatus::default() };
        world.forwards.get_mut(key).expect("there").status = Some(status);
    }
}

const OLD_AND_YOUNG: &str = "
kind: World
pods:
  ns/a: {labels: {app: a}}
  ns/b: {labels: {app: b}}
---
kind: PortForward
metadata: {name: old, namespace: ns, creationTimestamp: '2020-01-01T00:00:00Z'}
spec:
  placement: {sidecar: {selector: {}}}
  listeners: [{name: l, protocol: TCP, port: 6000, backends: [{local: {port: 1}}]}]
---
kind: PortForward
metadata: {name: young, namespace: ns, creationTimestamp: '2024-01-01T00:00:00Z'}
spec:
  placement: {sidecar: {selector: {matchLabels: {app: b}}}}
  listeners: [{name: l, protocol: TCP, port: 5432, backends: [{local: {port: 1}}]}]
";

#[test]
fn an_old_forward_that_is_edited_never_takes_a_port_that_serves() {
    let mut world = support::world(OLD_AND_YOUNG);
    write_status(&mut world.clone(), &translate(&world));
    let first = translate(&world);
    write_status(&mut world, &first);
    let edited = support::world(&OLD_AND_YOUNG.replace("port: 6000", "port: 5432"));
    for (key, forward) in edited.forwards {
        let kept = world.forwards.get_mut(&key).expect("there");
        kept.spec = forward.spec;
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let translation = translate(&world);
        write_status(&mut world, &translation);
        let holder = translation.configurations.iter().find(|(group, _)| group.to_string().contains("old+young"));
        let id = "ns/young/l".parse().expect("id");
        assert!(holder.expect("the shared pod").1.listeners.contains_key(&id), "the port of 'young' was taken");
        seen.push(translation.configurations);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
}

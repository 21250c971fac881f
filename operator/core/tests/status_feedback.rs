//! Translating, writing the verdicts to status, and translating again changes nothing.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod support;

use operator_core::{DataPlane, Moment, Translation, World, status, translate};

/// Writes every verdict to status, like the status writer.
fn write_status(world: &mut World, translation: &Translation) {
    for (key, verdict) in &translation.verdicts {
        let forward = world.forwards.get_mut(&key.into()).expect("there");
        forward.status = Some(status(forward, verdict, &DataPlane::default(), &Moment::default()));
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
fn an_old_forward_that_is_edited_never_takes_a_port_in_use() {
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
        assert!(holder.expect("the shared pod").1.listeners.contains_key(&id), "'young' lost its port");
        seen.push(translation.configurations);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
}

#[test]
fn a_forward_without_pods_holds_the_ports_that_it_held_and_nothing_else() {
    let holds = |world: &World, name: &str| {
        let key = operator_core::ObjectKey::new("ns", name);
        world.forwards[&key].status.as_ref().is_some_and(|status| !status.listeners.is_empty())
    };
    let settle = |world: &mut World| {
        for _ in 0..2 {
            let translation = translate(world);
            write_status(world, &translation);
        }
    };
    // No pod has a tier: 'old' never served, and takes nothing from 'young' when the pod gets a tier.
    let text = OLD_AND_YOUNG.replace("selector: {}", "selector: {matchLabels: {tier: t}}").replace("6000", "5432");
    let mut world = support::world(&text);
    settle(&mut world);
    assert!(!holds(&world, "old") && holds(&world, "young"));
    world.pods.insert(
        operator_core::ObjectKey::new("ns", "b"),
        support::world(&text.replace("{app: b}}\n---", "{app: b, tier: t}}\n---"))
            .pods
            .into_values()
            .nth(1)
            .expect("b"),
    );
    settle(&mut world);
    assert!(!holds(&world, "old") && holds(&world, "young"));
    // 'young' keeps its port while its pods are away, and has it again when they return.
    let pods = std::mem::take(&mut world.pods);
    settle(&mut world);
    assert!(!holds(&world, "old") && holds(&world, "young"));
    world.pods = pods;
    settle(&mut world);
    assert!(!holds(&world, "old") && holds(&world, "young"));
}

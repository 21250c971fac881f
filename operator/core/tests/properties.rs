//! Properties of the translation over generated worlds.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

mod support;

use operator_core::{Outcome, World, translate};
use proptest::prelude::*;

/// One forward: base port, number of listeners, mistakes, suspension, placement and weight.
#[derive(Clone, Debug)]
struct Plan {
    port: u16,
    listeners: u16,
    broken: bool,
    suspend: bool,
    placement: &'static str,
    weight: u32,
}

fn plans(ports: std::ops::Range<u16>) -> impl Strategy<Value = Vec<Plan>> {
    let placement = prop_oneof![
        Just("sidecar: {selector: {}}"),
        Just("sidecar: {selector: {matchLabels: {app: a}}}"),
        Just("gateway: {name: edge}"),
        Just("gateway: {name: missing}"),
    ];
    let plan = (ports, 1_u16..3, proptest::bool::weighted(0.2), any::<bool>(), placement, 0_u32..4).prop_map(
        |(port, listeners, broken, suspend, placement, weight)| Plan {
            port,
            listeners,
            broken,
            suspend,
            placement,
            weight,
        },
    );
    proptest::collection::vec(plan, 1..7)
}

fn manifest(at: usize, plan: &Plan) -> String {
    let mut listeners = String::new();
    for n in 0..plan.listeners {
        let port = if plan.broken { 0 } else { plan.port + n };
        listeners += &format!(
            "  - {{name: l{n}, protocol: TCP, port: {port}, backends: [{{address: {{host: 10.0.0.1, port: 1}}, \
             weight: {}}}]}}\n",
            plan.weight
        );
    }
    format!(
        "---\nkind: PortForward\napiVersion: portlane.dev/v1alpha1\nmetadata: {{name: f{at}, namespace: ns}}\nspec:\n  \
         suspend: {}\n  placement: {{{}}}\n  listeners:\n{listeners}",
        plan.suspend, plan.placement
    )
}

fn world(plans: &[Plan]) -> World {
    world_of(plans.iter().enumerate())
}

/// The world of the same documents in reverse order.
fn backwards(plans: &[Plan]) -> World {
    world_of(plans.iter().enumerate().rev())
}

fn world_of<'a>(plans: impl Iterator<Item = (usize, &'a Plan)>) -> World {
    let mut text = String::from(
        "kind: World\npods: {ns/a: {labels: {app: a}}, ns/b: {labels: {app: b}}}\n---\nkind: ForwardGateway\napiVersion: \
         portlane.dev/v1alpha1\nmetadata: {name: edge, namespace: ns}\nspec: {}\n",
    );
    for (at, plan) in plans {
        text.push_str(&manifest(at, plan));
    }
    support::world(&text)
}

/// The plans with ports so far apart that no two forwards want the same one.
fn apart(mut plans: Vec<Plan>) -> Vec<Plan> {
    for (at, plan) in plans.iter_mut().enumerate() {
        plan.port = 1000 + 10 * u16::try_from(at).expect("few");
    }
    plans
}

proptest! {
    #[test]
    fn the_order_of_inputs_does_not_matter(plans in plans(1..6)) {
        let (one, two) = (translate(&world(&plans)), translate(&backwards(&plans)));
        prop_assert_eq!(one.configurations, two.configurations);
        prop_assert_eq!(one.verdicts, two.verdicts);
    }

    #[test]
    fn no_two_listeners_of_a_group_share_a_port(plans in plans(1..6)) {
        for configuration in translate(&world(&plans)).configurations.values() {
            let mut ports: Vec<_> =
                configuration.supported().map(|(_, l)| (l.socket.transport, l.socket.port)).collect();
            let all = ports.len();
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(ports.len(), all);
        }
    }

    #[test]
    fn an_invalid_object_changes_nothing_for_the_others(plans in plans(1..6), at in any::<prop::sample::Index>()) {
        let at = at.index(plans.len());
        let mut broken = plans.clone();
        broken[at].broken = true;
        let with = translate(&world(&broken));
        let mut without = world(&broken);
        without.forwards.retain(|key, _| key.name != format!("f{at}"));
        let without = translate(&without);
        prop_assert_eq!(&with.configurations, &without.configurations);
        for (key, verdict) in &without.verdicts {
            prop_assert_eq!(&with.verdicts[key], verdict);
        }
    }

    #[test]
    fn a_change_to_one_forward_changes_no_other_revision(
        plans in plans(1..6).prop_map(apart), at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(plans.len());
        let mut changed = plans.clone();
        changed[at].weight += 1;
        changed[at].suspend = !changed[at].suspend;
        changed[at].listeners = 3 - changed[at].listeners;
        let (before, after) = (translate(&world(&plans)), translate(&world(&changed)));
        for (key, verdict) in &before.verdicts {
            if key.name != format!("f{at}") {
                prop_assert_eq!(verdict, &after.verdicts[key]);
            }
        }
    }

    #[test]
    fn every_published_revision_stands_in_a_configuration(plans in plans(1..6)) {
        let translation = translate(&world(&plans));
        for (key, verdict) in &translation.verdicts {
            for listener in &verdict.listeners {
                let Outcome::Published(revision) = &listener.outcome else { continue };
                let id = format!("{key}/{}", listener.name).parse().expect("id");
                for group in &verdict.groups {
                    if let Some(offer) = translation.configurations[group].listeners.get(&id) {
                        prop_assert_eq!(offer.revision(), revision);
                    } else {
                        prop_assert!(!verdict.rejected.is_empty(), "{} is published, but absent from {}", key, group);
                    }
                }
            }
        }
    }
}

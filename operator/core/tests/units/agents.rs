//! The agents of a laptop: when they are published, that each update leads to the whole, and which of them a listener
//! in its last good version may still use.

use std::collections::BTreeMap;

use operator_core::{Changes, Group, ObjectKey, Snapshot, Translator, World, translate, world::agents::Agents};
use proptest::prelude::*;
use proxy_api::{Assembler, Configuration, Version};

/// A laptop with this forward, and an agent `home` with these targets.
fn laptop(targets: &str, backend: &str) -> World {
    crate::support::world(&format!(
        "kind: World\nlaptop: {{}}\n---\nkind: ForwardAgent\nmetadata: {{name: home, namespace: ns}}\nspec: {{targets: \
         [{targets}]}}\n---\nkind: PortForward\nmetadata: {{name: a, namespace: ns}}\nspec: {{placement: {{sidecar: \
         {{selector: {{}}}}}}, listeners: [{{name: l, protocol: TCP, port: 5000, backends: [{backend}]}}]}}\n"
    ))
}

const PG: &str = "{host: 127.0.0.1, port: 5432}";

fn tunnel(agent: &str) -> String {
    format!("{{tunnel: {{agent: {agent}, host: 127.0.0.1, port: 5432}}}}")
}

/// The configuration of the laptop, if the update published one.
fn published(translator: &mut Translator, world: &World, number: u64) -> Option<Configuration> {
    let update = translator.update(world, &Changes::all(), &Version { epoch: "laptop".to_owned(), number });
    let snapshot = translator.snapshot(&Group::Laptop).filter(|_| update.programs.contains(&Group::Laptop));
    snapshot.map(|snapshot| snapshot.configuration())
}

#[test]
fn a_change_of_an_agent_alone_is_published_once() {
    let mut translator = Translator::default();
    let mut world = laptop(PG, "{address: {host: 192.0.2.1, port: 1}}");
    let targets = |configuration: Configuration| {
        configuration.agents.into_values().flat_map(|agent| agent.targets).collect::<Vec<_>>()
    };
    assert_eq!(published(&mut translator, &world, 1).map(targets), Some(vec!["127.0.0.1:5432".to_owned()]));
    assert_eq!(published(&mut translator, &world, 2).map(targets), None);
    world.agents = laptop("{host: db, port: 1}", &tunnel("home")).agents;
    assert_eq!(published(&mut translator, &world, 3).map(targets), Some(vec!["db:1".to_owned()]));
    world.agents = Agents::default();
    assert_eq!(published(&mut translator, &world, 4).map(targets), Some(Vec::new()));
}

#[test]
fn a_mistake_keeps_a_tunnel_only_while_its_agent_lists_the_target() {
    for (targets, kept) in [(PG, true), ("{host: 127.0.0.1, port: 22}", false)] {
        let mut translator = Translator::default();
        let good = published(&mut translator, &laptop(PG, &tunnel("home")), 1).expect("a configuration");
        assert_eq!(good.listeners.len(), 1);
        let now = published(&mut translator, &laptop(targets, &tunnel("away")), 2);
        let listeners = now.map_or(good.listeners.len(), |now| now.listeners.len());
        assert_eq!(listeners == 1, kept, "{targets}");
    }
}

#[test]
fn a_port_of_checks_must_be_listed_too() {
    let reason = |targets: &str| {
        let mut world = laptop(targets, &tunnel("home"));
        let forward = world.forwards.get_mut(&ObjectKey::new("ns", "a")).expect("a forward");
        let check = serde_json::json!({"tcp": {"port": 8008}});
        forward.spec.listeners[0].health_check = Some(serde_json::from_value(check).expect("a check"));
        let verdict = operator_core::translate(&world).verdicts.into_values().next().expect("a verdict");
        (verdict.resolved_refs.reason.as_str(), verdict.resolved_refs.message)
    };
    let (refused, message) = reason(PG);
    assert_eq!(refused, "AddressNotAllowed");
    assert!(message.contains("127.0.0.1:8008, which healthCheck connects to: add {host: 127.0.0.1, port: 8008}"));
    assert_eq!(reason("{host: 127.0.0.1, port: 5432, endPort: 8008}").0, "ResolvedRefs");
}

#[test]
fn manifests_are_warned_about_tunnels_that_no_cluster_makes() {
    let warnings = |of_agent: &str, placement: &str, any_agent: bool| {
        let text = format!(
            "kind: World\npods: {{ns/p: {{}}}}\n---\nkind: ForwardGateway\nmetadata: {{name: edge, namespace: ns}}\n\
             spec: {{}}\n---\nkind: ForwardAgent\nmetadata: {{name: home, namespace: ns}}\nspec: {{{of_agent}targets: \
             [{PG}]}}\n---\nkind: PortForward\nmetadata: {{name: a, namespace: ns}}\nspec: {{placement: {{{placement}}}, \
             listeners: [{{name: l, protocol: TCP, port: 5000, backends: [{}]}}]}}\n",
            tunnel("home")
        );
        let mut world = crate::support::world(&text);
        world.any_agent = any_agent;
        translate(&world).verdicts.into_values().next().expect("a verdict").warnings
    };
    let (edge, other, gateway) = ("gateway: {name: edge}, ", "gateway: {name: other}, ", "gateway: {name: edge}");
    assert!(warnings(edge, gateway, true).is_empty());
    assert!(warnings(other, "sidecar: {selector: {}}", true).is_empty(), "the agent reaches sidecars");
    assert!(warnings(other, gateway, false).is_empty(), "in a cluster, the status says it");
    for (of_agent, remedy) in [
        (other, "place the forward on ForwardGateway ns/other, which the agent dials"),
        ("", "ForwardAgent ns/home needs spec.gateway"),
    ] {
        let found = warnings(of_agent, gateway, true);
        let [warning] = found.as_slice() else { panic!("{found:?}") };
        assert!(
            warning.starts_with("backend agent/home/127.0.0.1:5432 of listener 'l' works with portlane run only: ")
        );
        assert!(warning.contains(remedy), "{warning}");
    }
}

/// An agent of this name, with one target on this port.
fn agent(name: u8, port: u16) -> (ObjectKey, crds::ForwardAgent) {
    let name = format!("a{name}");
    let agent = serde_json::json!({"metadata": {"name": name}, "spec": {"targets": [{"host": "db", "port": port}]}});
    (ObjectKey::new("ns", name), serde_json::from_value(agent).expect("an agent"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_update_of_agents_leads_to_the_whole_and_holds_only_what_differs(
        steps in prop::collection::vec(prop::collection::btree_map(0_u8..5, 1_u16..4, 0..5), 1..10),
    ) {
        let mut world = laptop(PG, "{address: {host: 192.0.2.1, port: 1}}");
        let (mut translator, mut at) = (Translator::default(), Snapshot::empty(Version::default()));
        let (mut current, mut stream) = (Configuration::default(), Assembler::default());
        let mut before: BTreeMap<u8, u16> = BTreeMap::new();
        for (number, agents) in (1..).zip(&steps) {
            world.agents = agents.iter().map(|(name, port)| agent(*name, *port)).collect();
            translator.update(&world, &Changes::all(), &Version { epoch: "laptop".to_owned(), number });
            let next = (**translator.snapshot(&Group::Laptop).expect("a laptop")).clone();
            let parts = next.changes_since(&at);
            prop_assert_eq!(parts.len(), 1);
            let upserts = agents.iter().filter(|(name, port)| before.get(*name) != Some(*port)).count();
            let removals = before.keys().filter(|name| !agents.contains_key(*name)).count();
            prop_assert_eq!((parts[0].agents.len(), parts[0].agent_removals.len()), (upserts, removals));
            for part in parts {
                current = stream.take(&current, part).expect("in order").expect("the only part");
            }
            prop_assert_eq!(&current, &next.configuration());
            prop_assert_eq!(&stream.digest(), &next.digest);
            prop_assert_eq!(&current.digest(), &next.digest);
            let whole = translate(&world);
            prop_assert_eq!(&current.agents, &whole.configurations[&Group::Laptop].agents);
            (at, before) = (next, agents.clone());
        }
    }
}

#[test]
fn agents_change_the_digest_and_the_room_for_what_a_proxy_holds() {
    let snapshot = |count: u8| {
        let mut world = laptop(PG, "{address: {host: 192.0.2.1, port: 1}}");
        world.agents = (0..count).map(|name| agent(name, 1)).collect();
        let mut translator = Translator::default();
        translator.update(&world, &Changes::all(), &Version { epoch: "laptop".to_owned(), number: 1 });
        translator.snapshot(&Group::Laptop).expect("a laptop").clone()
    };
    let (one, two) = (snapshot(1), snapshot(2));
    assert_ne!(one.digest, two.digest);
    assert!(two.weight_of_revisions() > one.weight_of_revisions());
}

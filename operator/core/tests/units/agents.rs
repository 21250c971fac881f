//! The agents of a laptop: when they are published, and what of them a listener in its last good version may still use.

use operator_core::{Changes, Group, ObjectKey, Translator, World};
use proxy_api::{Configuration, Version};

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
    world.agents = None;
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

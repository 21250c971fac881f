//! An incremental translation equals a translation of the whole world, whatever happened in whatever order; and the
//! changes that are sent to proxies lead them to the configuration that they should run.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

#[path = "incremental/plain.rs"]
mod plain;

use std::collections::{BTreeMap, BTreeSet};

use crds::PortForwardStatus;
use operator_core::{
    Changes, Group, ObjectKey, Outcome, Service, Snapshot, Translator, Update, World, translate,
    world::{agents::gateway_of, reach::Reach},
};
use proptest::prelude::*;
use proxy_api::{Assembler, Configuration, Version};

/// Something that happens to a world.
#[derive(Clone, Debug)]
enum Event {
    Forward(usize, Option<String>),
    Gateway(usize, Option<&'static str>),
    Agent(usize, Option<&'static str>),
    Service(usize, Option<String>),
    /// Endpoints of a Service lose their pod, or get one again.
    Podless(usize, bool),
    /// The reach of a gateway's fleet changes.
    Reach(usize, &'static str),
    Pod(usize, Option<&'static str>),
    /// The sidecar of a pod gets another address, or becomes unreachable.
    Sidecar(usize, Option<u8>),
    Namespace(usize, &'static str),
    Grants(bool),
    /// The status of a forward is written from its verdict.
    Status(usize),
    Unreadable(usize, bool),
}

const NAMESPACES: [&str; 2] = ["one", "two"];

fn forward_key(at: usize) -> ObjectKey {
    ObjectKey::new(NAMESPACES[at % 2], format!("f{at}"))
}

const TUNNEL: &str = "{tunnel: {agent: a0, host: 127.0.0.1, port: 5432}}";

/// Listeners without a mistake: a forward with a mistake keeps running in its last good version, which other tests
/// cover.
fn listeners(in_gateway: bool) -> impl Strategy<Value = String> {
    let service = (0_usize..3, 0_usize..2)
        .prop_map(|(at, ns)| format!("{{service: {{name: s{at}, namespace: {}, port: 80}}}}", NAMESPACES[ns]));
    let near = if in_gateway { "{address: {host: localhost, port: 1001}}" } else { "{local: {port: 1002}}" };
    let backend = prop_oneof![
        2 => service,
        1 => Just("{address: {host: 192.0.2.7, port: 1}}".to_owned()),
        1 => Just(near.to_owned()),
        1 => Just(TUNNEL.to_owned()),
    ];
    let names = ["[a.example]", "[b.example, '*.example']", "[a.example, c.example]"];
    let tls = (prop::sample::select(names.to_vec()), prop::bool::weighted(0.2)).prop_map(|(names, reads)| {
        let reads = if reads { ", proxyProtocol: {accept: Required, trustedCIDRs: [10.0.0.0/8]}" } else { "" };
        format!("TLS, tls: {{hostnames: {names}}}{reads}")
    });
    let protocol = prop_oneof![3 => Just("TCP".to_owned()), 1 => Just("UDP".to_owned()), 2 => tls.boxed()];
    let listener = (0_u16..3, 0_u16..3, protocol, prop::collection::vec(backend, 1..3));
    prop::collection::vec(listener, 1..3).prop_map(move |all| {
        let is_alone = all.len() == 1;
        let listener = |(at, (port, further, protocol, backends)): (usize, (u16, u16, String, Vec<String>))| {
            let port = match port {
                2 if in_gateway => String::new(),
                port if is_alone && further > 0 => {
                    format!("port: {}, endPort: {}, ", 1000 + port, 1000 + port + further)
                }
                port => format!("port: {}, ", 1000 + 2 * port.min(1) + u16::try_from(at).expect("few")),
            };
            // A tunnel has one port.
            let is_refused = port.contains("endPort");
            let instead = |backend: String| {
                if is_refused && backend == TUNNEL {
                    "{address: {host: 192.0.2.8, port: 1}}".to_owned()
                } else {
                    backend
                }
            };
            let backends: Vec<String> = backends.into_iter().map(instead).collect();
            format!("{{name: l{at}, protocol: {protocol}, {port}backends: [{}]}}", backends.join(", "))
        };
        all.into_iter().enumerate().map(listener).collect::<Vec<_>>().join(", ")
    })
}

fn forward() -> impl Strategy<Value = Event> {
    let spec = |placement: &'static [&'static str], in_gateway: bool| {
        (prop::sample::select(placement), any::<bool>(), listeners(in_gateway)).prop_map(
            |(placement, suspend, listeners)| {
                format!("{{placement: {{{placement}}}, suspend: {suspend}, listeners: [{listeners}]}}")
            },
        )
    };
    let sidecar = &[
        "sidecar: {selector: {}}",
        "sidecar: {selector: {matchLabels: {app: a}}}",
        "sidecar: {selector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}}",
        "sidecar: {selector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}",
    ];
    let spec = prop_oneof![
        1 => spec(sidecar, false),
        2 => spec(&["gateway: {name: g0, namespace: one}", "gateway: {name: g1, namespace: two}"], true),
    ];
    (0_usize..6, prop::option::weighted(0.9, spec)).prop_map(|(at, spec)| Event::Forward(at, spec))
}

const PODS: [&str; 6] = [
    "{labels: {app: a}}",
    "{labels: {app: b}}",
    "{}",
    "{labels: {app: a}, leaving: true}",
    "{leaving: true}",
    "{labels: {app: a}, appPorts: [[TCP, 1000]]}",
];

/// The backend at 192.0.2.7 is a node of the fleet in the second one. It is in front of the fleet in the last two, and
/// leads to a listener in the last one.
const REACHES: [&str; 5] = [
    "{}",
    "{pods: [10.0.0.1], nodes: [192.0.2.7]}",
    "{pods: [10.0.0.1], nodes: [10.0.0.2], fronts: {s0: {addresses: [10.96.0.1]}}}",
    "{pods: [10.0.0.1], fronts: {edge: {addresses: [192.0.2.7]}}}",
    "{fronts: {edge: {addresses: [192.0.2.7], moved: [[TCP, 1, 1000]]}}}",
];

const AGENTS: [&str; 4] = [
    "{gateway: {name: g0, namespace: one}, targets: [{host: 127.0.0.1, port: 5432}]}",
    "{gateway: {name: g1, namespace: two}, targets: [{host: 127.0.0.1, port: 5432}]}",
    "{gateway: {name: g0, namespace: one}, targets: [{host: 127.0.0.1, port: 22}]}",
    "{targets: [{host: 127.0.0.1, port: 5432}]}",
];

fn event() -> impl Strategy<Value = Event> {
    let gateway = prop_oneof![
        Just("{allowedForwards: {namespaces: {from: All}}}"),
        Just(
            "{allowedForwards: {namespaces: {from: All}}, tunnels: {allowedAgents: {namespaces: {from: Selector, selector: \
             {matchLabels: {in: 'yes'}}}}}}"
        ),
        Just("{allowedForwards: {namespaces: {from: Selector, selector: {matchLabels: {in: 'yes'}}}}, tunnels: {}}"),
        Just("{service: {maxPorts: 2}, allowedForwards: {namespaces: {from: All}}}"),
        Just(
            "{service: {maxPorts: 5}, allowedForwards: {namespaces: {from: All}, tenants: [{name: t, namespaces: {names: \
             [two]}, hostnames: ['*.example'], maxPorts: 2, maxForwards: 2}, {name: u, namespaces: {selector: {matchLabels: \
             {in: 'yes'}}}, ports: [{protocol: TCP, port: 1000, endPort: 1002}, {protocol: TLS, port: 1000}], maxPorts: 3, \
             maxConnections: 9}]}}"
        ),
        Just(
            "{allowedForwards: {namespaces: {from: All}, tenants: [{name: all, namespaces: {selector: {}}, maxForwards: 1, \
             maxPorts: 2}]}}"
        ),
        Just("{allocation: [{port: 1000, endPort: 1005}], allowedForwards: {addressCIDRs: [198.51.100.0/24]}}"),
    ];
    let service = prop_oneof![
        (1_u8..4)
            .prop_map(|end| format!("{{cluster: [{{protocol: TCP, port: 80, endpoints: ['10.0.0.{end}:8080']}}]}}")),
        Just("{cluster: [{protocol: UDP, port: 80, endpoints: []}]}".to_owned()),
        Just("{external: {host: db.example.com}}".to_owned()),
    ];
    prop_oneof![
        8 => forward(),
        2 => (0_usize..2, prop::option::weighted(0.8, gateway)).prop_map(|(at, spec)| Event::Gateway(at, spec)),
        2 => (0_usize..2, prop::option::weighted(0.8, prop::sample::select(&AGENTS[..])))
            .prop_map(|(at, spec)| Event::Agent(at, spec)),
        3 => (0_usize..6, prop::option::weighted(0.8, service)).prop_map(|(at, spec)| Event::Service(at, spec)),
        1 => (0_usize..6, any::<bool>()).prop_map(|(at, is)| Event::Podless(at, is)),
        1 => (0_usize..2, prop::sample::select(&REACHES[..])).prop_map(|(at, reach)| Event::Reach(at, reach)),
        2 => (0_usize..4, prop::option::weighted(0.8, prop::sample::select(&PODS[..])))
            .prop_map(|(at, labels)| Event::Pod(at, labels)),
        2 => (0_usize..4, prop::option::weighted(0.8, 0_u8..3)).prop_map(|(at, end)| Event::Sidecar(at, end)),
        1 => (0_usize..2, prop_oneof![Just("{in: 'yes'}"), Just("{}")]).prop_map(|(at, labels)| Event::Namespace(at, labels)),
        1 => any::<bool>().prop_map(Event::Grants),
        4 => (0_usize..6).prop_map(Event::Status),
        1 => (0_usize..6, any::<bool>()).prop_map(|(at, is)| Event::Unreadable(at, is)),
    ]
}

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).expect("YAML")
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// The ports of a Service with endpoints.
fn ports(service: &Service) -> Option<Vec<(bool, u16)>> {
    let Service::Cluster(ports) = service else { return None };
    Some(ports.iter().map(|port| (port.protocol == crds::Protocol::Udp, port.port)).collect())
}

/// Applies an event to the world and records the changes.
fn happen(event: &Event, world: &mut World, changes: &mut Changes, translator: &Translator) {
    match event {
        Event::Forward(at, spec) => set_forward(*at, spec.as_deref(), world, changes),
        Event::Gateway(at, spec) => {
            let key = ObjectKey::new(NAMESPACES[*at], format!("g{at}"));
            let gateway = spec.map(|spec| {
                yaml(&format!("{{metadata: {{name: g{at}, namespace: {}, uid: u-{at}}}, spec: {spec}}}", key.namespace))
            });
            put(&mut world.gateways, key.clone(), gateway);
            changes.gateways.insert(key);
        }
        Event::Agent(at, spec) => set_agent(ObjectKey::new(NAMESPACES[*at], "a0"), *spec, world, changes),
        Event::Service(at, spec) => {
            let key = ObjectKey::new(NAMESPACES[at % 2], format!("s{}", at / 2));
            let service: Option<Service> =
                spec.as_deref().map(|spec| serde_json::from_value(yaml(spec)).expect("a Service"));
            // As the cache reports it: other endpoints of the same ports do not make another Service.
            let is_same = world.services.get(&key).zip(service.as_ref()).is_some_and(|(a, b)| ports(a) == ports(b));
            put(&mut world.services, key.clone(), service);
            let named = if is_same { &mut changes.endpoints } else { &mut changes.services };
            named.insert(key);
        }
        Event::Podless(at, is) => {
            let key = ObjectKey::new(NAMESPACES[at % 2], format!("s{}", at / 2));
            let ips = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<std::net::IpAddr>().expect("an address"));
            put(&mut world.podless, key.clone(), is.then(|| ips.into()));
            changes.podless.insert(key);
        }
        Event::Reach(at, reach) => set_reach(ObjectKey::new(NAMESPACES[*at], format!("g{at}")), reach, world, changes),
        Event::Pod(at, labels) => {
            let key = ObjectKey::new(NAMESPACES[at % 2], format!("p{at}"));
            put(&mut world.pods, key.clone(), labels.map(yaml));
            changes.pods.insert(key);
        }
        Event::Sidecar(at, end) => set_sidecar(*at, *end, world, changes),
        Event::Namespace(at, labels) => {
            world.namespaces.insert(NAMESPACES[*at].to_owned(), yaml(labels));
            changes.namespaces.insert(NAMESPACES[*at].to_owned());
        }
        Event::Grants(open) => {
            world.grants.clear();
            if *open {
                world.grants.insert(yaml("{from: one, to: two}"));
            }
            changes.grants = true;
        }
        Event::Status(at) => write_status(&forward_key(*at), world, changes, translator),
        Event::Unreadable(at, is) => {
            let key = forward_key(*at);
            put(&mut world.unreadable, key.clone(), is.then(|| "newer".to_owned()));
            changes.forwards.insert(key);
        }
    }
}

/// Replaces the reach of a gateway's fleet.
fn set_reach(key: ObjectKey, reach: &str, world: &mut World, changes: &mut Changes) {
    let reach: Reach = yaml(reach);
    let fronts = reach.fronts.clone();
    // As the cache reports it: other pods and nodes do not change the Services in front.
    if world.reach.insert(key.clone(), reach).unwrap_or_default().fronts != fronts {
        changes.fronts.insert(key.clone());
    }
    changes.reach.insert(key);
}

/// Replaces the address of a pod's sidecar; `None` makes it unreachable. At the last address, the pod is leaving.
fn set_sidecar(at: usize, end: Option<u8>, world: &mut World, changes: &mut Changes) {
    let key = ObjectKey::new(NAMESPACES[at % 2], format!("p{at}"));
    let pod = |end: u8| {
        let leaving = end == 2;
        yaml(&format!("{{uid: p-{at}, created: {at}, address: 10.1.{at}.{end}, leaving: {leaving}}}"))
    };
    put(&mut world.sidecar_pods, key.clone(), end.map(pod));
    changes.sidecar_pods.insert(key);
}

/// Replaces an agent; `None` deletes it.
fn set_agent(key: ObjectKey, spec: Option<&str>, world: &mut World, changes: &mut Changes) {
    let gateway = |world: &World| world.agents.get(&key).and_then(|agent| gateway_of(&key, agent));
    changes.agents_at.extend(gateway(world));
    world.agents.remove(&key);
    if let Some(spec) = spec {
        world.agents.insert(key.clone(), yaml(&format!("{{metadata: {{name: {}}}, spec: {spec}}}", key.name)));
    }
    changes.agents_at.extend(gateway(world));
    changes.agents.insert(key);
}

/// Replaces the spec of a forward, which keeps its status; `None` deletes the forward.
fn set_forward(at: usize, spec: Option<&str>, world: &mut World, changes: &mut Changes) {
    let key = forward_key(at);
    let status = world.forwards.get(&key).and_then(|forward| forward.status.clone());
    let forward = spec.map(|spec| {
        let text = format!(
            "{{metadata: {{name: {}, namespace: {}, creationTimestamp: '2020-01-0{}T00:00:00Z'}}, spec: {spec}}}",
            key.name,
            key.namespace,
            1 + at % 3
        );
        Box::new(crds::PortForward { status, ..yaml(&text) })
    });
    put(&mut world.forwards, key.clone(), forward);
    changes.forwards.insert(key);
}

fn write_status(key: &ObjectKey, world: &mut World, changes: &mut Changes, translator: &Translator) {
    let (Some(forward), Some(verdict)) = (world.forwards.get_mut(key), translator.verdict(&key.into())) else { return };
    let listeners = verdict.listeners.iter().filter_map(operator_core::ListenerVerdict::held);
    let placement = Some(verdict.placement.clone());
    forward.status =
        Some(PortForwardStatus { listeners: listeners.collect(), placement, ..PortForwardStatus::default() });
    changes.forwards.insert(key.clone());
}

/// The configuration and snapshot that the proxies of each group run.
type Fleet = BTreeMap<Group, (Configuration, Snapshot)>;

/// Sends every group its changes and checks that the group reaches the new configuration.
fn follow(fleet: &mut Fleet, translator: &Translator, update: &Update) {
    fleet.retain(|group, _| translator.snapshot(group).is_some());
    for (group, next) in translator.snapshots() {
        let (current, at) = fleet.entry(group.clone()).or_default();
        let is_sent = update.programs.contains(group);
        assert_eq!(is_sent, at.version != next.version, "{group}: an update lists exactly the changed programs");
        let mut assembler = Assembler::default();
        for part in next.changes_since(at) {
            if let Some(reached) = assembler.take(current, part).expect("in order") {
                *current = reached;
            }
        }
        assert_eq!(*current, next.configuration());
        assert_eq!(current.digest(), next.digest);
        *at = (**next).clone();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_equals_the_whole(steps in prop::collection::vec(prop::collection::vec(event(), 1..4), 1..25)) {
        let mut world = World { reserved: BTreeMap::from([(1003, "health".to_owned())]), ..World::default() };
        let (mut translator, mut fleet) = (Translator::default(), Fleet::new());
        let mut known_ports: BTreeMap<Group, BTreeSet<_>> = BTreeMap::new();
        for (at, events) in steps.iter().enumerate() {
            let mut changes = if at == 0 { Changes::all() } else { Changes::default() };
            for event in events {
                happen(event, &mut world, &mut changes, &translator);
            }
            let pods: Vec<ObjectKey> = (0..4).map(|at| ObjectKey::new(NAMESPACES[at % 2], format!("p{at}"))).collect();
            let groups = |translator: &Translator| -> Vec<Option<Group>> {
                pods.iter().map(|pod| translator.group_of(pod).cloned()).collect()
            };
            let groups_before = groups(&translator);
            let before: BTreeMap<_, _> = translator.verdicts().map(|(key, verdict)| (key.clone(), verdict.clone())).collect();
            let version = Version { epoch: "term".to_owned(), number: at as u64 + 1 };
            let update = translator.update(&world, &changes, &version);
            follow(&mut fleet, &translator, &update);
            let whole = translate(&world);
            let now = translator.translation();
            prop_assert_eq!(&now.verdicts, &whole.verdicts);
            prop_assert_eq!(&now.pods, &whole.pods);
            for ((pod, before), now) in pods.iter().zip(groups_before).zip(groups(&translator)) {
                prop_assert!(before == now || update.placed.contains(pod), "{} moved unlisted", pod);
            }
            for key in before.keys().chain(now.verdicts.keys()) {
                prop_assert_eq!(update.verdicts.contains(key), before.get(key) != now.verdicts.get(key), "{}", key);
            }
            for (group, _) in translator.snapshots() {
                let ports = translator.ports(group);
                let suspended = now.verdicts.values().filter(|verdict| verdict.groups.contains(group));
                for listener in suspended.flat_map(|verdict| &verdict.listeners) {
                    let is_held = matches!(group, Group::Gateway(_)) && listener.outcome == Outcome::Suspended;
                    prop_assert!(!is_held || listener.port.is_none_or(|port| ports.contains(&(listener.transport, port))));
                }
                let old = known_ports.insert(group.clone(), ports);
                prop_assert!(old.unwrap_or_default() == known_ports[group] || update.ports.contains(group));
            }
            known_ports.retain(|group, _| translator.snapshot(group).is_some());
            let [now, whole] = plain::comparable(&now, &whole, &translator);
            for (group, configuration) in &whole {
                prop_assert_eq!(&now[group], configuration, "{}", group);
            }
        }
    }
}

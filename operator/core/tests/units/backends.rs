//! Where the bytes of a listener may go, and where they may not.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, net::IpAddr};

use operator_core::{Changes, Grant, Group, ObjectKey, Service, ServicePort, Translator, Verdict, World, translate};
use proxy_api::{Configuration, Target, Version};
use serde_json::json;

/// A pod `p` with these forwards; each is a name and its listeners.
fn sidecars(forwards: &[(&str, &str)]) -> World {
    let forwards = forwards.iter().map(|(name, listeners)| {
        format!(
            "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{placement: {{sidecar: {{selector: {{}}}}}}, \
             listeners: [{listeners}]}}\n"
        )
    });
    let text = "kind: World\npods: {ns/p: {}}\n".to_owned() + &forwards.collect::<String>();
    crate::support::world(&text)
}

/// A TCP listener on this port, or range, with this backend.
fn tcp(port: &str, backend: &str) -> String {
    format!("{{name: l, protocol: TCP, port: {port}, backends: [{backend}]}}")
}

fn verdict(world: &World, name: &str) -> Verdict {
    translate(world).verdicts[&proxy_api::Origin::port_forward("ns", name)].clone()
}

/// Why the backends of the forward `a` cannot be used, or that they can.
fn reason(world: &World) -> &'static str {
    verdict(world, "a").resolved_refs.reason.as_str()
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

#[test]
fn every_address_of_the_own_machine_is_a_loop_to_an_own_listener() {
    let of = |host: &str, port: u16| {
        let backend = format!("{{address: {{host: '{host}', port: {port}}}}}");
        reason(&sidecars(&[("a", &tcp("5000", &backend))]))
    };
    for host in ["127.0.0.1", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost."] {
        assert_eq!(of(host, 5000), "BackendLoop", "{host}");
        assert_eq!(of(host, 5001), "ResolvedRefs", "{host}");
    }
    for host in ["10.0.0.1", "2001:db8::1", "host.example.com"] {
        assert_eq!(of(host, 5000), "ResolvedRefs", "{host}");
    }
}

/// T21
#[test]
fn another_loopback_address_is_a_loop_only_to_a_listener_on_all_addresses() {
    for host in ["127.0.0.53", "::ffff:127.0.0.53"] {
        let to = |port: u16| format!("{{address: {{host: '{host}', port: {port}}}}}");
        let of = |bind: &str| reason(&sidecars(&[("a", &tcp(&format!("5300{bind}"), &to(5300)))]));
        let all = [of(""), of(", bind: Loopback"), of(", bind: All")];
        assert_eq!(all, ["ResolvedRefs", "ResolvedRefs", "BackendLoop"], "{host}: the forward itself");
        let other = |bind: &str| {
            let port = format!("5301{bind}");
            let real = tcp(&port, "{address: {host: 192.0.2.1, port: 1}}");
            reason(&sidecars(&[("a", &tcp("5300", &to(5301))), ("b", &real)]))
        };
        let all = [other(""), other(", bind: Loopback"), other(", bind: All")];
        assert_eq!(all, ["ResolvedRefs", "ResolvedRefs", "BackendLoop"], "{host}: another forward");
    }
}

#[test]
fn a_port_of_the_other_transport_is_no_loop() {
    let world = |protocol: &str| {
        let listener = format!(
            "{}, {{name: other, protocol: {protocol}, port: 6000, backends: [{{local: {{port: 1}}}}]}}",
            tcp("5000", "{local: {port: 6000}}")
        );
        reason(&sidecars(&[("a", &listener)]))
    };
    assert_eq!((world("TCP"), world("UDP")), ("BackendLoop", "ResolvedRefs"));
}

#[test]
fn the_ports_of_a_range_are_looked_at_one_by_one() {
    let of = |backend: u16| {
        let range = tcp("5000, endPort: 5003", &format!("{{local: {{port: {backend}}}}}"));
        reason(&sidecars(&[("a", &range)]))
    };
    assert_eq!(
        (of(4996), of(4997), of(5003), of(5004)),
        ("ResolvedRefs", "BackendLoop", "BackendLoop", "ResolvedRefs")
    );
}

#[test]
fn a_listener_of_another_forward_in_the_same_pod_is_a_loop() {
    let of = |backend: u16| {
        let range = tcp("5000, endPort: 5003", &format!("{{local: {{port: {backend}}}}}"));
        reason(&sidecars(&[("a", &range), ("b", &tcp("7003", "{address: {host: 192.0.2.1, port: 1}}"))]))
    };
    assert_eq!(
        (of(6999), of(7000), of(7003), of(7004)),
        ("ResolvedRefs", "BackendLoop", "BackendLoop", "ResolvedRefs")
    );
}

#[test]
fn two_backends_on_the_own_host_are_both_watched_for_loops() {
    let real = "{address: {host: 192.0.2.1, port: 1}}";
    let forwards = |other: &str| {
        sidecars(&[("a", &tcp("5000", "{local: {port: 6000}}, {local: {port: 6001}}")), ("b", &tcp(other, real))])
    };
    let mut translator = Translator::default();
    let now = |translator: &Translator| {
        let verdict = translator.verdict(&(&key("ns", "a")).into()).expect("a verdict");
        verdict.resolved_refs.reason.as_str()
    };
    update(&mut translator, &forwards("7000"), &Changes::all(), 1);
    assert_eq!(now(&translator), "ResolvedRefs");
    let changes = Changes { forwards: [key("ns", "b")].into(), ..Changes::default() };
    update(&mut translator, &forwards("6000"), &changes, 2);
    assert_eq!(now(&translator), "BackendLoop");
}

#[test]
fn a_grant_that_comes_later_counts_for_every_backend_that_waits_for_it() {
    let backends = "{service: {name: one, namespace: data, port: 1}}, {service: {name: two, namespace: data, port: 1}}";
    let mut world = sidecars(&[("a", &tcp("80", backends))]);
    let port = ServicePort { protocol: crds::Protocol::Tcp, port: 1, endpoints: BTreeSet::new() };
    world.services = ["one", "two"].map(|name| (key("data", name), Service::Cluster(vec![port.clone()]))).into();
    let mut translator = Translator::default();
    let mut now = |world: &World, changes: &Changes, number: u64| {
        update(&mut translator, world, changes, number);
        let verdict = translator.verdict(&(&key("ns", "a")).into()).expect("a verdict");
        verdict.resolved_refs.reason.as_str()
    };
    assert_eq!(now(&world, &Changes::all(), 1), "RefNotPermitted");
    let kind = proxy_api::OriginKind::PortForward;
    world.grants.insert(Grant { kind, from: "ns".to_owned(), to: "data".to_owned(), service: None });
    assert_eq!(now(&world, &Changes { grants: true, ..Changes::default() }, 2), "ResolvedRefs");
}

#[test]
fn a_service_of_another_namespace_needs_a_grant_of_that_namespace_for_that_service() {
    let backend = "{service: {name: pg, namespace: data, port: 5432}}";
    let mut world = sidecars(&[("a", &tcp("5432", backend))]);
    let port = ServicePort { protocol: crds::Protocol::Tcp, port: 5432, endpoints: BTreeSet::new() };
    world.services.insert(key("data", "pg"), Service::Cluster(vec![port]));
    let mut with = |from: &str, to: &str, service: Option<&str>| {
        world.grants.clear();
        world.grants.insert(Grant {
            kind: proxy_api::OriginKind::PortForward,
            from: from.to_owned(),
            to: to.to_owned(),
            service: service.map(str::to_owned),
        });
        reason(&world)
    };
    assert_eq!(with("ns", "data", None), "ResolvedRefs");
    assert_eq!(with("ns", "data", Some("pg")), "ResolvedRefs");
    assert_eq!(with("ns", "data", Some("other")), "RefNotPermitted");
    assert_eq!(with("other", "data", None), "RefNotPermitted");
    assert_eq!(with("ns", "other", None), "RefNotPermitted");
    world.any_service = true;
    assert_eq!(reason(&world), "ResolvedRefs", "the operator admits all Services");
}

#[test]
fn a_grant_counts_only_for_the_kind_that_it_names() {
    let mut world = sidecars(&[("a", &tcp("5432", "{service: {name: pg, namespace: data, port: 5432}}"))]);
    let port = ServicePort { protocol: crds::Protocol::Tcp, port: 5432, endpoints: BTreeSet::new() };
    world.services.insert(key("data", "pg"), Service::Cluster(vec![port]));
    let kind = "TCPRoute".parse().expect("a kind");
    world.grants.insert(Grant { kind, from: "ns".to_owned(), to: "data".to_owned(), service: None });
    assert_eq!(reason(&world), "RefNotPermitted");
}

#[test]
fn a_sidecar_may_use_the_api_server_and_an_address_that_the_operator_protects_from_gateways() {
    let mut world = sidecars(&[("a", &tcp("80", "{address: {host: 203.0.113.7, port: 6443}}"))]);
    world.protected = "203.0.113.7/32".parse().expect("networks");
    world.api_server.insert("203.0.113.7:6443".parse().expect("an address"));
    assert_eq!(reason(&world), "ResolvedRefs");
}

#[test]
fn backends_are_named_as_a_person_would_name_them() {
    let backends = "{service: {name: pg, port: 1}}, {service: {name: pg, namespace: data, port: 2}}, \
                    {address: {host: '2001:db8::1', port: 3}}, {address: {host: h.example, port: 4}}, {local: {port: 5}}";
    let listener = &verdict(&sidecars(&[("a", &tcp("80", backends))]), "a").listeners[0];
    assert_eq!(listener.to, ["svc/pg:1", "svc/data/pg:2", "[2001:db8::1]:3", "h.example:4", "local:5"]);
}

#[test]
fn an_absolute_name_stays_absolute_and_an_address_has_no_dot() {
    // T3: without the dot, a search domain comes first.
    let hosts = ["Db.Real.test.", "real.test", "db.real.test", "192.0.2.1."];
    let backends: Vec<String> = hosts.map(|host| format!("{{address: {{host: {host}, port: 1}}}}")).into();
    let mut translator = Translator::default();
    let world = sidecars(&[("a", &tcp("80", &backends.join(", ")))]);
    update(&mut translator, &world, &Changes::all(), 1);
    let configuration = running(&translator);
    let listener = configuration.supported().next().expect("one").1;
    let targets = listener.backends.iter().filter_map(|backend| match &backend.target {
        Target::Address { host, .. } => Some(host.as_str()),
        Target::Endpoints(_) | Target::Tunnel { .. } => None,
    });
    assert_eq!(targets.collect::<Vec<_>>(), ["db.real.test.", "real.test", "192.0.2.1"]);
    let ids: Vec<&str> = listener.backends.iter().map(|backend| backend.id.as_str()).collect();
    assert_eq!(
        ids,
        ["addr/db.real.test:1", "addr/real.test:1", "addr/192.0.2.1:1"],
        "with and without dot: one backend"
    );
}

/// What the only pod runs.
fn running(translator: &Translator) -> Configuration {
    let group = translator.group_of(&key("ns", "p")).expect("a group");
    translator.snapshot(group).expect("it runs something").configuration()
}

fn update(translator: &mut Translator, world: &World, changes: &Changes, number: u64) {
    translator.update(world, changes, &Version { epoch: "term".to_owned(), number });
}

#[test]
fn endpoints_of_ranges_follow_the_pods_of_their_service() {
    let mut world = sidecars(&[("a", &tcp("5000, endPort: 5001", "{service: {name: rtp, port: 7000}}"))]);
    let hosts = |host: &str| Service::Portless(BTreeSet::from([host.parse::<IpAddr>().expect("an address")]));
    world.services.insert(key("ns", "rtp"), hosts("10.0.0.1"));
    let mut translator = Translator::default();
    update(&mut translator, &world, &Changes::all(), 1);
    let addresses = |translator: &Translator| -> Vec<String> {
        running(translator)
            .endpoints
            .values()
            .flat_map(|set| &set.endpoints)
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    };
    assert_eq!(addresses(&translator), ["10.0.0.1:7000"]);
    world.services.insert(key("ns", "rtp"), hosts("10.0.0.2"));
    let changes = Changes { endpoints: [key("ns", "rtp")].into(), ..Changes::default() };
    update(&mut translator, &world, &changes, 2);
    assert_eq!(addresses(&translator), ["10.0.0.2:7000"]);
}

#[test]
fn a_port_of_a_service_is_found_by_its_number_and_its_transport() {
    let ports = json!({"cluster": [
        {"protocol": "UDP", "port": 53, "endpoints": ["10.0.0.1:5300"]},
        {"protocol": "TCP", "port": 53, "endpoints": ["10.0.0.2:5301"]},
        {"protocol": "TCP", "port": 80, "endpoints": ["10.0.0.3:8080"]},
    ]});
    let service: Service = serde_json::from_value(ports).expect("a Service");
    for (port, endpoint) in [(53, "10.0.0.2:5301"), (80, "10.0.0.3:8080")] {
        let mut world = sidecars(&[("a", &tcp("5000", &format!("{{service: {{name: dns, port: {port}}}}}")))]);
        world.services.insert(key("ns", "dns"), service.clone());
        let mut translator = Translator::default();
        update(&mut translator, &world, &Changes::all(), 1);
        let sets = running(&translator).endpoints;
        let found = sets.values().flat_map(|set| &set.endpoints).map(|endpoint| endpoint.address.to_string());
        assert_eq!(found.collect::<Vec<_>>(), [endpoint]);
    }
}

#[test]
fn a_mistake_in_another_object_of_that_name_inherits_nothing() {
    let good = sidecars(&[("a", &tcp("80", "{address: {host: 192.0.2.1, port: 1}}"))]);
    let bad = sidecars(&[("a", &tcp("0", "{address: {host: 192.0.2.1, port: 1}}"))]);
    for (uid, listeners) in [("first", Some(1)), ("second", None)] {
        let mut translator = Translator::default();
        let mut update_as = |world: &World, uid: &str, number: u64| {
            let mut world = world.clone();
            world.forwards.get_mut(&key("ns", "a")).expect("there").metadata.uid = Some(uid.to_owned());
            update(&mut translator, &world, &Changes::all(), number);
        };
        update_as(&good, "first", 1);
        update_as(&bad, uid, 2);
        let group = translator.group_of(&key("ns", "p"));
        let runs = group.and_then(|group| translator.snapshot(group)).map(|snapshot| snapshot.listeners.len());
        assert_eq!(runs, listeners, "the object was {uid}");
    }
}

#[test]
fn a_verdict_is_about_one_version_of_one_object() {
    let mut world = sidecars(&[("a", &tcp("80", "{address: {host: 192.0.2.1, port: 1}}"))]);
    let forward = world.forwards.get_mut(&key("ns", "a")).expect("there");
    (forward.metadata.uid, forward.metadata.generation) = (Some("u".to_owned()), Some(3));
    let mut translator = Translator::default();
    update(&mut translator, &world, &Changes::all(), 1);
    let is_about = |uid: &str, generation: i64| {
        let mut forward = world.forwards[&key("ns", "a")].clone();
        (forward.metadata.uid, forward.metadata.generation) = (Some(uid.to_owned()), Some(generation));
        translator.is_about(&(&key("ns", "a")).into(), &forward.metadata)
    };
    assert!(is_about("u", 3) && !is_about("u", 4) && !is_about("v", 3));
    assert!(!translator.is_about(&(&key("ns", "b")).into(), &world.forwards[&key("ns", "a")].metadata));
}

#[test]
fn forwards_are_known_by_their_group_and_counted_in_their_gateway() {
    let text =
        "kind: World\npods: {ns/p: {}}\n---\nkind: ForwardGateway\nmetadata: {name: edge, namespace: ns}\nspec: {}\n"
            .to_owned();
    let forward = |name: &str, placement: &str, port: &str| {
        format!(
            "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{placement: {placement}, listeners: [{}]}}\n",
            tcp(port, "{address: {host: 192.0.2.1, port: 1}}")
        )
    };
    let edge = "{gateway: {name: edge}}";
    let text =
        text + &forward("a", edge, "80") + &forward("b", edge, "80") + &forward("c", "{sidecar: {selector: {}}}", "80");
    let mut translator = Translator::default();
    update(&mut translator, &crate::support::world(&text), &Changes::all(), 1);
    let names = |group: &Group| translator.forwards(group).map(|key| key.name).collect::<Vec<String>>();
    assert_eq!(names(&Group::Gateway(key("ns", "edge"))), ["a", "b"]);
    assert_eq!(names(translator.group_of(&key("ns", "p")).expect("a group")), ["c"]);
    assert_eq!(names(&Group::Laptop), ["a", "b", "c"]);
    assert_eq!(translator.attached(&key("ns", "edge")), 1, "the other one has lost its port");
}

#[test]
fn an_endpoint_set_is_kept_as_long_as_a_listener_uses_it() {
    let services = |world: &mut World| {
        let port = ServicePort { protocol: crds::Protocol::Tcp, port: 1, endpoints: BTreeSet::new() };
        world.services = ["one", "two"].map(|name| (key("ns", name), Service::Cluster(vec![port.clone()]))).into();
    };
    let mut translator = Translator::default();
    let mut sets = |number: u64, forwards: &[(&str, &str)]| {
        let mut world = sidecars(forwards);
        services(&mut world);
        // Only forwards change: no Service is looked at again.
        let changes = if number == 1 {
            Changes::all()
        } else {
            Changes { forwards: [key("ns", "a"), key("ns", "b")].into(), ..Changes::default() }
        };
        update(&mut translator, &world, &changes, number);
        translator.endpoint_sets()
    };
    let (one, two) = (tcp("80", "{service: {name: one, port: 1}}"), tcp("80", "{service: {name: two, port: 1}}"));
    let other = tcp("81", "{service: {name: one, port: 1}}");
    assert_eq!(sets(1, &[("a", &one), ("b", &other)]), 1, "both use the same");
    assert_eq!(sets(2, &[("a", &two), ("b", &other)]), 2);
    assert_eq!(sets(3, &[("a", &two)]), 1);
    assert_eq!(sets(4, &[]), 0);
}

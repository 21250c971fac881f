//! Who has which port of a gateway or of a pod, and which port is given to whom.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use operator_core::{Changes, ListenerVerdict, ObjectKey, Outcome, Translation, Translator, World, translate};
use proxy_api::Version;

/// A gateway `edge` with this spec.
fn gateway(spec: &str) -> String {
    format!("kind: World\n---\nkind: ForwardGateway\nmetadata: {{name: edge, namespace: ns}}\nspec: {spec}\n")
}

/// A forward in that gateway, with these listeners, created on this day.
fn forward(name: &str, day: u8, listeners: &str) -> String {
    format!(
        "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: ns, creationTimestamp: '2025-01-{day:02}T00:00:00Z'}}\n\
         spec: {{placement: {{gateway: {{name: edge}}}}, listeners: [{listeners}]}}\n"
    )
}

/// A listener `l`: its protocol and port fields.
fn listener(fields: &str) -> String {
    format!("{{name: l, {fields}, backends: [{{address: {{host: 192.0.2.1, port: 1}}}}]}}")
}

fn of(translation: &Translation, name: &str) -> ListenerVerdict {
    translation.verdicts[&proxy_api::Origin::port_forward("ns", name)].listeners[0].clone()
}

/// The port of each forward's listener, or why it has none.
fn ports(world: &World, names: &[&str]) -> Vec<Result<u16, String>> {
    let translation = translate(world);
    let port = |name: &&str| {
        let listener = of(&translation, name);
        match listener.outcome {
            Outcome::Refused { reason, .. } => Err(reason.as_str().to_owned()),
            _ => Ok(listener.port.expect("a port")),
        }
    };
    names.iter().map(port).collect()
}

fn refused(reason: &str) -> Result<u16, String> {
    Err(reason.to_owned())
}

#[test]
fn a_port_that_is_given_is_chosen_by_the_name_of_the_listener() {
    let fresh = |names: &[&str]| {
        let forwards: Vec<String> = names.iter().map(|name| forward(name, 1, &listener("protocol: TCP"))).collect();
        crate::support::world(&(gateway("{allocation: [{port: 20000, endPort: 20003}]}") + &forwards.join("")))
    };
    let alone = ports(&fresh(&["a"]), &["a"]);
    assert_eq!(ports(&fresh(&["a", "x"]), &["a"]), alone, "a later name does not move it");
    let all = ["a", "b", "c", "d", "e"];
    let mut given = ports(&fresh(&all), &all);
    given.sort();
    let expected = [Ok(20000), Ok(20001), Ok(20002), Ok(20003), refused("NoPortAvailable")];
    assert_eq!(given, expected, "each of them once, and no other");
}

#[test]
fn ports_are_given_from_all_ranges() {
    let all = ["a", "b", "c", "d"];
    let forwards: Vec<String> = all.iter().map(|name| forward(name, 1, &listener("protocol: UDP"))).collect();
    let ranges = "{allocation: [{port: 20000}, {port: 20010, endPort: 20011}, {port: 20020}]}";
    let mut given = ports(&crate::support::world(&(gateway(ranges) + &forwards.join(""))), &all);
    given.sort();
    assert_eq!(given, [Ok(20000), Ok(20010), Ok(20011), Ok(20020)]);
}

#[test]
fn tcp_and_udp_are_given_ports_apart() {
    let text = gateway("{allocation: [{port: 20000}]}")
        + &forward("a", 1, &listener("protocol: TCP"))
        + &forward("b", 1, &listener("protocol: UDP"));
    assert_eq!(ports(&crate::support::world(&text), &["a", "b"]), [Ok(20000), Ok(20000)]);
}

#[test]
fn no_port_is_given_that_connections_of_the_machine_or_the_proxy_itself_may_have() {
    let ephemeral =
        gateway("{allocation: [{port: 32768, endPort: 32769}]}") + &forward("a", 1, &listener("protocol: TCP"));
    assert_eq!(ports(&crate::support::world(&ephemeral), &["a"]), [refused("NoPortAvailable")]);
    let text = gateway("{allocation: [{port: 20000, endPort: 20001}]}") + &forward("a", 1, &listener("protocol: TCP"));
    for (reserved, port) in [(20000, 20001), (20001, 20000)] {
        let mut world = crate::support::world(&text);
        world.reserved_in_gateways.insert(reserved, "health".to_owned());
        assert_eq!(ports(&world, &["a"]), [Ok(port)]);
    }
}

#[test]
fn a_port_of_the_proxy_is_nobody_else_s_in_a_gateway_and_free_in_a_sidecar() {
    let listener = listener("protocol: TCP, port: 9180");
    let sidecar = format!(
        "---\nkind: PortForward\nmetadata: {{name: s, namespace: ns}}\nspec: {{placement: {{sidecar: {{selector: {{}}}}}}, \
         listeners: [{listener}]}}\n"
    );
    let mut world = crate::support::world(&(gateway("{}") + &forward("g", 1, &listener) + &sidecar));
    world.reserved_in_gateways.insert(9180, "health".to_owned());
    world.pods.insert(ObjectKey::new("ns", "p"), operator_core::Pod::default());
    assert_eq!(ports(&world, &["g", "s"]), [refused("PortConflict"), Ok(9180)]);
    world.reserved.insert(9180, "health".to_owned());
    assert_eq!(ports(&world, &["g", "s"]), [refused("PortConflict"), refused("PortConflict")]);
}

#[test]
fn a_listener_that_loses_several_names_is_told_the_oldest_holder() {
    let tls = |names: &str| listener(&format!("protocol: TLS, port: 443, tls: {{hostnames: [{names}]}}"));
    let text = gateway("{}")
        + &forward("first", 1, &tls("z.example"))
        + &forward("second", 2, &tls("a.example"))
        + &forward("both", 3, &tls("a.example, z.example"));
    let lost = of(&translate(&crate::support::world(&text)), "both").outcome;
    let Outcome::Refused { message, .. } = lost else { panic!("{lost:?}") };
    assert!(message.starts_with("hostname z.example on port 443 of listener 'l' is held by ns/first "), "{message}");
}

/// A gateway whose Service takes so many ports, with these forwards from the oldest to the youngest.
fn limited(service: &str, listeners: &[(&str, &str)]) -> World {
    let forwards = (1..).zip(listeners).map(|(day, (name, fields))| forward(name, day, &listener(fields)));
    crate::support::world(&(gateway(&format!("{{service: {{{service}}}}}")) + &forwards.collect::<String>()))
}

const THREE: [(&str, &str); 3] =
    [("c", "protocol: TCP, port: 1001"), ("b", "protocol: TCP, port: 1002"), ("a", "protocol: UDP, port: 1002")];

#[test]
fn a_service_that_is_full_takes_the_ports_of_the_oldest() {
    let all = |service: &str| ports(&limited(service, &THREE), &["c", "b", "a"]);
    assert_eq!(all("maxPorts: 3"), [Ok(1001), Ok(1002), Ok(1002)]);
    assert_eq!(all("maxPorts: 2"), [Ok(1001), Ok(1002), refused("TooManyPorts")]);
    assert_eq!(all("maxPorts: 1, type: None"), [Ok(1001), Ok(1002), Ok(1002)], "there is no Service to be full");
    assert_eq!(all("type: NodePort"), [Ok(1001), Ok(1002), Ok(1002)]);
}

#[test]
fn listeners_that_share_a_port_take_one_place_and_a_range_takes_many() {
    let shared = [
        ("a", "protocol: TLS, port: 443, tls: {hostnames: [a.example]}"),
        ("b", "protocol: TLS, port: 443, tls: {hostnames: [b.example]}"),
        ("c", "protocol: TCP, port: 1000"),
    ];
    assert_eq!(ports(&limited("maxPorts: 1", &shared), &["a", "b", "c"]), [Ok(443), Ok(443), refused("TooManyPorts")]);
    let range = [("a", "protocol: TCP, port: 1000, endPort: 1002"), ("b", "protocol: TCP, port: 2000")];
    assert_eq!(ports(&limited("maxPorts: 3", &range), &["a", "b"]), [Ok(1000), refused("TooManyPorts")]);
    assert_eq!(ports(&limited("maxPorts: 2", &range), &["a", "b"]), [refused("TooManyPorts"), Ok(2000)]);
}

#[test]
fn ports_are_given_as_long_as_the_service_has_room() {
    let fresh = [("a", "protocol: TCP, port: 1000"), ("b", "protocol: TCP"), ("c", "protocol: TCP")];
    let count = |service: &str| {
        let all = ports(&limited(service, &fresh), &["a", "b", "c"]);
        assert_eq!(all[0], Ok(1000), "a port that is asked for comes first");
        assert!(all.iter().flatten().all(|port| *port == 1000 || (20_000..30_000).contains(port)), "{all:?}");
        all.iter().filter(|port| port.is_ok()).count()
    };
    assert_eq!((count("maxPorts: 3"), count("maxPorts: 2"), count("maxPorts: 1")), (3, 2, 1));
}

#[test]
fn a_port_that_nobody_can_have_takes_no_place_in_the_service() {
    let wanted = [("a", "protocol: TCP, port: 9180"), ("b", "protocol: TCP, port: 1000"), ("c", "protocol: TCP")];
    let mut world = limited("maxPorts: 2", &wanted);
    world.reserved.insert(9180, "health".to_owned());
    let all = ports(&world, &["a", "b", "c"]);
    assert_eq!((&all[0], &all[1], all[2].is_ok()), (&refused("PortConflict"), &Ok(1000), true));
}

#[test]
fn the_ports_of_a_forward_that_is_gone_go_to_those_that_had_no_place() {
    let numbered = |port: u16| listener(&format!("protocol: TCP, port: {port}"));
    let several = format!("{}, {}", numbered(1001), numbered(1002).replace("name: l,", "name: m,"));
    let others = [("b", 2, 1003), ("c", 3, 1004), ("d", 4, 1005)];
    let others: String = others.iter().map(|(name, day, port)| forward(name, *day, &numbered(*port))).collect();
    let service = gateway("{service: {maxPorts: 2}}");
    let mut translator = Translator::default();
    let mut ports_in = |text: &str, number: u64| {
        let version = Version { epoch: String::new(), number };
        translator.update(&crate::support::world(text), &Changes::all(), &version);
        ["b", "c", "d"].map(|name| {
            let verdict = translator.verdict(&proxy_api::Origin::port_forward("ns", name)).expect("a verdict");
            verdict.listeners[0].port
        })
    };
    assert_eq!(ports_in(&(service.clone() + &forward("a", 1, &several) + &others), 1), [None; 3]);
    assert_eq!(ports_in(&(service + &others), 2), [Some(1003), Some(1004), None]);
}

#[test]
fn a_hundred_ports_is_what_a_service_takes_if_nothing_is_said() {
    for (end, taken) in [(1099, Ok(1000)), (1100, refused("TooManyPorts"))] {
        let range = format!("protocol: TCP, port: 1000, endPort: {end}");
        let world = limited("type: ClusterIP", &[("a", range.as_str())]);
        assert_eq!(ports(&world, &["a"]), [taken]);
    }
}

#[test]
fn the_first_of_overlapping_ranges_has_all_of_its_ports() {
    let overlapping = [
        ("a", "protocol: TCP, port: 1000, endPort: 1002"),
        ("b", "protocol: TCP, port: 1002, endPort: 1004"),
        ("c", "protocol: TCP, port: 1004"),
        ("d", "protocol: TCP, port: 1003"),
    ];
    let all = ports(&limited("maxPorts: 9", &overlapping), &["a", "b", "c", "d"]);
    assert_eq!(all, [Ok(1000), refused("PortConflict"), Ok(1004), Ok(1003)], "what loses one port takes none");
}

/// Two forwards that want one port: the older one has this in its status.
fn two(status: &str, older: &str, younger: &str) -> World {
    let older = forward("old", 1, &listener(older));
    let younger = forward("young", 2, &listener(younger));
    let held = "status: {placement: gateway ns/edge, listeners: [{name: l, protocol: TCP, port: 1000}]}\n";
    let status = if status.is_empty() { String::new() } else { format!("status: {status}\n") };
    crate::support::world(&(gateway("{}") + &older + &status + &younger + held))
}

#[test]
fn a_forward_keeps_a_port_by_its_status_in_that_place_alone() {
    let tcp = "protocol: TCP, port: 1000";
    let held = |status: &str| ports(&two(status, tcp, tcp), &["old", "young"]);
    let conflict = || refused("PortConflict");
    assert_eq!(held(""), [conflict(), Ok(1000)], "the older one never served");
    let both = "{placement: gateway ns/edge, listeners: [{name: l, protocol: TCP, port: 1000}]}";
    assert_eq!(held(both), [Ok(1000), conflict()], "of two that served the oldest");
    let elsewhere = "{placement: gateway ns/other, listeners: [{name: l, protocol: TCP, port: 1000}]}";
    assert_eq!(held(elsewhere), [conflict(), Ok(1000)]);
    let sidecar = "{placement: sidecar, listeners: [{name: l, protocol: TCP, port: 1000}]}";
    assert_eq!(held(sidecar), [conflict(), Ok(1000)]);
    let other_name = "{placement: gateway ns/edge, listeners: [{name: x, protocol: TCP, port: 1000}]}";
    assert_eq!(held(other_name), [conflict(), Ok(1000)]);
    let other_protocol = "{placement: gateway ns/edge, listeners: [{name: l, protocol: UDP, port: 1000}]}";
    assert_eq!(held(other_protocol), [conflict(), Ok(1000)]);
    let other_port = "{placement: gateway ns/edge, listeners: [{name: l, protocol: TCP, port: 1001}]}";
    assert_eq!(held(other_port), [conflict(), Ok(1000)]);
}

#[test]
fn a_range_that_grows_is_a_newcomer_for_all_of_its_ports() {
    let served = "{placement: gateway ns/edge, listeners: [{name: l, protocol: TCP, port: 998, endPort: 1000}]}";
    let young = "protocol: TCP, port: 1000";
    let same = two(served, "protocol: TCP, port: 998, endPort: 1000", young);
    assert_eq!(ports(&same, &["old", "young"]), [Ok(998), refused("PortConflict")]);
    let wider = two(served, "protocol: TCP, port: 998, endPort: 1001", young);
    assert_eq!(ports(&wider, &["old", "young"]), [refused("PortConflict"), Ok(1000)]);
}

#[test]
fn a_name_that_is_added_makes_a_newcomer() {
    let tls = |names: &str| format!("protocol: TLS, port: 443, tls: {{hostnames: [{names}]}}");
    let held = |names: &str| {
        format!("placement: gateway ns/edge, listeners: [{{name: l, protocol: TLS, port: 443, hostnames: [{names}]}}]")
    };
    let world = |names: &str| {
        let old = forward("old", 1, &listener(&tls(names))) + &format!("status: {{{}}}\n", held("a"));
        let young = forward("young", 2, &listener(&tls("b"))) + &format!("status: {{{}}}\n", held("b"));
        crate::support::world(&(gateway("{}") + &old + &young))
    };
    assert_eq!(ports(&world("a"), &["old", "young"]), [Ok(443), Ok(443)]);
    assert_eq!(ports(&world("a, b"), &["old", "young"]), [refused("PortConflict"), Ok(443)]);
}

#[test]
fn a_status_of_an_older_release_without_a_selector_holds_the_port() {
    let of = |name: &str, day: u8, status: &str| {
        format!(
            "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: ns, creationTimestamp: '2025-01-0{day}T00:00:00Z'}}\n\
             spec: {{placement: {{sidecar: {{selector: {{matchLabels: {{app: shop}}}}}}}}, listeners: [{}]}}\n{status}",
            listener("protocol: TCP, port: 1000")
        )
    };
    let held = |place: &str| {
        format!("status: {{placement: '{place}', listeners: [{{name: l, protocol: TCP, port: 1000}}]}}\n")
    };
    let world = |place: &str| {
        let pods = "kind: World\npods: {ns/p: {labels: {app: shop}}}\n".to_owned();
        crate::support::world(&(pods + &of("old", 1, "") + &of("young", 2, &held(place))))
    };
    for (place, first) in [("sidecar", "young"), ("sidecar app=shop", "young"), ("sidecar app=blog", "old")] {
        assert_eq!(ports(&world(place), &[first]), [Ok(1000)], "{place}");
    }
}

#[test]
fn ports_on_a_laptop_are_moved_and_stay_below_65536() {
    let world = |laptop: &str, fields: &str| {
        let text = format!("kind: World\nlaptop: {laptop}\n") + &forward("a", 1, &listener(fields));
        ports(&crate::support::world(&text), &["a"])
    };
    let range = "protocol: TCP, port: 100, endPort: 102";
    assert_eq!(world("{portOffset: 65433}", range), [Ok(65_533)]);
    assert_eq!(world("{portOffset: 65434}", range), [refused("Invalid")]);
    assert_eq!(world("{ports: {a/l: 65533}}", range), [Ok(65_533)]);
    assert_eq!(world("{ports: {a/l: 65534}}", range), [refused("Invalid")]);
    assert_eq!(world("{portOffset: 7, ports: {a/other: 5, b/l: 6}}", range), [Ok(107)]);
    assert_eq!(world("{portOffset: 7, ports: {a/l: 5}}", "protocol: TCP"), [Ok(5)]);
}

#[test]
fn a_gateway_admits_a_range_if_it_admits_all_of_its_ports() {
    let reason = |allowed: &str, fields: &str| {
        let text =
            gateway(&format!("{{allowedForwards: {{ports: [{allowed}]}}}}")) + &forward("a", 1, &listener(fields));
        let translation = translate(&crate::support::world(&text));
        translation.verdicts[&proxy_api::Origin::port_forward("ns", "a")].accepted.reason.as_str()
    };
    let allowed = "{protocol: TCP, port: 1000, endPort: 1002}";
    assert_eq!(reason(allowed, "protocol: TCP, port: 1000, endPort: 1002"), "Accepted");
    assert_eq!(reason(allowed, "protocol: TCP, port: 1000, endPort: 1003"), "NotAllowedByGateway");
    assert_eq!(reason(allowed, "protocol: TCP, port: 999, endPort: 1002"), "NotAllowedByGateway");
    assert_eq!(reason(allowed, "protocol: TLS, port: 1001, tls: {hostnames: [a]}"), "Accepted");
    assert_eq!(reason("{protocol: TCP, port: 1000}", "protocol: TCP, port: 1001"), "NotAllowedByGateway");
    assert_eq!(reason("{protocol: TCP, port: 1000}", "protocol: TCP"), "Accepted", "any port that it gives");
}

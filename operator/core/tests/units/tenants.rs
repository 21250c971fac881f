//! Namespaces that share a gateway: hostnames, ports, and how many ports and forwards each of them may have.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use operator_core::{Changes, Group, ObjectKey, Translator, World, translate};
use proxy_api::{ListenerId, Origin, Version};

/// The gateway `edge` of the namespace `infra`, with these tenants and further fields of its spec.
fn gateway(tenants: &str, more: &str) -> String {
    format!(
        "kind: World\nnamespaces: {{a: {{team: x}}, b: {{team: y}}, c: {{}}, infra: {{}}}}\n---\nkind: ForwardGateway\n\
         metadata: {{name: edge, namespace: infra}}\nspec: {{{more}allowedForwards: {{namespaces: {{from: All}}, \
         addressCIDRs: [192.0.2.0/24], tenants: [{tenants}]}}}}\n"
    )
}

/// A forward of this namespace in the gateway, created on this day, with the fields of its listeners: `l0`, `l1`.
fn forward(namespace: &str, name: &str, day: u8, listeners: &[&str]) -> String {
    let listener = |(at, fields): (usize, &&str)| {
        format!("{{name: l{at}, {fields}, backends: [{{address: {{host: 192.0.2.1, port: 1}}}}]}}")
    };
    let listeners: Vec<String> = listeners.iter().enumerate().map(listener).collect();
    format!(
        "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: \
         '2025-01-{day:02}T00:00:00Z'}}\nspec: {{placement: {{gateway: {{name: edge, namespace: infra}}}}, listeners: \
         [{}]}}\n",
        listeners.join(", ")
    )
}

/// The last forward of a text is in status with these listeners.
fn held(listeners: &str) -> String {
    format!("status: {{placement: gateway infra/edge, listeners: [{listeners}]}}\n")
}

fn tls(names: &str) -> String {
    format!("protocol: TLS, port: 443, tls: {{hostnames: [{names}]}}")
}

fn tcp(port: u16) -> String {
    format!("protocol: TCP, port: {port}")
}

/// The reason of `Accepted` of each forward, `NAMESPACE/NAME`.
fn reasons(text: &str, forwards: &[&str]) -> Vec<&'static str> {
    let translation = translate(&crate::support::world(text));
    forwards.iter().map(|forward| translation.verdicts[&origin(forward)].accepted.reason.as_str()).collect()
}

fn message(text: &str, forward: &str) -> String {
    translate(&crate::support::world(text)).verdicts[&origin(forward)].accepted.message.clone()
}

fn origin(forward: &str) -> Origin {
    let (namespace, name) = forward.split_once('/').expect("NAMESPACE/NAME");
    Origin::port_forward(namespace, name)
}

/// Two forwards with these server names on one port, the first one a day older.
fn two_names(tenants: &str, (one, of_one): (&str, &str), (two, of_two): (&str, &str)) -> Vec<&'static str> {
    let text =
        gateway(tenants, "") + &forward(one, "old", 1, &[&tls(of_one)]) + &forward(two, "young", 2, &[&tls(of_two)]);
    reasons(&text, &[&format!("{one}/old"), &format!("{two}/young")])
}

const BOTH: [&str; 2] = ["Accepted", "Accepted"];
const FIRST: [&str; 2] = ["Accepted", "HostnameConflict"];

// C9
#[test]
fn no_name_lies_within_a_wildcard_of_another_namespace_whichever_came_first() {
    let wildcard = "'*.example'";
    assert_eq!(two_names("", ("a", wildcard), ("b", "x.example")), FIRST);
    assert_eq!(two_names("", ("a", wildcard), ("b", "'*.x.example'")), FIRST);
    assert_eq!(two_names("", ("a", "x.example"), ("b", wildcard)), FIRST);
    assert_eq!(two_names("", ("a", "'*.x.y.example'"), ("b", wildcard)), FIRST);
    for (one, other) in
        [("x.example", "y.example"), (wildcard, "example"), (wildcard, "x.examples"), ("x.test", wildcard)]
    {
        assert_eq!(two_names("", ("a", one), ("b", other)), BOTH, "{one} {other}");
    }
    assert_eq!(two_names("", ("a", wildcard), ("b", "'*.example'")), ["Accepted", "PortConflict"], "the same name");
}

#[test]
fn a_namespace_nests_its_own_names_as_it_likes() {
    assert_eq!(two_names("", ("a", "'*.example'"), ("a", "x.example")), BOTH);
    assert_eq!(two_names("", ("a", "x.example"), ("a", "'*.example'")), BOTH);
}

#[test]
fn names_of_different_ports_do_not_meet() {
    for (old, young) in [("'*.example'", "x.example"), ("x.example", "'*.example'")] {
        for (one, other) in [("443", "444"), ("444", "443")] {
            let text = gateway("", "")
                + &forward("a", "old", 1, &[&tls(old).replace("443", one)])
                + &forward("b", "young", 2, &[&tls(young).replace("443", other)]);
            assert_eq!(reasons(&text, &["a/old", "b/young"]), BOTH, "{old} on {one}");
        }
    }
}

#[test]
fn the_message_names_the_holder_and_the_remedy() {
    let text = gateway("", "")
        + &forward("a", "old", 1, &[&tls("'*.example'")])
        + &forward("b", "young", 2, &[&tls("x.example")]);
    let refusal = message(&text, "b/young");
    for part in ["x.example", "port 443", "*.example", "a/old", "spec.allowedForwards.tenants"] {
        assert!(refusal.contains(part), "{part:?} is not in {refusal}");
    }
}

#[test]
fn a_listed_name_may_lie_within_a_wildcard_that_is_listed_too() {
    let listed = "{name: a, namespaces: {names: [a]}, hostnames: ['*.example']}, \
                  {name: b, namespaces: {names: [b]}, hostnames: [x.example]}";
    assert_eq!(two_names(listed, ("a", "'*.example'"), ("b", "x.example")), BOTH);
    assert_eq!(two_names(listed, ("b", "x.example"), ("a", "'*.example'")), BOTH);
    let wildcard_only = "{name: a, namespaces: {names: [a]}, hostnames: ['*.example']}";
    assert_eq!(two_names(wildcard_only, ("b", "x.example"), ("a", "'*.example'")), ["NotAllowedByGateway", "Accepted"]);
}

#[test]
fn listed_names_are_all_that_a_tenant_may_claim_and_nobody_else_may_claim_them() {
    let listed = "{name: t, namespaces: {names: [a]}, hostnames: ['*.a.example', one.test]}";
    let of = |namespace: &str, names: &str| {
        let text = gateway(listed, "") + &forward(namespace, "f", 1, &[&tls(names)]);
        reasons(&text, &[&format!("{namespace}/f")])[0]
    };
    for (names, reason) in [
        ("x.a.example, one.test", "Accepted"),
        ("'*.a.example'", "Accepted"),
        ("'*.x.a.example'", "Accepted"),
        ("a.example", "NotAllowedByGateway"),
        ("x.a.example, two.test", "NotAllowedByGateway"),
        ("'*.example'", "NotAllowedByGateway"),
    ] {
        assert_eq!(of("a", names), reason, "{names}");
    }
    for (names, reason) in [
        ("two.test", "Accepted"),
        ("a.example", "Accepted"),
        ("one.test", "NotAllowedByGateway"),
        ("x.a.example", "NotAllowedByGateway"),
        ("'*.example'", "NotAllowedByGateway"),
    ] {
        assert_eq!((of("b", names), of("infra", names)), (reason, reason), "{names}");
    }
}

#[test]
fn an_entry_by_name_overrides_entries_by_labels_and_of_several_all_hold() {
    let tenants = "{name: all, namespaces: {selector: {}}, hostnames: ['*.example']}, \
                   {name: x, namespaces: {selector: {matchLabels: {team: x}}}, hostnames: ['*.x.example']}, \
                   {name: b, namespaces: {names: [b, c]}, hostnames: ['*.test']}";
    let of = |namespace: &str, name: &str| {
        let text = gateway(tenants, "") + &forward(namespace, "f", 1, &[&tls(name)]);
        reasons(&text, &[&format!("{namespace}/f")])[0]
    };
    assert_eq!(["y.x.example", "y.example"].map(|name| of("a", name)), ["Accepted", "NotAllowedByGateway"]);
    assert_eq!(["y.test", "y.example"].map(|name| of("b", name)), ["Accepted", "NotAllowedByGateway"]);
    assert_eq!(["y.example", "y.test"].map(|name| of("infra", name)), ["Accepted", "NotAllowedByGateway"]);
}

#[test]
fn listed_ports_are_all_that_a_tenant_may_claim_and_nobody_else_may_claim_them() {
    let listed = "{name: t, namespaces: {names: [a]}, ports: [{protocol: TCP, port: 5000, endPort: 5009}, \
                  {protocol: TLS, port: 443}]}";
    let of = |namespace: &str, fields: &str| {
        let text = gateway(listed, "") + &forward(namespace, "f", 1, &[fields]);
        reasons(&text, &[&format!("{namespace}/f")])[0]
    };
    for (fields, of_a, of_b) in [
        ("protocol: TCP, port: 5000, endPort: 5009", "Accepted", "NotAllowedByGateway"),
        ("protocol: TCP, port: 5005, endPort: 5010", "NotAllowedByGateway", "NotAllowedByGateway"),
        ("protocol: UDP, port: 5000", "NotAllowedByGateway", "Accepted"),
        ("protocol: TCP, port: 80", "NotAllowedByGateway", "Accepted"),
        ("protocol: TLS, port: 443, tls: {hostnames: [x.test]}", "Accepted", "Accepted"),
        ("protocol: TCP, port: 443", "Accepted", "NotAllowedByGateway"),
    ] {
        assert_eq!((of("a", fields), of("b", fields)), (of_a, of_b), "{fields}");
    }
}

#[test]
fn allocated_ports_keep_out_of_the_ports_of_other_tenants() {
    let tenants = "{name: t, namespaces: {names: [a]}, ports: [{protocol: TCP, port: 20000, endPort: 20001}]}";
    let of = |namespace: &str, protocol: &str| {
        let text = gateway(tenants, "allocation: [{port: 20000, endPort: 20002}], ")
            + &forward(namespace, "f", 1, &[&format!("protocol: {protocol}")])
            + &forward(namespace, "g", 1, &[&format!("protocol: {protocol}")]);
        let translation = translate(&crate::support::world(&text));
        let port = |name: &str| translation.verdicts[&Origin::port_forward(namespace, name)].listeners[0].port;
        (port("f").is_some(), port("g").is_some(), port("f"))
    };
    assert_eq!(of("b", "TCP"), (true, false, Some(20002)), "one port is left");
    let (first, second, _) = of("a", "TCP");
    assert!(first && second, "its own ports are open to the tenant");
    let (first, second, _) = of("b", "UDP");
    assert!(first && second, "another transport");
}

/// Forwards of this namespace with one port each, from the oldest to the youngest, behind a Service with ten ports.
fn ports(tenants: &str, namespace: &str, count: u8) -> Vec<&'static str> {
    let names: Vec<String> = (1..=count).map(|day| format!("{namespace}/f{day}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let forwards: String =
        (1..=count).map(|day| forward(namespace, &format!("f{day}"), day, &[&tcp(1000 + u16::from(day))])).collect();
    reasons(&(gateway(tenants, "service: {maxPorts: 10}, ") + &forwards), &names)
}

// C9
#[test]
fn a_namespace_without_a_number_of_its_own_holds_half_of_the_ports() {
    let mut expected = vec!["Accepted"; 5];
    expected.push("QuotaExceeded");
    assert_eq!(ports("", "a", 6), expected);
    assert_eq!(ports("", "infra", 6), ["Accepted"; 6], "the gateway's own namespace");
    let tenant = "{name: t, namespaces: {names: [a]}, maxPorts: 8}";
    assert_eq!(ports(tenant, "a", 8), ["Accepted"; 8]);
    assert_eq!(ports(tenant, "a", 9)[8], "QuotaExceeded");
    let without_number = "{name: t, namespaces: {names: [a]}, maxForwards: 100}";
    assert_eq!(ports(without_number, "a", 6), expected);
}

#[test]
fn a_namespace_that_wants_too_much_leaves_the_others_their_ports() {
    let greedy: String =
        (1..=9).map(|day| forward("a", &format!("f{day}"), day, &[&tcp(1000 + u16::from(day))])).collect();
    let text = gateway("", "service: {maxPorts: 10}, ")
        + &greedy
        + &forward("b", "late", 20, &[&tcp(2000), &tcp(2001), &tcp(2002)])
        + &forward("c", "later", 21, &[&tcp(2003), &tcp(2004)]);
    assert_eq!(
        reasons(&text, &["a/f5", "a/f6", "b/late", "c/later"]),
        ["Accepted", "QuotaExceeded", "Accepted", "Accepted"]
    );
}

#[test]
fn the_number_of_ports_counts_ranges_shared_ports_once_and_allocated_ports() {
    let tenant = "{name: t, namespaces: {names: [a]}, maxPorts: 3}";
    let of = |forwards: &str, names: &[&str]| reasons(&(gateway(tenant, "") + forwards), names);
    let range = forward("a", "range", 1, &["protocol: TCP, port: 1000, endPort: 1002"]);
    let further = |name: &str, day: u8, fields: &str| forward("a", name, day, &[fields]);
    let all = range.clone() + &further("more", 2, &tcp(1003)) + &further("any", 3, "protocol: TCP");
    assert_eq!(of(&all, &["a/range", "a/more", "a/any"]), ["Accepted", "QuotaExceeded", "QuotaExceeded"]);
    let shared = further("x", 1, &tls("x.test"))
        + &further("y", 2, &tls("y.test"))
        + &further("z", 3, &tcp(1))
        + &further("any", 4, "protocol: TCP")
        + &further("last", 5, &tcp(2));
    let expected = ["Accepted", "Accepted", "Accepted", "QuotaExceeded", "Accepted"];
    assert_eq!(of(&shared, &["a/x", "a/y", "a/z", "a/any", "a/last"]), expected, "explicit ports come first");
}

/// The reasons in the second world, if the first one was translated before.
fn reasons_after(first: &str, second: &str, forwards: &[&str]) -> Vec<&'static str> {
    let mut translator = Translator::default();
    for (number, text) in (1..).zip([first, second]) {
        translator.update(&crate::support::world(text), &Changes::all(), &Version { epoch: String::new(), number });
    }
    let verdict = |forward: &&str| translator.verdict(&origin(forward)).expect("a verdict").accepted.reason.as_str();
    forwards.iter().map(verdict).collect()
}

#[test]
fn a_request_that_gets_its_port_back_comes_before_allocated_ports() {
    let tenant = "{name: t, namespaces: {names: [a]}, maxPorts: 3}";
    let own = forward("a", "lost", 2, &[&tcp(1001)])
        + &forward("a", "held", 3, &[&tcp(1002)])
        + &forward("a", "any", 4, &["protocol: TCP"])
        + &forward("a", "more", 5, &["protocol: TCP"]);
    let before = gateway(tenant, "") + &forward("b", "first", 1, &[&tcp(1001)]) + &own;
    let after = gateway(tenant, "") + &own;
    let names = ["a/lost", "a/held", "a/any", "a/more"];
    assert_eq!(reasons(&before, &names), ["PortConflict", "Accepted", "Accepted", "Accepted"]);
    let expected = ["Accepted", "Accepted", "Accepted", "QuotaExceeded"];
    assert_eq!(reasons(&after, &names), expected);
    assert_eq!(reasons_after(&before, &after, &names), expected);
}

#[test]
fn a_forward_beyond_the_number_is_left_out_as_a_whole_and_those_that_serve_stay() {
    let tenant = "{name: t, namespaces: {names: [a]}, maxForwards: 2}";
    let serves = held("{name: l0, protocol: TCP, port: 1003}");
    let text = gateway(tenant, "")
        + &forward("a", "old", 1, &[&tcp(1001), "protocol: TCP"])
        + &forward("a", "next", 2, &[&tcp(1002), "protocol: TCP"])
        + &forward("a", "serving", 3, &[&tcp(1003)])
        + &serves;
    assert_eq!(reasons(&text, &["a/old", "a/next", "a/serving"]), ["Accepted", "QuotaExceeded", "Accepted"]);
    let translation = translate(&crate::support::world(&text));
    let listeners = &translation.verdicts[&origin("a/next")].listeners;
    assert!(listeners.iter().all(|listener| listener.port.is_none()), "{listeners:?}");
    assert!(message(&text, "a/next").contains("tenant 't'"));
}

#[test]
fn each_namespace_of_an_entry_has_the_whole_number() {
    let tenant = "{name: t, namespaces: {names: [a, b]}, maxForwards: 1}";
    let text = gateway(tenant, "") + &forward("a", "f", 1, &[&tcp(1)]) + &forward("b", "f", 2, &[&tcp(2)]);
    assert_eq!(reasons(&text, &["a/f", "b/f"]), BOTH);
}

#[test]
fn listeners_carry_the_smallest_number_of_sessions_of_their_namespace() {
    let tenants = "{name: t, namespaces: {names: [a]}, maxConnections: 7}, \
                   {name: u, namespaces: {names: [a]}, maxConnections: 5}, \
                   {name: v, namespaces: {names: [c]}, maxPorts: 5}";
    let forwards: String = [("a", 1), ("b", 2), ("c", 3)]
        .iter()
        .map(|(namespace, port)| forward(namespace, "f", 1, &[&tcp(*port)]))
        .collect();
    let translation = translate(&crate::support::world(&(gateway(tenants, "") + &forwards)));
    let configuration = &translation.configurations[&Group::Gateway(ObjectKey::new("infra", "edge"))];
    let limits: Vec<Option<u32>> = configuration
        .supported()
        .map(|(_, listener)| listener.tenant_limits.as_ref().and_then(|limits| limits.max_connections))
        .collect();
    assert_eq!(limits, [Some(5), None, None]);
}

#[test]
fn durable_listeners_alone_carry_the_bytes_of_the_logs_of_their_namespace() {
    let tenants = "{name: t, namespaces: {names: [a]}, maxLogBytes: 33554432}, \
                   {name: u, namespaces: {names: [a]}, maxLogBytes: 16777216}";
    let durable = format!("{}, durable: {{framing: Newline, send: {{relp: {{}}}}}}", tcp(1));
    let forwards =
        forward("a", "f", 1, &[&durable, &tcp(2)]) + &forward("b", "f", 1, &[&durable.replace("port: 1", "port: 3")]);
    let translation = translate(&crate::support::world(&(gateway(tenants, "") + &forwards)));
    let configuration = &translation.configurations[&Group::Gateway(ObjectKey::new("infra", "edge"))];
    let limits: Vec<Option<u64>> = configuration
        .supported()
        .map(|(_, listener)| listener.tenant_limits.as_ref().and_then(|limits| limits.max_log_bytes))
        .collect();
    assert_eq!(limits, [Some(16 << 20), None, None]);
}

#[test]
fn a_laptop_belongs_to_one_user_and_has_no_tenants() {
    let tenant = "{name: t, namespaces: {names: [a]}, hostnames: [x.example], maxForwards: 1}";
    let text = gateway(tenant, "").replace("kind: World\n", "kind: World\nlaptop: {}\n")
        + &forward("b", "one", 1, &[&tls("'*.example'")])
        + &forward("a", "two", 2, &[&tls("y.example")])
        + &forward("a", "three", 2, &[&tcp(1000)]);
    assert_eq!(reasons(&text, &["b/one", "a/two", "a/three"]), ["Accepted"; 3]);
}

/// The listeners of the gateway after each of these worlds.
fn after(worlds: &[World]) -> Vec<Vec<ListenerId>> {
    let mut translator = Translator::default();
    let mut step = |(number, world): (u64, &World)| -> Vec<ListenerId> {
        translator.update(world, &Changes::all(), &Version { epoch: String::new(), number });
        let group = Group::Gateway(ObjectKey::new("infra", "edge"));
        translator.snapshot(&group).expect("the gateway").listeners.keys().cloned().collect()
    };
    (1..).zip(worlds).map(&mut step).collect()
}

#[test]
fn an_edit_into_a_wildcard_of_another_namespace_leaves_the_listener_as_it_was() {
    let world = |name: &str| {
        let text = gateway("", "")
            + &forward("a", "old", 1, &[&tls("'*.example'")])
            + &forward("b", "young", 2, &[&tls(name)]);
        crate::support::world(&text)
    };
    let steps = after(&[world("x.test"), world("x.example")]);
    assert_eq!((steps[0].len(), &steps[1]), (2, &steps[0]));
}

#[test]
fn the_last_good_version_gives_way_to_a_wildcard_around_it() {
    let world = |old: &str, young: &str| {
        let text = gateway("", "") + &forward("a", "old", 1, &[&tls(old)]) + &forward("b", "young", 2, &[&tls(young)]);
        crate::support::world(&text)
    };
    let kept = after(&[world("y.test", "x.example"), world("'*.other'", "z.other")]);
    assert_eq!((kept[0].len(), kept[1].len()), (2, 2));
    let gone = after(&[world("y.test", "x.example"), world("'*.example', '*.other'", "z.other")]);
    assert_eq!((gone[0].len(), gone[1].len()), (2, 1), "x.example would lie within *.example");
}

#[test]
fn a_smaller_share_stops_the_listeners_of_the_youngest_forward() {
    let world = |most: u8| {
        let tenant = format!("{{name: t, namespaces: {{names: [a]}}, maxPorts: {most}}}");
        let forwards = forward("a", "old", 1, &[&tcp(1)]) + &forward("a", "young", 2, &[&tcp(2)]);
        crate::support::world(&(gateway(&tenant, "") + &forwards))
    };
    let steps = after(&[world(2), world(1), world(2)]);
    assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2]);
    assert_eq!(steps[1][0].origin, origin("a/old"));
}

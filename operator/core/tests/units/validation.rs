//! Which objects are refused on their own: each rule at its bound.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use crds::PortForward;
use operator_core::{ObjectKey, Pod, World, accepted_headers, translate, validate};
use proxy_api::AcceptHeader;
use serde_json::{Value, json};

fn forward(spec: &Value) -> PortForward {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec})).expect("a forward")
}

/// The fields that are refused.
fn fields(spec: &Value) -> Vec<String> {
    match validate(&forward(spec)) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.into_iter().map(|violation| violation.field).collect(),
    }
}

fn backend(at: usize) -> Value {
    json!({"address": {"host": format!("h{at}.example"), "port": 1}})
}

/// A sidecar forward with these listeners, each an addition to a good one.
fn with(listeners: &[Value]) -> Value {
    let all: Vec<Value> = (0..).zip(listeners).map(|(at, more)| listener(at, more)).collect();
    json!({"placement": {"sidecar": {"selector": {}}}, "listeners": all})
}

fn listener(at: u16, more: &Value) -> Value {
    let mut listener =
        json!({"name": format!("l{at}"), "protocol": "TCP", "port": 1000 + at, "backends": [backend(0)]});
    for (field, value) in more.as_object().expect("fields") {
        listener[field] = value.clone();
    }
    listener
}

fn is_good(listeners: &[Value]) -> bool {
    fields(&with(listeners)).is_empty()
}

/// The fields of a good forward with more of its spec.
fn with_spec(field: &str, value: &Value) -> Vec<String> {
    let mut spec = with(&[json!({})]);
    spec[field] = value.clone();
    fields(&spec)
}

#[test]
fn a_forward_has_1_to_32_listeners_and_a_listener_1_to_16_backends() {
    let listeners = |count: usize| is_good(&vec![json!({}); count]);
    assert!(listeners(1) && listeners(32) && !listeners(0) && !listeners(33));
    let backends = |count: usize| is_good(&[json!({"backends": (0..count).map(backend).collect::<Vec<Value>>()})]);
    assert!(backends(1) && backends(16) && !backends(0) && !backends(17));
}

/// The warnings about a listener with these backends and this policy.
fn warnings(backends: &[&str], policy: &str) -> Vec<String> {
    let text = format!(
        "kind: PortForward\nmetadata: {{name: web, namespace: ns}}\nspec: {{placement: {{sidecar: {{selector: {{}}}}}}, \
         listeners: [{{name: l, protocol: TCP, port: 1000, loadBalancing: {{{policy}}}, backends: [{}]}}]}}\n",
        backends.join(", ")
    );
    let world = crate::support::world(&text);
    translate(&world).verdicts[&proxy_api::Origin::port_forward("ns", "web")].warnings.clone()
}

/// The settings that a warning says have no effect.
fn idle(backends: &[&str], policy: &str) -> Vec<String> {
    let all = warnings(backends, policy);
    all.iter()
        .map(|warning| warning.split(" in listener 'l' has no effect").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn settings_of_balancing_without_an_effect_are_warned_about() {
    let (one, name) = ("{address: {host: 192.0.2.1, port: 1}}", "{address: {host: a.example, port: 1}}");
    let local = "{local: {port: 1}}";
    for policy in ["LeastConnections", "Random", "SourceHash"] {
        let said = format!("policy: {policy}");
        let expected = [format!("policy {policy}")];
        assert_eq!(idle(&[one], &said), expected);
        assert_eq!(idle(&[local], &said), expected);
        assert!(idle(&[name], &said).is_empty(), "a name may have several addresses");
        assert!(idle(&[one, local], &said).is_empty());
    }
    assert!(idle(&[one], "").is_empty() && idle(&[one], "policy: RoundRobin").is_empty());
    let (standby, off) = ("{local: {port: 2}, priority: 1}", "{local: {port: 2}, weight: 0}");
    let named_standby = "{address: {host: a.example, port: 1}, priority: 1}";
    assert_eq!(idle(&[one, standby], "policy: Random"), ["policy Random"], "one endpoint for each priority");
    assert_eq!(idle(&[one, off], "policy: Random"), ["policy Random"], "the other backend gets no sessions");
    assert!(idle(&[one, named_standby], "policy: Random").is_empty(), "the standby may have several addresses");
    assert!(idle(&[one, local, standby], "policy: Random").is_empty());
    let weighs = |weight: u32| format!("{{address: {{host: b.example, port: 1}}, weight: {weight}}}");
    assert_eq!(idle(&[&weighs(2)], ""), ["weight 2"]);
    assert!(idle(&[&weighs(1)], "").is_empty() && idle(&[&weighs(0), &weighs(1)], "").is_empty());
    assert!(idle(&[&weighs(2), name], "").is_empty());
    let ranked = |priority: u32| format!("{{address: {{host: c.example, port: 1}}, priority: {priority}}}");
    assert_eq!(idle(&[&ranked(3)], ""), ["priority 3"]);
    assert!(idle(&[&ranked(0)], "").is_empty() && idle(&[&ranked(3), name], "").is_empty());
    assert_eq!(idle(&[&weighs(2), &ranked(1)], ""), ["weight 2"], "alone in its priority");
    let closed = warnings(&[off], "");
    assert!(closed.len() == 1 && closed[0].contains("listener 'l' has a weight above 0"), "{closed:?}");
}

#[test]
fn a_forward_has_one_placement_and_a_name() {
    let mut spec = with(&[json!({})]);
    spec["placement"] = json!({});
    assert_eq!(fields(&spec), ["spec.placement"]);
    let nameless: PortForward =
        serde_json::from_value(json!({"metadata": {}, "spec": with(&[json!({})])})).expect("read");
    let violations = validate(&nameless).expect_err("refused");
    assert_eq!(violations.iter().map(|violation| violation.field.as_str()).collect::<Vec<&str>>(), ["metadata.name"]);
    assert!(violations[0].to_string().starts_with("metadata.name: "));
}

#[test]
fn a_port_is_1_to_65535_and_may_be_absent_in_a_gateway() {
    assert_eq!(fields(&with(&[json!({"port": 0})])), ["spec.listeners[0].port"]);
    assert!(is_good(&[json!({"port": 65_535})]));
    assert_eq!(fields(&with(&[json!({"port": null})])), ["spec.listeners[0].port"]);
    let mut spec = with(&[json!({"port": null})]);
    spec["placement"] = json!({"gateway": {"name": "edge"}});
    assert!(fields(&spec).is_empty());
    spec["listeners"][0]["port"] = json!(0);
    assert_eq!(fields(&spec), ["spec.listeners[0].port"]);
}

#[test]
fn a_backend_is_of_one_kind_and_has_a_port() {
    for bad in [
        json!({}),
        json!({"local": {"port": 0}}),
        json!({"service": {"name": "s", "port": 0}}),
        json!({"local": {"port": 1}, "service": {"name": "s", "port": 1}}),
    ] {
        assert_eq!(fields(&with(&[json!({"backends": [bad]})])), ["spec.listeners[0].backends[0]"]);
    }
    assert!(is_good(&[json!({"backends": [{"local": {"port": 1}}]})]), "a pod has a machine of its own");
}

#[test]
fn listeners_of_one_forward_do_not_overlap() {
    let range = json!({"port": 10, "endPort": 12});
    for (port, good) in [(9, true), (10, false), (11, false), (12, false), (13, true)] {
        assert_eq!(is_good(&[range.clone(), json!({"port": port})]), good, "{port}");
        assert_eq!(is_good(&[json!({"port": port}), range.clone()]), good, "{port}");
        assert!(is_good(&[range.clone(), json!({"port": port, "protocol": "UDP"})]), "{port}");
    }
    assert!(!is_good(&[range.clone(), json!({"port": 8, "endPort": 10})]));
    assert!(is_good(&[range, json!({"port": 8, "endPort": 9})]));
    assert_eq!(fields(&with(&[json!({}), json!({"name": "l0"})])), ["spec.listeners[1].name"]);
}

#[test]
fn listeners_with_different_server_names_share_a_port() {
    let tls = |names: &[&str]| json!({"protocol": "TLS", "port": 443, "tls": {"hostnames": names}});
    assert!(is_good(&[tls(&["a.example"]), tls(&["b.example"])]));
    assert!(!is_good(&[tls(&["a.example"]), tls(&["b.example", "a.example"])]));
    assert!(!is_good(&[tls(&["a.example"]), json!({"port": 443})]));
    assert!(!is_good(&[json!({"port": 443}), tls(&["a.example"])]));
    assert!(is_good(&[tls(&["a.example"]), json!({"port": 443, "protocol": "UDP"})]));
}

#[test]
fn the_listeners_of_a_forward_have_1024_ports_at_most() {
    let with_range = |end: u16| is_good(&[json!({"port": 2000, "endPort": end})]);
    assert!(with_range(3023) && !with_range(3024));
    assert!(is_good(&[json!({"port": 2000, "endPort": 3022}), json!({"port": 4000})]));
    assert!(!is_good(&[json!({"port": 2000, "endPort": 3023}), json!({"port": 4000})]));
}

#[test]
fn a_range_ends_where_it_begins_or_later_and_its_backends_below_65536() {
    let end_port = "spec.listeners[0].endPort";
    assert!(is_good(&[json!({"port": 10, "endPort": 10})]));
    assert_eq!(fields(&with(&[json!({"port": 10, "endPort": 9})])), [end_port]);
    let mut spec = with(&[json!({"port": null, "endPort": 9})]);
    spec["placement"] = json!({"gateway": {"name": "edge"}});
    assert_eq!(fields(&spec), [end_port]);
    let range = |backend: &Value| fields(&with(&[json!({"port": 10, "endPort": 12, "backends": [backend]})]));
    for (last, beyond) in [
        (json!({"local": {"port": 65_533}}), json!({"local": {"port": 65_534}})),
        (json!({"address": {"host": "h", "port": 65_533}}), json!({"address": {"host": "h", "port": 65_534}})),
        (json!({"service": {"name": "s", "port": 65_533}}), json!({"service": {"name": "s", "port": 65_534}})),
    ] {
        assert!(range(&last).is_empty(), "{last}");
        assert_eq!(range(&beyond), [end_port], "{beyond}");
    }
}

#[test]
fn server_names_are_dns_names_of_a_listener_for_tls() {
    let tls = |names: &Value| fields(&with(&[json!({"protocol": "TLS", "tls": {"hostnames": names}})]));
    let hostnames = "spec.listeners[0].tls.hostnames";
    let many = |count: usize| json!((0..count).map(|at| format!("h{at}.example")).collect::<Vec<String>>());
    assert!(tls(&many(1)).is_empty() && tls(&many(16)).is_empty());
    assert_eq!((tls(&many(0)), tls(&many(17))), (vec![hostnames.to_owned()], vec![hostnames.to_owned()]));
    assert!(tls(&json!(["*.a.example"])).is_empty());
    for bad in ["a.*.example", "*", "", "*a.example"] {
        assert_eq!(tls(&json!(["good.example", bad])), [hostnames], "{bad}");
    }
    assert_eq!(fields(&with(&[json!({"tls": {"hostnames": ["a"]}})])), ["spec.listeners[0].tls"]);
    assert_eq!(fields(&with(&[json!({"protocol": "TLS"})])), ["spec.listeners[0].tls"]);
}

#[test]
fn no_limit_is_0() {
    for name in [
        "maxConnections",
        "maxQueued",
        "queueSeconds",
        "maxConnectionsPerSource",
        "newConnectionsPerSecond",
        "bytesPerSecond",
        "maxFlows",
    ] {
        assert_eq!(with_spec("limits", &json!({name: 0})), [format!("spec.limits.{name}")]);
        assert!(with_spec("limits", &json!({name: 1})).is_empty());
    }
}

#[test]
fn lists_of_networks_have_64_items_that_can_be_read() {
    let networks = |count: usize| vec!["10.0.0.0/8"; count];
    for (list, field) in [("allowCIDRs", "spec.access.allowCIDRs"), ("denyCIDRs", "spec.access.denyCIDRs")] {
        assert!(with_spec("access", &json!({list: networks(64)})).is_empty());
        assert_eq!(with_spec("access", &json!({list: networks(65)})), [field]);
        assert_eq!(with_spec("access", &json!({list: ["10.0.0.0/8", "10.0.0.1"]})), [format!("{field}[1]")]);
    }
}

#[test]
fn proxy_headers_are_read_of_peers_that_are_named_and_not_over_udp() {
    let field = "spec.listeners[0].proxyProtocol";
    let of =
        |protocol: &str, headers: &Value| fields(&with(&[json!({"protocol": protocol, "proxyProtocol": headers})]));
    let reads = json!({"accept": "Optional", "trustedCIDRs": ["10.0.0.0/8"]});
    assert!(of("TCP", &reads).is_empty());
    assert_eq!(of("UDP", &reads), [field]);
    assert_eq!(of("TCP", &json!({"accept": "Required"})), [field]);
    assert!(of("TCP", &json!({"send": "V2"})).is_empty());
    assert_eq!(of("UDP", &json!({"send": "V2"})), [field]);
    assert!(of("UDP", &json!({"accept": "Disabled", "send": "Disabled"})).is_empty());
}

#[test]
fn a_check_asks_one_thing_at_a_port_in_time() {
    let check = |check: &Value| fields(&with(&[json!({"healthCheck": check})]));
    let field = "spec.listeners[0].healthCheck";
    let path = |path: &str| check(&json!({"http": {"path": path}}));
    assert!(path("/").is_empty() && path("/a-b?c=~").is_empty() && check(&json!({"http": {}})).is_empty());
    for bad in ["healthz", "/a b", "/ä", ""] {
        assert_eq!(path(bad), [format!("{field}.http.path")], "{bad}");
    }
    assert_eq!(check(&json!({"http": {}, "tcp": {}})), [field]);
    assert_eq!(check(&json!({})), [field]);
    assert_eq!(check(&json!({"tcp": {"port": 0}})), [field]);
    assert!(check(&json!({"tcp": {"port": 1}})).is_empty());
    assert!(check(&json!({"tcp": {}, "intervalSeconds": 3, "timeoutSeconds": 3})).is_empty());
    let slow = json!({"tcp": {}, "intervalSeconds": 3, "timeoutSeconds": 4});
    assert_eq!(check(&slow), [format!("{field}.timeoutSeconds")]);
    let udp = |check: &Value| fields(&with(&[json!({"protocol": "UDP", "healthCheck": check})]));
    assert_eq!((udp(&json!({"tcp": {}})), udp(&json!({"tcp": {"port": 9}}))), (vec![field.to_owned()], Vec::new()));
}

#[test]
fn a_check_of_a_database_is_one_kind_with_an_account_that_can_be_written() {
    let check = |check: &Value| fields(&with(&[json!({"healthCheck": check})]));
    let field = "spec.listeners[0].healthCheck";
    for kind in ["mysql", "postgres"] {
        let user = |user: &str| check(&json!({kind: {"user": user}}));
        assert!(check(&json!({kind: {}})).is_empty() && user("probe").is_empty() && user(&"u".repeat(80)).is_empty());
        for bad in ["", "a b", "ä", &"u".repeat(81)] {
            assert_eq!(user(bad), [format!("{field}.{kind}.user")], "{bad}");
        }
        assert_eq!(check(&json!({kind: {}, "tcp": {}})), [field]);
        assert_eq!(check(&json!({kind: {"port": 0}})), [field]);
    }
    assert_eq!(check(&json!({"mysql": {}, "postgres": {}})), [field]);
}

#[test]
fn bytes_that_a_check_sends_are_those_that_it_needs_an_answer_to() {
    let tcp = |tcp: &Value| fields(&with(&[json!({"healthCheck": {"tcp": tcp}})]));
    let field = "spec.listeners[0].healthCheck.tcp";
    assert!(tcp(&json!({"send": r"PING\r\n", "expect": "+PONG"})).is_empty());
    assert!(tcp(&json!({"expect": r"\x00"})).is_empty(), "a server may speak first");
    assert_eq!(tcp(&json!({"send": "PING"})), [field]);
    assert_eq!(tcp(&json!({"send": r"\q", "expect": ""})), [format!("{field}.send"), format!("{field}.expect")]);
}

#[test]
fn a_backend_may_name_the_port_to_check_if_there_are_checks() {
    let backends = |port: u16| json!([{"address": {"host": "h.example", "port": 1}, "healthCheckPort": port}]);
    let of = |port: u16, more: Value| {
        let mut listener = more;
        listener["backends"] = backends(port);
        fields(&with(&[listener]))
    };
    assert!(of(9, json!({"healthCheck": {"tcp": {}}})).is_empty());
    assert!(of(9, json!({"protocol": "UDP", "healthCheck": {"tcp": {}}})).is_empty(), "it is the port of UDP");
    assert_eq!(of(9, json!({})), ["spec.listeners[0]"]);
    assert_eq!(of(0, json!({"healthCheck": {"tcp": {}}})), ["spec.listeners[0].backends[0].healthCheckPort"]);
}

/// The only listener of a forward as a proxy runs it.
fn compiled(spec: &Value) -> Value {
    let mut world = World::default();
    let key = ObjectKey::new("ns", "web");
    world.forwards.insert(key.clone(), Box::new(forward(spec)));
    world.pods.insert(ObjectKey::new("ns", "p"), Pod::default());
    let configurations = translate(&world).configurations;
    let offer = configurations.values().flat_map(|it| it.listeners.values()).next().expect("a listener");
    serde_json::to_value(offer).expect("JSON")
}

#[test]
fn networks_are_compared_as_what_they_mean() {
    let allow = |network: &str| {
        let mut spec = with(&[json!({})]);
        spec["access"] = json!({"allowCIDRs": [network]});
        compiled(&spec)["access"]["allow"][0].as_str().expect("a network").to_owned()
    };
    assert_eq!(allow("10.1.2.3/8"), "10.0.0.0/8");
    assert_eq!(allow("::ffff:10.1.2.3/104"), "10.0.0.0/8");
    assert_eq!(allow("::ffff:0:0/96"), "0.0.0.0/0");
    assert_eq!(allow("::ffff:0:0/95"), "::fffe:0:0/95", "it is wider than all of IPv4");
    assert_eq!(allow("fd00::1/8"), "fd00::/8");
}

#[test]
fn a_queue_needs_a_limit_of_connections() {
    let limits = |limits: &Value| {
        let mut spec = with(&[json!({})]);
        spec["limits"] = limits.clone();
        compiled(&spec)["limits"].clone()
    };
    let queue = limits(&json!({"maxConnections": 9}));
    assert_eq!(
        (&queue["onLimit"], &queue["maxQueued"], &queue["queueSeconds"]),
        (&json!("Queue"), &json!(1000), &json!(5))
    );
    let reject = limits(&json!({"maxConnections": 9, "onLimit": "Reject", "maxQueued": 7, "queueSeconds": 7}));
    assert_eq!(
        (&reject["onLimit"], &reject["maxQueued"], &reject["queueSeconds"]),
        (&json!("Reject"), &json!(0), &json!(0))
    );
    let own = limits(&json!({"maxConnections": 9, "maxQueued": 7, "queueSeconds": 8}));
    assert_eq!((&own["maxQueued"], &own["queueSeconds"]), (&json!(7), &json!(8)));
    let flows = limits(&json!({"maxFlows": 3, "maxQueued": 7}));
    assert_eq!((&flows["onLimit"], &flows["maxQueued"], &flows["maxFlows"]), (&json!("Reject"), &json!(0), &json!(3)));
    assert_eq!(limits(&json!({"maxQueued": 7})), json!(null), "no limit is left");
}

#[test]
fn every_policy_of_balancing_is_passed_on() {
    for policy in ["RoundRobin", "LeastConnections", "Random", "SourceHash"] {
        assert_eq!(compiled(&with(&[json!({"loadBalancing": {"policy": policy}})]))["policy"], policy);
    }
    assert_eq!(compiled(&with(&[json!({})]))["policy"], "RoundRobin");
}

#[test]
fn a_long_selector_stands_in_status_as_a_hash() {
    let placement = |value: &str| {
        let mut world = World::default();
        let mut spec = with(&[json!({})]);
        spec["placement"] = json!({"sidecar": {"selector": {"matchLabels": {"app": value}}}});
        world.forwards.insert(ObjectKey::new("ns", "web"), Box::new(forward(&spec)));
        translate(&world).verdicts[&proxy_api::Origin::port_forward("ns", "web")].placement.clone()
    };
    let value = |length: usize| "x".repeat(length);
    assert_eq!(placement(&value(96)), format!("sidecar app={}", value(96)), "100 letters");
    let hash = placement(&value(97));
    assert!(hash.starts_with("sidecar #") && hash.len() == "sidecar #".len() + 16, "{hash}");
    assert_ne!(placement(&value(98)), hash);
}

#[test]
fn headers_that_nobody_reads_are_not_said() {
    let networks: Vec<ipnet::IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
    assert_eq!(accepted_headers(None), None);
    assert_eq!(accepted_headers(Some((AcceptHeader::Disabled, networks.as_slice()))), None);
    for (accept, expected) in
        [(AcceptHeader::Optional, crds::AcceptHeader::Optional), (AcceptHeader::Required, crds::AcceptHeader::Required)]
    {
        let headers = accepted_headers(Some((accept, networks.as_slice()))).expect("headers");
        assert_eq!((headers.accept, headers.trusted_cidrs), (expected, vec!["10.0.0.0/8".to_owned()]));
    }
}

//! Endpoints without a pod, which are checked like addresses.

use operator_core::{Changes, ObjectKey, world::reach::Reach};
use proxy_api::Origin;

use super::{EDGE, Followed, forward, ips};

/// What status says about endpoints that are left out: how many of how many, and an example.
fn left_out(followed: &Followed, namespace: &str, name: &str) -> Option<String> {
    let reason = followed.reason(namespace, name);
    let verdict = followed.translator.verdict(&Origin::port_forward(namespace, name)).expect("a verdict");
    let refs = (reason == "AddressNotAllowed").then_some(&verdict.resolved_refs.message);
    let mut said = verdict.warnings.iter().chain(refs);
    let (start, _) = said.next()?.split_once(", which has no pod")?;
    assert_eq!(said.next(), None, "once");
    Some(start.to_owned())
}

#[test]
fn endpoints_without_a_pod_follow_the_networks_of_the_gateway_its_nodes_and_the_slices() {
    let world = "kind: World\nservices: {shop/pg: {cluster: [{protocol: TCP, port: 1, endpoints: ['10.0.0.8:1', \
                 '10.1.0.9:1']}]}}\npodless: {shop/pg: [10.0.0.8]}\n";
    let text = world.to_owned() + EDGE + &forward("shop", "a", 80, "{service: {name: pg, port: 1}}");
    let mut followed = Followed::new(&text);
    let used = |followed: &Followed| {
        assert_eq!(followed.reason("shop", "a"), "ResolvedRefs", "it has an endpoint");
        (followed.endpoints("shop/pg:1/TCP@infra/edge"), left_out(followed, "shop", "a"))
    };
    let one = Some("1 of the endpoints of Service shop/pg may not be used, such as 10.0.0.8:1".to_owned());
    let (pod, both) = (vec!["10.1.0.9:1".to_owned()], vec!["10.0.0.8:1".to_owned(), "10.1.0.9:1".to_owned()]);
    assert_eq!(used(&followed), (pod.clone(), one.clone()));
    followed.allow(&["10.0.0.0/24"]);
    assert_eq!(used(&followed), (both.clone(), None));
    followed.reach(Reach { nodes: ips(&["10.0.0.8"]), ..Reach::default() });
    assert_eq!(used(&followed), (pod.clone(), one.clone()), "the address is that of a node now");
    followed.allow(&["10.0.0.8/32"]);
    assert_eq!(used(&followed), (both.clone(), None), "the gateway names it");
    followed.allow(&["192.0.2.0/24"]);
    assert_eq!(used(&followed), (pod, one));
    followed.world.podless.clear();
    followed.update(&Changes { podless: [ObjectKey::new("shop", "pg")].into(), ..Changes::default() });
    assert_eq!(used(&followed), (both, None), "a pod has the address");
}

#[test]
fn endpoints_without_a_pod_are_addresses_for_forwards_of_the_gateways_own_namespace_too() {
    let world = "kind: World\napiServer: ['10.0.0.7:6443']\nservices: {infra/pg: {cluster: [{protocol: TCP, port: 1, \
                 endpoints: ['10.0.0.7:6443', '10.0.0.8:1', '10.0.0.9:10250', '10.1.0.9:1']}]}}\npodless: {infra/pg: \
                 [10.0.0.7, 10.0.0.8, 10.0.0.9]}\n";
    let text = world.to_owned() + EDGE + &forward("infra", "a", 80, "{service: {name: pg, port: 1}}");
    let mut followed = Followed::new(&text);
    let used = |followed: &Followed| {
        assert_eq!(followed.reason("infra", "a"), "ResolvedRefs", "it has an endpoint");
        (followed.endpoints("infra/pg:1/TCP@infra/edge!"), left_out(followed, "infra", "a"))
    };
    // The example is the smallest address.
    let said = |count: u8| {
        Some(format!("{count} of the endpoints of Service infra/pg may not be used, such as 10.0.0.7:6443"))
    };
    let (pod, both) = (vec!["10.1.0.9:1".to_owned()], vec!["10.0.0.8:1".to_owned(), "10.1.0.9:1".to_owned()]);
    assert_eq!(used(&followed), (both.clone(), said(2)), "without networks all but special addresses");
    followed.allow(&["192.0.2.0/24"]);
    assert_eq!(used(&followed), (pod, said(3)));
    followed.allow(&["10.0.0.0/24"]);
    assert_eq!(used(&followed), (both, said(2)), "the port of kubelets and the API server stay refused");
    followed.world.podless.clear();
    followed.update(&Changes { podless: [ObjectKey::new("infra", "pg")].into(), ..Changes::default() });
    assert_eq!((followed.reason("infra", "a"), left_out(&followed, "infra", "a")), ("ResolvedRefs", None));
    assert_eq!(followed.endpoints("infra/pg:1/TCP").len(), 4, "pods are used wherever they are");
    followed.world.podless.insert(ObjectKey::new("infra", "pg"), ips(&["10.0.0.9"]));
    followed.update(&Changes { podless: [ObjectKey::new("infra", "pg")].into(), ..Changes::default() });
    assert_eq!(followed.endpoints("infra/pg:1/TCP@infra/edge!").len(), 3);
}

#[test]
fn a_verdict_follows_the_endpoints_that_no_pod_backs() {
    let world = |port: u16| {
        format!(
            "kind: World\nservices: {{shop/pg: {{cluster: [{{protocol: TCP, port: 1, endpoints: \
             ['10.0.0.8:{port}']}}]}}}}\npodless: {{shop/pg: [10.0.0.8]}}\n"
        )
    };
    let mut followed = Followed::new(&(world(1) + EDGE + &forward("shop", "a", 80, "{service: {name: pg, port: 1}}")));
    followed.allow(&["10.0.0.0/24"]);
    assert_eq!(followed.reason("shop", "a"), "ResolvedRefs");
    for (port, reason) in [(10_250, "AddressNotAllowed"), (2, "ResolvedRefs")] {
        followed.world.services = crate::support::world(&world(port)).services;
        followed.update(&Changes { endpoints: [ObjectKey::new("shop", "pg")].into(), ..Changes::default() });
        assert_eq!(followed.reason("shop", "a"), reason, "{port}");
    }
}

#[test]
fn endpoints_without_a_pod_are_checked_at_each_port_of_a_range() {
    let world = "kind: World\napiServer: ['10.0.0.9:6443']\nservices: {shop/pg: {cluster: [{protocol: TCP, port: 1, \
                 endpoints: ['10.0.0.8:1', '10.0.0.9:1']}]}}\npodless: {shop/pg: [10.0.0.8, 10.0.0.9]}\n";
    let range = |name: &str, port: u16, to: u16| {
        let backend = format!("{{service: {{name: pg, port: {to}}}}}");
        forward("shop", name, port, &backend).replace("port: 8", &format!("endPort: {}, port: 8", port + 5))
    };
    let mut followed = Followed::new(&(world.to_owned() + EDGE + &range("a", 80, 6440) + &range("b", 8000, 10_248)));
    followed.allow(&["10.0.0.0/24"]);
    assert_eq!((followed.reason("shop", "a"), followed.reason("shop", "b")), ("ResolvedRefs", "AddressNotAllowed"));
    let said = |count: u8, example: &str| {
        Some(format!("{count} of the endpoints of Service shop/pg may not be used, such as {example}"))
    };
    assert_eq!(left_out(&followed, "shop", "a"), said(1, "10.0.0.9:6440"));
    assert_eq!(left_out(&followed, "shop", "b"), said(2, "10.0.0.8:10248"));
    assert_eq!(
        followed.endpoints("shop/pg:6440/TCP+5@infra/edge"),
        ["10.0.0.8:6440"],
        "the other one is the API server"
    );
    assert!(followed.endpoints("shop/pg:10248/TCP+5@infra/edge").is_empty(), "a port of kubelets is among them");
}

#[test]
fn the_reason_is_told_while_a_node_or_the_api_server_has_every_endpoint_of_a_service() {
    let api_server = |address: &str| {
        format!("default/kubernetes: {{cluster: [{{protocol: TCP, port: 443, endpoints: ['{address}']}}]}}")
    };
    let world = |address: &str| {
        format!(
            "kind: World\nservices: {{infra/pg: {{cluster: [{{protocol: TCP, port: 1, endpoints: ['192.0.2.9:6443', \
             '[64:ff9b::a00:8]:22']}}]}}, {}}}\npodless: {{infra/pg: ['192.0.2.9', '64:ff9b::a00:8']}}\n",
            api_server(address)
        )
    };
    let text = world("192.0.2.1:6443") + EDGE + &forward("infra", "a", 80, "{service: {name: pg, port: 1}}");
    let mut followed = Followed::new(&text);
    let said = |followed: &Followed| (followed.reason("infra", "a"), left_out(followed, "infra", "a"));
    assert_eq!(said(&followed), ("ResolvedRefs", None));
    let listeners = followed.configuration().listeners;
    followed.reach(Reach { nodes: ips(&["10.0.0.8"]), ..Reach::default() });
    let of = |count: u8, example: &str| {
        Some(format!("{count} of the endpoints of Service infra/pg may not be used, such as {example}"))
    };
    assert_eq!(said(&followed), ("ResolvedRefs", of(1, "[64:ff9b::a00:8]:22")), "in any of its forms");
    let serve = |followed: &mut Followed, address: &str| {
        followed.world.services = crate::support::world(&world(address)).services;
        followed.update(&Changes { endpoints: [ObjectKey::new("default", "kubernetes")].into(), ..Changes::default() });
    };
    serve(&mut followed, "192.0.2.9:6443");
    assert_eq!(said(&followed), ("AddressNotAllowed", of(2, "192.0.2.9:6443")), "none is left");
    let verdict = followed.translator.verdict(&Origin::port_forward("infra", "a")).expect("a verdict");
    let message = &verdict.resolved_refs.message;
    assert!(message.contains("a node of the gateway, the API server") && message.contains("as a /32"), "{message}");
    assert_eq!(followed.configuration().listeners, listeners, "no listener closes because of a node");
    followed.reach(Reach::default());
    assert_eq!(said(&followed), ("ResolvedRefs", of(1, "192.0.2.9:6443")));
    serve(&mut followed, "192.0.2.1:6443");
    assert_eq!(said(&followed), ("ResolvedRefs", None));
}

#[test]
fn pods_beside_an_endpoint_that_is_left_out_come_and_go_without_a_trace_in_the_verdict() {
    let world = |pods: &str| {
        format!(
            "kind: World\nservices: {{shop/pg: {{cluster: [{{protocol: TCP, port: 1, endpoints: ['10.0.0.8:1', \
             {pods}]}}]}}}}\npodless: {{shop/pg: [10.0.0.8]}}\n"
        )
    };
    let text = world("'10.1.0.9:1'") + EDGE + &forward("shop", "a", 80, "{service: {name: pg, port: 1}}");
    let mut followed = Followed::new(&text);
    let verdict = |followed: &Followed| {
        followed.translator.verdict(&Origin::port_forward("shop", "a")).expect("a verdict").clone()
    };
    let before = verdict(&followed);
    assert_eq!(before.warnings.len(), 1, "{before:?}");
    followed.world.services = crate::support::world(&world("'10.1.0.9:1', '10.1.0.10:1'")).services;
    followed.update(&Changes { endpoints: [ObjectKey::new("shop", "pg")].into(), ..Changes::default() });
    assert_eq!(followed.endpoints("shop/pg:1/TCP@infra/edge").len(), 2);
    assert_eq!(verdict(&followed), before);
}

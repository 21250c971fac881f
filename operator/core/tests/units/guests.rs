//! Forwards in a gateway of another namespace, and backends that lead back to a fleet, as the cluster changes.

mod podless;

use std::{collections::BTreeSet, net::IpAddr};

use crds::Protocol;
use operator_core::{
    Changes, Group, ObjectKey, Translator, World, translate,
    world::{
        objects::{Object, ServiceInfo},
        reach::{Front, Reach},
        watched::{Kind, Seen},
    },
};
use proxy_api::{Configuration, Origin, Version};
use serde_json::json;

use crate::scene::{Scene, gateway, key};

/// The gateway `infra/edge`, which admits every namespace.
const EDGE: &str = "---\nkind: ForwardGateway\nmetadata: {name: edge, namespace: infra}\nspec: {allowedForwards: \
                    {namespaces: {from: All}}}\n";

/// A forward in that gateway with one TCP listener.
fn forward(namespace: &str, name: &str, port: u16, backend: &str) -> String {
    format!(
        "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{placement: {{gateway: \
         {{name: edge, namespace: infra}}}}, listeners: [{{name: l, protocol: TCP, port: {port}, backends: \
         [{backend}]}}]}}\n"
    )
}

fn edge() -> ObjectKey {
    ObjectKey::new("infra", "edge")
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// A translator that follows a world, and the world.
struct Followed {
    world: World,
    translator: Translator,
    number: u64,
}

impl Followed {
    fn new(text: &str) -> Self {
        let mut followed = Self { world: crate::support::world(text), translator: Translator::default(), number: 0 };
        followed.update(&Changes::all());
        followed
    }

    fn update(&mut self, changes: &Changes) {
        self.number += 1;
        let version = Version { epoch: "term".to_owned(), number: self.number };
        self.translator.update(&self.world, changes, &version);
    }

    /// From now on, the gateway allows these networks.
    fn allow(&mut self, cidrs: &[&str]) {
        let gateway = self.world.gateways.get_mut(&edge()).expect("the gateway");
        let allowed = gateway.spec.allowed_forwards.as_mut().expect("it admits every namespace");
        allowed.address_cidrs = cidrs.iter().map(|cidr| crds::Cidr((*cidr).to_owned())).collect();
        self.update(&Changes { gateways: [edge()].into(), ..Changes::default() });
    }

    /// From now on, the fleet has this reach.
    fn reach(&mut self, reach: Reach) {
        let before = self.world.reach.get(&edge()).map(|before| before.fronts.clone()).unwrap_or_default();
        let fronts = (before != reach.fronts).then(edge).into_iter().collect();
        self.world.reach.insert(edge(), reach);
        self.update(&Changes { reach: [edge()].into(), fronts, ..Changes::default() });
    }

    fn add(&mut self, text: &str) {
        let more = crate::support::world(text).forwards;
        let changes = Changes { forwards: more.keys().cloned().collect(), ..Changes::default() };
        self.world.forwards.extend(more);
        self.update(&changes);
    }

    fn configuration(&self) -> Configuration {
        self.translator.snapshot(&Group::Gateway(edge())).expect("the gateway has a program").configuration()
    }

    fn endpoints(&self, set: &str) -> Vec<String> {
        let configuration = self.configuration();
        let set = configuration.endpoints.get(set).map(|set| set.endpoints.clone()).unwrap_or_default();
        set.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    fn reason(&self, namespace: &str, name: &str) -> &'static str {
        let key = Origin::port_forward(namespace, name);
        let now = self.translator.verdict(&key).expect("a verdict");
        assert_eq!(*now, translate(&self.world).verdicts[&key], "as if translated from nothing");
        now.resolved_refs.reason.as_str()
    }
}

// C5, T17
#[test]
fn a_grant_is_not_got_round_by_the_name_of_the_service() {
    let text = "kind: World\nservices: {victim/secret: {cluster: [{protocol: TCP, port: 1}]}}\n".to_owned()
        + EDGE
        + &forward("shop", "a", 80, "{service: {name: secret, namespace: victim, port: 1}}")
        + &forward("shop", "b", 81, "{address: {host: secret.victim.svc.cluster.local, port: 1}}")
        + &forward("shop", "c", 82, "{address: {host: secret.victim, port: 1}}");
    let mut followed = Followed::new(&text);
    let reasons = |followed: &Followed| ["a", "b", "c"].map(|name| followed.reason("shop", name));
    assert_eq!(reasons(&followed), ["RefNotPermitted", "AddressNotAllowed", "AddressNotAllowed"]);
    assert!(followed.configuration().listeners.is_empty(), "nothing runs");
    followed.allow(&["0.0.0.0/0"]);
    assert_eq!(reasons(&followed), ["RefNotPermitted", "AddressNotAllowed", "ResolvedRefs"]);
    let configuration = followed.configuration();
    let (_, listener) = configuration.supported().next().expect("the last one");
    let proxy_api::Target::Address { host, .. } = &listener.backends[0].target else { panic!("an address") };
    assert_eq!(host, "secret.victim.", "no search list completes the name");
}

#[test]
fn permission_that_is_withdrawn_keeps_nothing_running() {
    let text = EDGE.replace("---\n", "") + &forward("shop", "a", 80, "{address: {host: 10.0.0.1, port: 1}}");
    let mut followed = Followed::new(&text);
    followed.allow(&["10.0.0.0/8"]);
    assert_eq!((followed.reason("shop", "a"), followed.configuration().listeners.len()), ("ResolvedRefs", 1));
    followed.allow(&[]);
    assert_eq!((followed.reason("shop", "a"), followed.configuration().listeners.len()), ("AddressNotAllowed", 0));
}

#[test]
fn a_mistake_keeps_nothing_running_in_a_gateway_that_no_longer_admits_the_namespace() {
    let valid = forward("shop", "a", 80, "{address: {host: 10.0.0.1, port: 1}}");
    let mut followed = Followed::new(&(EDGE.replace("---\n", "") + &valid));
    followed.allow(&["10.0.0.0/8"]);
    let runs = |followed: &Followed| followed.configuration().listeners.len();
    assert_eq!(runs(&followed), 1);
    // The mistake names another gateway, too.
    followed.add(&valid.replace("port: 80", "port: 0").replace("name: edge", "name: other"));
    assert_eq!((followed.reason("shop", "a"), runs(&followed)), ("Invalid", 1));
    let gateway = followed.world.gateways.get_mut(&edge()).expect("the gateway");
    gateway.spec.allowed_forwards.as_mut().expect("it admits everybody").namespaces = None;
    followed.update(&Changes { gateways: [edge()].into(), ..Changes::default() });
    assert_eq!((followed.reason("shop", "a"), runs(&followed)), ("Invalid", 0));
}

// D1, T16
#[test]
fn a_backend_becomes_a_loop_when_a_service_comes_before_the_fleet_or_a_listener_behind_it() {
    let text = EDGE.replace("---\n", "")
        + &forward("infra", "a", 5432, "{address: {host: 10.96.0.5, port: 5432}}")
        + &forward("infra", "b", 81, "{address: {host: 10.96.0.5, port: 7000}}")
        + &forward("infra", "c", 82, "{service: {name: edge, port: 81}}");
    let mut followed = Followed::new(&text);
    let reasons = |followed: &Followed| ["a", "b", "c"].map(|name| followed.reason("infra", name));
    assert_eq!(reasons(&followed), ["ResolvedRefs", "ResolvedRefs", "BackendNotFound"]);
    let front = Front { addresses: ips(&["10.96.0.5"]), ..Front::default() };
    let reach = Reach { pods: ips(&["10.0.0.1"]), fronts: [("edge".to_owned(), front)].into(), ..Reach::default() };
    followed.reach(reach.clone());
    assert_eq!(reasons(&followed), ["BackendLoop", "ResolvedRefs", "BackendLoop"]);
    assert_eq!(
        (followed.endpoints("fleet"), followed.endpoints("fronts")),
        (vec!["10.0.0.1:0".to_owned()], vec!["10.96.0.5:0".to_owned()])
    );
    followed.add(&forward("infra", "d", 7000, "{address: {host: 192.0.2.1, port: 1}}"));
    assert_eq!(reasons(&followed), ["BackendLoop", "BackendLoop", "BackendLoop"], "a listener holds the port now");
    followed.world.forwards.remove(&ObjectKey::new("infra", "d"));
    followed.update(&Changes { forwards: [ObjectKey::new("infra", "d")].into(), ..Changes::default() });
    assert_eq!(reasons(&followed), ["BackendLoop", "ResolvedRefs", "BackendLoop"]);
    followed.reach(Reach { fronts: [].into(), ..reach });
    assert_eq!(reasons(&followed), ["ResolvedRefs", "ResolvedRefs", "BackendNotFound"]);
    assert!(followed.endpoints("fronts").is_empty());
}

#[test]
fn a_service_beside_the_one_before_the_fleet_is_no_loop() {
    let text = "kind: World\nservices: {infra/pg: {cluster: [{protocol: TCP, port: 5432}]}}\n".to_owned()
        + EDGE
        + &forward("infra", "a", 5432, "{service: {name: pg, port: 5432}}");
    let mut followed = Followed::new(&text);
    let front = Front { addresses: ips(&["10.96.0.5"]), ..Front::default() };
    followed.reach(Reach { fronts: [("edge".to_owned(), front)].into(), ..Reach::default() });
    assert_eq!(followed.reason("infra", "a"), "ResolvedRefs");
}

#[test]
fn two_listeners_before_the_own_fleet_are_both_watched_for_loops() {
    let text = EDGE.replace("---\n", "")
        + "---\nkind: PortForward\nmetadata: {name: b, namespace: infra}\nspec: {placement: {gateway: {name: edge}}, \
           listeners: [{name: l, protocol: TCP, port: 81, backends: [{address: {host: 10.96.0.5, port: 7000}}]}, {name: m, \
           protocol: TCP, port: 82, backends: [{address: {host: 10.96.0.5, port: 7001}}]}]}\n";
    let mut followed = Followed::new(&text);
    let front = Front { addresses: ips(&["10.96.0.5"]), ..Front::default() };
    followed.reach(Reach { fronts: [("edge".to_owned(), front)].into(), ..Reach::default() });
    assert_eq!(followed.reason("infra", "b"), "ResolvedRefs");
    followed.add(&forward("infra", "d", 7000, "{address: {host: 192.0.2.1, port: 1}}"));
    assert_eq!(followed.reason("infra", "b"), "BackendLoop");
}

#[test]
fn proxies_are_told_the_api_server_by_its_service_and_by_the_operators_own_environment() {
    let text = "kind: World\napiServer: ['10.96.0.1:443']\nservices: {default/kubernetes: {cluster: [{protocol: TCP, \
                port: 443, endpoints: ['192.0.2.10:6443']}]}}\n"
        .to_owned()
        + EDGE;
    let mut followed = Followed::new(&text);
    assert_eq!(followed.endpoints("protected"), ["10.96.0.1:443", "192.0.2.10:6443"]);
    let kubernetes = ObjectKey::new("default", "kubernetes");
    followed.world.services.remove(&kubernetes);
    followed.update(&Changes { services: [kubernetes].into(), ..Changes::default() });
    assert_eq!(followed.endpoints("protected"), ["10.96.0.1:443"]);
}

#[test]
fn addresses_that_the_operator_protects_are_refused_on_a_gateway_unless_it_names_them() {
    let text = "kind: World\nprotected: '203.0.113.0/24,2001:db8:9::/48'\nservices: {infra/api: {cluster: [{protocol: \
                TCP, port: 1, endpoints: ['203.0.113.7:1']}]}}\npodless: {infra/api: [203.0.113.7]}\n"
        .to_owned()
        + EDGE
        + &forward("infra", "plain", 80, "{address: {host: 203.0.113.7, port: 6443}}")
        + &forward("infra", "wrapped", 81, "{address: {host: '64:ff9b::cb00:7107', port: 1}}")
        + &forward("infra", "podless", 82, "{service: {name: api, port: 1}}")
        + &forward("infra", "name", 83, "{address: {host: api.example.com, port: 6443}}")
        + &forward("infra", "beside", 84, "{address: {host: 203.0.112.7, port: 6443}}");
    let mut followed = Followed::new(&text);
    let reasons =
        |followed: &Followed| ["plain", "wrapped", "podless", "name", "beside"].map(|it| followed.reason("infra", it));
    let (refused, used) = ("AddressNotAllowed", "ResolvedRefs");
    assert_eq!(reasons(&followed), [refused, refused, refused, used, used]);
    assert_eq!(
        followed.endpoints("protected-networks"),
        ["203.0.113.0:24", "[2001:db8:9::]:48"],
        "proxies check what names resolve to"
    );
    assert!(followed.endpoints("infra/api:1/TCP@infra/edge!").is_empty());
    followed.allow(&["203.0.112.0/23"]);
    assert_eq!(reasons(&followed), [refused, refused, refused, used, used], "a network does not name an address");
    followed.allow(&["203.0.112.0/23", "203.0.113.7/32"]);
    assert_eq!(reasons(&followed), [used; 5]);
    assert_eq!(followed.endpoints("infra/api:1/TCP@infra/edge!").len(), 1);
    let why = "a node of the gateway, the API server or in the operator's protectedCIDRs";
    followed.allow(&[]);
    let verdict = followed.translator.verdict(&Origin::port_forward("infra", "plain")).expect("a verdict");
    assert!(verdict.resolved_refs.message.contains(why), "{}", verdict.resolved_refs.message);
}

#[test]
fn an_address_is_refused_in_status_while_a_node_of_the_fleet_or_the_api_server_has_it_and_its_listener_stays() {
    let api_server = |address: &str| {
        let ports = format!("[{{protocol: TCP, port: 443, endpoints: ['{address}']}}]");
        format!(
            "kind: World\napiServer: ['10.96.0.1:443']\nservices: {{default/kubernetes: {{cluster: {ports}}}, \
             infra/alias: {{external: {{host: 10.0.0.8}}}}}}\n"
        )
    };
    let text = api_server("192.0.2.10:6443")
        + EDGE
        + &forward("infra", "node", 80, "{address: {host: '64:ff9b::a00:8', port: 22}}")
        + &forward("infra", "alias", 81, "{service: {name: alias, port: 22}}")
        + &forward("infra", "server", 82, "{address: {host: 192.0.2.10, port: 6443}}")
        + &forward("infra", "service", 83, "{address: {host: 10.96.0.1, port: 443}}")
        + &forward("infra", "beside", 84, "{address: {host: 192.0.2.10, port: 6444}}");
    let mut followed = Followed::new(&text);
    let reasons =
        |followed: &Followed| ["node", "alias", "server", "service", "beside"].map(|it| followed.reason("infra", it));
    let (refused, used) = ("AddressNotAllowed", "ResolvedRefs");
    assert_eq!(reasons(&followed), [used, used, refused, refused, used]);
    let listeners = followed.configuration().listeners;
    assert_eq!(listeners.len(), 5);
    followed.reach(Reach { nodes: ips(&["10.0.0.8"]), ..Reach::default() });
    assert_eq!(reasons(&followed), [refused, refused, refused, refused, used]);
    assert_eq!(followed.configuration().listeners, listeners, "nodes come and go, and proxies know them");
    let verdict = followed.translator.verdict(&Origin::port_forward("infra", "node")).expect("a verdict");
    assert!(verdict.resolved_refs.message.contains("(as a /32 or /128)"), "{}", verdict.resolved_refs.message);
    followed.allow(&["0.0.0.0/0", "10.0.0.8/32"]);
    assert_eq!(reasons(&followed), [used, used, refused, refused, used]);
    followed.allow(&["0.0.0.0/0"]);
    assert_eq!(reasons(&followed), [refused, refused, refused, refused, used]);
    followed.reach(Reach::default());
    assert_eq!(reasons(&followed), [used, used, refused, refused, used]);
    followed.world.services = crate::support::world(&api_server("192.0.2.10:6444")).services;
    let kubernetes = ObjectKey::new("default", "kubernetes");
    followed.update(&Changes { endpoints: [kubernetes].into(), ..Changes::default() });
    assert_eq!(reasons(&followed), [used, used, used, refused, refused]);
}

#[test]
fn proxies_are_told_where_the_service_of_the_api_server_listens_whatever_the_environment_says() {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({})));
    let kubernetes = ObjectKey::new("default", "kubernetes");
    let at = |address: &str| {
        let front = Front { addresses: ips(&[address]), ..Front::default() };
        let ports = vec![("https".to_owned(), Protocol::Tcp, 443)];
        Object::Service(kubernetes.clone(), ServiceInfo { ports, front, ..ServiceInfo::default() })
    };
    let protected = |scene: &Scene| {
        let snapshot = scene.translator.snapshot(&Group::Gateway(key("edge"))).expect("the gateway has a program");
        let configuration = snapshot.configuration();
        let set = configuration.endpoints.get("protected");
        let endpoints = set.iter().flat_map(|set| &set.endpoints);
        endpoints.map(|endpoint| endpoint.address.to_string()).collect::<Vec<String>>()
    };
    scene.see(at("10.96.0.1"));
    assert_eq!(protected(&scene), ["10.96.0.1:443"]);
    scene.see(at("2001:db8::1"));
    assert_eq!(protected(&scene), ["[2001:db8::1]:443"]);
    scene.take(Kind::Services, Seen::Gone(kubernetes.clone()));
    assert!(protected(&scene).is_empty());
}

//! What a forward may do in its last good version: the permissions of today, and the claims of any other forward.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::collections::BTreeSet;

use operator_core::{Changes, Group, ObjectKey, Pod, Translator, World};
use proxy_api::{Listener, Store, Target, Transport, Version};

/// The gateway `infra/edge`, which admits everything that the tests need, and a Service of another namespace.
const WORLD: &str = "kind: World
grants: [{from: shop, to: victim}]
services: {victim/db: {cluster: [{protocol: TCP, port: 1}]}, victim/alias: {external: {host: 10.1.0.1}}}
---
kind: ForwardGateway
metadata: {name: edge, namespace: infra}
spec: {allowedForwards: {namespaces: {from: All}, addressCIDRs: [10.0.0.0/8]}}
";

fn edge() -> ObjectKey {
    ObjectKey::new("infra", "edge")
}

/// A forward of the namespace `shop` in the gateway, with one listener.
fn forward(name: &str, listener: &str) -> String {
    format!(
        "---\nkind: PortForward\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{placement: {{gateway: {{name: edge, \
         namespace: infra}}}}, listeners: [{{name: l, {listener}}}]}}\n"
    )
}

fn tcp(port: u16, backend: &str) -> String {
    format!("protocol: TCP, port: {port}, backends: [{backend}]")
}

const GRANTED: &str = "{service: {name: db, namespace: victim, port: 1}}";
const ALIAS: &str = "{service: {name: alias, namespace: victim, port: 1}}";
const ADDRESS: &str = "{address: {host: 10.0.0.1, port: 1}}";
/// The listener is valid, and refused as a mistake.
const MISSING: &str = "{service: {name: missing, port: 1}}";

/// A world that changes, with its translation.
struct Scene {
    world: World,
    translator: Translator,
    number: u64,
}

impl Scene {
    fn new(text: &str) -> Self {
        let world = crate::support::world(text);
        let mut scene = Self { world, translator: Translator::default(), number: 0 };
        scene.update(&Changes::all());
        scene
    }

    fn update(&mut self, changes: &Changes) {
        self.number += 1;
        let version = Version { epoch: "term".to_owned(), number: self.number };
        self.translator.update(&self.world, changes, &version);
    }

    fn edit(&mut self, text: &str) {
        let edited = crate::support::world(text).forwards;
        let changes = Changes { forwards: edited.keys().cloned().collect(), ..Changes::default() };
        self.world.forwards.extend(edited);
        self.update(&changes);
    }

    fn revoke_grants(&mut self) {
        self.world.grants.clear();
        self.update(&Changes { grants: true, ..Changes::default() });
    }

    /// The owner of the gateway changes what it allows.
    fn allow(&mut self, allowed: &str) {
        let allowed = serde_yaml::from_str(allowed).expect("allowedForwards");
        self.world.gateways.get_mut(&edge()).expect("the gateway").spec.allowed_forwards = Some(allowed);
        self.update(&Changes { gateways: [edge()].into(), ..Changes::default() });
    }

    /// The owner of the gateway names another server for streams, or none.
    fn serve_streams(&mut self, server: Option<&str>) {
        let server = server.map(|text| serde_yaml::from_str(text).expect("jetStream"));
        self.world.gateways.get_mut(&edge()).expect("the gateway").spec.jet_stream = server;
        self.update(&Changes { gateways: [edge()].into(), ..Changes::default() });
    }

    fn listeners(&self) -> Vec<Listener> {
        let snapshot = self.translator.snapshot(&Group::Gateway(edge())).expect("the gateway has a program");
        snapshot.configuration().supported().map(|(_, listener)| listener.clone()).collect()
    }

    fn ports(&self) -> BTreeSet<(Transport, u16)> {
        self.translator.ports(&Group::Gateway(edge()))
    }
}

/// A scene in which the only forward runs in its last good version: after a mistake in the whole object, and after a
/// mistake in the listener alone.
fn mistaken(listener: &str) -> [Scene; 2] {
    let invalid = tcp(0, ADDRESS);
    let refused = tcp(81, MISSING);
    [invalid, refused].map(|mistake| {
        let mut scene = Scene::new(&(WORLD.to_owned() + &forward("a", listener)));
        let good = scene.listeners();
        assert_eq!(good.len(), 1, "{listener}");
        scene.edit(&forward("a", &mistake));
        assert_eq!(scene.listeners(), good, "a mistake stops nothing");
        scene
    })
}

#[test]
fn a_grant_that_is_revoked_stops_it() {
    for backend in [GRANTED, ALIAS] {
        for mut scene in mistaken(&tcp(80, backend)) {
            scene.revoke_grants();
            assert!(scene.listeners().is_empty(), "{backend}");
        }
    }
}

#[test]
fn it_keeps_the_backends_that_it_may_still_use() {
    let both = tcp(80, &format!("{GRANTED}, {ADDRESS}"));
    for mut scene in mistaken(&both) {
        scene.revoke_grants();
        let listeners = scene.listeners();
        assert_eq!(listeners.len(), 1);
        let backends: Vec<&str> = listeners[0].backends.iter().map(|backend| backend.id.as_str()).collect();
        assert_eq!(backends, ["addr/10.0.0.1:1"]);
        assert_eq!(listeners[0].clone().sealed(), listeners[0], "the revision is that of what runs");
    }
}

#[test]
fn endpoints_that_one_gateway_lets_it_use_are_not_used_in_another() {
    let two = "---\nkind: ForwardGateway\nmetadata: {name: two, namespace: infra}\nspec: {allowedForwards: \
               {namespaces: {from: All}, addressCIDRs: [10.0.0.0/8]}}\n";
    let mut scene = Scene::new(&(WORLD.to_owned() + two + &forward("a", &tcp(80, &format!("{GRANTED}, {ADDRESS}")))));
    scene.edit(&forward("a", &tcp(81, MISSING)).replace("name: edge", "name: two"));
    let two = Group::Gateway(ObjectKey::new("infra", "two"));
    let configuration = scene.translator.snapshot(&two).expect("the gateway has a program").configuration();
    let backends = configuration.supported().flat_map(|(_, listener)| &listener.backends);
    assert_eq!(backends.map(|backend| backend.id.as_str()).collect::<Vec<_>>(), ["addr/10.0.0.1:1"]);
}

/// A scene whose only forward, in the gateway's own namespace, runs in its last good version with this endpoint set.
fn mistaken_at_home(podless: &str, set: &str) -> Scene {
    let home = |listener: &str| forward("a", listener).replace("namespace: shop", "namespace: infra");
    let world = format!(
        "kind: World\nservices: {{infra/db: {{cluster: [{{protocol: TCP, port: 1, endpoints: ['10.0.0.8:1']}}]}}}}\n\
         podless: {podless}\n---\nkind: ForwardGateway\nmetadata: {{name: edge, namespace: infra}}\nspec: \
         {{allowedForwards: {{addressCIDRs: [10.0.0.0/8]}}}}\n"
    );
    let mut scene = Scene::new(&(world + &home(&tcp(80, "{service: {name: db, port: 1}}"))));
    let good = scene.listeners();
    let sets: Vec<&Target> = good.iter().flat_map(|it| &it.backends).map(|backend| &backend.target).collect();
    assert_eq!(sets, [&Target::Endpoints(set.to_owned())]);
    scene.edit(&home(&tcp(81, MISSING)));
    assert_eq!(scene.listeners(), good, "a mistake stops nothing");
    scene
}

#[test]
fn a_service_of_the_gateways_own_namespace_is_used_on_whether_pods_back_it_or_not() {
    mistaken_at_home("{}", "infra/db:1/TCP");
    mistaken_at_home("{infra/db: [10.0.0.8]}", "infra/db:1/TCP@infra/edge!");
}

#[test]
fn endpoints_that_lose_their_pods_are_not_used_unjudged() {
    let mut scene = mistaken_at_home("{}", "infra/db:1/TCP");
    let address = "10.0.0.8".parse().expect("an address");
    scene.world.podless.insert(ObjectKey::new("infra", "db"), BTreeSet::from([address]));
    scene.update(&Changes::all());
    assert!(scene.listeners().is_empty());
}

#[test]
fn networks_that_the_gateway_no_longer_allows_stop_it_and_others_are_followed() {
    for mut scene in mistaken(&tcp(80, ADDRESS)) {
        scene.allow("{namespaces: {from: All}, addressCIDRs: [10.0.0.0/24]}");
        let listeners = scene.listeners();
        let networks: Vec<String> =
            listeners.iter().flat_map(|it| &it.destinations.cidrs).map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/24"]);
        scene.allow("{namespaces: {from: All}, addressCIDRs: [192.0.2.0/24]}");
        assert!(scene.listeners().is_empty());
    }
}

#[test]
fn the_limits_of_its_tenant_are_followed() {
    for mut scene in mistaken(&tcp(80, ADDRESS)) {
        let tenants = "tenants: [{name: t, namespaces: {names: [shop]}, maxConnections: 7}]";
        scene.allow(&format!("{{namespaces: {{from: All}}, addressCIDRs: [10.0.0.0/8], {tenants}}}"));
        let limits: Vec<Option<u32>> = scene
            .listeners()
            .iter()
            .map(|listener| listener.tenant_limits.as_ref().and_then(|limits| limits.max_connections))
            .collect();
        assert_eq!(limits, [Some(7)]);
    }
}

#[test]
fn the_server_of_its_streams_is_followed_and_without_one_it_stops() {
    let durable = tcp(514, ADDRESS) + ", durable: {send: {relp: {}}, store: {jetStream: {maxBytes: 16777216}}}";
    let world = WORLD.replace("spec: {", "spec: {jetStream: {url: 'nats://a:4222'}, ");
    let mut scene = Scene::new(&(world + &forward("a", &durable)));
    scene.edit(&forward("a", &tcp(0, ADDRESS)));
    let urls = |scene: &Scene| -> Vec<String> {
        let listeners = scene.listeners();
        let durable = listeners.iter().filter_map(|listener| listener.durable.as_deref());
        let urls = durable.filter_map(|durable| match &durable.store {
            Store::JetStream { url, .. } => Some(url.clone()),
            Store::Disk { .. } => None,
        });
        urls.collect()
    };
    assert_eq!(urls(&scene), ["nats://a:4222"]);
    scene.serve_streams(Some("{url: 'nats://b:4222'}"));
    assert_eq!(urls(&scene), ["nats://b:4222"]);
    scene.serve_streams(None);
    assert!(scene.listeners().is_empty());
}

#[test]
fn ports_and_names_that_the_gateway_no_longer_allows_stop_it() {
    let tls = format!("protocol: TLS, port: 443, tls: {{hostnames: [a.example]}}, backends: [{ADDRESS}]");
    for (listener, allowed) in [
        (tcp(80, ADDRESS), "ports: [{protocol: TCP, port: 81}]"),
        (tcp(80, ADDRESS), "tenants: [{name: t, namespaces: {names: [other]}, ports: [{protocol: TCP, port: 80}]}]"),
        (tls, "tenants: [{name: t, namespaces: {names: [other]}, hostnames: ['*.example']}]"),
    ] {
        for mut scene in mistaken(&listener) {
            scene.allow(&format!("{{namespaces: {{from: All}}, addressCIDRs: [10.0.0.0/8], {allowed}}}"));
            assert!(scene.listeners().is_empty(), "{allowed}");
        }
    }
}

#[test]
fn a_gateway_that_admits_an_invalid_forward_again_runs_its_last_good_version_again() {
    let [mut scene, _] = mistaken(&tcp(80, ADDRESS));
    let good = scene.listeners();
    scene.allow("{addressCIDRs: [10.0.0.0/8]}");
    assert!(scene.listeners().is_empty(), "the namespace is not admitted");
    scene.allow("{namespaces: {from: All}, addressCIDRs: [10.0.0.0/8]}");
    assert_eq!(scene.listeners(), good);
}

#[test]
fn a_namespace_that_loses_its_label_is_noticed_although_the_mistake_names_no_gateway() {
    let labels = |yes: &str| [("team".to_owned(), yes.to_owned())].into();
    let text = WORLD.replace("{from: All}", "{from: Selector, selector: {matchLabels: {team: a}}}");
    let mut scene = Scene::new(&text);
    scene.world.namespaces.insert("shop".to_owned(), labels("a"));
    scene.edit(&forward("a", &tcp(80, ADDRESS)));
    scene.edit(&forward("a", &tcp(80, ADDRESS)).replace("gateway: {name: edge, namespace: infra}", ""));
    assert_eq!(scene.listeners().len(), 1);
    scene.world.namespaces.insert("shop".to_owned(), labels("b"));
    scene.update(&Changes { namespaces: ["shop".to_owned()].into(), ..Changes::default() });
    assert!(scene.listeners().is_empty());
}

#[test]
fn a_suspended_forward_that_becomes_invalid_stays_suspended_and_keeps_its_port() {
    let suspended = |listener: &str| forward("a", listener).replace("spec: {", "spec: {suspend: true, ");
    let mut scene = Scene::new(&(WORLD.to_owned() + &suspended(&tcp(80, ADDRESS))));
    let port = BTreeSet::from([(Transport::Tcp, 80)]);
    assert_eq!((scene.listeners(), scene.ports()), (Vec::new(), port.clone()));
    scene.edit(&forward("a", &tcp(0, ADDRESS)));
    assert_eq!((scene.listeners(), scene.ports()), (Vec::new(), port.clone()));
    scene.edit(&forward("b", &tcp(80, ADDRESS)));
    assert_eq!((scene.listeners(), scene.ports()), (Vec::new(), port.clone()), "nobody takes the port");
    scene.world.forwards.remove(&ObjectKey::new("shop", "a"));
    scene.update(&Changes { forwards: [ObjectKey::new("shop", "a")].into(), ..Changes::default() });
    assert_eq!((scene.listeners().len(), scene.ports()), (1, port));
}

#[test]
fn a_forward_that_is_suspended_with_a_mistake_stops() {
    let mut scene = Scene::new(&(WORLD.to_owned() + &forward("a", &tcp(80, ADDRESS))));
    scene.edit(&forward("a", &tcp(80, MISSING)).replace("spec: {", "spec: {suspend: true, "));
    assert!(scene.listeners().is_empty());
}

#[test]
fn the_last_good_version_of_a_sidecar_claims_its_port_in_pods_that_come_later() {
    let side = |name: &str, port: u16| {
        forward(name, &tcp(port, ADDRESS)).replace("gateway: {name: edge, namespace: infra}", "sidecar: {selector: {}}")
    };
    let mut scene = Scene::new(&(WORLD.to_owned() + &side("a", 80)));
    let join = |scene: &mut Scene, name: &str, port: u16| -> Vec<String> {
        let pod = ObjectKey::new("shop", name);
        // Another port of the app makes another group.
        let info = Pod { carries: true, app_ports: [(Transport::Tcp, port)].into(), ..Pod::default() };
        scene.world.pods.insert(pod.clone(), info);
        scene.update(&Changes { pods: [pod.clone()].into(), ..Changes::default() });
        let group = scene.translator.group_of(&pod).expect("selected").clone();
        let snapshot = scene.translator.snapshot(&group).expect("the group runs");
        snapshot.listeners.keys().map(|id| id.origin.name.clone()).collect()
    };
    assert_eq!(join(&mut scene, "first", 1), ["a"]);
    scene.edit(&side("a", 0));
    scene.edit(&side("b", 80));
    assert_eq!(join(&mut scene, "second", 2), ["a"], "the port is not free for a newcomer");
}

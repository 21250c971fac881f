//! The surroundings of the objects: a laptop, or a cluster of which only the manifests are known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::{
    AccessLogMode, AllowedForwards, Cidr, ForwardGateway, ForwardGatewaySpec, From, Hostname, NamespaceName,
    NamespaceScope, Protocol, Selector, SelectorOperator, Tenant, TenantNamespaces,
};
use operator_core::{Grant, Laptop, ObjectKey, Pod, Service, ServicePort, Site, World};
use proxy_api::OriginKind;

use crate::input;

/// The world of a laptop, configured by the options of the command line.
pub(crate) fn laptop(mut world: World, options: &input::Laptop) -> World {
    let ports = options.map.iter().map(|map| ((map.forward.clone(), map.listener.clone()), map.port));
    let ports = ports.collect();
    world.site = Site::Laptop(Laptop { port_offset: options.port_offset, ports, ..Laptop::default() });
    world.services = options.resolve.iter().map(|item| (item.service.clone(), item.place.clone())).collect();
    open_to_unknown_namespaces(&mut world);
    world
}

/// Sets the mode in which all forwards log sessions, whatever their manifests say.
pub(crate) fn log_sessions(world: &mut World, mode: AccessLogMode) {
    for forward in world.forwards.values_mut() {
        forward.spec.access_log.get_or_insert_default().mode = Some(mode);
    }
}

/// Opens gateways that select namespaces by labels to namespaces that are not in the manifests, and ignores their
/// tenants, as neither can be evaluated here; the cluster makes the final decision.
fn open_to_unknown_namespaces(world: &mut World) {
    let hostnames = hostnames(world);
    let known = |namespace: &String| world.namespaces.contains_key(namespace);
    if world.forwards.keys().all(|key| known(&key.namespace)) {
        return;
    }
    for gateway in world.gateways.values_mut() {
        let Some(allowed) = gateway.spec.allowed_forwards.as_mut() else { continue };
        if let Some(scope) = allowed.namespaces.as_mut().filter(|scope| scope.from == From::Selector) {
            *scope = NamespaceScope { from: From::All, selector: None };
        }
        if allowed.tenants.iter().any(|tenant| tenant.namespaces.selector.is_some()) {
            allowed.tenants = permissive_tenants(&hostnames);
        }
    }
}

/// Server names by namespace.
type Hostnames = BTreeMap<String, Vec<Hostname>>;

/// The server names that the forwards of each namespace claim.
fn hostnames(world: &World) -> Hostnames {
    let mut all = Hostnames::new();
    for (key, forward) in &world.forwards {
        let claimed = forward.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let claimed = claimed.flat_map(|tls| tls.hostnames.iter().cloned());
        all.entry(key.namespace.clone()).or_default().extend(claimed);
    }
    all
}

/// Tenants of a gateway that permits every namespace the claims of its forwards.
fn permissive_tenants(hostnames: &Hostnames) -> Vec<Tenant> {
    let tenant = |(namespace, hostnames): (&String, &Vec<Hostname>)| Tenant {
        name: namespace.clone(),
        namespaces: TenantNamespaces { names: vec![NamespaceName(namespace.clone())], selector: None },
        hostnames: hostnames.clone(),
        max_ports: Some(u16::MAX),
        ..Tenant::default()
    };
    hostnames.iter().map(tenant).collect()
}

/// Labels that the selector certainly matches, or `None` if no labels can match.
fn labels_for(selector: &Selector) -> Option<BTreeMap<String, String>> {
    let mut labels: BTreeMap<String, String> =
        selector.match_labels.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    for requirement in &selector.match_expressions {
        let value = match requirement.operator {
            SelectorOperator::In => requirement.values.first().map(|value| value.0.clone()),
            SelectorOperator::Exists => Some("any".to_owned()),
            SelectorOperator::NotIn | SelectorOperator::DoesNotExist => None,
        };
        if let Some(value) = value {
            labels.entry(requirement.key.clone()).or_insert(value);
        }
    }
    selector.matches(&labels).then_some(labels)
}

/// A cluster that provides everything that the manifests lack: every referenced Service and gateway exists and admits
/// the forward, and agents serve forwards anywhere, as they do with `portlane run`. A manifest that is refused here is
/// refused in any cluster.
pub(crate) fn any_cluster(mut world: World) -> World {
    world.site = Site::Cluster;
    world.any_agent = true;
    let mut services: BTreeMap<ObjectKey, BTreeSet<u16>> = BTreeMap::new();
    let (networks, hostnames) = (networks(&world), hostnames(&world));
    for (key, forward) in &world.forwards {
        let named = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
        for service in named.filter_map(|backend| backend.service.as_ref()) {
            let namespace = service.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            world.grants.insert(Grant {
                kind: OriginKind::PortForward,
                from: key.namespace.clone(),
                to: namespace.clone(),
                service: None,
            });
            services.entry(ObjectKey::new(namespace, &service.name)).or_default().insert(service.port);
        }
        if let Some(sidecar) = &forward.spec.placement.sidecar {
            // The pod has exactly these labels, so that other forwards that select it conflict with this one.
            if let Some(labels) = labels_for(&sidecar.selector) {
                world.pods.insert(key.clone(), Pod { labels, ..Pod::default() });
            }
        }
        if let Some(gateway) = &forward.spec.placement.gateway {
            let namespace = gateway.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            let gateway = ObjectKey::new(namespace, &gateway.name);
            let class = &forward.spec.controller_class;
            let stand_in = || open_gateway(class.clone(), networks.clone(), &hostnames);
            world.gateways.entry(gateway).or_insert_with(stand_in);
        }
    }
    world.services = services.into_iter().map(|(key, ports)| (key, stand_in(&ports))).collect();
    open_to_unknown_namespaces(&mut world);
    world
}

/// A stand-in for a Service with these ports, each of both protocols, and without endpoints.
fn stand_in(ports: &BTreeSet<u16>) -> Service {
    let both = |port: &u16| {
        [Protocol::Tcp, Protocol::Udp].map(|protocol| ServicePort { protocol, port: *port, endpoints: BTreeSet::new() })
    };
    Service::Cluster(ports.iter().flat_map(both).collect())
}

/// All networks, and every address that a backend has: a gateway may name addresses that it refuses otherwise.
fn networks(world: &World) -> Vec<Cidr> {
    let listeners = world.forwards.values().flat_map(|forward| &forward.spec.listeners);
    let addresses = listeners.flat_map(|listener| &listener.backends).filter_map(|backend| backend.address.as_ref());
    let named = addresses.filter_map(|address| {
        let ip: IpAddr = address.host.parse().ok()?;
        Some(format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }))
    });
    ["0.0.0.0/0", "::/0"].map(str::to_owned).into_iter().chain(named).map(Cidr).collect()
}

/// A gateway of this controller class that admits everything.
fn open_gateway(controller_class: Option<String>, address_cidrs: Vec<Cidr>, hostnames: &Hostnames) -> ForwardGateway {
    let namespaces = Some(NamespaceScope { from: From::All, selector: None });
    let tenants = permissive_tenants(hostnames);
    let allowed_forwards = Some(AllowedForwards { namespaces, tenants, address_cidrs, ..AllowedForwards::default() });
    let spec = ForwardGatewaySpec { controller_class, allowed_forwards, ..ForwardGatewaySpec::default() };
    ForwardGateway::new("any", spec)
}

#[cfg(test)]
mod tests {
    use operator_core::{Changes, Translator, translate, translate::work::Work};
    use proxy_api::Version;
    use serde_json::{Value, json};

    use super::*;

    const COUNT: u16 = 500;

    /// The work for this many forwards in sidecars, on ports of their own, in the cluster that `validate` takes.
    fn validated(selector: impl Fn(u16) -> Value) -> Work {
        let mut world = World::default();
        for at in 0..COUNT {
            let forward = json!({
                "metadata": {"name": format!("f{at}"), "namespace": "a"},
                "spec": {
                    "placement": {"sidecar": {"selector": selector(at)}},
                    "listeners": [{
                        "name": "l", "protocol": "TCP", "port": 1000 + at,
                        "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
                    }],
                },
            });
            let forward = serde_json::from_value(forward).expect("a forward");
            world.forwards.insert(ObjectKey::new("a", format!("f{at}")), forward);
        }
        let version = Version { epoch: String::new(), number: 1 };
        Translator::default().update(&any_cluster(world), &Changes::all(), &version).work
    }

    #[test]
    fn forwards_with_one_selector_are_as_much_work_as_forwards_with_many() {
        let count = u64::from(COUNT);
        let one_each = validated(|at| json!({"matchLabels": {"app": format!("a{at}")}}));
        assert_eq!((one_each.judged, one_each.claims), (count, count));
        let expression = json!({"key": "app", "operator": "In", "values": ["shop", "blog"]});
        for same in [json!({}), json!({"matchLabels": {"app": "shop"}}), json!({"matchExpressions": [expression]})] {
            let work = validated(|_| same.clone());
            assert_eq!((work.judged, work.claims), (count, count), "{same}");
            assert!(work.selectors <= 2 * count && work.pods <= 2 * count, "{same}: {work:?}");
        }
    }

    #[test]
    fn an_unknown_gateway_has_the_class_of_its_forward_and_a_known_one_must_have() {
        let forward = json!({
            "metadata": {"name": "f", "namespace": "a"},
            "spec": {
                "controllerClass": "blue", "placement": {"gateway": {"name": "edge"}},
                "listeners": [{
                    "name": "l", "protocol": "TCP", "port": 80,
                    "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
                }],
            },
        });
        let mut world = World::default();
        world.forwards.insert(ObjectKey::new("a", "f"), serde_json::from_value(forward).expect("a forward"));
        let accepted = |world: World| {
            let verdicts = translate(&any_cluster(world)).verdicts;
            verdicts.into_values().next().expect("a verdict").accepted
        };
        assert!(accepted(world.clone()).status);
        let gateway = ForwardGateway::new("edge", ForwardGatewaySpec::default());
        world.gateways.insert(ObjectKey::new("a", "edge"), gateway);
        let refused = accepted(world);
        assert!(!refused.status && refused.message.contains("'blue'"), "{}", refused.message);
    }

    #[test]
    fn an_unknown_gateway_may_permit_a_name_within_a_wildcard_of_another_namespace() {
        let mut world = World::default();
        for (namespace, hostname) in [("a", "*.example"), ("b", "x.example")] {
            let forward = json!({
                "metadata": {"name": "f", "namespace": namespace},
                "spec": {
                    "placement": {"gateway": {"name": "edge", "namespace": "infra"}},
                    "listeners": [{
                        "name": "l", "protocol": "TLS", "port": 443, "tls": {"hostnames": [hostname]},
                        "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
                    }],
                },
            });
            let forward = serde_json::from_value(forward).expect("a forward");
            world.forwards.insert(ObjectKey::new(namespace, "f"), forward);
        }
        let verdicts = translate(&any_cluster(world)).verdicts;
        assert!(verdicts.values().all(|verdict| verdict.accepted.status), "{verdicts:?}");
    }
}

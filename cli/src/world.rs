//! The world around the objects: a laptop, or a cluster of which only the manifests are known.

use std::collections::BTreeMap;

use crds::{AllowedForwards, ForwardGateway, ForwardGatewaySpec, From, NamespaceScope};
use operator::core::{Grant, Laptop, ObjectKey, Pod, Service, Site, World};

use crate::args;

/// A laptop with the options of the command line.
pub(crate) fn laptop(mut world: World, options: &args::Laptop) -> World {
    let ports = options.map.iter().map(|map| ((map.forward.clone(), map.listener.clone()), map.port));
    world.site = Site::Laptop(Laptop { port_offset: options.port_offset, ports: ports.collect() });
    world.services = options.resolve.iter().map(|item| (item.service.clone(), item.place.clone())).collect();
    world
}

/// A cluster that has whatever the manifests do not say: every Service and gateway that is named exists and is
/// open. What is refused here is refused in any cluster.
pub(crate) fn any_cluster(mut world: World) -> World {
    world.site = Site::Cluster;
    let mut services = BTreeMap::new();
    for (key, forward) in &world.forwards {
        let named = forward.spec.listeners.iter().flat_map(|listener| &listener.backends);
        for service in named.filter_map(|backend| backend.service.as_ref()) {
            let namespace = service.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            world.grants.insert(Grant { from: key.namespace.clone(), to: namespace.clone(), service: None });
            let stand_in = Service::External { host: "service.invalid".to_owned(), port: None };
            services.insert(ObjectKey::new(namespace, &service.name), stand_in);
        }
        if let Some(sidecar) = &forward.spec.placement.sidecar {
            // A pod with just these labels: who else selects it meets this forward there.
            let labels = sidecar.selector.match_labels.iter().map(|(key, value)| (key.clone(), value.0.clone()));
            world.pods.insert(key.clone(), Pod { labels: labels.collect() });
        }
        if let Some(gateway) = &forward.spec.placement.gateway {
            let namespace = gateway.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            let gateway = ObjectKey::new(namespace, &gateway.name);
            world.gateways.entry(gateway).or_insert_with(open_gateway);
        }
    }
    world.services = services;
    world
}

fn open_gateway() -> ForwardGateway {
    let everybody = NamespaceScope { from: From::All, selector: None };
    let allowed_forwards = Some(AllowedForwards { namespaces: Some(everybody), ..AllowedForwards::default() });
    ForwardGateway::new("any", ForwardGatewaySpec { allowed_forwards, ..ForwardGatewaySpec::default() })
}

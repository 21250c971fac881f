//! Admission of forwards by their gateway.

use crds::{ForwardGateway, From};

use crate::{
    translate::{
        backends, claims, tenants,
        validate::{Placement, ValidForward, ValidListener, transport},
        verdict::{Condition, Reason},
    },
    world::{ObjectKey, World},
};

/// Checks that the gateway of a forward exists and admits the forward's namespace and ports.
pub(crate) fn admitted(world: &World, forward: &ValidForward) -> Result<(), Condition> {
    let Placement::Gateway(key) = &forward.placement else { return Ok(()) };
    let Some(gateway) = world.gateways.get(key) else {
        // On a laptop the gateway may be missing from the manifests: the process stands in for it.
        let missing = || Condition::unmet(Reason::GatewayNotFound, format!("ForwardGateway {key} does not exist"));
        return if world.site.is_laptop() { Ok(()) } else { Err(missing()) };
    };
    if !namespace_allowed(world, key, gateway, &forward.origin.namespace) {
        let message = format!(
            "ForwardGateway {key} does not admit forwards of namespace '{}': see its spec.allowedForwards.namespaces",
            forward.origin.namespace
        );
        return Err(Condition::unmet(Reason::NotAllowedByGateway, message));
    }
    if let Some(cidr) = backends::bad_cidr(gateway) {
        let message =
            format!("ForwardGateway {key} has an invalid spec.allowedForwards.addressCIDRs: '{cidr}' is not a CIDR");
        return Err(Condition::unmet(Reason::NotAllowedByGateway, message));
    }
    let outside = forward.listeners.iter().find(|listener| !port_allowed(gateway, listener));
    let outside = outside.map(|listener| {
        format!(
            "ForwardGateway {key} does not admit port {}/{} of listener '{}': see its spec.allowedForwards.ports",
            listener.port.unwrap_or_default(),
            listener.transport,
            listener.name
        )
    });
    match outside.or_else(|| tenants::refusal(world, forward)) {
        None => Ok(()),
        Some(message) => Err(Condition::unmet(Reason::NotAllowedByGateway, message)),
    }
}

/// Whether a gateway that exists admits forwards of this namespace; true for a placement elsewhere.
pub(crate) fn admits_namespace(world: &World, placement: &Placement, namespace: &str) -> bool {
    let Placement::Gateway(key) = placement else { return true };
    world.gateways.get(key).is_none_or(|gateway| namespace_allowed(world, key, gateway, namespace))
}

fn namespace_allowed(world: &World, key: &ObjectKey, gateway: &ForwardGateway, namespace: &str) -> bool {
    let scope = gateway.spec.allowed_forwards.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match scope.map(|scope| (scope.from, scope.selector.as_ref())) {
        None | Some((From::Same, _)) => key.namespace == namespace,
        Some((From::All, _)) => true,
        Some((From::Selector, selector)) => {
            let labels = world.namespaces.get(namespace);
            selector.zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        }
    }
}

fn port_allowed(gateway: &ForwardGateway, listener: &ValidListener) -> bool {
    let ranges = gateway.spec.allowed_forwards.as_ref().map(|allowed| allowed.ports.as_slice()).unwrap_or_default();
    let Some(port) = listener.port.or(listener.held.as_ref().map(|held| held.port)) else { return true };
    // The gateway itself allocated the port.
    let is_allocated = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
    if listener.port.is_none() && claims::allocation_of(gateway).iter().any(is_allocated) {
        return true;
    }
    let last = port.saturating_add(listener.further);
    let is_allowed = |port: u16| {
        ranges.iter().any(|range| {
            transport(range.protocol) == listener.transport
                && (range.port..=range.end_port.unwrap_or(range.port)).contains(&port)
        })
    };
    ranges.is_empty() || (port..=last).all(is_allowed)
}

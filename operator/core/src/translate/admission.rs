//! Admission of forwards by their gateway.

use crds::ForwardGateway;

use crate::{
    translate::{
        asked::Asked,
        backends, claims,
        scope::is_in_scope,
        streams, tenants,
        validate::{Placement, ValidForward, transport},
        verdict::{Condition, Reason},
    },
    world::{ObjectKey, World, class},
};

/// Checks that the gateway of a forward exists and admits the forward's namespace and ports.
pub(crate) fn admitted(world: &World, forward: &ValidForward) -> Result<(), Condition> {
    let Placement::Gateway(key) = &forward.placement else { return Ok(()) };
    let gateway = found(world, forward, key)?;
    // On a laptop the gateway may be missing from the manifests: the process stands in for it.
    let Some(gateway) = gateway else { return Ok(()) };
    let scope = gateway.spec.allowed_forwards.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    if !is_in_scope(world, key, scope, &forward.origin.namespace) {
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
    if let Some(message) = streams::refusal(world, forward) {
        return Err(Condition::unmet(Reason::NotAllowedByGateway, message));
    }
    let asked: Vec<Asked<'_>> = forward.listeners.iter().map(Asked::by).collect();
    match refused(world, &forward.placement, &forward.origin.namespace, &asked) {
        None => Ok(()),
        Some(message) => Err(Condition::unmet(Reason::NotAllowedByGateway, message)),
    }
}

/// The gateway of a forward, if it exists and has the controller class of the forward; `None` on a laptop without the
/// gateway.
fn found<'a>(
    world: &'a World,
    forward: &ValidForward,
    key: &ObjectKey,
) -> Result<Option<&'a ForwardGateway>, Condition> {
    let unmet = |message: String| Err(Condition::unmet(Reason::GatewayNotFound, message));
    let own = forward.class.as_str();
    let gateway = world.gateways.get(key);
    let other = world.foreign_gateways.get(key).map(String::as_str);
    match gateway.map(class::of_gateway).or(other) {
        Some(other) if other != own => unmet(format!(
            "ForwardGateway {key} has {}, and this forward has {}: a forward and its gateway need the same \
             spec.controllerClass",
            class::words(other),
            class::words(own)
        )),
        None if !world.site.is_laptop() => unmet(format!("ForwardGateway {key} does not exist")),
        _ => Ok(gateway),
    }
}

/// Why the gateway of a placement does not permit the requests of a namespace's listeners; `None` if it permits them,
/// or does not exist.
pub(crate) fn refused(world: &World, placement: &Placement, namespace: &str, asked: &[Asked<'_>]) -> Option<String> {
    let Placement::Gateway(key) = placement else { return None };
    let gateway = world.gateways.get(key)?;
    let outside = asked.iter().find(|listener| !port_allowed(gateway, listener));
    let outside = outside.map(|listener| {
        format!(
            "ForwardGateway {key} does not admit port {}/{} of listener '{}': see its spec.allowedForwards.ports",
            listener.port.unwrap_or_default(),
            listener.transport,
            listener.name
        )
    });
    outside.or_else(|| tenants::refusal(world, (key, gateway), namespace, asked))
}

fn port_allowed(gateway: &ForwardGateway, listener: &Asked<'_>) -> bool {
    let ranges = gateway.spec.allowed_forwards.as_ref().map(|allowed| allowed.ports.as_slice()).unwrap_or_default();
    let Some(port) = listener.port.or(listener.allocated) else { return true };
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

//! The status of a gateway, from what became of its children.

use crds::{ForwardAddress, ForwardGateway, ForwardGatewayStatus, ServiceType};

use crate::status::conditions::{Finding, conditions};

/// What is known of a fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetFacts {
    /// Why its spec cannot be followed: reason, message.
    pub refused: Option<(String, String)>,
    /// Why its children cannot be applied.
    pub children: Option<String>,
    /// Whether its children were applied as they should be now.
    pub applied: bool,
    /// Pods.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Where clients reach it.
    pub addresses: Vec<ForwardAddress>,
    /// Forwards that are attached.
    pub attached: u32,
    /// Labels of its pods.
    pub selector: String,
    /// Whether replicas follow the load, if they should.
    pub scaling: Option<Finding>,
}

/// The status of a gateway. `now` is RFC 3339.
#[must_use]
pub fn gateway_status(gateway: &ForwardGateway, facts: &FleetFacts, now: &str) -> ForwardGatewayStatus {
    let generation = gateway.metadata.generation;
    let old = gateway.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let accepted = match &facts.refused {
        Some((reason, message)) => Finding::new("Accepted", "False", reason, message.clone()),
        None => Finding::new("Accepted", "True", "Accepted", "the spec is valid"),
    };
    let programmed = programmed(gateway, facts);
    let ready = match (accepted.status, programmed.status) {
        ("True", "True") => Finding::new("Ready", "True", "Ready", "the fleet runs"),
        ("True", status) => Finding::new("Ready", status, &programmed.reason, programmed.message.clone()),
        _ => Finding::new("Ready", "False", &accepted.reason, accepted.message.clone()),
    };
    let waits = programmed.status == "Unknown";
    let reconciling =
        waits.then(|| Finding::new("Reconciling", "True", &programmed.reason, programmed.message.clone()));
    let stuck = [&accepted, &programmed].into_iter().find(|finding| {
        finding.status == "False" && (finding.type_ == "Accepted" || finding.reason == "ChildrenFailed")
    });
    let stalled = stuck.map(|finding| Finding::new("Stalled", "True", &finding.reason, finding.message.clone()));
    let findings = [Some(accepted), Some(programmed), Some(ready), facts.scaling.clone(), reconciling, stalled]
        .into_iter()
        .flatten()
        .collect();
    ForwardGatewayStatus {
        observed_generation: generation,
        conditions: conditions(old, findings, generation, now),
        addresses: facts.addresses.clone(),
        replicas: Some(facts.replicas),
        selector: Some(facts.selector.clone()),
        attached_forwards: Some(facts.attached),
    }
}

fn programmed(gateway: &ForwardGateway, facts: &FleetFacts) -> Finding {
    let told = |status, reason: &str, message: &str| Finding::new("Programmed", status, reason, message);
    if facts.refused.is_some() {
        return told("False", "NotAccepted", "the fleet goes on as before: the spec is not accepted");
    }
    if let Some(why) = &facts.children {
        return told("False", "ChildrenFailed", why);
    }
    // An autoscaler has at least one.
    let wanted = if gateway.spec.autoscaling.is_some() { 1 } else { gateway.spec.replicas.unwrap_or(2) };
    if !facts.applied {
        return told("Unknown", "Pending", "its Deployment and Service are being applied");
    }
    if wanted == 0 {
        return told("False", "ScaledToZero", "spec.replicas is 0: no proxy runs");
    }
    if facts.ready == 0 {
        return told("Unknown", "NoProxies", "no proxy of the fleet is ready yet: see its Deployment and pods");
    }
    let service = gateway.spec.service.as_ref().and_then(|service| service.type_);
    if service == Some(ServiceType::LoadBalancer) && facts.attached > 0 && facts.addresses.is_empty() {
        return told("Unknown", "AddressNotAssigned", "no load balancer has given the Service an address yet");
    }
    told("True", "Programmed", "the fleet runs and its Service follows the listeners")
}

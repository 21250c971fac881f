//! The status of a gateway, from its spec and the state of its children.

use crds::{ForwardAddress, ForwardGateway, ForwardGatewayStatus, ServiceType};

use crate::{
    desired::jetstream,
    status::conditions::{ConditionType, Finding, Truth, conditions},
};

/// The facts about a gateway's fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetFacts {
    /// Why the spec is not accepted: reason and message.
    pub refused: Option<(String, String)>,
    /// A problem that does not keep the gateway from being accepted, but that its author should know.
    pub warning: Option<String>,
    /// Why the children cannot be applied; absent while a retry may still succeed for a fleet that was applied before.
    pub children: Option<String>,
    /// Whether the children were applied for the current generation.
    pub applied: bool,
    /// Number of pods.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready: i32,
    /// Addresses at which clients reach the gateway.
    pub addresses: Vec<ForwardAddress>,
    /// Number of attached forwards.
    pub attached: u32,
    /// Label selector of the pods.
    pub selector: String,
    /// Number of claims without pods whose messages are still being sent to their sinks.
    pub draining: u32,
    /// The condition `ClaimsDrained`; `None` without such claims.
    pub drained: Option<Finding>,
    /// The condition `ClaimsMounted`; `None` while nothing keeps pods from their claims.
    pub mounted: Option<Finding>,
    /// The condition `ScalingActive`; `None` without `spec.autoscaling`.
    pub scaling: Option<Finding>,
    /// Image of the proxies, by the fleet's workload; empty without one.
    pub image: String,
    /// The condition `Outdated`; `None` for a fleet that has adopted all changes of the installation.
    pub outdated: Option<Finding>,
}

/// Longest image in a status, in characters; the CRD has the same bound.
const MAX_IMAGE: usize = 512;

/// Reasons of `Programmed` for a fleet whose children are applied, but which does not run as it should.
const NO_PROXIES: &str = "NoProxies";
const NO_ADDRESS: &str = "AddressNotAssigned";
const AT_ZERO: &str = "ScaledToZero";

/// The generation for which the status of a gateway reports that its children are applied; `None` without such a
/// report.
#[must_use]
pub fn applied_generation(gateway: &ForwardGateway) -> Option<i64> {
    let mut conditions = gateway.status.as_ref()?.conditions.iter();
    let programmed = conditions.find(|condition| condition.type_ == ConditionType::Programmed.as_str())?;
    let is_applied = Truth::parse(&programmed.status) == Truth::True
        || [NO_PROXIES, NO_ADDRESS, AT_ZERO].contains(&programmed.reason.as_str());
    programmed.observed_generation.filter(|_| is_applied)
}

/// Computes the status of a gateway. `now` is RFC 3339.
#[must_use]
pub fn gateway_status(gateway: &ForwardGateway, facts: &FleetFacts, now: &str) -> ForwardGatewayStatus {
    let generation = gateway.metadata.generation;
    let old = gateway.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let accepted = if let Some((reason, message)) = &facts.refused {
        Finding::new(ConditionType::Accepted, Truth::False, reason, message.clone())
    } else {
        let warning = facts.warning.as_ref().map(|warning| format!("; warning: {warning}")).unwrap_or_default();
        Finding::new(ConditionType::Accepted, Truth::True, "Accepted", format!("the spec is valid{warning}"))
    };
    let programmed = programmed(gateway, facts);
    let ready = match (accepted.status, programmed.status) {
        (Truth::True, Truth::True) => {
            Finding::new(ConditionType::Ready, Truth::True, "Ready", "the fleet of the gateway is ready")
        }
        (Truth::True, status) => {
            Finding::new(ConditionType::Ready, status, &programmed.reason, programmed.message.clone())
        }
        _ => Finding::new(ConditionType::Ready, Truth::False, &accepted.reason, accepted.message.clone()),
    };
    let waits = programmed.status == Truth::Unknown;
    let reconciling = waits
        .then(|| Finding::new(ConditionType::Reconciling, Truth::True, &programmed.reason, programmed.message.clone()));
    let stuck = [&accepted, &programmed].into_iter().find(|finding| {
        finding.status == Truth::False
            && (finding.type_ == ConditionType::Accepted || finding.reason == "ChildrenFailed")
    });
    let stalled = stuck
        .map(|finding| Finding::new(ConditionType::Stalled, Truth::True, &finding.reason, finding.message.clone()));
    let others = [&facts.scaling, &facts.outdated, &facts.drained, &facts.mounted].into_iter().flatten().cloned();
    let main = [accepted, programmed, ready];
    let findings = main.into_iter().chain(others).chain(reconciling).chain(stalled).collect();
    let image: String = facts.image.chars().take(MAX_IMAGE).collect();
    ForwardGatewayStatus {
        observed_generation: generation,
        conditions: conditions(old, findings, generation, now),
        addresses: facts.addresses.clone(),
        replicas: Some(facts.replicas),
        selector: Some(facts.selector.clone()),
        draining_claims: Some(facts.draining).filter(|claims| *claims > 0),
        proxy_image: Some(image).filter(|image| !image.is_empty()),
        attached_forwards: Some(facts.attached),
    }
}

fn programmed(gateway: &ForwardGateway, facts: &FleetFacts) -> Finding {
    let finding =
        |status, reason: &str, message: &str| Finding::new(ConditionType::Programmed, status, reason, message);
    if facts.refused.is_some() {
        return finding(Truth::False, "NotAccepted", "the spec is not accepted; the fleet keeps running unchanged");
    }
    if let Some(why) = &facts.children {
        return finding(Truth::False, "ChildrenFailed", why);
    }
    // An HPA keeps at least one replica.
    let wanted = if gateway.spec.autoscaling.is_some() { 1 } else { gateway.spec.replicas.unwrap_or(2) };
    if !facts.applied {
        return finding(Truth::Unknown, "Pending", "the workload and Service of the gateway are being applied");
    }
    if wanted == 0 {
        return finding(Truth::False, AT_ZERO, "spec.replicas is 0, so no proxy runs: raise spec.replicas");
    }
    if facts.ready == 0 {
        let why = facts.mounted.as_ref().map(|mounted| mounted.message.as_str());
        let why = why.unwrap_or("see the workload of the gateway and its pods");
        let message = format!("no proxy of the fleet is ready yet: {why}");
        let message = match jetstream::waits_for(gateway) {
            None => message,
            Some(files) => format!("{message}; its pods start once the namespace of the gateway has {files}"),
        };
        return finding(Truth::Unknown, NO_PROXIES, &message);
    }
    let service = gateway.spec.service.as_ref().and_then(|service| service.type_);
    if service == Some(ServiceType::LoadBalancer) && facts.attached > 0 && facts.addresses.is_empty() {
        let message = "the load balancer has not assigned an address to the Service yet: see the events of the Service";
        return finding(Truth::Unknown, NO_ADDRESS, message);
    }
    finding(Truth::True, "Programmed", "the fleet runs, and its Service has the ports of all listeners")
}

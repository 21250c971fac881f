//! Statuses as merge patches.

use crds::{ForwardAddress, ForwardAgentStatus, ForwardGatewayStatus, PortForwardStatus};
use serde_json::{Value, json};

use crate::{
    translate::{groups::Group, verdict::Verdict},
    world::cache::Cache,
};

/// The conditions and the observed generation alone, as a merge patch.
#[must_use]
pub fn findings_of(status: &PortForwardStatus) -> Value {
    json!({"observedGeneration": status.observed_generation, "conditions": status.conditions})
}

/// The addresses at which clients reach the listeners of a forward: those of its gateway.
#[must_use]
pub fn addresses(verdict: &Verdict, cache: &Cache) -> Vec<ForwardAddress> {
    let mut gateways = verdict.groups.iter().filter_map(|group| match group {
        Group::Gateway(key) => cache.services.get(key).filter(|service| service.gateway.as_ref() == Some(&key.name)),
        _ => None,
    });
    gateways.next().map(|service| forward_addresses(&service.addresses)).unwrap_or_default()
}

/// Whether the pods of a forward's gateway have claims.
#[must_use]
pub fn has_claims(verdict: &Verdict, cache: &Cache) -> bool {
    verdict.groups.iter().any(|group| {
        let Group::Gateway(key) = group else { return false };
        cache.world.gateways.get(key).is_some_and(|gateway| gateway.spec.durability.is_some())
    })
}

/// Addresses of a Service in the form of a status; at most 16.
#[must_use]
pub fn forward_addresses(addresses: &[(String, String)]) -> Vec<ForwardAddress> {
    let address = |(type_, value): &(String, String)| ForwardAddress { type_: type_.clone(), value: value.clone() };
    addresses.iter().take(16).map(address).collect()
}

/// The whole status as a merge patch. Absent fields are null, so nothing of an older status remains.
#[must_use]
pub fn all_of(status: &PortForwardStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    for field in ["conditions", "listeners", "dataPlane", "ports", "to", "placement", "addresses"] {
        null_if_absent(&mut value, field);
    }
    null_if_absent(&mut value["dataPlane"], "rejected");
    value
}

/// Sets an absent field to null, so that a merge patch removes it.
fn null_if_absent(value: &mut Value, field: &str) {
    if let Value::Object(fields) = value {
        fields.entry(field).or_insert(Value::Null);
    }
}

/// The whole status of a gateway as a merge patch, like [`all_of`].
#[must_use]
pub fn all_of_gateway(status: &ForwardGatewayStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    for field in ["conditions", "addresses", "drainingClaims", "proxyImage"] {
        null_if_absent(&mut value, field);
    }
    value
}

/// The whole status of an agent as a merge patch, like [`all_of`].
#[must_use]
pub fn all_of_agent(status: &ForwardAgentStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    for field in ["conditions", "enrolmentSecret", "instances"] {
        null_if_absent(&mut value, field);
    }
    value
}

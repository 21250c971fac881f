//! The placement of a forward, and its form in status.

use std::sync::Arc;

use crds::{PortForward, Selector};
use proxy_api::Origin;

use super::Violations;
use crate::{hash::hash, world::ObjectKey};

/// The placement of a forward.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// In the pods that the selector matches. The selector is the object's own copy.
    Sidecar(Arc<Selector>),
    /// In the proxies of this gateway.
    Gateway(ObjectKey),
}

impl Placement {
    /// The placement in the form of status.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Sidecar(selector) => sidecar_words(selector),
            Self::Gateway(key) => format!("gateway {key}"),
        }
    }
}

/// Placement of a sidecar forward in status, followed by its selector.
pub(super) const SIDECAR: &str = "sidecar";
/// The most bytes of a selector in status; a longer one is replaced by its hash.
const LONGEST_SELECTOR: usize = 100;

/// Formats a placement as `sidecar app=shop`, with the selector as `kubectl get --selector` accepts it.
fn sidecar_words(selector: &Selector) -> String {
    let values = |all: &[crds::LabelValue]| all.iter().map(|value| value.0.as_str()).collect::<Vec<_>>().join(",");
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={}", value.0));
    let expressions = selector.match_expressions.iter().map(|item| match item.operator {
        crds::SelectorOperator::In => format!("{} in ({})", item.key, values(&item.values)),
        crds::SelectorOperator::NotIn => format!("{} notin ({})", item.key, values(&item.values)),
        crds::SelectorOperator::Exists => item.key.clone(),
        crds::SelectorOperator::DoesNotExist => format!("!{}", item.key),
    });
    let words: Vec<String> = labels.chain(expressions).collect();
    let words = words.join(",");
    match words.len() {
        0 => SIDECAR.to_owned(),
        1..=LONGEST_SELECTOR => format!("{SIDECAR} {words}"),
        _ => format!("{SIDECAR} #{:016x}", hash(&words)),
    }
}

/// The placement that a spec names.
pub(super) fn placement(forward: &PortForward, key: &Origin, found: &mut Violations) -> Option<Placement> {
    match (&forward.spec.placement.sidecar, &forward.spec.placement.gateway) {
        (Some(sidecar), None) => Some(Placement::Sidecar(sidecar.selector.clone())),
        (None, Some(gateway)) => {
            let namespace = gateway.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            Some(Placement::Gateway(ObjectKey::new(namespace, gateway.name.clone())))
        }
        _ => {
            found.add("spec.placement", "exactly one of sidecar and gateway must be set");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placement_has_the_selector_of_its_object_and_no_copy() {
        let placement = json!({"sidecar": {"selector": {"matchLabels": {"app": "shop"}}}});
        let forward = json!({"metadata": {}, "spec": {"placement": placement, "listeners": []}});
        let forward: PortForward = serde_json::from_value(forward).expect("a forward");
        let own = &forward.spec.placement.sidecar.as_ref().expect("a sidecar").selector;
        let read = super::placement(&forward, &Origin::port_forward("ns", "f"), &mut Violations::default());
        assert!(matches!(read, Some(Placement::Sidecar(selector)) if Arc::ptr_eq(&selector, own)));
    }
}

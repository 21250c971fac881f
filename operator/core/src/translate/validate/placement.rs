//! Where a forward runs, and the words for that in status.

use std::sync::Arc;

use crds::{PortForward, Selector};
use proxy_api::Origin;

use super::Violations;
use crate::{hash::hash, world::ObjectKey};

/// Where a forward runs.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// In the pods that the selector matches. Shared, because the map of labels of a single selector takes more memory
    /// than the rest of most forwards.
    Sidecar(Arc<Selector>),
    /// In the proxies of this gateway.
    Gateway(ObjectKey),
}

impl Placement {
    /// Uses the selector of this placement if it is the same.
    pub(crate) fn share(&mut self, known: &Self) {
        if let (Self::Sidecar(own), Self::Sidecar(known)) = (self, known)
            && *own == *known
        {
            *own = known.clone();
        }
    }

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
/// Length in bytes up to which a selector is spelled out; a longer one is replaced by its hash.
const LONGEST_SELECTOR: usize = 100;

/// `sidecar app=shop`, with the selector as `kubectl get --selector` takes it.
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
        (Some(sidecar), None) => Some(Placement::Sidecar(Arc::new(sidecar.selector.clone()))),
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
    use super::*;

    #[test]
    fn a_placement_that_is_read_again_shares_its_selector_unless_the_selector_changed() {
        let sidecar = |app: &str| {
            let text = format!("{{\"matchLabels\": {{\"app\": \"{app}\"}}}}");
            Placement::Sidecar(Arc::new(serde_json::from_str(&text).expect("a selector")))
        };
        let shares = |known: &Placement, mut again: Placement| {
            again.share(known);
            matches!((known, &again), (Placement::Sidecar(one), Placement::Sidecar(other)) if Arc::ptr_eq(one, other))
        };
        assert!(shares(&sidecar("a"), sidecar("a")));
        assert!(!shares(&sidecar("a"), sidecar("b")));
        assert!(!shares(&Placement::Gateway(ObjectKey::new("ns", "g")), sidecar("a")));
    }
}

//! The claims of each namespace on a gateway, beside its share of the ports and forwards.
//!
//! Only a namespace that requests more than its share is counted. All its claims are then decided together, because
//! each of them decides whether there is room for the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::Origin;

use super::{Candidate, ListenerRef, Lost, Port, Rank, Request, Rules};
use crate::translate::{
    server_names::covers,
    tenants::{Quota, Source, Terms},
    verdict::Reason,
};

/// The namespaces with claims on a gateway; empty in other groups.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    by_name: BTreeMap<String, Namespace>,
    /// Whether the share that is left for allocated ports may have changed.
    recount: bool,
}

#[derive(Debug, Default)]
struct Namespace {
    terms: Arc<Terms>,
    /// Forwards with claims.
    forwards: BTreeSet<Origin>,
    /// Number of listeners that request each port.
    ports: BTreeMap<Port, usize>,
    /// Number of listeners that accept any port.
    dynamic: usize,
    /// Whether a claim changed since the last review.
    is_changed: bool,
    /// Present if the namespace requests more than its share.
    crowd: Option<Crowd>,
}

/// The count of a namespace that requests more than its share.
#[derive(Debug, Default)]
struct Crowd {
    /// Forwards beyond the share.
    unseated: BTreeSet<Origin>,
    /// Ports that listeners hold by number.
    held: BTreeSet<Port>,
    /// Number of allocated ports.
    allocated: usize,
}

impl Namespaces {
    /// Adds the claims of a forward.
    pub(super) fn add(&mut self, key: &Origin, candidates: &[Candidate]) {
        let Some(terms) = candidates.iter().find_map(|candidate| candidate.terms.as_ref()) else { return };
        let namespace = self.by_name.entry(key.namespace.clone()).or_default();
        // The forwards of a namespace have the same terms: all of them are read again when the terms change.
        namespace.terms = terms.clone();
        namespace.is_changed = true;
        namespace.forwards.insert(key.clone());
        namespace.dynamic += dynamic(candidates);
        for port in candidates.iter().flat_map(Candidate::ports) {
            *namespace.ports.entry(port).or_default() += 1;
        }
    }

    /// Removes the claims of a forward.
    pub(super) fn remove(&mut self, key: &Origin, candidates: &[Candidate]) {
        let Some(namespace) = self.by_name.get_mut(&key.namespace) else { return };
        if !namespace.forwards.remove(key) {
            return;
        }
        namespace.is_changed = true;
        namespace.dynamic = namespace.dynamic.saturating_sub(dynamic(candidates));
        for port in candidates.iter().flat_map(Candidate::ports) {
            let Some(count) = namespace.ports.get_mut(&port) else { continue };
            *count -= 1;
            if *count == 0 {
                namespace.ports.remove(&port);
            }
        }
        if namespace.forwards.is_empty() {
            self.by_name.remove(&key.namespace);
        }
    }

    /// Finds the namespaces that want more than their share. Returns the forwards of changed namespaces for which that
    /// is or was so: their claims must be decided again. `rank` orders the forwards of a namespace.
    pub(super) fn review(&mut self, rank: impl Fn(&Origin) -> Option<Rank>) -> BTreeSet<Origin> {
        let mut again = BTreeSet::new();
        for namespace in self.by_name.values_mut().filter(|namespace| namespace.is_changed) {
            namespace.is_changed = false;
            let was_crowded = namespace.crowd.is_some();
            namespace.crowd =
                namespace.is_over().then(|| Crowd { unseated: namespace.unseated(&rank), ..Crowd::default() });
            if was_crowded || namespace.crowd.is_some() {
                again.extend(namespace.forwards.iter().cloned());
                self.recount |= namespace.dynamic > 0;
            }
        }
        again
    }

    /// Most ports that all namespaces together can hold.
    pub(super) fn most_ports(&self) -> usize {
        self.by_name.values().map(Namespace::most_ports).fold(0, usize::saturating_add)
    }

    /// The forwards of a namespace whose claims are counted.
    pub(super) fn crowd_of(&self, namespace: &str) -> Option<&BTreeSet<Origin>> {
        let namespace = self.by_name.get(namespace).filter(|namespace| namespace.crowd.is_some())?;
        Some(&namespace.forwards)
    }

    /// Begins the count of a namespace, before all its requests for ports are decided again. Allocated ports are
    /// decided later: none of them counts until it is allocated again.
    pub(super) fn restart(&mut self, namespace: &str) {
        let Some(namespace) = self.by_name.get_mut(namespace) else { return };
        if let Some(crowd) = &mut namespace.crowd {
            crowd.held.clear();
            crowd.allocated = 0;
            self.recount |= namespace.dynamic > 0;
        }
    }

    /// Whether allocated ports must be counted from the first on: the share that is left for them may have changed
    /// since the last call, or `is_due` is set and a counted namespace requests any.
    pub(super) fn take_recount(&mut self, is_due: bool) -> bool {
        let counts = |namespace: &Namespace| namespace.dynamic > 0 && namespace.crowd.is_some();
        std::mem::take(&mut self.recount) || (is_due && self.by_name.values().any(counts))
    }

    /// Begins the count of allocated ports.
    pub(super) fn restart_allocation(&mut self) {
        let crowds = self.by_name.values_mut().filter_map(|namespace| namespace.crowd.as_mut());
        crowds.for_each(|crowd| crowd.allocated = 0);
    }

    /// Counts these ports, which a listener of the namespace got.
    pub(super) fn take(&mut self, namespace: &str, ports: impl Iterator<Item = Port>) {
        if let Some(crowd) = self.crowd(namespace) {
            crowd.held.extend(ports);
        }
    }

    /// Counts an allocated port, which a listener of the namespace got.
    pub(super) fn take_allocated(&mut self, namespace: &str) {
        if let Some(crowd) = self.crowd(namespace) {
            crowd.allocated += 1;
        }
    }

    fn crowd(&mut self, namespace: &str) -> Option<&mut Crowd> {
        self.by_name.get_mut(namespace).and_then(|namespace| namespace.crowd.as_mut())
    }

    /// Why the share of its namespace does not permit a listener these ports and this number of allocated ports.
    pub(super) fn refuses(
        &self,
        rules: &Rules,
        listener: &ListenerRef,
        ports: impl Iterator<Item = Port>,
        allocated: usize,
    ) -> Option<Lost> {
        let name = &listener.forward.namespace;
        let Namespace { terms, crowd: Some(crowd), .. } = self.by_name.get(name)? else { return None };
        if let Some(quota) = terms.max_forwards.as_ref().filter(|_| crowd.unseated.contains(&listener.forward)) {
            return Some(exceeded(rules, name, "forwards", quota));
        }
        let fresh = ports.filter(|port| !crowd.held.contains(port)).count() + allocated;
        let all = crowd.held.len() + crowd.allocated + fresh;
        let quota = terms.max_ports.as_ref().filter(|quota| fresh > 0 && all > quota.most)?;
        Some(exceeded(rules, name, "ports", quota))
    }

    /// Whether the gateway lists a server name for a namespace.
    pub(super) fn grants(&self, namespace: &str, name: &str) -> bool {
        self.by_name.get(namespace).is_some_and(|namespace| namespace.terms.grants(name))
    }

    /// Whether a name of one namespace lies within a name of the other without a grant. Each side is a namespace and
    /// its names; the second side has claims here.
    pub(super) fn clash(&self, one: (&str, &[String]), other: (&str, &[String])) -> bool {
        let lies_within = |(namespace, inner): (&str, &[String]), outer: &[String]| {
            inner.iter().any(|name| {
                !self.grants(namespace, name) && outer.iter().any(|pattern| pattern != name && covers(pattern, name))
            })
        };
        let is_shared = one.0 != other.0 && self.by_name.contains_key(other.0);
        is_shared && (lies_within(one, other.1) || lies_within(other, one.1))
    }
}

impl Namespace {
    fn is_over(&self) -> bool {
        let exceeds = |quota: Option<&Quota>, count: usize| quota.is_some_and(|quota| count > quota.most);
        exceeds(self.terms.max_ports.as_ref(), self.ports.len() + self.dynamic)
            || exceeds(self.terms.max_forwards.as_ref(), self.forwards.len())
    }

    /// The forwards beyond the share, the last ones by rank.
    fn unseated(&self, rank: impl Fn(&Origin) -> Option<Rank>) -> BTreeSet<Origin> {
        let Some(quota) = &self.terms.max_forwards else { return BTreeSet::new() };
        let mut forwards: Vec<(Option<Rank>, &Origin)> = self.forwards.iter().map(|key| (rank(key), key)).collect();
        forwards.sort_unstable();
        forwards.into_iter().skip(quota.most).map(|(_, key)| key.clone()).collect()
    }

    fn most_ports(&self) -> usize {
        let wanted = self.ports.len() + self.dynamic;
        self.terms.max_ports.as_ref().map_or(wanted, |quota| wanted.min(quota.most))
    }
}

/// Number of listeners that accept any port.
fn dynamic(candidates: &[Candidate]) -> usize {
    candidates.iter().filter(|candidate| matches!(candidate.request, Request::Any(_))).count()
}

fn exceeded(rules: &Rules, namespace: &str, what: &str, Quota { most, from }: &Quota) -> Lost {
    let (whose, remedy) = match from {
        Source::Tenant(name) => {
            (format!("its share as tenant '{name}'"), "raise the number in that entry of spec.allowedForwards.tenants")
        }
        Source::HalfOfService => (
            "by default half of spec.service.maxPorts".to_owned(),
            "set maxPorts for the namespace in spec.allowedForwards.tenants",
        ),
    };
    let message = format!(
        "namespace '{namespace}' may hold {most} {what} of {}, {whose}: {remedy} of the gateway, or remove {what} of the \
         namespace",
        rules.gateway()
    );
    Lost { reason: Reason::QuotaExceeded, message, to_app: false }
}

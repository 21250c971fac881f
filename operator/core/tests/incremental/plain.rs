//! The parts of a translation that do not depend on earlier ones.

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{Group, Outcome, Translation, Translator};
use proxy_api::{Configuration, RESERVED, Target};

/// The configurations of the present translation without the listeners that run only in their last good version, and
/// those of a translation of the whole world. If there are such listeners, both lack the sidecars of gateways: agents
/// may reach some sidecars only for such a listener.
pub(crate) fn comparable(
    now: &Translation,
    whole: &Translation,
    translator: &Translator,
) -> [BTreeMap<Group, Configuration>; 2] {
    let without_kept = now.configurations.iter().map(|(group, it)| (group.clone(), plain(it, translator)));
    let without_kept: BTreeMap<Group, Configuration> = without_kept.collect();
    let is_kept = without_kept.iter().any(|(group, it)| it.listeners.len() < now.configurations[group].listeners.len());
    let mut both = [without_kept, whole.configurations.clone()];
    if is_kept {
        both.iter_mut().flat_map(BTreeMap::values_mut).for_each(|it| it.tunnels.sidecars.clear());
    }
    both
}

/// A configuration without the listeners that run only in their last good version, and without what these use.
fn plain(configuration: &Configuration, translator: &Translator) -> Configuration {
    let mut plain = configuration.clone();
    plain.listeners.retain(|id, offer| {
        let verdict = translator.verdict(&id.origin);
        let listener = verdict.and_then(|verdict| verdict.listeners.iter().find(|l| l.name == id.listener));
        listener.is_some_and(|l| l.outcome == Outcome::Published(offer.revision().clone()))
    });
    let used: Vec<&String> = plain
        .supported()
        .flat_map(|(_, listener)| &listener.backends)
        .filter_map(|backend| match &backend.target {
            Target::Endpoints(name) | Target::Tunnel { agent: name, .. } => Some(name),
            Target::Address { .. } => None,
        })
        .collect();
    let used: BTreeSet<String> = used.into_iter().cloned().collect();
    let is_reserved = |name: &str| RESERVED.contains(&name);
    plain.endpoints.retain(|name, _| used.contains(name) || is_reserved(name));
    plain.agents.retain(|uid, agent| agent.gateway.is_none() || used.contains(uid));
    plain
}

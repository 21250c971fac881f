//! Valid settings of a listener that have no effect, or that leave no backend to the listener. They are not refused: a
//! listener with one backend may be about to get a second.

use std::{collections::BTreeSet, net::IpAddr};

use crds::{Backend, Listener, LoadBalancingPolicy};

/// Describes the settings that have no effect in a listener, or leave no backend to it, for a person. Defaults are not
/// mentioned. For priorities and weights, backends with weight 0 count: they may soon get sessions.
pub(super) fn settings(item: &Listener) -> Vec<String> {
    [priority(item), weight(item), no_weight(item), policy(item)].into_iter().flatten().collect()
}

fn priority_of(backend: &Backend) -> u32 {
    backend.priority.unwrap_or(0)
}

fn priority(item: &Listener) -> Option<String> {
    let all: BTreeSet<u32> = item.backends.iter().map(priority_of).collect();
    let only = all.first().filter(|priority| all.len() == 1 && **priority > 0)?;
    Some(format!(
        "priority {only} in listener '{}' has no effect: no backend of the listener has another priority",
        item.name
    ))
}

fn weight(item: &Listener) -> Option<String> {
    let is_alone = |backend: &Backend| {
        item.backends.iter().filter(|other| priority_of(other) == priority_of(backend)).count() == 1
    };
    let alone = item.backends.iter().find(|backend| backend.weight.is_some_and(|it| it > 1) && is_alone(backend))?;
    let (weight, priority) = (alone.weight?, priority_of(alone));
    Some(format!(
        "weight {weight} in listener '{}' has no effect: the backend is the only one of priority {priority}",
        item.name
    ))
}

fn no_weight(item: &Listener) -> Option<String> {
    let has_none = !item.backends.is_empty() && item.backends.iter().all(|backend| backend.weight == Some(0));
    has_none.then(|| {
        format!(
            "no backend of listener '{}' has a weight above 0, so every session is refused: set weight to 1 or \
             more for at least one backend",
            item.name
        )
    })
}

/// Describes a policy without a choice: backends of weight 0 get no sessions.
fn policy(item: &Listener) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut used = item.backends.iter().filter(|backend| backend.weight != Some(0));
    let has_no_choice = used.all(|backend| is_one_endpoint(backend) && seen.insert(priority_of(backend)));
    if !has_no_choice || seen.is_empty() {
        return None;
    }
    let policy = match item.load_balancing.as_ref()?.policy? {
        LoadBalancingPolicy::RoundRobin => return None,
        LoadBalancingPolicy::LeastConnections => "LeastConnections",
        LoadBalancingPolicy::Random => "Random",
        LoadBalancingPolicy::SourceHash => "SourceHash",
    };
    let why = match (item.backends.len(), seen.len()) {
        (1, _) => "the only backend is one endpoint",
        (_, 1) => "the only backend with a weight above 0 is one endpoint",
        _ => "each priority has one endpoint",
    };
    Some(format!("policy {policy} in listener '{}' has no effect: {why}", item.name))
}

fn is_one_endpoint(backend: &Backend) -> bool {
    let is_address = backend.address.as_ref().is_some_and(|address| address.host.parse::<IpAddr>().is_ok());
    is_address || backend.local.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Why a policy of a listener with these backends has no effect.
    fn why(backends: &Value) -> String {
        let item = json!({
            "name": "l", "protocol": "TCP", "port": 80, "loadBalancing": {"policy": "Random"}, "backends": backends,
        });
        let found = settings(&serde_json::from_value(item).expect("a listener"));
        let [text] = found.as_slice() else { panic!("{found:?}") };
        let (_, why) = text.split_once("policy Random in listener 'l' has no effect: ").expect("about the policy");
        why.to_owned()
    }

    #[test]
    fn a_policy_without_a_choice_is_told_what_leaves_it_none() {
        let address = json!({"address": {"host": "192.0.2.1", "port": 1}});
        let idle = json!({"local": {"port": 2}, "weight": 0});
        let next = json!({"local": {"port": 2}, "priority": 1});
        assert_eq!(why(&json!([address])), "the only backend is one endpoint");
        assert_eq!(why(&json!([address, idle])), "the only backend with a weight above 0 is one endpoint");
        assert_eq!(why(&json!([address, next])), "each priority has one endpoint");
    }
}

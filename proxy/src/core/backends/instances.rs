//! The connected instances of agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::Agent;

/// All instances of each agent whose instances have changed, by the uid of the agent.
pub type Changes = BTreeMap<Arc<str>, OfAgent>;

/// The instances of one agent on which streams are opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfAgent {
    /// Their names. Empty if the agent has none left.
    pub names: BTreeSet<Arc<str>>,
    /// None of them has a connection now, so a stream waits for one.
    pub detached: bool,
}

/// The instances on which streams are opened, by the uid of their agent. Agents without instances are omitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances(pub BTreeMap<Arc<str>, OfAgent>);

impl Instances {
    /// Sets all instances of an agent; returns whether they changed.
    pub fn set(&mut self, uid: Arc<str>, instances: OfAgent) -> bool {
        if instances.names.is_empty() {
            return self.0.remove(&uid).is_some();
        }
        let differs = self.0.get(&uid) != Some(&instances);
        if differs {
            self.0.insert(uid, instances);
        }
        differs
    }
}

/// Uids of the agents that only one of two configurations has. A uid identifies an agent, whatever its name.
#[must_use]
pub fn came_or_went<'a>(before: &'a BTreeMap<String, Agent>, next: &'a BTreeMap<String, Agent>) -> BTreeSet<&'a str> {
    let gone = before.keys().filter(|uid| !next.contains_key(*uid));
    let new = next.keys().filter(|uid| !before.contains_key(*uid));
    gone.chain(new).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(all: &[(&str, &[&str])]) -> Instances {
        Instances(all.iter().map(|(uid, names)| (Arc::from(*uid), of_agent(names, false))).collect())
    }

    fn of_agent(names: &[&str], detached: bool) -> OfAgent {
        OfAgent { names: names.iter().map(|name| Arc::from(*name)).collect(), detached }
    }

    #[test]
    fn the_instances_of_one_agent_are_set_and_the_others_stay() {
        let mut all = instances(&[("a", &["one"]), ("b", &["one"])]);
        let mut set = |uid: &str, names: &[&str]| all.set(uid.into(), of_agent(names, false));
        assert!(set("a", &["two"]) && !set("a", &["two"]));
        assert!(set("b", &[]) && !set("b", &[]));
        assert_eq!(all, instances(&[("a", &["two"])]));
    }

    #[test]
    fn an_agent_whose_instances_lose_or_regain_their_connections_has_changed() {
        let mut all = instances(&[("a", &["one"])]);
        let mut set = |detached| all.set("a".into(), of_agent(&["one"], detached));
        assert!(set(true) && !set(true) && set(false) && !set(false));
    }

    #[test]
    fn an_agent_that_only_one_configuration_has_came_or_went() {
        let agent = |suspended| Agent {
            namespace: "ns".to_owned(),
            name: "home".to_owned(),
            rotation: 0,
            suspended,
            is_newer: false,
            max_instances: 1,
            targets: Vec::new(),
            enrolment: None,
            gateway: None,
        };
        let agents = |all: &[(&str, bool)]| -> BTreeMap<String, Agent> {
            all.iter().map(|(uid, suspended)| ((*uid).to_owned(), agent(*suspended))).collect()
        };
        let (before, next) = (agents(&[("a", false), ("b", false)]), agents(&[("b", true), ("c", false)]));
        assert_eq!(came_or_went(&before, &next).into_iter().collect::<Vec<_>>(), ["a", "c"]);
    }
}

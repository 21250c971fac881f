//! The running listeners that use each endpoint set and agent, so that a change of endpoints or instances costs nothing
//! for others.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use proxy_api::{Listener, ListenerId, Origin, Target};

/// Listeners by the endpoint sets and agents of their backends. A name is stored as its hash, so a listener that is
/// found is checked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetUsers(BTreeSet<(u64, ListenerId)>);

/// The source of endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source<'a> {
    /// The endpoint set of this name.
    Set(&'a str),
    /// The instances of the agent with this uid.
    Agent(&'a str),
}

impl SetUsers {
    /// Replaces the version `before` of a listener by `after`; `None`: it does not run.
    pub fn replace(&mut self, id: &ListenerId, before: Option<&Listener>, after: Option<&Listener>) {
        for source in before.into_iter().flat_map(sources) {
            self.0.remove(&(hash(source), id.clone()));
        }
        for source in after.into_iter().flat_map(sources) {
            self.0.insert((hash(source), id.clone()));
        }
    }

    /// The listeners among these that use one of these sets.
    #[must_use]
    pub fn of(&self, sets: &BTreeSet<String>, listeners: &BTreeMap<ListenerId, Arc<Listener>>) -> BTreeSet<ListenerId> {
        self.find(sets.iter().map(|name| Source::Set(name)), listeners)
    }

    /// The listeners among these that lead through one of these agents, by uid.
    #[must_use]
    pub fn through(
        &self,
        agents: &BTreeSet<&str>,
        listeners: &BTreeMap<ListenerId, Arc<Listener>>,
    ) -> BTreeSet<ListenerId> {
        self.find(agents.iter().map(|uid| Source::Agent(uid)), listeners)
    }

    fn find<'a>(
        &self,
        wanted: impl Iterator<Item = Source<'a>>,
        listeners: &BTreeMap<ListenerId, Arc<Listener>>,
    ) -> BTreeSet<ListenerId> {
        let uses = |id: &ListenerId, source: Source<'_>| {
            listeners.get(id).is_some_and(|listener| sources(listener).any(|used| used == source))
        };
        // The id of empty texts is the least one.
        let least = ListenerId::new(Origin::default(), "");
        let mut found = BTreeSet::new();
        for source in wanted {
            let hashed = hash(source);
            let known = self.0.range((hashed, least.clone())..).take_while(|(other, _)| *other == hashed);
            found.extend(known.map(|(_, id)| id).filter(|id| uses(id, source)).cloned());
        }
        found
    }
}

/// The sources of a listener's endpoints that other listeners may share.
fn sources(listener: &Listener) -> impl Iterator<Item = Source<'_>> {
    listener.backends.iter().filter_map(|backend| match &backend.target {
        Target::Endpoints(name) => Some(Source::Set(name)),
        Target::Tunnel { agent, .. } => Some(Source::Agent(agent)),
        Target::Address { .. } => None,
    })
}

/// The hash is the same in each run of the process.
fn hash(source: Source<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_api::Backend;

    use super::*;
    use crate::fixtures::template;

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

    fn with(template: &Listener, targets: impl Iterator<Item = Target>) -> Arc<Listener> {
        let backend = |(at, target): (usize, Target)| Backend {
            id: format!("b{at}"),
            weight: 1,
            priority: 0,
            check_port: None,
            target,
        };
        Arc::new(Listener { backends: targets.enumerate().map(backend).collect(), ..template.clone() })
    }

    /// A listener with this endpoint set as its backend.
    fn listener(set: &str) -> Arc<Listener> {
        with(&template(), [Target::Endpoints(set.to_owned())].into_iter())
    }

    fn behind(agent: &str) -> Target {
        Target::Tunnel { agent: agent.to_owned(), host: "db.lan".to_owned(), port: 5432 }
    }

    fn sets(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_listener_is_found_by_the_sets_that_it_uses_now() {
        let (one, other) = (listener("ns/one"), listener("ns/other"));
        let mut users = SetUsers::default();
        users.replace(&id("a"), None, Some(&one));
        users.replace(&id("b"), None, Some(&one));
        let running = BTreeMap::from([(id("a"), one.clone()), (id("b"), one.clone())]);
        assert_eq!(users.of(&sets(&["ns/one", "ns/none"]), &running), BTreeSet::from([id("a"), id("b")]));
        users.replace(&id("a"), Some(&one), Some(&other));
        let running = BTreeMap::from([(id("a"), other.clone()), (id("b"), one.clone())]);
        assert_eq!(users.of(&sets(&["ns/one"]), &running), BTreeSet::from([id("b")]));
        assert_eq!(users.of(&sets(&["ns/one", "ns/other"]), &running), BTreeSet::from([id("a"), id("b")]));
        users.replace(&id("a"), Some(&other), None);
        users.replace(&id("b"), Some(&one), None);
        assert_eq!(users, SetUsers::default(), "nothing is left of listeners that are gone");
    }

    #[test]
    fn a_listener_is_kept_once_for_each_of_its_sets() {
        let (one, other) = (listener("ns/one"), listener("ns/other"));
        let backends = [one.backends.clone(), other.backends.clone()].concat();
        let both = Listener { backends, ..(*one).clone() };
        let mut users = SetUsers::default();
        users.replace(&id("a"), None, Some(&both));
        assert_eq!(users.0.len(), 2);
        users.replace(&id("a"), Some(&both), Some(&one));
        let mut expected = SetUsers::default();
        expected.replace(&id("a"), None, Some(&one));
        assert_eq!(users, expected);
    }

    #[test]
    fn a_name_of_the_same_hash_is_not_taken_for_another() {
        let users = SetUsers(BTreeSet::from([(hash(Source::Set("ns/other")), id("a"))]));
        let running = BTreeMap::from([(id("a"), listener("ns/one"))]);
        assert!(users.of(&sets(&["ns/other"]), &running).is_empty());
    }

    #[test]
    fn only_listeners_of_the_index_are_asked() {
        let through = with(&template(), [behind("u")].into_iter());
        let mut users = SetUsers::default();
        users.replace(&id("a"), None, Some(&through));
        // Only a search of all listeners finds the other one.
        let running = BTreeMap::from([(id("a"), through.clone()), (id("b"), through.clone())]);
        assert_eq!(users.through(&BTreeSet::from(["u"]), &running), BTreeSet::from([id("a")]));
        users.replace(&id("a"), Some(&through), None);
        assert_eq!(users, SetUsers::default());
    }

    #[test]
    fn a_listener_uses_the_agents_that_its_backends_are_behind() {
        let other = || Target::Endpoints("ns/b".to_owned());
        let running = BTreeMap::from([
            (id("one"), with(&template(), [other(), behind("a")].into_iter())),
            (id("another"), with(&template(), [behind("b")].into_iter())),
            (id("none"), with(&template(), [other()].into_iter())),
        ]);
        let mut users = SetUsers::default();
        for (id, listener) in &running {
            users.replace(id, None, Some(listener));
        }
        let found = |uids: &[&str]| users.through(&uids.iter().copied().collect(), &running);
        assert_eq!(found(&["a", "c"]), BTreeSet::from([id("one")]));
        assert_eq!(found(&["a", "b"]), BTreeSet::from([id("one"), id("another")]));
        assert!(found(&[]).is_empty());
    }

    /// Finds the listeners that have one of these targets by a search of all.
    fn all_with(
        running: &BTreeMap<ListenerId, Arc<Listener>>,
        is_wanted: impl Fn(&Target) -> bool,
    ) -> BTreeSet<ListenerId> {
        let has = |listener: &Listener| listener.backends.iter().any(|backend| is_wanted(&backend.target));
        running.iter().filter(|(_, listener)| has(listener)).map(|(id, _)| id.clone()).collect()
    }

    proptest! {
        #[test]
        fn the_index_finds_whom_a_look_at_all_listeners_finds(
            steps in prop::collection::vec((0..4_u8, prop::collection::vec((0..3_u8, 0..3_u8), 0..3)), 0..12),
            wanted in prop::collection::btree_set(0..3_u8, 0..3),
        ) {
            let template = template();
            // An agent may have the uid that is the name of a set.
            let target = |(kind, name): &(u8, u8)| match kind {
                0 => Target::Endpoints(name.to_string()),
                1 => behind(&name.to_string()),
                _ => Target::Address { host: name.to_string(), port: 1 },
            };
            let (mut users, mut running) = (SetUsers::default(), BTreeMap::new());
            for (at, targets) in &steps {
                let id = id(&at.to_string());
                // Without a target, the listener ceases to run.
                let next = (!targets.is_empty()).then(|| with(&template, targets.iter().map(target)));
                let before = running.remove(&id);
                users.replace(&id, before.as_deref(), next.as_deref());
                running.extend(next.map(|next| (id, next)));
            }
            let names: BTreeSet<String> = wanted.iter().map(u8::to_string).collect();
            let uids: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let is_set = |target: &Target| matches!(target, Target::Endpoints(name) if names.contains(name));
            prop_assert_eq!(users.of(&names, &running), all_with(&running, is_set));
            let is_agent = |target: &Target| matches!(target, Target::Tunnel { agent, .. } if names.contains(agent));
            prop_assert_eq!(users.through(&uids, &running), all_with(&running, is_agent));
        }
    }
}

//! Agents and their instances, which the targets of listeners follow.

use std::{collections::BTreeSet, sync::Arc};

use proxy_api::{Configuration, ListenerId};

use super::Supervisor;
use crate::{
    agents::ForTunnels,
    core::backends::instances::{Changes, came_or_went},
};

impl Supervisor {
    /// Takes the changed instances of agents. Only the listeners that lead through one of these agents are refreshed,
    /// all together.
    pub(super) fn connected(&mut self, changes: Changes) {
        let uids = changes.keys().map(|uid| &**uid).collect();
        let concerned = self.set_users.through(&uids, &self.running.listeners);
        for (uid, instances) in changes {
            self.instances.set(uid, instances);
        }
        if !concerned.is_empty() {
            self.refresh_all_of(&concerned);
        }
    }

    /// Sends the agents and peers of the configuration in force to the tunnels, if they have changed. Returns the
    /// listeners whose targets may differ for that.
    pub(super) fn follow_agents(&self, before: &Configuration) -> BTreeSet<ListenerId> {
        let now = &*self.configuration;
        if ForTunnels::is_same(before, now) {
            return BTreeSet::new();
        }
        self.agents.send_replace(Arc::new(ForTunnels::of(now)));
        self.set_users.through(&came_or_went(&before.agents, &now.agents), &self.running.listeners)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use proxy_api::{Agent, Backend, Listener, Target, Tunnels};
    use tokio::{sync::watch, time::Instant};

    use super::*;
    use crate::{
        core::backends::{
            balance::Targets,
            endpoint::{Counted, Fitness},
            instances::OfAgent,
        },
        supervisor::fixtures::{self, id, listener, listeners},
    };

    /// Creates a supervisor of two agents, `u` and `v`, and three listeners: `a` leads through `u`, `b` through `v`,
    /// and `c` through none; and the receiver of its tunnels.
    fn supervisor() -> (Supervisor, watch::Receiver<Arc<ForTunnels>>) {
        let (mut it, told) = fixtures::supervisor();
        let all = [("a", through("u")), ("b", through("v")), ("c", listener(3, "b"))];
        it.running.listeners = listeners(all);
        let changed = it.running.listeners.keys().cloned().collect();
        it.listeners.place(&it.running.listeners, &changed);
        for (id, listener) in &it.running.listeners {
            it.set_users.replace(id, None, Some(listener));
        }
        let agents = ["u", "v"].map(|uid| (uid.to_owned(), agent(uid)));
        it.configuration = Arc::new(Configuration { agents: agents.into(), ..Configuration::default() });
        (it, told)
    }

    fn agent(name: &str) -> Agent {
        Agent {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            rotation: 0,
            suspended: false,
            is_newer: false,
            max_instances: 4,
            targets: Vec::new(),
            enrolment: None,
            gateway: None,
        }
    }

    /// A listener whose backend is behind this agent.
    fn through(agent: &str) -> Arc<Listener> {
        let template = (*listener(1, "b")).clone();
        let target = Target::Tunnel { agent: agent.to_owned(), host: "db.lan".to_owned(), port: 5432 };
        let backends = vec![Backend { target, ..template.backends[0].clone() }];
        Arc::new(Listener { backends, ..template }.sealed())
    }

    fn instances(all: &[(&str, &[&str])]) -> Changes {
        all.iter().map(|(uid, names)| (Arc::from(*uid), of_agent(names, false))).collect()
    }

    fn of_agent(names: &[&str], detached: bool) -> OfAgent {
        OfAgent { names: names.iter().map(|name| Arc::from(*name)).collect(), detached }
    }

    fn targets(supervisor: &Supervisor, name: &str) -> Arc<Targets> {
        supervisor.listeners.live()[&id(name)].targets.load_full()
    }

    fn endpoints(supervisor: &Supervisor, name: &str) -> Vec<String> {
        let targets = targets(supervisor, name);
        targets.entries.iter().flat_map(|it| &it.endpoints).map(|it| it.address.to_string()).collect()
    }

    #[tokio::test]
    async fn the_endpoints_behind_an_agent_are_its_instances_and_no_other_listener_is_refreshed() {
        let (mut it, _told) = supervisor();
        it.connected(instances(&[("u", &["nas", "pi4"]), ("stranger", &["one"])]));
        assert_eq!(endpoints(&it, "a"), ["agent/shop/u/nas/db.lan:5432", "agent/shop/u/pi4/db.lan:5432"]);
        let before = ["a", "b", "c"].map(|name| targets(&it, name));
        // A refreshed listener would now have its first entry.
        assert!(before[1].entries.is_empty() && before[2].entries.is_empty());
        it.connected(instances(&[("u", &["pi4"])]));
        assert_eq!(endpoints(&it, "a"), ["agent/shop/u/pi4/db.lan:5432"]);
        it.connected(instances(&[("u", &["pi4"]), ("v", &["pi4"])]));
        assert_eq!(endpoints(&it, "b"), ["agent/shop/v/pi4/db.lan:5432"]);
        assert!(Arc::ptr_eq(&before[2], &targets(&it, "c")));
        it.connected(instances(&[("u", &[]), ("v", &[])]));
        assert!(endpoints(&it, "a").is_empty() && endpoints(&it, "b").is_empty());
    }

    #[tokio::test]
    async fn an_endpoint_stays_while_its_agent_has_no_connection_and_is_away_for_new_sessions() {
        let (mut it, _told) = supervisor();
        it.connected(instances(&[("u", &["pi4"]), ("v", &["pi4"])]));
        let endpoint = |it: &Supervisor, name| targets(it, name).entries[0].endpoints[0].clone();
        let [first, other] = ["a", "b"].map(|name| endpoint(&it, name));
        for (detached, expected) in [(true, Fitness::Away), (false, Fitness::Healthy)] {
            it.connected(Changes::from([(Arc::from("u"), of_agent(&["pi4"], detached))]));
            assert!(Arc::ptr_eq(&first, &endpoint(&it, "a")));
            assert_eq!((first.fitness_for_new(0), other.fitness_for_new(0)), (expected, Fitness::Healthy));
            assert!(first.is_healthy(0), "its sessions wait");
        }
    }

    #[tokio::test]
    async fn a_session_that_waits_for_an_instance_wakes_when_it_comes() {
        let (mut it, _told) = supervisor();
        let shared = it.listeners.live()[&id("a")].clone();
        let mut waits = pin!(shared.waiters.wait(&shared.targets, &shared.spec, Instant::now()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        it.connected(instances(&[("v", &["pi4"])]));
        assert!(waits.as_mut().poll(&mut cx).is_pending(), "another agent");
        it.connected(instances(&[("u", &["pi4"])]));
        assert_eq!(waits.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    }

    #[tokio::test]
    async fn an_instance_that_returns_has_the_sessions_that_it_had() {
        let (mut it, _told) = supervisor();
        it.connected(instances(&[("u", &["nas", "pi4"])]));
        let first = targets(&it, "a").entries[0].endpoints[1].clone();
        let _session = Counted::new(first.clone());
        it.connected(instances(&[("u", &["nas"])]));
        it.connected(instances(&[("u", &["nas", "pi4"])]));
        assert!(Arc::ptr_eq(&first, &targets(&it, "a").entries[0].endpoints[1]));
    }

    #[tokio::test]
    async fn an_agent_that_the_configuration_lacks_leads_nowhere_and_the_tunnels_hear_of_the_others() {
        let (mut it, mut told) = supervisor();
        it.connected(instances(&[("u", &["pi4"]), ("v", &["pi4"])]));
        let before = std::mem::take(&mut it.configuration);
        let agents = BTreeMap::from([("v".to_owned(), Agent { suspended: true, ..agent("v") })]);
        it.configuration = Arc::new(Configuration { agents, ..Configuration::default() });
        let concerned = it.follow_agents(&before);
        assert_eq!(concerned, BTreeSet::from([id("a")]));
        assert_eq!(**told.borrow_and_update(), ForTunnels::of(&it.configuration));
        it.refresh_all_of(&concerned);
        assert!(endpoints(&it, "a").is_empty());
        assert!(it.follow_agents(&it.configuration).is_empty());
        assert!(!told.has_changed().expect("open"), "the same agents again");
    }

    #[tokio::test]
    async fn the_tunnels_hear_of_other_peers_for_which_no_listener_is_refreshed() {
        let (mut it, mut told) = supervisor();
        let before = it.configuration.clone();
        let peers = BTreeMap::from([("0f3a".to_owned(), std::net::IpAddr::from([10, 0, 0, 1]))]);
        it.configuration =
            Arc::new(Configuration { tunnels: Tunnels { peers, ..Tunnels::default() }, ..(*before).clone() });
        assert!(it.follow_agents(&before).is_empty());
        assert_eq!(told.borrow_and_update().peers, it.configuration.tunnels.peers);
    }
}

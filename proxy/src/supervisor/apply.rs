//! Applies configurations: carries out the plans of [`crate::core::changes::diff`] for what
//! [`crate::core::changes::touched`] names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{Configuration, ListenerId, Named, SocketKey, Surroundings};

use super::{Supervisor, listeners::ById, notices, reporter::Seen, sockets::Bound, targets::Sources};
use crate::{
    commands::Command,
    core::changes::{
        diff::{self, Running},
        failures::{self, Failures},
        in_place::{self, Part, Step},
        touched::{self, Touched},
    },
    worker::Ending,
};

impl Supervisor {
    /// Runs the configuration in force, as far as possible. `before` was in force until now; `None`: only the sockets
    /// that can be opened have changed. `step` is the step from an earlier configuration.
    pub(super) async fn apply(&mut self, before: Option<Arc<Configuration>>, step: Option<Step>) {
        // A step from another configuration says nothing about this one.
        let named = step.filter(|step| before.as_ref().is_some_and(|before| Arc::ptr_eq(&step.from, before)));
        let named = named.map(|step| step.named);
        let tunnels = before.as_deref().filter(|_| named.as_ref().is_none_or(|named| named.tunnels));
        if let Some(before) = before.as_deref()
            && let Some(part) = self.part(before, named.as_ref())
        {
            return self.apply_in_place(tunnels, &part).await;
        }
        let mut desired = diff::desired(&self.configuration);
        if self.drains_only {
            diff::leave_durable(&mut desired);
        }
        self.open_logs(&mut desired).await;
        let mut plan = diff::diff(&self.running, &desired);
        if self.drains_only {
            plan.bind.clear();
        }
        let bound = self.sockets.bind(&plan, &self.process);
        self.metrics.control.refused_sockets.store(self.sockets.refused(), Relaxed);
        let error = |key: &SocketKey| bound.errors.get(key).map(|error| (error.reason, error.to_string()));
        let failures = failures::of(&bound.settled, error, &self.configuration, &self.no_logs);
        let ran = std::mem::replace(&mut self.running, bound.settled.next.clone());
        let sets = &self.configuration.endpoints;
        let sets_before = before.as_ref().map_or(sets, |before| &before.endpoints);
        let touched = Touched::between((&ran, sets_before), (&self.running, sets));
        self.use_sets(&ran, &touched);
        let offered = before.as_ref().map(|before| touched::offers(before, &self.configuration)).unwrap_or_default();
        self.carry_out(tunnels, bound, Some(failures), touched, offered).await;
    }

    /// The changed part of the proxy, if the change is in place and concerns no failed listener.
    fn part(&self, before: &Configuration, named: Option<&Named>) -> Option<Part> {
        if self.drains_only {
            return None;
        }
        let part = in_place::part(&self.running, before, &self.configuration, named)?;
        (!part.concerns(|id| self.reporter.has_failed(id))).then_some(part)
    }

    /// Runs the configuration in force, which differs from the previous one only in this part, and in the part for
    /// tunnels if that is compared with `tunnels`.
    async fn apply_in_place(&mut self, tunnels: Option<&Configuration>, part: &Part) {
        let settled = diff::diff(&part.running, &part.desired).settle(&BTreeSet::new());
        self.running.listeners.extend(settled.next.listeners.clone());
        let touched = part.touched(&settled, &self.set_users, &self.running);
        self.use_sets(&part.running, &touched);
        let bound = Bound { settled, opened: BTreeMap::new(), errors: BTreeMap::new() };
        self.carry_out(tunnels, bound, None, touched, part.desired.keys().cloned().collect()).await;
    }

    /// Replaces the endpoint sets and agents that changed listeners used in `ran` by those that they use now.
    fn use_sets(&mut self, ran: &Running, touched: &Touched) {
        for id in &touched.changed {
            let [before, after] = [ran, &self.running].map(|state| state.listeners.get(id).map(|listener| &**listener));
            self.set_users.replace(id, before, after);
        }
    }

    /// Carries out the effects of a change. The running state is already the next one. The part for tunnels is compared
    /// with that of `tunnels`; `None`: it is the same. `failures` are those of all listeners; `None`: they are
    /// unchanged. The listeners in `offered` are offered differently than before.
    async fn carry_out(
        &mut self,
        tunnels: Option<&Configuration>,
        bound: Bound,
        failures: Option<Failures>,
        mut touched: Touched,
        offered: BTreeSet<ListenerId>,
    ) {
        let Bound { settled, opened, .. } = bound;
        if let Some(before) = tunnels {
            touched.targets.extend(self.follow_agents(before));
        }
        if touched.surroundings {
            self.surroundings = Arc::new(Surroundings::of(&self.configuration.endpoints));
        }
        let were = self.listeners.place(&self.running.listeners, &touched.changed);
        self.follow(&touched);
        let route = |key: &SocketKey| Some((*key, self.running.sockets.get(key)?.clone()));
        let routes: BTreeMap<SocketKey, BTreeSet<ListenerId>> = touched.sockets.iter().filter_map(route).collect();
        self.sockets.switch(&routes, self.listeners.live(), opened, &self.workers, &self.process.files).await;
        self.sockets.close(&settled.close, &self.workers).await;
        self.run_durable().await;
        self.end(self.listeners.endings(&settled.concerned, &were)).await;
        let retired_before = self.listeners.retired().len();
        self.listeners.retire(&were);
        notices::write(&self.process.log, self.reporter.applied(&settled, failures, &were));
        self.reporter.touch(offered);
        // A removed listener may still be offered without running: its entry must not show its past.
        for id in were.keys().filter(|id| !self.running.listeners.contains_key(*id)) {
            self.health.forget(id);
            self.losses.forget(id);
            self.reached.forget(id);
            self.deliveries.forget(id);
        }
        self.publish();
        if !touched.is_empty() || self.listeners.retired().len() != retired_before {
            self.expose(&touched.changed);
        }
        if !touched.sockets.is_empty() || !settled.close.is_empty() {
            self.metrics.expose_unrouted(self.sockets.unrouted());
        }
    }

    /// Follows the names of changed listeners, and recomputes the targets that may have changed.
    fn follow(&mut self, touched: &Touched) {
        for (id, listener) in touched.changed.iter().filter_map(|id| Some((id, self.running.listeners.get(id)?))) {
            self.names.add(id, listener);
        }
        for id in &touched.changed {
            let listener = self.running.listeners.get(id);
            self.names.set(id, listener.map(|listener| &**listener));
            if listener.is_none() {
                self.checks.forget(id, self.listeners.live());
            }
        }
        self.refresh_all_of(&touched.targets);
    }

    /// Recomputes the targets of the listeners that use one of these names.
    pub(super) fn refresh_users(&mut self, hosts: &BTreeSet<String>) {
        let users: BTreeSet<ListenerId> = hosts.iter().flat_map(|host| self.names.users(host)).cloned().collect();
        self.refresh_all_of(&users);
    }

    /// Recomputes the targets of the serving listeners among these.
    pub(super) fn refresh_all_of(&mut self, ids: &BTreeSet<ListenerId>) {
        let live = self.listeners.live();
        let serving: ById = ids.iter().filter_map(|id| Some((id.clone(), live.get(id)?.clone()))).collect();
        self.refresh(&serving);
    }

    /// Recomputes the targets of these listeners.
    pub(super) fn refresh(&mut self, listeners: &ById) {
        let refusals = self.sources().refresh(listeners);
        self.checks.refresh(&self.process, listeners);
        notices::write(&self.process.log, self.reporter.refused(refusals));
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            endpoints: &self.configuration.endpoints,
            sockets: &self.running.sockets,
            names: &self.names,
            agents: &self.configuration.agents,
            instances: &self.instances,
            surroundings: &self.surroundings,
            own: &self.own,
            now: self.process.clock.seconds(),
        }
    }

    async fn end(&self, endings: Vec<Ending>) {
        if endings.is_empty() {
            return;
        }
        let endings: Arc<[Ending]> = endings.into();
        for worker in &self.workers.handles {
            worker.send(Command::End(endings.clone())).await;
        }
    }

    /// Publishes the report.
    pub(super) fn publish(&mut self) {
        let seen = Seen { health: &self.health, reached: &self.reached, deliveries: &self.deliveries };
        self.reporter.publish(&self.configuration, self.listeners.retired(), &seen);
        self.metrics.control.failed_listeners.store(self.reporter.failed() as u64, Relaxed);
    }

    /// Exposes the series of changed listeners, and those of removed ones that still have sessions.
    pub(super) fn expose(&self, changed: &BTreeSet<ListenerId>) {
        let live = self.listeners.live();
        self.metrics.expose(changed.iter().map(|id| (id, live.get(id))), self.listeners.retired());
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use proxy_api::{EndpointSet, Failure, FailureReason, ListenerState, Offer, Tunnels};

    use super::*;
    use crate::{
        core::changes::diff::Settled,
        supervisor::fixtures::{id, listener, listeners, supervisor},
    };

    /// Two listeners with an endpoint set each, whose endpoints are on these ports.
    fn configuration(ports: [u16; 2]) -> Arc<Configuration> {
        let all = listeners([("a", listener(1, "ns/a")), ("b", listener(2, "ns/b"))]);
        let set = |port: u16| -> EndpointSet { [SocketAddr::from((Ipv4Addr::LOCALHOST, port))].into_iter().collect() };
        let [a, b] = ports.map(set);
        Arc::new(Configuration {
            listeners: all.into_iter().map(|(id, spec)| (id, Offer::Supported(spec))).collect(),
            endpoints: [("ns/a".to_owned(), a), ("ns/b".to_owned(), b)].into(),
            ..Configuration::default()
        })
    }

    /// A supervisor that runs this configuration. Its listeners have no endpoints before they are refreshed.
    fn running(configuration: Arc<Configuration>) -> Supervisor {
        let (mut it, _told) = supervisor();
        it.running = diff::diff(&Running::default(), &diff::desired(&configuration)).settle(&BTreeSet::new()).next;
        let touched = Touched { changed: it.running.listeners.keys().cloned().collect(), ..Touched::default() };
        it.listeners.place(&it.running.listeners, &touched.changed);
        it.use_sets(&Running::default(), &touched);
        it.configuration = configuration;
        it
    }

    /// Applies a configuration that is said to be derived from `from` by an update that named this set.
    async fn apply(it: &mut Supervisor, next: Arc<Configuration>, from: &Arc<Configuration>, set: &str) {
        let before = std::mem::replace(&mut it.configuration, next);
        let named = Named { endpoints: BTreeSet::from([set.to_owned()]), ..Named::default() };
        it.apply(Some(before), Some(Step { from: from.clone(), named })).await;
    }

    /// The ports of the endpoints of both listeners.
    fn ports(it: &Supervisor) -> [Vec<u16>; 2] {
        ["a", "b"].map(|name| {
            let targets = it.listeners.live()[&id(name)].targets.load_full();
            let addresses = targets.entries.iter().flat_map(|entry| &entry.endpoints);
            addresses.filter_map(|endpoint| Some(endpoint.address.socket()?.port())).collect()
        })
    }

    #[tokio::test]
    async fn an_update_refreshes_the_users_of_what_it_names_and_another_step_is_not_believed() {
        let first = configuration([10, 10]);
        let mut it = running(first.clone());
        // No update changes the other set without naming it, so the difference shows that it is not compared.
        let second = configuration([11, 11]);
        apply(&mut it, second.clone(), &first, "ns/a").await;
        assert_eq!(ports(&it), [vec![11], vec![]]);
        apply(&mut it, configuration([12, 12]), &first, "ns/a").await;
        assert_eq!(ports(&it), [vec![12], vec![12]], "another one than the first is in force, so that all is compared");
    }

    #[tokio::test]
    async fn what_tunnels_get_is_compared_only_after_an_update_that_names_it() {
        let first = configuration([10, 10]);
        let mut it = running(first.clone());
        let mut told = it.agents.subscribe();
        let with_peer = |last: u8| {
            let peers = [("0f3a".to_owned(), IpAddr::from([10, 0, 0, last]))].into();
            let tunnels = Tunnels { peers, ..Tunnels::default() };
            Arc::new(Configuration { tunnels, ..(*configuration([10, 10])).clone() })
        };
        // No update changes peers without naming them, so the difference shows that they are not compared.
        apply(&mut it, with_peer(1), &first, "ns/a").await;
        assert!(!told.has_changed().expect("open"));
        apply(&mut it, with_peer(2), &first, "ns/a").await;
        assert_eq!(told.borrow_and_update().peers, it.configuration.tunnels.peers, "a step from another one");
        let from = it.configuration.clone();
        let before = std::mem::replace(&mut it.configuration, with_peer(3));
        let named = Named { tunnels: true, ..Named::default() };
        it.apply(Some(before), Some(Step { from, named })).await;
        assert!(told.has_changed().expect("open"));
        assert_eq!(told.borrow_and_update().peers, it.configuration.tunnels.peers);
    }

    #[tokio::test]
    async fn a_listener_that_has_failed_does_not_make_all_others_be_planned_and_stays_failed_until_it_is() {
        let first = configuration([10, 10]);
        let mut it = running(first.clone());
        let failure = Failure { reason: FailureReason::SocketHeld, message: "as before".to_owned(), serving: None };
        let failures = Failures::from([(id("b"), failure.clone())]);
        it.reporter.applied(&Settled::default(), Some(failures), &ById::new());
        // No update changes the other set without naming it, so the difference shows that it is not compared.
        let second = configuration([11, 11]);
        apply(&mut it, second.clone(), &first, "ns/a").await;
        assert_eq!(ports(&it), [vec![11], vec![]]);
        let entry = it.reporter.current().listeners[&id("b")].clone();
        assert_eq!((entry.state, entry.failure), (ListenerState::Failed, Some(failure)));
        let mut third = (*second).clone();
        third.listeners.insert(id("b"), Offer::Supported(listener(2, "ns/a")));
        let before = std::mem::replace(&mut it.configuration, Arc::new(third));
        let named = Named { listeners: BTreeSet::from([id("b")]), ..Named::default() };
        it.apply(Some(before), Some(Step { from: second, named })).await;
        assert_eq!((it.reporter.failed(), ports(&it)), (0, [vec![11], vec![11]]), "it is planned with all");
    }
}

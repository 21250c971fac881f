//! Applies configurations: carries out the plans of [`crate::core::diff`] for what [`crate::core::touched`] names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{Configuration, ListenerId, SocketKey, Surroundings};

use super::{Supervisor, failures, listeners::ById, notices, reporter::Seen, sockets::Bound, targets::Sources};
use crate::{
    core::{
        diff,
        in_place::{self, Part},
        touched::{self, Touched},
    },
    threads::Command,
    worker::Ending,
};

impl Supervisor {
    /// Runs the configuration in force, as far as that is possible. `before` was in force until now; `None`: nothing
    /// has changed but what sockets can be opened.
    pub(super) async fn apply(&mut self, before: Option<Arc<Configuration>>) {
        if let Some(before) = before.as_deref()
            && let Some(part) = self.part(before)
        {
            return self.apply_in_place(before, &part).await;
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
        let bound = self.sockets.bind(&plan);
        let ran = std::mem::replace(&mut self.running, bound.settled.next.clone());
        let sets = &self.configuration.endpoints;
        let sets_before = before.as_ref().map_or(sets, |before| &before.endpoints);
        let touched = Touched::between((&ran, sets_before), (&self.running, sets));
        let offered = before.as_ref().map(|before| touched::offers(before, &self.configuration)).unwrap_or_default();
        self.carry_out(before.as_deref(), bound, touched, offered).await;
    }

    /// The part of the proxy that changes, if all that runs is as `before` has it, and the change is one in place.
    fn part(&self, before: &Configuration) -> Option<Part> {
        let runs_all = self.reporter.failed() == 0 && self.no_logs.is_empty() && !self.sockets.is_lacking();
        if self.drains_only || !runs_all {
            return None;
        }
        in_place::part(&self.running, before, &self.configuration)
    }

    /// Runs the configuration in force, which differs from the one before in these listeners only.
    async fn apply_in_place(&mut self, before: &Configuration, part: &Part) {
        let settled = diff::diff(&part.running, &part.desired).settle(&BTreeSet::new());
        let sets = &self.configuration.endpoints;
        let touched = Touched::between((&part.running, sets), (&settled.next, sets));
        self.running.listeners.extend(settled.next.listeners.clone());
        let bound = Bound { settled, opened: BTreeMap::new(), errors: BTreeMap::new() };
        self.carry_out(Some(before), bound, touched, part.desired.keys().cloned().collect()).await;
    }

    /// Carries out what a change touches. The running state is the next one already. The listeners in `offered` are offered
    /// differently than before.
    async fn carry_out(
        &mut self,
        before: Option<&Configuration>,
        bound: Bound,
        mut touched: Touched,
        offered: BTreeSet<ListenerId>,
    ) {
        let Bound { settled, opened, errors } = bound;
        if let Some(before) = before {
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
        let failures = failures::of(&settled, &errors, &self.configuration, &self.no_logs);
        notices::write(&self.process.log, self.reporter.applied(&settled, failures, &were));
        self.reporter.touch(offered);
        // A listener that is gone may still be offered, and cannot be run: its entry must not tell of its past.
        for id in were.keys().filter(|id| !self.running.listeners.contains_key(*id)) {
            self.health.forget(id);
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

    /// Follows the names of listeners that have changed, and recomputes the targets that may have.
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

    /// Recomputes the targets of those of these listeners that serve.
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

    /// Exposes the series of listeners that have changed, and those of removed ones that still have sessions.
    pub(super) fn expose(&self, changed: &BTreeSet<ListenerId>) {
        let live = self.listeners.live();
        self.metrics.expose(changed.iter().map(|id| (id, live.get(id))), self.listeners.retired());
    }
}

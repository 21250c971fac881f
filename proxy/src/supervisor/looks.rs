//! Checks, once a second, for changes that no event reports. All listeners and sockets are checked in steps, between
//! which the event loop runs: a change that arrives meanwhile waits for one step, not for thousands of listeners.

use std::{collections::BTreeSet, mem, sync::atomic::Ordering::Relaxed};

use proxy_api::{ListenerId, SocketKey, Transport};

use super::{Supervisor, health, losses, memory_limit, no_ports, notices, reached, waits};
use crate::{
    core::{limits::reached::Cause, workers::walk::Walk},
    memory, net,
};

/// Most listeners, and most sockets, of one step.
const STEP: usize = 256;

/// A round of checks of all listeners, and then of all sockets.
#[derive(Debug, Default)]
pub(super) struct Looks {
    walk: Walk<ListenerId>,
    sockets: Walk<SocketKey>,
    /// Whether the listeners of the round are done, and the sockets are not.
    are_at_sockets: bool,
    /// Whether entries of the report may have changed since the round began.
    have_news: bool,
}

impl Looks {
    /// Whether some listeners or sockets of the round are not checked yet.
    pub(super) fn are_under_way(&self) -> bool {
        self.walk.is_under_way() || self.are_at_sockets
    }
}

impl Supervisor {
    /// Checks for connections that wait for files or memory, a changed memory limit, a shortage of memory, changes of
    /// delivery, datagrams that reach no socket, and addresses that this host gained or lost. Begins a round over all
    /// listeners and sockets.
    pub(super) async fn look(&mut self) {
        let (files, sessions) = (&self.process.files, &self.process.sessions);
        let now = self.process.clock.seconds();
        let lacks_files = self.waits_for_files.is_due(files.paused.load(Relaxed), now);
        if self.process.is_short_of_memory() {
            self.waits_for_sessions.pass_over(sessions.paused.load(Relaxed));
        }
        let lacks_memory = self.waits_for_sessions.is_due(sessions.paused.load(Relaxed), now);
        let waits = lacks_files.then(|| waits::no_files(files.usage()));
        let more = lacks_memory.then(|| waits::no_sessions(sessions.usage()));
        notices::write(&self.process.log, waits.into_iter().chain(more));
        self.look_at_memory(now).await;
        self.reporter.rest();
        self.count_no_ports(now);
        let delivered = self.deliveries.observe(&self.listeners.deliveries());
        self.looks.have_news |= !delivered.is_empty();
        self.reporter.touch(delivered);
        self.look_on().await;
        if self.own.get_mut().renew(net::is_own_address) {
            let all = self.listeners.live().clone();
            self.refresh(&all);
        }
    }

    /// Checks for a changed memory limit and for a shortage of memory, at `now` (seconds of the process clock), and has
    /// sessions reset against a shortage.
    async fn look_at_memory(&mut self, now: u64) {
        if self.memory_looks.take_due(now) {
            if let Some(resized) = memory_limit::follow(&self.process) {
                notices::write(&self.process.log, [resized]);
                self.listeners.resize(self.process.most_sessions());
            }
            self.shortages.follow(memory::group());
        }
        // Before the memory is read: what workers had reset before they answered is then no longer in use.
        self.relief.take_answers();
        notices::write(&self.process.log, self.shortages.look(&self.process, now));
        let reset = self.relief.look(self.shortages.memory(), &self.workers.handles, now).await;
        notices::write(&self.process.log, reset);
    }

    /// Checks the next listeners of the round, or the next sockets: whether they are hot, or have connections that
    /// belong to no listener.
    pub(super) async fn look_on(&mut self) {
        let now = self.process.clock.seconds();
        self.looks.are_at_sockets = self.looks.are_at_sockets || self.look_at_listeners(now);
        if !self.looks.are_at_sockets {
            return;
        }
        let walk = &mut self.looks.sockets;
        let notices = self.sockets.look(walk, STEP, now, &self.workers, &self.process.files).await;
        self.looks.are_at_sockets = walk.is_under_way();
        notices::write(&self.process.log, notices);
    }

    /// Checks the next listeners at `now` (seconds of the process clock) for changes of backend health, reached limits,
    /// loops and lost datagrams. Returns whether they were the last ones of the round. Then the report is published.
    fn look_at_listeners(&mut self, now: u64) -> bool {
        let (mut notices, mut changed) = (Vec::new(), Vec::new());
        for (id, shared) in self.looks.walk.step(self.listeners.live(), STEP) {
            let health = self.health.observe(id, shared.targets.load().health(now), now);
            let health = health.map(|change| health::about((id.clone(), change)));
            let refused = [
                (Cause::Tenant, shared.counters.refused_by_share()),
                (Cause::Source, shared.counters.refused_by_source()),
                (Cause::Loop, shared.counters.looped()),
            ];
            let waits = self.reached.observe_lookups(id, self.names.since_long_wait(id));
            let waits = waits.map(|change| reached::about_lookups((id.clone(), change)));
            let reached = refused.into_iter().filter_map(|(cause, count)| {
                let change = self.reached.observe(cause, id, count, now)?;
                Some(reached::about(cause, (id.clone(), change)))
            });
            for (id, notice) in health.into_iter().chain(reached).chain(waits) {
                changed.push(id);
                notices.push(notice);
            }
            let lost = self.losses.observe(id, shared.counters.lost(), now);
            notices.extend(lost.map(|lost| losses::about((id.clone(), lost))));
        }
        notices::write(&self.process.log, notices);
        self.looks.have_news |= !changed.is_empty();
        self.reporter.touch(changed);
        if self.looks.walk.is_under_way() {
            return false;
        }
        let live = self.listeners.live();
        let retired: BTreeSet<&ListenerId> = self.listeners.retired().iter().map(|shared| &shared.id).collect();
        self.reached.keep(|id| live.contains_key(id) || retired.contains(id));
        if mem::take(&mut self.looks.have_news) {
            self.publish();
        }
        true
    }

    /// Counts the datagrams that reach no socket, at `now` (seconds). Only proxies with UDP listeners pay for it.
    fn count_no_ports(&mut self, now: u64) {
        // The keys are ordered, with UDP after TCP.
        let has_udp = self.running.sockets.keys().next_back().is_some_and(|key| key.transport == Transport::Udp);
        let count = has_udp.then(no_ports::read).flatten();
        let found = self.no_ports.observe(count, self.process.flows.usage().0 > 0, now);
        self.metrics.control.no_ports.fetch_add(found.new, Relaxed);
        notices::write(&self.process.log, found.to_log.map(no_ports::about));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proxy_api::{Configuration, Offer, ReachedLimit, Report};

    use super::*;
    use crate::{
        core::sessions::{dropped::Dropped, end::EndReason},
        supervisor::fixtures::{id, listener, supervisor},
    };

    const COUNT: usize = 1000;

    fn name(at: usize) -> ListenerId {
        id(&format!("l{at:04}"))
    }

    /// A supervisor with a thousand listeners, each of which has refused a session because of its namespace's share.
    fn with_refusals() -> Supervisor {
        let (mut it, _told) = supervisor();
        let spec = listener(1, "b");
        it.running.listeners = (0..COUNT).map(|at| (name(at), spec.clone())).collect();
        let changed = it.running.listeners.keys().cloned().collect();
        it.listeners.place(&it.running.listeners, &changed);
        let offers: BTreeMap<_, _> = changed.into_iter().map(|id| (id, Offer::Supported(spec.clone()))).collect();
        it.configuration = Arc::new(Configuration { listeners: offers, ..Configuration::default() });
        for shared in it.listeners.live().values() {
            shared.counters.closed[EndReason::TenantLimit.index()].fetch_add(1, Relaxed);
        }
        it
    }

    /// Number of listeners that are known to have reached a limit.
    fn reached(it: &Supervisor) -> usize {
        it.listeners.live().keys().filter(|id| it.reached.of(id).is_some()).count()
    }

    fn reported(report: &Report) -> usize {
        report.listeners.values().filter(|entry| entry.reached == Some(ReachedLimit::Tenant)).count()
    }

    #[tokio::test]
    async fn a_step_looks_at_few_listeners_and_a_round_at_all_of_them() {
        let mut it = with_refusals();
        it.look().await;
        assert_eq!((reached(&it), reported(&it.reporter.current())), (STEP, 0));
        let mut steps = 1;
        while it.looks.are_under_way() {
            it.look_on().await;
            steps += 1;
        }
        assert_eq!((steps, reached(&it)), (COUNT.div_ceil(STEP), COUNT));
        assert_eq!(reported(&it.reporter.current()), COUNT, "once the round is over");
    }

    #[tokio::test]
    async fn a_source_that_has_its_share_and_a_loop_are_in_the_report_of_their_listeners() {
        let mut it = with_refusals();
        let counted = |it: &Supervisor, at: usize, reason: EndReason| {
            let counters = &it.listeners.live()[&name(at)].counters;
            counters.closed[EndReason::TenantLimit.index()].store(0, Relaxed);
            counters.closed[reason.index()].fetch_add(1, Relaxed);
        };
        counted(&it, 0, EndReason::SourceShare);
        counted(&it, 1, EndReason::Loop);
        it.listeners.live()[&name(2)].counters.dropped[Dropped::Loop.index()].fetch_add(1, Relaxed);
        it.look().await;
        while it.looks.are_under_way() {
            it.look_on().await;
        }
        let report = it.reporter.current();
        let told = |at: usize| (report.listeners[&name(at)].reached, report.listeners[&name(at)].looped);
        let expected = [(Some(ReachedLimit::Source), false), (None, true), (Some(ReachedLimit::Tenant), true)];
        assert_eq!([0, 1, 2].map(told), expected);
        assert!(!told(3).1, "the others have none");
    }

    #[tokio::test]
    async fn a_listener_that_leaves_during_a_round_is_forgotten_and_the_others_are_looked_at() {
        let mut it = with_refusals();
        it.look_on().await;
        // One checked listener, and one that is not checked yet.
        let gone = BTreeSet::from([name(0), name(COUNT - 1)]);
        it.running.listeners.retain(|id, _| !gone.contains(id));
        let before = it.listeners.place(&it.running.listeners, &gone);
        it.listeners.retire(&before);
        while it.looks.are_under_way() {
            it.look_on().await;
        }
        assert_eq!(reached(&it), COUNT - 2);
        assert!(gone.iter().all(|id| it.reached.of(id).is_none()));
    }
}

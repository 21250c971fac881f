//! Reports the state of listeners, both to the sender of the configuration and to the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::{CONTRACT, Configuration, Failure, Listener, ListenerId, ListenerReport, ListenerState, Revision};
use tokio::sync::watch;

use super::{listeners::ById, notices::notice, targets::Refusal};
use crate::{
    core::{
        backends::health::Health,
        changes::{diff::Settled, edits::edits, failures::Failures},
        control::reports::{News, Published, Reports},
        durable::deliveries::Deliveries,
        limits::reached::Reached,
        logging::logged_refusals::{LogAction, LoggedRefusals, MOST},
    },
    log::{Level, Notice},
    shared::Shared,
};

/// The observed state of listeners while they run.
pub(super) struct Seen<'a> {
    pub(super) health: &'a Health,
    pub(super) reached: &'a Reached,
    pub(super) deliveries: &'a Deliveries,
}

/// Owns the last report and the state that the log already shows.
pub(super) struct Reporter {
    /// Shared with readers.
    report: watch::Sender<Published>,
    reports: Reports,
    failures: Failures,
    /// Listeners whose entries in the report may have changed since it was published.
    stale: BTreeSet<ListenerId>,
    /// Listeners that the report shows for their sessions only.
    draining: BTreeSet<ListenerId>,
    /// The listeners that ran at the last apply.
    previous: BTreeMap<ListenerId, Arc<Listener>>,
    /// Refused endpoints that are in the log already.
    refused: BTreeMap<ListenerId, LoggedRefusals>,
    /// True until the first apply: listeners that come up are not logged.
    quiet: bool,
}

impl Reporter {
    /// Creates a reporter that knows no listener. With `quiet`, the listeners of the first apply are not logged.
    pub(super) fn new(report: watch::Sender<Published>, quiet: bool) -> Self {
        let (stale, draining) = (BTreeSet::new(), BTreeSet::new());
        let (failures, previous, refused) = (Failures::new(), BTreeMap::new(), BTreeMap::new());
        Self { report, reports: Reports::default(), failures, stale, draining, previous, refused, quiet }
    }

    /// Takes the outcome of an apply, and the listeners that it changed or removed, as they were. `failures` are those
    /// of all listeners; `None`: they are unchanged. Returns a notice for every listener whose state has changed.
    pub(super) fn applied(&mut self, settled: &Settled, failures: Option<Failures>, before: &ById) -> Vec<Notice> {
        let next = &settled.next.listeners;
        let mut notices = Vec::new();
        for (id, after) in settled.applied.iter().filter_map(|id| Some((id, next.get(id)?))) {
            match before.get(id) {
                Some(shared) => {
                    let old = self.previous.get(id).map(|old| &**old);
                    let message = change(old, after, shared.counters.active());
                    notices.push(notice(Level::Info, "swapped", id, message));
                }
                None if self.quiet => {}
                None => {
                    let message = format!("{} -> {}", place(after), backends(after));
                    notices.push(notice(Level::Info, "bound", id, message));
                }
            }
        }
        for (id, shared) in before.iter().filter(|(id, _)| !next.contains_key(*id)) {
            let live = live_sessions(shared.counters.active());
            notices.push(notice(Level::Info, "removed", id, format!("no longer listens{live}")));
            self.previous.remove(id);
            self.refused.remove(id);
            self.stale.insert(id.clone());
        }
        if let Some(failures) = failures {
            notices.extend(super::failures::changes(&self.failures, &failures, &mut self.stale));
            self.failures = failures;
        }
        self.previous.extend(settled.applied.iter().filter_map(|id| Some((id.clone(), next.get(id)?.clone()))));
        self.quiet = false;
        notices
    }

    /// Returns a notice for each endpoint that was not refused before, up to a bound for each listener.
    pub(super) fn refused(&mut self, refusals: Vec<Refusal>) -> Vec<Notice> {
        let mut notices = Vec::new();
        for Refusal { listener, address, why } in refusals {
            let message = match self.refused.entry(listener.clone()).or_default().record(address) {
                LogAction::Nothing => continue,
                LogAction::Endpoint => format!("endpoint {address} is not used: {why}"),
                LogAction::More => {
                    format!("more than {MOST} endpoints are not used, further ones are not logged: {why}")
                }
            };
            notices.push(notice(Level::Warn, "refused", listener, message));
        }
        notices
    }

    /// Whether this listener has failed.
    pub(super) fn has_failed(&self, id: &ListenerId) -> bool {
        self.failures.contains_key(id)
    }

    /// Count of failed listeners.
    pub(super) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// The last published report.
    pub(super) fn current(&self) -> Published {
        self.report.borrow().clone()
    }

    /// Notes that the entries of these listeners may have changed.
    pub(super) fn touch(&mut self, ids: impl IntoIterator<Item = ListenerId>) {
        self.stale.extend(ids);
    }

    /// Updates the entries that may have changed, and publishes the report if any of them, or the version, has changed.
    pub(super) fn publish(&mut self, configuration: &Configuration, retired: &[Arc<Shared>], seen: &Seen<'_>) {
        let draining = retired.iter().map(|shared| shared.id.clone()).collect();
        let mut ids = std::mem::take(&mut self.stale);
        ids.extend(std::mem::replace(&mut self.draining, draining));
        ids.extend(self.draining.iter().cloned());
        let entry = |id: &ListenerId| match configuration.listeners.get(id) {
            Some(offer) => {
                let report = self.listener_report(id, offer.revision());
                let (backends, reached, delivery) = (seen.health.of(id), seen.reached.of(id), seen.deliveries.of(id));
                let looped = seen.reached.has_loop(id);
                Some(ListenerReport { backends, reached, looped, delivery, ..report })
            }
            None => retired.iter().rev().find(|shared| shared.id == *id).map(|shared| draining_report(shared)),
        };
        let entries: Vec<_> = ids.into_iter().map(|id| (entry(&id), id)).map(|(entry, id)| (id, entry)).collect();
        let (report, reports) = (&self.report, &mut self.reports);
        report.send_if_modified(|shared| {
            let differs =
                |(id, entry): &(ListenerId, Option<ListenerReport>)| shared.listeners.get(id) != entry.as_ref();
            let entries: Vec<_> = entries.into_iter().filter(differs).collect();
            if entries.is_empty() && shared.contract == CONTRACT && shared.version == configuration.version {
                return false;
            }
            reports.renew(shared, News { version: configuration.version.clone(), entries });
            true
        });
    }

    /// Called at intervals: frees memory that only frequent reports need.
    pub(super) fn rest(&mut self) {
        self.reports.rest();
    }

    fn listener_report(&self, id: &ListenerId, revision: &Revision) -> ListenerReport {
        let failure: Option<Failure> = self.failures.get(id).cloned();
        let state = if failure.is_some() { ListenerState::Failed } else { ListenerState::Bound };
        ListenerReport { state, failure, ..ListenerReport::usual(revision.clone()) }
    }
}

fn draining_report(shared: &Shared) -> ListenerReport {
    let revision = shared.spec.load().revision.clone();
    ListenerReport { state: ListenerState::Draining, ..ListenerReport::usual(revision) }
}

fn place(listener: &Listener) -> String {
    let port = listener.place();
    if listener.hostnames.is_empty() { port } else { format!("{port} for {}", listener.hostnames.join(", ")) }
}

fn backends(listener: &Listener) -> String {
    let names: Vec<&str> = listener.backends.iter().map(|backend| backend.id.as_str()).collect();
    if names.is_empty() { "(no backend)".to_owned() } else { names.join(", ") }
}

fn live_sessions(live: u64) -> String {
    match live {
        0 => String::new(),
        1 => "; 1 live session".to_owned(),
        live => format!("; {live} live sessions"),
    }
}

/// The difference between two versions of a listener, in words.
fn change(before: Option<&Listener>, after: &Listener, live: u64) -> String {
    let live = live_sessions(live);
    let Some(before) = before else { return format!("{} -> {}{live}", place(after), backends(after)) };
    let mut parts = Vec::new();
    if place(before) != place(after) {
        parts.push(format!("{} (was {})", place(after), place(before)));
    }
    if backends(before) != backends(after) {
        parts.push(format!("-> {} (was {})", backends(after), backends(before)));
    }
    let edits = edits(before, after).join(", ");
    let settings = if edits.is_empty() { String::new() } else { format!("settings changed in place: {edits}") };
    match (parts.is_empty(), settings.is_empty()) {
        (true, true) => format!("settings changed in place{live}"),
        (true, false) => format!("{settings}{live}"),
        (false, true) => format!("{}{live}", parts.join(" ")),
        (false, false) => format!("{}; {settings}{live}", parts.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proxy_api::{Delivery, Denial, FailureReason, Offer, Report};

    use super::*;
    use crate::{
        core::changes::diff::Running,
        supervisor::fixtures::{id, listener, listeners},
    };

    fn reporter(quiet: bool) -> (Reporter, watch::Receiver<Published>) {
        let (sender, receiver) = watch::channel(Published::default());
        (Reporter::new(sender, quiet), receiver)
    }

    /// The listener `a` on this port; `applied` if it has changed.
    fn settled(port: u16, applied: bool) -> Settled {
        let next = Running { listeners: listeners([("a", listener(port, "b"))]), ..Running::default() };
        let applied = if applied { BTreeSet::from([id("a")]) } else { BTreeSet::new() };
        Settled { next, applied, ..Settled::default() }
    }

    fn live(settled: &Settled) -> ById {
        let shared = |(id, spec): (&ListenerId, &Arc<Listener>)| {
            (id.clone(), Shared::new(id.clone(), spec.clone(), Arc::default(), Arc::default()))
        };
        settled.next.listeners.iter().map(shared).collect()
    }

    fn words(notices: &[Notice]) -> Vec<(&'static str, &str)> {
        notices.iter().map(|notice| (notice.event, notice.message.as_str())).collect()
    }

    #[test]
    fn an_apply_without_a_change_logs_nothing() {
        let (mut reporter, _receiver) = reporter(false);
        let (first, again) = (settled(1, true), settled(1, false));
        reporter.applied(&first, Some(Failures::new()), &ById::new());
        assert!(reporter.applied(&again, Some(Failures::new()), &live(&first)).is_empty());
    }

    #[test]
    fn a_listener_is_logged_when_it_comes_changes_and_goes() {
        let (mut reporter, _receiver) = reporter(false);
        let (first, second) = (settled(1, true), settled(2, true));
        let came = reporter.applied(&first, Some(Failures::new()), &ById::new());
        assert_eq!(words(&came), [("bound", "127.0.0.1:1/TCP -> b")]);
        let moved = reporter.applied(&second, Some(Failures::new()), &live(&first));
        assert_eq!(words(&moved), [("swapped", "127.0.0.1:2/TCP (was 127.0.0.1:1/TCP)")]);
        let before = live(&second);
        before[&id("a")].counters.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let gone = reporter.applied(&Settled::default(), Some(Failures::new()), &before);
        assert_eq!(words(&gone), [("removed", "no longer listens; 1 live session")]);
    }

    #[test]
    fn a_change_in_place_is_named() {
        let before = listener(1, "b");
        let mut after = (*before).clone();
        after.timeouts.idle_seconds = 5;
        let told = "settings changed in place: timeouts.idleSeconds 3600 -> 5";
        assert_eq!(change(Some(&before), &after, 0), told);
        after.backends[0].weight = 3;
        after.socket.port = 2;
        let told = "127.0.0.1:2/TCP (was 127.0.0.1:1/TCP); settings changed in place: backends[b].weight 1 -> 3, \
                    timeouts.idleSeconds 3600 -> 5; 1 live session";
        assert_eq!(change(Some(&before), &after, 1), told);
    }

    #[test]
    fn a_quiet_start_logs_no_listener_that_comes_up_with_it() {
        let (mut reporter, _receiver) = reporter(true);
        assert!(reporter.applied(&settled(1, true), Some(Failures::new()), &ById::new()).is_empty());
        reporter.applied(&Settled::default(), Some(Failures::new()), &ById::new());
        assert_eq!(reporter.applied(&settled(1, true), Some(Failures::new()), &ById::new()).len(), 1);
    }

    #[test]
    fn a_failure_is_logged_once_until_it_changes() {
        let (mut reporter, _receiver) = reporter(false);
        let failures = |message: &str| {
            let (reason, message) = (FailureReason::AddressInUse, message.to_owned());
            Failures::from([(id("a"), Failure { reason, message, serving: None })])
        };
        let mut failed = |message| reporter.applied(&Settled::default(), Some(failures(message)), &ById::new()).len();
        assert_eq!([failed("one"), failed("one"), failed("two")], [1, 0, 1]);
    }

    /// Takes endpoints with these ports as refused; returns the number of notices.
    fn refused(reporter: &mut Reporter, ports: std::ops::Range<u16>) -> usize {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let refusal = |port| Refusal { listener: id("a"), address: address(port), why: Denial::Loop };
        reporter.refused(ports.map(refusal).collect()).len()
    }

    #[test]
    fn a_refused_endpoint_is_logged_once_while_its_listener_lives() {
        let (mut reporter, _receiver) = reporter(false);
        let counts = [refused(&mut reporter, 0..0), refused(&mut reporter, 1..2), refused(&mut reporter, 1..2)];
        assert_eq!(counts, [0, 1, 0]);
        reporter.applied(&Settled::default(), Some(Failures::new()), &live(&settled(1, true)));
        assert_eq!(refused(&mut reporter, 1..2), 1);
    }

    #[test]
    fn refused_endpoints_that_rotate_for_ever_fill_neither_the_log_nor_the_memory() {
        // D16
        let (mut reporter, _receiver) = reporter(false);
        let notices: usize = (0..1000).map(|round| refused(&mut reporter, round * 8..round * 8 + 8)).sum();
        assert_eq!(notices, MOST + 1);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let other = Refusal { listener: id("b"), address, why: Denial::Local };
        assert_eq!(reporter.refused(vec![other]).len(), 1, "other listeners have their own");
    }

    /// Publishes as if every listener were healthy.
    fn publish(reporter: &mut Reporter, configuration: &Configuration, retired: &[Arc<Shared>]) {
        let (health, reached, deliveries) = (Health::default(), Reached::default(), Deliveries::default());
        let seen = Seen { health: &health, reached: &reached, deliveries: &deliveries };
        reporter.publish(configuration, retired, &seen);
    }

    #[test]
    fn how_a_durable_listener_delivers_is_in_its_entry() {
        let (mut reporter, receiver) = reporter(false);
        let offer = Offer::Supported(listener(1, "b"));
        let configuration = Configuration { listeners: [(id("a"), offer)].into(), ..Configuration::default() };
        let (health, reached, mut deliveries) = (Health::default(), Reached::default(), Deliveries::default());
        let mut published = |deliveries: &Deliveries| {
            reporter.touch([id("a")]);
            let seen = Seen { health: &health, reached: &reached, deliveries };
            reporter.publish(&configuration, &[], &seen);
            receiver.borrow().listeners[&id("a")].delivery
        };
        assert_eq!(published(&deliveries), None);
        deliveries.observe(&BTreeMap::from([(&id("a"), Delivery::Stalled)]));
        assert_eq!(published(&deliveries), Some(Delivery::Stalled));
    }

    #[test]
    fn an_unchanged_report_is_not_published_again() {
        let (mut reporter, receiver) = reporter(false);
        let before = reporter.current();
        publish(&mut reporter, &Configuration::default(), &[]);
        assert!(!receiver.has_changed().expect("open") && before.is(&reporter.current()), "nor copied");
        let retired: Vec<Arc<Shared>> = live(&settled(1, true)).into_values().collect();
        publish(&mut reporter, &Configuration::default(), &retired);
        assert!(receiver.has_changed().expect("open"));
        assert_eq!(reporter.current().listeners[&id("a")].state, ListenerState::Draining);
        assert!(before.listeners.is_empty(), "who holds a report keeps it as it was");
        assert!(reporter.current().is(&receiver.borrow()), "everybody has the same one");
    }

    #[test]
    fn a_listener_that_changed_has_its_entry_renewed_and_the_others_theirs_untouched() {
        let (mut reporter, receiver) = reporter(false);
        let offered = |names: &[(&str, u16)]| -> Configuration {
            let offer = |(name, port): &(&str, u16)| (id(name), Offer::Supported(listener(*port, "b")));
            Configuration { listeners: names.iter().map(offer).collect(), ..Configuration::default() }
        };
        let mut published = |configuration: &Configuration, touched: &[&str]| {
            reporter.touch(touched.iter().map(|name| id(name)));
            publish(&mut reporter, configuration, &[]);
            let revisions = |report: &Report| -> Vec<(ListenerId, Revision)> {
                report.listeners.iter().map(|(id, entry)| (id.clone(), entry.revision.clone())).collect()
            };
            revisions(&receiver.borrow())
        };
        let of = |name: &str, port: u16| (id(name), listener(port, "b").revision.clone());
        assert_eq!(published(&offered(&[("a", 1), ("c", 2)]), &["a", "c"]), [of("a", 1), of("c", 2)]);
        assert_eq!(
            published(&offered(&[("a", 3), ("c", 4)]), &["c"]),
            [of("a", 1), of("c", 4)],
            "only what is touched"
        );
        assert_eq!(published(&offered(&[("a", 3)]), &["a", "c"]), [of("a", 3)]);
    }
}

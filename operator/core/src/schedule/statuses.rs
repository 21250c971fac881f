//! Schedules writes of the statuses of forwards.
//!
//! A transition is written at once. Counts that follow the size of a fleet are refreshed at intervals, so that a
//! growing fleet does not flood the API server.

mod counts;
mod inputs;
mod pace;
mod unreached;
mod unready;
mod waiting;
mod without_proxies;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{BackendHealth, Delivery, PortForward, PortForwardStatus};
use proxy_api::doors::Bucket;

use self::{counts::Counts, unready::Unready, waiting::Waiting, without_proxies::reference_of};
use crate::{
    schedule::{Effect, StatusWrite, View},
    status::{
        conditions::{ConditionType, Finding},
        data_plane::{DataPlane, data_plane},
        events::{of_backends, of_deliveries, of_ready, unready_reason},
        findings::LATE_AFTER_SECONDS,
        forward::{Moment, same_but_for_counts, status},
        patch::{addresses, all_of, findings_of, has_claims},
    },
    translate::{groups::Group, verdict::Reason},
    world::{ObjectKey, subject::Subject},
};

/// Time for proxies to report before `Pending` is written. Most proxies need less, which saves a write.
const GRACE: Duration = Duration::from_millis(400);
/// Shortest time between two refreshes of one forward's counts.
const COUNTS: Duration = Duration::from_secs(30);
/// Most refreshes of counts in one tick of 250 ms.
const COUNTS_PER_TICK: usize = 12;
/// Pods that one evaluation visits, over all forwards, before it leaves the rest to the next evaluation.
const PODS_PER_EVALUATION: usize = 100_000;
/// Pause between two evaluations.
const AGAIN: Duration = Duration::from_millis(10);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Longest time until the cache shows a written status.
const SHOWN: Duration = Duration::from_secs(10);

/// A written status, the resource version of the object with that status (once known), and the time of the write.
type Unseen = (PortForwardStatus, Option<String>, Duration);

/// State of one forward's status.
#[derive(Default)]
struct Entry {
    /// When the current configuration was published, and its generation.
    published: Option<(Duration, Option<i64>)>,
    /// When the status was last written.
    wrote: Option<Duration>,
    /// The remaining rate of writes.
    bucket: Bucket,
    /// Whether the counts are due.
    is_rested: bool,
    /// Whether a write is in progress.
    writing: bool,
    /// Whether something changed during the write.
    again: bool,
    /// Status and reason of `Ready` in the last event.
    reported: Option<(String, String)>,
    /// The time since which the gateway of the forward has had no ready proxy.
    without_proxies: Option<Duration>,
    /// Health of backends in the last event, by listener.
    health: BTreeMap<String, BackendHealth>,
    /// The delivery state of durable listeners in the last event, by listener.
    delivery: BTreeMap<String, Delivery>,
    /// The written status, until the cache shows the version with that status.
    unseen: Option<Box<Unseen>>,
}

impl Entry {
    /// Records that the cache shows this version of the forward.
    fn shown(&mut self, version: Option<&str>) {
        if self.unseen.as_deref().is_some_and(|(_, unseen, _)| unseen.as_deref() == version) {
            self.unseen = None;
        }
    }

    /// Records that the cache shows this version of the forward, and perhaps did before the end of the write was known.
    /// The cache should show every write in time.
    fn shown_by(&mut self, version: Option<&str>, now: Duration) {
        self.shown(version);
        if self.unseen.as_deref().is_some_and(|(_, _, since)| now.saturating_sub(*since) > SHOWN) {
            self.unseen = None;
        }
    }
}

/// The statuses of all forwards.
#[derive(Default)]
pub struct Statuses {
    /// The entries are boxed: a map of large values leaves nearly as much memory unused as it uses.
    entries: BTreeMap<ObjectKey, Box<Entry>>,
    /// When the leader election term began; earlier writes count as made then.
    began: Duration,
    /// Forwards to evaluate as soon as possible.
    now: BTreeSet<ObjectKey>,
    due: Option<Duration>,
    /// Forwards to evaluate later.
    later: BTreeSet<(Duration, ObjectKey)>,
    /// Forwards whose counts may be outdated.
    counts: Counts,
    /// Groups with a proxy that reported since the last refresh: the counts of forwards that wait may be outdated.
    reporting: BTreeSet<Group>,
    /// Forwards that not every proxy has reported on.
    waiting: Waiting,
    unready: Unready,
}

impl Statuses {
    /// Begins a leader election term: plans of an earlier one no longer count.
    #[must_use]
    pub fn new(began: Duration) -> Self {
        Self { began, ..Self::default() }
    }

    /// Cancels the next evaluation: nothing may be written now.
    pub fn pause(&mut self) {
        self.due = None;
    }

    /// When the next evaluation is due.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Number of forwards that not every proxy has reported on.
    pub fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// Number of forwards to evaluate as soon as possible.
    pub fn queued(&self) -> usize {
        self.now.len()
    }

    /// Number of written statuses that are kept until the cache shows them.
    pub fn unseen(&self) -> usize {
        self.entries.values().filter(|entry| entry.unseen.is_some()).count()
    }

    fn soon(&mut self, at: Duration) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Records that the counts of a forward may be outdated.
    fn outdate(&mut self, key: ObjectKey) {
        let at = self.rested(&key);
        self.counts.outdate(key, at);
    }

    /// When the counts of a forward may be written again.
    fn rested(&self, key: &ObjectKey) -> Duration {
        self.entries.get(key).and_then(|entry| entry.wrote).unwrap_or(self.began) + COUNTS
    }

    /// Records that a write ended. `version` is the resource version of the object with the status, `None` if the write
    /// failed. `retried` says whether a later attempt may succeed.
    pub fn written(&mut self, subject: &Subject, version: Option<&str>, retried: bool, now: Duration) {
        if !self.now.is_empty() {
            self.soon(now);
        }
        let Subject::Forward(key) = subject else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.writing = false;
        match (version, entry.unseen.as_deref_mut()) {
            (Some(version), Some((_, unseen, _))) => *unseen = Some(version.to_owned()),
            _ => entry.unseen = None,
        }
        let again = std::mem::take(&mut entry.again);
        if retried {
            self.later.insert((now + RETRY, key.clone()));
        } else if again {
            self.now.insert(key.clone());
            self.soon(now);
        }
    }

    /// Schedules the forwards that have come due, and a few of those with outdated counts, for evaluation.
    pub fn refresh(&mut self, now: Duration) {
        while let Some((at, key)) = self.later.first().cloned()
            && at <= now
        {
            self.later.remove(&(at, key.clone()));
            self.now.insert(key);
        }
        for group in std::mem::take(&mut self.reporting) {
            let waiting: Vec<ObjectKey> = self.waiting.in_group(&group).cloned().collect();
            for key in waiting {
                self.outdate(key);
            }
        }
        let mut counts = std::mem::take(&mut self.counts);
        for key in counts.take(COUNTS_PER_TICK, now, |key| self.rested(key)) {
            self.entries.entry(key.clone()).or_default().is_rested = true;
            self.now.insert(key);
        }
        self.counts = counts;
        if !self.now.is_empty() {
            self.soon(now);
        }
    }

    /// Evaluates forwards that are due; writes no more than `room` statuses. `scaling` returns the condition
    /// `ScalingActive` of a forward with `spec.autoscaling`.
    pub fn evaluate(
        &mut self,
        view: &View<'_>,
        scaling: &dyn Fn(&ObjectKey) -> Option<Finding>,
        room: usize,
        now: Duration,
    ) -> Vec<Effect> {
        self.due = None;
        let (mut effects, mut pods, mut writes) = (Vec::new(), 0, 0);
        // A status is computed once there is room to write it; until then only the key of the forward is kept.
        while writes < room
            && let Some(key) = self.now.pop_first()
        {
            let before = effects.len();
            pods += 1 + self.one(&key, view, scaling(&key), now, &mut effects);
            writes += effects[before..].iter().filter(|effect| matches!(effect, Effect::WriteStatus(_))).count();
            if pods > PODS_PER_EVALUATION && !self.now.is_empty() {
                self.due = Some(now + AGAIN);
                break;
            }
        }
        effects
    }

    /// Evaluates one forward; returns the number of visited pods.
    fn one(
        &mut self,
        key: &ObjectKey,
        view: &View<'_>,
        scaling: Option<Finding>,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let View { cache, translator, .. } = view;
        let (Some(forward), Some(verdict)) = (cache.forward(key), translator.verdict(&key.into())) else {
            self.entries.remove(key);
            return 0;
        };
        let is_unreadable = cache.world.unreadable.contains_key(key);
        let is_current = if is_unreadable {
            verdict.accepted.reason == Reason::Unsupported
        } else {
            translator.is_about(&key.into(), &forward.metadata)
        };
        if !is_current {
            // The verdict is about an older version of the forward; the next translation brings the current one.
            return 0;
        }
        if forward.spec.placement.sidecar.is_some() && !cache.knows_pods_of(&key.namespace) {
            self.later.insert((now + Duration::from_secs(1), key.clone()));
            return 0;
        }
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.writing {
            entry.again = true;
            return 0;
        }
        // The cache never shows the status of an unreadable object, so the written status is kept.
        if !is_unreadable {
            entry.shown_by(forward.metadata.resource_version.as_deref(), now);
        }
        let mut forward = forward.into_owned();
        if let Some((written, _, _)) = entry.unseen.as_deref() {
            forward.status = Some(written.clone());
        }
        let seen = data_plane(&key.into(), verdict, view.fleets.all(), view.proxies);
        let published = self.published(key, forward.metadata.generation, &seen, &verdict.groups, now);
        let moment = Moment {
            now: view.wall_clock.to_owned(),
            outstanding_seconds: now.saturating_sub(published).as_secs(),
            addresses: addresses(verdict, cache),
            scaling,
            has_claims: has_claims(verdict, cache),
            warnings: unreached::warnings(&forward, view),
        };
        let next = status(&forward, verdict, &seen, &moment);
        self.unready.set(key, unready_reason(&next.conditions));
        self.wait_for_proxies(key, &forward, &next, (now, view.wall_clock), effects);
        if self.is_due(key, &forward, &next, published, now) && self.has_rested(key, now) {
            let is_known = cache.world.forwards.contains_key(key);
            self.write(key, &forward, next, is_known, now, effects);
        }
        seen.total as usize
    }

    /// The time since which the operator has waited for reports on a forward.
    fn published(
        &mut self,
        key: &ObjectKey,
        generation: Option<i64>,
        seen: &DataPlane,
        groups: &[Group],
        now: Duration,
    ) -> Duration {
        // The first pods of a forward may start long after its publication; their time to report begins then.
        let is_late = !seen.late.is_empty();
        let is_first_late = is_late && !self.waiting.has(key);
        let entry = self.entries.entry(key.clone()).or_default();
        let known = entry.published.filter(|(_, of)| *of == generation && !is_first_late);
        let published = known.map_or(now, |(at, _)| at);
        entry.published = Some((published, generation));
        let late = published + Duration::from_secs(LATE_AFTER_SECONDS);
        // The time starts again with each verdict, and only a status with reason `Pending` schedules its own end.
        if is_late && known.is_none() {
            self.later.insert((late, key.clone()));
        }
        // A status that names late proxies depends on each of them. Before that, one late proxy proves that the forward
        // waits.
        let named = if now < late { 1 } else { seen.late.len() };
        if is_late {
            self.waiting.set(key, &seen.late[..named], groups);
        } else {
            self.waiting.remove(key);
        }
        published
    }

    /// Whether to write a status now; a later write is scheduled.
    fn is_due(
        &mut self,
        key: &ObjectKey,
        forward: &PortForward,
        next: &PortForwardStatus,
        published: Duration,
        now: Duration,
    ) -> bool {
        let waits = is_pending(next);
        if waits {
            let late = published + Duration::from_secs(LATE_AFTER_SECONDS);
            self.later.insert((late.max(now + Duration::from_secs(1)), key.clone()));
        }
        let nothing = PortForwardStatus::default();
        let old = forward.status.as_ref().unwrap_or(&nothing);
        if old == next {
            return false;
        }
        if waits && now < published + GRACE {
            self.later.insert((published + GRACE, key.clone()));
            return false;
        }
        let Some(entry) = self.entries.get_mut(key) else { return true };
        let wrote = entry.wrote.unwrap_or(self.began);
        if same_but_for_counts(old, next) && !std::mem::take(&mut entry.is_rested) && now < wrote + COUNTS {
            self.outdate(key.clone());
            return false;
        }
        true
    }

    fn write(
        &mut self,
        key: &ObjectKey,
        forward: &PortForward,
        next: PortForwardStatus,
        is_known: bool,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let uid = forward.metadata.uid.clone().unwrap_or_default();
        let entry = self.entries.entry(key.clone()).or_default();
        entry.writing = true;
        entry.wrote = Some(now);
        let nothing = PortForwardStatus::default();
        let (object, old) = (reference_of(forward), forward.status.as_ref().unwrap_or(&nothing));
        let ready = of_ready(&object, &old.conditions, &next.conditions, &mut entry.reported);
        let backends = of_backends(&object, &old.listeners, &next.listeners, &mut entry.health);
        let deliveries = of_deliveries(&object, &forward.spec, &old.listeners, &next.listeners, &mut entry.delivery);
        effects.extend(ready.into_iter().chain(backends).chain(deliveries).map(Effect::Event));
        // The rest of the status of an object that could never be read is unknown and stays untouched.
        let status = if is_known { all_of(&next) } else { findings_of(&next) };
        entry.unseen = Some(Box::new((next, None, now)));
        effects.push(Effect::WriteStatus(StatusWrite { subject: Subject::Forward(key.clone()), uid, status }));
    }
}

fn is_pending(status: &PortForwardStatus) -> bool {
    let is_pending = |condition: &crds::Condition| {
        condition.type_ == ConditionType::Programmed.as_str() && condition.reason == "Pending"
    };
    status.conditions.iter().any(is_pending)
}

//! Which statuses are to be written, and when.
//!
//! A transition is written at once; counts that follow the size of a fleet are refreshed at leisure, so that a fleet which
//! grows does not flood the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{BackendHealth, PortForward, PortForwardStatus};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{Leading, Scalers};
use crate::outputs::{
    events::Events,
    status_writer::{StatusWriter, Write, Written},
};
use operator_core::{
    Cache, Finding, Grown, LATE_AFTER_SECONDS, Moment, ObjectKey, Reason, Subject, Translator, data_plane,
    same_but_for_counts,
    status::{
        events::{of_backends, of_cut, of_growth, of_ready},
        fleets::{Moved, Pods},
        forward::status,
        patch::{addresses, all_of, findings_of},
    },
};

/// Time that proxies have to report before "pending" is written: most of them need less, and one write tells it all.
const GRACE: Duration = Duration::from_millis(400);
/// Shortest time between two refreshments of one forward's counts.
const COUNTS: Duration = Duration::from_secs(30);
/// Refreshments of counts in one tick of a quarter of a second.
const COUNTS_PER_TICK: usize = 12;
/// Pods asked in one go, over all forwards; the rest comes a moment later.
const PODS_PER_LOOK: usize = 100_000;
/// Pause between two goes.
const AGAIN: Duration = Duration::from_millis(10);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long the cache may take to show what was written.
const SHOWN: Duration = Duration::from_secs(10);

/// A status that was written, the version of the object that has it once that is known, and when.
type Unseen = (PortForwardStatus, Option<String>, Instant);

/// State of one forward's status.
#[derive(Default)]
struct Entry {
    /// When what runs now was published, and the generation that it is of.
    published: Option<(Instant, Option<i64>)>,
    /// When it was last written.
    wrote: Option<Instant>,
    /// It is this one's turn to have its counts refreshed.
    is_rested: bool,
    /// A write is under way.
    writing: bool,
    /// It changed during the write.
    again: bool,
    /// Status and reason of `Ready` as they were told last: a write that fails is made again, and is no news.
    told: Option<(String, String)>,
    /// Health of backends as it was told last, by listener.
    health: BTreeMap<String, BackendHealth>,
    /// What was written, until the cache shows the version that has it.
    unseen: Option<Box<Unseen>>,
}

/// All of them.
pub struct Statuses {
    writer: StatusWriter,
    events: Events,
    entries: BTreeMap<ObjectKey, Entry>,
    /// When the term began: whatever was written before is taken to be of then.
    began: Instant,
    /// To be looked at as soon as may be.
    now: BTreeSet<ObjectKey>,
    due: Option<Instant>,
    /// To be looked at later.
    later: BTreeSet<(Instant, ObjectKey)>,
    /// Whose counts may be old.
    counts: BTreeSet<ObjectKey>,
    /// That not every proxy has told of.
    pending: BTreeSet<ObjectKey>,
}

impl Statuses {
    /// None yet.
    #[must_use]
    pub fn new(writer: StatusWriter, events: Events) -> Self {
        Self {
            writer,
            events,
            entries: BTreeMap::new(),
            began: Instant::now(),
            now: BTreeSet::new(),
            due: None,
            later: BTreeSet::new(),
            counts: BTreeSet::new(),
            pending: BTreeSet::new(),
        }
    }

    /// A term has ended or begun: nothing that was planned counts.
    pub(super) fn forget(&mut self) {
        self.writer.end_term();
        self.began = Instant::now();
        self.entries.clear();
        self.now.clear();
        self.later.clear();
        self.counts.clear();
        self.pending.clear();
        self.due = None;
    }

    /// Nobody may write now.
    pub(super) fn pause(&mut self) {
        self.due = None;
    }

    /// When something is to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Forwards that not every proxy has told of.
    pub(super) fn outstanding(&self) -> usize {
        self.pending.len()
    }

    fn soon(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The cache shows a forward, or that it is gone.
    pub(super) fn seen(&mut self, key: &ObjectKey, forward: Option<&PortForward>, now: Instant) {
        let Some(forward) = forward else {
            self.entries.remove(key);
            self.pending.remove(key);
            self.counts.remove(key);
            return;
        };
        if let Some(entry) = self.entries.get_mut(key)
            && let Some((_, version, _)) = entry.unseen.as_deref()
            && *version == forward.metadata.resource_version
        {
            entry.unseen = None;
        }
        self.now.insert(key.clone());
        self.soon(now + AGAIN);
    }

    /// The verdict on these is another one.
    pub(super) fn verdicts(&mut self, changed: BTreeSet<ObjectKey>, now: Instant) {
        if changed.is_empty() {
            return;
        }
        for key in changed {
            self.entries.entry(key.clone()).or_default().published = None;
            self.now.insert(key);
        }
        self.soon(now);
    }

    /// These are to be looked at.
    pub(super) fn look_at(&mut self, keys: BTreeSet<ObjectKey>, now: Instant) {
        if !keys.is_empty() {
            self.now.extend(keys);
            self.soon(now);
        }
    }

    /// The pods of groups are others. Whether there is a ready proxy at all is told at once, the rest at leisure.
    pub(super) fn fleets(&mut self, moved: &Moved, translator: &Translator, now: Instant) {
        for (group, pods) in moved {
            match pods {
                Pods::Other => self.counts.extend(translator.forwards(group)),
                Pods::AnyReady => self.now.extend(translator.forwards(group)),
            }
            self.soon(now + AGAIN);
        }
    }

    /// A proxy told something about these forwards; at the end of its report, about all that wait.
    pub(super) fn reported(&mut self, forwards: BTreeSet<ObjectKey>, whole: bool, now: Instant) {
        self.now.extend(forwards);
        if whole {
            self.now.extend(self.pending.iter().cloned());
        }
        self.soon(now + AGAIN);
    }

    /// An autoscaler asks for more replicas.
    pub(super) fn grown(&self, grown: &Grown, cache: &Cache) {
        if let Some(happened) = of_growth(grown, cache) {
            self.events.report(happened);
        }
    }

    /// A proxy ended, and sessions were cut by it.
    pub(super) fn drained(&self, pod: &ObjectKey, cut: u64, cache: &Cache) {
        self.events.report(of_cut(pod, cut, cache));
    }

    /// A write has ended.
    pub(super) fn written(&mut self, written: &Written, now: Instant) {
        if !self.now.is_empty() {
            self.soon(now);
        }
        let Subject::Forward(key) = &written.subject else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.writing = false;
        match (&written.version, entry.unseen.as_deref_mut()) {
            (Some(version), Some((_, unseen, _))) => *unseen = Some(version.clone()),
            _ => entry.unseen = None,
        }
        let again = std::mem::take(&mut entry.again);
        if written.again {
            self.later.insert((now + RETRY, key.clone()));
        } else if again {
            self.now.insert(key.clone());
            self.soon(now);
        }
    }

    /// Once in a while: what has come due, and a few counts.
    pub(super) fn refresh(&mut self, now: Instant) {
        while let Some((at, key)) = self.later.first().cloned()
            && at <= now
        {
            self.later.remove(&(at, key.clone()));
            self.now.insert(key);
        }
        let rested = |key: &&ObjectKey| {
            let wrote = self.entries.get(*key).and_then(|entry| entry.wrote);
            wrote.unwrap_or(self.began) + COUNTS <= now
        };
        let some: Vec<ObjectKey> = self.counts.iter().filter(rested).take(COUNTS_PER_TICK).cloned().collect();
        for key in some {
            self.counts.remove(&key);
            self.entries.entry(key.clone()).or_default().is_rested = true;
            self.now.insert(key);
        }
        if !self.now.is_empty() {
            self.soon(now);
        }
    }

    /// Looks at what is to be looked at.
    pub(super) fn evaluate(&mut self, leading: &Leading, cache: &Cache, scalers: &Scalers, now: Instant) {
        self.due = None;
        let mut pods = 0;
        let time = Timestamp::now();
        let time = Timestamp::from_second(time.as_second()).unwrap_or(time).to_string();
        // A status is made when there is room for it; until then, who is to be looked at is all that is remembered.
        while !self.writer.is_full()
            && let Some(key) = self.now.pop_first()
        {
            let scaling = scalers.finding(&Subject::Forward(key.clone()), cache);
            pods += 1 + self.one(&key, leading, cache, scaling, (now, &time));
            if pods > PODS_PER_LOOK && !self.now.is_empty() {
                self.due = Some(now + AGAIN);
                return;
            }
        }
    }

    /// Looks at one forward; gives how many pods were asked.
    fn one(
        &mut self,
        key: &ObjectKey,
        leading: &Leading,
        cache: &Cache,
        scaling: Option<Finding>,
        (now, time): (Instant, &str),
    ) -> usize {
        let (Some(forward), Some(verdict)) = (cache.forward(key), leading.translator.verdict(key)) else {
            self.entries.remove(key);
            return 0;
        };
        let is_unreadable = cache.world.unreadable.contains_key(key);
        let is_about_it = if is_unreadable {
            verdict.accepted.reason == Reason::Unsupported
        } else {
            leading.translator.is_about(key, &forward)
        };
        if !is_about_it {
            // The verdict is about an older one; the next look at the world brings another.
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
        // What was written of an unreadable object is not shown by the cache: it is remembered.
        if !is_unreadable && entry.unseen.as_deref().is_some_and(|(_, _, since)| now.duration_since(*since) > SHOWN) {
            entry.unseen = None;
        }
        let mut forward = forward.into_owned();
        if let Some((written, _, _)) = entry.unseen.as_deref() {
            forward.status = Some(written.clone());
        }
        let seen = data_plane(key, verdict, leading.fleets.all(), &leading.proxies);
        let generation = forward.metadata.generation;
        // The first pods of a forward come long after it was published.
        let is_first_late = !seen.late.is_empty() && !self.pending.contains(key);
        let published = entry.published.filter(|(_, of)| *of == generation && !is_first_late).map_or(now, |(at, _)| at);
        entry.published = Some((published, generation));
        if is_first_late {
            self.later.insert((published + Duration::from_secs(LATE_AFTER_SECONDS), key.clone()));
        }
        let moment = Moment {
            now: time.to_owned(),
            outstanding_seconds: now.duration_since(published).as_secs(),
            addresses: addresses(verdict, cache),
            scaling,
        };
        let next = status(&forward, verdict, &seen, &moment);
        if seen.late.is_empty() {
            self.pending.remove(key);
        } else {
            self.pending.insert(key.clone());
        }
        if self.is_due(key, &forward, &next, published, now) {
            let is_known = cache.world.forwards.contains_key(key);
            self.write(key, &forward, next, is_known, now);
        }
        seen.total as usize
    }

    /// Whether a status is to be written now; if it is to be written later, it is looked at again then.
    fn is_due(
        &mut self,
        key: &ObjectKey,
        forward: &PortForward,
        next: &PortForwardStatus,
        published: Instant,
        now: Instant,
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
            self.counts.insert(key.clone());
            return false;
        }
        true
    }

    fn write(&mut self, key: &ObjectKey, forward: &PortForward, next: PortForwardStatus, is_known: bool, now: Instant) {
        let uid = forward.metadata.uid.clone().unwrap_or_default();
        let entry = self.entries.entry(key.clone()).or_default();
        entry.writing = true;
        entry.wrote = Some(now);
        let old = forward.status.as_ref().map(|old| old.conditions.as_slice()).unwrap_or_default();
        let ready = of_ready(forward, old, &next.conditions, &mut entry.told);
        let backends = of_backends(forward, &next.listeners, &mut entry.health);
        ready.into_iter().chain(backends).for_each(|happened| self.events.report(happened));
        // Of an object that never could be read, what its status holds is not known, and left alone.
        let value = if is_known { all_of(&next) } else { findings_of(&next) };
        entry.unseen = Some(Box::new((next, None, now)));
        self.writer.write(Write { subject: Subject::Forward(key.clone()), uid, status: value });
    }
}

fn is_pending(status: &PortForwardStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == "Programmed" && condition.reason == "Pending")
}

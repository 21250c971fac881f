//! Schedules the application of the children of gateways, and writes of the statuses of gateways.

mod attempts;
mod facts;
mod observed;
mod rollout;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use crds::{ForwardGateway, ForwardGatewayStatus};
use proxy_api::Transport;

use crate::{
    desired::{
        ca::Trusted,
        gateway::{Desired, Fleets},
        revision,
    },
    hash::hash,
    schedule::{Effect, StatusWrite, View},
    status::{
        conditions::Finding,
        events::of_stopped,
        gateway::{FleetFacts, applied_generation, gateway_status},
        patch,
        rollout::Behind,
    },
    translate::groups::Group,
    world::{
        ObjectKey,
        cache::Cache,
        child::{ChildKind, Mark},
        objects::Progress,
        subject::Subject,
    },
};

use self::{
    attempts::{Attempts, Seen, Wanted},
    facts::facts,
    observed::{Deadline, Starts},
    rollout::{Fleet, Queue, Target, Turn, state_of},
};

pub use self::rollout::Counts;

/// Shortest time between two writes of one gateway's status. The pause doubles with every further write of the same
/// status, which the API server may never show: a CRD that is older than the operator drops fields.
const WRITES: Duration = Duration::from_secs(1);
/// Longest pause between two writes of the same status.
const MAX_WRITES: Duration = Duration::from_secs(300);
/// Most gateways whose children are applied at the same time. Each of them is one request at a time.
const AT_ONCE: usize = 16;

/// The marks of children as they were applied.
pub type Marks = BTreeMap<ChildKind, Mark>;

/// The result of applying the children of a gateway.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The gateway.
    pub key: ObjectKey,
    /// Number of the attempt, see [`Desired::attempt`].
    pub attempt: u64,
    /// The children as they are now, or why applying failed.
    pub result: Result<Marks, String>,
}

/// The outcome of applying children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The children are applied.
    Applied,
    /// These children were applied again, because another client had changed or deleted them.
    Repaired(Vec<ChildKind>),
    /// The children could not be applied.
    Failed {
        /// The cause.
        why: String,
        /// Whether the attempt before succeeded, or failed for another cause.
        is_new: bool,
    },
    /// The attempt had been given up, or the gateway is gone.
    Outdated,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent marks, each set and taken by itself")]
struct Entry {
    ports: BTreeSet<(Transport, u16)>,
    wanted: Wanted,
    seen: Seen,
    attempts: Attempts,
    /// Whether an attempt is due but waits, because too many others are in progress.
    waits: bool,
    /// Whether the status must be evaluated.
    touched: bool,
    /// Whether the desired children must be computed and compared with the watches.
    changed: bool,
    /// Whether the status reports that applying fails.
    fails: bool,
    wrote: Option<Duration>,
    /// The last written status.
    written: Option<ForwardGatewayStatus>,
    /// The number of times that this status was written again.
    repeats: u32,
    /// The desired revision of the fleet's pods; absent until it is computed.
    target: Option<Target>,
    /// The permitted change of the fleet.
    turn: Turn,
    /// Why the fleet has not adopted changes of the installation.
    behind: Option<Behind>,
    deadline: Deadline,
    /// The progress of the rollout, including that deadline.
    progress: Progress,
    /// How long the nodes take to start the pods.
    starts: Starts,
}

impl Entry {
    /// Whether a status may be written now. Counts the writes of the same status.
    fn is_due(&mut self, next: &ForwardGatewayStatus, now: Duration) -> bool {
        if self.written.as_ref() != Some(next) {
            self.repeats = 0;
            return true;
        }
        let pause = WRITES.saturating_mul(1_u32.checked_shl(self.repeats).unwrap_or(u32::MAX)).min(MAX_WRITES);
        let is_due = self.wrote.is_none_or(|wrote| now >= wrote + pause);
        self.repeats = self.repeats.saturating_add(is_due.into());
        is_due
    }
}

/// The children and statuses of all gateways.
#[derive(Default)]
pub struct Gateways {
    fleets: Fleets,
    entries: BTreeMap<ObjectKey, Entry>,
    /// Number of the last attempt.
    attempts: u64,
    /// The gateway of the last attempt.
    last: Option<ObjectKey>,
    /// Number of fleets by state, at the last tick.
    counts: Counts,
}

impl Gateways {
    /// Begins a leader election term with the settings that all fleets share.
    #[must_use]
    pub fn new(fleets: Fleets) -> Self {
        Self { fleets, ..Self::default() }
    }

    /// Records that a gateway changed, or an object on which its children or status depend.
    pub fn touch(&mut self, key: &ObjectKey) {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.touched = true;
        entry.changed = true;
    }

    /// Records that the ports of a gateway's listeners changed.
    pub fn listeners(&mut self, key: &ObjectKey) {
        self.entries.entry(key.clone()).or_default().changed = true;
    }

    /// Records the result of applying children.
    pub fn applied(&mut self, Applied { key, attempt, result }: Applied, now: Duration) -> Ended {
        let Some(entry) = self.entries.get_mut(&key) else { return Ended::Outdated };
        let ended = entry.attempts.end(attempt, result, now);
        if ended != Ended::Outdated {
            entry.touched = true;
            entry.changed = true;
        }
        ended
    }

    /// Number of fleets by state, at the last tick.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the effects that are due. `trusted` are the CA certificates; `is_other` says whether they changed since
    /// the last call. `scaling` returns the condition `ScalingActive` of a gateway with `spec.autoscaling`.
    pub fn tick(
        &mut self,
        view: &View<'_>,
        trusted: &Trusted,
        is_other: bool,
        scaling: &dyn Fn(&ObjectKey) -> Option<Finding>,
        now: Duration,
    ) -> Vec<Effect> {
        let gateways = view.cache.gateways();
        self.entries.retain(|key, _| gateways.contains(key));
        for entry in self.entries.values_mut() {
            entry.touched |= entry.attempts.give_up(now);
        }
        let running = self.entries.values().filter(|entry| entry.attempts.is_running()).count();
        let mut room = AT_ONCE.saturating_sub(running);
        let mut effects = Vec::new();
        let queue = self.queue(&gateways, view.cache, now);
        self.counts = Counts::default();
        for key in in_turn(&gateways, self.last.as_ref()) {
            let Some(gateway) = view.cache.gateway(key) else { continue };
            self.entries.entry(key.clone()).or_default().changed |= is_other;
            effects.extend(self.place(&queue, key, &gateway, view.cache));
            if let Some(desired) = self.children(key, &gateway, view, trusted, room > 0, now) {
                room = room.saturating_sub(1);
                effects.push(Effect::ApplyChildren(Box::new(desired)));
            }
            effects.extend(self.status(key, &gateway, view, scaling, now));
        }
        effects
    }

    /// The order in which fleets adopt changes of the installation, at this moment.
    fn queue(&mut self, gateways: &BTreeSet<ObjectKey>, cache: &Cache, now: Duration) -> Queue {
        let mut members = Vec::new();
        for key in gateways {
            let Some(gateway) = cache.gateway(key) else { continue };
            if !is_applied(key, &gateway, cache, &self.fleets) {
                continue;
            }
            let entry = self.entries.entry(key.clone()).or_default();
            if entry.changed || entry.target.is_none() {
                entry.target = Some(Target::of(&gateway, &self.fleets));
            }
            entry.progress = entry.deadline.progress(key, cache, now);
            members.push(key);
        }
        let fleets = members.into_iter().filter_map(|key| self.fleet(key, cache));
        Queue::of(self.fleets.rollout, fleets)
    }

    fn fleet<'a>(&'a self, key: &'a ObjectKey, cache: &'a Cache) -> Option<Fleet<'a>> {
        let entry = self.entries.get(key)?;
        let (target, state) = (entry.target.as_ref()?, cache.fleet(key));
        Some(Fleet { key, target, state, progress: entry.progress, fails: entry.fails })
    }

    /// Sets the place of a fleet in the queue. Returns the event of a fleet whose rollout has stopped.
    fn place(&mut self, queue: &Queue, key: &ObjectKey, gateway: &ForwardGateway, cache: &Cache) -> Option<Effect> {
        if !is_applied(key, gateway, cache, &self.fleets) {
            self.entries.get_mut(key)?.behind = None;
            return None;
        }
        let fleet = self.fleet(key, cache)?;
        let (turn, behind) = (queue.turn(&fleet), queue.behind(&fleet, &self.fleets.image));
        let state = state_of(&fleet, behind.as_ref());
        self.counts.add(state);
        let entry = self.entries.get_mut(key)?;
        entry.changed |= entry.turn != turn;
        entry.touched |= entry.behind != behind;
        let is_news = behind == Some(Behind::Stopped) && entry.behind != behind;
        (entry.turn, entry.behind) = (turn, behind);
        is_news.then(|| Effect::Event(of_stopped(gateway)))
    }

    /// The children to apply now.
    fn children(
        &mut self,
        key: &ObjectKey,
        gateway: &ForwardGateway,
        View { cache, translator, .. }: &View<'_>,
        trusted: &Trusted,
        has_room: bool,
        now: Duration,
    ) -> Option<Desired> {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.waits = false;
        if trusted.signing.is_empty() || !is_applied(key, gateway, cache, &self.fleets) {
            return None;
        }
        if std::mem::take(&mut entry.changed) || entry.wanted.hash.is_empty() {
            entry.ports = translator.ports(&Group::Gateway(key.clone()));
            let hash = hash_of(gateway, (&self.fleets, &entry.turn), trusted, &entry.ports);
            entry.wanted = Wanted { hash, generation: gateway.metadata.generation };
            entry.seen = ChildKind::ALL.map(|kind| (kind, cache.shown(kind, key))).into();
        }
        let cause = entry.attempts.due(&entry.wanted, &entry.seen, now)?;
        if !has_room {
            entry.waits = true;
            return None;
        }
        self.attempts += 1;
        self.last = Some(key.clone());
        entry.attempts.begin(self.attempts, cause, entry.wanted.clone(), entry.seen.clone(), now);
        let image = match &entry.turn {
            Turn::Current(image) | Turn::Own(image) => image.clone(),
            // A Deployment that was deleted meanwhile is created again.
            Turn::Kept => revision::image(gateway, &self.fleets.image),
        };
        Some(Desired {
            key: key.clone(),
            gateway: gateway.clone(),
            fleets: Fleets { image, ..self.fleets.clone() },
            keeps_pods: entry.turn == Turn::Kept,
            trusted: trusted.clone(),
            ports: entry.ports.clone(),
            attempt: self.attempts,
        })
    }

    fn status(
        &mut self,
        key: &ObjectKey,
        gateway: &ForwardGateway,
        view: &View<'_>,
        scaling: &dyn Fn(&ObjectKey) -> Option<Finding>,
        now: Duration,
    ) -> Option<Effect> {
        let (entry, cache) = (self.entries.get_mut(key)?, view.cache);
        let failure = entry.attempts.failure(applied_generation(gateway).is_some(), now).map(str::to_owned);
        if failure.is_some() != std::mem::replace(&mut entry.fails, failure.is_some()) {
            entry.touched = true;
        }
        entry.touched |= entry.starts.is_due(now);
        // A status written before children are applied for the first time, or while they are applied, would be outdated
        // a moment later.
        let is_early = entry.attempts.is_running() || entry.waits && entry.attempts.is_untried();
        if !entry.touched || is_early || entry.wrote.is_some_and(|wrote| now < wrote + WRITES) {
            return None;
        }
        entry.touched = false;
        entry.starts.see(cache.held_pods(key), now);
        let known = FleetFacts {
            refused: refusal(key, gateway, cache, &self.fleets),
            children: failure,
            scaling: scaling(key),
            ..FleetFacts::default()
        };
        let facts = facts(key, gateway, view, entry, known, now);
        let next = gateway_status(gateway, &facts, view.wall_clock);
        let is_unreadable = cache.unreadable_gateway(key).is_some();
        if gateway.status.as_ref() == Some(&next) || is_unreadable && entry.written.as_ref() == Some(&next) {
            entry.repeats = 0;
            return None;
        }
        if !entry.is_due(&next, now) {
            entry.touched = true;
            return None;
        }
        entry.wrote = Some(now);
        // Evaluate again: the cache may still show a status older than the written one.
        entry.touched = !is_unreadable;
        entry.written = Some(next.clone());
        let uid = gateway.metadata.uid.clone().unwrap_or_default();
        let status = patch::all_of_gateway(&next);
        Some(Effect::WriteStatus(StatusWrite { subject: Subject::Gateway(key.clone()), uid, status }))
    }
}

/// The reason and message if a gateway is not accepted and its children stay as they are.
fn refusal(key: &ObjectKey, gateway: &ForwardGateway, cache: &Cache, fleets: &Fleets) -> Option<(String, String)> {
    if let Some(why) = cache.unreadable_gateway(key) {
        let message = format!(
            "this operator cannot read the object ({why}); the fleet keeps running unchanged: install CRDs and \
             operator of the same release"
        );
        return Some(("Unsupported".to_owned(), message));
    }
    let message = fleets.refusal(&key.namespace, gateway)?;
    Some(("FleetsNotPermitted".to_owned(), message))
}

/// Whether the children of a gateway are applied at all.
fn is_applied(key: &ObjectKey, gateway: &ForwardGateway, cache: &Cache, fleets: &Fleets) -> bool {
    gateway.metadata.deletion_timestamp.is_none() && refusal(key, gateway, cache, fleets).is_none()
}

/// Hash of everything that the children depend on.
fn hash_of(
    gateway: &ForwardGateway,
    (fleets, turn): (&Fleets, &Turn),
    trusted: &Trusted,
    ports: &BTreeSet<(Transport, u16)>,
) -> String {
    let spec = serde_json::to_string(&gateway.spec).unwrap_or_default();
    let all = format!("{spec}{:?}{fleets:?}{turn:?}{}{ports:?}", gateway.metadata.uid, trusted.signing);
    format!("{:016x}", hash(&all))
}

/// The gateways in rotation, starting after the last one, so that none starves.
fn in_turn<'a>(gateways: &'a BTreeSet<ObjectKey>, last: Option<&ObjectKey>) -> Vec<&'a ObjectKey> {
    let Some(last) = last else { return gateways.iter().collect() };
    let after = gateways.range::<ObjectKey, _>((Bound::Excluded(last), Bound::Unbounded));
    after.chain(gateways.range::<ObjectKey, _>(..=last)).collect()
}

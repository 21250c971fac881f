//! Decides which object scales a workload, and when HPAs are applied and deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::TargetKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    desired::{
        autoscaler::{FAILED, Scaler, of_forward, of_gateway},
        holder::NoScaler,
    },
    schedule::{Effect, SILENCE},
    status::{
        conditions::{ConditionType, Finding, Truth},
        scaling::scaling,
    },
    world::{
        ObjectKey,
        cache::Cache,
        child::{ChildKind, Mark, Shown},
        objects::AutoscalerState,
        subject::Subject,
    },
};

/// Interval of applying an HPA again: its target and the owner of `spec.replicas` may have changed.
const RESYNC: Duration = Duration::from_secs(60);
/// Pause after an HPA could not be applied or deleted, and shortest time between an apply and the repair of a later
/// change by another client. The pause doubles with every further repair of the HPA, up to the interval above.
const RETRY: Duration = Duration::from_secs(5);
/// Time without a repair after which the pause is short again.
const CALM: Duration = Duration::from_secs(600);

/// The result of applying an HPA.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// The object with `spec.autoscaling`.
    pub subject: Subject,
    /// The HPA.
    pub scaler: Box<Scaler>,
    /// The mark of the HPA as it is now, or why the HPA is missing.
    pub result: Result<Mark, NoScaler>,
}

/// The outcome of applying an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The object with `spec.autoscaling`, whose status may change.
    pub subject: Subject,
    /// Whether the HPA was applied again because another client had changed or deleted it.
    pub is_repaired: bool,
}

/// An HPA, the time of applying it, and the result.
type Applied = (Box<Scaler>, Duration, Result<Mark, NoScaler>);

/// Why an HPA is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Another client changed or deleted the HPA.
    Drift,
    /// The desired HPA is new, could not be applied, or was applied long ago.
    Due,
}

/// State of one object with `spec.autoscaling`.
#[derive(Default)]
struct Entry {
    /// The last attempt.
    applied: Option<Applied>,
    /// The HPA that the API server refused last.
    refused: Option<Box<Scaler>>,
    /// Why the apply in progress began, and when.
    applying: Option<(Cause, Duration)>,
    /// Number of repairs in a row, and the time of the last one.
    repairs: Option<(u32, Duration)>,
}

impl Entry {
    /// The cause for which this HPA must be applied now; `None` if it need not be.
    fn due(&self, scaler: &Scaler, shown: Shown, now: Duration) -> Option<Cause> {
        let last = self.applied.as_ref().filter(|(applied, ..)| **applied == *scaler);
        let Some((_, at, result)) = last else { return Some(Cause::Due) };
        let (pause, cause) = match result {
            // Right after an apply, the watch may still show the earlier state. The growing pause keeps two controllers
            // that undo each other's writes from doing so without end.
            Ok(mark) if shown.differs_from(*mark) => (pause(self.repairs(now)), Cause::Drift),
            Ok(_) => (RESYNC, Cause::Due),
            Err(_) => (RETRY, Cause::Due),
        };
        (now >= *at + pause).then_some(cause)
    }

    /// Number of repairs in a row.
    fn repairs(&self, now: Duration) -> u32 {
        self.repairs.filter(|(_, at)| now < *at + CALM).map_or(0, |(count, _)| count)
    }

    /// Records that an apply begins.
    fn begin(&mut self, cause: Cause, now: Duration) {
        if cause == Cause::Drift {
            self.repairs = Some((self.repairs(now).saturating_add(1), now));
        }
        self.applying = Some((cause, now));
    }
}

/// The HPAs of all objects with `spec.autoscaling`.
#[derive(Default)]
pub struct Autoscalers {
    entries: BTreeMap<Subject, Entry>,
    /// HPAs of this operator that no object needs, and the time of their last deletion.
    unwanted: BTreeMap<ObjectKey, Duration>,
    /// Whether the operator may not write HPAs.
    is_off: bool,
}

impl Autoscalers {
    /// The state before any HPA is applied. `is_on` says whether the operator may write HPAs.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        Self { is_off: !is_on, ..Self::default() }
    }

    /// The condition `ScalingActive` of an object; `None` without `spec.autoscaling`.
    #[must_use]
    pub fn finding(&self, subject: &Subject, cache: &Cache) -> Option<Finding> {
        let wanted = wanted(subject, cache)?;
        if self.is_off {
            return Some(off());
        }
        let made = self.entries.get(subject).and_then(|entry| entry.applied.as_ref());
        let made = made.map_or(Ok(()), |(_, _, result)| result.as_ref().map(|_| ()));
        let reported = cache.scalers.get(&wanted.key).filter(|state| state.owner == wanted.owner);
        let is_new = self.entries.get(subject).is_none_or(|entry| entry.applied.is_none());
        match persisted(subject, cache).filter(|_| is_new && reported.is_none()) {
            // A new leader has not applied the HPA yet: the condition in status stays.
            Some(persisted) => Some(persisted),
            None => Some(scaling(made, reported.map(|state| &state.conditions))),
        }
    }

    /// Records the result of applying an HPA; `None` if its object does not scale any more.
    pub fn scaled(&mut self, scaled: Scaled, now: Duration) -> Option<Ended> {
        let entry = self.entries.get_mut(&scaled.subject)?;
        let cause = entry.applying.take().map(|(cause, _)| cause);
        let is_repaired = cause == Some(Cause::Drift) && scaled.result.is_ok();
        entry.refused = scaled.result.as_ref().is_err_and(|why| why.reason == FAILED).then(|| scaled.scaler.clone());
        entry.applied = Some((scaled.scaler, now, scaled.result));
        Some(Ended { subject: scaled.subject, is_repaired })
    }

    /// Returns the effects that are due, and the objects whose status may change.
    #[must_use]
    pub fn tick(&mut self, cache: &Cache, now: Duration) -> (Vec<Effect>, Vec<Subject>) {
        if self.is_off {
            return (Vec::new(), Vec::new());
        }
        let subjects: BTreeSet<Subject> = cache.scaling().collect();
        self.entries.retain(|subject, _| subjects.contains(subject));
        let (mut keys, mut effects, mut others) = (BTreeSet::new(), Vec::new(), Vec::new());
        // Only one object scales a workload: two HPAs would undo each other's work forever.
        let mut takers: BTreeMap<(String, TargetKind, String), Subject> = BTreeMap::new();
        for (subject, scaler) in self.in_order(subjects, cache) {
            let target = (scaler.key.namespace.clone(), scaler.target_kind, scaler.target.clone());
            let taker = takers.get(&target).cloned().or_else(|| fleet(&subject, &scaler, cache));
            if let Some(taker) = taker {
                let entry = self.entries.entry(subject.clone()).or_default();
                let why = Err(taken(&taker, &target.2));
                if entry.applied.as_ref().is_none_or(|(_, _, before)| *before != why) {
                    others.push(subject);
                }
                entry.applied = Some((Box::new(scaler), now, why));
                continue;
            }
            takers.insert(target, subject.clone());
            keys.insert((scaler.key.clone(), scaler.owner.clone()));
            effects.extend(self.one(subject, scaler, cache, now));
        }
        effects.extend(self.remove_unwanted(&keys, cache, now));
        (effects, others)
    }

    /// The desired HPAs by precedence: objects that already scale their workload first, then those whose HPA the API
    /// server has not refused, then the oldest. A newcomer never takes over a workload.
    fn in_order(&self, subjects: BTreeSet<Subject>, cache: &Cache) -> Vec<(Subject, Scaler)> {
        let mut all: Vec<_> =
            subjects.into_iter().filter_map(|it| wanted(&it, cache).map(|scaler| (it, scaler))).collect();
        all.sort_by_cached_key(|(subject, scaler)| {
            let exists = cache.scalers.get(&scaler.key).is_some_and(|state| {
                let target = (state.target.0.as_str(), state.target.1.as_str());
                state.owner == scaler.owner && target == (scaler.target_kind.as_str(), scaler.target.as_str())
            });
            let entry = self.entries.get(subject);
            let same =
                |applied: &Scaler| (applied.target_kind, &applied.target) == (scaler.target_kind, &scaler.target);
            let last = entry.and_then(|entry| entry.applied.as_ref());
            let was_applied = last.is_some_and(|(applied, _, result)| result.is_ok() && same(applied));
            let is_refused = entry.and_then(|entry| entry.refused.as_deref()) == Some(scaler);
            let created =
                metadata(subject, cache).and_then(|metadata| metadata.creation_timestamp.as_ref()).map(|time| time.0);
            let scales = exists || was_applied;
            (!scales, is_refused, created.is_none(), created, subject.clone())
        });
        all
    }

    /// Deletes the HPAs that no object needs. The spec of an unreadable object is unknown, so its HPA stays.
    fn remove_unwanted(&mut self, keys: &BTreeSet<(ObjectKey, String)>, cache: &Cache, now: Duration) -> Vec<Effect> {
        let is_unwanted = |(key, state): &(&ObjectKey, &AutoscalerState)| {
            !keys.contains(&((*key).clone(), state.owner.clone())) && cache.can_read(&state.subject)
        };
        let ours = cache.scalers.iter().filter(is_unwanted);
        let unwanted: Vec<(ObjectKey, String)> = ours.map(|(key, state)| (key.clone(), state.owner.clone())).collect();
        self.unwanted.retain(|key, _| unwanted.iter().any(|(other, _)| other == key));
        let mut effects = Vec::new();
        for (key, owner) in unwanted {
            if self.unwanted.get(&key).is_none_or(|at| now >= *at + RETRY) {
                self.unwanted.insert(key.clone(), now);
                effects.push(Effect::DeleteAutoscaler(key, owner));
            }
        }
        effects
    }

    fn one(&mut self, subject: Subject, scaler: Scaler, cache: &Cache, now: Duration) -> Option<Effect> {
        let entry = self.entries.entry(subject.clone()).or_default();
        // The fleet of a new gateway may not exist yet.
        let is_early = matches!(&subject, Subject::Gateway(key) if cache.fleet(key).is_none());
        // Foreground deletion would wait for an HPA that is created again.
        let is_leaving = metadata(&subject, cache).is_some_and(|metadata| metadata.deletion_timestamp.is_some());
        let is_applying = entry.applying.is_some_and(|(_, began)| now < began + SILENCE);
        if is_applying || is_early || is_leaving {
            return None;
        }
        let cause = entry.due(&scaler, cache.shown_scaler(&scaler.key), now)?;
        entry.begin(cause, now);
        Some(Effect::ApplyAutoscaler(subject, Box::new(scaler)))
    }
}

/// The pause before a repair that `before` others preceded.
fn pause(before: u32) -> Duration {
    RETRY.saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX)).min(RESYNC)
}

/// The gateway whose fleet a forward targets; only the gateway itself may scale its fleet.
fn fleet(subject: &Subject, scaler: &Scaler, cache: &Cache) -> Option<Subject> {
    let key = ObjectKey::new(scaler.key.namespace.clone(), scaler.target.clone());
    let readable = cache.world.gateways.get(&key).map(|gateway| ChildKind::of_fleet(gateway).as_str());
    let is_kind = match readable {
        Some(kind) => scaler.target_kind.as_str() == kind,
        None => scaler.target_kind != TargetKind::ReplicaSet,
    };
    let is_fleet = is_kind
        && matches!(subject, Subject::Forward(_))
        && (cache.world.gateways.contains_key(&key)
            || cache.world.foreign_gateways.contains_key(&key)
            || cache.unreadable_gateway(&key).is_some());
    is_fleet.then_some(Subject::Gateway(key))
}

/// The reason why a forward gets no HPA if another object scales its workload.
fn taken(taker: &Subject, target: &str) -> NoScaler {
    let message = match taker {
        Subject::Forward(ObjectKey { name, .. }) => format!(
            "PortForward {name} already scales {target}, and two would undo each other's work: remove \
             spec.autoscaling from one of the two PortForwards"
        ),
        // Only forwards and gateways scale anything.
        Subject::Gateway(ObjectKey { name, .. }) | Subject::Agent(ObjectKey { name, .. }) => {
            format!(
                "{target} is the fleet of ForwardGateway {name}: set spec.autoscaling on the gateway, and remove \
                 spec.autoscaling from this object"
            )
        }
    };
    NoScaler { reason: "TargetTaken", message }
}

/// The condition `ScalingActive` under an operator that may write no HPAs.
fn off() -> Finding {
    let message = "this operator may not create HPAs, so the replicas stay as they are: set the chart value \
                   autoscaling.enabled, or scale the workload yourself";
    Finding::new(ConditionType::ScalingActive, Truth::False, "AutoscalingOff", message)
}

/// The condition `ScalingActive` that the status of an object already has.
fn persisted(subject: &Subject, cache: &Cache) -> Option<Finding> {
    let conditions = match subject {
        Subject::Forward(key) => cache.world.forwards.get(key)?.status.as_ref().map(|status| &status.conditions),
        Subject::Gateway(key) => cache.world.gateways.get(key)?.status.as_ref().map(|status| &status.conditions),
        Subject::Agent(_) => None,
    };
    let type_ = ConditionType::ScalingActive;
    let persisted = conditions?.iter().find(|condition| condition.type_ == type_.as_str())?;
    Some(Finding::new(type_, Truth::parse(&persisted.status), &persisted.reason, persisted.message.clone()))
}

fn metadata<'a>(subject: &Subject, cache: &'a Cache) -> Option<&'a ObjectMeta> {
    match subject {
        Subject::Forward(key) => cache.world.forwards.get(key).map(|forward| &forward.metadata),
        Subject::Gateway(key) => cache.world.gateways.get(key).map(|gateway| &gateway.metadata),
        Subject::Agent(_) => None,
    }
}

/// The HPA that an object requests.
fn wanted(subject: &Subject, cache: &Cache) -> Option<Scaler> {
    match subject {
        Subject::Gateway(key) => of_gateway(key, cache.world.gateways.get(key)?),
        Subject::Forward(key) => of_forward(key, cache.world.forwards.get(key)?),
        Subject::Agent(_) => None,
    }
}

//! Who scales a workload, and when autoscalers are applied and deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::TargetKind;

use crate::{
    desired::autoscaler::{FAILED, Scaler, of_forward, of_gateway},
    schedule::Effect,
    status::{
        conditions::Finding,
        scaling::{NoScaler, scaling},
    },
    world::{ObjectKey, cache::Cache, objects::AutoscalerState, subject::Subject},
};

/// An autoscaler is applied again at this interval, as targets and their holders come and go.
const RESYNC: Duration = Duration::from_secs(60);
/// The same if it could not be applied.
const RETRY: Duration = Duration::from_secs(5);

/// The result of applying an autoscaler.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// The object that scales.
    pub subject: Subject,
    /// The autoscaler.
    pub scaler: Box<Scaler>,
    /// Why there is none.
    pub result: Result<(), NoScaler>,
}

/// An autoscaler, when it was applied, and what became of that.
type Applied = (Box<Scaler>, Duration, Result<(), NoScaler>);

/// State of one object that scales.
#[derive(Default)]
struct Entry {
    /// What was applied last, when, and what became of it.
    applied: Option<Applied>,
    /// What the API server did not take last.
    refused: Option<Box<Scaler>>,
    applying: bool,
}

/// The autoscalers of all objects.
#[derive(Default)]
pub struct Autoscalers {
    entries: BTreeMap<Subject, Entry>,
    /// Autoscalers of ours that nobody wants, and when they were last deleted.
    unwanted: BTreeMap<ObjectKey, Duration>,
}

impl Autoscalers {
    /// The condition of an object that scales; `None` if it does not.
    #[must_use]
    pub fn finding(&self, subject: &Subject, cache: &Cache) -> Option<Finding> {
        let wanted = wanted(subject, cache)?;
        let made = self.entries.get(subject).and_then(|entry| entry.applied.as_ref());
        let made = made.map_or(Ok(()), |(_, _, result)| result.as_ref().copied());
        let told = cache.scalers.get(&wanted.key).filter(|state| state.owner == wanted.owner);
        let is_new = self.entries.get(subject).is_none_or(|entry| entry.applied.is_none());
        match standing(subject, cache).filter(|_| is_new && told.is_none()) {
            // A new leader has not looked yet: what was said goes on.
            Some(standing) => Some(standing),
            None => Some(scaling(made, told.map(|state| &state.conditions))),
        }
    }

    /// An autoscaler was applied, or not; gives whose status may change.
    pub fn scaled(&mut self, scaled: Scaled, now: Duration) -> Option<Subject> {
        let entry = self.entries.get_mut(&scaled.subject)?;
        entry.applying = false;
        entry.refused = scaled.result.as_ref().is_err_and(|why| why.reason == FAILED).then(|| scaled.scaler.clone());
        entry.applied = Some((scaled.scaler, now, scaled.result));
        Some(scaled.subject)
    }

    /// What is due, and whose status may change.
    #[must_use]
    pub fn tick(&mut self, cache: &Cache, now: Duration) -> (Vec<Effect>, Vec<Subject>) {
        let subjects: BTreeSet<Subject> = cache.scaling().collect();
        self.entries.retain(|subject, _| subjects.contains(subject));
        let (mut keys, mut effects, mut others) = (BTreeSet::new(), Vec::new(), Vec::new());
        // Of two that want to scale one workload one does; both would take turns for ever.
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

    /// What is to scale, those first that do already, and then the oldest: a newcomer takes no workload away. Those whose
    /// autoscaler the API server refuses come last.
    fn in_order(&self, subjects: BTreeSet<Subject>, cache: &Cache) -> Vec<(Subject, Scaler)> {
        let mut all: Vec<_> =
            subjects.into_iter().filter_map(|it| wanted(&it, cache).map(|scaler| (it, scaler))).collect();
        all.sort_by_cached_key(|(subject, scaler)| {
            let is_there = cache.scalers.get(&scaler.key).is_some_and(|state| {
                let target = (state.target.0.as_str(), state.target.1.as_str());
                state.owner == scaler.owner && target == (scaler.target_kind.as_str(), scaler.target.as_str())
            });
            let entry = self.entries.get(subject);
            let same =
                |applied: &Scaler| (applied.target_kind, &applied.target) == (scaler.target_kind, &scaler.target);
            let last = entry.and_then(|entry| entry.applied.as_ref());
            let was_applied = last.is_some_and(|(applied, _, result)| result.is_ok() && same(applied));
            let is_refused = entry.and_then(|entry| entry.refused.as_deref()) == Some(scaler);
            let metadata = match subject {
                Subject::Forward(key) => cache.world.forwards.get(key).map(|it| &it.metadata),
                Subject::Gateway(key) => cache.world.gateways.get(key).map(|it| &it.metadata),
            };
            let created = metadata.and_then(|metadata| metadata.creation_timestamp.as_ref()).map(|time| time.0);
            let scales = is_there || was_applied;
            (!scales, is_refused, created.is_none(), created, subject.clone())
        });
        all
    }

    /// Deletes what nobody wants. What an object that cannot be read wants is not known.
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
        // The fleet's Deployment comes with the gateway; until then there is nothing to scale.
        let is_early = matches!(&subject, Subject::Gateway(key) if !cache.deployments.contains_key(key));
        if entry.applying || is_early {
            return None;
        }
        if let Some((applied, at, result)) = &entry.applied {
            let is_there = cache.scalers.contains_key(&scaler.key);
            let pause = if result.is_ok() && is_there { RESYNC } else { RETRY };
            if **applied == scaler && now < *at + pause {
                return None;
            }
        }
        entry.applying = true;
        Some(Effect::ApplyAutoscaler(subject, Box::new(scaler)))
    }
}

/// The gateway whose fleet a forward wants to scale: its replicas are the gateway's.
fn fleet(subject: &Subject, scaler: &Scaler, cache: &Cache) -> Option<Subject> {
    let key = ObjectKey::new(scaler.key.namespace.clone(), scaler.target.clone());
    let is_fleet = scaler.target_kind == TargetKind::Deployment
        && matches!(subject, Subject::Forward(_))
        && (cache.world.gateways.contains_key(&key) || cache.unreadable_gateway(&key).is_some());
    is_fleet.then_some(Subject::Gateway(key))
}

/// Why a forward has none whose workload another object scales.
fn taken(taker: &Subject, target: &str) -> NoScaler {
    let message = match taker {
        Subject::Forward(ObjectKey { name, .. }) => format!(
            "PortForward {name} is the one that scales {target}, and two would fight: keep spec.autoscaling in one of them"
        ),
        Subject::Gateway(ObjectKey { name, .. }) => {
            format!("{target} is the fleet of ForwardGateway {name}: set spec.autoscaling there, and take it out here")
        }
    };
    NoScaler { reason: "TargetTaken", message }
}

/// What the status of an object says of its scaling now.
fn standing(subject: &Subject, cache: &Cache) -> Option<Finding> {
    let conditions = match subject {
        Subject::Forward(key) => cache.world.forwards.get(key)?.status.as_ref().map(|status| &status.conditions),
        Subject::Gateway(key) => cache.world.gateways.get(key)?.status.as_ref().map(|status| &status.conditions),
    };
    let standing = conditions?.iter().find(|condition| condition.type_ == "ScalingActive")?;
    let status = match standing.status.as_str() {
        "True" => "True",
        "False" => "False",
        _ => "Unknown",
    };
    Some(Finding::new("ScalingActive", status, &standing.reason, standing.message.clone()))
}

/// The scaler that an object asks for.
fn wanted(subject: &Subject, cache: &Cache) -> Option<Scaler> {
    match subject {
        Subject::Gateway(key) => of_gateway(key, cache.world.gateways.get(key)?),
        Subject::Forward(key) => of_forward(key, cache.world.forwards.get(key)?),
    }
}

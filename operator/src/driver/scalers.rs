//! When autoscalers are made and taken away, and what there is to say of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::Client;
use operator_core::{Finding, NoScaler, ObjectKey, scaling};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    cache::Cache,
    metrics::{Metrics, count},
    scaling::{Scaler, apply, of_forward, of_gateway, remove},
    status_writer::Subject,
};

/// A scaler is looked at again after so long, as targets and their holders come and go.
const RESYNC: Duration = Duration::from_secs(60);
/// The same if there could be none.
const RETRY: Duration = Duration::from_secs(5);

/// What became of an application.
#[derive(Debug)]
pub struct Scaled {
    subject: Subject,
    scaler: Box<Scaler>,
    result: Result<(), NoScaler>,
}

/// State of one object that scales.
#[derive(Default)]
struct Entry {
    /// What was applied last, when, and what became of it.
    applied: Option<(Box<Scaler>, Instant, Result<(), NoScaler>)>,
    applying: bool,
}

/// All of them.
pub struct Scalers {
    client: Client,
    results: mpsc::Sender<Scaled>,
    metrics: std::sync::Arc<Metrics>,
    entries: BTreeMap<Subject, Entry>,
    /// Scalers of ours that nobody wants, and when they were last taken away.
    unwanted: BTreeMap<ObjectKey, Instant>,
}

impl Scalers {
    /// None yet.
    #[must_use]
    pub fn new(client: Client, results: mpsc::Sender<Scaled>, metrics: std::sync::Arc<Metrics>) -> Self {
        Self { client, results, metrics, entries: BTreeMap::new(), unwanted: BTreeMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.entries.clear();
        self.unwanted.clear();
    }

    /// What there is to say of an object that scales; nothing of one that does not.
    pub(super) fn finding(&self, subject: &Subject, cache: &Cache) -> Option<Finding> {
        let wanted = wanted(subject, cache)?;
        let made = self.entries.get(subject).and_then(|entry| entry.applied.as_ref());
        let made = made.map_or(Ok(()), |(_, _, result)| result.as_ref().copied());
        let told = cache.scalers.get(&wanted.key).filter(|state| state.owner == wanted.owner);
        Some(scaling(made, told.map(|state| &state.told)))
    }

    /// An application has ended; gives whose status may be another.
    pub(super) fn scaled(&mut self, scaled: Scaled, now: Instant) -> Option<Subject> {
        count(&self.metrics.children, "result", if scaled.result.is_ok() { "applied" } else { "failed" });
        let entry = self.entries.get_mut(&scaled.subject)?;
        entry.applying = false;
        entry.applied = Some((scaled.scaler, now, scaled.result));
        Some(scaled.subject)
    }

    /// Applies what is due, and takes away what nobody wants.
    pub(super) fn tick(&mut self, cache: &Cache, now: Instant) {
        let subjects: BTreeSet<Subject> = cache.scaling().collect();
        self.entries.retain(|subject, _| subjects.contains(subject));
        let mut keys = BTreeSet::new();
        for subject in subjects {
            let Some(scaler) = wanted(&subject, cache) else { continue };
            keys.insert((scaler.key.clone(), scaler.owner.clone()));
            self.one(subject, scaler, cache, now);
        }
        let ours = cache.scalers.iter().filter(|(key, state)| !keys.contains(&((*key).clone(), state.owner.clone())));
        let unwanted: Vec<(ObjectKey, String)> = ours.map(|(key, state)| (key.clone(), state.owner.clone())).collect();
        self.unwanted.retain(|key, _| unwanted.iter().any(|(other, _)| other == key));
        for (key, owner) in unwanted {
            if self.unwanted.get(&key).is_some_and(|at| now < *at + RETRY) {
                continue;
            }
            self.unwanted.insert(key.clone(), now);
            let client = self.client.clone();
            tokio::spawn(async move {
                if let Err(error) = remove(&client, &key, &owner).await {
                    tracing::warn!(scaler = %key, error = error.message, "it is tried again");
                }
            });
        }
    }

    fn one(&mut self, subject: Subject, scaler: Scaler, cache: &Cache, now: Instant) {
        let entry = self.entries.entry(subject.clone()).or_default();
        // The fleet's Deployment comes with the gateway; until then there is nothing to scale.
        let is_early = matches!(&subject, Subject::Gateway(key) if !cache.deployments.contains_key(key));
        if entry.applying || is_early {
            return;
        }
        if let Some((applied, at, result)) = &entry.applied {
            let is_there = cache.scalers.contains_key(&scaler.key);
            let pause = if result.is_ok() && is_there { RESYNC } else { RETRY };
            if **applied == scaler && now < *at + pause {
                return;
            }
        }
        entry.applying = true;
        let (client, results) = (self.client.clone(), self.results.clone());
        tokio::spawn(async move {
            let result = apply(&client, &scaler).await;
            let _ = results.send(Scaled { subject, scaler: Box::new(scaler), result }).await;
        });
    }
}

/// The scaler that an object asks for.
fn wanted(subject: &Subject, cache: &Cache) -> Option<Scaler> {
    match subject {
        Subject::Gateway(key) => of_gateway(key, cache.world.gateways.get(key)?),
        Subject::Forward(key) => of_forward(key, cache.world.forwards.get(key)?),
    }
}

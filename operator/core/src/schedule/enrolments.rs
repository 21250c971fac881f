//! Schedules checks of the Secrets of agents.
//!
//! The operator does not watch Secrets, because that would require permission to read all of them. It checks the Secret
//! of an agent when the desired contents change, when its join string must be replaced, after a token was redeemed, and
//! at intervals.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    enrolment::{Offered, Wanted, wanted_by},
    schedule::{Effect, backoff::Backoff},
    status::agent::Enrolment,
    translate::agents::{self, Admissions},
    world::{ObjectKey, World, cache::Cache, changes::Changes},
};

/// The most checks in progress.
const AT_ONCE: usize = 32;
/// Most agents that one tick evaluates.
const PER_TICK: usize = 1000;
/// The longest time between two checks of a Secret, which another client may have changed or deleted.
const LOOK: Duration = Duration::from_secs(600);
/// The first and the longest pause after a failed check.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// State of the Secret of one agent.
#[derive(Debug)]
struct Entry {
    /// The wanted state at the last check. Absent if a check is due.
    done: Option<Wanted>,
    /// Whether a check is in progress.
    running: bool,
    /// Whether something changed during the check.
    again: bool,
    /// When the next check is due.
    due: Option<Duration>,
    backoff: Backoff,
    /// The known state of the Secret.
    last: Enrolment,
}

impl Default for Entry {
    fn default() -> Self {
        let backoff = Backoff::new(RETRY.0, RETRY.1);
        Self { done: None, running: false, again: false, due: None, backoff, last: Enrolment::default() }
    }
}

/// The Secrets of all agents, in one leader election term.
#[derive(Debug, Default)]
pub struct Enrolments {
    entries: BTreeMap<ObjectKey, Entry>,
    /// Agents to evaluate at the next tick.
    changed: BTreeSet<ObjectKey>,
    /// Checks that are due later.
    due: BTreeSet<(Duration, ObjectKey)>,
    /// Number of checks in progress.
    running: usize,
}

impl Enrolments {
    /// Takes the changes of a translation that may affect who may enrol.
    pub fn translated(&mut self, changes: &Changes, world: &World) {
        self.changed.extend(agents::changed(world, changes));
    }

    /// Records that a gateway or one of its children changed, and so perhaps its addresses.
    pub fn gateway(&mut self, gateway: &ObjectKey, world: &World) {
        self.changed.extend(world.agents.of_gateway(gateway).cloned());
    }

    /// Records that a token of an agent was redeemed.
    pub fn redeemed(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.done = None;
            self.changed.insert(key.clone());
        }
    }

    /// Returns the due checks.
    pub fn tick(&mut self, cache: &Cache, now: Duration) -> Vec<Effect> {
        while let Some((at, key)) = self.due.first().cloned()
            && at <= now
        {
            self.due.remove(&(at, key.clone()));
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.done, entry.due) = (None, None);
                self.changed.insert(key);
            }
        }
        let mut effects = Vec::new();
        let admissions = Admissions::new(&cache.world);
        for _ in 0..PER_TICK {
            if self.running >= AT_ONCE {
                break;
            }
            let Some(key) = self.changed.pop_first() else { break };
            effects.extend(self.one(key, cache, &admissions));
        }
        effects
    }

    fn one(&mut self, key: ObjectKey, cache: &Cache, admissions: &Admissions<'_>) -> Option<Effect> {
        if let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.running) {
            entry.again = true;
            return None;
        }
        let Some(wanted) = wanted_by(cache, admissions, &key) else {
            // The Secret of a deleted agent is deleted with it. The Secret of an agent that is not accepted stays
            // unchanged.
            let due = self.entries.remove(&key)?.due?;
            self.due.remove(&(due, key));
            return None;
        };
        let entry = self.entries.entry(key).or_default();
        if entry.done.as_ref() == Some(&wanted) {
            return None;
        }
        entry.running = true;
        entry.done = Some(wanted.clone());
        self.running += 1;
        Some(Effect::OfferEnrolment(Box::new(wanted)))
    }

    /// Records that a check ended. Returns the state of the Secret, for the status of the agent.
    pub fn offered(&mut self, offered: Offered, now: Duration) -> Option<(ObjectKey, Enrolment)> {
        self.running = self.running.saturating_sub(1);
        let Offered { key, uid, result } = offered;
        let entry = self.entries.get_mut(&key)?;
        entry.running = false;
        let is_current = entry.done.as_ref().is_none_or(|wanted| wanted.identity.uid() == uid);
        if std::mem::take(&mut entry.again) {
            self.changed.insert(key.clone());
        }
        let pause = match result {
            Ok((enrolment, seconds)) => {
                entry.backoff.reset();
                entry.last = enrolment;
                seconds.map_or(LOOK, |seconds| Duration::from_secs(seconds).min(LOOK))
            }
            Err(why) => {
                entry.last.failure = Some(why);
                entry.backoff.pause()
            }
        };
        if let Some(before) = entry.due.replace(now + pause) {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((now + pause, key.clone()));
        let last = entry.last.clone();
        is_current.then_some((key, last))
    }
}

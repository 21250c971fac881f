//! When claims of pods that a smaller fleet no longer has are drained, and when they are deleted.
//!
//! Everything is derived from what the watches show. A Job that has succeeded proves that a claim is empty only if the
//! `StatefulSet` is of the generation for which the Job was made: otherwise the pod may have come back meanwhile, and may
//! have left new messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::ForwardGateway;

use crate::{
    desired::{
        ca::Trusted,
        drainer::{self, Drainer},
        gateway::Fleets,
        revision,
    },
    schedule::View,
    world::{
        ObjectKey,
        cache::Cache,
        objects::{ClaimState, DrainerState, FleetState},
        watched::Kind,
    },
};

/// Most drainers of a gateway at a time.
const AT_ONCE: usize = 4;
/// Time for a write to show in a watch, and pause after one that failed.
const RETRY: Duration = Duration::from_secs(10);
/// The watches that must be complete.
const WATCHES: [Kind; 3] = [Kind::StatefulSets, Kind::Claims, Kind::Drainers];

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make a drainer.
    Create(Drainer),
    /// Delete a drainer, with its pods.
    RemoveDrainer {
        /// The Job.
        key: ObjectKey,
        /// Uid that the Job must still have.
        uid: String,
    },
    /// Delete a claim, unless the `StatefulSet` has changed.
    RemoveClaim(Emptied),
}

impl Step {
    /// The object that is written.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Create(drainer) => &drainer.key,
            Self::RemoveDrainer { key, .. } => key,
            Self::RemoveClaim(emptied) => &emptied.key,
        }
    }
}

/// A claim of which the sinks have everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emptied {
    /// The claim.
    pub key: ObjectKey,
    /// Uid that the claim must still have.
    pub uid: String,
    /// Resource version that the claim must still have.
    pub version: String,
    /// The `StatefulSet`.
    pub fleet: ObjectKey,
    /// Generation of the `StatefulSet` for which this was found.
    pub generation: i64,
}

impl Emptied {
    /// Whether the claim may be deleted while the `StatefulSet` is of this generation; absent: there is none.
    #[must_use]
    pub fn holds(&self, generation: Option<i64>) -> bool {
        generation == Some(self.generation)
    }
}

/// The drainers of all gateways.
#[derive(Default)]
pub struct Drainers {
    fleets: Fleets,
    /// The objects that were written last, and when.
    tried: BTreeMap<ObjectKey, Duration>,
}

impl Drainers {
    /// No drainers yet, with the settings that all fleets share.
    #[must_use]
    pub fn new(fleets: Fleets) -> Self {
        Self { fleets, ..Self::default() }
    }

    /// Returns the writes that are due.
    #[must_use]
    pub fn tick(&mut self, view: &View<'_>, trusted: &Trusted, now: Duration) -> Vec<Step> {
        self.tried.retain(|_, at| now < at.saturating_add(RETRY));
        let cache = view.cache;
        let of_claims = cache.claims.iter().map(|(key, claim)| (key, &claim.gateway));
        let of_jobs = cache.drainers.iter().map(|(key, job)| (key, &job.gateway));
        let gateways: BTreeSet<ObjectKey> = of_claims
            .chain(of_jobs)
            .map(|(key, gateway)| ObjectKey::new(key.namespace.clone(), gateway.clone()))
            .collect();
        let mut steps = Vec::new();
        for key in gateways {
            steps.extend(self.of_gateway(&key, cache, trusted));
        }
        steps.retain(|step| !self.tried.contains_key(step.key()));
        self.tried.extend(steps.iter().map(|step| (step.key().clone(), now)));
        steps
    }

    /// The writes for one gateway. Without a readable gateway that this operator runs, everything stays.
    fn of_gateway(&self, key: &ObjectKey, cache: &Cache, trusted: &Trusted) -> Vec<Step> {
        let Some(gateway) = cache.world.gateways.get(key) else { return Vec::new() };
        let is_known = WATCHES.iter().all(|kind| cache.is_listed(*kind, &key.namespace));
        let is_ours =
            cache.unreadable_gateway(key).is_none() && self.fleets.namespaces.refusal(&key.namespace).is_none();
        let is_leaving = gateway.metadata.deletion_timestamp.is_some() || gateway.spec.durability.is_none();
        let fleet = cache.stateful_sets.get(key);
        let Some(fleet) = fleet.filter(|_| is_known && is_ours && !is_leaving && !trusted.signing.is_empty()) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        let jobs = of_gateway(key, cache);
        let running = jobs.iter().filter(|(_, job)| !job.succeeded || job.leaving).count();
        let mut room = AT_ONCE.saturating_sub(running);
        let claims: BTreeMap<i32, (&ObjectKey, &ClaimState)> =
            cache.claims_of(key).map(|(name, claim)| (claim.ordinal, (name, claim))).collect();
        for (name, job) in &jobs {
            if !claims.contains_key(&job.ordinal) {
                steps.extend(removed(name, job));
            }
        }
        for (ordinal, (name, claim)) in claims {
            let job_key = drainer::key(key, ordinal);
            let job = jobs.get(&job_key).copied();
            let pod = ObjectKey::new(key.namespace.clone(), format!("{}-{ordinal}", key.name));
            match next(claim, fleet, job, cache.proxy_pods.contains_key(&pod)) {
                Next::Stop => steps.extend(job.and_then(|job| removed(&job_key, job))),
                Next::Remove(generation) => steps.push(Step::RemoveClaim(Emptied {
                    key: name.clone(),
                    uid: claim.uid.clone(),
                    version: claim.version.clone(),
                    fleet: key.clone(),
                    generation,
                })),
                Next::Drain(generation) if room > 0 => {
                    room -= 1;
                    let made = self.drainer((key, gateway), fleet, trusted, (name, ordinal), generation);
                    steps.push(Step::Create(made));
                }
                Next::Nothing | Next::Drain(_) => {}
            }
        }
        steps
    }

    fn drainer(
        &self,
        gateway: (&ObjectKey, &ForwardGateway),
        fleet: &FleetState,
        trusted: &Trusted,
        claim: (&ObjectKey, i32),
        generation: i64,
    ) -> Drainer {
        let image =
            if fleet.image.is_empty() { revision::image(gateway.1, &self.fleets.image) } else { fleet.image.clone() };
        let fleets = Fleets { image, ..self.fleets.clone() };
        drainer::drainer(gateway, &fleets, &trusted.bundle, claim, generation)
    }
}

/// What to do about one claim.
enum Next {
    /// Wait.
    Nothing,
    /// Make a drainer, for this generation of the `StatefulSet`.
    Drain(i64),
    /// Delete the drainer.
    Stop,
    /// Delete the claim, of which this generation proves that it is empty.
    Remove(i64),
}

fn next(claim: &ClaimState, fleet: &FleetState, job: Option<&DrainerState>, has_pod: bool) -> Next {
    if claim.ordinal < fleet.wanted {
        // The fleet has the claim, or has it again.
        return if job.is_some() { Next::Stop } else { Next::Nothing };
    }
    // The controller may still make pods of an earlier generation.
    let Some(generation) = fleet.generation.filter(|_| fleet.is_observed && !has_pod) else { return Next::Nothing };
    match job {
        // A claim stays as long as a pod has it, also one that has ended.
        Some(_) if claim.leaving => Next::Stop,
        None if claim.leaving => Next::Nothing,
        None => Next::Drain(generation),
        Some(job) if !job.succeeded || job.leaving => Next::Nothing,
        Some(job) if job.generation == Some(generation) => Next::Remove(generation),
        Some(_) => Next::Stop,
    }
}

/// The drainers of a gateway.
fn of_gateway<'a>(gateway: &ObjectKey, cache: &'a Cache) -> BTreeMap<&'a ObjectKey, &'a DrainerState> {
    let first = ObjectKey::new(gateway.namespace.clone(), "");
    let here = cache.drainers.range(first..).take_while(|(key, _)| key.namespace == gateway.namespace);
    here.filter(|(_, job)| job.gateway == gateway.name).collect()
}

fn removed(key: &ObjectKey, job: &DrainerState) -> Option<Step> {
    (!job.leaving).then(|| Step::RemoveDrainer { key: key.clone(), uid: job.uid.clone() })
}

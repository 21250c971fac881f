//! When claims of pods that a smaller fleet no longer has are drained, and when they are deleted.
//!
//! Everything is derived from what the watches show. A Job that has succeeded proves that a claim is empty only if the
//! claim and the `StatefulSet` are those for which the Job was made, and that is of the same generation: otherwise the pod
//! may have come back meanwhile, and may have left new messages.

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

/// Most drainers of a gateway at a time that get on, or may.
const AT_ONCE: usize = 4;
/// Most drainers of a gateway at a time, with those that need a person.
const AT_MOST: usize = 16;
/// Time for a write to show in a watch, and pause after one that failed.
const RETRY: Duration = Duration::from_secs(10);
/// The watches that must be complete. A pod that is not shown may still have its claim.
const WATCHES: [Kind; 4] = [Kind::StatefulSets, Kind::Claims, Kind::Drainers, Kind::ProxyPods];

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
    /// Uid of the `StatefulSet` for which this was found: one that was made anew counts its generations from 1.
    pub fleet_uid: String,
    /// Generation of that `StatefulSet`.
    pub generation: i64,
}

impl Emptied {
    /// Whether the claim may be deleted while the `StatefulSet` has this uid and generation; absent: there is none.
    #[must_use]
    pub fn holds(&self, uid: Option<&str>, generation: Option<i64>) -> bool {
        uid == Some(self.fleet_uid.as_str()) && generation == Some(self.generation)
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
        let is_ours = cache.unreadable_gateway(key).is_none() && self.fleets.refusal(&key.namespace, gateway).is_none();
        let is_leaving = gateway.metadata.deletion_timestamp.is_some() || gateway.spec.durability.is_none();
        let fleet = cache.stateful_sets.get(key);
        let Some(fleet) = fleet.filter(|_| is_known && is_ours && !is_leaving && !trusted.signing.is_empty()) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        let jobs = of_gateway(key, cache);
        let unended = jobs.iter().filter(|(_, job)| !job.succeeded || job.leaving);
        let (stuck, running): (Vec<_>, Vec<_>) = unended.partition(|(job, _)| cache.drain(job).is_stuck());
        let left = AT_MOST.saturating_sub(stuck.len() + running.len());
        let mut room = AT_ONCE.saturating_sub(running.len()).min(left);
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
                    fleet_uid: fleet.uid.clone(),
                    generation,
                })),
                Next::Drain(drained_for) if room > 0 => {
                    room -= 1;
                    let made = self.drainer((key, gateway), fleet, trusted, (name, ordinal), &drained_for);
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
        drained_for: &str,
    ) -> Drainer {
        let image =
            if fleet.image.is_empty() { revision::image(gateway.1, &self.fleets.image) } else { fleet.image.clone() };
        let fleets = Fleets { image, ..self.fleets.clone() };
        drainer::drainer(gateway, &fleets, &trusted.bundle, claim, drained_for)
    }
}

/// What to do about one claim.
enum Next {
    /// Wait.
    Nothing,
    /// Make a drainer, whose success will prove this.
    Drain(String),
    /// Delete the drainer.
    Stop,
    /// Delete the claim, of which this generation proves that it is empty.
    Remove(i64),
}

fn next(claim: &ClaimState, fleet: &FleetState, job: Option<&DrainerState>, has_pod: bool) -> Next {
    if fleet.has_ordinal(claim.ordinal) {
        // The fleet has the claim, or has it again.
        return if job.is_some() { Next::Stop } else { Next::Nothing };
    }
    // The controller may still make pods of an earlier generation.
    let Some(generation) = fleet.generation.filter(|_| fleet.is_observed && !has_pod) else { return Next::Nothing };
    let drained_for = format!("{}.{}.{generation}", claim.uid, fleet.uid);
    match job {
        // A claim stays as long as a pod has it, also one that has ended.
        Some(_) if claim.leaving => Next::Stop,
        None if claim.leaving => Next::Nothing,
        None => Next::Drain(drained_for),
        Some(job) if !job.succeeded || job.leaving => Next::Nothing,
        Some(job) if job.drained_for == drained_for => Next::Remove(generation),
        Some(_) => Next::Stop,
    }
}

/// The drainers of a gateway. A Job of another name is somebody else's, whatever its labels say.
fn of_gateway<'a>(gateway: &ObjectKey, cache: &'a Cache) -> BTreeMap<&'a ObjectKey, &'a DrainerState> {
    let first = ObjectKey::new(gateway.namespace.clone(), "");
    let here = cache.drainers.range(first..).take_while(|(key, _)| key.namespace == gateway.namespace);
    here.filter(|(_, job)| job.gateway == gateway.name && job.ordinal >= 0).collect()
}

fn removed(key: &ObjectKey, job: &DrainerState) -> Option<Step> {
    (!job.leaving).then(|| Step::RemoveDrainer { key: key.clone(), uid: job.uid.clone() })
}

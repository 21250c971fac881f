//! Decides when claims of pods that a smaller fleet no longer has are drained and deleted.
//!
//! Decisions are derived from the watches alone. A successful Job proves that a claim is empty only if it was made for
//! the same claim and the same `StatefulSet` in the same generation: otherwise the pod may have come back meanwhile and
//! left new messages.

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
        objects::{ClaimState, Drain, DrainerState, FleetState, Stage},
        watched::Kind,
    },
};

/// The most drainers of a gateway at a time that make progress or may still make some.
const AT_ONCE: usize = 4;
/// The most drainers of a gateway at a time, including those that need a person.
const AT_MOST: usize = 16;
/// Time for a write to show in a watch, and pause after a failed write.
const RETRY: Duration = Duration::from_secs(10);
/// The watches that must be complete. A pod that a watch does not show may still use its claim.
const WATCHES: [Kind; 4] = [Kind::StatefulSets, Kind::Claims, Kind::Drainers, Kind::ProxyPods];

/// A write for a drainer or a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create a drainer, unless its claim is in use.
    Create(Drainer, Spare),
    /// Delete a drainer, with its pods.
    RemoveDrainer {
        /// The Job.
        key: ObjectKey,
        /// Uid that the Job must still have.
        uid: String,
    },
    /// Delete a claim, unless the `StatefulSet` has changed or the pod of the claim exists.
    RemoveClaim(Emptied),
}

impl Step {
    /// The object that is written.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Create(drainer, _) => &drainer.key,
            Self::RemoveDrainer { key, .. } => key,
            Self::RemoveClaim(emptied) => &emptied.spare.claim,
        }
    }

    /// The claim, and why it is spare; `None` for a drainer that is deleted.
    #[must_use]
    pub fn spare(&self) -> Option<&Spare> {
        match self {
            Self::Create(_, spare) => Some(spare),
            Self::RemoveClaim(emptied) => Some(&emptied.spare),
            Self::RemoveDrainer { .. } => None,
        }
    }
}

/// The answer of the API server to a write for a claim.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The claim, and why it is spare.
    pub spare: Spare,
    /// Why the write was refused, if so.
    pub answer: Result<(), String>,
}

/// A claim whose messages are all delivered to their sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emptied {
    /// Uid that the claim must still have.
    pub uid: String,
    /// Resource version that the claim must still have.
    pub version: String,
    /// The claim, and why it is spare.
    pub spare: Spare,
}

/// A claim without a pod in its fleet, with the facts to check again before a write. The watches may lag behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    /// The claim.
    pub claim: ObjectKey,
    /// The `StatefulSet`, which has the namespace and name of its gateway.
    pub fleet: ObjectKey,
    /// Uid of the `StatefulSet` at the time: a recreated one counts its generations from 1 again.
    pub fleet_uid: String,
    /// Generation of that `StatefulSet`.
    pub generation: i64,
    /// The pod of the claim, which must not exist.
    pub pod: ObjectKey,
}

impl Spare {
    /// Whether the claim is still spare while the `StatefulSet` has this uid and generation; both are absent without a
    /// `StatefulSet`.
    #[must_use]
    pub fn holds(&self, uid: Option<&str>, generation: Option<i64>) -> bool {
        uid == Some(self.fleet_uid.as_str()) && generation == Some(self.generation)
    }

    /// Whether the claim may be drained, or deleted once it is empty, given the uid and generation of the `StatefulSet`, the
    /// generation `observed` that its controller has seen, and whether the pod of the claim exists. A pod that runs beside
    /// a drainer, or starts after it, may leave messages that the drainer has not seen. Before a drainer is created, the pod
    /// is read after the `StatefulSet`.
    #[must_use]
    pub fn is_free(&self, uid: Option<&str>, generation: Option<i64>, observed: Option<i64>, has_pod: bool) -> bool {
        self.holds(uid, generation) && observed >= generation && !has_pod
    }
}

/// The drainers of all gateways.
#[derive(Default)]
pub struct Drainers {
    fleets: Fleets,
    /// The objects that were last written, and when.
    tried: BTreeMap<ObjectKey, Duration>,
}

impl Drainers {
    /// The state before any drainer exists, with the settings that all fleets share.
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

    /// The writes for one gateway. Nothing changes unless this operator runs the gateway and can read it.
    fn of_gateway(&self, key: &ObjectKey, cache: &Cache, trusted: &Trusted) -> Vec<Step> {
        let Some((gateway, fleet)) = self.known(key, cache).filter(|_| !trusted.signing.is_empty()) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        let jobs = of_gateway(key, cache);
        let unended = jobs.iter().filter(|(_, job)| job.stage != Stage::Succeeded || job.leaving);
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
            let is_wanted = fleet.has_ordinal(ordinal) || is_asked(gateway, fleet, ordinal);
            let is_in_use = (is_wanted, cache.proxy_pods.contains_key(&pod));
            let spare = |generation| Spare {
                claim: name.clone(),
                fleet: key.clone(),
                fleet_uid: fleet.uid.clone(),
                generation,
                pod: pod.clone(),
            };
            match next(claim, fleet, job.map(|job| (job, cache.drain(&job_key))), is_in_use) {
                Next::Stop => steps.extend(job.and_then(|job| removed(&job_key, job))),
                Next::Remove(generation) => steps.push(Step::RemoveClaim(Emptied {
                    uid: claim.uid.clone(),
                    version: claim.version.clone(),
                    spare: spare(generation),
                })),
                Next::Drain(generation) if room > 0 => {
                    room -= 1;
                    let drained_for = drained_for(claim, fleet, generation);
                    let made = self.drainer((key, gateway), fleet, trusted, (name, ordinal), &drained_for);
                    steps.push(Step::Create(made, spare(generation)));
                }
                Next::Nothing | Next::Drain(_) => {}
            }
        }
        steps
    }

    /// The gateway and its fleet, if this operator runs them and everything about them is known.
    fn known<'a>(&self, key: &ObjectKey, cache: &'a Cache) -> Option<(&'a ForwardGateway, &'a FleetState)> {
        let (gateway, fleet) = (cache.world.gateways.get(key)?, cache.stateful_sets.get(key)?);
        let is_known = WATCHES.iter().all(|kind| cache.is_listed(*kind, &key.namespace));
        let is_ours = cache.unreadable_gateway(key).is_none() && self.fleets.refusal(&key.namespace, gateway).is_none();
        // The `StatefulSet` of a gateway that was deleted without its children belongs to another owner, and so do its
        // claims.
        let is_its = gateway.metadata.uid.as_ref().is_some_and(|uid| fleet.owners.contains(uid));
        let is_leaving = gateway.metadata.deletion_timestamp.is_some() || gateway.spec.durability.is_none();
        (is_known && is_ours && is_its && !is_leaving).then_some((gateway, fleet))
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

/// The next step for one claim.
enum Next {
    /// Wait.
    Nothing,
    /// Create a drainer, whose success will prove that the claim is empty in this generation.
    Drain(i64),
    /// Delete the drainer.
    Stop,
    /// Delete the claim, which is proved to be empty in this generation.
    Remove(i64),
}

/// Decides the next step for a claim. `job` is its drainer with its state. `is_wanted` says whether the fleet has, or
/// will have, a pod of this ordinal, and `has_pod` whether that pod exists.
fn next(
    claim: &ClaimState,
    fleet: &FleetState,
    job: Option<(&DrainerState, Drain)>,
    (is_wanted, has_pod): (bool, bool),
) -> Next {
    if is_wanted {
        // The fleet uses the claim, or uses it again.
        return if job.is_some() { Next::Stop } else { Next::Nothing };
    }
    // The controller may still create pods of an earlier generation.
    let Some(generation) = fleet.generation.filter(|_| fleet.is_observed && !has_pod) else { return Next::Nothing };
    match job {
        // A claim cannot be deleted while a pod refers to it, even a pod that has ended.
        Some(_) if claim.leaving => Next::Stop,
        None if claim.leaving => Next::Nothing,
        None => Next::Drain(generation),
        Some((job, _)) if job.leaving => Next::Nothing,
        Some((job, drain)) => match (job.stage, job.drained_for == drained_for(claim, fleet, generation)) {
            (Stage::Succeeded, true) => Next::Remove(generation),
            // Nothing else would send the messages, so the drainer is created again.
            (Stage::Succeeded, false) | (Stage::GivenUp, _) => Next::Stop,
            // A change of the fleet may fix the drainer: it may bring another image, or a place to run.
            (_, false) if drain != Drain::Runs => Next::Stop,
            _ => Next::Nothing,
        },
    }
}

/// The proof that the success of a drainer gives, if the drainer is made for this generation of the fleet.
fn drained_for(claim: &ClaimState, fleet: &FleetState, generation: i64) -> String {
    format!("{}.{}.{generation}", claim.uid, fleet.uid)
}

/// Whether the gateway needs a pod of this ordinal, although its `StatefulSet` may not have the change yet. With
/// `spec.autoscaling`, only the `StatefulSet` knows.
fn is_asked(gateway: &ForwardGateway, fleet: &FleetState, ordinal: i32) -> bool {
    let asked = if gateway.spec.autoscaling.is_some() { 0 } else { gateway.spec.replicas.unwrap_or(2) };
    (fleet.first..fleet.first.saturating_add(asked)).contains(&ordinal)
}

/// The drainers of a gateway. A Job with another name belongs to another owner, whatever its labels say.
fn of_gateway<'a>(gateway: &ObjectKey, cache: &'a Cache) -> BTreeMap<&'a ObjectKey, &'a DrainerState> {
    let first = ObjectKey::new(gateway.namespace.clone(), "");
    let here = cache.drainers.range(first..).take_while(|(key, _)| key.namespace == gateway.namespace);
    here.filter(|(_, job)| job.gateway == gateway.name && job.ordinal >= 0).collect()
}

fn removed(key: &ObjectKey, job: &DrainerState) -> Option<Step> {
    (!job.leaving).then(|| Step::RemoveDrainer { key: key.clone(), uid: job.uid.clone() })
}

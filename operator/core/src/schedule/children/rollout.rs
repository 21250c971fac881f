//! Decides which fleets may adopt changes of the installation now.
//!
//! The decision is derived from the gateways and their workloads as the watches show them. The only remembered state is
//! the time since which a `StatefulSet` makes no progress, so an operator that starts during a rollout continues it.

use std::collections::{BTreeMap, BTreeSet};

use crds::ForwardGateway;

use crate::{
    desired::{
        fleets::{Fleets, Rollout},
        revision::{image, revision},
    },
    status::rollout::Behind,
    world::{
        ObjectKey,
        objects::{FleetState, Progress, Revision},
    },
};

/// The desired revision of a fleet's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Image of the proxies.
    image: String,
    /// Whether the gateway pins the image.
    is_pinned: bool,
    revision: Revision,
}

impl Target {
    pub(super) fn of(gateway: &ForwardGateway, fleets: &Fleets) -> Self {
        let image = image(gateway, &fleets.image);
        let revision = revision(gateway, &Fleets { image: image.clone(), ..fleets.clone() });
        Self { image, is_pinned: gateway.spec.proxy_image.is_some(), revision }
    }

    /// Whether the fleet has adopted the changes. Its pods may still be starting.
    fn is_reached(&self, fleet: &FleetState) -> bool {
        fleet.revision.installation == self.revision.installation
    }
}

/// The permitted change of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// Adopt all changes, with this image.
    Current(String),
    /// Adopt the gateway's changes, with the image that the fleet has.
    Own(String),
    /// Keep its pods as they are.
    #[default]
    Kept,
}

/// One fleet of a rollout.
pub(super) struct Fleet<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) target: &'a Target,
    /// The Deployment; absent for a new fleet.
    pub(super) state: Option<&'a FleetState>,
    /// The progress of the fleet's rollout.
    pub(super) progress: Progress,
    /// Whether the status reports that applying its children fails.
    pub(super) fails: bool,
}

/// The order of a rollout at this moment.
#[derive(Debug, Default)]
pub(super) struct Queue {
    rollout: Rollout,
    /// The fleet whose turn it is.
    next: Option<ObjectKey>,
    /// The fleet that the others wait for.
    first: Option<ObjectKey>,
    /// Whether the new pods of that fleet do not become ready, or its Deployment cannot be written.
    is_stopped: bool,
}

impl Queue {
    /// The queue of these fleets, which are ordered by name.
    ///
    /// The first outdated fleet gets its turn once every other fleet has new and ready pods. A fleet whose rollout has
    /// not ended comes first: if an image is rolled back, the fleet that has it goes next.
    pub(super) fn of<'a>(rollout: Rollout, fleets: impl Iterator<Item = Fleet<'a>>) -> Self {
        let mut queue = Self { rollout, ..Self::default() };
        if rollout != Rollout::OneByOne {
            return queue;
        }
        let (mut unfinished, mut stopped): (Option<&ObjectKey>, Option<&ObjectKey>) = (None, None);
        let (mut torn, mut outdated): (Option<&ObjectKey>, Option<&ObjectKey>) = (None, None);
        let mut failing = BTreeSet::new();
        for Fleet { key, target, state, progress, fails } in fleets {
            let Some(state) = state else { continue };
            let first = match (target.is_reached(state), progress) {
                (true, Progress::Complete) => continue,
                (true, Progress::Running | Progress::Unready) => &mut unfinished,
                (true, Progress::Stopped) => &mut stopped,
                (false, Progress::Running | Progress::Stopped) => &mut torn,
                (false, Progress::Complete | Progress::Unready) => &mut outdated,
            };
            first.get_or_insert(key);
            if fails {
                failing.insert(key);
            }
        }
        let waits_for = stopped.or(unfinished);
        queue.next = torn.or(outdated).filter(|_| waits_for.is_none()).cloned();
        queue.first = waits_for.cloned().or_else(|| queue.next.clone());
        // A Deployment that cannot be written has no progress deadline.
        queue.is_stopped = stopped.is_some() || queue.next.as_ref().is_some_and(|next| failing.contains(next));
        queue
    }

    /// The permitted change of a fleet.
    pub(super) fn turn(&self, Fleet { key, target, state, .. }: &Fleet<'_>) -> Turn {
        let current = || Turn::Current(target.image.clone());
        let Some(state) = state else { return current() };
        let is_open = self.rollout == Rollout::AllAtOnce || self.next.as_ref() == Some(*key);
        if is_open || target.is_reached(state) || state.image.is_empty() {
            return current();
        }
        // A fleet that is older than the annotations matches its gateway, except for the pin, which was introduced with
        // them.
        let asks = match state.revision.gateway.as_str() {
            "" => target.is_pinned && state.image != target.image,
            known => known != target.revision.gateway,
        };
        match (asks, target.is_pinned) {
            (true, true) => current(),
            (true, false) => Turn::Own(state.image.clone()),
            (false, _) => Turn::Kept,
        }
    }

    /// The reason why a fleet has not adopted changes of the installation, for its status. `installation` is the image
    /// of the installation.
    pub(super) fn behind(&self, fleet: &Fleet<'_>, installation: &str) -> Option<Behind> {
        let Fleet { key, target, state, progress, .. } = fleet;
        if target.is_reached((*state)?) {
            if *progress == Progress::Stopped {
                return Some(Behind::Stopped);
            }
            let is_other = target.is_pinned && target.image != installation;
            return is_other.then(|| Behind::Pinned(installation.to_owned()));
        }
        match (self.rollout, &self.first) {
            (Rollout::Pinned, _) => Some(Behind::Kept(installation.to_owned())),
            (Rollout::OneByOne, Some(first)) if first != *key => {
                Some(Behind::Queued { image: target.image.clone(), first: first.clone(), is_stopped: self.is_stopped })
            }
            _ => None,
        }
    }
}

/// States of fleets, as the label of a metric.
const STATES: [&str; 5] = ["current", "rolling", "queued", "pinned", "stopped"];

/// The state of a fleet among [`STATES`].
pub(super) fn state_of(fleet: &Fleet<'_>, behind: Option<&Behind>) -> &'static str {
    match behind {
        Some(Behind::Stopped) => "stopped",
        Some(Behind::Queued { .. }) => "queued",
        Some(Behind::Pinned(_) | Behind::Kept(_)) => "pinned",
        None => match fleet.state {
            Some(state) if fleet.target.is_reached(state) && fleet.progress == Progress::Complete => "current",
            Some(state) if fleet.fails && !fleet.target.is_reached(state) => "stopped",
            _ => "rolling",
        },
    }
}

/// Number of fleets by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, usize>);

impl Default for Counts {
    fn default() -> Self {
        Self(STATES.into_iter().map(|state| (state, 0)).collect())
    }
}

impl Counts {
    pub(super) fn add(&mut self, state: &'static str) {
        *self.0.entry(state).or_default() += 1;
    }

    /// The states with their numbers; every state is present.
    pub fn by_state(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.0.iter().map(|(state, count)| (*state, *count))
    }
}

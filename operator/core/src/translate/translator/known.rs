//! One forward as last read and judged.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::dependents::Needs;
use crate::{
    translate::{
        admission::admitted,
        claims::Port,
        declared::Declared,
        groups::Group,
        judge::{Compiled, Judgement},
        validate::{Placement, ValidForward, Violation},
        verdict::{Condition, Reason, Verdict},
    },
    world::{ObjectKey, World},
};

/// One forward as last read and judged.
#[derive(Debug)]
pub(super) struct Known {
    /// Uid and generation of the object that was read.
    object: (Option<String>, Option<i64>),
    /// Whether the object was recreated since it was judged: its UID differs.
    is_recreated: bool,
    read: Result<ValidForward, Condition>,
    /// The last good version, while the newest one is refused as a mistake.
    good: Option<Box<ValidForward>>,
    /// Placement of the version that runs; `None` if none does.
    place: Option<Placement>,
    judgement: Judgement,
    /// The gateway that the forward names, or that its last good version runs in.
    gateway: Option<ObjectKey>,
    /// Services that the forward names or that its listeners use, sorted.
    services: Vec<ObjectKey>,
    /// Agents that the forward names or that its listeners use, sorted.
    agents: Vec<ObjectKey>,
}

impl Known {
    /// Reads an object. The judgement stays the old one until [`Known::replace`].
    pub(super) fn read(world: &World, declared: Declared, mut old: Option<Self>) -> Self {
        let Declared { object, gateway: named, forward } = declared;
        // A recreated object (new UID) inherits nothing.
        let is_recreated = old.as_ref().is_some_and(|old| old.object.0 != object.0);
        let read = valid_and_admitted(world, forward);
        let is_mistaken = read.as_ref().is_err_and(|why| why.reason == Reason::Invalid);
        let good = old.as_mut().filter(|_| is_mistaken && !is_recreated).and_then(Self::take_good);
        let (services, agents, judgement) = match old {
            Some(old) => (old.services, old.agents, old.judgement),
            None => (Vec::new(), Vec::new(), Judgement::refused(placeholder())),
        };
        // The last good version runs as long as its gateway admits it, like any other version.
        let admitted = good.as_deref().filter(|good| admitted(world, good).is_ok());
        let place = read.as_ref().ok().or(admitted).map(|forward| forward.placement.clone());
        // If the gateway of the last good version admits it again, the forward is read again.
        let gateway = match place.as_ref().or(good.as_deref().map(|good| &good.placement)) {
            Some(Placement::Gateway(gateway)) => Some(gateway.clone()),
            Some(Placement::Sidecar(_)) | None => named,
        };
        Self { object, is_recreated, read, good, place, judgement, gateway, services, agents }
    }

    /// Takes the version that stays in force if the next one is a mistake: a version that ran or was suspended.
    fn take_good(&mut self) -> Option<Box<ValidForward>> {
        if self.good.is_some() {
            return self.good.take();
        }
        let has_run = !self.judgement.compiled.is_empty();
        let read = std::mem::replace(&mut self.read, Err(placeholder()));
        read.ok().filter(|forward| has_run || forward.suspended).map(Box::new)
    }

    /// The forward after its object is gone, until the forward is judged.
    pub(super) fn without_object(self) -> Self {
        Self { read: Err(placeholder()), good: None, place: None, ..self }
    }

    /// A forward that was never readable: only its verdict is known.
    pub(super) fn never_read(judgement: Judgement) -> Self {
        Self {
            object: (None, None),
            is_recreated: false,
            read: Err(judgement.verdict.accepted.clone()),
            good: None,
            place: None,
            judgement,
            gateway: None,
            services: Vec::new(),
            agents: Vec::new(),
        }
    }

    /// The valid and admitted spec, or why the forward is refused.
    pub(super) fn spec(&self) -> Result<&ValidForward, &Condition> {
        self.read.as_ref()
    }

    /// The version that is in force: the newest one or, while that is refused as a mistake, the last good one.
    pub(super) fn in_force(&self) -> Option<&ValidForward> {
        self.place.as_ref()?;
        self.read.as_ref().ok().or(self.good.as_deref())
    }

    /// The placement of the forward, or of its last good version that keeps running.
    pub(super) fn place(&self) -> Option<&Placement> {
        self.place.as_ref()
    }

    /// The gateway that the forward names, or in which its last good version runs, as a slice of at most one item.
    pub(super) fn gateway(&self) -> &[ObjectKey] {
        self.gateway.as_slice()
    }

    /// Services that the forward names or that its listeners use, sorted.
    pub(super) fn services(&self) -> &[ObjectKey] {
        &self.services
    }

    /// Agents that the forward names or that its listeners use, sorted.
    pub(super) fn agents(&self) -> &[ObjectKey] {
        &self.agents
    }

    /// Addresses that backends of the forward name, sorted: see [`Judgement::addresses`].
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.judgement.addresses
    }

    /// The last verdict.
    pub(super) fn verdict(&self) -> &Verdict {
        &self.judgement.verdict
    }

    /// The listeners to run, by the last judgement.
    pub(super) fn compiled(&self) -> &[Compiled] {
        &self.judgement.compiled
    }

    /// The gateway in which the forward is suspended, and the ports that it keeps there.
    pub(super) fn held(&self) -> Option<&(Group, BTreeSet<Port>)> {
        self.judgement.held.as_ref()
    }

    /// The listeners that may stay in their last good version; none if the object of this name is another one.
    pub(super) fn last_good(&self) -> &[Compiled] {
        if self.is_recreated { &[] } else { self.compiled() }
    }

    /// Whether this UID and generation of the object were read.
    pub(super) fn is_about(&self, metadata: &ObjectMeta) -> bool {
        let (uid, generation) = &self.object;
        *uid == metadata.uid && *generation == metadata.generation
    }

    /// Replaces the judgement; returns the listeners of the previous one.
    pub(super) fn replace(&mut self, judgement: Judgement, needs: Needs) -> Vec<Compiled> {
        self.is_recreated = false;
        (self.services, self.agents) = (needs.services, needs.agents);
        std::mem::replace(&mut self.judgement, judgement).compiled
    }

    /// Consumes the forward, and returns the listeners of the last judgement.
    pub(super) fn into_compiled(self) -> Vec<Compiled> {
        self.judgement.compiled
    }
}

fn valid_and_admitted(world: &World, read: Result<ValidForward, Vec<Violation>>) -> Result<ValidForward, Condition> {
    let valid = read.map_err(|violations| {
        let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
        Condition::unmet(Reason::Invalid, all.join("; "))
    })?;
    admitted(world, &valid).map(|()| valid)
}

/// Placeholder for the condition of a forward before its object is read and after its object is gone.
pub(super) fn placeholder() -> Condition {
    Condition::met(Reason::Accepted, "")
}

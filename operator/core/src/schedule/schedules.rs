//! The schedules of one term: routes changes to them, and collects their due effects.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    desired::{ca::Trusted, gateway::Fleets},
    schedule::{
        Effect, View,
        agents::Agents,
        autoscalers::Autoscalers,
        children::Gateways,
        cut_off::{Counted, CutOff},
        deletion_costs::Costs,
        drainers::Drainers,
        enrolments::Enrolments,
        outdated_sidecars::OutdatedSidecars,
        statuses::Statuses,
        unused_roots::UnusedRoots,
    },
    status::fleets::Moved,
    translate::{groups::Group, translator::Translator, update::Update},
    world::{
        ObjectKey, World,
        cache::{Cache, Touched},
        subject::Subject,
    },
};

/// The schedules of one term.
pub struct Schedules {
    /// Statuses of forwards.
    pub statuses: Statuses,
    /// Children and statuses of gateways.
    pub gateways: Gateways,
    /// Statuses of agents.
    pub agents: Agents,
    /// Secrets with the join strings of agents.
    pub enrolments: Enrolments,
    /// Removal of tunnel roots that nothing needs.
    pub roots: UnusedRoots,
    /// HPAs.
    pub autoscalers: Autoscalers,
    /// Deletion costs of pods.
    pub costs: Costs,
    /// Drains of claims.
    pub drainers: Drainers,
    /// Counts of proxies that a new CA has cut off.
    pub cut_off: CutOff,
    /// Counts of outdated sidecars.
    pub sidecars: OutdatedSidecars,
}

/// The changes that one translation processed.
pub struct Looked {
    /// The objects that were touched since the previous translation.
    pub touched: Touched,
    /// The update of the translation.
    pub update: Update,
    /// The groups whose pods changed.
    pub moved: Moved,
}

/// The results of a tick.
pub struct Due {
    /// The effects.
    pub effects: Vec<Effect>,
    /// A count of proxies that are cut off.
    pub cut_off: Option<Counted>,
}

impl Schedules {
    /// The schedules of a term that begins now.
    #[must_use]
    pub fn new(fleets: &Fleets, autoscaling: bool, now: Duration) -> Self {
        Self {
            statuses: Statuses::new(now),
            gateways: Gateways::new(fleets.clone()),
            agents: Agents::new(now),
            enrolments: Enrolments::default(),
            roots: UnusedRoots::new(now),
            autoscalers: Autoscalers::new(autoscaling),
            costs: Costs::default(),
            drainers: Drainers::new(fleets.clone()),
            cut_off: CutOff::default(),
            sidecars: OutdatedSidecars::default(),
        }
    }

    /// Takes changes from the watches. A replica that does not lead keeps no statuses.
    pub fn seen(&mut self, touched: &Touched, cache: &Cache, leads: bool, now: Duration) {
        if leads {
            for key in &touched.forwards {
                self.statuses.seen(key, cache.forward(key).as_deref(), now);
            }
            for key in &touched.agents {
                self.agents.seen(key, cache.agent(key).as_deref());
            }
        }
        for key in &touched.gateways {
            self.gateways.touch(key);
            self.enrolments.gateway(key, &cache.world);
        }
    }

    /// Takes a published translation of the world.
    pub fn looked(&mut self, looked: Looked, world: &World, translator: &Translator, now: Duration) {
        let Looked { touched, update, moved } = looked;
        self.agents.translated(&touched.changes, world);
        self.agents.reaching(&update.agents);
        self.agents.reaching(&update.reaching);
        self.enrolments.translated(&touched.changes, world);
        self.statuses.verdicts(update.verdicts, now);
        self.statuses.pods(touched.proxy_pods.iter().chain(&touched.changes.pods), now);
        // A new generation must be observed in status even if the new spec compiles to the same listeners.
        self.statuses.look_at(touched.changes.forwards, now);
        self.statuses.look_at(update.unreached, now);
        self.statuses.fleets(&moved, translator, now);
        for group in moved.keys() {
            if let Group::Gateway(key) = group {
                self.gateways.touch(key);
                self.agents.fleet(key, world);
            }
        }
        for group in &update.ports {
            if let Group::Gateway(key) = group {
                self.gateways.listeners(key);
            }
        }
    }

    /// Schedules the status of an object for evaluation.
    pub fn look_at(&mut self, subject: &Subject, now: Duration) {
        match subject {
            Subject::Forward(key) => self.statuses.look_at(BTreeSet::from([key.clone()]), now),
            Subject::Gateway(key) => self.gateways.touch(key),
            Subject::Agent(key) => self.agents.look_at(key),
        }
    }

    /// Returns the due status writes of forwards, at most as many as there is room for.
    pub fn evaluate(&mut self, view: &View<'_>, room: usize, now: Duration) -> Vec<Effect> {
        let Self { statuses, autoscalers, .. } = self;
        let scaling = |key: &ObjectKey| autoscalers.finding(&Subject::Forward(key.clone()), view.cache);
        statuses.evaluate(view, &scaling, room, now)
    }

    /// Returns all other due effects. `is_other` says whether the trusted CA certificates have changed, and `has_costs`
    /// whether deletion costs are written.
    pub fn tick(
        &mut self,
        view: &View<'_>,
        (trusted, is_other): (&Trusted, bool),
        (room, has_costs): (usize, bool),
        now: Duration,
    ) -> Due {
        let cache = view.cache;
        self.statuses.refresh(now);
        let (mut effects, others) = self.autoscalers.tick(cache, now);
        if has_costs {
            effects.extend(self.costs.tick(view, now).into_iter().map(Effect::WriteCost));
        }
        let cut_off = self.cut_off.tick(view, trusted, now);
        let Self { gateways, autoscalers, .. } = self;
        let scaling = |key: &ObjectKey| autoscalers.finding(&Subject::Gateway(key.clone()), cache);
        effects.extend(gateways.tick(view, trusted, is_other, &scaling, now));
        let steps = self.drainers.tick(view, trusted, now);
        effects.extend(steps.into_iter().map(|step| Effect::Drain(Box::new(step))));
        effects.extend(self.agents.tick(view, room, now));
        effects.extend(self.enrolments.tick(cache, now));
        effects.extend(self.roots.tick(&cache.world, now));
        for subject in others {
            self.look_at(&subject, now);
        }
        Due { effects, cut_off }
    }
}

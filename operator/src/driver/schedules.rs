//! The schedules of one term.

use std::time::Duration;

use operator_core::{
    desired::gateway::Fleets,
    schedule::{
        agents::Agents, autoscalers::Autoscalers, children::Gateways, cut_off::CutOff, deletion_costs::Costs,
        drainers::Drainers, enrolments::Enrolments, outdated_sidecars::OutdatedSidecars, statuses::Statuses,
        unused_roots::UnusedRoots,
    },
};

/// The schedules of one term.
pub(super) struct Schedules {
    pub(super) statuses: Statuses,
    pub(super) gateways: Gateways,
    pub(super) agents: Agents,
    pub(super) enrolments: Enrolments,
    pub(super) roots: UnusedRoots,
    pub(super) autoscalers: Autoscalers,
    pub(super) costs: Costs,
    pub(super) drainers: Drainers,
    pub(super) cut_off: CutOff,
    pub(super) sidecars: OutdatedSidecars,
}

impl Schedules {
    pub(super) fn new(fleets: &Fleets, autoscaling: bool, now: Duration) -> Self {
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
}

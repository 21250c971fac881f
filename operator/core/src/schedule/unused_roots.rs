//! Schedules the leader's check for tunnel roots that are no longer used.

use std::time::Duration;

use crate::{schedule::Effect, world::World};

/// Interval between two checks, and from the start of a term to the first check: by then, every gateway whose agents
/// are accepted has used its root in this term. Most checks write nothing.
const EVERY: Duration = Duration::from_secs(3600);

/// The checks of one leader election term.
#[derive(Debug)]
pub struct UnusedRoots {
    due: Duration,
}

impl UnusedRoots {
    /// Begins a leader election term.
    #[must_use]
    pub fn new(began: Duration) -> Self {
        Self { due: began + EVERY }
    }

    /// Returns the check if it is due. Without a gateway with tunnels, no root needs a place, and the operator may lack
    /// permission to read the Secret.
    pub fn tick(&mut self, world: &World, now: Duration) -> Option<Effect> {
        if now < self.due {
            return None;
        }
        self.due = now + EVERY;
        let has_tunnels = world.gateways.values().any(|gateway| gateway.spec.tunnels.is_some());
        has_tunnels.then_some(Effect::RemoveUnusedRoots)
    }
}

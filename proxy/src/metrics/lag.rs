//! The lag of durable listeners, for the admin address and the operator.

use std::{collections::BTreeMap, sync::PoisonError};

use proxy_api::{Lag, ListenerId};

use super::Metrics;
use crate::core::durable::{delivery::Seen, lag};

impl Metrics {
    /// The last state of the messages of durable listeners.
    #[must_use]
    pub fn durable(&self) -> BTreeMap<ListenerId, Seen> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(|shared| Some((shared.id.clone(), shared.counters.durable()?))).collect()
    }

    /// The lag of all durable listeners.
    pub(crate) fn lag(&self) -> Vec<Lag> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(|shared| Some(lag::of(&shared.id, &shared.counters.durable()?))).collect()
    }
}

//! What durable listeners have for their sinks, for the admin address.

use std::{collections::BTreeMap, sync::PoisonError};

use proxy_api::ListenerId;
use serde::Serialize;

use super::Metrics;
use crate::core::delivery::Seen;

/// One durable listener.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lag {
    listener: String,
    delivery: &'static str,
    oldest_seconds: u64,
    backlog: u64,
    log_bytes: u64,
    received: u64,
    delivered: u64,
    resent: u64,
    dropped: u64,
    dead_lettered: u64,
}

impl Lag {
    fn of(id: &ListenerId, seen: &Seen) -> Self {
        Self {
            listener: id.to_string(),
            delivery: seen.delivery.as_str(),
            oldest_seconds: seen.oldest_seconds,
            backlog: seen.backlog,
            log_bytes: seen.bytes,
            received: seen.received,
            delivered: seen.delivered,
            resent: seen.resent,
            dropped: seen.dropped.iter().map(|(_, count)| count).sum::<u64>() + seen.kernel_drops + seen.lost,
            dead_lettered: seen.dead_lettered,
        }
    }
}

impl Metrics {
    /// What was last seen of the messages of durable listeners.
    #[must_use]
    pub fn durable(&self) -> BTreeMap<ListenerId, Seen> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(|shared| Some((shared.id.clone(), shared.counters.durable()?))).collect()
    }

    /// All durable listeners.
    pub(crate) fn lag(&self) -> Vec<Lag> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(|shared| Some(Lag::of(&shared.id, &shared.counters.durable()?))).collect()
    }
}

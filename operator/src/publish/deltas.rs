//! What leads from one snapshot to another, encoded once for all streams that take this step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use operator_core::Snapshot;
use proxy_api::{Change, PARTS, ToProxy};
use proxy_grpc::Frame;

/// Steps that are remembered; a fleet takes one at a time, its stragglers a few.
const REMEMBERED: usize = 64;

type Step = (u64, u64);

/// Encoded steps of one term.
#[derive(Debug, Default)]
pub struct Deltas {
    steps: Mutex<HashMap<Step, Arc<Vec<Frame>>>>,
}

impl Deltas {
    /// The messages that lead from one snapshot to another.
    ///
    /// # Errors
    /// Only if a listener does not serialise.
    pub fn step(&self, from: &Snapshot, to: &Snapshot) -> Result<Arc<Vec<Frame>>, serde_json::Error> {
        let step = (from.configuration.version.number, to.configuration.version.number);
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frames) = steps.get(&step) {
            return Ok(frames.clone());
        }
        let frames = Arc::new(encode(to.configuration.changes_since(&from.configuration, PARTS), to)?);
        if steps.len() >= REMEMBERED {
            steps.clear();
        }
        steps.insert(step, frames.clone());
        Ok(frames)
    }
}

/// Encodes an update that ends with the digest of what the proxy then runs.
///
/// # Errors
/// Only if a listener does not serialise.
pub(crate) fn encode(mut parts: Vec<Change>, to: &Snapshot) -> Result<Vec<Frame>, serde_json::Error> {
    if let Some(last) = parts.last_mut() {
        last.digest = Some(to.digest.clone());
    }
    let message = |change| ToProxy { change: Some(change), ..ToProxy::default() };
    parts.into_iter().map(|change| proxy_grpc::frame(&message(change))).collect()
}

//! Changes from one snapshot to another, encoded once for all streams that take the same step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use operator_core::Snapshot;
use proxy_api::{Change, Digest, ToProxy};
use proxy_grpc::Frame;

/// Most steps that are cached. A fleet takes one step at a time; its slowest proxies take a few others.
const REMEMBERED: usize = 64;
/// Most bytes of steps that are cached.
const BYTES: usize = 32 << 20;

/// Number and digest at the start of a step, and at its end. Groups with the same configuration share steps.
type Step = (u64, Digest, u64, Digest);

/// Encoded steps of one term.
#[derive(Debug, Default)]
pub struct Deltas {
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    frames: HashMap<Step, Arc<Vec<Frame>>>,
    bytes: usize,
}

impl Deltas {
    /// Returns the messages that lead from one snapshot to another.
    ///
    /// # Errors
    /// A listener does not serialize.
    pub fn step(&self, from: &Snapshot, to: &Snapshot) -> Result<Arc<Vec<Frame>>, serde_json::Error> {
        let step = (from.version.number, from.digest.clone(), to.version.number, to.digest.clone());
        // One stream encodes while the others wait, because they mostly need the same step.
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frames) = steps.frames.get(&step) {
            return Ok(frames.clone());
        }
        let frames = Arc::new(encode(to.changes_since(from), to)?);
        let bytes: usize = frames.iter().map(Frame::len).sum();
        if steps.frames.len() >= REMEMBERED || steps.bytes + bytes > BYTES {
            *steps = Steps::default();
        }
        steps.bytes += bytes;
        steps.frames.insert(step, frames.clone());
        Ok(frames)
    }
}

/// Encodes an update. Its last message has the digest of the configuration that the proxy then runs.
///
/// # Errors
/// A listener does not serialize.
pub(crate) fn encode(mut parts: Vec<Change>, to: &Snapshot) -> Result<Vec<Frame>, serde_json::Error> {
    if let Some(last) = parts.last_mut() {
        last.digest = Some(to.digest.clone());
    }
    let message = |change| ToProxy { change: Some(change), ..ToProxy::default() };
    parts.into_iter().map(|change| proxy_grpc::frame(&message(change))).collect()
}

//! Heartbeats of the loops that a replica depends on, for `/livez`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use operator_core::schedule::liveness::{Pulse, complaint};

/// The heartbeat of one loop.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    name: &'static str,
    started: Instant,
    /// Time of the last sign of life, milliseconds since `started`.
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Gives a sign of life.
    pub fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
    }

    fn pulse(&self) -> Pulse {
        Pulse { name: self.name, last: Duration::from_millis(self.last.load(Relaxed)) }
    }
}

/// The heartbeats of one replica.
#[derive(Clone, Debug)]
pub struct Liveness {
    started: Instant,
    heartbeats: Vec<Heartbeat>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { started: Instant::now(), heartbeats: Vec::new() }
    }
}

impl Liveness {
    /// Adds a loop, whose first sign of life is now.
    pub fn heartbeat(&mut self, name: &'static str) -> Heartbeat {
        let heartbeat = Heartbeat { name, started: self.started, last: Arc::default() };
        heartbeat.beat();
        self.heartbeats.push(heartbeat.clone());
        heartbeat
    }

    /// Names the loops that hang; `None` if no loop hangs.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let pulses: Vec<Pulse> = self.heartbeats.iter().map(Heartbeat::pulse).collect();
        complaint(&pulses, self.started.elapsed())
    }
}

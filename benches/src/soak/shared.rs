//! What all tasks of the load share: counts, faults, and the sign to stop.

use std::{
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::weather::Weather;

/// Faults that are printed in words.
const TOLD: usize = 20;

/// What all tasks of the load share.
#[derive(Debug)]
pub(crate) struct Shared {
    stop: AtomicBool,
    pub(crate) sessions: AtomicU64,
    pub(crate) changes: AtomicU64,
    pub(crate) datagrams: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) weather: Weather,
    /// The number of faults, and the first of them.
    faults: Mutex<(u64, Vec<String>)>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            weather: Weather::new(),
            faults: Mutex::default(),
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Counts what went wrong.
    pub(crate) fn fault(&self, what: &str, why: &dyn Display) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.0 += 1;
        if faults.1.len() < TOLD {
            eprintln!("fault: {what}: {why}");
            faults.1.push(format!("{what}: {why}"));
        }
    }

    /// The number of faults, and the first of them in words.
    pub(crate) fn faults(&self) -> (u64, Vec<String>) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

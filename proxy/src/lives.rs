//! Signs of life of the threads and tasks on which the process depends.
//!
//! A thread that hangs is detected by its missing beats ([`crate::core::workers::heartbeat`]), one that panics by its
//! guard. /livez fails for both and names the thread; a death also ends the process.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    clock::Clock,
    core::workers::heartbeat::{Beat, LONGEST_SILENCE, hung},
};

/// The threads and tasks that give signs of life, and those that have died.
#[derive(Debug)]
pub struct Lives {
    clock: Clock,
    beating: Mutex<Vec<Arc<Entry>>>,
    died: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Time of the last beat, in seconds of the process clock.
    at: AtomicU64,
}

impl Lives {
    /// Creates an empty set of threads.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, beating: Mutex::default(), died: Mutex::default() })
    }

    /// The clock of the beats, which is that of the process.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Registers a thread or task that beats at least once a second from now on, until the result is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, name: impl Into<String>) -> Life {
        let name = name.into();
        let entry = Arc::new(Entry { name: name.clone(), at: AtomicU64::new(self.clock.seconds()) });
        lock(&self.beating).push(entry.clone());
        Life { entry, guard: self.guard(name) }
    }

    /// Registers a thread or task that gives no signs of life, but must not panic.
    #[must_use]
    pub fn guard(self: &Arc<Self>, name: impl Into<String>) -> Guard {
        Guard { lives: self.clone(), name: name.into() }
    }

    /// Runs a task that must not end by itself.
    pub async fn watch(self: Arc<Self>, name: impl Into<String>, task: impl Future<Output = ()>) {
        let guard = self.guard(name);
        task.await;
        guard.died();
    }

    /// Runs a task that may end by itself, but must not panic.
    pub async fn shield(self: Arc<Self>, name: impl Into<String>, task: impl Future<Output = ()>) {
        let _guard = self.guard(name);
        task.await;
    }

    /// Names of threads and tasks that have been silent for too long at `now` (seconds of the process clock).
    #[must_use]
    pub fn hung(&self, now: u64) -> BTreeSet<String> {
        let beating = lock(&self.beating);
        let beats = beating.iter().map(|entry| Beat { name: &entry.name, at: entry.at.load(Relaxed) });
        hung(now, beats).into_iter().map(str::to_owned).collect()
    }

    /// Names of threads and tasks that have died.
    #[must_use]
    pub fn died(&self) -> BTreeSet<String> {
        lock(&self.died).clone()
    }

    /// The faults at `now` (seconds of the process clock), a sentence for each thread or task.
    #[must_use]
    pub fn complaints(&self, now: u64) -> Vec<String> {
        let died = self.died().into_iter().map(|name| format!("{name} has ended unexpectedly"));
        let hung = self.hung(now).into_iter();
        died.chain(hung.map(|name| format!("{name} has not made progress for {LONGEST_SILENCE} s"))).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread or task that beats.
#[derive(Debug)]
pub struct Life {
    entry: Arc<Entry>,
    guard: Guard,
}

impl Life {
    /// Gives a sign of life.
    pub fn beat(&self) {
        self.entry.at.store(self.guard.lives.clock.seconds(), Relaxed);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        lock(&self.guard.lives.beating).retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

/// Reports a thread or task as dead if it panics.
#[derive(Debug)]
pub struct Guard {
    lives: Arc<Lives>,
    name: String,
}

impl Guard {
    /// Reports that the thread or task has ended although it must not.
    pub fn died(&self) {
        lock(&self.lives.died).insert(self.name.clone());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.died();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_too_long_is_named_until_the_next_beat() {
        let lives = Lives::new(Clock::start());
        let (stuck, other) = (lives.begin("worker-1"), lives.begin("worker-0"));
        let late = LONGEST_SILENCE + 100;
        other.entry.at.store(late, Relaxed);
        assert_eq!(lives.complaints(late), ["worker-1 has not made progress for 20 s"]);
        stuck.entry.at.store(late, Relaxed);
        assert!(lives.complaints(late).is_empty());
    }

    #[test]
    fn who_has_ended_in_order_is_forgotten() {
        let lives = Lives::new(Clock::start());
        drop(lives.begin("worker-0"));
        assert!(lives.complaints(u64::MAX).is_empty());
    }

    #[test]
    fn a_thread_that_panics_is_named() {
        let lives = Lives::new(Clock::start());
        let life = lives.begin("worker-0");
        let thread = thread::spawn(move || {
            life.beat();
            panic!("as the test wants");
        });
        thread.join().expect_err("a panic");
        assert_eq!(lives.complaints(0), ["worker-0 has ended unexpectedly"]);
    }

    #[test]
    fn a_task_that_must_not_end_is_named_when_it_does() {
        let lives = Lives::new(Clock::start());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(lives.clone().watch("health address", async {}));
        assert_eq!(lives.died(), BTreeSet::from(["health address".to_owned()]));
    }

    #[test]
    fn a_task_that_may_end_is_named_only_if_it_panics() {
        let lives = Lives::new(Clock::start());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(lives.clone().shield("one that ends", async {}));
        let panics = std::future::poll_fn(|_| -> std::task::Poll<()> { panic!("as the test wants") });
        let task = runtime.spawn(lives.clone().shield("one that panics", panics));
        runtime.block_on(task).expect_err("a panic");
        assert_eq!(lives.died(), BTreeSet::from(["one that panics".to_owned()]));
    }
}

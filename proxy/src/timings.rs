//! Durations of connects and sessions, over all listeners.
//!
//! Each worker counts in memory of its own, and a scrape adds up the counts of all. One histogram for all would be a
//! lock that each connection takes twice.

use std::{
    iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Bounds of the durations of connects.
const CONNECT: Bounds = Bounds { first: 250, factor: 4, count: 9 };
/// Bounds of the durations of sessions.
const SESSION: Bounds = Bounds { first: 10_000, factor: 10, count: 8 };
/// Most buckets of a histogram, including the one that has no bound.
const MOST_BUCKETS: usize = 10;

const _: () = assert!(CONNECT.count < MOST_BUCKETS && SESSION.count < MOST_BUCKETS);

/// The upper bounds of buckets: the first in microseconds, and each `factor` times the one before.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    first: u64,
    factor: u64,
    count: usize,
}

impl Bounds {
    fn uppers(self) -> impl Iterator<Item = Duration> {
        let micros = iter::successors(Some(self.first), move |micros| micros.checked_mul(self.factor));
        micros.take(self.count).map(Duration::from_micros)
    }

    /// The bucket of a duration; the one after the last bound has all longer ones.
    fn bucket(self, took: Duration) -> usize {
        self.uppers().take_while(|upper| took > *upper).count()
    }
}

/// Durations of one kind.
#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; MOST_BUCKETS],
    micros: AtomicU64,
}

impl Counts {
    fn add(&self, bounds: Bounds, took: Duration) {
        if let Some(count) = self.buckets.get(bounds.bucket(took)) {
            count.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or_default(), Relaxed);
    }
}

/// The durations of one worker. No other worker has counts in the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Times {
    connects: Counts,
    sessions: Counts,
}

/// The counts of one worker.
#[derive(Debug)]
pub struct WorkerTimings(Arc<Times>);

impl WorkerTimings {
    /// Records the duration of a connect.
    pub fn connected(&self, took: Duration) {
        self.0.connects.add(CONNECT, took);
    }

    /// Records the duration of a session.
    pub fn ended(&self, lived: Duration) {
        self.0.sessions.add(SESSION, lived);
    }
}

/// A histogram as a scrape shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    /// Sum of all durations, in seconds.
    pub(crate) sum: f64,
    /// Number of durations.
    pub(crate) count: u64,
    /// Upper bounds in seconds, and the number of durations between each and the bound before.
    pub(crate) buckets: Vec<(f64, u64)>,
}

/// The durations of all workers.
#[derive(Debug, Default)]
pub struct Timings(Mutex<Vec<Arc<Times>>>);

impl Timings {
    /// Adds the counts of one more worker.
    #[must_use]
    pub fn of_worker(&self) -> WorkerTimings {
        let times = Arc::<Times>::default();
        self.lock().push(times.clone());
        WorkerTimings(times)
    }

    /// The durations of connects.
    pub(crate) fn connects(&self) -> Histogram {
        self.sum(CONNECT, |times| &times.connects)
    }

    /// The durations of sessions.
    pub(crate) fn sessions(&self) -> Histogram {
        self.sum(SESSION, |times| &times.sessions)
    }

    fn sum(&self, bounds: Bounds, kind: fn(&Times) -> &Counts) -> Histogram {
        let all = self.lock().clone();
        let sum_of = |count: &dyn Fn(&Counts) -> u64| -> u64 {
            all.iter().map(|times| count(kind(times))).fold(0, u64::wrapping_add)
        };
        let in_bucket = |at: usize| sum_of(&|counts| counts.buckets.get(at).map_or(0, |count| count.load(Relaxed)));
        let uppers = bounds.uppers().map(|upper| upper.as_secs_f64()).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = uppers.enumerate().map(|(at, upper)| (upper, in_bucket(at))).collect();
        let micros = sum_of(&|counts| counts.micros.load(Relaxed));
        let count = buckets.iter().map(|(_, count)| *count).sum();
        Histogram { sum: Duration::from_micros(micros).as_secs_f64(), count, buckets }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Times>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_the_times_of_all_workers() {
        let timings = Timings::default();
        let (one, other) = (timings.of_worker(), timings.of_worker());
        for micros in [0, 250, 251] {
            one.connected(Duration::from_micros(micros));
        }
        one.connected(Duration::from_millis(1));
        other.connected(Duration::from_millis(1));
        other.connected(Duration::from_secs(17));
        other.ended(Duration::from_millis(10));
        drop(other);
        let connects = timings.connects();
        let uppers = [0.000_25, 0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096, 16.384, f64::INFINITY];
        assert_eq!(connects.buckets, uppers.into_iter().zip([2, 3, 0, 0, 0, 0, 0, 0, 0, 1]).collect::<Vec<_>>());
        assert_eq!((connects.count, connects.sum), (6, 17.002_501));
        let sessions = timings.sessions();
        let uppers = [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0, f64::INFINITY];
        assert_eq!(sessions.buckets, uppers.into_iter().zip([1, 0, 0, 0, 0, 0, 0, 0, 0]).collect::<Vec<_>>());
        assert_eq!((sessions.count, sessions.sum), (1, 0.01));
    }

    #[test]
    fn workers_count_in_no_common_line() {
        let timings = Timings::default();
        let _workers = [(); 4].map(|()| timings.of_worker());
        let lines = |times: &Arc<Times>| {
            let start = Arc::as_ptr(times).addr();
            start / 128..(start + size_of::<Times>()).div_ceil(128)
        };
        let all = timings.lock().clone();
        for (at, times) in all.iter().enumerate() {
            let mut others = all.iter().take(at).map(lines);
            assert!(others.all(|other| other.end <= lines(times).start || lines(times).end <= other.start));
        }
    }
}

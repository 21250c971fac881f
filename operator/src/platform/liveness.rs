//! Heartbeats of the loops that a replica depends on, for `/livez`.

use std::{
    borrow::Cow,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use operator_core::schedule::liveness::{Pulse, SILENCE, complaint};
use tokio::time::{Instant, timeout};

use crate::platform::deadline::{RequestError, answer};

/// Interval between two beats of a loop that waits.
const BEAT: Duration = Duration::from_secs(5);

/// The heartbeat of one loop. A loop that has ended and dropped its heartbeat is not reported: its supervisor handles
/// that.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    name: Cow<'static, str>,
    started: Instant,
    /// Time of the last beat, milliseconds since `started`.
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Records a beat.
    pub fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
    }

    /// Waits for something that may take any time, such as a message or the next round, and beats meanwhile. The beats
    /// stop if the thread of the loop is blocked.
    pub async fn idle<T>(&self, wait: impl Future<Output = T>) -> T {
        self.idle_with(BEAT, wait).await
    }

    async fn idle_with<T>(&self, interval: Duration, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        loop {
            self.beat();
            if let Ok(result) = timeout(interval, wait.as_mut()).await {
                self.beat();
                return result;
            }
        }
    }

    /// Awaits the answer of the API server to one request of a loop, within the deadline of a request.
    ///
    /// # Errors
    /// The API server refused the request, cannot be reached, or did not answer in time.
    pub async fn answer<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
        self.request(Box::pin(answer(request))).await
    }

    /// Awaits one request to another process, whose own deadline is shorter than the longest permitted time between two
    /// beats. The loop beats before the request and after it, but not meanwhile: a request that never ends is reported.
    pub async fn request<T>(&self, request: impl Future<Output = T>) -> T {
        self.beat();
        let result = request.await;
        self.beat();
        result
    }

    fn pulse(&self) -> Pulse<'_> {
        Pulse { name: &self.name, last: Duration::from_millis(self.last.load(Relaxed)), patience: SILENCE }
    }
}

/// The heartbeats of one replica.
#[derive(Clone, Debug)]
pub struct Liveness {
    started: Instant,
    heartbeats: Arc<Mutex<Vec<Heartbeat>>>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { started: Instant::now(), heartbeats: Arc::default() }
    }
}

impl Liveness {
    /// Adds a loop, whose first beat is now.
    #[must_use]
    pub fn heartbeat(&self, name: impl Into<Cow<'static, str>>) -> Heartbeat {
        let heartbeat = Heartbeat { name: name.into(), started: self.started, last: Arc::default() };
        heartbeat.beat();
        let mut heartbeats = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        forget_ended(&mut heartbeats);
        heartbeats.push(heartbeat.clone());
        heartbeat
    }

    /// Heartbeats with one loop that has been silent for this long.
    #[cfg(test)]
    pub(crate) fn with_silent(name: &'static str, silence: Duration) -> (Self, Heartbeat) {
        let started = Instant::now().checked_sub(silence).unwrap_or_else(Instant::now);
        let liveness = Self { started, heartbeats: Arc::default() };
        let heartbeat = liveness.heartbeat(name);
        heartbeat.last.store(0, Relaxed);
        (liveness, heartbeat)
    }

    /// Names the loops that hang; `None` if no loop hangs.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint_at(self.started.elapsed())
    }

    fn complaint_at(&self, now: Duration) -> Option<String> {
        let mut heartbeats = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        forget_ended(&mut heartbeats);
        let pulses: Vec<Pulse<'_>> = heartbeats.iter().map(Heartbeat::pulse).collect();
        complaint(&pulses, now)
    }
}

/// Forgets loops that no longer hold their heartbeat.
fn forget_ended(heartbeats: &mut Vec<Heartbeat>) {
    heartbeats.retain(|heartbeat| Arc::strong_count(&heartbeat.last) > 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    // C4
    #[test]
    fn a_loop_that_hangs_is_named_until_it_ends() {
        let liveness = Liveness::default();
        let (driver, watch) = (liveness.heartbeat("the driver"), liveness.heartbeat("a watch of kind Service"));
        let late = SILENCE + Duration::from_secs(1);
        let both = liveness.complaint_at(late).expect("both hang");
        assert!(both.contains("the driver has") && both.contains("a watch of kind Service has"), "{both}");
        drop(driver);
        let other = liveness.complaint_at(late).expect("the other one hangs");
        assert!(!other.contains("the driver"), "{other}");
        drop(watch);
        assert_eq!(liveness.complaint_at(late), None);
    }

    // C4
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_no_hang_however_many_requests_a_round_has() {
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("a watch");
        let round = async {
            for _ in 0..20 {
                let lost = heartbeat.answer(std::future::pending::<Result<(), kube::Error>>()).await;
                assert!(matches!(lost, Err(RequestError::NoAnswer)));
            }
        };
        let mut round = pin!(round);
        while timeout(Duration::from_secs(1), round.as_mut()).await.is_err() {
            assert_eq!(liveness.complaint(), None);
        }
    }

    // C4
    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_told_within_30_s_of_its_begin() {
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("a watch");
        heartbeat.idle(tokio::time::sleep(Duration::from_secs(600))).await;
        let never = heartbeat.request(std::future::pending::<()>());
        assert!(timeout(Duration::from_secs(30), never).await.is_err());
        assert!(liveness.complaint().is_some_and(|told| told.contains("a watch has")));
    }

    #[tokio::test]
    async fn a_loop_that_waits_gives_signs_of_life() {
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("x");
        let start = heartbeat.last.load(Relaxed);
        let a_later_sign = async {
            while heartbeat.last.load(Relaxed) <= start + 1 {
                tokio::task::yield_now().await;
            }
        };
        let waited = heartbeat.idle_with(Duration::from_millis(1), a_later_sign);
        timeout(Duration::from_secs(20), waited).await.expect("a sign of life while the loop waits");
    }
}

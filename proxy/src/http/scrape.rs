//! One body of metrics for all scrapers: rendering takes time from the control thread, and the body may be large.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::body::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::metrics::Metrics;

/// A body is reused for this many times as long as rendering took: however many clients ask, rendering takes no more
/// than a fifth of the control thread.
const TIMES: u32 = 4;

/// The last body, while it may be reused.
#[derive(Debug, Default)]
pub(super) struct Scraped(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    body: Bytes,
    until: Instant,
}

impl Scraped {
    /// The metrics, rendered now or a moment ago.
    ///
    /// # Errors
    /// Only if memory is exhausted.
    pub(super) fn body(self: &Arc<Self>, metrics: &Arc<Metrics>) -> Result<Bytes, fmt::Error> {
        let began = Instant::now();
        if let Some(kept) = self.lock().as_ref().filter(|kept| began < kept.until) {
            return Ok(kept.body.clone());
        }
        let body = Bytes::from(metrics.text()?);
        let until = Instant::now() + keep(began.elapsed());
        *self.lock() = Some(Kept { body: body.clone(), until });
        // Between scrapes, the body must not take memory.
        let scraped = self.clone();
        tokio::spawn(async move {
            sleep_until(until).await;
            scraped.forget(Instant::now());
        });
        Ok(body)
    }

    fn forget(&self, now: Instant) {
        let mut kept = self.lock();
        if kept.as_ref().is_some_and(|kept| kept.until <= now) {
            *kept = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to reuse a body that took this long to render.
fn keep(took: Duration) -> Duration {
    took.saturating_mul(TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_longer_the_longer_it_takes_to_render() {
        assert_eq!(keep(Duration::from_millis(1)), Duration::from_millis(4));
        assert_eq!(keep(Duration::from_millis(300)), Duration::from_millis(1200));
    }

    #[test]
    fn a_body_is_forgotten_once_its_time_is_over() {
        let (scraped, now) = (Scraped::default(), Instant::now());
        let until = now + Duration::from_secs(1);
        *scraped.lock() = Some(Kept { body: Bytes::from_static(b"x"), until });
        scraped.forget(now);
        assert!(scraped.lock().is_some());
        scraped.forget(until);
        assert!(scraped.lock().is_none());
    }
}

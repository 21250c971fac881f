//! The text of `/metrics`: few clients at once, and one text for all of them.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Scrapes whose clients have not read the answer yet.
const SCRAPES: usize = 4;
/// How long a text answers further scrapes.
const FRESH: Duration = Duration::from_millis(100);

/// The turn of one connection, which is given back when this value is dropped.
#[derive(Default)]
pub(super) struct Scrape(OnceLock<OwnedSemaphorePermit>);

/// All scrapes.
pub(super) struct Scrapes {
    turns: Arc<Semaphore>,
    text: Mutex<Option<(Instant, Bytes)>>,
}

impl Default for Scrapes {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(SCRAPES)), text: Mutex::default() }
    }
}

impl Scrapes {
    /// Takes a turn for a connection. Returns false if there is none.
    pub(super) fn begin(&self, scrape: &Scrape) -> bool {
        let Ok(turn) = self.turns.clone().try_acquire_owned() else { return false };
        // A connection has one request; the turn of a second one would be given back at once.
        let _ = scrape.0.set(turn);
        true
    }

    /// The text, rendered again unless the last one is fresh.
    pub(super) fn text(
        &self,
        now: Instant,
        render: impl FnOnce() -> Result<String, fmt::Error>,
    ) -> Result<Bytes, fmt::Error> {
        let mut kept = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = kept.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < FRESH) {
            return Ok(text.clone());
        }
        let text = Bytes::from(render()?);
        *kept = Some((now, text.clone()));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_few_and_come_back_with_their_connections() {
        let scrapes = Scrapes::default();
        let mut connections: Vec<Scrape> = (0..SCRAPES).map(|_| Scrape::default()).collect();
        assert!(connections.iter().all(|connection| scrapes.begin(connection)));
        assert!(!scrapes.begin(&Scrape::default()));
        connections.pop();
        assert!(scrapes.begin(&Scrape::default()));
    }

    #[test]
    fn a_text_is_rendered_once_for_scrapes_that_come_together() {
        let (scrapes, start) = (Scrapes::default(), Instant::now());
        let scrape = |after, text: &str| scrapes.text(start + after, || Ok(text.to_owned())).expect("no error");
        assert_eq!(scrape(Duration::ZERO, "first"), "first");
        assert_eq!(scrape(FRESH / 2, "second"), "first");
        assert_eq!(scrape(FRESH, "third"), "third");
    }
}

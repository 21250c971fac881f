//! The text of `/metrics`: bounds the concurrent clients, and renders one text for all of them.

use std::{
    fmt,
    hash::RandomState,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use proxy_api::doors::Shares;

/// The most scrapes whose clients have not read the answer yet.
const SCRAPES: usize = 8;
/// The most scrapes of one source: otherwise one client that never reads would keep all others out.
const OF_ONE_SOURCE: usize = 2;
/// The time for which a text answers further scrapes.
const FRESH: Duration = Duration::from_millis(100);

/// The turn of one connection, returned when this value is dropped.
#[derive(Default)]
pub(super) struct Scrape(OnceLock<Turn>);

/// The turns that are taken, by source.
#[derive(Clone)]
struct Turns(Arc<Mutex<Shares<RandomState>>>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Shares::new(SCRAPES, OF_ONE_SOURCE))))
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Shares<RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, source: IpAddr) -> Option<Turn> {
        self.lock().take(source, 1).ok()?;
        Some(Turn { turns: self.clone(), source })
    }
}

/// A turn of a source.
struct Turn {
    turns: Turns,
    source: IpAddr,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().give_back(self.source, 1);
    }
}

/// All scrapes.
#[derive(Default)]
pub(super) struct Scrapes {
    turns: Turns,
    text: Mutex<Option<(Instant, Bytes)>>,
}

impl Scrapes {
    /// Takes a turn for a connection of this source. Returns false if all turns are taken.
    pub(super) fn begin(&self, scrape: &Scrape, source: IpAddr) -> bool {
        let Some(turn) = self.turns.take(source) else { return false };
        // A connection has one request; the turn of a second one would be freed at once.
        let _ = scrape.0.set(turn);
        true
    }

    /// Returns the text, which is rendered again unless the last one is fresh.
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
    use std::net::Ipv4Addr;

    use super::*;

    fn source(at: usize) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, u8::try_from(at).expect("few sources")).into()
    }

    #[test]
    fn turns_are_few_and_come_back_with_their_connections() {
        let scrapes = Scrapes::default();
        let mut connections: Vec<Scrape> = (0..SCRAPES).map(|_| Scrape::default()).collect();
        assert!(connections.iter().enumerate().all(|(at, connection)| scrapes.begin(connection, source(at))));
        assert!(!scrapes.begin(&Scrape::default(), source(SCRAPES)));
        connections.pop();
        assert!(scrapes.begin(&Scrape::default(), source(SCRAPES)));
    }

    #[test]
    fn a_client_that_never_reads_keeps_nobody_else_out() {
        let scrapes = Scrapes::default();
        let connections: Vec<Scrape> = (0..SCRAPES).map(|_| Scrape::default()).collect();
        let begun = connections.iter().filter(|connection| scrapes.begin(connection, source(0))).count();
        assert_eq!(begun, OF_ONE_SOURCE);
        let other = Scrape::default();
        assert!(scrapes.begin(&other, source(1)));
        drop(connections);
        assert!(scrapes.begin(&Scrape::default(), source(0)), "its turns are back");
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

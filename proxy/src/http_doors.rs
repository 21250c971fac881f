//! The doors of the HTTP addresses: how many connections each of them takes.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use proxy_api::doors::{Bounds, Evict, Rate, Refusal, Turns};

use crate::{
    clock::Clock,
    door::{Door, Place},
    files::{FOR_LISTENERS, RESERVE},
};

/// Connections to the health address.
const HEALTH: Bounds = bounds(24, 8);
/// New connections to the health address, each with one request, that one address may open: per second, and at once. A
/// request costs the control thread about 0.1 ms.
const HEALTH_RATE: (u32, u32) = (500, 1000);
/// Connections, to any address, whose response is the metrics. The response is large, so its client can hold its place
/// for long by not reading.
const SCRAPES: Bounds = bounds(8, 4);
/// Connections to the admin address; all of them are from this machine.
const ADMIN: Bounds = bounds(8, 8);
/// Connections, to the admin address, of pages that follow the proxy. They leave places for requests, and further pages
/// are refused.
const EVENTS: Bounds = Bounds { evict: Evict::Never, ..bounds(4, 4) };
const _: () = assert!(EVENTS.strangers * 2 <= ADMIN.strangers);
/// Connections to the unix socket, which have no source.
const LOCAL: Bounds = bounds(16, 16);
/// File descriptors of the reserve that are for other uses than these connections, some of them for listeners.
const OTHER_FILES: usize = 16;
const _: () = assert!(FOR_LISTENERS < OTHER_FILES);
const _: () = assert!(HEALTH.strangers + ADMIN.strangers + LOCAL.strangers + OTHER_FILES <= RESERVE);

const fn bounds(all: usize, per_source: usize) -> Bounds {
    Bounds { strangers: all, per_source, known: 0, evict: Evict::Any, rates: None }
}

/// The connections of all HTTP addresses.
#[derive(Debug)]
pub struct Doors {
    clock: Clock,
    health: Arc<Door>,
    /// The rate of each address at the health address.
    turns: Mutex<Turns>,
    /// Connections whose response is the metrics.
    pub(crate) scrapes: Arc<Door>,
    /// The admin address.
    pub(crate) admin: Arc<Door>,
    /// Pages that follow the proxy.
    pub(crate) events: Arc<Door>,
    /// The unix socket.
    pub(crate) local: Arc<Door>,
    /// Pages that were cut because they did not read.
    slow: AtomicU64,
}

impl Doors {
    /// Creates doors without connections.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        let door = |bounds| Door::new(bounds, clock);
        let (times, burst) = HEALTH_RATE;
        Arc::new(Self {
            clock,
            health: door(HEALTH),
            turns: Mutex::new(Turns::new(Rate::per_second(times, burst))),
            scrapes: door(SCRAPES),
            admin: door(ADMIN),
            events: door(EVENTS),
            local: door(LOCAL),
            slow: AtomicU64::new(0),
        })
    }

    /// Takes a place for a new connection to the health address. A source that connects too often gets none.
    pub(crate) fn enter_health(&self, source: IpAddr) -> Result<Place, Refusal> {
        let now = Duration::from_millis(self.clock.millis());
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // By address: others of its IPv6 /64 may be nodes.
        if !turns.take(source.to_canonical(), now) {
            self.health.count(Refusal::SourceRate);
            return Err(Refusal::SourceRate);
        }
        drop(turns);
        self.health.enter(source)
    }

    /// Connections that were closed for lack of a place, or because they did not read: the door, the reason, and the
    /// count.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let doors = [
            ("health", &self.health),
            ("metrics", &self.scrapes),
            ("admin", &self.admin),
            ("events", &self.events),
            ("socket", &self.local),
        ];
        let full =
            doors.into_iter().flat_map(|(name, door)| door.closed().map(move |(reason, count)| (name, reason, count)));
        full.chain(std::iter::once(("events", "slow", self.slow.load(Relaxed))))
    }

    /// Counts pages that were cut because they did not read.
    pub(crate) fn cut_slow(&self, count: u64) {
        self.slow.fetch_add(count, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    // C3
    #[test]
    fn an_address_that_connects_too_often_gets_no_place_at_the_health_address_and_another_does() {
        let doors = Doors::new(Clock::start());
        let source = |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let refused = (0..100_000).find_map(|_| doors.enter_health(source(1)).err());
        assert_eq!(refused, Some(Refusal::SourceRate));
        assert!(doors.closed().any(|(door, reason, count)| (door, reason, count) == ("health", "source_rate", 1)));
        assert!(doors.enter_health(source(2)).is_ok());
        assert!(doors.local.enter(source(1)).is_ok(), "probes of kubelet have an address of their own");
    }
}

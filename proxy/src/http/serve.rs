//! Serves the HTTP addresses. A new connection always gets a place: if all are taken, the source with the most
//! connections loses the connection that has waited longest for its client. So silent clients keep no probe out.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_api::doors::{Bounds, Evict, Rate, Refusal, Turns};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Role, View, answer};
use crate::{
    clock::Clock,
    door::{Door, Place},
    files::RESERVE,
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
/// File descriptors of the reserve that are for other uses than these connections.
const OTHER_FILES: usize = 16;
const _: () = assert!(HEALTH.strangers + ADMIN.strangers + LOCAL.strangers + OTHER_FILES <= RESERVE);

/// An address that is not known, as at the unix socket.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Timeout for receiving a request.
const HEADERS: Duration = Duration::from_secs(1);
/// Timeout for a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a page follows on one connection, after which it opens another. Clients that have vanished must not
/// keep places.
const FOLLOWED: Duration = Duration::from_secs(300);
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

const fn bounds(all: usize, per_source: usize) -> Bounds {
    Bounds { strangers: all, per_source, known: 0, evict: Evict::Any, rates: None }
}

/// The connections of all HTTP addresses.
#[derive(Debug)]
pub struct Doors {
    clock: Clock,
    health: Arc<Door>,
    /// How often each address connects to the health address.
    turns: Mutex<Turns>,
    scrapes: Arc<Door>,
    admin: Arc<Door>,
    events: Arc<Door>,
    local: Arc<Door>,
    /// Pages that were cut because they did not read.
    slow: AtomicU64,
}

impl Doors {
    /// No connections.
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
    pub(super) fn cut_slow(&self, count: u64) {
        self.slow.fetch_add(count, Relaxed);
    }

    /// A place for a new connection. At the health address, a source that connects too often gets none.
    fn enter(&self, role: Role, source: IpAddr) -> Result<Place, Refusal> {
        if role == Role::Health {
            let now = Duration::from_millis(self.clock.millis());
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // By address: others of its IPv6 /64 may be nodes.
            if !turns.take(source.to_canonical(), now) {
                self.health.count(Refusal::SourceRate);
                return Err(Refusal::SourceRate);
            }
        }
        self.of(role).enter(source)
    }

    fn of(&self, role: Role) -> &Arc<Door> {
        match role {
            Role::Health => &self.health,
            Role::Admin => &self.admin,
            Role::Local => &self.local,
        }
    }
}

/// A connection and its places.
#[derive(Debug)]
pub(super) struct Guest {
    /// The endpoints that the connection may ask for.
    pub(super) role: Role,
    /// The address that the listener is bound to.
    pub(super) bound: IpAddr,
    source: IpAddr,
    place: Place,
    /// The place among the scrapes, once the connection has asked for metrics.
    scrape: OnceLock<Place>,
    /// The place among the pages that follow, once the connection has asked for events.
    following: OnceLock<Place>,
    /// Closes the connection of a page that does not read.
    pub(super) cut: Arc<Notify>,
}

impl Guest {
    /// Takes a place among the scrapes until the connection ends. Returns false if all are taken.
    pub(super) fn scrapes(&self, doors: &Doors) -> bool {
        let Ok(place) = doors.scrapes.enter_beside(self.source, &self.place) else { return false };
        // A connection carries one request.
        let _ = self.scrape.set(place);
        true
    }

    /// Takes a place among the pages that follow until the connection ends. Returns false if all are taken.
    pub(super) fn follows(&self, doors: &Doors) -> bool {
        let Ok(place) = doors.events.enter_beside(self.source, &self.place) else { return false };
        let _ = self.following.set(place);
        true
    }

    /// Waits until the connection has taken long enough.
    async fn is_over(&self) {
        sleep(PATIENCE).await;
        if self.following.get().is_some() {
            // Whichever is first.
            let _ = timeout(FOLLOWED.saturating_sub(PATIENCE), self.cut.notified()).await;
        }
    }
}

/// Serves an address until the runtime ends.
pub async fn serve(listener: std::net::TcpListener, role: Role, view: View) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let bound = listener.local_addr().map_or(UNKNOWN, |address| address.ip());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => begin(stream, (peer.ip(), bound), role, &view),
            Err(_) => sleep(PAUSE).await,
        }
        // Let a connection whose place was taken back close before the next one is accepted.
        yield_now().await;
    }
}

/// Serves a unix socket until the runtime ends.
pub async fn serve_file(listener: std::os::unix::net::UnixListener, view: View) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, (UNKNOWN, UNKNOWN), Role::Local, &view),
            Err(_) => sleep(PAUSE).await,
        }
        yield_now().await;
    }
}

fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    (source, bound): (IpAddr, IpAddr),
    role: Role,
    view: &View,
) {
    if let Some(guest) = guest(source, bound, role, view) {
        tokio::spawn(converse(stream, guest, view.clone()));
    }
}

/// Serves one connection that `source` has made to the address `bound`, and ends with it. For a stream that no listener
/// accepted; without a place it is closed at once.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (source, bound): (IpAddr, IpAddr),
    role: Role,
    view: View,
) {
    if let Some(guest) = guest(source, bound, role, &view) {
        converse(stream, guest, view).await;
    }
}

fn guest(source: IpAddr, bound: IpAddr, role: Role, view: &View) -> Option<Arc<Guest>> {
    let place = view.process.doors.enter(role, source).ok()?;
    let (scrape, following) = (OnceLock::new(), OnceLock::new());
    Some(Arc::new(Guest { role, bound, source, place, scrape, following, cut: Arc::default() }))
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, guest: Arc<Guest>, view: View) {
    let asking = guest.clone();
    let service = service_fn(move |request| {
        let (view, guest) = (view.clone(), asking.clone());
        async move {
            guest.place.asks();
            Ok::<_, Infallible>(answer(&guest, &view, &request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = guest.place.taken_back() => {}
        // A client may disconnect at any time.
        _ = connection => {}
        () = guest.is_over() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // C3
    #[test]
    fn an_address_that_connects_too_often_gets_no_place_at_the_health_address_and_another_does() {
        let doors = Doors::new(Clock::start());
        let source = |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let refused = (0..100_000).find_map(|_| doors.enter(Role::Health, source(1)).err());
        assert_eq!(refused, Some(Refusal::SourceRate));
        assert!(doors.closed().any(|(door, reason, count)| (door, reason, count) == ("health", "source_rate", 1)));
        assert!(doors.enter(Role::Health, source(2)).is_ok());
        assert!(doors.enter(Role::Local, source(1)).is_ok(), "probes of kubelet have an address of their own");
    }
}

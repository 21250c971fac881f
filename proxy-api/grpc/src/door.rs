//! Applies the decisions of [`proxy_api::doors`] to the connections of a server: passes the time, and ends a connection
//! whose place is taken back.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proxy_api::doors::{Admission, Bounds, PlaceId, Places, Refusal};
use tokio::sync::oneshot;

/// Why a server closed a connection that its client had not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Refused when it was accepted.
    Refused(Refusal),
    /// Another connection got its place.
    Evicted,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// No request came in time.
    Silent,
    /// A request, or the reading of its answer, took too long.
    Late,
    /// A request was refused, because too many requests or bytes of its source are in progress.
    Busy,
}

impl Closed {
    /// The value of a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::Evicted => "evicted",
            Self::Handshake => "handshake",
            Self::Silent => "silent",
            Self::Late => "late",
            Self::Busy => "busy",
        }
    }
}

/// The connections of one server.
pub struct Door {
    started: Instant,
    state: Mutex<State>,
    /// Whether clients with this address are known without authentication.
    knows: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    count: Box<dyn Fn(Closed) + Send + Sync>,
}

struct State {
    places: Places,
    /// Ends the connection of each place.
    ends: BTreeMap<PlaceId, oneshot::Sender<()>>,
}

impl State {
    fn evict(&mut self, place: PlaceId) {
        if let Some(end) = self.ends.remove(&place) {
            // A connection that has just ended no longer listens for its end.
            let _ = end.send(());
        }
    }
}

impl Door {
    /// Creates a door without connections. `count` is called for each connection that the server closes.
    #[must_use]
    pub fn new(bounds: Bounds, count: impl Fn(Closed) + Send + Sync + 'static) -> Arc<Self> {
        Self::knowing(bounds, |_| false, count)
    }

    /// Like [`Door::new`]. Clients at an address for which `knows` returns true have the places of authenticated
    /// clients from the start.
    #[must_use]
    pub fn knowing(
        bounds: Bounds,
        knows: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
        count: impl Fn(Closed) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = Mutex::new(State { places: Places::new(bounds), ends: BTreeMap::new() });
        Arc::new(Self { started: Instant::now(), state, knows: Box::new(knows), count: Box::new(count) })
    }

    /// Takes a place for a connection that was just accepted. `None`: the caller closes the connection.
    #[must_use]
    pub fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let is_known = (self.knows)(source);
        let mut state = self.lock();
        let now = self.now();
        let admission = if is_known { state.places.admit_known(source, now) } else { state.places.admit(source, now) };
        let (id, evicted) = match admission {
            Admission::Admit(place) => (place, None),
            Admission::AdmitAfterEvicting { place, evicted } => (place, Some(evicted)),
            Admission::Refuse(refusal) => {
                drop(state);
                (self.count)(Closed::Refused(refusal));
                return None;
            }
        };
        let (end, ended) = oneshot::channel();
        state.ends.insert(id, end);
        if let Some(evicted) = evicted {
            state.evict(evicted);
            drop(state);
            (self.count)(Closed::Evicted);
        }
        Some(Place { guest: Guest { door: self.clone(), id }, ended })
    }

    /// Counts a connection that the caller closes because another bound than the places refuses it.
    pub fn refuse(&self, why: Refusal) {
        (self.count)(Closed::Refused(why));
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection, which is free again when this value is dropped.
pub struct Place {
    guest: Guest,
    ended: oneshot::Receiver<()>,
}

impl Place {
    /// A handle by which the parts of a connection report its state.
    #[must_use]
    pub fn guest(&self) -> Guest {
        self.guest.clone()
    }

    /// Waits until the place is taken back. The connection must end then.
    pub async fn taken_back(&mut self) {
        // The sender lives as long as this place, unless it was used.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.guest.door.now();
        let mut state = self.guest.door.lock();
        state.places.release(self.guest.id, now);
        state.ends.remove(&self.guest.id);
    }
}

/// A handle to one connection, for its parts.
#[derive(Clone)]
pub struct Guest {
    door: Arc<Door>,
    id: PlaceId,
}

impl Guest {
    /// Time from the admission of the connection to the turn of its handshake.
    #[must_use]
    pub fn turn(&self) -> Duration {
        self.door.lock().places.turn(self.id)
    }

    /// Reports that a request of the connection is being answered.
    pub fn asks(&self) {
        self.door.lock().places.asks(self.id, self.door.now());
    }

    /// Reports that the connection waits for its client.
    pub fn waits(&self) {
        self.door.lock().places.waits(self.id, self.door.now());
    }

    /// Reports that the client has authenticated. Returns false if all places of authenticated clients are taken: the
    /// connection must end.
    #[must_use]
    pub fn authenticate(&self) -> bool {
        self.becomes_known(|places, now| places.authenticate(self.id, now))
    }

    /// Like [`Guest::authenticate`], for a client of this namespace: see [`Places::authenticate_in`].
    #[must_use]
    pub fn authenticate_in(&self, namespace: &str) -> bool {
        self.becomes_known(|places, now| places.authenticate_in(self.id, namespace, now))
    }

    fn becomes_known(&self, decide: impl FnOnce(&mut Places, Duration) -> Result<Option<PlaceId>, Refusal>) -> bool {
        let mut state = self.door.lock();
        let closed = match decide(&mut state.places, self.door.now()) {
            Ok(None) => return true,
            Ok(Some(evicted)) => {
                state.evict(evicted);
                Closed::Evicted
            }
            Err(refusal) => Closed::Refused(refusal),
        };
        drop(state);
        (self.door.count)(closed);
        closed == Closed::Evicted
    }

    /// Whether the client is known: by its address, or because it has authenticated.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.door.lock().places.is_known(self.id)
    }

    /// Counts the end of the connection by the server.
    pub fn closed(&self, why: Closed) {
        (self.door.count)(why);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        pin::pin,
        task::{Context, Waker},
    };

    use proxy_api::doors::Evict;

    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn door(strangers: usize, known: usize) -> (Arc<Door>, Arc<Mutex<Vec<&'static str>>>) {
        let counted = Arc::new(Mutex::new(Vec::new()));
        let bounds = Bounds { strangers, per_source: strangers, known, evict: Evict::Silent, rates: None };
        let counts = counted.clone();
        (Door::new(bounds, move |closed| counts.lock().expect("not poisoned").push(closed.as_str())), counted)
    }

    fn is_taken_back(place: &mut Place) -> bool {
        pin!(place.taken_back()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_connection_ends_when_its_place_is_taken_back_and_frees_it_when_it_ends() {
        let (door, counted) = door(1, 1);
        let mut first = door.admit(SOURCE).expect("a place");
        assert!(!is_taken_back(&mut first));
        let second = door.admit(SOURCE).expect("the place of the first");
        assert!(is_taken_back(&mut first));
        drop(first);
        second.guest().asks();
        assert!(door.admit(SOURCE).is_none(), "the end of the first frees nothing");
        drop(second);
        assert!(door.admit(SOURCE).is_some());
        assert_eq!(*counted.lock().expect("not poisoned"), ["evicted", "source_full"]);
    }

    #[test]
    fn a_client_with_a_known_address_takes_no_place_of_strangers_and_loses_none_to_them() {
        let bounds = Bounds { strangers: 1, per_source: 1, known: 2, evict: Evict::Any, rates: None };
        let door = Door::knowing(bounds, |source| source == SOURCE, |_| {});
        let stranger = Ipv4Addr::new(192, 0, 2, 1).into();
        let mut first = door.admit(stranger).expect("a place");
        let mut known: Vec<Place> = (0..2).map(|_| door.admit(SOURCE).expect("a place of its own")).collect();
        assert!(!is_taken_back(&mut first));
        assert!(!first.guest().is_known() && known.iter().all(|place| place.guest().is_known()));
        let _second = door.admit(stranger).expect("the place of the first");
        assert!(is_taken_back(&mut first) && !known.iter_mut().any(is_taken_back));
    }

    #[test]
    fn a_client_that_authenticates_leaves_its_place_to_strangers() {
        let (door, counted) = door(1, 1);
        let known = door.admit(SOURCE).expect("a place");
        known.guest().asks();
        assert!(!known.guest().is_known());
        assert!(known.guest().authenticate() && known.guest().is_known());
        let other = door.admit(SOURCE).expect("a place of strangers");
        other.guest().asks();
        assert!(!other.guest().authenticate(), "no second place");
        assert_eq!(*counted.lock().expect("not poisoned"), ["full"]);
    }
}

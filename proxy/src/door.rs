//! The places of connections, shared by the tasks that serve them. [`proxy_api::doors`] decides which connection gets a
//! place; a task whose place goes to another connection is woken.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use proxy_api::doors::{Admission, Bounds, PlaceId, Places, Refusal};
use tokio::sync::Notify;

use crate::clock::Clock;

/// Refusals in the order of their counters.
const REFUSALS: [Refusal; 4] = [Refusal::Full, Refusal::SourceFull, Refusal::Rate, Refusal::SourceRate];

/// The places of one kind of connection.
#[derive(Debug)]
pub struct Door {
    clock: Clock,
    state: Mutex<State>,
    evicted: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
}

#[derive(Debug)]
struct State {
    places: Places,
    /// Wakes the task of each place.
    wakers: BTreeMap<PlaceId, Arc<Notify>>,
}

impl Door {
    /// Creates a door without connections.
    #[must_use]
    pub fn new(bounds: Bounds, clock: Clock) -> Arc<Self> {
        let state = State { places: Places::new(bounds), wakers: BTreeMap::new() };
        Arc::new(Self { clock, state: Mutex::new(state), evicted: AtomicU64::new(0), refused: Default::default() })
    }

    /// Replaces the bounds, see [`Places::resize`].
    pub fn resize(&self, bounds: Bounds) {
        self.lock().places.resize(bounds);
    }

    /// Takes a place for a new connection from this source, perhaps that of another connection, whose task is woken.
    ///
    /// # Errors
    /// Why there is no place.
    pub fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Place, Refusal> {
        let mut state = self.lock();
        let id = self.admit(&mut state, source)?;
        Ok(self.take(&mut state, id, Arc::default()))
    }

    /// Like [`Door::enter`], for a known peer, whose place is among those of known peers. Strangers lose none to it.
    ///
    /// # Errors
    /// Why there is no place.
    pub fn enter_known(self: &Arc<Self>, source: IpAddr) -> Result<Place, Refusal> {
        let mut state = self.lock();
        let admission = state.places.admit_known(source, self.now());
        let id = self.admitted(&mut state, admission)?;
        Ok(self.take(&mut state, id, Arc::default()))
    }

    /// Like [`Door::enter`], for a connection that holds a place at another door: either place wakes the task.
    ///
    /// # Errors
    /// Why there is no place.
    pub fn enter_beside(self: &Arc<Self>, source: IpAddr, other: &Place) -> Result<Place, Refusal> {
        let mut state = self.lock();
        let id = self.admit(&mut state, source)?;
        Ok(self.take(&mut state, id, other.gone.clone()))
    }

    fn admit(&self, state: &mut State, source: IpAddr) -> Result<PlaceId, Refusal> {
        let admission = state.places.admit(source, self.now());
        self.admitted(state, admission)
    }

    fn admitted(&self, state: &mut State, admission: Admission) -> Result<PlaceId, Refusal> {
        match admission {
            Admission::Admit(place) => Ok(place),
            Admission::AdmitAfterEvicting { place, evicted } => {
                self.evict(state, evicted);
                Ok(place)
            }
            Admission::Refuse(refusal) => {
                self.count(refusal);
                Err(refusal)
            }
        }
    }

    fn take(self: &Arc<Self>, state: &mut State, id: PlaceId, gone: Arc<Notify>) -> Place {
        state.wakers.insert(id, gone.clone());
        Place { door: self.clone(), id, gone }
    }

    fn evict(&self, state: &mut State, place: PlaceId) {
        self.evicted.fetch_add(1, Relaxed);
        if let Some(gone) = state.wakers.remove(&place) {
            gone.notify_one();
        }
    }

    /// Counts a connection that was refused, here or by another bound than the places.
    pub fn count(&self, refusal: Refusal) {
        if let Some(index) = REFUSALS.iter().position(|other| *other == refusal) {
            self.refused[index].fetch_add(1, Relaxed);
        }
    }

    /// Number of places taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        let state = self.lock();
        state.places.strangers() + state.places.known()
    }

    /// Connections that were closed for lack of a place, by reason: evicted for another connection, or refused.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let refused = REFUSALS.iter().zip(&self.refused).map(|(why, count)| (why.as_str(), count.load(Relaxed)));
        std::iter::once(("evicted", self.evicted.load(Relaxed))).chain(refused)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock.millis())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, free again on drop.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    id: PlaceId,
    gone: Arc<Notify>,
}

impl Place {
    /// Notes that a request of the connection is being answered: waiting connections are evicted first.
    pub fn asks(&self) {
        self.door.lock().places.asks(self.id, self.door.now());
    }

    /// Waits until the place has gone to another connection.
    pub async fn taken_back(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.door.now();
        let mut state = self.door.lock();
        state.places.release(self.id, now);
        state.wakers.remove(&self.id);
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

    fn door(strangers: usize, evict: Evict) -> Arc<Door> {
        Door::new(Bounds { strangers, per_source: 2, known: 0, evict, rates: None }, Clock::start())
    }

    fn source(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn is_taken_back(place: &Place) -> bool {
        pin!(place.taken_back()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn closed(door: &Door, reason: &str) -> u64 {
        door.closed().find(|(why, _)| *why == reason).expect("a known reason").1
    }

    #[test]
    fn the_task_whose_place_goes_to_another_is_woken_and_its_drop_frees_nothing_more() {
        let door = door(2, Evict::Silent);
        let (first, second) = (door.enter(source(1)).expect("free"), door.enter(source(2)).expect("free"));
        let third = door.enter(source(3)).expect("the longest wait ends");
        assert!(is_taken_back(&first) && !is_taken_back(&second) && !is_taken_back(&third));
        drop(first);
        assert_eq!((door.taken(), closed(&door, "evicted")), (2, 1));
        drop((second, third));
        assert_eq!(door.taken(), 0);
    }

    #[test]
    fn a_refusal_is_counted_by_its_reason() {
        let door = door(1, Evict::Never);
        let _place = door.enter(source(1)).expect("free");
        door.enter(source(2)).expect_err("full");
        assert_eq!((closed(&door, "full"), closed(&door, "evicted")), (1, 0));
    }

    #[test]
    fn known_peers_have_places_of_their_own_however_many_come_from_one_source() {
        let bounds = Bounds { strangers: 1, per_source: 1, known: 3, evict: Evict::Silent, rates: None };
        let door = Door::new(bounds, Clock::start());
        let stranger = door.enter(source(1)).expect("free");
        let known: Vec<Place> = (0..3).map(|_| door.enter_known(source(2)).expect("free")).collect();
        assert!(!known.iter().any(is_taken_back));
        let _next = door.enter_known(source(2)).expect("the longest wait ends");
        assert_eq!(known.iter().filter(|place| is_taken_back(place)).count(), 1);
        assert!(!is_taken_back(&stranger), "a known peer takes no place from a stranger");
        assert_eq!(door.taken(), 4);
    }

    #[test]
    fn a_door_that_becomes_narrower_evicts_nobody_before_a_newcomer_needs_the_place() {
        let door = door(2, Evict::Silent);
        let places = [1, 2].map(|last| door.enter(source(last)).expect("free"));
        door.resize(Bounds { strangers: 1, per_source: 1, known: 0, evict: Evict::Silent, rates: None });
        assert!(!places.iter().any(is_taken_back));
        let _next = door.enter(source(3)).expect("the longest wait ends");
        assert!(is_taken_back(&places[0]) && !is_taken_back(&places[1]));
    }

    #[test]
    fn a_connection_with_two_places_is_woken_by_either() {
        let (outer, inner) = (door(2, Evict::Any), door(1, Evict::Any));
        let place = outer.enter(source(1)).expect("free");
        let _scrape = inner.enter_beside(source(1), &place).expect("free");
        assert!(!is_taken_back(&place));
        let _next = inner.enter(source(2)).expect("a newcomer always gets in");
        assert!(is_taken_back(&place));
    }
}

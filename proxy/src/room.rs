//! A counted resource of the process, such as file descriptors: taken before use, and waited for when exhausted.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use tokio::sync::Notify;

/// A number of places, shared by all threads.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    limit: AtomicUsize,
    /// Whether no place is given, free or not.
    is_shut: AtomicBool,
    freed: Notify,
    /// Takers that wait.
    waiting: AtomicUsize,
    /// Number of times that a taker had to wait.
    pub paused: AtomicU64,
}

impl Room {
    /// Creates a room of `limit` places, all of them free.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let (used, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let limit = AtomicUsize::new(limit);
        Self { used, limit, is_shut: AtomicBool::default(), freed: Notify::new(), waiting, paused: AtomicU64::new(0) }
    }

    /// Takes `count` places if they are free.
    #[must_use]
    pub fn take(self: &Arc<Self>, count: usize) -> Option<Permit> {
        self.take_leaving(count, 0)
    }

    /// Takes `count` places if they are free and `left` others beside them.
    #[must_use]
    pub fn take_leaving(self: &Arc<Self>, count: usize, left: usize) -> Option<Permit> {
        if self.is_shut() {
            return None;
        }
        let most = self.limit.load(Relaxed).checked_sub(left)?;
        let fits = |used: usize| used.checked_add(count).filter(|total| *total <= most);
        // The order of a waiter's check, see [`Room::give`].
        self.used.fetch_update(Relaxed, SeqCst, fits).ok().map(|_| Permit { room: self.clone(), count })
    }

    /// Accounts for `count` places that are already in use.
    #[must_use]
    pub fn take_anyway(self: &Arc<Self>, count: usize) -> Permit {
        self.occupy(count);
        Permit { room: self.clone(), count }
    }

    /// Gives back `count` places whose permit was kept.
    pub fn give(&self, count: usize) {
        self.used.fetch_sub(count, SeqCst);
        // Usually no task waits, and then a notification would be a write for each place that all workers share. A
        // waiter counts itself before it checks for places. In the total order of these four steps, either it finds the
        // places free, or it is found here.
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        // Each freed place may complete the wait of another waiter.
        for _ in 0..count {
            self.freed.notify_one();
        }
    }

    /// Accounts for `count` places that stay in use for the life of the process.
    pub fn occupy(&self, count: usize) {
        self.used.fetch_add(count, Relaxed);
    }

    /// Waits until `count` places are free, and takes them.
    pub async fn wait(self: &Arc<Self>, count: usize) -> Permit {
        self.wait_leaving(count, || 0).await
    }

    /// Waits until `count` places are free and `left` others beside them. `left` is called whenever some become free.
    pub async fn wait_leaving(self: &Arc<Self>, count: usize, left: impl Fn() -> usize) -> Permit {
        if let Some(permit) = self.take_leaving(count, left()) {
            return permit;
        }
        let _waiting = Waiting::begin(&self.waiting);
        self.paused.fetch_add(1, Relaxed);
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on, every place that is freed wakes one waiter, also before the first poll.
            freed.as_mut().enable();
            if let Some(permit) = self.take_leaving(count, left()) {
                return permit;
            }
            freed.await;
        }
    }

    /// Changes the number of places; returns whether it differs. Places in use beyond it stay until they are returned.
    pub fn resize(&self, limit: usize) -> bool {
        let before = self.limit.swap(limit, Relaxed);
        if limit > before {
            self.freed.notify_waiters();
        }
        limit != before
    }

    /// Shuts the room, which then gives no places until it is opened again. Those in use stay.
    pub fn set_shut(&self, is_shut: bool) {
        if self.is_shut.swap(is_shut, Relaxed) && !is_shut {
            self.freed.notify_waiters();
        }
    }

    /// Whether the room gives no places.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.is_shut.load(Relaxed)
    }

    /// Whether a taker waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Whether a taker waits for places that others have; false while the room is shut.
    #[must_use]
    pub fn lacks_places(&self) -> bool {
        self.is_awaited() && !self.is_shut()
    }

    /// Number of free places, also of a room that is shut.
    #[must_use]
    pub fn free(&self) -> usize {
        self.limit.load(Relaxed).saturating_sub(self.used.load(Relaxed))
    }

    /// Places in use, and the limit.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        (self.used.load(Relaxed), self.limit.load(Relaxed))
    }
}

/// Counts a waiting taker until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        // The following check also reads counts that other tasks lower before they check for waiters.
        fence(SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Places held until drop.
#[derive(Debug)]
pub struct Permit {
    room: Arc<Room>,
    count: usize,
}

impl Permit {
    /// Keeps the places until [`Room::give`] returns them, for a caller that knows the room and their number anyway.
    pub fn keep(mut self) {
        self.count = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.count > 0 {
            self.room.give(self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn permits_are_bounded_and_come_back() {
        let room = Arc::new(Room::new(4));
        let first = room.take(2).expect("room");
        let _second = room.take(2).expect("room");
        assert!(room.take(1).is_none());
        drop(first);
        assert!(room.take(2).is_some());
    }

    #[test]
    fn places_that_are_kept_are_taken_until_they_are_given_back_and_then_wake_a_waiter() {
        let room = Arc::new(Room::new(2));
        room.take(2).expect("room").keep();
        assert_eq!(room.usage(), (2, 2));
        let mut waiter = pin!(room.wait(2));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
        room.give(2);
        assert!(waiter.as_mut().poll(&mut cx).is_ready());
        assert_eq!(room.usage(), (0, 2), "the waiter's permit was dropped");
    }

    #[test]
    fn places_that_are_freed_while_nobody_waits_leave_no_notice() {
        let room = Arc::new(Room::new(4));
        drop(room.take(2).expect("room"));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(room.freed.notified()).poll(&mut cx).is_pending());
    }

    #[test]
    fn of_threads_that_take_all_places_in_turn_none_waits_for_ever() {
        let room = Arc::new(Room::new(2));
        let patience = std::time::Duration::from_secs(60);
        let wait_often = |room: Arc<Room>| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(async {
                let waits = async {
                    for _ in 0..20_000 {
                        drop(room.wait(2).await);
                    }
                };
                tokio::time::timeout(patience, waits).await.expect("no notice is lost");
            });
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let room = room.clone();
                scope.spawn(move || wait_often(room));
            }
        });
        assert_eq!(room.usage().0, 0);
    }

    #[test]
    fn a_waiter_leaves_as_many_places_as_it_is_asked_to() {
        let (room, left) = (Arc::new(Room::new(4)), AtomicUsize::new(2));
        assert!(room.take_leaving(3, 2).is_none() && room.take_leaving(1, 9).is_none());
        let first = room.take_leaving(2, 2).expect("room");
        let mut waiter = pin!(room.wait_leaving(1, || left.load(Relaxed)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
        let second = room.take(1).expect("room");
        left.store(0, Relaxed);
        drop(second);
        assert!(waiter.as_mut().poll(&mut cx).is_ready());
        drop(first);
    }

    #[test]
    fn what_is_occupied_stays_taken() {
        let room = Arc::new(Room::new(4));
        room.occupy(3);
        assert!(room.take(2).is_none());
        assert_eq!(room.usage(), (3, 4));
    }

    #[test]
    fn growing_a_room_wakes_waiters_and_shrinking_it_takes_nothing_back() {
        let room = Arc::new(Room::new(1));
        let first = room.take(1).expect("room");
        let mut waiter = pin!(room.wait(1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
        assert!(room.lacks_places() && !room.resize(1) && room.resize(2));
        let Poll::Ready(_second) = waiter.as_mut().poll(&mut cx) else { panic!("there is room") };
        assert!(!room.lacks_places(), "nobody waits");
        assert!(room.resize(1) && room.usage() == (2, 1));
        drop(first);
        assert!(room.take(1).is_none(), "the second is in use");
    }

    #[test]
    fn a_room_that_is_shut_gives_no_place_until_it_is_opened_and_then_wakes_those_who_wait() {
        let room = Arc::new(Room::new(3));
        let held = room.take(1).expect("room");
        room.set_shut(true);
        assert!(room.take(1).is_none() && room.is_shut());
        let mut waiters = [(); 2].map(|()| Box::pin(room.wait(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiters.iter_mut().all(|waiter| waiter.as_mut().poll(&mut cx).is_pending()));
        drop(held);
        assert!(waiters.iter_mut().all(|waiter| waiter.as_mut().poll(&mut cx).is_pending()), "free, but shut");
        assert_eq!((room.usage(), room.free(), room.lacks_places()), ((0, 3), 3, false));
        room.set_shut(false);
        assert!(waiters.iter_mut().all(|waiter| waiter.as_mut().poll(&mut cx).is_ready()));
        assert!(room.take(1).is_some() && !room.is_shut());
    }

    #[test]
    fn a_wait_counts_once_however_often_it_is_woken_for_too_little() {
        let room = Arc::new(Room::new(4));
        let mut held: Vec<Permit> = (0..4).map_while(|_| room.take(1)).collect();
        let mut waiter = pin!(room.wait(3));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(waiter.as_mut().poll(&mut cx).is_pending());
            held.pop();
        }
        assert!(waiter.as_mut().poll(&mut cx).is_ready());
        assert_eq!(room.paused.load(Relaxed), 1);
    }

    // D19
    #[test]
    fn places_that_are_freed_together_wake_as_many_waiters() {
        let room = Arc::new(Room::new(4));
        let all = room.take(4).expect("room");
        let mut waiters: Vec<_> = (0..4)
            .map(|_| {
                let room = room.clone();
                Box::pin(async move { room.wait(1).await })
            })
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiters.iter_mut().all(|waiter| waiter.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(room.paused.load(Relaxed), 4);
        assert!(room.is_awaited() && room.free() == 0);
        drop(all);
        let served: Vec<Permit> = waiters
            .iter_mut()
            .filter_map(|waiter| match waiter.as_mut().poll(&mut cx) {
                Poll::Ready(permit) => Some(permit),
                Poll::Pending => None,
            })
            .collect();
        assert_eq!(served.len(), 4);
        assert!(!room.is_awaited());
    }
}

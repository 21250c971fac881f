//! A pair of unix sockets between a worker and the thread of the tunnels.
//!
//! Unix sockets have no resets: an end that closes makes the other read the end of data. So both ends share how each
//! was left. This is recorded before the socket is closed, and checked at the end of data.

use std::{
    io,
    os::unix::net::UnixStream,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU8,
            Ordering::{AcqRel, Acquire, SeqCst},
            fence,
        },
    },
};

use tokio::sync::Notify;

use crate::files::Permit;

/// The end is in use.
const HERE: u8 = 0;
/// The end was closed.
const CLOSED: u8 = 1;
/// The end was reset.
const RESET: u8 = 2;

#[derive(Debug)]
struct Pair {
    /// How each end was left.
    worker: AtomicU8,
    agent: AtomicU8,
    /// Notified when either end was left. Few tasks wait for that, so it is created for the first one.
    told: OnceLock<Box<Notify>>,
    /// The descriptor that a session has beside those of its two connections.
    _file: Permit,
}

/// The state of one end beside its socket: the worker's, or that of the thread of the tunnels.
#[derive(Debug)]
pub struct Side<const IS_WORKER: bool = true>(Arc<Pair>);

impl<const IS_WORKER: bool> Side<IS_WORKER> {
    fn ends(&self) -> (&AtomicU8, &AtomicU8) {
        let (worker, agent) = (&self.0.worker, &self.0.agent);
        if IS_WORKER { (worker, agent) } else { (agent, worker) }
    }

    /// Records how this end is left; only the first call counts. The socket is closed afterwards.
    pub fn leave(&self, is_reset: bool) {
        let how = if is_reset { RESET } else { CLOSED };
        if self.ends().0.compare_exchange(HERE, how, AcqRel, Acquire).is_ok() {
            // In the total order of this fence and that of a waiter, either the waiter finds the end left, or it is
            // found here.
            fence(SeqCst);
            if let Some(told) = self.0.told.get() {
                told.notify_waiters();
            }
        }
    }

    /// Whether the other end was reset.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.ends().1.load(Acquire) == RESET
    }

    /// Waits until the other end is reset.
    pub async fn reset(&self) {
        self.until(|how| how == RESET).await;
    }

    /// Waits until the other end is left, in whatever way.
    pub async fn left(&self) {
        self.until(|how| how != HERE).await;
    }

    /// Waits until the other end was left in a way that `is_it` accepts.
    async fn until(&self, is_it: fn(u8) -> bool) {
        let told = self.0.told.get_or_init(Box::default);
        // See `leave`.
        fence(SeqCst);
        loop {
            let mut told = pin!(told.notified());
            // From here on, the end cannot be left unnoticed.
            told.as_mut().enable();
            if is_it(self.ends().1.load(Acquire)) {
                return;
            }
            told.await;
        }
    }
}

/// A worker that records nothing else has given its end up. The relay at the other end records its own end.
impl<const IS_WORKER: bool> Drop for Side<IS_WORKER> {
    fn drop(&mut self) {
        self.leave(IS_WORKER);
    }
}

/// One end of a pair.
#[derive(Debug)]
pub struct Link<const IS_WORKER: bool = true> {
    // Dropped first, so that the way the end is left is known before the other end reads the end of data.
    /// The shared state of the ends.
    pub side: Side<IS_WORKER>,
    /// The socket, which is non-blocking.
    pub socket: UnixStream,
}

impl Link {
    /// Creates the end of a worker, and that of the thread of the tunnels. `file` is held as long as one of them.
    ///
    /// # Errors
    /// See `socketpair(2)`.
    pub fn pair(file: Permit) -> io::Result<(Self, Link<false>)> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let (worker, agent) = (AtomicU8::new(HERE), AtomicU8::new(HERE));
        let pair = Arc::new(Pair { worker, agent, told: OnceLock::new(), _file: file });
        Ok((Self { side: Side(pair.clone()), socket: near }, Link { side: Side(pair), socket: far }))
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::room::Room;

    #[test]
    fn how_one_end_is_left_is_known_at_the_other_and_what_is_said_first_counts() {
        let room = Arc::new(Room::new(1));
        let mut cx = Context::from_waker(Waker::noop());
        for (is_reset, dropped) in [(Some(true), false), (Some(false), false), (None, true)] {
            let (worker, agent) = Link::pair(room.take(1).expect("room")).expect("sockets");
            let mut reset = Box::pin(agent.side.reset());
            let mut left = Box::pin(agent.side.left());
            assert!(reset.as_mut().poll(&mut cx).is_pending() && left.as_mut().poll(&mut cx).is_pending());
            if let Some(is_reset) = is_reset {
                worker.side.leave(is_reset);
            }
            drop(worker);
            let expected = is_reset.unwrap_or(dropped);
            assert!(left.as_mut().poll(&mut cx).is_ready());
            assert_eq!((reset.as_mut().poll(&mut cx).is_ready(), agent.side.is_reset()), (expected, expected));
            drop((reset, left));
            assert_eq!(room.usage().0, 1, "one end is left");
            drop(agent);
            assert_eq!(room.usage().0, 0);
        }
    }

    #[test]
    fn an_end_that_is_left_while_another_thread_begins_to_wait_for_that_is_noticed() {
        let (room, patience) = (Arc::new(Room::new(1)), std::time::Duration::from_secs(60));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for _ in 0..1000 {
            let (worker, agent) = Link::pair(room.take(1).expect("room")).expect("sockets");
            assert!(agent.side.0.told.get().is_none(), "nobody waits");
            std::thread::scope(|scope| {
                scope.spawn(move || drop(worker));
                runtime.block_on(async {
                    tokio::time::timeout(patience, agent.side.left()).await.expect("no notice is lost");
                });
            });
        }
    }

    #[test]
    fn who_waits_for_a_reset_goes_on_waiting_when_the_other_end_is_closed_or_its_own_is_left() {
        let room = Arc::new(Room::new(1));
        let mut cx = Context::from_waker(Waker::noop());
        let (worker, agent) = Link::pair(room.take(1).expect("room")).expect("sockets");
        let mut reset = Box::pin(worker.side.reset());
        assert!(reset.as_mut().poll(&mut cx).is_pending());
        worker.side.leave(true);
        assert!(reset.as_mut().poll(&mut cx).is_pending(), "its own end");
        agent.side.leave(false);
        assert!(reset.as_mut().poll(&mut cx).is_pending(), "the other end was closed");
    }

    #[test]
    fn a_pair_takes_64_bytes_with_its_counts_and_what_the_allocator_adds() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Pair>() + counts <= 64 - 4, "{} bytes", size_of::<Pair>());
    }

    #[test]
    fn the_end_of_the_tunnels_is_closed_unless_it_says_otherwise() {
        let room = Arc::new(Room::new(2));
        let [(one, gone), (two, reset)] = [(); 2].map(|()| Link::pair(room.take(1).expect("room")).expect("sockets"));
        drop(gone);
        reset.side.leave(true);
        assert!(!one.side.is_reset() && two.side.is_reset());
    }
}

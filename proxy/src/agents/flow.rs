//! The datagrams of one flow between a worker and the thread of the tunnels: a queue in memory for each direction.
//!
//! A sender never waits. If a queue is full, its oldest datagrams are dropped and counted.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

/// Bytes that wait in one direction of a flow: several of the longest datagrams, so that no single one drives out all
/// others. Each datagram counts [`COST`] more, so that empty ones are bounded too.
const QUEUE_BYTES: usize = 256 * 1024;
/// Bytes that wait in all flows of the process. At the bound, a flow with nothing to drop drops the newcomer.
const ALL_BYTES: usize = 16 * 1024 * 1024;
/// The cost of a datagram beside its bytes.
const COST: usize = 64;
/// The largest capacity that an empty queue keeps.
const FEW: usize = 64;

const WORKER: usize = 0;
const TUNNELS: usize = 1;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Datagrams that were dropped since the reader's last call.
    dropped: usize,
}

impl Queue {
    /// Adds a datagram, and returns how many were dropped for it.
    fn push(&mut self, datagram: &[u8], all: &AtomicUsize) -> usize {
        let cost = COST + datagram.len();
        // If other flows leave no room, dropping datagrams here would not help.
        if all.load(Relaxed).saturating_sub(self.bytes) + cost > ALL_BYTES {
            return 1;
        }
        let mut dropped = 0;
        while self.bytes + cost > QUEUE_BYTES || all.load(Relaxed) + cost > ALL_BYTES {
            dropped += 1;
            if self.take(all).is_none() {
                return dropped;
            }
        }
        self.bytes += cost;
        all.fetch_add(cost, Relaxed);
        self.waiting.push_back(datagram.into());
        dropped
    }

    fn take(&mut self, all: &AtomicUsize) -> Option<Box<[u8]>> {
        let datagram = self.waiting.pop_front()?;
        let cost = COST + datagram.len();
        self.bytes -= cost;
        all.fetch_sub(cost, Relaxed);
        // Waiting datagrams count against the bounds, and their places must not outlast them.
        if self.waiting.is_empty() && self.waiting.capacity() > FEW {
            self.waiting = VecDeque::new();
        }
        Some(datagram)
    }
}

/// The state of both ends, by their places: [`WORKER`] and [`TUNNELS`].
#[derive(Debug, Default)]
struct State {
    /// The datagrams to be read by each end.
    queues: [Queue; 2],
    /// The waiting task of each end, if there is one.
    readers: [Option<Waker>; 2],
    left: [bool; 2],
    failure: Option<io::Error>,
}

#[derive(Debug)]
struct Pair {
    state: Mutex<State>,
    /// Bytes in the queues of all flows.
    all: Arc<AtomicUsize>,
}

impl Pair {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let left: usize = self.state().queues.iter().map(|queue| queue.bytes).sum();
        self.all.fetch_sub(left, Relaxed);
    }
}

/// One end of a flow. Dropping it leaves the flow. One task at a time may wait for datagrams.
#[derive(Debug)]
pub struct FlowEnd {
    pair: Arc<Pair>,
    own: usize,
}

impl FlowEnd {
    /// Creates the ends of a worker and of the thread of the tunnels. `all` counts the queued bytes of all flows.
    #[must_use]
    pub fn pair(all: &Arc<AtomicUsize>) -> (Self, Self) {
        let pair = Arc::new(Pair { state: Mutex::default(), all: all.clone() });
        (Self { pair: pair.clone(), own: WORKER }, Self { pair, own: TUNNELS })
    }

    const fn other(&self) -> usize {
        WORKER + TUNNELS - self.own
    }

    /// Sends a datagram, and returns how many were dropped for it. `None`: the other end has left; nothing was sent.
    #[must_use]
    pub fn send(&self, datagram: &[u8]) -> Option<usize> {
        let (dropped, reader) = {
            let mut state = self.pair.state();
            if state.left[self.other()] {
                return None;
            }
            let queue = &mut state.queues[self.other()];
            let dropped = queue.push(datagram, &self.pair.all);
            queue.dropped += dropped;
            (dropped, state.readers[self.other()].take())
        };
        // Woken after the lock is released, so that the reader finds the state free.
        if let Some(reader) = reader {
            reader.wake();
        }
        Some(dropped)
    }

    /// The next datagram; `None` after the other end has left and all datagrams were read.
    pub async fn recv(&self) -> Option<Box<[u8]>> {
        poll_fn(|cx| {
            let mut state = self.pair.state();
            if let Some(datagram) = state.queues[self.own].take(&self.pair.all) {
                return Poll::Ready(Some(datagram));
            }
            if state.left[self.other()] {
                return Poll::Ready(None);
            }
            self.wait(&mut state, cx);
            Poll::Pending
        })
        .await
    }

    fn wait(&self, state: &mut State, cx: &Context<'_>) {
        let reader = &mut state.readers[self.own];
        if !reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    /// Datagrams for this end that were dropped since the last call.
    #[must_use]
    pub fn lost(&self) -> usize {
        mem::take(&mut self.pair.state().queues[self.own].dropped)
    }

    /// Takes back the datagrams that the other end has not read, and returns their number.
    #[must_use]
    pub fn unread(&self) -> usize {
        let mut state = self.pair.state();
        let queue = &mut state.queues[self.other()];
        let mut count = 0;
        while queue.take(&self.pair.all).is_some() {
            count += 1;
        }
        count
    }

    /// Leaves the flow, and reports the reason.
    pub fn fail(self, error: io::Error) {
        self.pair.state().failure = Some(error);
    }

    /// Why the other end has left, if it has reported it.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        self.pair.state().failure.take()
    }
}

impl Drop for FlowEnd {
    fn drop(&mut self) {
        let reader = {
            let mut state = self.pair.state();
            state.left[self.own] = true;
            state.readers[self.other()].take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn pair() -> (FlowEnd, FlowEnd, Arc<AtomicUsize>) {
        let all = Arc::default();
        let (worker, tunnels) = FlowEnd::pair(&all);
        (worker, tunnels, all)
    }

    /// The first bytes of the datagrams that wait for an end.
    async fn firsts(end: &FlowEnd, count: usize) -> Vec<u8> {
        let mut firsts = Vec::new();
        for _ in 0..count {
            firsts.extend(end.recv().await.expect("a datagram").first());
        }
        firsts
    }

    #[tokio::test]
    async fn datagrams_of_every_length_pass_both_ways_in_their_order() {
        let (worker, tunnels, all) = pair();
        for (from, to) in [(&worker, &tunnels), (&tunnels, &worker)] {
            for length in [0, 1, 0, 65_507] {
                assert_eq!(from.send(&vec![7; length]), Some(0));
            }
            for length in [0, 1, 0, 65_507] {
                assert_eq!(to.recv().await.as_deref(), Some(&*vec![7; length]));
            }
        }
        assert_eq!(all.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn the_oldest_datagrams_give_way_and_both_ends_know_how_many() {
        let (worker, tunnels, _) = pair();
        let dropped: usize = (0..10).map(|number| worker.send(&vec![number; 60_000]).expect("the end is there")).sum();
        assert_eq!((dropped, tunnels.lost(), tunnels.lost()), (6, 6, 0));
        assert_eq!(firsts(&tunnels, 4).await, [6, 7, 8, 9]);
        let empty = QUEUE_BYTES / COST;
        let dropped: usize = (0..empty + 5).map(|_| worker.send(&[]).expect("the end is there")).sum();
        assert_eq!((dropped, worker.unread()), (5, empty), "empty ones are bounded too");
        assert_eq!(tunnels.lost(), 5);
    }

    #[tokio::test]
    async fn the_places_of_a_burst_go_with_its_last_datagram_and_those_of_a_few_stay() {
        let (worker, tunnels, _) = pair();
        let places = || worker.pair.state().queues[TUNNELS].waiting.capacity();
        assert_eq!(worker.send(b"one"), Some(0));
        assert_eq!(tunnels.recv().await.as_deref(), Some(b"one".as_slice()));
        assert!((1..=FEW).contains(&places()), "single datagrams take no places each: {}", places());
        assert!((0..1000).all(|_| worker.send(&[]) == Some(0)));
        assert!(places() >= 1000);
        assert!(firsts(&tunnels, 1000).await.is_empty(), "all are empty");
        assert!(places() <= FEW, "{} places", places());
    }

    #[test]
    fn the_longest_datagram_never_drives_out_all_that_wait() {
        let (worker, tunnels, _) = pair();
        while worker.send(&[1; 1200]) == Some(0) {}
        let before = worker.pair.state().queues[TUNNELS].waiting.len();
        let dropped = worker.send(&vec![2; 65_507]).expect("the end is there");
        assert!(dropped > 0 && dropped < before / 2, "{dropped} of {before}");
        drop(tunnels);
    }

    #[test]
    fn all_flows_together_keep_no_more_than_they_may() {
        let (worker, tunnels, all) = pair();
        let others: Vec<_> = iter::repeat_with(|| FlowEnd::pair(&all)).take(ALL_BYTES / QUEUE_BYTES).collect();
        for (worker, _) in &others {
            for _ in 0..2 {
                assert_eq!(worker.send(&vec![1; QUEUE_BYTES / 2 - COST]), Some(0));
            }
        }
        assert_eq!((all.load(Relaxed), worker.send(b"newcomer"), tunnels.lost()), (ALL_BYTES, Some(1), 1));
        assert_eq!(others[0].0.send(b"newer"), Some(1), "the older one of the same flow");
        assert_eq!(others[0].0.send(b"newest"), Some(0), "in the room that it has left");
        assert_eq!(others[1].0.send(&vec![1; QUEUE_BYTES / 2 - COST]), Some(1), "one for one of the same length");
        drop(others);
        assert_eq!((all.load(Relaxed), worker.send(b"later")), (0, Some(0)));
        drop((worker, tunnels));
        assert_eq!(all.load(Relaxed), 0, "what nobody has read");
    }

    #[tokio::test]
    async fn an_end_that_leaves_is_known_after_what_it_has_sent() {
        let (worker, tunnels, _) = pair();
        assert_eq!(tunnels.send(b"last"), Some(0));
        assert_eq!(worker.send(b"nobody reads it"), Some(0));
        tunnels.fail(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(worker.recv().await.as_deref(), Some(b"last".as_slice()));
        assert_eq!(worker.recv().await, None);
        assert_eq!(worker.failure().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
        assert_eq!((worker.send(b"x"), worker.unread()), (None, 1));

        let (worker, tunnels, _) = pair();
        let (datagram, ()) = tokio::join!(tunnels.recv(), async move { drop(worker) });
        assert_eq!(datagram, None, "a reader that waits is woken");
        assert!(tunnels.failure().is_none());
    }
}

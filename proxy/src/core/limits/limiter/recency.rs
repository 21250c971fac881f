//! The flows of a forward in order of last use, over all its sockets and workers.
//!
//! A datagram costs a store, and a further one within the same millisecond none. The order is updated only when room is
//! needed, and only from its head: a flow used since it was last sorted moves to its new position, so that the flow left
//! at the head is the least recently used.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
};

use slab::Slab;

use crate::core::udp::flows::IN_USE_MILLIS;

/// The age of a flow within its source: whether it carries a conversation, and its last use in milliseconds.
pub(super) type Age = (bool, u64);

/// State of a flow, shared by its worker and by admissions that may evict it.
#[derive(Debug, Default)]
pub struct Mark {
    used: AtomicU64,
    answered: AtomicBool,
    conversing: AtomicBool,
    evicted: AtomicBool,
    over: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Mark {
    /// Records use of the flow at `now` (milliseconds).
    pub fn touch(&self, now: u64) {
        // Flows of several workers may share a cache line, which only a write takes away.
        if self.used.load(Relaxed) != now {
            self.used.store(now, Relaxed);
        }
    }

    /// Records a datagram from the endpoint.
    pub fn answer(&self) {
        if !self.answered.load(Relaxed) {
            self.answered.store(true, Relaxed);
        }
    }

    /// Records a datagram from the client on an existing flow. The flow carries a conversation if the client sends
    /// after an answer: a client that asks once does not, nor does a flood that reads no answer.
    pub fn ask(&self) {
        if self.answered.load(Relaxed) && !self.conversing.load(Relaxed) {
            self.conversing.store(true, Relaxed);
        }
    }

    /// Whether the flow carries a conversation, and when it was last used, in milliseconds.
    pub(super) fn age(&self) -> Age {
        (self.conversing.load(Relaxed), self.used.load(Relaxed))
    }

    /// Whether the flow was evicted.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Signals the end of the flow to the task waiting on [`Mark::ended`], even if it starts to wait later.
    pub fn end(&self) {
        self.over.store(true, SeqCst);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Resolves when the flow is over, evicted or not. Only one task may wait.
    pub fn ended(&self) -> Over<'_> {
        Over(self)
    }

    pub(super) fn evict(&self) {
        self.evicted.store(true, Relaxed);
        self.end();
    }
}

/// Future of [`Mark::ended`].
#[derive(Debug)]
pub struct Over<'a>(&'a Mark);

impl Future for Over<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mark = self.0;
        let mut waiting = mark.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock, so no signal is lost: a later one finds the waker, and an earlier one has set the
        // flag.
        if mark.over.load(SeqCst) {
            return Poll::Ready(());
        }
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[derive(Debug)]
struct Filed {
    at: u64,
    mark: Arc<Mark>,
    source: IpAddr,
}

#[derive(Debug, Default)]
pub(super) struct Recency {
    flows: Slab<Filed>,
    by_use: BTreeSet<(u64, usize)>,
}

impl Recency {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Adds a flow, used at `now`.
    pub(super) fn join(&mut self, source: IpAddr, now: u64) -> (usize, Arc<Mark>) {
        let mark = Arc::new(Mark::default());
        mark.touch(now);
        let key = self.flows.insert(Filed { at: now, mark: mark.clone(), source });
        self.by_use.insert((now, key));
        (key, mark)
    }

    /// Removes a flow that ends; false if it was already evicted.
    pub(super) fn leave(&mut self, key: usize, mark: &Arc<Mark>) -> bool {
        let is_filed = self.flows.get(key).is_some_and(|filed| Arc::ptr_eq(&filed.mark, mark));
        if is_filed {
            self.take(key);
        }
        is_filed
    }

    /// Whether the least recently used flow is idle at `now`. `work` is the number of flows that may be re-sorted to
    /// find out; when it runs out, the answer is no.
    pub(super) fn has_idle(&mut self, now: u64, work: &mut usize) -> bool {
        while let Some((at, key)) = self.by_use.first().copied() {
            if now.saturating_sub(at) < IN_USE_MILLIS {
                return false;
            }
            let Some(filed) = self.flows.get_mut(key) else { return false };
            let used = filed.mark.used.load(Relaxed);
            if used <= at {
                return true;
            }
            let Some(left) = work.checked_sub(1) else { return false };
            *work = left;
            filed.at = used;
            self.by_use.pop_first();
            self.by_use.insert((used, key));
        }
        false
    }

    /// Removes the least recently used flow if it is idle at `now`; returns its mark and source.
    pub(super) fn take_idle(&mut self, now: u64, work: &mut usize) -> Option<(Arc<Mark>, IpAddr)> {
        if !self.has_idle(now, work) {
            return None;
        }
        let (_, key) = self.by_use.first().copied()?;
        self.take(key)
    }

    fn take(&mut self, key: usize) -> Option<(Arc<Mark>, IpAddr)> {
        let filed = self.flows.try_remove(key)?;
        self.by_use.remove(&(filed.at, key));
        Some((filed.mark, filed.source))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn what_one_asks_for_costs_no_more_than_it_may() {
        let mut recency = Recency::default();
        let marks: Vec<_> = (0..10).map(|_| recency.join(HERE, 0).1).collect();
        marks.iter().take(9).for_each(|mark| mark.touch(5000));
        let mut work = 4;
        assert!(recency.take_idle(5000, &mut work).is_none());
        let mut work = 5;
        assert!(Arc::ptr_eq(&recency.take_idle(5000, &mut work).expect("the search continues").0, &marks[9]));
    }

    #[test]
    fn a_mark_has_the_last_use_and_an_answer_makes_the_next_question_a_conversation() {
        let mark = Mark::default();
        for now in [0, 7, 7, 8] {
            mark.touch(now);
            mark.ask();
            assert_eq!(mark.age(), (false, now));
        }
        mark.answer();
        mark.answer();
        assert_eq!(mark.age(), (false, 8));
        mark.ask();
        assert_eq!(mark.age(), (true, 8));
    }

    proptest! {
        /// Compares with a plain list of last uses.
        #[test]
        fn those_that_go_are_those_used_longest_ago(steps in proptest::collection::vec((0_u8..5, 0_usize..6, 0_u64..900), 0..200)) {
            let mut recency = Recency::default();
            let mut plain: Vec<(u64, usize, Arc<Mark>)> = Vec::new();
            let mut now = 0;
            for (step, n, passed) in steps {
                // Uses never coincide, so that the least recently used flow is unique.
                now += passed + 1;
                match step {
                    0 | 1 => {
                        let (key, mark) = recency.join(HERE, now);
                        plain.push((now, key, mark));
                    }
                    2 => {
                        if let Some(one) = plain.get_mut(n) {
                            one.2.touch(now);
                            one.0 = now;
                        }
                    }
                    3 => {
                        if n < plain.len() {
                            let (_, key, mark) = plain.remove(n);
                            prop_assert!(recency.leave(key, &mark));
                            prop_assert!(!recency.leave(key, &mark), "only once");
                        }
                    }
                    _ => {
                        plain.sort_by_key(|(used, ..)| *used);
                        let is_idle = plain.first().is_some_and(|(used, ..)| now - used >= IN_USE_MILLIS);
                        let mut work = usize::MAX;
                        prop_assert_eq!(recency.has_idle(now, &mut work), is_idle);
                        let taken = recency.take_idle(now, &mut work);
                        prop_assert_eq!(taken.is_some(), is_idle);
                        if let Some((mark, _)) = taken {
                            prop_assert!(Arc::ptr_eq(&mark, &plain.remove(0).2));
                        }
                    }
                }
                prop_assert_eq!((recency.len(), recency.by_use.len()), (plain.len(), plain.len()));
            }
        }
    }
}

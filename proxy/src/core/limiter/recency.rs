//! The flows of a forward in the order of their last use, over all its sockets and workers.
//!
//! A datagram costs one store. The order is brought up to date only when somebody needs room, and only from its head on: a
//! flow that was used since it was filed is filed anew, and who is first then is the one used longest ago.

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

use crate::core::flows::IN_USE_MILLIS;

/// What the worker of a flow and those who need its place know of it.
#[derive(Debug, Default)]
pub struct Mark {
    used: AtomicU64,
    evicted: AtomicBool,
    over: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Mark {
    /// Notes that the flow was used at `now` (milliseconds).
    pub fn touch(&self, now: u64) {
        self.used.store(now, Relaxed);
    }

    /// Whether its place was given to another flow.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Tells the one who waits for [`Mark::told`] that the flow is over; told before, it is not forgotten.
    pub fn tell(&self) {
        self.over.store(true, SeqCst);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready when the flow is over, evicted or not. One task waits for it.
    pub fn told(&self) -> Told<'_> {
        Told(self)
    }

    pub(super) fn evict(&self) {
        self.evicted.store(true, Relaxed);
        self.tell();
    }
}

/// The end of a flow.
#[derive(Debug)]
pub struct Told<'a>(&'a Mark);

impl Future for Told<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mark = self.0;
        let mut waiting = mark.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: who tells it now finds the waker, who told it before has left the word.
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

    /// Files a flow that is used now.
    pub(super) fn join(&mut self, source: IpAddr, now: u64) -> (usize, Arc<Mark>) {
        let mark = Arc::new(Mark::default());
        mark.touch(now);
        let key = self.flows.insert(Filed { at: now, mark: mark.clone(), source });
        self.by_use.insert((now, key));
        (key, mark)
    }

    /// Takes out a flow that ends; false if it was evicted before.
    pub(super) fn leave(&mut self, key: usize, mark: &Arc<Mark>) -> bool {
        let is_filed = self.flows.get(key).is_some_and(|filed| Arc::ptr_eq(&filed.mark, mark));
        if is_filed {
            self.take(key);
        }
        is_filed
    }

    /// Whether the least recently used flow is not in use at `now`. `work` is how many flows may be filed anew for that; with
    /// nothing left of it the answer is no.
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

    /// Takes the least recently used flow out if it is not in use at `now`, and tells its source.
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
        assert!(Arc::ptr_eq(&recency.take_idle(5000, &mut work).expect("the next one goes on").0, &marks[9]));
    }

    proptest! {
        /// Against a plain list of last uses.
        #[test]
        fn those_that_go_are_those_used_longest_ago(steps in proptest::collection::vec((0_u8..5, 0_usize..6, 0_u64..900), 0..200)) {
            let mut recency = Recency::default();
            let mut plain: Vec<(u64, usize, Arc<Mark>)> = Vec::new();
            let mut now = 0;
            for (step, n, passed) in steps {
                // Never two uses at once, so that there is one that is the oldest.
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
                            prop_assert!(!recency.leave(key, &mark), "once");
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

//! The flows of a namespace by source: which flow is evicted when room is short.
//!
//! The source with the most flows loses one first; among sources with equally many, the one whose first flow was used
//! least recently. Of the flows of a source, those without a conversation are evicted first, and then the least
//! recently used.
//!
//! A datagram costs one or two stores. The order is updated only when room is needed, and only at its head, as in
//! [`super::recency`]. Each step is a search in an ordered set.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    mem,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use foldhash::HashMap;
use slab::Slab;

use super::{
    network,
    recency::{Age, Mark},
};
use crate::core::udp::flows::{FlowKey, IN_USE_MILLIS};

/// The rank of a source in its namespace: its number of flows, and the age of its first flow. The source of the last
/// rank loses a flow first.
type Rank = (usize, Reverse<Age>, IpAddr);

/// Orders before every rank with the same number of flows.
const LOWEST: (Reverse<Age>, IpAddr) = (Reverse((true, u64::MAX)), IpAddr::V4(Ipv4Addr::UNSPECIFIED));

#[derive(Debug)]
struct Filed {
    age: Age,
    source: IpAddr,
    mark: Arc<Mark>,
    key: FlowKey,
}

/// An evicted flow.
#[derive(Clone, Debug)]
pub struct Victim {
    /// State of the flow.
    pub mark: Arc<Mark>,
    /// Key of the flow in the table of its socket.
    pub key: FlowKey,
}

/// The flows of a namespace. A source is a [`network`].
#[derive(Debug, Default)]
pub(super) struct BySource {
    flows: Slab<Filed>,
    /// The flows of each source in the order of eviction, as filed.
    order: BTreeSet<(IpAddr, Age, usize)>,
    /// Flows of each source; never has more entries than flows.
    counts: HashMap<IpAddr, usize>,
    ranks: BTreeSet<Rank>,
}

impl BySource {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Number of flows from the source of this address.
    pub(super) fn count(&self, source: IpAddr) -> usize {
        self.counts.get(&network(source)).copied().unwrap_or_default()
    }

    /// Number of flows of the source with the most.
    pub(super) fn most(&self) -> usize {
        self.ranks.last().map_or(0, |(count, ..)| *count)
    }

    /// Adds a flow, used at `now`; returns its place.
    pub(super) fn file(&mut self, mark: Arc<Mark>, key: FlowKey, now: u64) -> usize {
        let (source, age) = (network(key.client.ip()), (false, now));
        let before = self.rank(source);
        let at = self.flows.insert(Filed { age, source, mark, key });
        self.order.insert((source, age, at));
        *self.counts.entry(source).or_default() += 1;
        self.move_source(source, before);
        at
    }

    /// Removes a flow that ends, unless it was evicted before.
    pub(super) fn leave(&mut self, at: usize, mark: &Arc<Mark>) {
        if self.flows.get(at).is_some_and(|filed| Arc::ptr_eq(&filed.mark, mark)) {
            self.take(at);
        }
    }

    /// Removes the flow at this place.
    pub(super) fn take(&mut self, at: usize) -> Option<Victim> {
        let Filed { age, source, mark, key } = self.flows.try_remove(at)?;
        let before = self.rank(source);
        self.order.remove(&(source, age, at));
        let left = self.count(source).saturating_sub(1);
        if left == 0 {
            self.counts.remove(&source);
        } else {
            self.counts.insert(source, left);
        }
        self.move_source(source, before);
        Some(Victim { mark, key })
    }

    /// The place of a flow that is idle at `now`, of the source that has one and the most flows, at least `least`.
    /// `work` limits how many flows may be filed again to find out; `more` limits how many sources may be searched
    /// after the first one, each with fewer flows than the one before.
    pub(super) fn idle(&mut self, least: usize, now: u64, work: &mut usize, more: &mut usize) -> Option<usize> {
        let mut below = usize::MAX;
        loop {
            // Among sources with equally many flows, the others were used more recently.
            let (count, _, source) = self.heaviest(below, work)?;
            if count < least {
                return None;
            }
            for conversing in [false, true] {
                let first = self.settled(source, conversing, work);
                if let Some((_, at)) = first.filter(|(used, _)| is_idle(*used, now)) {
                    return Some(at);
                }
            }
            below = count;
            *more = more.checked_sub(1)?;
        }
    }

    /// The place of the first flow of the source with the most flows, and whether that flow is idle at `now` or carries
    /// no conversation. `work` as for [`Self::idle`].
    pub(super) fn first_of_heaviest(&mut self, now: u64, work: &mut usize) -> Option<(usize, bool)> {
        let (_, Reverse((conversing, used)), source) = self.heaviest(usize::MAX, work)?;
        let (_, at) = self.first(source, conversing)?;
        Some((at, !conversing || is_idle(used, now)))
    }

    /// The source to evict from first, of those with fewer than `below` flows.
    fn heaviest(&mut self, below: usize, work: &mut usize) -> Option<Rank> {
        loop {
            let rank = self.ranks.range(..(below, LOWEST.0, LOWEST.1)).next_back().copied()?;
            let (_, Reverse((conversing, _)), source) = rank;
            let settled = self.settled(source, conversing, work);
            // If the source has moved, another one may be first.
            if self.rank(source) == Some(rank) {
                return settled.map(|_| rank);
            }
        }
    }

    /// The last use and the place of the first flow of a source, with a conversation or without, after flows that were
    /// used since they were filed were filed again. `None` also if `work` runs out.
    fn settled(&mut self, source: IpAddr, conversing: bool, work: &mut usize) -> Option<(u64, usize)> {
        loop {
            let (used, at) = self.first(source, conversing)?;
            let age = self.flows.get(at)?.mark.age();
            if age <= (conversing, used) {
                return Some((used, at));
            }
            *work = work.checked_sub(1)?;
            self.file_again(at, age);
        }
    }

    fn file_again(&mut self, at: usize, age: Age) {
        let Some(filed) = self.flows.get_mut(at) else { return };
        let (source, filed_age) = (filed.source, mem::replace(&mut filed.age, age));
        let before = self.rank(source);
        self.order.remove(&(source, filed_age, at));
        self.order.insert((source, age, at));
        self.move_source(source, before);
    }

    /// The last use, as filed, and the place of the first flow of a source, with a conversation or without.
    fn first(&self, source: IpAddr, conversing: bool) -> Option<(u64, usize)> {
        let (of, (kind, used), at) = self.order.range((source, (conversing, 0), 0)..).next().copied()?;
        (of == source && kind == conversing).then_some((used, at))
    }

    fn rank(&self, source: IpAddr) -> Option<Rank> {
        let count = self.counts.get(&source).copied()?;
        let (of, age, _) = self.order.range((source, (false, 0), 0)..).next().copied()?;
        (of == source).then_some((count, Reverse(age), source))
    }

    /// Moves a source from its rank before a change.
    fn move_source(&mut self, source: IpAddr, before: Option<Rank>) {
        let after = self.rank(source);
        if after == before {
            return;
        }
        if let Some(before) = before {
            self.ranks.remove(&before);
        }
        self.ranks.extend(after);
    }
}

fn is_idle(used: u64, now: u64) -> bool {
    now.saturating_sub(used) >= IN_USE_MILLIS
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn key(source: u8, port: usize) -> FlowKey {
        let port = u16::try_from(port).expect("few flows");
        FlowKey { client: SocketAddr::from(([192, 0, 2, source], port)), local: None }
    }

    struct Plain {
        at: usize,
        source: u8,
        mark: Arc<Mark>,
    }

    /// Like [`BySource::idle`] and [`BySource::first_of_heaviest`], on a plain list.
    fn order(plain: &[Plain]) -> Vec<(Reverse<usize>, Age, usize)> {
        let count = |source: u8| plain.iter().filter(|flow| flow.source == source).count();
        let first = |source: u8| plain.iter().filter(|flow| flow.source == source).map(|flow| flow.mark.age()).min();
        let firsts = plain.iter().filter(|flow| first(flow.source) == Some(flow.mark.age()));
        let mut order: Vec<_> = firsts.map(|flow| (Reverse(count(flow.source)), flow.mark.age(), flow.at)).collect();
        order.sort_unstable();
        order
    }

    #[test]
    fn a_flow_with_a_conversation_gives_way_after_the_others_of_its_source() {
        let (mut flows, mut work) = (BySource::default(), 100);
        let marks: Vec<Arc<Mark>> = (0..3).map(|_| Arc::default()).collect();
        let places: Vec<usize> = (0..3).map(|at| flows.file(marks[at].clone(), key(1, at), 0)).collect();
        marks[0].answer();
        marks[0].ask();
        marks[1].answer();
        marks[1].touch(10);
        assert_eq!(flows.first_of_heaviest(20, &mut work), Some((places[2], true)));
        assert!(flows.take(places[2]).is_some());
        assert_eq!(flows.first_of_heaviest(20, &mut work), Some((places[1], true)), "one datagram and its answer");
        assert_eq!(flows.idle(0, 1000, &mut work, &mut 0), Some(places[0]), "the other one is in use");
        assert!(flows.take(places[1]).is_some());
        assert_eq!(flows.first_of_heaviest(20, &mut work), Some((places[0], false)));
        assert_eq!(flows.first_of_heaviest(1000, &mut work), Some((places[0], true)));
    }

    #[test]
    fn what_a_search_files_again_is_bounded() {
        let mut flows = BySource::default();
        let marks: Vec<Arc<Mark>> = (0..10).map(|_| Arc::default()).collect();
        let places: Vec<usize> = (0..10).map(|at| flows.file(marks[at].clone(), key(1, at), 0)).collect();
        marks.iter().take(9).for_each(|mark| mark.touch(5000));
        assert_eq!(flows.idle(0, 5000, &mut 4, &mut 0), None);
        assert_eq!(flows.idle(0, 5000, &mut 5, &mut 0), Some(places[9]), "the search continues");
    }

    proptest! {
        /// Compares with a plain list.
        #[test]
        fn the_source_with_the_most_flows_gives_way_first_and_then_the_least_recently_used(
            steps in proptest::collection::vec((0_u8..7, 0_usize..8, 0_u64..900), 0..200),
        ) {
            let (mut flows, mut plain, mut now) = (BySource::default(), Vec::<Plain>::new(), 0);
            for (step, n, passed) in steps {
                // Uses never coincide, so the first flow is unique.
                now += passed + 1;
                let mut work = usize::MAX;
                match (step, plain.get(n % plain.len().max(1))) {
                    (0 | 1, _) => {
                        let (mark, source) = (Arc::new(Mark::default()), u8::try_from(n % 3).expect("small"));
                        mark.touch(now);
                        let at = flows.file(mark.clone(), key(source, n), now);
                        plain.push(Plain { at, source, mark });
                    }
                    (2, Some(flow)) => flow.mark.touch(now),
                    (3, Some(flow)) => {
                        flow.mark.answer();
                        flow.mark.ask();
                    }
                    (4, Some(_)) => {
                        let Plain { at, mark, .. } = plain.remove(n % plain.len());
                        flows.leave(at, &mark);
                        flows.leave(at, &mark);
                    }
                    (5, _) => {
                        let first = order(&plain).first().map(|(_, (conversing, used), at)| {
                            (*at, !conversing || is_idle(*used, now))
                        });
                        prop_assert_eq!(flows.first_of_heaviest(now, &mut work), first);
                    }
                    _ => {
                        let found = flows.idle(0, now, &mut work, &mut 64);
                        if let Some(at) = found {
                            let flow = plain.iter().position(|flow| flow.at == at).expect("a flow");
                            let flow = plain.remove(flow);
                            prop_assert!(is_idle(flow.mark.age().1, now));
                            prop_assert!(flows.take(at).is_some_and(|taken| Arc::ptr_eq(&taken.mark, &flow.mark)));
                        } else {
                            let idle = |first: &(Reverse<usize>, Age, usize)| is_idle(first.1.1, now);
                            prop_assert!(!order(&plain).first().is_some_and(idle), "the first of all is idle");
                        }
                    }
                }
                prop_assert_eq!((flows.len(), flows.order.len()), (plain.len(), plain.len()));
                prop_assert_eq!(flows.ranks.len(), flows.counts.len());
                let counts = (0..3).map(|source| flows.count(IpAddr::from([192, 0, 2, source])));
                prop_assert_eq!(Some(flows.most()), counts.max());
            }
        }
    }
}

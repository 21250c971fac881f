//! The limits of a forward, shared by all its listeners and exact across all workers.
//!
//! One lock, taken when a session begins and ends. The share of the namespace ([`Share`]) is separate. Waiting
//! connections form one first-come, first-served queue across all workers. A released slot goes only to the head of
//! that queue, except that the slot of an evicted flow goes to the flow that evicted it.

mod bucket;
mod by_source;
mod flow_registry;
mod recency;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use foldhash::fast::RandomState;
use proxy_api::{
    Limits, OnLimit,
    doors::{Source, Tally},
};

use self::recency::Recency;
pub use self::{
    bucket::{Allowance, Bucket},
    by_source::Victim,
    flow_registry::{FlowRegistry, Member, Newcomer},
    recency::Mark,
};
use crate::core::limits::share::Share;

/// Which limit refused a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `maxConnections`, or for flows also `maxFlows`.
    Connections,
    /// `maxConnectionsPerSource`.
    Source,
    /// `newConnectionsPerSecond`.
    Rate,
    /// `maxQueued`.
    QueueFull,
    /// The share of the namespace.
    Tenant,
}

/// Most flows examined, and most flows evicted, per admission: other workers wait for the lock meanwhile.
const WORK: usize = 1024;

/// Result of asking for admission.
#[derive(Debug)]
pub enum Admission {
    /// Admitted.
    Admitted(Slot),
    /// Queued.
    Queued(Waiting),
    /// Refused.
    Refused(Refusal),
}

/// The limits of one forward in one process.
#[derive(Debug, Default)]
pub struct Limiter {
    state: Mutex<State>,
    /// Bytes in both directions; unused without `bytesPerSecond`.
    pub bytes: Bucket,
    /// The share of the forward's namespace.
    pub share: Arc<Share>,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    connections: u32,
    flows: Recency,
    /// Live and waiting sessions by source; never has more entries than sessions.
    sources: Tally<RandomState>,
    rate: bucket::Tokens,
    /// Waiting connections by sequence number, hence in order of arrival.
    waiting: BTreeMap<u64, Option<Waker>>,
    /// Waiting connections that were granted a slot but have not been polled yet.
    granted: BTreeSet<u64>,
    next: u64,
}

impl Limiter {
    /// A forward without limits, in a namespace with this share.
    #[must_use]
    pub fn of(share: Arc<Share>) -> Self {
        Self { share, ..Self::default() }
    }

    /// Replaces the limits. Admitted sessions stay; waiting connections are admitted if there is room now.
    pub fn set(&self, limits: Option<&Limits>) {
        let limits = limits.cloned().unwrap_or_default();
        self.bytes.set(limits.bytes_per_second);
        let mut state = self.lock();
        if state.limits == limits {
            return;
        }
        if let Some(rate) = limits.new_connections_per_second {
            state.rate.clamp(rate.into());
        }
        state.limits = limits;
        let woken = state.grant();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Asks for admission of a connection. `now` is in milliseconds of the process clock.
    #[must_use]
    pub fn admit(self: &Arc<Self>, source: IpAddr, now: u64) -> Admission {
        let mut state = self.lock();
        let has_room = state.has_room() && state.waiting.is_empty();
        let may_begin = state.takes_source(source).and_then(|()| if has_room { Ok(()) } else { state.may_wait() });
        if let Err(refusal) = may_begin.and_then(|()| state.takes_token(now)) {
            return Admission::Refused(refusal);
        }
        state.join_source(source);
        if has_room {
            state.connections += 1;
            return Admission::Admitted(Slot { limiter: Some(self.clone()), source });
        }
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, None);
        Admission::Queued(Waiting { limiter: self.clone(), number, source, done: false })
    }

    /// Asks for admission of a UDP flow. If there is no room, in the forward or in the share of the namespace, the
    /// forward's least recently used idle flow is evicted, whichever socket and worker it is on, and its [`Mark`] is
    /// notified. If the limit was lowered below the present number of flows, idle flows beyond the limit are evicted,
    /// too.
    ///
    /// # Errors
    /// The limit that refused the flow.
    pub fn admit_flow(self: &Arc<Self>, source: IpAddr, now: u64) -> Result<FlowSlot, Refusal> {
        let mut state = self.lock();
        let mut evicted = Vec::new();
        let has_place = self.share.take();
        let admitted = state.make_room_for_a_flow(source, now, has_place, &mut evicted).map(|()| {
            state.join_source(source);
            let (key, mark) = state.flows.join(source, now);
            FlowSlot { limiter: self.clone(), key, mark, source }
        });
        // An evicted flow passes its place on; the places of further evicted flows are free.
        let places = evicted.len() + usize::from(has_place);
        self.share.give(places.saturating_sub(usize::from(admitted.is_ok())));
        // More slots may have been freed than were taken.
        let woken = if evicted.is_empty() { Vec::new() } else { state.grant() };
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        for mark in evicted {
            mark.evict();
        }
        admitted
    }

    /// Releases the slot of a connection of this source, which was kept.
    pub fn leave(&self, source: IpAddr) {
        let mut state = self.lock();
        state.connections = state.connections.saturating_sub(1);
        give_back(state, source);
    }

    /// Numbers of live sessions and of waiting connections.
    #[must_use]
    pub fn counts(&self) -> (u32, usize) {
        let state = self.lock();
        (state.sessions(), state.waiting.len() + state.granted.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sessions(&self) -> u32 {
        self.connections.saturating_add(u32::try_from(self.flows.len()).unwrap_or(u32::MAX))
    }

    fn has_room(&self) -> bool {
        fits(self.limits.max_connections, self.sessions())
    }

    /// Number of flows to evict before one more fits.
    fn too_many_for_a_flow(&self) -> usize {
        let beyond =
            |most: Option<u32>, count: u32| most.map_or(0, |most| count.saturating_add(1).saturating_sub(most));
        let flows = u32::try_from(self.flows.len()).unwrap_or(u32::MAX);
        let over = beyond(self.limits.max_connections, self.sessions()).max(beyond(self.limits.max_flows, flows));
        usize::try_from(over).unwrap_or(usize::MAX)
    }

    /// Evicts flows until one more fits. Without a free place in the share of the namespace, the flow needs the place
    /// of an evicted flow.
    fn make_room_for_a_flow(
        &mut self,
        source: IpAddr,
        now: u64,
        has_place: bool,
        gone: &mut Vec<Arc<Mark>>,
    ) -> Result<(), Refusal> {
        self.takes_source(source)?;
        let (mut too_many, mut work) = (self.too_many_for_a_flow(), WORK);
        let refusal = if too_many == 0 { Refusal::Tenant } else { Refusal::Connections };
        too_many = too_many.max(usize::from(!has_place));
        // If connections alone exceed the limit, evicting flows does not help.
        if too_many > self.flows.len() {
            return Err(refusal);
        }
        while too_many > 1 && gone.len() < WORK && self.evict_idle(now, &mut work, gone) {
            too_many -= 1;
        }
        if too_many > 1 || too_many == 1 && !self.flows.has_idle(now, &mut work) {
            return Err(refusal);
        }
        self.takes_token(now)?;
        if too_many == 1 {
            self.evict_idle(now, &mut work, gone);
        }
        Ok(())
    }

    fn evict_idle(&mut self, now: u64, work: &mut usize, gone: &mut Vec<Arc<Mark>>) -> bool {
        let Some((mark, source)) = self.flows.take_idle(now, work) else { return false };
        self.leave_source(source);
        gone.push(mark);
        true
    }

    fn takes_source(&self, source: IpAddr) -> Result<(), Refusal> {
        let count = |most: u32| usize::try_from(most).unwrap_or(usize::MAX);
        let Some(per_source) = self.limits.max_connections_per_source.map(count) else { return Ok(()) };
        let all = self.limits.max_connections.map_or(usize::MAX, count);
        if self.sources.fits(Source::of(source), 1, (per_source, all)) { Ok(()) } else { Err(Refusal::Source) }
    }

    fn takes_token(&mut self, now: u64) -> Result<(), Refusal> {
        let Some(rate) = self.limits.new_connections_per_second else { return Ok(()) };
        if self.rate.take(1, rate.into(), rate.into(), now) { Ok(()) } else { Err(Refusal::Rate) }
    }

    /// Whether a connection without room may wait.
    fn may_wait(&self) -> Result<(), Refusal> {
        let most = usize::try_from(self.limits.max_queued).unwrap_or(usize::MAX);
        match self.limits.on_limit {
            OnLimit::Reject => Err(Refusal::Connections),
            OnLimit::Queue if self.waiting.len() >= most => Err(Refusal::QueueFull),
            OnLimit::Queue => Ok(()),
        }
    }

    /// Grants free slots to the head of the queue.
    fn grant(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.has_room()
            && let Some((number, waker)) = self.waiting.pop_first()
        {
            self.connections += 1;
            self.granted.insert(number);
            woken.extend(waker);
        }
        woken
    }

    /// Counts a session of a source, even without a limit: a limit set later applies to existing sessions, too.
    fn join_source(&mut self, source: IpAddr) {
        self.sources.add(Source::of(source), 1);
    }

    fn leave_source(&mut self, source: IpAddr) {
        self.sources.remove(Source::of(source), 1);
    }
}

fn fits(most: Option<u32>, count: u32) -> bool {
    most.is_none_or(|most| count < most)
}

/// Releases a session of a source and grants the room to waiting connections, which are woken after the lock is
/// released.
fn give_back(mut state: MutexGuard<'_, State>, source: IpAddr) {
    state.leave_source(source);
    let woken = state.grant();
    drop(state);
    woken.into_iter().for_each(Waker::wake);
}

/// A connection's slot; released on drop.
#[derive(Debug)]
pub struct Slot {
    /// `None`: the slot is kept.
    limiter: Option<Arc<Limiter>>,
    source: IpAddr,
}

impl Slot {
    /// Keeps the slot until [`Limiter::leave`] releases it, for a caller that knows the limiter and the source anyway.
    pub fn keep(mut self) {
        self.limiter = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(limiter) = &self.limiter {
            limiter.leave(self.source);
        }
    }
}

/// A flow's slot; released on drop, unless another flow has taken it.
#[derive(Debug)]
pub struct FlowSlot {
    limiter: Arc<Limiter>,
    key: usize,
    mark: Arc<Mark>,
    source: IpAddr,
}

impl FlowSlot {
    /// The shared state of the flow.
    #[must_use]
    pub fn mark(&self) -> Arc<Mark> {
        self.mark.clone()
    }
}

impl Drop for FlowSlot {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        if !state.flows.leave(self.key, &self.mark) {
            return;
        }
        self.limiter.share.give(1);
        give_back(state, self.source);
    }
}

/// A place in the queue; resolves to a slot in turn, and is given up on drop.
#[derive(Debug)]
pub struct Waiting {
    limiter: Arc<Limiter>,
    number: u64,
    source: IpAddr,
    done: bool,
}

impl Future for Waiting {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        let limiter = self.limiter.clone();
        let mut state = limiter.lock();
        if state.granted.remove(&self.number) {
            self.done = true;
            return Poll::Ready(Slot { limiter: Some(limiter.clone()), source: self.source });
        }
        if let Some(waker) = state.waiting.get_mut(&self.number) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.limiter.lock();
        state.waiting.remove(&self.number);
        // The slot was granted just as the place was given up, so pass it on.
        if state.granted.remove(&self.number) {
            state.connections = state.connections.saturating_sub(1);
        }
        give_back(state, self.source);
    }
}

/// The source of the datagrams from an address, if flows are evicted by source: the IPv4 address, or the IPv6 /64. The
/// sender of a datagram may name any address of its /64.
#[must_use]
pub fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests;

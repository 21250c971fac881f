//! The limits of a forward, over all its listeners and exact over all workers.
//!
//! One lock, taken when a session begins and when it ends. Whoever has to wait stands in one queue, first come first
//! served, whichever worker it is on; a slot that comes free goes to the first of it and to nobody else.

mod bucket;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use foldhash::HashMap;
use proxy_api::{Limits, OnLimit};

pub use self::bucket::{Allowance, Bucket};

/// What is to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connection.
    Connection,
    /// A UDP flow.
    Flow,
}

/// Why a session was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `maxConnections`, or `maxFlows` of a flow.
    Connections,
    /// `maxConnectionsPerSource`.
    Source,
    /// `newConnectionsPerSecond`.
    Rate,
    /// `maxQueued`.
    QueueFull,
}

/// What became of a session that wants to begin.
#[derive(Debug)]
pub enum Admission {
    /// It may.
    Admitted(Slot),
    /// It waits for its turn.
    Queued(Waiting),
    /// It may not.
    Refused(Refusal),
}

/// The limits of one forward in one process.
#[derive(Debug, Default)]
pub struct Limiter {
    state: Mutex<State>,
    /// Bytes of both directions; not looked at without `bytesPerSecond`.
    pub bytes: Bucket,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    connections: u32,
    flows: u32,
    /// Live and waiting sessions by source; never more entries than sessions.
    sources: HashMap<IpAddr, u32>,
    rate: bucket::Tokens,
    /// By number, so in the order in which they came.
    waiting: BTreeMap<u64, Option<Waker>>,
    /// Those of the queue that have a slot and have not seen it yet.
    granted: BTreeSet<u64>,
    next: u64,
}

impl Limiter {
    /// Sets other limits. Nobody who was admitted is sent away; whoever waits is admitted if there is room now.
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

    /// Asks for a session from this source. `now` is in milliseconds of the process clock.
    #[must_use]
    pub fn admit(self: &Arc<Self>, kind: Kind, source: IpAddr, now: u64) -> Admission {
        let source = network(source);
        let mut state = self.lock();
        if let Some(most) = state.limits.max_connections_per_source
            && state.sources.get(&source).is_some_and(|count| *count >= most)
        {
            return Admission::Refused(Refusal::Source);
        }
        let has_room = state.has_room(kind) && (kind == Kind::Flow || state.waiting.is_empty());
        if !has_room && let Some(refusal) = state.turned_away(kind) {
            return Admission::Refused(refusal);
        }
        if let Some(rate) = state.limits.new_connections_per_second
            && !state.rate.take(1, rate.into(), rate.into(), now)
        {
            return Admission::Refused(Refusal::Rate);
        }
        // Counted without a limit too: one that is set later holds for those that are here already.
        *state.sources.entry(source).or_default() += 1;
        if has_room {
            *state.count(kind) += 1;
            return Admission::Admitted(Slot { limiter: self.clone(), kind, source });
        }
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, None);
        Admission::Queued(Waiting { limiter: self.clone(), number, source, done: false })
    }

    /// Live sessions, and those that wait.
    #[must_use]
    pub fn counts(&self) -> (u32, usize) {
        let state = self.lock();
        (state.connections + state.flows, state.waiting.len() + state.granted.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Flow => &mut self.flows,
        }
    }

    fn has_room(&self, kind: Kind) -> bool {
        let fits = |most: Option<u32>, count: u32| most.is_none_or(|most| count < most);
        fits(self.limits.max_connections, self.connections.saturating_add(self.flows))
            && (kind == Kind::Connection || fits(self.limits.max_flows, self.flows))
    }

    /// Why somebody for whom there is no room may not even wait.
    fn turned_away(&self, kind: Kind) -> Option<Refusal> {
        match self.limits.on_limit {
            OnLimit::Queue if kind == Kind::Connection => {
                let most = usize::try_from(self.limits.max_queued).unwrap_or(usize::MAX);
                (self.waiting.len() >= most).then_some(Refusal::QueueFull)
            }
            OnLimit::Queue | OnLimit::Reject => Some(Refusal::Connections),
        }
    }

    /// Gives slots that are free to the first of the queue.
    fn grant(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.has_room(Kind::Connection)
            && let Some((number, waker)) = self.waiting.pop_first()
        {
            self.connections += 1;
            self.granted.insert(number);
            woken.extend(waker);
        }
        woken
    }

    fn leave_source(&mut self, source: IpAddr) {
        if let Some(count) = self.sources.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

/// A place among the sessions; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    limiter: Arc<Limiter>,
    kind: Kind,
    source: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        let count = state.count(self.kind);
        *count = count.saturating_sub(1);
        state.leave_source(self.source);
        let woken = state.grant();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A place in the queue; ready with a slot when it is its turn, given up when dropped.
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
            return Poll::Ready(Slot { limiter: limiter.clone(), kind: Kind::Connection, source: self.source });
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
        // The slot came in the moment in which it was given up: the next one has it.
        if state.granted.remove(&self.number) {
            state.connections = state.connections.saturating_sub(1);
        }
        state.leave_source(self.source);
        let woken = state.grant();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, which is what one customer has.
#[must_use]
pub fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests;

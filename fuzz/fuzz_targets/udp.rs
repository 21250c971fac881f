//! Admission of UDP flows, as the listeners of three namespaces ask for it: the table of each socket, the limits of each
//! forward, the share of each namespace, and who gives way where the process is full. All of it equals a plain list.
//!
//! Four bytes are the limits. Then each step has three: what happens, to which client of which namespace, after what
//! time.

#![no_main]

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use libfuzzer_sys::fuzz_target;
use proxy::core::{
    limits::{
        limiter::{FlowRegistry, FlowSlot, Limiter, Mark, Member, Newcomer, Refusal},
        session_room::SessionRoom,
        share::{Bound, Place, Share},
    },
    udp::flows::{FlowKey, FlowTable},
};
use proxy_api::Limits;

/// In the order in which the larger name gives way first.
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// Connections take their places only in the shares.
const ROOM: SessionRoom = SessionRoom { most: 1000, free: 1000 };
/// Most flows of a socket.
const TABLE: usize = 6;
/// Idle time below which a flow does not give way, in milliseconds.
const IN_USE: u64 = 1000;

fuzz_target!(|bytes: &[u8]| {
    let [share, flows, source, process, steps @ ..] = bytes else { return };
    let mut limits = Bounds {
        share: bound(*share, 8),
        flows: bound(*flows, 6),
        source: bound(*source, 4),
        process: usize::from(process % 12) + 1,
    };
    let (mut real, mut plain) = (Real::new(limits), Plain::default());
    let mut now = 0_u64;
    for step in steps.chunks_exact(3) {
        // No two steps are at the same time, so that one flow is the least recently used.
        now += u64::from(step[2]) * 16 + 1;
        let (n, number) = (usize::from(step[1] % 3), step[1] / 3);
        let client = SocketAddr::from(([127, 0, 0, 1 + number % 4], u16::from(number % 16)));
        let key = FlowKey { client, local: None };
        match step[0] % 9 {
            0..=3 => assert_eq!(real.datagram(n, key, now, limits), plain.datagram(n, key, now, limits)),
            4 => assert_eq!(real.tables[n].remove(&key).is_some(), plain.remove(n, key)),
            5 => {
                let idle = u64::from(number) * 64;
                real.expire(now, idle);
                plain.flows.retain(|flow| now - flow.used < idle);
            }
            6 => assert_eq!(real.connection(n, number % 2 == 0), plain.connection(n, number % 2 == 0, limits)),
            7 => {
                let keep = usize::from(number % 4);
                let goes = real.registry.evict(None, keep, now).is_some();
                real.sweep();
                assert_eq!(goes, plain.give_way(None, keep, now));
            }
            _ => {
                limits = Bounds { share: bound(number, 8), flows: bound(number / 8, 6), ..limits };
                real.set(limits);
            }
        }
        compare(&real, &plain, limits);
    }
});

fn bound(byte: u8, most: u8) -> Option<u32> {
    Some(u32::from(byte % (most + 1))).filter(|bound| *bound > 0)
}

#[derive(Clone, Copy)]
struct Bounds {
    /// Sessions of a namespace.
    share: Option<u32>,
    /// Flows of a forward.
    flows: Option<u32>,
    /// Sessions of a source, for each forward.
    source: Option<u32>,
    /// Flows of the process.
    process: usize,
}

/// Why a datagram is dropped.
#[derive(Debug, PartialEq)]
enum Dropped {
    Table,
    Limit(Refusal),
    Process,
}

struct Flow {
    mark: Arc<Mark>,
    _slot: FlowSlot,
    _member: Member,
}

/// The proxy's own parts, put together as a socket does it, with one forward for each namespace.
struct Real {
    registry: Arc<FlowRegistry>,
    limiters: [Arc<Limiter>; 3],
    tables: [FlowTable<Flow>; 3],
    connections: [Vec<Place>; 3],
}

impl Real {
    fn new(limits: Bounds) -> Self {
        let real = Self {
            registry: Arc::default(),
            limiters: NAMESPACES.map(|_| Arc::new(Limiter::of(Arc::new(Share::default())))),
            tables: NAMESPACES.map(|_| FlowTable::new(TABLE)),
            connections: NAMESPACES.map(|_| Vec::new()),
        };
        real.set(limits);
        real
    }

    fn set(&self, limits: Bounds) {
        for limiter in &self.limiters {
            limiter.share.set(limits.share.map(Bound::of).unwrap_or_default());
            limiter.set(Some(&Limits {
                max_flows: limits.flows,
                max_connections_per_source: limits.source,
                ..Limits::default()
            }));
        }
    }

    fn datagram(&mut self, n: usize, key: FlowKey, now: u64, limits: Bounds) -> Result<(), Dropped> {
        if let Some(flow) = self.tables[n].touch(&key, now) {
            flow.mark.touch(now);
            return Ok(());
        }
        if !self.tables[n].has_room(now) {
            return Err(Dropped::Table);
        }
        let slot = self.limiters[n].admit_flow(key.client.ip(), now);
        self.sweep();
        let slot = slot.map_err(Dropped::Limit)?;
        if self.tables.iter().map(FlowTable::len).sum::<usize>() >= limits.process {
            let newcomer = Newcomer { namespace: NAMESPACES[n], source: key.client.ip() };
            self.registry.evict(Some(newcomer), 0, now);
            self.sweep();
            return Err(Dropped::Process);
        }
        let mark = slot.mark();
        let member = self.registry.register(NAMESPACES[n], mark.clone(), key, now);
        let flow = Flow { mark, _slot: slot, _member: member };
        drop(self.tables[n].insert(key, flow, now).expect("there was room"));
        Ok(())
    }

    fn connection(&mut self, n: usize, begins: bool) -> bool {
        if !begins {
            return self.connections[n].pop().is_some();
        }
        let place = self.limiters[n].share.enter(ROOM);
        let has_place = place.is_some();
        self.connections[n].extend(place);
        has_place
    }

    fn expire(&mut self, now: u64, idle: u64) {
        for table in &mut self.tables {
            while table.expire(now, idle).is_some() {}
        }
    }

    /// Ends the flows that gave way, as their tasks do.
    fn sweep(&mut self) {
        for table in &mut self.tables {
            drop(table.remove_where(|flow| flow.mark.is_evicted()));
        }
    }
}

struct PlainFlow {
    namespace: usize,
    key: FlowKey,
    used: u64,
}

/// The same as a list of flows and numbers of connections.
#[derive(Default)]
struct Plain {
    flows: Vec<PlainFlow>,
    connections: [usize; 3],
}

impl Plain {
    fn count(&self, n: usize) -> usize {
        self.flows.iter().filter(|flow| flow.namespace == n).count()
    }

    fn sessions(&self, n: usize) -> usize {
        self.count(n) + self.connections[n]
    }

    /// The flow of a namespace that was used least recently, if it is idle.
    fn idle(&self, n: usize, now: u64) -> Option<usize> {
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| flow.namespace == n);
        let (at, oldest) = flows.min_by_key(|(_, flow)| flow.used)?;
        (now - oldest.used >= IN_USE).then_some(at)
    }

    fn evict(&mut self, n: usize, now: u64) -> bool {
        let idle = self.idle(n, now);
        idle.map(|at| self.flows.remove(at)).is_some()
    }

    fn remove(&mut self, n: usize, key: FlowKey) -> bool {
        let before = self.flows.len();
        self.flows.retain(|flow| flow.namespace != n || flow.key != key);
        self.flows.len() < before
    }

    fn connection(&mut self, n: usize, begins: bool, limits: Bounds) -> bool {
        if begins {
            let has_place = fits(limits.share, self.sessions(n));
            self.connections[n] += usize::from(has_place);
            return has_place;
        }
        let has_one = self.connections[n] > 0;
        self.connections[n] -= usize::from(has_one);
        has_one
    }

    fn datagram(&mut self, n: usize, key: FlowKey, now: u64, limits: Bounds) -> Result<(), Dropped> {
        if let Some(flow) = self.flows.iter_mut().find(|flow| flow.namespace == n && flow.key == key) {
            flow.used = now;
            return Ok(());
        }
        if self.count(n) >= TABLE && self.idle(n, now).is_none() {
            return Err(Dropped::Table);
        }
        self.admit(n, key.client.ip(), now, limits).map_err(Dropped::Limit)?;
        if self.flows.len() >= limits.process {
            self.give_way(Some((n, key.client.ip())), 0, now);
            return Err(Dropped::Process);
        }
        if self.count(n) >= TABLE {
            assert!(self.evict(n, now));
        }
        self.flows.push(PlainFlow { namespace: n, key, used: now });
        Ok(())
    }

    /// Whether the limits admit a flow; idle flows of the forward give way to it.
    fn admit(&mut self, n: usize, source: IpAddr, now: u64, limits: Bounds) -> Result<(), Refusal> {
        if !fits(limits.source, self.of_source(n, source)) {
            return Err(Refusal::Source);
        }
        let flows = self.count(n);
        let beyond = limits.flows.map_or(0, |most| (flows + 1).saturating_sub(most as usize));
        let refusal = if beyond == 0 { Refusal::Tenant } else { Refusal::Connections };
        let mut too_many = beyond.max(usize::from(!fits(limits.share, self.sessions(n))));
        if too_many > flows {
            return Err(refusal);
        }
        while too_many > 0 {
            if !self.evict(n, now) {
                return Err(refusal);
            }
            too_many -= 1;
        }
        Ok(())
    }

    fn of_source(&self, n: usize, source: IpAddr) -> usize {
        self.flows.iter().filter(|flow| flow.namespace == n && flow.key.client.ip() == source).count()
    }

    /// The least recently used flow of the source with the most flows, of the flows of a namespace that the choice is
    /// among.
    fn of_heaviest(&self, n: usize, wanted: impl Fn(usize, &PlainFlow) -> bool) -> Option<usize> {
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| flow.namespace == n);
        let counted = flows.map(|(at, flow)| (self.of_source(n, flow.key.client.ip()), at, flow));
        let wanted = counted.filter(|(count, _, flow)| wanted(*count, flow));
        wanted.min_by_key(|(count, _, flow)| (Reverse(*count), flow.used)).map(|(_, at, _)| at)
    }

    /// The namespace that has twice as many flows as the newcomer's, or a source that has twice as many as its own.
    fn heavier(&self, n: usize, source: IpAddr) -> Option<usize> {
        let is_twice = |own: usize, most: usize| 2 * (own + 1) <= most;
        let (most, _, largest) = (0..NAMESPACES.len()).map(|at| (self.count(at), at == n, at)).max()?;
        if is_twice(self.count(n), most) {
            return Some(largest);
        }
        let own = self.flows.iter().filter(|flow| flow.namespace == n);
        let most = own.map(|flow| self.of_source(n, flow.key.client.ip())).max()?;
        is_twice(self.of_source(n, source), most).then_some(n)
    }

    /// A flow of the largest namespace and of its largest source gives way: to a newcomer that has less than half as many,
    /// any, and otherwise one that is idle, and none of a smaller namespace or source than its own.
    fn give_way(&mut self, newcomer: Option<(usize, IpAddr)>, keep: usize, now: u64) -> bool {
        if self.flows.len() <= keep {
            return false;
        }
        let heavier = newcomer.and_then(|(n, source)| self.heavier(n, source));
        let heavy = heavier.and_then(|n| self.of_heaviest(n, |_, _| true));
        let own = newcomer.map_or(0, |(n, _)| self.count(n));
        let all = (0..NAMESPACES.len()).map(|n| (self.count(n), newcomer.is_some_and(|(own, _)| own == n), n));
        let mut order: Vec<_> = all.filter(|(count, ..)| *count >= own).collect();
        order.sort_unstable();
        let idle = order.into_iter().rev().find_map(|(_, is_own, n)| {
            let least = newcomer.filter(|_| is_own).map_or(0, |(_, source)| self.of_source(n, source));
            self.of_heaviest(n, |count, flow| count >= least && now - flow.used >= IN_USE)
        });
        heavy.or(idle).map(|at| self.flows.remove(at)).is_some()
    }
}

fn fits(most: Option<u32>, count: usize) -> bool {
    most.is_none_or(|most| count < most as usize)
}

fn compare(real: &Real, plain: &Plain, limits: Bounds) {
    assert!(plain.flows.len() <= limits.process);
    for n in 0..NAMESPACES.len() {
        let (table, limiter) = (&real.tables[n], &real.limiters[n]);
        assert_eq!((table.len(), limiter.counts().0 as usize), (plain.count(n), plain.count(n)));
        assert_eq!(limiter.share.usage().0 as usize, plain.sessions(n));
    }
    assert!(plain.flows.iter().all(|flow| real.tables[flow.namespace].get(&flow.key).is_some()));
}

//! A flood of UDP flows from one source beside more connections than a gateway has room for, with the numbers of
//! `tests/src/kubernetes/siege.rs` and a clock of the test.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
};

use proxy::core::{
    limits::{
        capacity::{Capacity, FLOW_PLACES, FlowBounds, SESSION_PLACES},
        limiter::{FlowRegistry, Mark, Member, Newcomer},
    },
    udp::flows::FlowKey,
};

/// Memory limit of a proxy of the siege, in bytes.
const MEMORY: u64 = 96 << 20;
/// The default budget of buffered bytes.
const HELD: usize = 64 << 20;
/// Limit of files of a container there, without the reserve; and files of listeners and of the process.
const FILES: (usize, usize) = (20_000 - 64, 60);
/// Time between two bursts of the flood, in milliseconds. Flows that gave way have ended by the next one.
const TICK: u64 = 100;
/// New flows of a burst: 16 clients.
const BURST: u16 = 16;
/// Connections that arrive in a tick, more than places become free.
const CONNECTIONS: usize = 20;
/// TCP listeners, each of which accepts one connection after the other.
const LISTENERS: usize = 3;
const FLOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 9));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

struct Flow {
    mark: Arc<Mark>,
    _member: Member,
}

/// A proxy without sockets and threads: as `process.rs`, where memory is what runs short.
struct Gateway {
    places: usize,
    bounds: FlowBounds,
    registry: Arc<FlowRegistry>,
    /// All flows, also those that have given way and not ended yet.
    flows: HashMap<FlowKey, Flow>,
    sessions: usize,
    waiting: usize,
}

impl Gateway {
    fn new() -> Self {
        let capacity = Capacity::of(Some(MEMORY), NonZeroUsize::new(2).expect("two"), HELD, 0);
        let bounds = FlowBounds::of(capacity.flow_places(None), FILES.0, FILES.1);
        let (places, registry) = (capacity.places(), Arc::default());
        Self { places, bounds, registry, flows: HashMap::new(), sessions: 0, waiting: 0 }
    }

    fn free(&self) -> usize {
        self.places - self.sessions * SESSION_PLACES - self.flows.len() * FLOW_PLACES
    }

    /// Sessions, flows and free places.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.sessions, self.flows.len(), self.free())
    }

    fn takes(&self, is_light: bool) -> bool {
        let flows = self.flows.len();
        let left = self.bounds.left_by_flow(flows, is_light, self.waiting > 0);
        left.is_some_and(|left| self.free() >= FLOW_PLACES + left && flows + FLOW_PLACES + left <= self.bounds.most)
    }

    /// A datagram of a new flow; whether the flow gets a place.
    fn datagram(&mut self, source: IpAddr, port: u16, now: u64) -> bool {
        let newcomer = Newcomer { namespace: "siege", source };
        let taken = self.takes(false) || self.registry.is_light(newcomer) && self.takes(true);
        if taken {
            // The flow counts before it is in the registry.
            let (key, mark) = (FlowKey { client: SocketAddr::new(source, port), local: None }, Arc::<Mark>::default());
            mark.touch(now);
            self.give_way(newcomer, false, now);
            let member = self.registry.register(newcomer.namespace, mark.clone(), key, now);
            assert!(self.flows.insert(key, Flow { mark, _member: member }).is_none(), "a new port");
        } else {
            self.give_way(newcomer, true, now);
        }
        taken
    }

    fn give_way(&self, newcomer: Newcomer<'_>, is_full: bool, now: u64) {
        let taken = usize::from(!is_full) * FLOW_PLACES;
        if is_full || self.bounds.is_short(self.flows.len() + taken, self.free() - taken) {
            let keep = || self.bounds.left_to_flows(self.registry.is_light(newcomer), self.waiting > 0);
            self.registry.evict(Some(newcomer), if is_full { keep() } else { 0 }, now);
        }
    }

    /// Flows that have given way end, and connections take what they may.
    fn settle(&mut self, now: u64) {
        self.flows.retain(|_, flow| !flow.mark.is_evicted());
        for _ in 0..LISTENERS {
            while self.waiting > 0 && self.free() >= SESSION_PLACES + self.bounds.left_by_session(self.flows.len()) {
                self.sessions += 1;
                self.waiting -= 1;
            }
            if self.waiting > 0 {
                for _ in 0..SESSION_PLACES / FLOW_PLACES {
                    self.registry.evict(None, self.bounds.kept, now);
                }
            }
        }
    }
}

#[test]
fn under_a_flood_of_flows_another_source_gets_a_place_for_each_flow_while_connections_get_theirs() {
    let mut gateway = Gateway::new();
    assert_eq!((gateway.places, gateway.bounds), (4300, FlowBounds { most: 3225, kept: 742, spare: 64 }));
    let (mut now, mut flood, mut client) = (0, 0..u16::MAX, 1..);
    let mut own: Vec<Arc<Mark>> = Vec::new();
    // The flood alone fills the room of flows; then connections arrive.
    for tick in 0..1500 {
        now += TICK;
        gateway.waiting += if tick > 300 { CONNECTIONS } else { 0 };
        gateway.settle(now);
        for port in flood.by_ref().take(BURST.into()) {
            gateway.datagram(FLOOD, port, now);
        }
        if tick % 10 == 0 {
            let port = client.next().expect("a port");
            assert!(gateway.datagram(CLIENT, port, now), "refused after {now} ms: {:?}", gateway.sizes());
            let key = FlowKey { client: SocketAddr::new(CLIENT, port), local: None };
            own.push(gateway.flows[&key].mark.clone());
        }
        assert!(gateway.flows.len() <= gateway.bounds.most, "{:?}", gateway.sizes());
    }
    assert!(own.iter().all(|mark| !mark.is_evicted()), "the flows of the flood give way");
    let (sessions, flows, free) = gateway.sizes();
    assert!(
        gateway.waiting > 0 && flows <= gateway.bounds.kept + usize::from(BURST),
        "connections have all but the rest"
    );
    assert!(free <= gateway.bounds.spare + SESSION_PLACES && sessions > 1700, "{:?}", gateway.sizes());
}

#[test]
fn a_flood_that_keeps_all_its_flows_in_use_makes_room_for_other_sources() {
    let mut gateway = Gateway::new();
    // All at the same time: none is idle.
    let begun = (1..u16::MAX).take_while(|port| gateway.datagram(FLOOD, *port, 5000)).count();
    assert_eq!(begun, gateway.bounds.most - gateway.bounds.spare);
    for last in 1..=250 {
        assert!(gateway.datagram(Ipv4Addr::new(192, 0, 2, last).into(), 1, 5000), "{:?}", gateway.sizes());
        gateway.settle(5000);
    }
    assert!(!gateway.datagram(FLOOD, u16::MAX, 5000));
}

#[test]
fn a_burst_while_no_connection_waits_for_a_moment_gives_no_more_to_connections_than_they_may_take() {
    let mut gateway = Gateway::new();
    let begun = (1..u16::MAX).take_while(|port| gateway.datagram(FLOOD, *port, 0)).count();
    assert_eq!(begun, gateway.bounds.most - gateway.bounds.spare);
    for burst in 1..=3 {
        let now = burst * 5000;
        gateway.waiting = 3000;
        (0..2000).for_each(|_| gateway.settle(now));
        gateway.waiting = 0;
        for port in 10_000..12_000 {
            gateway.datagram(FLOOD, port + u16::try_from(burst).expect("small") * 2000, now);
        }
    }
    gateway.waiting = 3000;
    (0..2000).for_each(|_| gateway.settle(20_000));
    assert!(gateway.flows.len() >= gateway.bounds.kept, "{:?}", gateway.sizes());
}

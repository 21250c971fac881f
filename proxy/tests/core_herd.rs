//! Five thousand proxies that lose their leader, by a virtual clock: how many handshakes reach each replica of the
//! operator, and when all proxies follow a leader again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proxy::core::control::backoff::Backoff;
use proxy_api::doors::{Admission, PlaceId, Places, StreamPort};

/// As many as the operator takes unless its settings say otherwise.
const PROXIES: usize = StreamPort::DEFAULT.proxies;
/// As the overlay for high availability has them.
const REPLICAS: usize = 3;
/// Most handshakes per second at one replica: what the operator's defaults must keep to.
const PER_SECOND: u32 = 200;
/// How long proxies of earlier versions wait for their connection and the handshake.
const CONNECT: Duration = Duration::from_secs(3);
/// From the turn of the handshake to the answer to a stream: the handshake, the request and the review of the token.
const ANSWER: Duration = Duration::from_millis(50);
/// When the leader is lost.
const LOST: Duration = Duration::from_secs(100);
/// Longest time from the moment at which a replica leads to the moment at which all proxies follow it.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// The port for streams, with the defaults of the operator. Each proxy has an address of its own.
fn door() -> Places {
    Places::new(StreamPort::DEFAULT.bounds())
}

fn source(proxy: usize) -> IpAddr {
    let at = u32::try_from(proxy).expect("small");
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + at))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connects { proxy: usize },
    IsAnswered { proxy: usize, replica: usize, place: PlaceId },
}

/// The proxies and the replicas, with what happens next.
struct Herd {
    doors: Vec<Places>,
    backoffs: Vec<Backoff>,
    due: BinaryHeap<Reverse<(Duration, Event)>>,
    /// Handshakes at each replica, by second since the loss.
    handshakes: Vec<Vec<u32>>,
    /// State of the choice of a replica, as the Service makes it.
    state: u64,
}

impl Herd {
    /// All proxies followed the first replica, which leads no longer.
    fn that_lost_its_leader() -> Self {
        let mut doors: Vec<Places> = (0..REPLICAS).map(|_| door()).collect();
        let arrival = |proxy: usize| ANSWER / 5 * u32::try_from(proxy).expect("small");
        let followed = |proxy: usize| {
            let (source, now) = (source(proxy), arrival(proxy));
            let Admission::Admit(place) = doors[0].admit(source, now) else { panic!("{proxy} is not admitted") };
            assert_eq!(doors[0].authenticate(place, now), Ok(None));
            place
        };
        let places: Vec<PlaceId> = (0..PROXIES).map(followed).collect();
        for place in places {
            doors[0].release(place, LOST);
        }
        let mut herd = Self {
            doors,
            backoffs: (0..).map(Backoff::new).take(PROXIES).collect(),
            due: BinaryHeap::new(),
            handshakes: vec![Vec::new(); REPLICAS],
            state: 1,
        };
        (0..PROXIES).for_each(|proxy| herd.fails(proxy, LOST));
        herd
    }

    fn fails(&mut self, proxy: usize, now: Duration) {
        let pause = self.backoffs[proxy].after_failure(None);
        self.due.push(Reverse((now + pause, Event::Connects { proxy })));
    }

    /// A replica, at random.
    fn replica(&mut self) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.state >> 33).expect("31 bits") % REPLICAS
    }

    fn connects(&mut self, proxy: usize, now: Duration) {
        let replica = self.replica();
        match self.doors[replica].admit(source(proxy), now) {
            Admission::Admit(place) => {
                let turn = self.doors[replica].turn(place);
                assert!(turn < CONNECT, "{proxy} waits {turn:?} for its handshake, and gives up before");
                let begin = now + turn;
                let second = usize::try_from(begin.saturating_sub(LOST).as_secs()).expect("small");
                let handshakes = &mut self.handshakes[replica];
                handshakes.resize(handshakes.len().max(second + 1), 0);
                handshakes[second] += 1;
                self.due.push(Reverse((begin + ANSWER, Event::IsAnswered { proxy, replica, place })));
            }
            Admission::AdmitAfterEvicting { .. } => panic!("there are places for all that the rate admits"),
            Admission::Refuse(_) => self.fails(proxy, now),
        }
    }

    /// Runs until all proxies follow `leader`, which leads from `since` on. Returns when that is so.
    fn run(&mut self, leader: usize, since: Duration) -> Duration {
        let (mut following, mut last) = (0, LOST);
        while let Some(Reverse((now, event))) = self.due.pop() {
            match event {
                Event::Connects { proxy } => self.connects(proxy, now),
                Event::IsAnswered { replica, place, .. } if replica == leader && now >= since => {
                    assert_eq!(self.doors[replica].authenticate(place, now), Ok(None));
                    (following, last) = (following + 1, now);
                }
                Event::IsAnswered { proxy, replica, place } => {
                    self.doors[replica].release(place, now);
                    let pause = self.backoffs[proxy].elsewhere(None);
                    self.due.push(Reverse((now + pause, Event::Connects { proxy })));
                }
            }
        }
        assert_eq!(following, PROXIES);
        last
    }
}

#[test]
fn a_herd_of_proxies_comes_back_with_a_bounded_number_of_handshakes_a_second_at_each_replica() {
    // C10: another replica leads after 16 s, the same one after 16 s, or the same one at once. The one that led knows
    // all proxies, the others none.
    for (leader, gap) in [(1, 16), (0, 16), (0, 0)] {
        let since = LOST + Duration::from_secs(gap);
        let mut herd = Herd::that_lost_its_leader();
        let last = herd.run(leader, since);
        for (replica, handshakes) in herd.handshakes.iter().enumerate() {
            for (second, count) in handshakes.iter().enumerate() {
                assert!(*count <= PER_SECOND, "{count} at replica {replica} in second {second}: {handshakes:?}");
            }
        }
        assert!(
            last < since + BACK_WITHIN,
            "leader {leader}: back {:?} after there is a leader",
            last.saturating_sub(since)
        );
    }
}

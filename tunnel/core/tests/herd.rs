//! A thousand agents lose their endpoint at the same moment, and dial another one, which takes a limited number a
//! second.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod chance;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use chance::Chance;
use proxy_api::doors::{Admission, PlaceId, Places};
use tunnel_core::Dialler;
use tunnel_core::door::{CONNECTIONS_PER_SECOND, bounds};

const AGENTS: usize = 1000;
const SECOND: Duration = Duration::from_secs(1);
/// Time from the turn of a handshake to the admission of its agent.
const HANDSHAKE: Duration = Duration::from_millis(100);
/// When the endpoint is lost.
const LOST: Duration = Duration::from_secs(100);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Dials(usize),
    ShakesHands(PlaceId),
    IsAdmitted(PlaceId),
}

/// The agents, and the endpoint that they dial.
struct Herd {
    door: Places,
    /// How many of the agents have one source.
    sharing: usize,
    chance: Chance,
    diallers: Vec<Dialler>,
    due: BinaryHeap<Reverse<(Duration, Event)>>,
    /// Connections that are not admitted yet.
    strangers: BTreeMap<PlaceId, usize>,
    /// When handshakes begin.
    handshakes: Vec<Duration>,
    /// When agents dial.
    attempts: Vec<Duration>,
}

impl Herd {
    /// Agents of which `sharing` have one source. An endpoint that had them before knows their sources.
    fn new(seed: u64, sharing: usize, is_known: bool) -> Self {
        let mut door = Places::new(bounds(CONNECTIONS_PER_SECOND, 1024));
        if is_known {
            for agent in (0..AGENTS).step_by(sharing) {
                let now = SECOND / 20 * u32::try_from(agent / sharing).expect("few");
                let Admission::Admit(place) = door.admit(source(agent / sharing), now) else { panic!("{agent}") };
                door.authenticate(place, now).expect("a place for an agent");
                door.release(place, now);
            }
        }
        let mut herd = Self {
            door,
            sharing,
            chance: Chance::new(seed),
            diallers: vec![Dialler::default(); AGENTS],
            due: BinaryHeap::new(),
            strangers: BTreeMap::new(),
            handshakes: Vec::new(),
            attempts: Vec::new(),
        };
        (0..AGENTS).for_each(|agent| herd.lost(agent, LOST));
        herd
    }

    /// The agent has lost a carrier that had existed for a minute.
    fn lost(&mut self, agent: usize, now: Duration) {
        let pause = self.diallers[agent].pause(Some(SECOND * 60), self.chance.part());
        self.due.push(Reverse((now + pause, Event::Dials(agent))));
    }

    fn turned_away(&mut self, agent: usize, now: Duration) {
        let pause = self.diallers[agent].pause_when_turned_away(self.chance.part());
        self.due.push(Reverse((now + pause, Event::Dials(agent))));
    }

    fn dials(&mut self, agent: usize, now: Duration) {
        self.attempts.push(now);
        let (place, evicted) = match self.door.admit(source(agent / self.sharing), now) {
            Admission::Admit(place) => (place, None),
            Admission::AdmitAfterEvicting { place, evicted } => (place, Some(evicted)),
            Admission::Refuse(_) => return self.turned_away(agent, now),
        };
        if let Some(other) = evicted.and_then(|evicted| self.strangers.remove(&evicted)) {
            self.turned_away(other, now);
        }
        let turn = now + self.door.turn(place);
        self.strangers.insert(place, agent);
        // No newcomer takes its place while it waits.
        self.door.asks(place, now);
        self.due.push(Reverse((turn, Event::ShakesHands(place))));
    }

    fn shakes_hands(&mut self, place: PlaceId, now: Duration) {
        self.door.waits(place, now);
        self.handshakes.push(now);
        self.due.push(Reverse((now + HANDSHAKE, Event::IsAdmitted(place))));
    }

    /// Runs until all agents are back, and returns how long that took.
    fn run(&mut self) -> Duration {
        let mut last = LOST;
        while let Some(Reverse((now, event))) = self.due.pop() {
            match event {
                Event::Dials(agent) => self.dials(agent, now),
                Event::ShakesHands(place) => self.shakes_hands(place, now),
                Event::IsAdmitted(place) => {
                    if self.strangers.remove(&place).is_some() {
                        self.door.authenticate(place, now).expect("a place for each agent");
                        last = now;
                    }
                }
            }
        }
        last.saturating_sub(LOST)
    }
}

/// The most of these moments, in their order, that are within a second.
fn most_in_a_second(all: &[Duration]) -> usize {
    let within = |from: usize| all.partition_point(|at| *at < all[from] + SECOND) - from;
    (0..all.len()).map(within).max().unwrap_or_default()
}

fn source(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).expect("few")))
}

#[test]
fn a_thousand_agents_are_back_within_ten_seconds_at_an_endpoint_that_takes_two_hundred_a_second() {
    // Each agent has its own source, or all come through one load balancer.
    for (sharing, is_known) in [(1, true), (1, false), (AGENTS, true), (AGENTS, false)] {
        for seed in 0..10 {
            let mut herd = Herd::new(seed, sharing, is_known);
            let took = herd.run();
            herd.handshakes.sort_unstable();
            let (most, dialled) = (most_in_a_second(&herd.handshakes), most_in_a_second(&herd.attempts));
            let case = format!("seed {seed}, {sharing} of a source, known: {is_known}");
            assert!(took <= 10 * SECOND, "{case}: the last one after {took:?}");
            // Two lanes begin with one handshake each.
            assert!(most <= 202, "{case}: {most} handshakes in a second");
            let all = herd.attempts.len();
            assert!(all <= 7 * AGENTS / 2, "{case}: {all} connections");
            assert!(dialled <= 3 * AGENTS / 2, "{case}: {dialled} connections in a second");
        }
    }
}

#[test]
fn agents_that_are_always_closed_at_once_dial_once_in_five_seconds_in_the_end() {
    for seed in 0..10 {
        let mut chance = Chance::new(seed);
        let mut dialler = Dialler::default();
        let mut closed_at_once = |_| dialler.pause(Some(Duration::ZERO), chance.part());
        let (growing, grown) = (0..30, 0..1000);
        let begin: Duration = growing.map(&mut closed_at_once).sum();
        let pauses: Duration = grown.map(&mut closed_at_once).sum();
        assert!(begin < 160 * SECOND, "seed {seed}: {begin:?}");
        assert!(pauses > 4500 * SECOND && pauses < 5500 * SECOND, "seed {seed}: {pauses:?}");
    }
}

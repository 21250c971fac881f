//! Endpoints behind a load balancer, and their agents, without sockets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;

use proxy_api::doors::{Admission, PlaceId, Places as Door};
use tunnel::handshake::PATIENCE;
use tunnel_core::identity::{Dial, EndpointId};
use tunnel_core::places::{Places, Standing, Standings};

use super::chance::Chance;
use super::endpoints::{Attempt, Connection, Endpoint, Gate, Handed, id, number_of, peer, source};

pub(super) const AGENTS: usize = 1000;
/// When an endpoint is lost.
pub(super) const LOST: Duration = Duration::from_secs(100);

/// The most endpoints of an agent, as in `portlane agent`.
const MAX_ENDPOINTS: usize = 32;
/// Number of endpoints.
const ENDPOINTS: usize = 3;
/// Time between two agents before the loss.
const APART: Duration = Duration::from_millis(90);
/// The endpoint that is lost.
const GONE: usize = 0;
/// The endpoint that replaces it.
const NEXT: usize = 3;
/// Time from the loss until the tables and the load balancer know.
const NOTICED: Duration = Duration::from_secs(1);
/// Time from the loss until another endpoint exists.
const JOINED: Duration = Duration::from_secs(10);
/// Time from the turn of a handshake to the admission of its agent.
const HANDSHAKE: Duration = Duration::from_millis(100);
/// How long the lost connections had lasted.
const HELD: Duration = Duration::from_secs(60);
/// When the test gives up.
const LATE: Duration = Duration::from_secs(160);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The load balancer and the endpoints know of the loss, and so do agents.
    Noticed,
    /// Another endpoint exists, and agents learn of it.
    Joined,
    /// An agent checks what is due.
    Looks(usize),
    /// An admitted connection has its turn.
    Turn(usize),
    /// The agent of a connection is admitted.
    Admitted(usize),
    /// A connection that an endpoint hands over is no longer young.
    Aged(usize, PlaceId),
}

struct Agent {
    places: Places,
    sessions: Standings,
    carriers: BTreeMap<usize, Connection>,
    /// When it checks next.
    looks: Option<Duration>,
}

pub(super) struct Fleet {
    endpoints: Vec<Endpoint>,
    agents: Vec<Agent>,
    /// How many of the agents have one source.
    sharing: usize,
    chance: Chance,
    due: BinaryHeap<Reverse<(Duration, Event)>>,
    connections: Vec<Connection>,
    /// The connections whose agent is not known yet.
    strangers: BTreeMap<(Gate, PlaceId), usize>,
    /// The endpoints of the load balancer, and of the tables.
    listed: Vec<usize>,
    /// Agents that lack a connection.
    away: BTreeSet<usize>,
    handshakes: BTreeMap<Gate, Vec<Duration>>,
    dialled: usize,
}

impl Fleet {
    /// Agents of which `sharing` have one source. The load balancer has chosen an endpoint for each of their
    /// connections.
    pub(super) fn new(seed: u64, sharing: usize) -> Self {
        let mut fleet = Self {
            endpoints: (0..=NEXT).map(|_| Endpoint::new()).collect(),
            agents: Vec::new(),
            sharing,
            chance: Chance::new(seed),
            due: BinaryHeap::new(),
            connections: Vec::new(),
            strangers: BTreeMap::new(),
            listed: (0..ENDPOINTS).collect(),
            away: BTreeSet::new(),
            handshakes: BTreeMap::new(),
            dialled: 0,
        };
        for agent in 0..AGENTS {
            let now = APART * u32::try_from(agent).expect("few");
            fleet.agents.push(Agent {
                places: Places::new(MAX_ENDPOINTS),
                sessions: Standings::new(),
                carriers: BTreeMap::new(),
                looks: None,
            });
            for endpoint in 0..ENDPOINTS {
                fleet.connected(agent, endpoint, now);
            }
        }
        fleet
    }

    /// The connection of an agent to an endpoint, before the loss.
    fn connected(&mut self, agent: usize, endpoint: usize, now: Duration) {
        let by = self.balanced();
        let gate = Gate { endpoint, of_peers: by != endpoint };
        let from = if gate.of_peers { peer(by) } else { self.source(agent) };
        let Admission::Admit(place) = self.door(gate).admit(from, now) else { panic!("agent {agent} is refused") };
        self.door(gate).authenticate(place, now).expect("a place for an agent");
        let handed = gate.of_peers.then(|| {
            let source = self.source(agent);
            // It is no longer young.
            let handed = self.endpoints[by].hand(by, source, now).expect("a place for what is handed over");
            self.endpoints[by].handing.release(handed.place, now);
            handed
        });
        let attempt = Attempt { agent, dial: Dial::Endpoint(id(endpoint)), handed };
        self.attach(Connection { attempt, gate, place });
    }

    /// Connections that each endpoint hands over before the loss.
    pub(super) fn handed_over(&self) -> Vec<usize> {
        self.endpoints.iter().take(ENDPOINTS).map(|endpoint| endpoint.lasting).collect()
    }

    /// Connections that agents have dialled since the loss.
    pub(super) fn dialled(&self) -> usize {
        self.dialled
    }

    /// The most handshakes that began at one door within this time.
    pub(super) fn most_in(&self, span: Duration) -> usize {
        let most = |all: &Vec<Duration>| {
            let within = |from: usize| all[from..].iter().take_while(|at| **at < all[from] + span).count();
            (0..all.len()).map(within).max().unwrap_or_default()
        };
        self.handshakes.values().map(most).max().unwrap_or_default()
    }

    /// Loses an endpoint, with the connections that it serves and hands over.
    pub(super) fn lose(&mut self) {
        for agent in 0..AGENTS {
            let carriers = &self.agents[agent].carriers;
            let is_lost = |endpoint: usize, it: &Connection| {
                endpoint == GONE || it.attempt.handed.is_some_and(|handed| handed.by == GONE)
            };
            let lost: Vec<usize> = carriers
                .iter()
                .filter(|(endpoint, it)| is_lost(**endpoint, it))
                .map(|(endpoint, _)| *endpoint)
                .collect();
            for endpoint in lost {
                let connection = self.agents[agent].carriers.remove(&endpoint).expect("just found");
                self.release(&connection, LOST);
                let chance = self.chance.part();
                let agent = &mut self.agents[agent];
                agent.sessions.insert(Dial::Endpoint(id(endpoint)), Standing::default());
                agent.places.ended(&Dial::Endpoint(id(endpoint)), HELD, LOST, chance);
            }
            if self.is_away(agent) {
                self.away.insert(agent);
            }
            self.look(agent, LOST);
        }
        self.due.push(Reverse((LOST + NOTICED, Event::Noticed)));
        self.due.push(Reverse((LOST + JOINED, Event::Joined)));
    }

    /// Runs until every agent has a connection to each endpoint. Returns how long that took after the loss, and after
    /// the other endpoint existed.
    pub(super) fn run(&mut self) -> [Duration; 2] {
        let (mut lost, mut joined) = (None, None);
        while joined.is_none() {
            let Reverse((now, event)) = self.due.pop().expect("agents dial for as long as they have to");
            assert!(now < LATE, "{} agents lack a connection, {} were dialled", self.away.len(), self.dialled);
            match event {
                Event::Noticed => self.list(vec![1, 2], now),
                Event::Joined => {
                    let lacking = self.away.len();
                    assert!(lost.is_some(), "{lacking} agents lack a connection after {JOINED:?}, {}", self.dialled);
                    self.list(vec![1, 2, NEXT], now);
                }
                Event::Looks(agent) => {
                    // Another check may have happened in between.
                    if self.agents[agent].looks == Some(now) {
                        self.agents[agent].looks = None;
                        self.look(agent, now);
                    }
                }
                Event::Turn(number) => self.turn(number, now),
                Event::Admitted(number) => self.admitted(number, now),
                Event::Aged(endpoint, place) => self.endpoints[endpoint].handing.release(place, now),
            }
            if self.away.is_empty() {
                lost = lost.or(Some(now));
                joined = Some(now).filter(|_| self.listed.contains(&NEXT));
            }
        }
        let after = |end: Option<Duration>, begin: Duration| end.map_or(Duration::MAX, |end| end.saturating_sub(begin));
        [after(lost, LOST), after(joined, LOST + JOINED)]
    }

    /// Gives the load balancer and the endpoints another list, and tells agents.
    fn list(&mut self, listed: Vec<usize>, now: Duration) {
        self.listed = listed;
        for agent in 0..AGENTS {
            let connected: Vec<usize> = self.agents[agent].carriers.keys().copied().collect();
            for endpoint in connected {
                let peers = self.peers(endpoint);
                self.agents[agent].places.told(&id(endpoint), peers);
            }
            if self.is_away(agent) {
                self.away.insert(agent);
            }
            self.look(agent, now);
        }
    }

    /// The others, as an endpoint names them.
    fn peers(&self, endpoint: usize) -> Vec<EndpointId> {
        self.listed.iter().filter(|other| **other != endpoint).map(|other| id(*other)).collect()
    }

    fn look(&mut self, agent: usize, now: Duration) {
        let Agent { places, sessions, .. } = &mut self.agents[agent];
        for dial in places.due(sessions, now) {
            self.dial(agent, dial, now);
        }
        let Agent { places, sessions, looks, .. } = &mut self.agents[agent];
        let next = places.next(sessions).map(|at| at.max(now));
        if let Some(at) = next.filter(|_| next != *looks) {
            *looks = next;
            self.due.push(Reverse((at, Event::Looks(agent))));
        }
    }

    fn dial(&mut self, agent: usize, dial: Dial, now: Duration) {
        self.dialled += 1;
        let endpoint = self.balanced();
        let (gate, from) = (Gate { endpoint, of_peers: false }, self.source(agent));
        let attempt = Attempt { agent, dial, handed: None };
        if endpoint == GONE {
            self.failed(&attempt, now);
        } else if !self.enter(gate, from, &attempt, now) {
            self.turned_away(&attempt, now);
        }
    }

    /// Takes a place at a door; returns whether there was one.
    fn enter(&mut self, gate: Gate, from: IpAddr, attempt: &Attempt, now: Duration) -> bool {
        let (place, evicted) = match self.door(gate).admit(from, now) {
            Admission::Admit(place) => (place, None),
            Admission::AdmitAfterEvicting { place, evicted } => (place, Some(evicted)),
            Admission::Refuse(_) => return false,
        };
        if let Some(other) = evicted.and_then(|evicted| self.strangers.remove(&(gate, evicted))) {
            let other = self.connections[other].attempt.clone();
            self.take_back(other.handed, now);
            self.turned_away(&other, now);
        }
        let turn = now + self.door(gate).turn(place);
        // No newcomer takes its place while it waits.
        self.door(gate).asks(place, now);
        let number = self.connections.len();
        self.connections.push(Connection { attempt: attempt.clone(), gate, place });
        self.strangers.insert((gate, place), number);
        self.due.push(Reverse((turn, Event::Turn(number))));
        true
    }

    fn turn(&mut self, number: usize, now: Duration) {
        let Connection { attempt, gate, place } = self.connections[number].clone();
        if self.strangers.get(&(gate, place)) != Some(&number) {
            return;
        }
        self.door(gate).waits(place, now);
        let meant = match &attempt.dial {
            Dial::Any => gate.endpoint,
            Dial::Endpoint(id) | Dial::Sidecar(id) => number_of(id),
        };
        if meant == gate.endpoint {
            self.handshakes.entry(gate).or_default().push(now);
            self.due.push(Reverse((now + HANDSHAKE, Event::Admitted(number))));
            return;
        }
        self.strangers.remove(&(gate, place));
        self.door(gate).release(place, now);
        if !self.hand_over(&attempt, gate.endpoint, meant, now) {
            self.turned_away(&attempt, now);
        }
    }

    /// Whether an endpoint hands a connection over to the dialled one.
    fn hand_over(&mut self, attempt: &Attempt, by: usize, meant: usize, now: Duration) -> bool {
        if !self.listed.contains(&meant) {
            return false;
        }
        let source = self.source(attempt.agent);
        let Some(handed) = self.endpoints[by].hand(by, source, now) else { return false };
        let gate = Gate { endpoint: meant, of_peers: true };
        let attempt = Attempt { handed: Some(handed), ..attempt.clone() };
        if meant == GONE || !self.enter(gate, peer(by), &attempt, now) {
            self.take_back(Some(handed), now);
            return false;
        }
        self.due.push(Reverse((now + PATIENCE, Event::Aged(by, handed.place))));
        true
    }

    fn admitted(&mut self, number: usize, now: Duration) {
        let connection = self.connections[number].clone();
        let (gate, place, agent) = (connection.gate, connection.place, connection.attempt.agent);
        if self.strangers.get(&(gate, place)) != Some(&number) {
            return;
        }
        self.strangers.remove(&(gate, place));
        self.door(gate).authenticate(place, now).expect("a place for each agent");
        self.agents[agent].places.succeeded(&connection.attempt.dial, false, now, 0.0);
        if let Some(before) = self.attach(connection) {
            self.release(&before, now);
        }
        if !self.is_away(agent) {
            self.away.remove(&agent);
        }
        self.look(agent, now);
    }

    /// Makes the connection the carrier of the session. Returns the previous one.
    fn attach(&mut self, connection: Connection) -> Option<Connection> {
        let endpoint = connection.gate.endpoint;
        let peers = self.peers(endpoint);
        let agent = &mut self.agents[connection.attempt.agent];
        agent.places.told(&id(endpoint), peers);
        let standing = Standing { attached: true, ..Standing::default() };
        agent.sessions.insert(Dial::Endpoint(id(endpoint)), standing);
        agent.carriers.insert(endpoint, connection)
    }

    /// Nobody takes the connection.
    fn failed(&mut self, attempt: &Attempt, now: Duration) {
        let chance = self.chance.part();
        self.agents[attempt.agent].places.failed(&attempt.dial, now, chance);
        self.look(attempt.agent, now);
    }

    /// An endpoint closes the connection before the handshake.
    fn turned_away(&mut self, attempt: &Attempt, now: Duration) {
        let chance = self.chance.part();
        self.agents[attempt.agent].places.turned_away(&attempt.dial, now, chance);
        self.look(attempt.agent, now);
    }

    /// Ends a connection.
    fn release(&mut self, connection: &Connection, now: Duration) {
        self.door(connection.gate).release(connection.place, now);
        self.take_back(connection.attempt.handed, now);
    }

    /// Ends the handing-over of a connection.
    fn take_back(&mut self, handed: Option<Handed>, now: Duration) {
        if let Some(Handed { by, place }) = handed {
            self.endpoints[by].take_back(place, now);
        }
    }

    /// Whether an agent lacks a connection to an existing endpoint.
    fn is_away(&self, agent: usize) -> bool {
        let carriers = &self.agents[agent].carriers;
        self.listed.iter().any(|endpoint| *endpoint != GONE && !carriers.contains_key(endpoint))
    }

    fn door(&mut self, gate: Gate) -> &mut Door {
        self.endpoints[gate.endpoint].door(gate)
    }

    /// The endpoint that the load balancer chooses.
    fn balanced(&mut self) -> usize {
        let count = u64::try_from(self.listed.len()).expect("few");
        let chosen = usize::try_from(self.chance.between(0, count)).expect("few");
        self.listed[chosen]
    }

    fn source(&self, agent: usize) -> IpAddr {
        source(agent / self.sharing)
    }
}

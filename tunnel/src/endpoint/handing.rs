//! The endpoints and sidecars to hand connections over to, and the bounds on such connections.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use proxy_api::doors::{Admission, Bounds, Evict, PlaceId, Places};
use tokio::time::Instant;
use tunnel_core::door::{BEYOND_TO_SIDECARS, SIDECAR_STRANGERS, TO_SIDECARS};
use tunnel_core::identity::{Dial, EndpointId};

use super::Sidecar;

/// Bounds on connections whose agent the other endpoint may not know yet. None of them is evicted: an agent that lost
/// its connection would reconnect and evict the next one. A load balancer may be the source of all agents.
pub const HANDED: Bounds = Bounds { strangers: 512, per_source: 128, known: 0, evict: Evict::Never, rates: None };
/// Like [`HANDED`], for connections to sidecars beyond their reserved room. One source may have all of them: a load
/// balancer may be the source of all agents here, too.
const HANDED_TO_SIDECARS: Bounds = Bounds { per_source: HANDED.strangers, ..HANDED };
/// The most connections handed over at once, by the number of instances that an endpoint takes: connections whose agent
/// the other endpoint may not know yet, and two for each instance. A load balancer that chooses at random makes fewer
/// than one for each instance; one that always chooses the same of three endpoints makes two.
pub fn lasting(max_agents: usize) -> usize {
    max_agents.saturating_mul(2).saturating_add(HANDED.strangers)
}

/// The bounds on connections that are handed over to one address at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Reserved connections: they have room whatever others hold, and however young those are.
    kept: usize,
    /// The most connections in total.
    most: usize,
}

impl Share {
    /// The share of another endpoint: any room that is free.
    pub(super) const OF_ENDPOINT: Self = Self { kept: 0, most: usize::MAX };

    /// The share of a sidecar, by the number of instances that its agents may have. One connection for each is
    /// reserved, so that nobody who owns other sidecars, or has connected to them, can take its room. Beyond that, it
    /// may have another one for each, as in [`lasting`], and as many as the sidecar accepts before it knows their
    /// agents.
    fn of_sidecar(instances: usize) -> Self {
        Self { kept: instances, most: instances.saturating_mul(2).saturating_add(SIDECAR_STRANGERS) }
    }
}

/// The destination of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This endpoint.
    Own,
    /// The endpoint at this address.
    Peer(SocketAddr),
    /// A sidecar.
    Sidecar {
        /// Its address.
        to: SocketAddr,
        /// The bounds on connections that are handed over to it at once.
        share: Share,
    },
}

/// The other endpoints and the sidecars, and the connections that are being handed over to them.
pub(super) struct Handing {
    peers: RefCell<BTreeMap<EndpointId, SocketAddr>>,
    sidecars: RefCell<BTreeMap<EndpointId, Sidecar>>,
    /// The sidecars of each agent, by its uid.
    of_agents: RefCell<BTreeMap<String, BTreeSet<EndpointId>>>,
    /// Room for connections to other endpoints.
    pub(super) to_peers: Room,
    /// Room for connections to sidecars.
    pub(super) to_sidecars: Room,
}

/// The bounds on connections that are handed over.
pub(super) struct Room {
    start: Instant,
    /// Places for connections whose agent the other end may not know yet. Reserved connections take none.
    places: RefCell<Places>,
    /// The number of reserved connections.
    kept: Cell<usize>,
    most_kept: usize,
    /// The number of all other connections.
    beyond: Cell<usize>,
    most_beyond: usize,
    by_address: RefCell<BTreeMap<SocketAddr, There>>,
}

/// The connections to one address, by their number.
#[derive(Clone, Copy, Debug, Default)]
struct There {
    kept: usize,
    beyond: usize,
}

impl Room {
    fn new(young: Bounds, most_kept: usize, most_beyond: usize) -> Self {
        Self {
            start: Instant::now(),
            places: RefCell::new(Places::new(young)),
            kept: Cell::new(0),
            most_kept,
            beyond: Cell::new(0),
            most_beyond,
            by_address: RefCell::default(),
        }
    }

    /// Takes room for one more connection from this source to this address, if there is any.
    pub(super) fn enter(&self, from: IpAddr, to: SocketAddr, share: Share) -> Option<Handed<'_>> {
        let there = self.by_address.borrow().get(&to).copied().unwrap_or_default();
        if there.kept < share.kept && self.kept.get() < self.most_kept {
            self.kept.set(self.kept.get() + 1);
            self.by_address.borrow_mut().insert(to, There { kept: there.kept + 1, ..there });
            return Some(Handed { room: self, to, is_kept: true, young: None });
        }
        if there.kept + there.beyond >= share.most || self.beyond.get() >= self.most_beyond {
            return None;
        }
        let young = Some(Place::enter(self, from)?);
        self.beyond.set(self.beyond.get() + 1);
        self.by_address.borrow_mut().insert(to, There { beyond: there.beyond + 1, ..there });
        Some(Handed { room: self, to, is_kept: false, young })
    }

    fn count(&self) -> usize {
        self.kept.get() + self.beyond.get()
    }
}

impl Handing {
    /// Creates the bounds for an endpoint that takes this many instances of agents.
    pub(super) fn new(max_agents: usize) -> Self {
        Self {
            peers: RefCell::default(),
            sidecars: RefCell::default(),
            of_agents: RefCell::default(),
            to_peers: Room::new(HANDED, 0, lasting(max_agents)),
            to_sidecars: Room::new(HANDED_TO_SIDECARS, TO_SIDECARS, BEYOND_TO_SIDECARS),
        }
    }

    /// Replaces the table of endpoints, and returns whether the ids have changed.
    pub(super) fn set_peers(&self, peers: BTreeMap<EndpointId, SocketAddr>) -> bool {
        let before = self.peers.replace(peers);
        !before.keys().eq(self.peers.borrow().keys())
    }

    /// Replaces the sidecars, and returns the uids of the agents whose sidecars have changed.
    pub(super) fn set_sidecars(&self, sidecars: &BTreeMap<EndpointId, Sidecar>) -> BTreeSet<String> {
        let mut of_agents = BTreeMap::<String, BTreeSet<EndpointId>>::new();
        for (id, sidecar) in sidecars {
            for uid in &sidecar.agents {
                of_agents.entry(uid.clone()).or_default().insert(id.clone());
            }
        }
        self.sidecars.replace(sidecars.clone());
        let before = self.of_agents.replace(of_agents);
        let now = self.of_agents.borrow();
        let uids: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        uids.into_iter().filter(|uid| before.get(*uid) != now.get(*uid)).cloned().collect()
    }

    /// The first sidecars of an agent, ordered by id.
    pub(super) fn sidecars_of(&self, uid: &str, most: usize) -> Vec<EndpointId> {
        self.of_agents.borrow().get(uid).into_iter().flatten().take(most).cloned().collect()
    }

    /// Returns the destination of a connection with this dial. `instances` returns how many instances the agent of a
    /// uid may have.
    pub(super) fn way(&self, dial: &Dial, instances: impl Fn(&str) -> usize) -> Option<Whose> {
        match dial {
            Dial::Any => None,
            Dial::Endpoint(id) => self.peers.borrow().get(id).copied().map(Whose::Peer),
            Dial::Sidecar(id) => {
                let sidecars = self.sidecars.borrow();
                let sidecar = sidecars.get(id)?;
                let instances = sidecar.agents.iter().map(|uid| instances(uid));
                let share = Share::of_sidecar(instances.fold(0, usize::saturating_add));
                Some(Whose::Sidecar { to: sidecar.address, share })
            }
        }
    }

    /// The first endpoints, ordered by id.
    pub(super) fn peers(&self, most: usize) -> Vec<EndpointId> {
        self.peers.borrow().keys().take(most).cloned().collect()
    }

    /// The number of connections that are being handed over.
    pub(super) fn count(&self) -> usize {
        self.to_peers.count() + self.to_sidecars.count()
    }

    /// Whether another endpoint has this address.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.peers.borrow().values().any(|peer| peer.ip().to_canonical() == ip)
    }
}

/// One connection that is handed over, until it is dropped.
pub(super) struct Handed<'a> {
    room: &'a Room,
    to: SocketAddr,
    is_kept: bool,
    young: Option<Place<'a>>,
}

impl Handed<'_> {
    /// Notes that the other end has by now closed the connection unless it knows the agent.
    pub(super) fn grow_old(&mut self) {
        self.young = None;
    }
}

impl Drop for Handed<'_> {
    fn drop(&mut self) {
        let mut by_address = self.room.by_address.borrow_mut();
        let mut there = by_address.remove(&self.to).unwrap_or_default();
        let (all, here) =
            if self.is_kept { (&self.room.kept, &mut there.kept) } else { (&self.room.beyond, &mut there.beyond) };
        all.set(all.get().saturating_sub(1));
        *here = here.saturating_sub(1);
        if there.kept + there.beyond > 0 {
            by_address.insert(self.to, there);
        }
    }
}

/// A place for a connection whose agent the other end may not know yet; freed on drop.
struct Place<'a> {
    room: &'a Room,
    id: PlaceId,
}

impl<'a> Place<'a> {
    fn enter(room: &'a Room, from: IpAddr) -> Option<Self> {
        let admission = room.places.borrow_mut().admit(from, room.start.elapsed());
        match admission {
            Admission::Admit(id) | Admission::AdmitAfterEvicting { place: id, .. } => Some(Self { room, id }),
            Admission::Refuse(_) => None,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.places.borrow_mut().release(self.id, self.room.start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> EndpointId {
        EndpointId::new(name).expect("an id")
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn source(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    /// Enters this many connections to this address from one source. Those that are not reserved are then old.
    fn enter(room: &Room, to: SocketAddr, share: Share, count: usize) -> Vec<Handed<'_>> {
        let mut entered = Vec::new();
        for _ in 0..count {
            let mut handed = room.enter(source(1), to, share).expect("room");
            handed.grow_old();
            entered.push(handed);
        }
        entered
    }

    #[test]
    fn connections_that_are_handed_over_are_bounded_and_give_their_places_back() {
        let handing = Handing::new(3);
        let any = Share::OF_ENDPOINT;
        for (room, other, of_one) in [
            (&handing.to_peers, &handing.to_sidecars, HANDED.per_source),
            (&handing.to_sidecars, &handing.to_peers, HANDED.strangers),
        ] {
            let young: Vec<_> = (0..of_one).map(|_| room.enter(source(1), at(1), any)).collect();
            assert!(young.iter().all(Option::is_some) && room.enter(source(1), at(1), any).is_none());
            assert!(other.enter(source(1), at(1), any).is_some(), "neither takes places of the other");
            assert_eq!(room.enter(source(2), at(1), any).is_some(), of_one < HANDED.strangers);
            drop(young);
            let old = enter(room, at(1), any, room.most_beyond);
            assert!(room.enter(source(1), at(1), any).is_none());
            assert_eq!(handing.count(), room.most_beyond);
            assert!(other.enter(source(1), at(1), any).is_some(), "neither takes room of the other");
            drop(old);
            assert!(room.enter(source(1), at(1), any).is_some());
        }
        assert_eq!(handing.to_peers.most_beyond, 6 + HANDED.strangers, "two for each instance");
        assert_eq!(handing.count(), 0);
    }

    #[test]
    fn one_sidecar_has_its_share_of_the_connections_and_leaves_the_others_theirs() {
        let handing = Handing::new(3);
        let (room, share) = (&handing.to_sidecars, Share::of_sidecar(4));
        assert_eq!((share.kept, share.most), (4, 8 + SIDECAR_STRANGERS), "two for each instance, and strangers");
        let entered = enter(room, at(1), share, share.most);
        assert!(room.enter(source(1), at(1), share).is_none());
        assert!(room.enter(source(1), at(2), share).is_some());
        drop(entered);
        assert!(room.enter(source(1), at(1), Share::of_sidecar(0)).is_some());
        assert!(room.by_address.borrow().is_empty() && handing.count() == 0);
    }

    #[test]
    fn whoever_holds_what_is_beyond_leaves_each_sidecar_a_connection_of_each_instance() {
        let handing = Handing::new(3);
        let (room, share) = (&handing.to_sidecars, Share::of_sidecar(4));
        // The owner of one namespace runs many sidecars, and connects to all of them.
        let mut held = Vec::new();
        for port in 1000.. {
            if room.beyond.get() + share.most > BEYOND_TO_SIDECARS {
                break;
            }
            held.extend(enter(room, at(port), share, share.most));
        }
        held.extend(enter(room, at(1), Share::OF_ENDPOINT, BEYOND_TO_SIDECARS - room.beyond.get()));
        assert!(room.enter(source(2), at(3), Share::of_sidecar(0)).is_none(), "nothing is left beyond");
        let kept: Vec<_> = (0..4).map(|_| room.enter(source(2), at(3), share)).collect();
        assert!(kept.iter().all(Option::is_some) && room.enter(source(2), at(3), share).is_none());
    }

    #[test]
    fn young_connections_of_others_delay_none_that_is_kept_for_a_sidecar() {
        let handing = Handing::new(3);
        let (room, any) = (&handing.to_sidecars, Share::OF_ENDPOINT);
        let young: Vec<_> = (0..HANDED.strangers).map(|_| room.enter(source(1), at(1), any)).collect();
        assert!(young.iter().all(Option::is_some) && room.enter(source(2), at(2), any).is_none());
        assert!(room.enter(source(2), at(2), Share::of_sidecar(1)).is_some());
    }

    #[test]
    fn each_agent_has_the_sidecars_that_may_lead_to_it() {
        let sidecar = |port: u16, agents: &[&str]| Sidecar {
            address: at(port),
            agents: agents.iter().map(|uid| (*uid).to_owned()).collect(),
        };
        let handing = Handing::new(3);
        let mut table = BTreeMap::from([(id("s1"), sidecar(1, &["u-1", "u-2"])), (id("s2"), sidecar(2, &["u-2"]))]);
        assert_eq!(handing.set_sidecars(&table), BTreeSet::from(["u-1".to_owned(), "u-2".to_owned()]));
        assert_eq!((handing.sidecars_of("u-1", 9), handing.sidecars_of("u-3", 9)), (vec![id("s1")], Vec::new()));
        assert_eq!(
            (handing.sidecars_of("u-2", 9), handing.sidecars_of("u-2", 1)),
            (vec![id("s1"), id("s2")], vec![id("s1")])
        );
        let moved = at(3);
        table.insert(id("s2"), Sidecar { address: moved, agents: BTreeSet::from(["u-2".to_owned()]) });
        assert!(handing.set_sidecars(&table).is_empty(), "agents learn no addresses");
        let way = |dial: &Dial| handing.way(dial, |_| 4);
        let expected = Whose::Sidecar { to: moved, share: Share::of_sidecar(4) };
        assert_eq!(way(&Dial::Sidecar(id("s2"))), Some(expected));
        let Some(Whose::Sidecar { share: of_two, .. }) = way(&Dial::Sidecar(id("s1"))) else { panic!("a sidecar") };
        assert_eq!(of_two, Share::of_sidecar(8), "it has two agents");
        assert_eq!(way(&Dial::Endpoint(id("s2"))), None, "a sidecar is no endpoint");
        table.remove(&id("s1"));
        assert_eq!(handing.set_sidecars(&table), BTreeSet::from(["u-1".to_owned(), "u-2".to_owned()]));
        assert_eq!(way(&Dial::Sidecar(id("s1"))), None);
    }
}

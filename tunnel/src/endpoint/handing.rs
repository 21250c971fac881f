//! Who else there is to hand connections over to, and how many connections are handed over.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use proxy_api::doors::{Admission, Bounds, Evict, PlaceId, Places};
use tokio::time::Instant;
use tunnel_core::door::{SIDECAR_STRANGERS, TO_SIDECARS};
use tunnel_core::identity::{Dial, EndpointId};

use super::Sidecar;
use super::hand_over::Whose;

/// Connections whose agent the other endpoint may not know yet. None gives way: an agent whose connection is there would
/// come back and take the place of the next one. A load balancer may be the source of all agents.
pub const HANDED: Bounds = Bounds { strangers: 512, per_source: 128, known: 0, evict: Evict::Never, rates: None };
/// As [`HANDED`], of connections to sidecars. One source may have all of them: behind a load balancer, a pod that comes in
/// place of another one hands thousands over within the time that their streams wait.
const HANDED_TO_SIDECARS: Bounds = Bounds { per_source: HANDED.strangers, ..HANDED };
/// Connections that are handed over at once, by the instances that an endpoint takes: those whose agent the other endpoint
/// may not know yet, and two for each instance. A load balancer that chooses at random has fewer than one for each handed
/// over, and one that always chooses the same of three endpoints has two.
pub fn lasting(max_agents: usize) -> usize {
    max_agents.saturating_mul(2).saturating_add(HANDED.strangers)
}

/// Connections that are handed over to one sidecar at once, by the instances that its agents may have: two for each, as in
/// [`lasting`], and those that it keeps itself before it knows whose they are. So nobody who knows of one sidecar takes the
/// room of the others.
fn share(instances: usize) -> usize {
    instances.saturating_mul(2).saturating_add(SIDECAR_STRANGERS)
}

/// The other endpoints and the sidecars, and the connections that are handed over to them.
pub(super) struct Handing {
    peers: RefCell<BTreeMap<EndpointId, SocketAddr>>,
    sidecars: RefCell<BTreeMap<EndpointId, Sidecar>>,
    /// The sidecars of each agent, by its uid.
    of_agents: RefCell<BTreeMap<String, BTreeSet<EndpointId>>>,
    /// To other endpoints.
    pub(super) to_peers: Room,
    /// To sidecars.
    pub(super) to_sidecars: Room,
}

/// The bounds on connections that are handed over.
pub(super) struct Room {
    start: Instant,
    /// Of those whose agent the other end may not know yet.
    places: RefCell<Places>,
    count: Cell<usize>,
    most: usize,
    /// How many there are to each address.
    by_address: RefCell<BTreeMap<SocketAddr, usize>>,
}

impl Room {
    fn new(young: Bounds, most: usize) -> Self {
        let (places, by_address) = (RefCell::new(Places::new(young)), RefCell::default());
        Self { start: Instant::now(), places, count: Cell::new(0), most, by_address }
    }
}

impl Handing {
    /// At an endpoint that takes so many instances of agents.
    pub(super) fn new(max_agents: usize) -> Self {
        Self {
            peers: RefCell::default(),
            sidecars: RefCell::default(),
            of_agents: RefCell::default(),
            to_peers: Room::new(HANDED, lasting(max_agents)),
            to_sidecars: Room::new(HANDED_TO_SIDECARS, TO_SIDECARS),
        }
    }

    /// Takes another table, and tells whether it names others than the one before.
    pub(super) fn set_peers(&self, peers: BTreeMap<EndpointId, SocketAddr>) -> bool {
        let before = self.peers.replace(peers);
        !before.keys().eq(self.peers.borrow().keys())
    }

    /// Takes the sidecars that there are, and gives the uids of the agents which have others than before.
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

    /// The first sidecars of an agent, by their ids.
    pub(super) fn sidecars_of(&self, uid: &str, most: usize) -> Vec<EndpointId> {
        self.of_agents.borrow().get(uid).into_iter().flatten().take(most).cloned().collect()
    }

    /// Where a connection goes that is meant for somebody else. `instances` gives how many the agent of a uid may have.
    pub(super) fn way(&self, dial: &Dial, instances: impl Fn(&str) -> usize) -> Option<Whose> {
        match dial {
            Dial::Any => None,
            Dial::Endpoint(id) => self.peers.borrow().get(id).copied().map(Whose::Peer),
            Dial::Sidecar(id) => {
                let sidecars = self.sidecars.borrow();
                let sidecar = sidecars.get(id)?;
                let instances = sidecar.agents.iter().map(|uid| instances(uid));
                let share = share(instances.fold(0, usize::saturating_add));
                Some(Whose::Sidecar { to: sidecar.address, share })
            }
        }
    }

    /// The first ids of the table.
    pub(super) fn peers(&self, most: usize) -> Vec<EndpointId> {
        self.peers.borrow().keys().take(most).cloned().collect()
    }

    /// Connections that are handed over now.
    pub(super) fn count(&self) -> usize {
        self.to_peers.count.get() + self.to_sidecars.count.get()
    }

    /// Whether another endpoint has this address.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.peers.borrow().values().any(|peer| peer.ip().to_canonical() == ip)
    }
}

/// One connection that is handed over, until it is dropped.
pub(super) struct Lasting<'a> {
    room: &'a Room,
    to: SocketAddr,
}

impl<'a> Lasting<'a> {
    /// One to this address, of at most `share`.
    pub(super) fn enter(room: &'a Room, to: SocketAddr, share: usize) -> Option<Self> {
        let mut by_address = room.by_address.borrow_mut();
        let there = by_address.get(&to).copied().unwrap_or_default();
        if room.count.get() >= room.most || there >= share {
            return None;
        }
        by_address.insert(to, there + 1);
        room.count.set(room.count.get() + 1);
        Some(Self { room, to })
    }
}

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        self.room.count.set(self.room.count.get() - 1);
        let mut by_address = self.room.by_address.borrow_mut();
        let there = by_address.remove(&self.to).unwrap_or_default();
        if there > 1 {
            by_address.insert(self.to, there - 1);
        }
    }
}

/// A place among those whose agent the other end may not know yet, free again on drop.
pub(super) struct Place<'a> {
    room: &'a Room,
    id: PlaceId,
}

impl<'a> Place<'a> {
    pub(super) fn enter(room: &'a Room, from: IpAddr) -> Option<Self> {
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

    #[test]
    fn connections_that_are_handed_over_are_bounded_and_give_their_places_back() {
        let handing = Handing::new(3);
        let source = |number: u8| IpAddr::from([192, 0, 2, number]);
        for (room, other, of_one) in [
            (&handing.to_peers, &handing.to_sidecars, HANDED.per_source),
            (&handing.to_sidecars, &handing.to_peers, HANDED.strangers),
        ] {
            let held: Vec<_> = (0..of_one).map(|_| Place::enter(room, source(1))).collect();
            assert!(held.iter().all(Option::is_some) && Place::enter(room, source(1)).is_none());
            assert!(Place::enter(other, source(1)).is_some(), "neither takes places of the other");
            assert_eq!(Place::enter(room, source(2)).is_some(), of_one < HANDED.strangers);
            drop(held);
            assert!(Place::enter(room, source(1)).is_some());
        }
        assert_eq!(lasting(3), 6 + HANDED.strangers, "two for each instance");
        for (room, other) in [(&handing.to_peers, &handing.to_sidecars), (&handing.to_sidecars, &handing.to_peers)] {
            let enter = |room| Lasting::enter(room, at(1), usize::MAX);
            let entered: Vec<_> = (0..room.most).map(|_| enter(room)).collect();
            assert!(entered.iter().all(Option::is_some) && enter(room).is_none());
            assert_eq!(handing.count(), room.most);
            assert!(enter(other).is_some(), "neither takes room of the other");
            drop(entered);
            assert!(enter(room).is_some());
        }
        assert_eq!(handing.count(), 0);
    }

    #[test]
    fn one_sidecar_has_its_share_of_the_connections_and_leaves_the_others_theirs() {
        let handing = Handing::new(3);
        let room = &handing.to_sidecars;
        assert_eq!(share(4), 8 + SIDECAR_STRANGERS, "two for each instance, and strangers");
        let entered: Vec<_> = (0..share(4)).map(|_| Lasting::enter(room, at(1), share(4))).collect();
        assert!(entered.iter().all(Option::is_some) && Lasting::enter(room, at(1), share(4)).is_none());
        assert!(Lasting::enter(room, at(2), share(4)).is_some());
        drop(entered);
        assert!(Lasting::enter(room, at(1), 1).is_some());
        assert!(room.by_address.borrow().is_empty() && handing.count() == 0);
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
        assert!(handing.set_sidecars(&table).is_empty(), "agents hear of no addresses");
        let way = |dial: &Dial| handing.way(dial, |_| 4);
        assert_eq!(way(&Dial::Sidecar(id("s2"))), Some(Whose::Sidecar { to: moved, share: share(4) }));
        let Some(Whose::Sidecar { share: of_two, .. }) = way(&Dial::Sidecar(id("s1"))) else { panic!("a sidecar") };
        assert_eq!(of_two, share(8), "it has two agents");
        assert_eq!(way(&Dial::Endpoint(id("s2"))), None, "a sidecar is no endpoint");
        table.remove(&id("s1"));
        assert_eq!(handing.set_sidecars(&table), BTreeSet::from(["u-1".to_owned(), "u-2".to_owned()]));
        assert_eq!(way(&Dial::Sidecar(id("s1"))), None);
    }
}

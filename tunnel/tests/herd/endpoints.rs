//! Endpoints with their doors and bounds, and the connections to them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proxy_api::doors::{Admission, Bounds, PlaceId, Places as Door};
use tunnel::endpoint::{HANDED, lasting};
use tunnel_core::door::{CONNECTIONS_PER_SECOND, STRANGERS, bounds};
use tunnel_core::identity::{Dial, EndpointId};

/// The most agents of an endpoint.
const MAX_AGENTS: usize = 1024;

/// A door of an endpoint: for agents, or for connections that other endpoints hand over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gate {
    pub(super) endpoint: usize,
    pub(super) of_peers: bool,
}

/// The endpoint to hand a connection over to.
#[derive(Clone, Copy)]
pub(super) struct Handed {
    pub(super) by: usize,
    pub(super) place: PlaceId,
}

/// The endpoint that an agent dials, and the path to it.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) agent: usize,
    pub(super) dial: Dial,
    pub(super) handed: Option<Handed>,
}

/// An attempt that has a place at a door.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) attempt: Attempt,
    pub(super) gate: Gate,
    pub(super) place: PlaceId,
}

pub(super) struct Endpoint {
    own: Door,
    peers: Door,
    /// The young connections that it hands over.
    pub(super) handing: Door,
    /// All connections that it hands over.
    pub(super) lasting: usize,
}

impl Endpoint {
    /// An endpoint with the bounds of one that listens.
    pub(super) fn new() -> Self {
        let of_all = bounds(CONNECTIONS_PER_SECOND, MAX_AGENTS);
        let of_peers = Bounds { per_source: STRANGERS, ..of_all };
        Self { own: Door::new(of_all), peers: Door::new(of_peers), handing: Door::new(HANDED), lasting: 0 }
    }

    pub(super) fn door(&mut self, gate: Gate) -> &mut Door {
        if gate.of_peers { &mut self.peers } else { &mut self.own }
    }

    /// Takes a place for a handed-over connection of this source, if there is one. `by` is the number of this endpoint.
    pub(super) fn hand(&mut self, by: usize, source: IpAddr, now: Duration) -> Option<Handed> {
        if self.lasting >= lasting(MAX_AGENTS) {
            return None;
        }
        let Admission::Admit(place) = self.handing.admit(source, now) else { return None };
        self.lasting += 1;
        Some(Handed { by, place })
    }

    /// Frees the place of a connection that has ended.
    pub(super) fn take_back(&mut self, place: PlaceId, now: Duration) {
        self.handing.release(place, now);
        self.lasting -= 1;
    }
}

/// The id of an endpoint, by its number.
pub(super) fn id(number: usize) -> EndpointId {
    EndpointId::new(&format!("pod-{number}")).expect("an id")
}

/// The number of an endpoint, by its id.
pub(super) fn number_of(id: &EndpointId) -> usize {
    id.as_str().trim_start_matches("pod-").parse().expect("a number")
}

/// The address of an agent, or of several.
pub(super) fn source(number: usize) -> IpAddr {
    address(0x0a00_0000, number)
}

/// The address of an endpoint.
pub(super) fn peer(number: usize) -> IpAddr {
    address(0x0b00_0000, number)
}

fn address(network: u32, number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(network + u32::try_from(number).expect("few")))
}

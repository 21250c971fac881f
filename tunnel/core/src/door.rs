//! The bounds of the port that agents dial.

use proxy_api::doors::{Bounds, Evict, Rate, Rates};

/// Most connections whose agent is not known yet.
pub const STRANGERS: usize = 256;
/// Most of these from one source. A load balancer may be the source of all agents, so this suffices for all that wait
/// for their turn.
pub const PER_SOURCE: usize = 128;
/// New connections a second, unless a setting says otherwise.
pub const CONNECTIONS_PER_SECOND: u32 = 200;
/// Most connections to a sidecar whose agent is not known yet. All of them may come from one source, because few pods
/// hand connections over.
pub const SIDECAR_STRANGERS: usize = 32;
/// New connections to a sidecar a second.
pub const SIDECAR_CONNECTIONS_PER_SECOND: u32 = 50;
/// Connections to sidecars for which one endpoint reserves room: one for each instance that the agents of a sidecar may
/// have. They take no room from connections to other endpoints.
pub const TO_SIDECARS: usize = 4096;
/// Further connections to sidecars that one endpoint hands over at once: replacements for connections that are not
/// known to be lost yet, and connections of strangers.
pub const BEYOND_TO_SIDECARS: usize = 1024;

/// The bounds of a port for this many agents.
///
/// A newcomer takes the place of the connection that was silent for the longest. Handshakes begin one after the other,
/// at the rate. The burst is half a second of connections: waiting connections then have places beside those in a
/// handshake, and no agent of a herd is evicted. All agents may come through one source, so a source has the rate of
/// all; sources with known agents come before others. Each agent may hold a second connection while it replaces the
/// first.
pub fn bounds(connections_per_second: u32, agents: usize) -> Bounds {
    let rate = Rate::per_second(connections_per_second, connections_per_second / 2);
    Bounds {
        strangers: STRANGERS,
        per_source: PER_SOURCE,
        known: agents.saturating_mul(2),
        evict: Evict::Silent,
        rates: Some(Rates { all: rate, source: rate, evenly: true }),
    }
}

/// The bounds of the port of a sidecar for this many agents.
pub fn of_sidecar(agents: usize) -> Bounds {
    let of_server = bounds(SIDECAR_CONNECTIONS_PER_SECOND, agents);
    Bounds { strangers: SIDECAR_STRANGERS, per_source: SIDECAR_STRANGERS, ..of_server }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_begin_evenly_at_the_rate_with_a_burst_of_half_a_second_from_all_and_from_one_source() {
        let rate = Rate::per_second(200, 100);
        let expected = Bounds {
            strangers: 256,
            per_source: 128,
            known: 20,
            evict: Evict::Silent,
            rates: Some(Rates { all: rate, source: rate, evenly: true }),
        };
        assert_eq!(bounds(200, 10), expected);
        let of_sidecar = of_sidecar(10).rates.map(|rates| (rates.all, rates.source));
        let rate = Rate::per_second(50, 25);
        assert_eq!(of_sidecar, Some((rate, rate)));
    }

    #[test]
    fn a_sidecar_has_places_for_32_strangers_and_two_connections_of_each_agent() {
        let Bounds { strangers, per_source, known, .. } = of_sidecar(100);
        assert_eq!((strangers, per_source, known), (32, 32, 200));
    }
}

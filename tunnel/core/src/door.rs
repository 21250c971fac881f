//! The bounds of the port that agents dial.

use proxy_api::doors::{Bounds, Evict, Rate, Rates};

/// Connections whose agent is not known yet.
pub const STRANGERS: usize = 256;
/// Of these, from one source. A load balancer may be the source of all agents, so it has enough places for all that wait
/// for their turn.
pub const PER_SOURCE: usize = 128;
/// New connections a second, unless a setting says otherwise.
pub const CONNECTIONS_PER_SECOND: u32 = 200;
/// Connections to a sidecar whose agent is not known yet. All may be from one source, as few pods hand them over.
pub const SIDECAR_STRANGERS: usize = 32;
/// New connections to a sidecar a second.
pub const SIDECAR_CONNECTIONS_PER_SECOND: u32 = 50;
/// Connections to sidecars for which one endpoint keeps room: one for each instance that the agents of a sidecar may have.
/// They take no room of those to other endpoints.
pub const TO_SIDECARS: usize = 4096;
/// Further connections to sidecars that one endpoint hands over at once: those that replace others which are not known to
/// be lost yet, and those of strangers.
pub const BEYOND_TO_SIDECARS: usize = 1024;

/// The bounds of a port for so many agents.
///
/// A newcomer takes the place of the connection that was silent for the longest. Handshakes begin one after the other, at
/// the rate. What may come at once is half a second of connections: those that wait then have places beside those that
/// shake hands, and none has to give way in a herd. All agents may come through one source, which so has the rate of
/// all; sources of agents come before others. An agent has a second connection for the moment in which it replaces the
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

/// The bounds of the port of a sidecar for so many agents.
pub fn of_sidecar(agents: usize) -> Bounds {
    let of_server = bounds(SIDECAR_CONNECTIONS_PER_SECOND, agents);
    Bounds { strangers: SIDECAR_STRANGERS, per_source: SIDECAR_STRANGERS, ..of_server }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_has_places_for_32_strangers_and_two_connections_of_each_agent() {
        let Bounds { strangers, per_source, known, rates, .. } = of_sidecar(100);
        assert_eq!((strangers, per_source, known), (32, 32, 200));
        assert!(rates.is_some(), "connections a second");
    }
}

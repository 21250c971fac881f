//! A thousand agents have a connection to each of three endpoints behind one load balancer. One of the endpoints is
//! lost, with the connections that it has handed over, and later another one replaces it. On a virtual clock, with the
//! bounds of real endpoints.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../core/tests/chance/mod.rs"]
mod chance;
mod endpoints;
mod fleet;

use std::time::Duration;

use self::endpoints::{Endpoint, source};
use self::fleet::{AGENTS, Fleet};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_thousand_agents_have_all_their_connections_back_within_ten_seconds_after_an_endpoint_is_lost() {
    // Each agent has its own source, or all come through one load balancer.
    for (sharing, seed) in [(1, 0), (AGENTS, 1)] {
        let mut fleet = Fleet::new(seed, sharing);
        let case = format!("seed {seed}, {sharing} of a source");
        let handed = fleet.handed_over();
        assert!(handed.iter().all(|count| *count > AGENTS / 2), "{case}: endpoints hand over: {handed:?}");
        fleet.lose();
        let [lost, joined] = fleet.run();
        assert!(lost <= 10 * SECOND, "{case}: the last one after {lost:?}");
        assert!(joined <= 10 * SECOND, "{case}: the last one at the next endpoint after {joined:?}");
        // For each rate, two lanes begin with one handshake each.
        let most = fleet.most_in(SECOND);
        assert!(most <= 202, "{case}: {most} handshakes in a second");
        let dialled = fleet.dialled();
        assert!(dialled <= 12 * AGENTS, "{case}: {dialled} connections");
    }
}

#[test]
fn an_endpoint_that_a_load_balancer_always_chooses_hands_all_agents_over_to_two_others() {
    let mut endpoint = Endpoint::new();
    for connection in 0..2 * AGENTS {
        let now = SECOND * u32::try_from(connection).expect("few");
        let handed = endpoint.hand(0, source(connection / 2), now).expect("a place for what is handed over");
        // The connection is no longer young.
        endpoint.handing.release(handed.place, now);
    }
    assert_eq!(endpoint.lasting, 2 * AGENTS);
}

//! What a wrong clock does to a connected agent.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::task::spawn_local;
use tunnel::enrol::{Renewal, Renewed};

use super::world::{
    Clock, DAY, Home, LIFETIME, NOW, Server, address, echo, echo_server, start_agent, until, way, within,
};
use super::{enrolled, failure};

#[tokio::test]
async fn a_stream_without_a_connection_waits_for_a_clock_to_be_set_right() {
    within(async {
        // The certificate of the server is not valid yet, and then no longer valid.
        for wrong in [NOW - DAY, NOW + 400 * DAY] {
            let (server, target, home) = (Server::start(), echo_server().await, Home::new());
            let (enrolled, clock) = (enrolled(&server, &home, 1).await, Clock::at(NOW));
            let tls = home.tls(&enrolled, &clock);
            let _agent = start_agent(&server, &tls);
            server.has(1).await;
            let mut stream = server.stream(target).await;
            clock.set(wrong);
            let told = failure(&server, &tls).await;
            assert!(told.contains("check this clock"), "{told}");
            until(|| server.closed("handshake") == 1).await;
            server.cut();
            until(|| server.closed("handshake") > 1).await;
            clock.set(NOW);
            echo(&mut stream, b"on the next connection").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_renewal_that_failed_while_the_clock_was_ahead_is_tried_again_once_it_is_set_right() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let (first, clock) = (enrolled(&server, &home, 1).await, Clock::at(NOW + 30 * DAY));
        let tls = home.tls(&first, &clock);
        let renewal = Renewal {
            folder: home.folder.clone(),
            addresses: vec![address(server.address)],
            way: way(&clock),
            chance: || 0.0,
            look: Duration::from_millis(2),
        };
        let failures = Rc::new(Cell::new(0));
        let counted = failures.clone();
        spawn_local(async move {
            let tell = |renewed: &Renewed<'_>| {
                if matches!(renewed, Renewed::Failed { .. }) {
                    counted.set(counted.get() + 1);
                }
            };
            renewal.run_observed(&tls, first, tell).await;
        });
        until(|| failures.get() == 1).await;
        server.clock.set(NOW + 4 * DAY);
        clock.set(NOW + 4 * DAY);
        until(|| home.kept(clock.now()).not_after == NOW + 4 * DAY + LIFETIME).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_clock_is_wrong_says_so_to_its_owner() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let tls = home.tls(&enrolled(&server, &home, 1).await, &Clock::at(NOW));
        server.clock.set(NOW + 30 * DAY);
        for attempts in 1..=2 {
            failure(&server, &tls).await;
            until(|| server.closed("handshake") == attempts).await;
        }
        let told = server.endpoint.notices();
        assert_eq!((told.len(), told[0].kind, told[0].subject.as_str()), (1, "clock", "127.0.0.1"), "{told:?}");
        assert!(told[0].message.contains("by the clock of this server: check this clock"), "{told:?}");
        assert!(told[0].message.contains("and 1 more"), "{told:?}");
    })
    .await;
}

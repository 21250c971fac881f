//! What a wrong clock does to an agent that is connected.

use super::world::{Clock, DAY, Home, NOW, Server, echo, echo_server, start_agent, until, within};
use super::{enrolled, failure};

#[tokio::test]
async fn a_stream_without_a_connection_waits_for_a_clock_to_be_set_right() {
    within(async {
        // The certificate of the server is not valid yet, and not any more.
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

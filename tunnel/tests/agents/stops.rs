//! An agent whose time to stop is over.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_local;
use tunnel::agent;
use tunnel_core::hello::Boot;

use super::world::{Echo, Plain, Server, address, settings, until, within};
use super::{connect, echo, is_reset};

#[tokio::test]
async fn streams_that_are_left_when_an_agent_stops_are_reset_at_once_and_it_is_forgotten() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let allowed = target.address.to_string();
        let told = agent::Settings {
            drain_within: Duration::from_millis(50),
            ..settings(address(server.address), None, "pi4", &[allowed.as_str()])
        };
        let (stop, stopped) = watch::channel(false);
        let agent = spawn_local(agent::run(told, Plain, Boot([1; 16]), stopped));
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        stop.send_replace(true);
        agent.await.expect("the agent ends");
        // The grace period of a lost connection is longer than this test may take, and the visitor has not read yet.
        until(|| server.endpoint.agents().is_empty()).await;
        assert!(is_reset(&mut stream).await);
        until(|| target.live.get() == 0).await;
    })
    .await;
}

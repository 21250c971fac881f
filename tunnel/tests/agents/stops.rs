//! An agent that stops although streams are open, and an endpoint that does.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tunnel::agent::{Settings, run};
use tunnel_core::hello::Boot;

use super::world::{Echo, Front, Plain, Running, Server, address, settings, until, within};
use super::{InUse, connect, echo, is_reset};

#[tokio::test]
async fn streams_that_are_left_when_an_agent_stops_are_reset_at_once_and_it_is_forgotten() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let allowed = target.address.to_string();
        let told = Settings {
            drain_within: Duration::from_millis(50),
            ..settings(address(server.address), None, "pi4", &[allowed.as_str()])
        };
        let (stop, stopped) = watch::channel(false);
        let agent = spawn_local(run(told, Plain, Boot([1; 16]), stopped));
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        stop.send_replace(true);
        agent.await.expect("the agent ends");
        // The grace period of a lost connection is longer than this test may take, and the client has not read yet.
        until(|| server.endpoint.agents().is_empty()).await;
        assert!(is_reset(&mut stream).await);
        until(|| target.live.get() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_stopped_once_more_waits_for_no_stream() {
    within(async {
        let InUse { server, target, agent, mut stream } = InUse::start().await;
        agent.stop.send_replace(true);
        server.is_left().await;
        echo(&mut stream, b"while the agent stops").await;
        let again = Instant::now();
        agent.stop.send_replace(true);
        assert!(is_reset(&mut stream).await);
        agent.task.await.expect("the agent ends");
        assert!(again.elapsed() < Duration::from_secs(5), "half of what its streams may take: {:?}", again.elapsed());
        until(|| target.live.get() == 0 && server.endpoint.agents().is_empty()).await;
    })
    .await;
}

#[tokio::test]
async fn streams_of_an_agent_that_nobody_can_stop_once_more_still_have_their_time() {
    within(async {
        let InUse { server, target: _target, agent: Running { stop, task }, mut stream } = InUse::start().await;
        drop(stop);
        server.is_left().await;
        echo(&mut stream, b"while the agent stops").await;
        stream.shutdown().await.expect("shut down");
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
        task.await.expect("the agent ends");
    })
    .await;
}

#[tokio::test]
async fn an_agent_whose_only_endpoint_drains_does_not_reconnect_without_a_pause() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let front = Front::start(server.address).await;
        let allowed = target.address.to_string();
        let told = Settings { chance: || 1.0, ..settings(address(front.address), None, "pi4", &[allowed.as_str()]) };
        let (_stop, stopped) = watch::channel(false);
        let _agent = spawn_local(run(told, Plain, Boot([1; 16]), stopped));
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        server.endpoint.drain();
        // It looks for another endpoint, and finds the same one.
        until(|| front.accepted.get() >= 2).await;
        let first = Instant::now();
        until(|| front.accepted.get() >= 4).await;
        let pauses = Duration::from_millis(200 + 600);
        assert!(first.elapsed() > pauses / 2, "two more attempts within {:?}", first.elapsed());
        echo(&mut stream, b"while the endpoint drains").await;
    })
    .await;
}

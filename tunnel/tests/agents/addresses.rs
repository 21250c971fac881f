//! An agent that knows several addresses of its server.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use tokio::{net::TcpListener, sync::watch, task::spawn_local};
use tunnel::agent::{Event, Observer, Settings, run_observed};
use tunnel_core::hello::Boot;

use super::world::{Front, Plain, Server, address, settings, until, within};

/// A load balancer without a server behind it, and how many connections it has closed.
async fn balancer() -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let closed = Rc::new(Cell::new(0));
    let count = closed.clone();
    spawn_local(async move {
        loop {
            drop(listener.accept().await.expect("a connection"));
            count.set(count.get() + 1);
        }
    });
    (at, closed)
}

#[tokio::test]
async fn an_address_that_accepts_and_leads_to_no_server_gives_way_to_the_next_one() {
    within(async {
        let server = Server::start(1).await;
        let front = Front::start(server.address).await;
        let (empty, closed) = balancer().await;
        let told = Settings {
            addresses: vec![address(empty), address(front.address)],
            ..settings(address(empty), None, "pi4", &["127.0.0.0/8:1-65535"])
        };
        let (_stop, stopped) = watch::channel(false);
        let connected = Rc::new(Cell::new(0));
        let count = connected.clone();
        let observer: Observer = Rc::new(move |event| {
            count.set(count.get() + usize::from(matches!(event, Event::Connected { .. })));
        });
        spawn_local(run_observed(told, Plain, Boot([1; 16]), stopped, observer));
        // The agent knows, too: a connection that is cut before it does has not led to a server.
        until(|| connected.get() == 1).await;
        front.cut();
        until(|| connected.get() == 2).await;
        server.has(1).await;
        assert_eq!(closed.get(), 1, "the agent begins where it found its server");
    })
    .await;
}

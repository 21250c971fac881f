//! The events that an agent reports.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::spawn_local,
};
use tunnel::agent::{Event, Observer, run_observed};
use tunnel_core::{Protocol, hello::Boot};

use super::{
    connect, echo,
    world::{Echo, Front, Plain, Server, UID, address, open, settings, until, within},
};

/// The name of an event.
fn word(event: &Event<'_>) -> &'static str {
    match event {
        Event::Connected { resumed: false, .. } => "connected",
        Event::Connected { resumed: true, .. } => "resumed",
        Event::NotConnected { .. } => "not connected",
        Event::Disconnected { pause: Some(_), .. } => "lost",
        Event::Disconnected { pause: None, .. } => "replaced",
        Event::Needed { .. } => "needed",
        Event::Ended { .. } => "ended",
        Event::Opened(_) => "opened",
        Event::Moved { .. } => "moved",
        Event::Closed { relayed: Some(relayed), .. } if relayed.to_socket == relayed.from_socket => "closed",
        Event::Closed { .. } => "dropped",
        Event::Refused { .. } => "refused",
        Event::Dropped { .. } => "datagrams dropped",
        Event::Draining => "draining",
        Event::Cut(_) => "cut",
    }
}

#[tokio::test]
async fn what_happens_is_told_at_once_and_once_each() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let front = Front::start(server.address).await;
        let told = Rc::new(RefCell::new(Vec::new()));
        let all = told.clone();
        let moved = Rc::new(Cell::new((0_u64, 0_u64)));
        let sum = moved.clone();
        let observer: Observer = Rc::new(move |event: &Event<'_>| match event {
            Event::Moved { to_target, from_target } => sum.set((sum.get().0 + to_target, sum.get().1 + from_target)),
            _ => all.borrow_mut().push(word(event)),
        });
        let has = |count: usize| {
            let told = told.clone();
            until(move || told.borrow().len() >= count)
        };
        let allowed = target.address.to_string();
        let settings = settings(address(front.address), None, "pi4", &[allowed.as_str()]);
        let (stop, stopped) = watch::channel(false);
        let agent = spawn_local(run_observed(settings, Plain, Boot([1; 16]), stopped, observer));
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        assert_eq!(moved.get(), (6, 6), "bytes are reported while their stream is open");
        server.endpoint.open(UID, &open(Protocol::Tcp, "127.0.0.1", 1)).await.expect_err("not allowed");
        has(3).await;
        front.cut();
        has(5).await;
        echo(&mut stream, b"after").await;
        stream.shutdown().await.expect("shut down");
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
        has(6).await;
        stop.send_replace(true);
        agent.await.expect("the agent ends");
        let expected = ["connected", "opened", "refused", "lost", "resumed", "closed", "draining"];
        assert_eq!(told.borrow()[..expected.len()], expected);
    })
    .await;
}

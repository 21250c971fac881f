//! How an agent handles the datagrams of flows.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{net::UdpSocket, sync::watch, task::spawn_local, time::timeout};
use tunnel::{
    Flow, OpenError,
    agent::{Drops, Event, Observer, run_observed},
};
use tunnel_core::{
    Protocol, Reason, Refusal,
    hello::{Boot, Instance},
};

use super::world::{Plain, Server, UID, address, agent, open, settings, until, within};

/// Sends every datagram back.
async fn echo(socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
        socket.send_to(&buffer[..length], from).await.expect("sent");
    }
}

/// Counts the datagrams that an agent drops for this reason.
fn counted(wanted: Drops) -> (Rc<Cell<u64>>, Observer) {
    let dropped = Rc::new(Cell::new(0));
    let count = dropped.clone();
    let observer = move |event: &Event<'_>| match event {
        Event::Dropped { reason, count: more } if *reason == wanted => count.set(count.get() + more),
        _ => {}
    };
    (dropped, Rc::new(observer))
}

/// Sends datagrams until one is echoed.
async fn ask(flow: &Flow) -> Vec<u8> {
    loop {
        flow.send(b"?");
        if let Ok(answer) = timeout(Duration::from_millis(20), flow.recv()).await {
            return answer.expect("the flow continues");
        }
    }
}

#[tokio::test]
async fn the_first_datagram_of_a_flow_reaches_the_target_whatever_its_length() {
    within(async {
        let server = Server::start(1).await;
        let _agent = agent(server.address, "pi4", 1);
        server.has(1).await;
        let target = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let to = open(Protocol::Udp, "127.0.0.1", target.local_addr().expect("an address").port());
        spawn_local(echo(target));
        let instance = Instance::new("pi4").expect("an instance");
        for length in [0, 1, 1200, 65_507] {
            let flow = server.endpoint.begin_flow_on(UID, &instance, &to).expect("a flow");
            let datagram = vec![7; length];
            // The datagram does not wait for the answer of the agent.
            flow.send(&datagram);
            assert_eq!(flow.answered().await, Ok(()));
            assert!(flow.recv().await == Some(datagram), "{length} bytes");
        }
        assert!(!server.endpoint.has_another(UID, "pi4") && server.endpoint.has_another(UID, "pi5"));
        assert_eq!(server.endpoint.dropped_datagrams(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_flow_that_the_agent_refuses_says_why_and_the_datagrams_before_that_are_counted() {
    within(async {
        let server = Server::start(1).await;
        let (dropped, observer) = counted(Drops::Waited);
        let settings = settings(address(server.address), None, "pi4", &["127.0.0.1:1-65535"]);
        let (_stop, stopped) = watch::channel(false);
        spawn_local(run_observed(settings, Plain, Boot([1; 16]), stopped, observer));
        server.has(1).await;
        let (to, instance) = (open(Protocol::Udp, "127.0.0.1", 53), Instance::new("pi4").expect("an instance"));
        let flow = server.endpoint.begin_flow_on(UID, &instance, &to).expect("a flow");
        flow.send(b"early");
        let refused = flow.answered().await;
        let is_told = |refusal: &Refusal| {
            refusal.reason == Reason::NotAllowed && refusal.detail.contains("--allow udp/127.0.0.1:53")
        };
        assert!(matches!(&refused, Err(OpenError::Refused(refusal)) if is_told(refusal)), "{refused:?}");
        until(|| dropped.get() == 1).await;
    })
    .await;
}

#[tokio::test]
async fn what_a_target_refuses_is_counted_and_the_flow_goes_on_when_the_target_is_there() {
    within(async {
        let server = Server::start(1).await;
        let (refused, observer) = counted(Drops::Refused);
        let settings = settings(address(server.address), None, "pi4", &["udp/127.0.0.1:1-65535"]);
        let (_stop, stopped) = watch::channel(false);
        spawn_local(run_observed(settings, Plain, Boot([1; 16]), stopped, observer));
        server.has(1).await;
        let free = UdpSocket::bind("127.0.0.1:0").await.and_then(|socket| socket.local_addr()).expect("a port");
        let to = open(Protocol::Udp, "127.0.0.1", free.port());
        let flow = server.endpoint.open_flow(UID, &to).await.expect("a flow");
        flow.send(b"nobody is there");
        until(|| refused.get() > 0).await;
        spawn_local(echo(UdpSocket::bind(free).await.expect("the port is free again")));
        assert_eq!(ask(&flow).await, b"?");
    })
    .await;
}

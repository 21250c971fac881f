//! An agent and an endpoint on loopback, with a bad network between them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::UdpSocket;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use tunnel::{Flow, Stream};
use tunnel_core::hello::Instance;
use tunnel_core::{MAX_DATAGRAM, Protocol};

use super::bytes::{exchange, pattern};
use super::relay::{Gate, Impairment, QUICK};
use super::world::{Echo, Running, Server, UID, agent, open, to, until, within};

const STEP: Duration = Duration::from_millis(100);

/// Streams that exchange 250,000 bytes each with a target, through a slow network between the agent and its endpoint.
struct Exchanges {
    gate: Gate,
    target: Echo,
    /// The hashes of what each has written and read.
    streams: JoinSet<[Vec<u8>; 2]>,
    _server: Server,
    _agent: Running,
}

impl Exchanges {
    async fn start(count: u64) -> Self {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let slow = Impairment { delay: Duration::from_millis(20), speed: 2000, part: 4096 };
        let gate = Gate::start(server.address, slow).await;
        let agent = agent(gate.address, "pi4", 1);
        server.has(1).await;
        let mut streams = JoinSet::new();
        for seed in 0..count {
            let stream = server.endpoint.open(UID, &to(target.address)).await.expect("a stream");
            streams.spawn_local(exchange(stream, seed, 250_000));
        }
        Self { gate, target, streams, _server: server, _agent: agent }
    }

    /// What comes back is what was written, and then no stream is left.
    async fn are_whole(self) {
        for [written, read] in self.streams.join_all().await {
            assert_eq!(written, read, "what comes back is what was written");
        }
        until(|| self.target.live.get() == 0).await;
    }
}

#[tokio::test]
async fn streams_are_whole_over_a_network_that_delays_limits_freezes_thaws_and_resets() {
    within(async {
        let exchanges = Exchanges::start(8).await;
        let gate = &exchanges.gate;
        for _ in 0..4 {
            sleep(STEP).await;
            gate.freeze(true);
            sleep(STEP).await;
            gate.freeze(false);
            sleep(STEP).await;
            let before = gate.accepted.get();
            gate.reset();
            until(|| gate.accepted.get() > before).await;
        }
        exchanges.are_whole().await;
    })
    .await;
}

#[tokio::test]
async fn streams_are_whole_after_an_agent_has_moved_to_another_address_of_which_its_endpoint_is_not_told() {
    within(async {
        let exchanges = Exchanges::start(4).await;
        let gate = &exchanges.gate;
        // The bytes take half a second.
        sleep(STEP).await;
        gate.freeze(true);
        let before = gate.accepted.get();
        let _silent = gate.move_clients(Ipv4Addr::new(127, 0, 0, 9));
        until(|| gate.accepted.get() > before).await;
        exchanges.are_whole().await;
    })
    .await;
}

/// A target that sends each datagram back, and the ports that it has seen.
async fn udp_echo() -> (SocketAddr, Rc<RefCell<BTreeSet<u16>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let ports = Rc::new(RefCell::new(BTreeSet::new()));
    let seen = ports.clone();
    spawn_local(async move {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
            seen.borrow_mut().insert(from.port());
            socket.send_to(&buffer[..length], from).await.expect("sent");
        }
    });
    (address, ports)
}

/// Sends bytes for ever, and counts the echo.
fn bulk(stream: Stream) -> Rc<Cell<usize>> {
    let (mut reader, mut writer) = split(stream);
    let moved = Rc::new(Cell::new(0));
    let count = moved.clone();
    spawn_local(async move {
        let part = vec![7; 64 * 1024];
        while writer.write_all(&part).await.is_ok() {}
    });
    spawn_local(async move {
        let mut part = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut part).await {
            count.set(count.get() + length);
        }
    });
    moved
}

/// Sends a datagram until it is echoed: one may be lost.
async fn exchange_datagram(flow: &Flow, length: usize) {
    let whole = |length: usize| pattern(length as u64, length);
    loop {
        flow.send(&whole(length));
        let Ok(answer) = timeout(STEP, flow.recv()).await else { continue };
        let answer = answer.expect("the flow lives");
        // It may be the second answer to an earlier datagram.
        assert!(answer == whole(answer.len()), "{} bytes come back whole", answer.len());
        if answer.len() == length {
            return;
        }
    }
}

#[tokio::test]
async fn a_flow_beside_bulk_keeps_its_port_and_whole_datagrams_over_other_carriers() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let gate = Gate::start(server.address, QUICK).await;
        let _agent = agent(gate.address, "pi4", 1);
        server.has(1).await;
        let stream = server.endpoint.open(UID, &to(target.address)).await.expect("a stream");
        let moved = bulk(stream);
        let (address, ports) = udp_echo().await;
        let request = open(Protocol::Udp, "127.0.0.1", address.port());
        let flow = server.endpoint.open_flow(UID, &request).await.expect("a flow");
        for length in [0, 1, 1400, MAX_DATAGRAM] {
            exchange_datagram(&flow, length).await;
            let (connections, bytes) = (gate.accepted.get(), moved.get());
            gate.reset();
            until(|| gate.accepted.get() > connections && moved.get() > bytes).await;
        }
        exchange_datagram(&flow, MAX_DATAGRAM).await;
        assert_eq!(ports.borrow().len(), 1, "the target saw one port");
    })
    .await;
}

#[tokio::test]
async fn a_visitor_that_never_reads_holds_up_no_other() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let _agent = agent(server.address, "pi4", 1);
        server.has(1).await;
        let mut silent = server.endpoint.open(UID, &to(target.address)).await.expect("a stream");
        let stuck = spawn_local(async move { silent.write_all(&vec![0; 64 * 1024 * 1024]).await });
        let mut others = JoinSet::new();
        for seed in 0..63 {
            let stream = server.endpoint.open(UID, &to(target.address)).await.expect("a stream");
            others.spawn_local(exchange(stream, seed, 100_000));
        }
        let hashes = others.join_all().await;
        assert_eq!(hashes.iter().filter(|[written, read]| written == read).count(), 63);
        assert!(!stuck.is_finished(), "a full window is no failure");
        until(|| server.streams() == [1]).await;
    })
    .await;
}

async fn open_on(server: &Server, instance: &str, target: &Echo) -> Stream {
    let instance = Instance::new(instance).expect("a name");
    server.endpoint.open_on(UID, &instance, &to(target.address)).await.expect("a stream")
}

#[tokio::test]
async fn a_connection_that_stands_still_holds_up_the_streams_of_its_own_instance_alone() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let gate = Gate::start(server.address, QUICK).await;
        let _still = agent(gate.address, "still", 1);
        let _moving = agent(server.address, "moving", 2);
        server.has(2).await;
        let stuck = open_on(&server, "still", &target).await;
        let others = [open_on(&server, "moving", &target).await, open_on(&server, "moving", &target).await];
        gate.freeze(true);
        let stuck = spawn_local(exchange(stuck, 1, 250_000));
        let mut exchanges = JoinSet::new();
        for (stream, seed) in others.into_iter().zip(2..) {
            exchanges.spawn_local(exchange(stream, seed, 250_000));
        }
        let hashes = exchanges.join_all().await;
        assert!(hashes.iter().all(|[written, read]| written == read));
        assert!(!stuck.is_finished(), "nothing passes the connection that stands still");
        gate.freeze(false);
        let [written, read] = stuck.await.expect("no panic");
        assert_eq!(written, read, "it goes on");
    })
    .await;
}

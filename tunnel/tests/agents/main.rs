//! Agents and an endpoint over loopback.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod addresses;
mod attendance;
mod changes;
mod denials;
mod events;
mod flows;
mod rates;
mod sidecars;
mod stops;
mod turned_away;
#[cfg(target_os = "linux")]
mod unsent;
mod world;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, interval, timeout};
use tunnel::endpoint::Unopened;
use tunnel::proxy_connect::Proxy;
use tunnel::{OpenError, Stream};
use tunnel_core::door::PER_SOURCE;
use tunnel_core::join::Address;
use tunnel_core::registry::Policy;
use tunnel_core::{Protocol, Reason};

use world::{Echo, Front, Running, Server, UID, address, agent, open, start_agent, to, until, within};

/// Sends `text` and reads the echo.
async fn echo(stream: &mut Stream, text: &[u8]) {
    stream.write_all(text).await.expect("written");
    let mut read = vec![0; text.len()];
    stream.read_exact(&mut read).await.expect("read");
    assert_eq!(read, text);
}

async fn connect(server: &Server, at: SocketAddr) -> Stream {
    server.endpoint.open(UID, &to(at)).await.expect("a stream")
}

/// An agent in use: a stream through it has carried bytes.
struct InUse {
    server: Server,
    target: Echo,
    agent: Running,
    stream: Stream,
}

impl InUse {
    async fn start() -> Self {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let agent = agent(server.address, "pi4", 1);
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        Self { server, target, agent, stream }
    }
}

async fn is_reset(stream: &mut Stream) -> bool {
    stream.read_u8().await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn an_agent_that_restarts_has_its_old_streams_reset_at_once() {
    within(async {
        let InUse { server, target, agent: first, stream: mut old } = InUse::start().await;
        first.kill();
        server.has(0).await;
        // The session waits for its agent, which no longer knows it.
        assert_eq!(server.streams(), [1]);
        let _second = agent(server.address, "pi4", 2);
        server.has(1).await;
        // The streams ended with the session that the second process has replaced, before its connection is there.
        assert_eq!(timeout(Duration::ZERO, is_reset(&mut old)).await, Ok(true));
        echo(&mut connect(&server, target.address).await, b"after").await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_restarts_frees_the_targets_of_its_old_streams() {
    within(async {
        let (first, target) = (Server::start(1).await, Echo::start().await);
        let front = Front::start(first.address).await;
        let _agent = agent(front.address, "pi4", 1);
        first.has(1).await;
        let mut old = connect(&first, target.address).await;
        echo(&mut old, b"before").await;
        assert_eq!(target.live.get(), 1);
        let second = Server::start(2).await;
        front.to.set(second.address);
        first.kill();
        front.cut();
        second.has(1).await;
        until(|| target.live.get() == 0).await;
        echo(&mut connect(&second, target.address).await, b"after").await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_goes_on_over_another_connection() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let front = Front::start(server.address).await;
        let _agent = agent(front.address, "pi4", 1);
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        front.cut();
        until(|| front.accepted.get() >= 2).await;
        echo(&mut stream, b"after").await;
    })
    .await;
}

#[tokio::test]
async fn instances_share_the_streams_and_take_over_for_each_other() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let one = agent(server.address, "one", 1);
        let _two = agent(server.address, "two", 2);
        server.has(2).await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(connect(&server, target.address).await);
        }
        assert_eq!(server.streams(), [2, 2]);
        one.kill();
        server.has(1).await;
        for _ in 0..2 {
            let mut stream = connect(&server, target.address).await;
            echo(&mut stream, b"taken over").await;
            streams.push(stream);
        }
        assert_eq!(server.streams(), [2, 4]);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_one_instance_refuses_goes_to_the_next() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let _strict = start_agent(address(server.address), None, "a-strict", 1, &["127.0.0.1:1"]);
        let _other = agent(server.address, "other", 2);
        server.has(2).await;
        for _ in 0..3 {
            echo(&mut connect(&server, target.address).await, b"served").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_target_outside_either_list_is_refused_with_the_remedy() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let _agent = start_agent(address(server.address), None, "pi4", 1, &["127.0.0.1:1"]);
        server.has(1).await;
        let refused = server.endpoint.open(UID, &to(target.address)).await.expect_err("refused");
        let Unopened::Agent(OpenError::Refused(refusal)) = refused else { panic!("{refused}") };
        assert_eq!(refusal.reason, Reason::NotAllowed);
        let remedy = format!("start it with --allow {}", target.address);
        assert!(refusal.detail.ends_with(&remedy), "{}", refusal.detail);

        let outside = open(Protocol::Tcp, "10.0.0.1", 80);
        let refused = server.endpoint.open(UID, &outside).await.expect_err("refused").to_string();
        assert!(refused.ends_with("does not list 10.0.0.1:80: add it"), "{refused}");
        assert_eq!(target.live.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_refused_with_the_name_and_the_remedy() {
    within(async {
        let server = Server::start(1).await;
        let _agent = agent(server.address, "pi4", 1);
        server.has(1).await;
        let nowhere = open(Protocol::Tcp, "nowhere.invalid", 80);
        let refused = server.endpoint.open(UID, &nowhere).await.expect_err("refused");
        let Unopened::Agent(OpenError::Refused(refusal)) = refused else { panic!("{refused}") };
        assert_eq!(refusal.reason, Reason::UnknownName);
        let told = "the agent's machine cannot resolve nowhere.invalid: check the name and its resolver";
        assert_eq!(refusal.detail, told);
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_not_connected_is_told() {
    within(async {
        let server = Server::start(1).await;
        let to = open(Protocol::Tcp, "127.0.0.1", 80);
        assert_eq!(server.endpoint.open(UID, &to).await.expect_err("nobody"), Unopened::NoInstance);
        let unknown = server.endpoint.open("b", &to).await.expect_err("unknown");
        assert_eq!(unknown, Unopened::Unknown("b".to_owned()));
    })
    .await;
}

/// The byte of stream `index` at `position`.
fn byte(index: u64, position: u64) -> u8 {
    (position.wrapping_mul(131) ^ (position >> 9) ^ index.wrapping_mul(7919)).to_le_bytes()[0]
}

/// Writes until `done`, reads the echo, and returns its length.
async fn echo_until(stream: Stream, index: u64, done: watch::Receiver<bool>) -> u64 {
    let (mut reader, mut writer) = split(stream);
    let write = async move {
        let mut position = 0;
        while !*done.borrow() {
            let chunk: Vec<u8> = (position..position + 1500).map(|at| byte(index, at)).collect();
            writer.write_all(&chunk).await.expect("written");
            position += 1500;
        }
        writer.shutdown().await.expect("shut down");
        position
    };
    let read = async move {
        let (mut position, mut buffer) = (0, vec![0; 16 * 1024]);
        loop {
            let count = reader.read(&mut buffer).await.expect("read");
            if count == 0 {
                return position;
            }
            for value in &buffer[..count] {
                assert_eq!(*value, byte(index, position), "stream {index} at {position}");
                position += 1;
            }
        }
    };
    let (written, read) = tokio::join!(write, read);
    assert_eq!(written, read);
    read
}

#[tokio::test]
async fn sixteen_streams_are_whole_over_connections_that_are_cut_every_tenth_of_a_second() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let front = Front::start(server.address).await;
        let _agent = agent(front.address, "pi4", 1);
        server.has(1).await;
        let (done, is_done) = watch::channel(false);
        let mut streams = JoinSet::new();
        for index in 0..16 {
            let stream = connect(&server, target.address).await;
            streams.spawn_local(echo_until(stream, index, is_done.clone()));
        }
        let start = Instant::now();
        let mut ticks = interval(Duration::from_millis(100));
        while start.elapsed() < Duration::from_secs(3) {
            ticks.tick().await;
            front.cut();
        }
        done.send_replace(true);
        let read = streams.join_all().await;
        assert!(read.len() == 16 && read.iter().all(|bytes| *bytes > 0), "{read:?}");
        until(|| target.live.get() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_flow_keeps_its_port_at_the_target_over_another_connection() {
    within(async {
        let server = Server::start(1).await;
        let front = Front::start(server.address).await;
        let _agent = agent(front.address, "pi4", 1);
        server.has(1).await;
        // The target answers with the source port that it sees.
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let target = socket.local_addr().expect("an address");
        spawn_local(async move {
            let mut buffer = [0; 16];
            loop {
                let (_, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
                socket.send_to(&from.port().to_be_bytes(), from).await.expect("sent");
            }
        });
        let to = open(Protocol::Udp, "127.0.0.1", target.port());
        let flow = server.endpoint.open_flow(UID, &to).await.expect("a flow");
        let port = async || loop {
            // A datagram may be lost.
            flow.send(b"?");
            if let Ok(port) = timeout(Duration::from_millis(50), flow.recv()).await {
                return port.expect("an answer");
            }
        };
        let before = port().await;
        front.cut();
        until(|| front.accepted.get() >= 2).await;
        assert_eq!(port().await, before);
    })
    .await;
}

/// An HTTP CONNECT proxy that asks for credentials, and resolves every name to `to`.
async fn proxy(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let mut near = BufReader::new(tcp);
            let (mut request, mut line) = (String::new(), String::new());
            while line != "\r\n" {
                line.clear();
                assert!(near.read_line(&mut line).await.expect("a line") > 0, "{request}");
                request.push_str(&line);
            }
            assert!(request.starts_with("CONNECT endpoint.invalid:7443 HTTP/1.1\r\n"), "{request}");
            // user:secret
            assert!(request.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{request}");
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("written");
            let mut far = TcpStream::connect(to).await.expect("connected");
            spawn_local(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    address
}

#[tokio::test]
async fn an_agent_behind_a_proxy_leaves_the_name_of_the_endpoint_to_it() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let url = format!("http://user:secret@{}", proxy(server.address).await);
        let endpoint = Address::new("endpoint.invalid", 7443).expect("an address");
        let proxy = Proxy::parse(&url).expect("a proxy");
        let _agent = start_agent(endpoint, Some(proxy), "pi4", 1, &["127.0.0.0/8:1-65535"]);
        server.has(1).await;
        echo(&mut connect(&server, target.address).await, b"through a proxy").await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_stops_lets_its_streams_end_and_is_forgotten() {
    within(async {
        let InUse { server, target, agent, mut stream } = InUse::start().await;
        agent.stop.send_replace(true);
        server.is_left().await;
        assert!(matches!(server.endpoint.open(UID, &to(target.address)).await, Err(Unopened::Agent(_))));
        echo(&mut stream, b"while the agent stops").await;
        assert!(!agent.task.is_finished());
        stream.shutdown().await.expect("shut down");
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
        agent.task.await.expect("the agent ends");
        until(|| server.endpoint.agents().is_empty()).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_revoked_loses_its_session_and_stays_away() {
    within(async {
        let InUse { server, target, agent: _agent, mut stream } = InUse::start().await;
        let policy = server.policy.get();
        server.policy.set(Policy { rotation: 2, ..policy });
        server.endpoint.review();
        assert!(is_reset(&mut stream).await);
        until(|| target.live.get() == 0).await;
        assert!(server.endpoint.agents().is_empty() && server.endpoint.closed().contains_key("revoked"));
        server.policy.set(policy);
        server.has(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_the_connection_that_was_silent_for_the_longest() {
    within(async {
        let server = Server::start(1).await;
        let mut silent = Vec::new();
        for _ in 0..=PER_SOURCE {
            silent.push(TcpStream::connect(server.address).await.expect("connected"));
        }
        let closed = timeout(Duration::from_secs(3), silent[0].read(&mut [0])).await.expect("closed in time");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        assert_eq!(server.endpoint.closed().get("evicted"), Some(&1));
        let _agent = agent(server.address, "pi4", 1);
        server.has(1).await;
    })
    .await;
}

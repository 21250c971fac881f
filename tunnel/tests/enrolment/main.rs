//! Enrolment, renewal and revocation over loopback, with TLS.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod addresses;
#[path = "../agents/world.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod agents;
mod clocks;
mod peers;
mod sidecars;
mod world;

use std::fs::{Permissions, set_permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{advance, pause, resume};
use tunnel::agent::Connector;
use tunnel::endpoint::Authenticator;
use tunnel::enrol::{EnrolError, Renewal, enrol, renew};
use tunnel::handshake::PATIENCE;
use tunnel::identity::agent::{AgentFolder, Enrolled};
use tunnel::identity::tls::{AgentFailure, agent_config, enrolment_config};
use tunnel::secure::{AgentStream, AgentTls};
use tunnel_core::door::{PER_SOURCE, STRANGERS};
use tunnel_core::enrolment::{Enrol, EnrolReason, Outcome, Proof};
use tunnel_core::hello::{Boot, Hello, Instance, VERSIONS};
use tunnel_core::identity::{Dial, EndpointId};
use tunnel_core::join::JoinError;
use tunnel_core::registry::Policy;

use world::{
    Clock, DAY, HOUR, Home, LIFETIME, NOW, Server, address, echo, echo_server, identity, start_agent, until, way,
    within,
};

/// Enrols an agent with the token of this number.
async fn enrolled(server: &Server, home: &Home, number: u8) -> Enrolled {
    let join = server.join(number, 0);
    enrol(&join, &home.folder, &way(&server.clock)).await.expect("enrolled")
}

/// The error of an agent that does not enrol.
async fn refused(join: &str, server: &Server, home: &Home) -> String {
    enrol(join, &home.folder, &way(&server.clock)).await.expect_err("refused").to_string()
}

async fn connect(server: &Server, tls: &AgentTls) -> io::Result<AgentStream> {
    let tcp = TcpStream::connect(server.address).await.expect("connected");
    tls.secure(tcp, &Dial::Any).await
}

/// A client without a certificate.
async fn stranger(server: &Server) -> AgentStream {
    let config = enrolment_config(server.authority.fingerprint(), server.clock.clone()).expect("usable");
    connect(server, &AgentTls::new(config)).await.expect("TLS")
}

/// The error that the owner of an agent sees when its connection is not accepted. With TLS 1.3 it may come with the
/// first bytes.
async fn failure(server: &Server, tls: &AgentTls) -> String {
    match connect(server, tls).await {
        Ok(mut stream) => stream.read_u8().await.expect_err("refused").to_string(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_agent_gets_from_a_join_string_to_a_stream() {
    within(async {
        let (server, target, home) = (Server::start(), echo_server().await, Home::new());
        let enrolled = enrolled(&server, &home, 1).await;
        assert_eq!((&enrolled.identity, &enrolled.root), (&identity(0), server.authority.root()));
        assert_eq!(enrolled.not_after, NOW + LIFETIME);
        assert_eq!(home.kept(NOW), enrolled);
        let _agent = start_agent(&server, &home.tls(&enrolled, &server.clock));
        server.has(1).await;
        echo(&mut server.stream(target).await, b"over TLS").await;
        assert!(server.endpoint.closed().is_empty(), "{:?}", server.endpoint.closed());
    })
    .await;
}

#[tokio::test]
async fn a_token_enrols_one_agent_and_the_second_is_told() {
    within(async {
        let (server, home, thief) = (Server::start(), Home::new(), Home::new());
        let join = server.join(1, 0);
        enrol(&join, &home.folder, &way(&server.clock)).await.expect("enrolled");
        let told = refused(&join, &server, &thief).await;
        assert!(told.contains("was redeemed before") && told.contains("revoke the agent"), "{told}");
        until(|| server.closed("handshake") == 1).await;
        // The first agent may have lost the answer.
        enrol(&join, &home.folder, &way(&server.clock)).await.expect("the same key again");
    })
    .await;
}

#[tokio::test]
async fn an_expired_join_string_is_told_by_whose_clock() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let join = server.join(1, 0);
        let late = enrol(&join, &home.folder, &way(&Clock::at(NOW + 2 * HOUR))).await.expect_err("expired").to_string();
        assert!(late.contains("expired 60 minutes ago by the clock of this machine"), "{late}");
        server.clock.set(NOW + HOUR + 60);
        let slow = way(&Clock::at(NOW + HOUR - 60));
        let late = enrol(&join, &home.folder, &slow).await.expect_err("expired").to_string();
        assert!(late.starts_with("the server refused: ") && late.contains("has expired"), "{late}");
    })
    .await;
}

#[tokio::test]
async fn a_join_string_that_was_cut_or_is_of_another_server_is_told_apart() {
    within(async {
        let (server, other, home) = (Server::start(), Server::start(), Home::new());
        let join = server.join(1, 0);
        let cut = enrol(&join[..join.len() - 3], &home.folder, &way(&server.clock)).await;
        assert!(matches!(cut, Err(EnrolError::Join(JoinError::Cut))), "{cut:?}");
        let strange = enrol(&server.join_string(other.address, 1), &home.folder, &way(&server.clock)).await;
        let Err(EnrolError::At { address: at, error }) = &strange else { panic!("{strange:?}") };
        assert!(matches!(**error, EnrolError::Failed(AgentFailure::OtherServer)), "{error:?}");
        assert_eq!(*at, address(other.address), "the address that is wrong");
        until(|| other.closed("handshake") == 1).await;
        let unknown = refused(&server.join_string(server.address, 9), &server, &home).await;
        assert!(unknown.contains("did not issue the token"), "{unknown}");
        enrol(&join, &home.folder, &way(&server.clock)).await.expect("the token was not used up");
    })
    .await;
}

#[tokio::test]
async fn a_stranger_that_does_not_enrol_has_no_session_and_is_closed_after_its_time() {
    within(async {
        let server = Server::start();
        let mut greeting = stranger(&server).await;
        let hello = Hello {
            versions: VERSIONS,
            boot: Boot([9; 16]),
            epoch: 1,
            instance: Instance::new("pi4").expect("an instance"),
            program: "0.9.0".to_owned(),
            sessions: Vec::new(),
        };
        greeting.write_all(&hello.frame()).await.expect("written");
        greeting.flush().await.expect("sent");
        assert!(greeting.read_u8().await.is_err());
        assert_eq!(server.closed("handshake"), 1);

        let mut silent = stranger(&server).await;
        pause();
        advance(PATIENCE + Duration::from_secs(1)).await;
        resume();
        assert!(silent.read_u8().await.is_err());
        assert_eq!(server.closed("timeout"), 1);
        assert!(server.endpoint.agents().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_connection_has_one_answer_and_renews_nothing_without_a_certificate() {
    within(async {
        let server = Server::start();
        let mut client = stranger(&server).await;
        let frame = Enrol { proof: Proof::Certificate, request: vec![0; 10] }.frame();
        client.write_all(&frame.repeat(2)).await.expect("written");
        client.flush().await.expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an answer and its end");
        let Ok(Some((Outcome::Refused(refusal), length))) = Outcome::read(&answer) else { panic!("{answer:?}") };
        assert_eq!((refusal.reason, length), (EnrolReason::Agent, answer.len()));
        assert!(refusal.detail.contains("enrol with a join string"), "{refusal}");
    })
    .await;
}

#[tokio::test]
async fn an_agent_of_another_root_is_told_by_the_end_that_finds_out() {
    within(async {
        let (server, other, home) = (Server::start(), Server::start(), Home::new());
        let enrolled = enrolled(&other, &home, 1).await;
        let told = failure(&server, &home.tls(&enrolled, &server.clock)).await;
        assert!(
            told.contains("is not the one that this agent trusts") && told.contains("join string of this server"),
            "{told}"
        );
        let confused = Enrolled { root: server.authority.root().clone(), ..enrolled };
        let told = failure(&server, &home.tls(&confused, &server.clock)).await;
        assert!(told.contains("refuses the certificate of this agent: enrol again"), "{told}");
        until(|| server.closed("handshake") == 2).await;
        let told = server.endpoint.notices();
        assert!(told.len() == 1 && told[0].message.contains("was issued by another server"), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_no_stream_is_lost() {
    within(async {
        let (server, target, home) = (Server::start(), echo_server().await, Home::new());
        let first = enrolled(&server, &home, 1).await;
        let tls = home.tls(&first, &server.clock);
        let _agent = start_agent(&server, &tls);
        let renewal = Renewal {
            folder: home.folder.clone(),
            addresses: vec![address(server.address)],
            way: way(&server.clock),
            chance: || 0.0,
            look: Duration::from_millis(2),
        };
        let from = first.clone();
        spawn_local(async move { renewal.run(&tls, from).await });
        server.has(1).await;
        let mut stream = server.stream(target).await;
        echo(&mut stream, b"before").await;
        assert_eq!(home.kept(NOW), first, "not before half of the lifetime");
        server.clock.set(NOW + 4 * DAY);
        until(|| home.kept(server.clock.now()).not_after == NOW + 4 * DAY + LIFETIME).await;
        echo(&mut stream, b"on the same connection").await;
        // The first certificate has expired, and the second is not due.
        server.clock.set(NOW + LIFETIME + HOUR);
        server.cut();
        echo(&mut stream, b"on one of the new certificate").await;
        assert!(server.endpoint.closed().is_empty(), "{:?}", server.endpoint.closed());
    })
    .await;
}

#[tokio::test]
async fn an_exposed_key_or_folder_is_refused_before_the_token_is_used() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let join = server.join(1, 0);
        home.folder.key().expect("a key");
        let key = home.path().join("key.pem");
        set_permissions(&key, Permissions::from_mode(0o644)).expect("chmod");
        let told = refused(&join, &server, &home).await;
        assert!(told.contains("chmod 600") && told.contains("key.pem"), "{told}");
        set_permissions(home.path(), Permissions::from_mode(0o777)).expect("chmod");
        let told = AgentFolder::open(&home.path()).expect_err("exposed").to_string();
        assert!(told.contains("chmod 700"), "{told}");
        set_permissions(&key, Permissions::from_mode(0o600)).expect("chmod");
        enrol(&join, &home.folder, &way(&server.clock)).await.expect("enrolled");
    })
    .await;
}

#[tokio::test]
async fn three_hundred_strangers_are_bounded_and_an_agent_connects() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let enrolled = enrolled(&server, &home, 1).await;
        let mut strangers = Vec::new();
        for number in 0..300 {
            // Each source has its maximum, so that the bound on all sources is reached.
            let source = 1 + number / PER_SOURCE;
            let socket = TcpSocket::new_v4().expect("a socket");
            let from: SocketAddr = format!("127.0.1.{source}:0").parse().expect("an address");
            socket.bind(from).expect("bound");
            strangers.push(socket.connect(server.address).await.expect("connected"));
        }
        let beyond = u64::try_from(strangers.len() - STRANGERS).expect("few");
        until(|| server.closed("evicted") == beyond).await;
        let _agent = start_agent(&server, &home.tls(&enrolled, &server.clock));
        server.has(1).await;
        assert_eq!(server.endpoint.agents().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_agent_of_an_earlier_rotation_is_refused_until_it_enrols_with_a_newer_token() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let first = enrolled(&server, &home, 1).await;
        let tls = home.tls(&first, &server.clock);
        let _agent = start_agent(&server, &tls);
        server.has(1).await;
        let old = server.join(2, 0);
        server.policy.set(Policy { rotation: 1, ..server.policy.get() });
        server.endpoint.review();
        server.has(0).await;
        until(|| server.closed("revoked") > 0).await;

        let addresses = [address(server.address)];
        let renewed = renew(&first, &home.folder, &addresses, &way(&server.clock)).await;
        let told = renewed.expect_err("refused").to_string();
        assert!(told.contains("revoked by rotation 1") && told.contains("new join string"), "{told}");
        let told = refused(&old, &server, &home).await;
        assert!(told.contains("revoked by rotation 1"), "{told}");

        let next = enrol(&server.join(3, 1), &home.folder, &way(&server.clock)).await.expect("enrolled");
        assert_eq!(next.identity, identity(1));
        let key = home.folder.key().expect("a key");
        tls.replace(agent_config(&key, &next, server.clock.clone()).expect("usable"));
        server.has(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_jumps_by_a_day_ends_no_connection_that_is_there() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let enrolled = enrolled(&server, &home, 1).await;
        let clock = Clock::at(NOW);
        let _agent = start_agent(&server, &home.tls(&enrolled, &clock));
        server.has(1).await;
        let mut stream = server.stream(echo_server().await).await;
        for now in [NOW + DAY, NOW - DAY] {
            clock.set(now);
            server.clock.set(now);
            echo(&mut stream, b"still here").await;
        }
        assert_eq!(server.closed("handshake"), 0, "no other connection was needed");
    })
    .await;
}

#[tokio::test]
async fn an_agent_leaves_an_endpoint_that_answers_in_place_of_another_one() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let enrolled = enrolled(&server, &home, 1).await;
        let tls = home.tls(&enrolled, &server.clock);
        // It ignores which endpoint clients dial.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let careless = server.tls();
        spawn_local(async move {
            let (tcp, _) = listener.accept().await.expect("an agent");
            drop(careless.authenticate(tcp).await);
        });
        let tcp = TcpStream::connect(address).await.expect("connected");
        let other = Dial::Endpoint(EndpointId::new("edge-9").expect("an id"));
        let told = tls.secure(tcp, &other).await.expect_err("another endpoint").to_string();
        assert!(told.contains("endpoint edge-0 of the server answered in place of edge-9"), "{told}");
    })
    .await;
}

use std::{io, time::Duration};

use rustls::{HandshakeKind, pki_types::UnixTime, server::ServerSessionMemoryCache, sign::SingleCertAndKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tunnel_core::identity::{AgentName, Span, ValidityError};

use super::*;
use crate::identity::{
    agent::AgentFolder,
    authority::{Authority, Request, SKEW},
};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;
const LIFETIME: Duration = Duration::from_secs(7 * DAY);
/// For a handshake within this process.
const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that stands still.
#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

fn at(now: u64) -> Arc<dyn TimeProvider> {
    Arc::new(At(now))
}

fn identity() -> AgentIdentity {
    AgentIdentity::new(AgentName::new("home", "pi4").expect("names"), "u-1", 0).expect("an identity")
}

fn id(text: &str) -> EndpointId {
    EndpointId::new(text).expect("an id")
}

/// A server with the endpoint `edge`, and an agent that enrolled at [`NOW`].
struct Scene {
    authority: Authority,
    key: AgentKey,
    enrolled: Enrolled,
    _temporary: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(&temporary.path().join("server"), NOW).expect("made");
        let folder = AgentFolder::open(&temporary.path().join("agent")).expect("made");
        let key = folder.key().expect("a key");
        let request = Request::parse(&key.request().expect("a request")).expect("valid");
        let certificate = authority.sign(&request, &identity(), LIFETIME, NOW).expect("signed");
        let enrolled = folder.keep(&key, certificate, authority.root().clone(), NOW).expect("kept");
        Self { authority, key, enrolled, _temporary: temporary }
    }

    /// The server at a time, with a serving certificate of that time.
    fn server(&self, now: u64) -> ServerConfig {
        let leaf = self.authority.endpoint(&id("edge"), LIFETIME, now).expect("issued");
        server_config(Arc::new(SingleCertAndKey::from(leaf)), self.authority.root(), at(now)).expect("usable")
    }

    fn stranger(&self, now: u64) -> ClientConfig {
        enrolment_config(self.authority.fingerprint(), at(now)).expect("usable")
    }

    fn agent(&self, now: u64) -> ClientConfig {
        agent_config(&self.key, &self.enrolled, at(now)).expect("usable")
    }
}

/// What the two ends of a connection know about each other.
#[derive(Debug)]
struct Met {
    peer: Result<Peer, PeerError>,
    speaks_tunnel: bool,
    handshake: Option<HandshakeKind>,
}

/// Connects a client to a server. Each sends the other a byte: only then does a TLS 1.3 client know whether the server
/// accepts it.
async fn meet(
    server: impl Into<Arc<ServerConfig>>,
    client: impl Into<Arc<ClientConfig>>,
    dial: &Dial,
) -> (io::Result<Met>, io::Result<Vec<CertificateDer<'static>>>) {
    let (near, far) = duplex(1 << 16);
    let (server, client): (Arc<ServerConfig>, Arc<ClientConfig>) = (server.into(), client.into());
    let (acceptor, connector) = (TlsAcceptor::from(server), TlsConnector::from(client));
    let accept = async {
        let mut stream = acceptor.accept(far).await?;
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"b").await?;
        stream.flush().await?;
        let connection = stream.get_ref().1;
        Ok::<_, io::Error>(Met {
            peer: peer(connection.peer_certificates()),
            speaks_tunnel: speaks_tunnel(connection),
            handshake: connection.handshake_kind(),
        })
    };
    let connect = async {
        let name = server_name(dial).expect("a name");
        let mut stream = connector.connect(name, near).await?;
        stream.write_all(b"a").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await?;
        let certificates = stream.get_ref().1.peer_certificates().expect("certificates").to_vec();
        Ok::<_, io::Error>(certificates)
    };
    timeout(PATIENCE, async { tokio::join!(accept, connect) }).await.expect("in time")
}

/// How a handshake fails, for the server and for the agent.
async fn fail(server: ServerConfig, client: ClientConfig, dial: &Dial) -> (ServerFailure, AgentFailure) {
    let (accepted, connected) = meet(server, client, dial).await;
    let (accepted, connected) = (accepted.expect_err("refused"), connected.expect_err("refused"));
    (ServerFailure::of(&accepted).expect("of TLS"), AgentFailure::of(&connected).expect("of TLS"))
}

#[tokio::test]
async fn a_stranger_with_a_join_string_reaches_the_server_and_learns_its_root() {
    let scene = Scene::new();
    let (accepted, connected) = meet(scene.server(NOW), scene.stranger(NOW), &Dial::Any).await;
    let met = accepted.expect("admitted");
    assert_eq!(met.peer, Ok(Peer::Stranger));
    assert!(met.speaks_tunnel);
    let certificates = connected.expect("connected");
    assert_eq!(endpoint(Some(&certificates)), Ok(id("edge")));
    let root = sent_root(Some(&certificates), &scene.authority.fingerprint());
    assert_eq!(root.as_ref(), Some(scene.authority.root()));
}

#[tokio::test]
async fn an_enrolled_agent_is_known_by_its_certificate() {
    let scene = Scene::new();
    let (accepted, connected) = meet(scene.server(NOW), scene.agent(NOW), &Dial::Any).await;
    assert_eq!(accepted.expect("admitted").peer, Ok(Peer::Agent(identity())));
    assert_eq!(endpoint(Some(&connected.expect("connected"))), Ok(id("edge")));
}

#[tokio::test]
async fn a_server_with_another_root_is_told_to_strangers_and_to_agents() {
    let (scene, other) = (Scene::new(), Scene::new());
    for client in [other.stranger(NOW), other.agent(NOW)] {
        let failures = fail(scene.server(NOW), client, &Dial::Any).await;
        assert_eq!(failures, (ServerFailure::Refused, AgentFailure::OtherServer));
    }
}

#[tokio::test]
async fn an_agent_of_another_server_is_refused() {
    let (scene, other) = (Scene::new(), Scene::new());
    let root = scene.authority.root().clone();
    let confused = Enrolled { root, ..other.enrolled.clone() };
    let client = agent_config(&other.key, &confused, at(NOW)).expect("usable");
    let (accepted, connected) = fail(scene.server(NOW), client, &Dial::Any).await;
    assert_eq!((accepted, connected), (ServerFailure::OtherServer, AgentFailure::Refused));
}

#[tokio::test]
async fn an_expired_agent_is_told_by_both_sides() {
    let scene = Scene::new();
    let late = NOW + LIFETIME.as_secs() + 3 * DAY;
    let (accepted, connected) = fail(scene.server(late), scene.agent(late), &Dial::Any).await;
    assert_eq!(accepted, ServerFailure::Clock(ValidityError::Expired(Span(3 * DAY))));
    assert_eq!(connected, AgentFailure::Expired);
    assert!(accepted.to_string().contains("expired 3 days ago by the clock of this server"), "{accepted}");
    assert!(connected.to_string().contains("new join string"), "{connected}");
}

#[tokio::test]
async fn no_certificate_of_another_root_is_taken_for_one_with_wrong_dates_or_a_wrong_purpose() {
    let (scene, other) = (Scene::new(), Scene::new());
    let confused = Enrolled { root: scene.authority.root().clone(), ..other.enrolled.clone() };
    let late = NOW + LIFETIME.as_secs() + 3 * DAY;
    for now in [NOW - DAY, late] {
        let client = agent_config(&other.key, &confused, at(now)).expect("usable");
        let failures = fail(scene.server(now), client, &Dial::Any).await;
        assert_eq!(failures, (ServerFailure::OtherServer, AgentFailure::Refused), "{now}");
    }
    let endpoint = |authority: &Authority| {
        let leaf = authority.endpoint(&id("edge"), LIFETIME, NOW).expect("issued");
        let roots = roots(scene.authority.root()).expect("usable");
        let client = trusting(Trust::Kept(roots), at(late)).expect("usable");
        finished(client.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(leaf))))
    };
    let (accepted, _) = fail(scene.server(late), endpoint(&other.authority), &Dial::Any).await;
    assert_eq!(accepted, ServerFailure::OtherServer);
    let (accepted, _) = fail(scene.server(late), endpoint(&scene.authority), &Dial::Any).await;
    assert!(matches!(accepted, ServerFailure::Clock(_)), "of this root, whatever it is for: {accepted:?}");
}

#[tokio::test]
async fn an_agent_whose_clock_is_wrong_is_told_to_check_its_clock() {
    let scene = Scene::new();
    for client in [scene.stranger(NOW - DAY), scene.agent(NOW - DAY)] {
        let (accepted, connected) = fail(scene.server(NOW), client, &Dial::Any).await;
        assert_eq!(accepted, ServerFailure::Expired);
        assert_eq!(connected, AgentFailure::Clock(ValidityError::NotYet(Span(DAY - SKEW.as_secs()))));
        assert!(connected.to_string().contains("by the clock of this machine"), "{connected}");
    }
    let ahead = NOW + LIFETIME.as_secs() + DAY;
    let (_, connected) = fail(scene.server(NOW), scene.stranger(ahead), &Dial::Any).await;
    assert_eq!(connected, AgentFailure::Clock(ValidityError::Expired(Span(DAY))));
    let (accepted, _) = meet(scene.server(NOW), scene.stranger(NOW - SKEW.as_secs()), &Dial::Any).await;
    accepted.expect("a clock a few minutes behind is no fault");
}

#[tokio::test]
async fn a_server_whose_clock_is_behind_says_so() {
    let scene = Scene::new();
    let (accepted, connected) = fail(scene.server(NOW - DAY), scene.agent(NOW), &Dial::Any).await;
    assert_eq!(accepted, ServerFailure::Clock(ValidityError::NotYet(Span(DAY - SKEW.as_secs()))));
    assert_eq!(connected, AgentFailure::Expired);
}

#[tokio::test]
async fn the_certificate_of_an_endpoint_is_none_of_an_agent() {
    let scene = Scene::new();
    let leaf = scene.authority.endpoint(&id("edge"), LIFETIME, NOW).expect("issued");
    let roots = roots(scene.authority.root()).expect("usable");
    let client = trusting(Trust::Kept(roots), at(NOW)).expect("usable");
    let client = finished(client.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(leaf))));
    let failures = fail(scene.server(NOW), client, &Dial::Any).await;
    assert_eq!(failures, (ServerFailure::NotAnAgent, AgentFailure::Refused));
}

#[tokio::test]
async fn the_certificate_of_an_agent_is_none_of_an_endpoint() {
    let scene = Scene::new();
    let chain = vec![scene.enrolled.certificate.clone(), scene.enrolled.root.clone()];
    for client in [scene.stranger(NOW), scene.agent(NOW)] {
        let mut server = scene.server(NOW);
        let provider = ring::default_provider();
        let own = rustls::sign::CertifiedKey::from_der(chain.clone(), scene.key.private(), &provider).expect("usable");
        server.cert_resolver = Arc::new(SingleCertAndKey::from(own));
        let failures = fail(server, client, &Dial::Any).await;
        assert_eq!(failures, (ServerFailure::Refused, AgentFailure::NotAnEndpoint));
    }
}

#[tokio::test]
async fn a_directed_dial_accepts_no_other_endpoint() {
    let scene = Scene::new();
    let (accepted, _) = meet(scene.server(NOW), scene.agent(NOW), &Dial::Endpoint(id("edge"))).await;
    accepted.expect("the endpoint that was dialled");
    let (accepted, connected) = fail(scene.server(NOW), scene.agent(NOW), &Dial::Endpoint(id("other"))).await;
    assert_eq!(accepted, ServerFailure::Refused);
    assert_eq!(connected, AgentFailure::OtherEndpoint { wanted: id("other"), found: id("edge") });
}

#[tokio::test]
async fn a_sidecar_is_no_server_for_who_enrols_or_dials_any_endpoint_or_another_one() {
    let scene = Scene::new();
    let sidecar = || {
        let leaf = scene.authority.sidecar(&id("edge"), LIFETIME, NOW).expect("issued");
        server_config(Arc::new(SingleCertAndKey::from(leaf)), scene.authority.root(), at(NOW)).expect("usable")
    };
    let (accepted, _) = meet(sidecar(), scene.agent(NOW), &Dial::Sidecar(id("edge"))).await;
    accepted.expect("the sidecar that was dialled");
    let refused = [
        (scene.stranger(NOW), Dial::Any),
        (scene.agent(NOW), Dial::Any),
        (scene.agent(NOW), Dial::Endpoint(id("edge"))),
    ];
    for (client, dial) in refused {
        let failures = fail(sidecar(), client, &dial).await;
        assert_eq!(failures, (ServerFailure::Refused, AgentFailure::NotAnEndpoint), "{dial:?}");
    }
    let (_, connected) = fail(sidecar(), scene.agent(NOW), &Dial::Sidecar(id("other"))).await;
    assert_eq!(connected, AgentFailure::OtherEndpoint { wanted: id("other"), found: id("edge") });
    let (_, connected) = fail(scene.server(NOW), scene.agent(NOW), &Dial::Sidecar(id("edge"))).await;
    assert_eq!(connected, AgentFailure::NotAnEndpoint, "an endpoint is no sidecar either");
}

#[tokio::test]
async fn another_protocol_is_refused_and_none_is_noticed() {
    let scene = Scene::new();
    let mut client = scene.agent(NOW);
    client.alpn_protocols = vec![b"portlane-tunnel/2".to_vec()];
    let failures = fail(scene.server(NOW), client, &Dial::Any).await;
    assert_eq!(failures, (ServerFailure::OtherProtocol, AgentFailure::OtherProtocol));
    let mut silent = scene.agent(NOW);
    silent.alpn_protocols = Vec::new();
    let (accepted, _) = meet(scene.server(NOW), silent, &Dial::Any).await;
    assert!(!accepted.expect("admitted by rustls").speaks_tunnel);
}

#[tokio::test]
async fn neither_side_resumes_a_session() {
    let scene = Scene::new();
    let mut eager_client = scene.agent(NOW);
    eager_client.resumption = Resumption::default();
    let mut eager_server = scene.server(NOW);
    eager_server.session_storage = ServerSessionMemoryCache::new(16);
    eager_server.send_tls13_tickets = 2;
    for (server, client) in [(scene.server(NOW), eager_client), (eager_server, scene.agent(NOW))] {
        let (server, client) = (Arc::new(server), Arc::new(client));
        for _ in 0..2 {
            let (accepted, connected) = meet(server.clone(), client.clone(), &Dial::Any).await;
            assert_eq!(accepted.expect("admitted").handshake, Some(HandshakeKind::Full));
            connected.expect("connected");
        }
    }
}

//! Connections of strangers against a server: each phase has a limit, and proxies get in and stay.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use proxy_api::{
    FromProxy, METHOD, SERVICE, ToProxy,
    doors::{Bounds, Evict, Rate, Rates},
};
use proxy_grpc::{Admitted, Connection, Door, Endpoint, Follower, Messages, OpenError, SERVER_NAME, Status, frame};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    pki_types::{PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{body::Body, transport::Channel};
use tower::Service as _;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Admits everyone with the token `good`, or `good-NAMESPACE`, sends one message, and ends the stream when the proxy
/// ends it.
struct Host;

impl Follower for Host {
    async fn follow(&self, token: Option<String>, mut messages: Messages) -> Result<Admitted, Status> {
        let namespace = token.as_deref().and_then(|token| token.strip_prefix("good")).map(str::to_owned);
        let namespace = namespace.ok_or_else(|| Status::unauthenticated("a bad token"))?;
        let (out, answer) = mpsc::channel(1);
        tokio::spawn(async move {
            let hello = frame(&ToProxy { tell_held: true, ..ToProxy::default() }).expect("encodes");
            let _ = out.send(Ok(hello)).await;
            let _ = messages.message().await;
        });
        Ok(Admitted { namespace, answer })
    }
}

struct Scene {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    counted: Arc<Mutex<Vec<&'static str>>>,
    _end: oneshot::Sender<()>,
}

impl Scene {
    /// A server with this room for strangers and for known proxies.
    async fn serve(strangers: usize, known: usize) -> Self {
        let evict = Evict::Silent;
        Self::within(Bounds { strangers, per_source: strangers, known, evict, rates: None }).await
    }

    async fn within(bounds: Bounds) -> Self {
        let (resolver, root) = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let counted: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let counts = counted.clone();
        let door = Door::new(bounds, move |closed| counts.lock().expect("not poisoned").push(closed.as_str()));
        let tls = Arc::new(proxy_grpc::server_config(Arc::new(resolver)).expect("usable"));
        let (end, ended) = oneshot::channel::<()>();
        tokio::spawn(proxy_grpc::serve(listener, tls, door, Arc::new(Host), async {
            let _ = ended.await;
        }));
        let tls = Arc::new(proxy_grpc::client_config(&root).expect("usable"));
        Self { address, tls, counted, _end: end }
    }

    async fn open(&self, token: &str) -> Result<Connection, OpenError> {
        let endpoint = Endpoint { address: self.address, tls: self.tls.clone(), token: token.to_owned() };
        timeout(PATIENCE, proxy_grpc::open(&endpoint)).await.expect("an answer in time")
    }

    /// A connection whose client has no room for what the server sends.
    async fn deaf(&self) -> Channel {
        let (address, tls) = (self.address, TlsConnector::from(self.tls.clone()));
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Channel::from_static("http://portlane-operator").initial_stream_window_size(0);
        endpoint.connect_with_connector(connector).await.expect("connected")
    }

    fn counts(&self, reason: &str) -> usize {
        self.counted.lock().expect("not poisoned").iter().filter(|counted| **counted == reason).count()
    }
}

/// A serving certificate, and the CA certificate that it is signed by.
fn certificate() -> (SingleCertAndKey, String) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new([SERVER_NAME.to_owned()]).expect("a name");
    let leaf = parameters.signed_by(&key, &root).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = rustls::crypto::ring::default_provider();
    let leaf = CertifiedKey::from_der(vec![leaf.der().clone()], private, &provider).expect("usable");
    (leaf.into(), root.pem())
}

/// Receives the greeting of the server, so that the stream is open on both sides.
async fn greeted(connection: &mut Connection) {
    let greeting = timeout(PATIENCE, connection.messages.message()).await.expect("in time").expect("no error");
    assert!(greeting.is_some_and(|greeting| greeting.tell_held));
}

// C3
#[tokio::test]
async fn silent_connections_neither_keep_a_proxy_out_nor_end_its_stream() {
    let scene = Scene::serve(8, 2).await;
    let mut first = scene.open("good").await.expect("admitted");
    greeted(&mut first).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(scene.address).await.expect("connected"));
    }
    let mut second = scene.open("good").await.expect("admitted in spite of them");
    greeted(&mut second).await;
    assert!(scene.counts("evicted") >= 80, "silent connections pay for it: {}", scene.counts("evicted"));
    first.send(&FromProxy::default()).await.expect("the first stream is still open");
}

// C3
#[tokio::test]
async fn a_client_that_sends_nothing_after_its_handshake_is_closed() {
    let scene = Scene::serve(8, 2).await;
    let stream = TcpStream::connect(scene.address).await.expect("connected");
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let mut stream = TlsConnector::from(scene.tls.clone()).connect(name, stream).await.expect("a handshake");
    let started = Instant::now();
    // The server sends its settings and then ends the connection, with or without a farewell.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("closed in time");
    assert!(started.elapsed() < PATIENCE && scene.counts("silent") == 1);
}

// C10
#[tokio::test]
async fn a_proxy_waits_for_the_turn_of_its_handshake() {
    let rate = Rate::per_second(1, 16);
    let rates = Some(Rates { all: rate, source: rate, evenly: true });
    let scene = Scene::within(Bounds { strangers: 8, per_source: 8, known: 2, evict: Evict::Silent, rates }).await;
    let started = Instant::now();
    let mut first = scene.open("good").await.expect("admitted");
    greeted(&mut first).await;
    // Both lanes begin one handshake in two seconds: these three and the first have the turns before the second.
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(TcpStream::connect(scene.address).await.expect("connected"));
    }
    let mut second = scene.open("good").await.expect("it does not give up in the queue");
    greeted(&mut second).await;
    assert!(started.elapsed() >= Duration::from_secs(4), "there was a queue: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_ends_with_its_stream_and_leaves_its_place() {
    let scene = Scene::serve(8, 1).await;
    let mut first = scene.open("good").await.expect("admitted");
    greeted(&mut first).await;
    match scene.open("good").await {
        Err(OpenError::Refused { retry_after, .. }) => {
            assert!(retry_after.is_some(), "the server asks for a retry delay");
        }
        other => panic!("a second proxy found a place: {other:?}"),
    }
    timeout(PATIENCE, first.end()).await.expect("the server ends its side");
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = scene.open("good").await {
        assert!(Instant::now() < deadline, "the place stays taken: {error}");
    }
}

#[tokio::test]
async fn at_a_full_port_a_proxy_gets_a_place_of_the_namespace_with_the_most() {
    let scene = Scene::serve(8, 2).await;
    let mut first = scene.open("good-a").await.expect("admitted");
    greeted(&mut first).await;
    let mut second = scene.open("good-a").await.expect("admitted");
    greeted(&mut second).await;
    let mut other = scene.open("good-b").await.expect("admitted in spite of them");
    greeted(&mut other).await;
    let end = timeout(PATIENCE, second.messages.message()).await.expect("in time");
    assert!(!matches!(end, Ok(Some(_))), "the youngest stream of the other namespace has ended: {end:?}");
    assert!(scene.open("good-a").await.is_err(), "it takes nothing from one with as many");
    assert_eq!(scene.counts("evicted"), 1);
    first.send(&FromProxy::default()).await.expect("the first stream is still open");
}

#[tokio::test]
async fn a_refused_client_hears_why_and_takes_no_place() {
    let scene = Scene::serve(1, 1).await;
    for _ in 0..5 {
        match scene.open("bad").await {
            Err(OpenError::Refused { why, .. }) => assert!(why.contains("a bad token"), "{why}"),
            // The connection before it may not have ended yet; a connection whose request is being answered never has to leave.
            Err(OpenError::Connect { .. }) => {}
            other => panic!("admitted or cut off: {other:?}"),
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = scene.open("good").await {
        assert!(Instant::now() < deadline, "the place stays taken: {error}");
    }
}

#[tokio::test]
async fn a_client_that_never_reads_leaves_its_place_when_its_stream_ends() {
    let scene = Scene::serve(8, 1).await;
    let mut channel = scene.deaf().await;
    let request = http::Request::post(format!("http://portlane-operator/{SERVICE}/{METHOD}"))
        .header("authorization", "Bearer good")
        .body(Body::empty())
        .expect("a request");
    timeout(PATIENCE, poll_fn(|context| channel.poll_ready(context))).await.expect("in time").expect("open");
    let answer = timeout(PATIENCE, channel.call(request)).await.expect("in time").expect("admitted");
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = scene.open("good").await {
        assert!(Instant::now() < deadline, "the place stays taken: {error}");
    }
    // Until here the client has kept its side open.
    drop((answer, channel));
}

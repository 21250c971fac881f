//! The server under silent connections.

use std::{net::SocketAddr, sync::Mutex};

use proxy_api::doors::{Bounds, Evict};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    pki_types::{PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with the path of the request.
struct Paths;

impl Answers for Paths {
    async fn answer(&self, _: Method, path: String, _: String, _: Bytes) -> Answer {
        Answer::json(StatusCode::OK, json!({ "path": path }))
    }
}

/// A serving certificate, and the CA certificate that it is signed by.
fn certificate() -> (SingleCertAndKey, String) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new([proxy_grpc::SERVER_NAME.to_owned()]).expect("a name");
    let leaf = parameters.signed_by(&key, &root).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = rustls::crypto::ring::default_provider();
    let leaf = CertifiedKey::from_der(vec![leaf.der().clone()], private, &provider).expect("usable");
    (leaf.into(), root.pem())
}

async fn connect(address: SocketAddr, root: &str) -> TlsStream<TcpStream> {
    begin(TcpStream::connect(address).await.expect("connected"), root).await
}

async fn begin(stream: TcpStream, root: &str) -> TlsStream<TcpStream> {
    let mut config = proxy_grpc::client_config(root).expect("usable");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(proxy_grpc::SERVER_NAME).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
}

/// Sends a request. What the connection has no room for stays in the buffer of TLS until it is flushed.
async fn send(client: &mut TlsStream<TcpStream>, request: &[u8]) {
    client.write_all(request).await.expect("sent");
    client.flush().await.expect("sent");
}

/// Sends a request, and reads its answer.
async fn ask(client: &mut TlsStream<TcpStream>) -> String {
    send(client, b"GET /path HTTP/1.1\r\nHost: h\r\n\r\n").await;
    read_through(client, b"}").await
}

/// Reads through these bytes.
async fn read_through(client: &mut TlsStream<TcpStream>, last: &[u8]) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(last) {
        answer.push(timeout(PATIENCE, client.read_u8()).await.expect("in time").expect("an answer"));
    }
    String::from_utf8(answer).expect("text")
}

/// A door with four places, all of which one source may have.
fn four_places() -> Arc<Door> {
    let bounds = Bounds { strangers: 4, per_source: 4, known: 0, evict: Evict::Any, rates: None };
    Door::new(bounds, |_| {})
}

/// A server at this door, with the CA certificate that its clients trust.
async fn serving(answers: impl Answers, door: Arc<Door>) -> (SocketAddr, String) {
    serving_until(Ending::new(watch::channel(false).1), answers, door).await
}

/// As [`serving`], until this end.
async fn serving_until(ending: Ending, answers: impl Answers, door: Arc<Door>) -> (SocketAddr, String) {
    let (leaf, root) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = TlsContext::without_client_auth(Arc::new(leaf)).expect("usable");
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    tokio::spawn(serve(listener, tls, Arc::new(answers), door, ending));
    (address, root)
}

// C3
#[tokio::test]
async fn an_api_server_gets_answers_over_one_connection_while_others_hold_every_place() {
    let (address, root) = serving(Paths, four_places()).await;

    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.expect("connected"));
    }
    let mut half = connect(address, &root).await;
    half.write_all(b"POST /half HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{").await.expect("sent");
    let mut client = connect(address, &root).await;
    for path in ["/first", "/second"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_through(&mut client, b"}").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(path), "{answer}");
    }
}

/// Answers no request, and counts the requests in progress.
struct Never(watch::Sender<usize>);

impl Answers for Never {
    async fn answer(&self, _: Method, _: String, _: String, _: Bytes) -> Answer {
        self.0.send_modify(|count| *count += 1);
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_request_beyond_those_in_work_is_to_be_repeated_and_ends_none_of_them() {
    let places = REQUESTS + 1;
    let bounds = Bounds { strangers: places, per_source: places, known: 0, evict: Evict::Any, rates: None };
    let closed = Arc::new(Mutex::new(Vec::new()));
    let counts = closed.clone();
    let door = Door::new(bounds, move |why| counts.lock().expect("not poisoned").push(why.as_str()));
    let (begun, mut in_work) = watch::channel(0);
    let (address, root) = serving(Never(begun), door).await;

    let request = b"POST /inject HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    let mut held = Vec::new();
    for _ in 0..REQUESTS {
        let mut client = connect(address, &root).await;
        client.write_all(request).await.expect("sent");
        held.push(client);
    }
    timeout(PATIENCE, in_work.wait_for(|count| *count == REQUESTS)).await.expect("in time").expect("a server");
    let mut further = connect(address, &root).await;
    further.write_all(request).await.expect("sent");
    let answer = read_through(&mut further, b"\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
    assert_eq!(*closed.lock().expect("not poisoned"), ["busy"]);
}

/// Answers that its API is busy.
struct Busy;

impl Answers for Busy {
    async fn answer(&self, _: Method, _: String, _: String, _: Bytes) -> Answer {
        Answer::json(StatusCode::TOO_MANY_REQUESTS, json!({}))
    }
}

#[tokio::test]
async fn a_connection_stays_open_while_only_its_api_is_busy() {
    let (address, root) = serving(Busy, four_places()).await;
    let mut client = connect(address, &root).await;
    for _ in 0..2 {
        let answer = ask(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_replica_that_ends_answers_before_its_connections_close() {
    let (end, ends) = watch::channel(false);
    let ending = Ending::new(ends);
    let (address, root) = serving_until(ending.clone(), Paths, four_places()).await;

    let (mut busy, mut idle) = (connect(address, &root).await, connect(address, &root).await);
    for client in [&mut busy, &mut idle] {
        assert!(!ask(client).await.contains("connection: close"));
    }
    end.send_replace(true);
    let answer = ask(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    for client in [&mut busy, &mut idle] {
        let read = timeout(PATIENCE, client.read(&mut [0])).await.expect("in time");
        assert_eq!(read.expect("closed in order"), 0);
    }
    timeout(PATIENCE, ending.all_closed()).await.expect("in time");
}

// C3
#[tokio::test]
async fn a_source_that_asks_all_the_time_gets_no_more_answers_a_second_than_its_share() {
    let (address, root) = serving(Paths, four_places()).await;
    let mut client = connect(address, &root).await;
    let (started, batch) = (Instant::now(), 100);
    // The burst, and the requests of a second and a fifth.
    let requests = usize::try_from(REQUEST_RATE.1 + REQUEST_RATE.0 * 6 / 5).expect("small");
    for _ in 0..requests / batch {
        client.write_all("GET /path HTTP/1.1\r\nHost: h\r\n\r\n".repeat(batch).as_bytes()).await.expect("sent");
        let mut answers = 0;
        while answers < batch {
            let mut read = [0; 4096];
            let length = timeout(PATIENCE, client.read(&mut read)).await.expect("in time").expect("answers");
            assert_ne!(length, 0, "the connection stays open");
            answers += read.iter().take(length).filter(|byte| **byte == b'}').count();
        }
    }
    assert!(started.elapsed() > Duration::from_secs(1), "{requests} answers took {:?}", started.elapsed());
}

// C3
#[tokio::test]
async fn a_client_that_never_sends_its_body_gives_way_as_one_without_a_request() {
    let bounds = Bounds { strangers: 1, per_source: 1, known: 0, evict: Evict::Silent, rates: None };
    let (address, root) = serving(Paths, Door::new(bounds, |_| {})).await;
    let mut half = connect(address, &root).await;
    let head = b"POST /half HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n";
    half.write_all(head).await.expect("sent");
    let asked = read_through(&mut half, b"\r\n\r\n").await;
    assert!(asked.starts_with("HTTP/1.1 100"), "{asked}");
    let answer = ask(&mut connect(address, &root).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Answers once the value is true, and counts the requests in progress.
struct Late(watch::Receiver<bool>, watch::Sender<usize>);

impl Answers for Late {
    async fn answer(&self, _: Method, _: String, _: String, _: Bytes) -> Answer {
        self.1.send_modify(|count| *count += 1);
        let _ = self.0.clone().wait_for(|is_due| *is_due).await;
        Answer::json(StatusCode::OK, json!({}))
    }
}

/// A connection from an address that is not that of an API server.
async fn connect_from(pod: u8, address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 1, pod], 0))).expect("bound");
    socket.connect(address).await.expect("connected")
}

/// Opens five silent connections from each of 60 addresses.
async fn besiege(address: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for pod in (1..=60).flat_map(|pod| [pod; 5]) {
        silent.push(connect_from(pod, address).await);
    }
    silent
}

// C3
#[tokio::test]
async fn sixty_pods_with_silent_connections_end_no_request_of_an_api_server_with_more_connections() {
    let bounds = Bounds { strangers: 256, per_source: 128, known: 0, evict: Evict::WorkLast, rates: None };
    let ((due, is_due), (begun, mut in_work)) = (watch::channel(false), watch::channel(0));
    let (address, root) = serving(Late(is_due, begun), Door::new(bounds, |_| {})).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = connect(address, &root).await;
        send(&mut client, b"GET /path HTTP/1.1\r\nHost: h\r\n\r\n").await;
        clients.push(client);
    }
    timeout(PATIENCE, in_work.wait_for(|count| *count == clients.len())).await.expect("in time").expect("a server");
    let _silent = besiege(address).await;
    // Connections are admitted in order, so the others have been by the time that this one is served.
    clients.push(connect(address, &root).await);
    due.send_replace(true);
    for client in &mut clients[..10] {
        read_through(client, b"}").await;
    }
}

// C3
#[tokio::test]
async fn sixty_pods_with_silent_connections_end_no_connection_of_an_api_server_whose_address_is_known() {
    let bounds = Bounds { strangers: 64, per_source: 32, known: 16, evict: Evict::WorkLast, rates: None };
    let server = IpAddr::from([127, 0, 0, 1]);
    let (address, root) = serving(Paths, Door::knowing(bounds, move |source| source == server, |_| {})).await;
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(connect(address, &root).await);
    }
    let _silent = besiege(address).await;
    for client in &mut idle {
        let answer = ask(client).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

// C3
#[tokio::test]
async fn strangers_with_large_bodies_leave_room_to_an_api_server_whose_address_is_known() {
    let bounds = Bounds { strangers: 64, per_source: 32, known: 16, evict: Evict::WorkLast, rates: None };
    let server = IpAddr::from([127, 0, 0, 1]);
    let ((due, is_due), (begun, mut in_work)) = (watch::channel(false), watch::channel(0));
    let door = Door::knowing(bounds, move |source| source == server, |_| {});
    let (address, root) = serving(Late(is_due, begun), door).await;
    let request = |bytes: usize| {
        let head = format!("POST /path HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b' '; bytes]].concat()
    };
    let (largest, large) = (request(8 << 20), request(256 << 10));
    let mut held = Vec::new();
    for pod in [1, 1, 2, 2, 3, 3] {
        let mut stranger = begin(connect_from(pod, address).await, &root).await;
        send(&mut stranger, &largest).await;
        held.push(stranger);
    }
    timeout(PATIENCE, in_work.wait_for(|count| *count == 6)).await.expect("in time").expect("a server");
    let mut further = begin(connect_from(4, address).await, &root).await;
    send(&mut further, &large).await;
    let mut status = [0; 12];
    timeout(PATIENCE, further.read_exact(&mut status)).await.expect("in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 429", "strangers have all of their room");
    let mut client = connect(address, &root).await;
    send(&mut client, &large).await;
    timeout(PATIENCE, in_work.wait_for(|count| *count == 7)).await.expect("in time").expect("a server");
    due.send_replace(true);
    timeout(PATIENCE, client.read_exact(&mut status)).await.expect("in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
}

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
use tokio_rustls::TlsConnector;

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

async fn connect(address: SocketAddr, root: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut config = proxy_grpc::client_config(root).expect("usable");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(proxy_grpc::SERVER_NAME).expect("a name");
    let stream = TcpStream::connect(address).await.expect("connected");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
}

// C3
#[tokio::test]
async fn an_api_server_gets_answers_over_one_connection_while_others_hold_every_place() {
    let (leaf, root) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = TlsContext::without_client_auth(Arc::new(leaf)).expect("usable");
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    let bounds = Bounds { strangers: 4, per_source: 4, known: 0, evict: Evict::Any, rates: None };
    tokio::spawn(serve(
        listener,
        tls,
        Arc::new(Paths),
        Door::new(bounds, |_| {}),
        Ending::new(watch::channel(false).1),
    ));

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
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let byte = timeout(PATIENCE, client.read_u8()).await.expect("in time").expect("an answer");
            answer.push(byte);
        }
        let answer = String::from_utf8(answer).expect("text");
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
    let (leaf, root) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = TlsContext::without_client_auth(Arc::new(leaf)).expect("usable");
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    let places = REQUESTS + 1;
    let bounds = Bounds { strangers: places, per_source: places, known: 0, evict: Evict::Any, rates: None };
    let closed = Arc::new(Mutex::new(Vec::new()));
    let counts = closed.clone();
    let door = Door::new(bounds, move |why| counts.lock().expect("not poisoned").push(why.as_str()));
    let (begun, mut in_work) = watch::channel(0);
    tokio::spawn(serve(listener, tls, Arc::new(Never(begun)), door, Ending::new(watch::channel(false).1)));

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
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, further.read_u8()).await.expect("in time").expect("an answer"));
    }
    let answer = String::from_utf8(answer).expect("text");
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
    let (leaf, root) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = TlsContext::without_client_auth(Arc::new(leaf)).expect("usable");
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    let bounds = Bounds { strangers: 4, per_source: 4, known: 0, evict: Evict::Any, rates: None };
    tokio::spawn(serve(listener, tls, Arc::new(Busy), Door::new(bounds, |_| {}), Ending::new(watch::channel(false).1)));
    let mut client = connect(address, &root).await;
    for _ in 0..2 {
        let answer = ask(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

async fn ask(client: &mut tokio_rustls::client::TlsStream<TcpStream>) -> String {
    client.write_all(b"GET /path HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        answer.push(timeout(PATIENCE, client.read_u8()).await.expect("in time").expect("an answer"));
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_replica_that_ends_answers_before_its_connections_close() {
    let (leaf, root) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = TlsContext::without_client_auth(Arc::new(leaf)).expect("usable");
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    let bounds = Bounds { strangers: 4, per_source: 4, known: 0, evict: Evict::Any, rates: None };
    let (end, ends) = watch::channel(false);
    let ending = Ending::new(ends);
    tokio::spawn(serve(listener, tls, Arc::new(Paths), Door::new(bounds, |_| {}), ending.clone()));

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
    let (leaf, root) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = TlsContext::without_client_auth(Arc::new(leaf)).expect("usable");
    let (_, tls) = watch::channel(Some(Arc::new(tls)));
    let bounds = Bounds { strangers: 4, per_source: 4, known: 0, evict: Evict::Any, rates: None };
    tokio::spawn(serve(
        listener,
        tls,
        Arc::new(Paths),
        Door::new(bounds, |_| {}),
        Ending::new(watch::channel(false).1),
    ));
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

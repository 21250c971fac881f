//! The metrics API admits the aggregator of the API server, and no other client.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use hyper::{Method, StatusCode, body::Bytes};
use operator::platform::{
    ending::Ending,
    https::{Answer, Answers, TlsContext, serve},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsConnector;

struct Ok200;

impl Answers for Ok200 {
    async fn answer(&self, _: Method, _: String, _: String, _: Bytes) -> Answer {
        Answer::json(StatusCode::OK, serde_json::json!({"admitted": true}))
    }
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).expect("a CA").pem();
    Ca { pem, issuer: Issuer::new(parameters, key) }
}

/// A certificate with this common name, and its key.
fn certificate(ca: &Ca, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    parameters.distinguished_name.push(DnType::CommonName, name);
    let certificate = parameters.signed_by(&key, &ca.issuer).expect("signed");
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
    (certificate.der().clone(), private)
}

/// The answer to a client with this certificate; empty if the client is not admitted.
async fn asked(port: u16, roots: &str, own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> String {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(roots.as_bytes()).expect("PEM")).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(store);
    let config = match own {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("a certificate"),
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server listens");
    let name = "localhost".try_into().expect("a name");
    let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else { return String::new() };
    // In TLS 1.3 a client learns of its refusal only when it reads.
    let _ = stream.write_all(b"GET /apis HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "a refused client learns of its refusal at once");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn only_the_certificate_of_the_aggregator_is_admitted() {
    let (ours, theirs, foreign) = (ca(), ca(), ca());
    let (certificate_of_server, key) = certificate(&ours, "server");
    let provider = rustls::crypto::ring::default_provider();
    let shown = CertifiedKey::from_der(vec![certificate_of_server], key, &provider).expect("usable");
    let names = BTreeSet::from(["front-proxy".to_owned()]);
    let tls = TlsContext::with_client_auth(Arc::new(One(Arc::new(shown))), &theirs.pem, names).expect("usable");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (_tls, contexts) = watch::channel(Some(Arc::new(tls)));
    let door = operator::platform::doors::metrics_api(&Arc::default());
    tokio::spawn(serve(listener, contexts, Arc::new(Ok200), door, Ending::new(watch::channel(false).1)));

    let aggregator = asked(port, &ours.pem, Some(certificate(&theirs, "front-proxy"))).await;
    assert!(aggregator.starts_with("HTTP/1.1 200"), "{aggregator}");
    assert_eq!(asked(port, &ours.pem, None).await, "", "without a certificate");
    assert_eq!(asked(port, &ours.pem, Some(certificate(&theirs, "somebody"))).await, "", "another name of the same CA");
    assert_eq!(asked(port, &ours.pem, Some(certificate(&foreign, "front-proxy"))).await, "", "the name, of another CA");
}

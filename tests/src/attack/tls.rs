//! TLS of a client that trusts every server.

use std::{io, net, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime},
        version::TLS13,
    },
};

/// Accepts every certificate and every signature.
#[derive(Debug)]
struct Anyone(Vec<SignatureScheme>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// A configuration with one protocol inside. Every handshake is a full one, which costs the server the most.
fn config(protocol: &[u8]) -> ClientConfig {
    let provider = ring::default_provider();
    let anyone = Anyone(provider.signature_verification_algorithms.supported_schemes());
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// A name to ask for; the operator has one certificate for all names.
fn name() -> ServerName<'static> {
    ServerName::try_from("door.example").expect("a name")
}

/// Opens TLS sessions.
pub(super) struct Tls {
    http2: TlsConnector,
    http1: TlsConnector,
}

impl Tls {
    pub(super) fn new() -> Self {
        let connector = |protocol: &[u8]| TlsConnector::from(Arc::new(config(protocol)));
        Self { http2: connector(b"h2"), http1: connector(b"http/1.1") }
    }

    pub(super) async fn http2(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.http2.connect(name(), stream).await
    }

    pub(super) async fn http1(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.http1.connect(name(), stream).await
    }
}

/// The serving certificate that a server of HTTPS presents on a new connection to a client that trusts every server.
///
/// # Errors
/// The handshake failed.
pub(crate) fn leaf(stream: net::TcpStream) -> io::Result<Vec<u8>> {
    presented(config(b"http/1.1"), name(), stream)
}

/// The serving certificate that a server presents on this connection.
///
/// # Errors
/// The handshake failed; the client of this configuration may not trust the server.
pub fn presented(config: ClientConfig, name: ServerName<'static>, mut stream: net::TcpStream) -> io::Result<Vec<u8>> {
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    certificate.map(|certificate| certificate.to_vec()).ok_or_else(|| io::Error::other("no certificate"))
}

//! TLS on the connections between agents and an endpoint.
//!
//! [`AgentTls`] is the agent's side. [`ServerTls`] is the endpoint's side: clients may enrol and renew before it passes
//! an agent on. Neither bounds the time: the caller does.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tunnel_core::Kind;
use tunnel_core::identity::{AgentIdentity, Dial, Fingerprint};

use crate::agent::Connector;
pub use crate::ahead::Ahead;
use crate::endpoint::Authenticator;
use crate::identity::tls::{AgentFailure, Peer, ServerFailure, peer, sent_root, server_name, speaks_tunnel};
use crate::signer::{Signer, serve};

/// Why a connection is closed before its handshake.
const UNSIGNED: &str = "this endpoint has no certificate yet: its log says why";

/// TLS of an agent. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct AgentTls(Rc<RefCell<Arc<ClientConfig>>>);

impl AgentTls {
    /// Creates TLS with a configuration of [`agent_config`](crate::identity::tls::agent_config) or
    /// [`enrolment_config`](crate::identity::tls::enrolment_config).
    pub fn new(config: ClientConfig) -> Self {
        Self(Rc::new(RefCell::new(Arc::new(config))))
    }

    /// Replaces the certificate of new connections. Existing connections stay.
    pub fn replace(&self, config: ClientConfig) {
        self.0.replace(Arc::new(config));
    }
}

impl Connector for AgentTls {
    type Io = AgentStream;

    async fn secure(&self, tcp: TcpStream, dial: &Dial) -> io::Result<AgentStream> {
        let name = server_name(dial).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.0.borrow().clone());
        let mut stream = connector.connect(name, Ahead::new(tcp)).await.map_err(for_agent)?;
        if speaks_tunnel(stream.get_ref().1) {
            stream.get_mut().0.begin();
            Ok(AgentStream(stream))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, AgentFailure::OtherProtocol))
        }
    }
}

/// Rewords an error of TLS for the agent's owner.
fn for_agent(error: io::Error) -> io::Error {
    match AgentFailure::of(&error) {
        Some(failure) => io::Error::new(error.kind(), failure),
        None => error,
    }
}

/// A connection of an agent. Its first read reveals whether the server accepts the certificate.
#[derive(Debug)]
pub struct AgentStream(client::TlsStream<Ahead<TcpStream>>);

impl AgentStream {
    /// The root with this fingerprint, if the server sent it.
    pub(crate) fn sent_root(&self, root: &Fingerprint) -> Option<CertificateDer<'static>> {
        sent_root(self.0.get_ref().1.peer_certificates(), root)
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(for_agent)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// TLS of an endpoint. A client without a certificate may enrol, and an agent may renew its certificate, each once per
/// connection. Clones share the certificate.
pub struct ServerTls<S> {
    /// `None`: the endpoint has no certificate yet.
    acceptor: Rc<RefCell<Option<TlsAcceptor>>>,
    signer: Rc<S>,
}

impl<S> Clone for ServerTls<S> {
    fn clone(&self) -> Self {
        Self { acceptor: self.acceptor.clone(), signer: self.signer.clone() }
    }
}

impl<S> fmt::Debug for ServerTls<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl<S> ServerTls<S> {
    /// Creates TLS with a configuration of [`server_config`](crate::identity::tls::server_config), and a signer.
    pub fn new(config: Arc<ServerConfig>, signer: Rc<S>) -> Self {
        Self { acceptor: Rc::new(RefCell::new(Some(TlsAcceptor::from(config)))), signer }
    }

    /// Creates TLS of an endpoint without a certificate. It closes all connections until [`ServerTls::replace`].
    pub fn without_certificate(signer: Rc<S>) -> Self {
        Self { acceptor: Rc::default(), signer }
    }

    /// Replaces the certificate of new connections. Existing connections stay.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.acceptor.replace(Some(TlsAcceptor::from(config)));
    }

    #[cfg(test)]
    pub(crate) fn has_certificate(&self) -> bool {
        self.acceptor.borrow().is_some()
    }
}

impl<S: Signer> Authenticator for ServerTls<S> {
    type Io = server::TlsStream<Ahead<TcpStream>>;

    async fn authenticate(&self, tcp: TcpStream) -> io::Result<Option<(AgentIdentity, Self::Io)>> {
        let acceptor = self.acceptor.borrow().clone();
        let acceptor = acceptor.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, UNSIGNED))?;
        let mut stream = acceptor.accept(Ahead::new(tcp)).await.map_err(for_server)?;
        let connection = stream.get_ref().1;
        if !speaks_tunnel(connection) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, ServerFailure::OtherProtocol));
        }
        let client = peer(connection.peer_certificates());
        let client = client.map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
        let Peer::Agent(identity) = client else {
            serve(&mut stream, None, &*self.signer).await?;
            return Ok(None);
        };
        // The first byte tells the agent's purpose. It stays in the buffer for the reader of the frame.
        if stream.fill_buf().await?.first() == Some(&(Kind::Enrol as u8)) {
            serve(&mut stream, Some(&identity), &*self.signer).await?;
            return Ok(None);
        }
        stream.get_mut().0.begin();
        Ok(Some((identity, stream)))
    }
}

/// Rewords an error of TLS for the server's owner.
fn for_server(error: io::Error) -> io::Error {
    match ServerFailure::of(&error) {
        Some(failure) => io::Error::new(error.kind(), failure),
        None => error,
    }
}

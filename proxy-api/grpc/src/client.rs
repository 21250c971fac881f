//! The proxy's end of the stream.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use proxy_api::{FromProxy, MAX_MESSAGE_BYTES, METHOD, SERVICE, ToProxy, doors::LONGEST_TURN};
use rustls::{ClientConfig, pki_types::ServerName};
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, client::Grpc, metadata::MetadataValue, transport::Endpoint as Transport};

use crate::{SERVER_NAME, codec::Json, pushback::retry_after};

/// Timeout of the TCP connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Timeout of the TLS handshake, including the wait for its turn at the operator. A proxy that gave up earlier would
/// have cost the operator a turn, and would come back for another.
const HANDSHAKE: Duration = LONGEST_TURN.saturating_add(Duration::from_secs(3));
/// Idle time before an HTTP/2 keepalive ping, and how long its answer may take before the connection is dropped.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Outgoing messages that may be buffered.
const WAITING: usize = 4;

/// An operator replica to connect to, and the identity to present.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address of the operator replica.
    pub address: SocketAddr,
    /// Trusted CAs and protocol version.
    pub tls: Arc<ClientConfig>,
    /// `ServiceAccount` token that identifies this pod.
    pub token: String,
}

/// A stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operator is unreachable, or its certificate is not trusted.
    #[error("cannot connect to the operator at {address}")]
    Connect {
        /// Address of the operator replica.
        address: SocketAddr,
        /// Transport or TLS error.
        #[source]
        source: tonic::transport::Error,
    },
    /// The token contains characters that are not allowed in a header.
    #[error("the ServiceAccount token contains invalid characters")]
    Token,
    /// The operator refused the stream.
    #[error("the operator refused the stream: {why}")]
    Refused {
        /// Message and code of the refusal.
        why: String,
        /// The retry delay that the operator asks for.
        retry_after: Option<Duration>,
    },
    /// This replica is not the leader; another replica is.
    #[error("this operator is not the leader")]
    NotLeader {
        /// The retry delay that the operator asks for.
        retry_after: Option<Duration>,
    },
}

impl OpenError {
    /// The retry delay that the operator asks for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::NotLeader { retry_after } => *retry_after,
            Self::Connect { .. } | Self::Token => None,
        }
    }
}

/// An open stream; incoming messages are decoded as `M`.
#[derive(Debug)]
pub struct Connection<M = ToProxy> {
    out: mpsc::Sender<Bytes>,
    /// Messages from the operator.
    pub messages: Streaming<M>,
}

impl<M> Connection<M> {
    /// Sends one message; waits while the buffer is full.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn send(&self, message: &FromProxy) -> io::Result<()> {
        let message = serde_json::to_vec(message).map_err(io::Error::other)?;
        self.out.send(message.into()).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl<M: Send + 'static> Connection<M> {
    /// Closes the sending side, then waits until the operator has read everything and closes its side.
    pub async fn end(self) {
        let Self { out, mut messages } = self;
        drop(out);
        while let Ok(Some(_)) = messages.message().await {}
    }
}

/// Connects and opens the stream.
///
/// # Errors
/// See [`OpenError`].
pub async fn open<M: DeserializeOwned + Send + Sync + 'static>(
    endpoint: &Endpoint,
) -> Result<Connection<M>, OpenError> {
    let address = endpoint.address;
    let channel = Transport::from_static("http://portlane-operator")
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector(endpoint))
        .await
        .map_err(|source| OpenError::Connect { address, source })?;
    let (out, waiting) = mpsc::channel(WAITING);
    let mut request = Request::new(ReceiverStream::new(waiting));
    let bearer = format!("Bearer {}", endpoint.token);
    let mut bearer: MetadataValue<_> = bearer.parse().map_err(|_| OpenError::Token)?;
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    let path = http::uri::PathAndQuery::try_from(format!("/{SERVICE}/{METHOD}")).map_err(|_| OpenError::Token)?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    grpc.ready().await.map_err(|source| OpenError::Connect { address, source })?;
    let answer = grpc.streaming(request, path, Json::<M>::default()).await.map_err(|status| refused(&status))?;
    Ok(Connection { out, messages: answer.into_inner() })
}

fn refused(status: &tonic::Status) -> OpenError {
    let retry_after = retry_after(status);
    match status.code() {
        tonic::Code::Unavailable if status.message().starts_with(crate::server::NOT_LEADER) => {
            OpenError::NotLeader { retry_after }
        }
        code => OpenError::Refused { why: format!("{} ({code})", status.message()), retry_after },
    }
}

type Tls = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

fn connector(
    endpoint: &Endpoint,
) -> impl tower::Service<http::Uri, Response = Tls, Error = io::Error, Future: Send> + Send + 'static {
    let (address, tls) = (endpoint.address, TlsConnector::from(endpoint.tls.clone()));
    tower::service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
            timeout(HANDSHAKE, tls.connect(name, stream)).await?.map(TokioIo::new)
        }
    })
}

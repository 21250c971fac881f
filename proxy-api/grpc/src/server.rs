//! The operator's end.

use std::{convert::Infallible, future::Future, io, pin::Pin, sync::Arc, task, time::Duration};

use proxy_api::{FromProxy, MAX_MESSAGE_BYTES, METHOD, SERVICE};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, StreamingService},
    transport::Server,
};

use crate::codec::{Frame, Json};

/// Longest time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time without an answer before a connection is asked for one, and before it is given up.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How a refusal begins that sends a proxy to another replica.
pub(crate) const NOT_LEADER: &str = "not the leader";

/// How many may connect.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Handshakes at once.
    pub handshakes: usize,
}

/// What a proxy is answered with: frames until the stream ends.
pub type Answer = ReceiverStream<Result<Frame, Status>>;

/// Whoever answers proxies.
pub trait Follower: Send + Sync + 'static {
    /// One stream.
    ///
    /// # Errors
    /// A refusal; [`not_leader`](Status::unavailable) sends the proxy to another replica.
    fn follow(
        &self,
        token: Option<String>,
        messages: Streaming<FromProxy>,
    ) -> impl Future<Output = Result<Answer, Status>> + Send;

    /// The refusal of a replica that does not lead.
    #[must_use]
    fn not_leader() -> Status {
        Status::unavailable(format!("{NOT_LEADER}; another replica is"))
    }
}

/// Serves until the listener fails for good or `end` is done.
///
/// # Errors
/// The HTTP/2 server cannot go on.
pub async fn serve<F: Follower>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    follower: Arc<F>,
    end: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (accepted, streams) = mpsc::channel(16);
    let accepting = accept(listener, TlsAcceptor::from(tls), limits, accepted);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(4))
        .http2_max_header_list_size(Some(16 << 10))
        .serve_with_incoming_shutdown(Service(follower), ReceiverStream::new(streams), end);
    tokio::select! {
        result = serving => result,
        () = accepting => Ok(()),
    }
}

/// A connection with the place that it takes.
struct Accepted {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    limits: Limits,
    accepted: mpsc::Sender<Result<Accepted, io::Error>>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    loop {
        let (Ok(place), Ok(turn)) = (places.clone().acquire_owned().await, handshakes.clone().acquire_owned().await)
        else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, mostly: it passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // Whoever does not speak TLS is no proxy of ours: nothing to tell it.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                let _ = accepted.send(Ok(Accepted { stream, _place: place })).await;
            }
            drop(turn);
        });
    }
}

struct Service<F>(Arc<F>);

impl<F> Clone for Service<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: Follower> tower::Service<http::Request<Body>> for Service<F> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let known = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
            if known != Some((SERVICE, METHOD)) {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = Grpc::new(Json::<FromProxy>::default()).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl<F: Follower> StreamingService<FromProxy> for Service<F> {
    type Response = Frame;
    type ResponseStream = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<FromProxy>>) -> Self::Future {
        let follower = self.0.clone();
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        Box::pin(async move { follower.follow(token, request.into_inner()).await.map(Response::new) })
    }
}

impl tonic::transport::server::Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

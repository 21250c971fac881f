//! The operator's end of the stream.

mod answer;

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proxy_api::{FromProxy, MAX_MESSAGE_BYTES, METHOD, SERVICE};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Status, Streaming};

use self::answer::AnswerBody;
use crate::codec::{Frame, In};

/// TLS handshake timeout.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Idle time before an HTTP/2 keepalive ping, and how long its answer may take before the connection is dropped.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Prefix of the refusal that sends a proxy to another replica.
pub(crate) const NOT_LEADER: &str = "not the leader";
/// Send buffer and receive window of one connection, in bytes. Small, because an operator holds thousands of
/// connections.
const BUFFER: u32 = 64 << 10;

/// Limits on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Concurrent TLS handshakes.
    pub handshakes: usize,
}

/// The response stream: frames, then optionally the status it ends with.
pub type Answer = mpsc::Receiver<Result<Frame, Status>>;

/// Handles the streams of proxies.
pub trait Follower: Send + Sync + 'static {
    /// Starts one stream.
    ///
    /// # Errors
    /// The refusal; [`not_leader`](Follower::not_leader) sends the proxy to another replica.
    fn follow(
        &self,
        token: Option<String>,
        messages: Streaming<FromProxy>,
    ) -> impl Future<Output = Result<Answer, Status>> + Send;

    /// The refusal sent by a replica that is not the leader.
    #[must_use]
    fn not_leader() -> Status {
        Status::unavailable(format!("{NOT_LEADER}; try another replica"))
    }
}

/// Serves until `end` completes.
pub async fn serve<F: Follower>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    follower: Arc<F>,
    end: impl Future<Output = ()>,
) {
    tokio::select! {
        () = accept(listener, TlsAcceptor::from(tls), limits, follower) => {}
        () = end => {}
    }
}

async fn accept<F: Follower>(listener: TcpListener, tls: TlsAcceptor, limits: Limits, follower: Arc<F>) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    loop {
        let (Ok(place), Ok(turn)) = (places.clone().acquire_owned().await, handshakes.clone().acquire_owned().await)
        else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Usually out of file descriptors, which is temporary.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, follower) = (tls.clone(), follower.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // A peer that does not speak TLS is not a proxy and gets no answer.
            let stream = timeout(HANDSHAKE, tls.accept(stream)).await;
            drop(turn);
            if let Ok(Ok(stream)) = stream {
                // Boxed to keep the task small while it only handshakes.
                Box::pin(connection(stream, follower)).await;
            }
            drop(place);
        });
    }
}

async fn connection<F: Follower>(stream: TlsStream<TcpStream>, follower: Arc<F>) {
    let service = service_fn(move |request| {
        let follower = follower.clone();
        async move { Ok::<_, Infallible>(respond(&*follower, request).await) }
    });
    // A lost connection also ends its stream, which reports the loss.
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(4)
        .max_header_list_size(16 << 10)
        .max_send_buf_size(BUFFER as usize)
        .initial_stream_window_size(BUFFER)
        .initial_connection_window_size(2 * BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond<F: Follower>(follower: &F, request: Request<Incoming>) -> Response<AnswerBody> {
    let known = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
    if known != Some((SERVICE, METHOD)) {
        return answer::refused(&Status::unimplemented("no such method"));
    }
    let bearer = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let messages = Streaming::new_request(In::default(), request.into_body(), None, Some(MAX_MESSAGE_BYTES));
    match follower.follow(token, messages).await {
        Ok(frames) => answer::of(frames),
        Err(status) => answer::refused(&status),
    }
}

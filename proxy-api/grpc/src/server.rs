//! The operator's end.

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

/// Longest time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time without an answer before a connection is asked for one, and before it is given up.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How a refusal begins that sends a proxy to another replica.
pub(crate) const NOT_LEADER: &str = "not the leader";
/// Bytes that a connection may keep to be sent, and bytes that a proxy may send before they are read: there are thousands
/// of them.
const BUFFER: u32 = 64 << 10;

/// How many may connect.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Handshakes at once.
    pub handshakes: usize,
}

/// What a proxy is answered with: frames until the stream ends, or why it ends.
pub type Answer = mpsc::Receiver<Result<Frame, Status>>;

/// Whoever answers proxies.
pub trait Follower: Send + Sync + 'static {
    /// One stream.
    ///
    /// # Errors
    /// A refusal; [`not_leader`](Follower::not_leader) sends the proxy to another replica.
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

/// Serves until `end` is done.
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
            // Out of files, mostly: it passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, follower) = (tls.clone(), follower.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // Whoever does not speak TLS is no proxy of ours: nothing to tell it.
            let stream = timeout(HANDSHAKE, tls.accept(stream)).await;
            drop(turn);
            if let Ok(Ok(stream)) = stream {
                // Boxed, so that a task which only shakes hands is small.
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
    // A proxy that goes away is seen by its stream.
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

//! The operator's end of the stream.
//!
//! A connection passes through phases, each with a time limit: TLS handshake, first request, admission, hello. The
//! handshake begins when it is its turn, as a burst of handshakes would keep the operator from everything else. A
//! connection carries one stream and ends with it. Before admission its client is a stranger, whose places, rate and
//! messages are bounded apart from those of proxies.

mod answer;
mod messages;

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proxy_api::{METHOD, SERVICE};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::Status;

pub use self::messages::Messages;
use self::{answer::AnswerBody, messages::Room};
use crate::{
    codec::Frame,
    door::{Closed, Door, Guest, Place},
    pushback::with_retry_after,
};

/// TLS handshake timeout.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Timeout from the TLS handshake to the first request: the HTTP/2 preface and the headers.
const FIRST_REQUEST: Duration = Duration::from_secs(5);
/// Timeout of the decision on a stream.
const ADMISSION: Duration = Duration::from_secs(20);
/// Time that a client gets to read the end of its stream.
const GOODBYE: Duration = Duration::from_secs(2);
/// Pause after `accept` failed, usually for lack of file descriptors, which is temporary.
const ACCEPT: Duration = Duration::from_millis(100);
/// Retry delay for a proxy that found no place.
const FULL: Duration = Duration::from_secs(10);
/// Idle time before an HTTP/2 keepalive ping, and how long its answer may take before the connection is dropped.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Prefix of the refusal that sends a proxy to another replica.
pub(crate) const NOT_LEADER: &str = "not the leader";
/// Send buffer and receive window of one connection, in bytes. Small, because an operator holds thousands of
/// connections.
const BUFFER: u32 = 64 << 10;
/// Largest HTTP/2 frame, in bytes: the smallest limit that the protocol allows.
const FRAME: u32 = 16 << 10;
/// Largest list of headers, in bytes: a token of 16 KiB, and the rest.
const HEADERS: u32 = 20 << 10;
/// Streams of one connection that its client may reset before the server has answered them.
const RESETS: usize = 4;

/// The response stream: frames, then optionally the status it ends with.
pub type Answer = mpsc::Receiver<Result<Frame, Status>>;

/// A stream that has begun.
pub struct Admitted {
    /// The namespace of the proxy.
    pub namespace: String,
    /// The answer to the proxy.
    pub answer: Answer,
}

/// Handles the streams of proxies.
pub trait Follower: Send + Sync + 'static {
    /// Starts one stream, after which its client is known.
    ///
    /// # Errors
    /// The refusal; [`not_leader`](Follower::not_leader) sends the proxy to another replica.
    fn follow(
        &self,
        token: Option<String>,
        messages: Messages,
    ) -> impl Future<Output = Result<Admitted, Status>> + Send;

    /// The refusal sent by a replica that is not the leader.
    #[must_use]
    fn not_leader() -> Status {
        Status::unavailable(format!("{NOT_LEADER}; try another replica"))
    }
}

/// The state that the connections of one server share.
struct Server<F> {
    tls: TlsAcceptor,
    follower: Arc<F>,
    room: Arc<Room>,
}

/// Handed to the first request of a connection, to report the progress of its stream.
struct First {
    /// The request has arrived.
    begin: oneshot::Sender<()>,
    /// Dropped with the answer, once all of it is sent.
    answering: oneshot::Sender<()>,
    /// Dropped once the follower reads no more messages. The answer of a client that never reads is never sent.
    following: oneshot::Sender<()>,
}

/// Serves until `end` completes. Every connection needs a place at `door`.
pub async fn serve<F: Follower>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    door: Arc<Door>,
    follower: Arc<F>,
    end: impl Future<Output = ()>,
) {
    let server = Arc::new(Server { tls: TlsAcceptor::from(tls), follower, room: Arc::default() });
    tokio::select! {
        () = accept(listener, door, server) => {}
        () = end => {}
    }
}

/// Accepts connections and never waits for one of them.
async fn accept<F: Follower>(listener: TcpListener, door: Arc<Door>, server: Arc<Server<F>>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT).await;
            continue;
        };
        // Without a place the connection is closed at once.
        if let Some(place) = door.admit(peer.ip()) {
            tokio::spawn(connection(stream, place, server.clone()));
        }
    }
}

async fn connection<F: Follower>(stream: TcpStream, mut place: Place, server: Arc<Server<F>>) {
    let guest = place.guest();
    let work = async {
        let _ = stream.set_nodelay(true);
        wait_for_turn(&guest).await;
        // Boxed, like the exchange: this task lives as long as its connection, and has room for the larger of the two.
        let accepted = Box::pin(timeout(HANDSHAKE, server.tls.accept(stream))).await;
        let accepted = accepted.ok().and_then(Result::ok);
        if let Some(exchange) = accepted.map(|stream| Box::pin(exchange(stream, guest.clone(), server))) {
            exchange.await;
        } else {
            // A peer that does not speak TLS is not a proxy and gets no answer.
            guest.closed(Closed::Handshake);
        }
    };
    tokio::select! {
        () = work => {}
        () = place.taken_back() => {}
    }
}

/// Waits until the handshake of a connection may begin. The server keeps the client waiting, so no newcomer takes its
/// place meanwhile.
async fn wait_for_turn(guest: &Guest) {
    let turn = guest.turn();
    if !turn.is_zero() {
        guest.asks();
        sleep(turn).await;
        guest.waits();
    }
}

/// Serves the one stream of a connection.
async fn exchange<F: Follower>(stream: TlsStream<TcpStream>, guest: Guest, server: Arc<Server<F>>) {
    let (begin, started) = oneshot::channel();
    let (answering, answered) = oneshot::channel();
    let (following, followed) = oneshot::channel();
    let first = Mutex::new(Some(First { begin, answering, following }));
    let client = guest.clone();
    let service = service_fn(move |request| {
        let (server, client) = (server.clone(), client.clone());
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Boxed: the task of a stream would keep the room of this future, with the review of a token in it, for as long
        // as the stream lives.
        Box::pin(async move { Ok::<_, Infallible>(server.respond(&client, request, first).await) })
    });
    let connection = builder().serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A lost connection also ends its stream, which reports the loss.
    tokio::select! {
        _ = &mut connection => return,
        _ = started => {}
        () = sleep(FIRST_REQUEST) => return guest.closed(Closed::Silent),
    }
    let ended = async {
        tokio::select! {
            _ = answered => {}
            _ = followed => {}
        }
    };
    tokio::select! {
        _ = &mut connection => return,
        () = ended => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(GOODBYE, connection).await;
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(1)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(BUFFER as usize)
        .initial_stream_window_size(BUFFER)
        .initial_connection_window_size(2 * BUFFER);
    builder
}

impl<F: Follower> Server<F> {
    async fn respond(&self, guest: &Guest, request: Request<Incoming>, first: Option<First>) -> Response<AnswerBody> {
        let Some(First { begin, answering, following }) = first else {
            return answer::refused(&Status::resource_exhausted("a connection has one stream"), None);
        };
        guest.asks();
        // If the receiver is gone, the connection has ended.
        let _ = begin.send(());
        match self.follow(guest, request, following).await {
            Ok(frames) => answer::of(frames, answering),
            Err(status) => answer::refused(&status, Some(answering)),
        }
    }

    /// `following` is dropped when the stream has ended.
    async fn follow(
        &self,
        guest: &Guest,
        request: Request<Incoming>,
        following: oneshot::Sender<()>,
    ) -> Result<Answer, Status> {
        let known = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        if known != Some((SERVICE, METHOD)) {
            return Err(Status::unimplemented("no such method"));
        }
        let bearer = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let messages = Messages::new(request.into_body(), self.room.clone()).held_by(following);
        let admitted = timeout(ADMISSION, self.follower.follow(token, messages)).await;
        let Admitted { namespace, answer } = admitted.map_err(|_| Status::unavailable("the operator is busy"))??;
        if guest.authenticate_in(&namespace) {
            return Ok(answer);
        }
        Err(with_retry_after(Status::resource_exhausted("the operator has no place for another proxy"), FULL))
    }
}

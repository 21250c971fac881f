//! The HTTP server of `/livez`, `/readyz` and `/metrics`, at a port and at a unix socket.
//!
//! Any client may connect to the port. A scrape always gets a place: if all places are taken, the source with the most
//! connections loses the connection that has been silent the longest. Pods in the network of a node have the address of
//! its kubelet, and can use up the rate of that address, so kubelet probes the operator at the unix socket.

mod scrapes;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_api::doors::{Rate, Refusal, Turns};
use proxy_grpc::{Closed, Door, Place};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::watch,
    time::{sleep, timeout},
};

use self::scrapes::{Scrape, Scrapes};
use crate::platform::{liveness::Liveness, metrics::Metrics};

/// The time in which a client must send the head of its request.
const HEAD: Duration = Duration::from_secs(2);
/// Timeout of a connection, which has one request: its client must have read the answer by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// The size of the buffers for a request, and for an answer that its client does not read.
const BUFFER: usize = 16 << 10;
/// New connections to the port, each with one request, that one address may open: per second, and as a burst.
const RATE: (u32, u32) = (500, 1000);
/// The source of connections to the unix socket, which have no address.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Pause after `accept` failed, usually for lack of file descriptors, which is temporary.
const ACCEPT: Duration = Duration::from_millis(100);

/// The state that the server reports.
#[derive(Clone)]
pub struct View {
    /// Metrics of the operator.
    pub metrics: Arc<Metrics>,
    /// Whether every cache has synced.
    pub synced: watch::Receiver<bool>,
    /// Whether API servers trust the webhook, or the wait for that has been long enough.
    pub trusted: watch::Receiver<bool>,
    /// Heartbeats of the loops that the replica depends on.
    pub liveness: Liveness,
}

/// State that the connections share.
struct Server {
    view: View,
    scrapes: Scrapes,
}

/// Serves the port until the runtime ends. Every connection needs a place at `door`.
pub async fn serve(listener: TcpListener, view: View, door: Arc<Door>) {
    let server = Arc::new(Server { view, scrapes: Scrapes::default() });
    let (times, burst) = RATE;
    let (started, mut turns) = (Instant::now(), Turns::new(Rate::per_second(times, burst)));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT).await;
            continue;
        };
        // The rate is by address and not by IPv6 /64: Prometheus may be in the /64 of other pods.
        if !turns.take(peer.ip().to_canonical(), started.elapsed()) {
            door.refuse(Refusal::SourceRate);
            continue;
        }
        begin(stream, peer.ip(), &door, &server);
    }
}

/// Serves the unix socket until the runtime ends. Every connection needs a place at `door`.
pub async fn serve_file(listener: UnixListener, view: View, door: Arc<Door>) {
    let server = Arc::new(Server { view, scrapes: Scrapes::default() });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, UNKNOWN, &door, &server),
            Err(_) => sleep(ACCEPT).await,
        }
    }
}

/// Serves one connection. Without a place it is closed at once.
fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: IpAddr,
    door: &Arc<Door>,
    server: &Arc<Server>,
) {
    if let Some(place) = door.admit(peer) {
        tokio::spawn(connection(stream, peer, place, server.clone()));
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr, mut place: Place, server: Arc<Server>) {
    let guest = place.guest();
    // The turn is dropped with the connection, once the client has read the answer.
    let scrape = Scrape::default();
    let service = service_fn(|request| {
        guest.asks();
        let answer = server.answer(&request, &scrape, peer);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that disconnects early is not this server's error.
        ended = timeout(PATIENCE, connection) => if ended.is_err() {
            guest.closed(Closed::Late);
        },
        () = place.taken_back() => {}
    }
}

impl Server {
    fn answer(&self, request: &Request<Incoming>, scrape: &Scrape, peer: IpAddr) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let View { metrics, synced, trusted, liveness } = &self.view;
        match request.uri().path() {
            "/readyz" if !*synced.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "not every cache has synced yet\n"),
            "/readyz" if !*trusted.borrow() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "API servers do not trust the webhook yet\n")
            }
            "/livez" => match liveness.complaint() {
                None => text(StatusCode::OK, "ok\n"),
                Some(complaint) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{complaint}\n")),
            },
            "/readyz" => text(StatusCode::OK, "ok\n"),
            "/metrics" if !self.scrapes.begin(scrape, peer) => {
                let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once; try again\n");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            "/metrics" => match self.scrapes.text(Instant::now(), || metrics.text()) {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n"),
            },
            path => {
                let path: String = path.chars().take(80).collect();
                let body = format!("nothing at {path}; try GET /livez, /readyz or /metrics\n");
                text(StatusCode::NOT_FOUND, body)
            }
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    if status == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

#[cfg(test)]
mod tests {
    use proxy_api::doors::{Bounds, Evict};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn started() -> std::net::SocketAddr {
        counting(|_| {}).await
    }

    /// The address of a server that counts the connections which it closes.
    async fn counting(count: impl Fn(Closed) + Send + Sync + 'static) -> std::net::SocketAddr {
        serving(Liveness::default(), count).await
    }

    async fn serving(liveness: Liveness, count: impl Fn(Closed) + Send + Sync + 'static) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (_, yes) = watch::channel(true);
        let view = View { metrics: Arc::default(), synced: yes.clone(), trusted: yes, liveness };
        let bounds = Bounds { strangers: 8, per_source: 8, known: 0, evict: Evict::Any, rates: None };
        tokio::spawn(serve(listener, view, Door::new(bounds, count)));
        address
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await;
        read.expect("in time").expect("an answer");
        answer
    }

    // C4
    #[tokio::test]
    async fn livez_fails_and_names_a_loop_that_hangs() {
        let (liveness, _driver) = Liveness::with_silent("the driver", Duration::from_secs(60));
        let answer = ask(serving(liveness, |_| {}).await, "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let is_named = answer.contains("the driver has not made progress for ");
        assert!(answer.starts_with("HTTP/1.1 503") && is_named, "{answer}");
    }

    // C3
    #[tokio::test]
    async fn a_newcomer_gets_in_while_slow_clients_hold_every_place() {
        let address = started().await;
        let mut slow = Vec::new();
        for at in 0..40 {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            // Half of them have asked for what is large, and never read it.
            let request =
                if at % 2 == 0 { "GET /livez HTTP/1.1\r\n" } else { "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" };
            let _ = stream.write_all(request.as_bytes()).await;
            slow.push(stream);
        }
        let answer = ask(address, "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    }

    // C3
    #[tokio::test]
    async fn an_address_that_asks_too_often_is_refused_and_another_is_answered() {
        let (refused, was_refused) = watch::channel(false);
        let address = counting(move |why| {
            if why == Closed::Refused(Refusal::SourceRate) {
                refused.send_replace(true);
            }
        })
        .await;
        for _ in 0..100_000 {
            drop(TcpStream::connect(address).await);
            if *was_refused.borrow() {
                break;
            }
        }
        assert!(*was_refused.borrow(), "an address may not connect as often as it likes");
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
        let mut other = socket.connect(address).await.expect("connected");
        other.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(10), other.read_to_string(&mut answer)).await;
        read.expect("in time").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    // T12
    #[tokio::test]
    async fn head_is_answered_like_get_without_a_body_and_other_methods_are_refused() {
        let address = started().await;
        let answer = ask(address, "HEAD /readyz HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = ask(address, "POST /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    }
}

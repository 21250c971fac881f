//! The HTTPS server that API servers call, for the webhook and for the aggregated APIs.
//!
//! Every phase of a connection has a time limit: handshake, head, body, whole request, pause between requests. If every
//! place is taken, a new connection gets the place of one that waits for its client, so that an API server always gets
//! a place.

mod answer;
mod body;
mod pace;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_api::doors::{Rate, Turns};
use proxy_grpc::{Closed, Door, Guest, Place};
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{ResolvesServerCert, WebPkiClientVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub use self::answer::{Answer, Content};
use self::{
    answer::Pieces,
    body::{BodyError, Pool, Room},
    pace::{Noted, Pace},
};
use super::ending::Ending;

/// TLS handshake timeout.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The size of the buffers for a request, and for an answer that its client does not read.
const BUFFER: usize = 64 << 10;
/// The most requests of one source in progress. API servers send one request at a time over a connection, and repeat a
/// request that was refused with `Retry-After`. This bound leaves places at the door for connections without a request:
/// a new connection evicts one of these, and never a request in progress.
const REQUESTS: usize = 192;
/// Requests of one source: per second, and as a burst. Further requests wait for their turn, at most 0.4 s, because at
/// most [`REQUESTS`] of them wait. One thread answers some 2,000 a second.
const REQUEST_RATE: (u32, u32) = (500, 1000);
/// The time for which a connection without requests stays open after the end has begun. A client that sends a request
/// as its connection closes gets no answer; a busy connection has closed after an answer by then.
const LINGER: Duration = Duration::from_secs(2);
/// Pause after `accept` failed, usually for lack of file descriptors, which is temporary.
const ACCEPT: Duration = Duration::from_millis(100);

/// The serving certificate of a server, with the client CAs and common names that the server accepts.
pub struct TlsContext {
    config: Arc<ServerConfig>,
    /// Accepted common names of clients. Empty: every name. Absent: clients need no certificate.
    names: Option<BTreeSet<String>>,
}

impl TlsContext {
    /// A context that admits every client.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn without_client_auth(leaf: Arc<dyn ResolvesServerCert>) -> Result<Self, proxy_grpc::TlsError> {
        let mut config = proxy_grpc::server_config(leaf)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), names: None })
    }

    /// A context that admits clients whose certificate is signed by one of these CAs (PEM) and has one of these common
    /// names, or any name if the set is empty.
    ///
    /// # Errors
    /// The CA certificates cannot be used.
    pub fn with_client_auth(
        leaf: Arc<dyn ResolvesServerCert>,
        roots: &str,
        names: BTreeSet<String>,
    ) -> Result<Self, proxy_grpc::TlsError> {
        let failed = |error: rustls::Error| proxy_grpc::TlsError::Tls(error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(proxy_grpc::roots(roots)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let verifier = verifier.map_err(|error| failed(rustls::Error::General(error.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(leaf);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), names: Some(names) })
    }

    /// Whether a client's certificate has one of the accepted names.
    fn admits(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        let Some(names) = &self.names else { return true };
        let own = certificates.and_then(<[_]>::first);
        let Some(Ok((_, own))) = own.map(|own| x509_parser::parse_x509_certificate(own)) else { return false };
        let mut known = own.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.is_empty() || known.any(|name| names.contains(name))
    }
}

/// A handler of requests.
pub trait Answers: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, method: Method, path: String, query: String, body: Bytes) -> impl Future<Output = Answer> + Send;
}

/// State that the connections share.
struct Server<A> {
    answers: Arc<A>,
    room: Room,
    requests: Pool,
    started: Instant,
    /// The request rates of sources.
    turns: Mutex<Turns>,
    ending: Ending,
}

/// Serves until the runtime ends. Once `ending` has begun, connections close after an answer. Every connection needs a
/// place at `door`. While the TLS context is absent, connections are closed at once.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Option<Arc<TlsContext>>>,
    answers: Arc<impl Answers>,
    door: Arc<Door>,
    ending: Ending,
) {
    let server = Arc::new(Server::new(answers, ending));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT).await;
            continue;
        };
        let Some(tls) = tls.borrow().clone() else { continue };
        // Without a place the connection is closed at once.
        if let Some(place) = door.admit(peer.ip()) {
            tokio::spawn(connection((stream, peer.ip()), place, tls, server.clone()));
        }
    }
}

async fn connection<A: Answers>(
    (stream, source): (TcpStream, IpAddr),
    mut place: Place,
    tls: Arc<TlsContext>,
    server: Arc<Server<A>>,
) {
    let guest = place.guest();
    let _open = server.ending.open();
    let work = async {
        // A failure only delays answers a little.
        let _ = stream.set_nodelay(true);
        let accepted = timeout(HANDSHAKE, TlsAcceptor::from(tls.config.clone()).accept(stream)).await;
        match accepted {
            Ok(Ok(stream)) if tls.admits(stream.get_ref().1.peer_certificates()) => {
                // A client without a certificate stays among the strangers.
                if tls.names.is_none() || guest.authenticate() {
                    exchange((stream, source), guest, server).await;
                }
            }
            _ => guest.closed(Closed::Handshake),
        }
    };
    tokio::select! {
        () = work => {}
        () = place.taken_back() => {}
    }
}

/// Answers the requests of one connection.
async fn exchange<A: Answers>((stream, source): (TlsStream<TcpStream>, IpAddr), guest: Guest, server: Arc<Server<A>>) {
    let (pace, mut deadline) = Pace::new(guest.clone());
    let (counted, asking) = (pace.clone(), guest.clone());
    let mut ending = server.ending.clone();
    let mut last_call = pin!(async {
        ending.begun().await;
        sleep(LINGER).await;
    });
    let mut is_last = false;
    let service = service_fn(move |request| {
        counted.asked();
        let (server, counted, guest) = (server.clone(), counted.clone(), asking.clone());
        async move {
            let response = server.response(request, source, &guest).await;
            counted.answered();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // `Pace` limits the time for the head of a request and for the pause before it.
        .header_read_timeout(None::<Duration>)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Noted::new(stream, pace.clone())), service);
    let mut connection = pin!(connection);
    loop {
        let due = *deadline.borrow_and_update();
        tokio::select! {
            // A client that disconnects early is not this server's error.
            _ = &mut connection => return,
            () = sleep_until(due) => {
                if let Some(why) = pace.why() {
                    guest.closed(why);
                }
                return;
            }
            Ok(()) = deadline.changed() => {}
            () = &mut last_call, if !is_last => {
                is_last = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

impl<A: Answers> Server<A> {
    fn new(answers: Arc<A>, ending: Ending) -> Self {
        let (times, burst) = REQUEST_RATE;
        let (requests, room) = (Pool::new(usize::MAX, REQUESTS), Room::default());
        let turns = Mutex::new(Turns::new(Rate::per_second(times, burst)));
        Self { answers, room, requests, started: Instant::now(), turns, ending }
    }

    /// Waits until it is the turn of a request of this source.
    async fn turn(&self, source: IpAddr) {
        let now = self.started.elapsed();
        let wait = self.turns.lock().unwrap_or_else(PoisonError::into_inner).wait(source, now);
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    async fn response(&self, request: Request<Incoming>, source: IpAddr, guest: &Guest) -> Response<Pieces> {
        let answered = self.answer(request, source, guest).await;
        let is_refused = answered.is_err();
        let answer = answered.unwrap_or_else(|refusal| refusal);
        let is_busy = answer.status == StatusCode::TOO_MANY_REQUESTS;
        // If only the API is busy, the connection stays open: reconnects could use up the new connections that the door
        // admits from an API server, and the other APIs would find no place.
        let is_turned_away = is_busy && is_refused;
        if is_turned_away {
            guest.closed(Closed::Busy);
        }
        let (kind, body) = answer.content.into_body();
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        if is_turned_away || self.ending.has_begun() || answer.status == StatusCode::SERVICE_UNAVAILABLE {
            // A new connection may reach a replica that can answer.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if is_busy {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    /// Returns the answer of the API, or the refusal of this server.
    async fn answer(&self, request: Request<Incoming>, source: IpAddr, guest: &Guest) -> Result<Answer, Answer> {
        let refusal = |status, why| Err(Answer::plain(status, why));
        let (head, body) = request.into_parts();
        let Ok(_in_work) = self.requests.take(source, 1) else {
            guest.waits();
            body::skip(body).await;
            return refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests of this client are in progress");
        };
        // The body of the request stays unread until then.
        self.turn(source).await;
        // A client that never sends the body of its request counts as silent, like one without a request.
        guest.waits();
        let collected = self.room.collect((source, guest.is_known()), body).await;
        guest.asks();
        match collected {
            Err(BodyError::Late) => refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
            Err(BodyError::TooLarge) => refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Err(BodyError::Incomplete) => refusal(StatusCode::BAD_REQUEST, "the body is incomplete"),
            Err(BodyError::Busy) => {
                refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests with large bodies are in progress")
            }
            Ok((body, _room)) => {
                let query = head.uri.query().unwrap_or_default().to_owned();
                Ok(self.answers.answer(head.method, head.uri.path().to_owned(), query, body).await)
            }
        }
    }
}

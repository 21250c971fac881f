//! Serves the HTTP addresses. A new connection always gets a place: if all are taken, the source with the most
//! connections loses the connection that has waited longest for its client. So silent clients cannot keep a probe out.

use std::{
    convert::Infallible,
    future::ready,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_api::doors::Refusal;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Role, View, answer, refused_method, text, typed};
use crate::{door::Place, http_doors::Doors};

/// An unknown address, as at the unix socket.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Timeout for receiving a request.
const HEADERS: Duration = Duration::from_secs(1);
/// Most buffered bytes of a request, and of an answer that its client does not read.
const BUFFER: usize = 16 << 10;
/// Timeout for a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a page follows on one connection, after which it opens another. Clients that have vanished must not
/// keep places.
const FOLLOWED: Duration = Duration::from_secs(300);
/// Content type of the texts of another program: Prometheus reads its metrics.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection and its places.
#[derive(Debug)]
pub(super) struct Guest {
    /// The endpoints that the connection may request.
    pub(super) role: Role,
    /// The address that the listener is bound to.
    pub(super) bound: IpAddr,
    source: IpAddr,
    place: Place,
    /// The place among the scrapes, once the connection has requested metrics.
    scrape: OnceLock<Place>,
    /// The place among the pages that follow, once the connection has requested events.
    following: OnceLock<Place>,
    /// Closes the connection of a page that does not read.
    pub(super) cut: Arc<Notify>,
}

impl Guest {
    /// Takes a place among the scrapes until the connection ends. Returns false if all are taken.
    pub(super) fn scrapes(&self, doors: &Doors) -> bool {
        let Ok(place) = doors.scrapes.enter_beside(self.source, &self.place) else { return false };
        // A connection carries one request.
        let _ = self.scrape.set(place);
        true
    }

    /// Takes a place among the pages that follow until the connection ends. Returns false if all are taken.
    pub(super) fn follows(&self, doors: &Doors) -> bool {
        let Ok(place) = doors.events.enter_beside(self.source, &self.place) else { return false };
        let _ = self.following.set(place);
        true
    }

    /// Waits until the connection has used up its time.
    async fn is_over(&self) {
        sleep(PATIENCE).await;
        if self.following.get().is_some() {
            // Whichever is first.
            let _ = timeout(FOLLOWED.saturating_sub(PATIENCE), self.cut.notified()).await;
        }
    }
}

/// Serves an address until the runtime ends.
pub async fn serve(listener: std::net::TcpListener, role: Role, view: View) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let bound = listener.local_addr().map_or(UNKNOWN, |address| address.ip());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => begin(stream, (peer.ip(), bound), role, &view),
            Err(_) => sleep(PAUSE).await,
        }
        // Let a connection whose place was taken back close before the next one is accepted.
        yield_now().await;
    }
}

/// Serves a unix socket until the runtime ends.
pub async fn serve_file(listener: std::os::unix::net::UnixListener, view: View) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, (UNKNOWN, UNKNOWN), Role::Local, &view),
            Err(_) => sleep(PAUSE).await,
        }
        yield_now().await;
    }
}

fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    (source, bound): (IpAddr, IpAddr),
    role: Role,
    view: &View,
) {
    if let Some(guest) = guest(source, bound, role, view) {
        tokio::spawn(converse(stream, guest, view.clone()));
    }
}

/// Serves one connection that `source` has made to the address `bound`, and ends with it. For a stream that no listener
/// accepted; without a place it is closed at once.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (source, bound): (IpAddr, IpAddr),
    role: Role,
    view: View,
) {
    if let Some(guest) = guest(source, bound, role, &view) {
        converse(stream, guest, view).await;
    }
}

fn guest(source: IpAddr, bound: IpAddr, role: Role, view: &View) -> Option<Arc<Guest>> {
    let place = enter(&view.process.doors, role, source).ok()?;
    let (scrape, following) = (OnceLock::new(), OnceLock::new());
    Some(Arc::new(Guest { role, bound, source, place, scrape, following, cut: Arc::default() }))
}

fn enter(doors: &Doors, role: Role, source: IpAddr) -> Result<Place, Refusal> {
    match role {
        Role::Health => doors.enter_health(source),
        Role::Admin => doors.admin.enter(source),
        Role::Local => doors.local.enter(source),
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, guest: Arc<Guest>, view: View) {
    let asking = guest.clone();
    let service = service_fn(move |request| {
        let (view, guest) = (view.clone(), asking.clone());
        async move {
            guest.place.asks();
            Ok::<_, Infallible>(answer(&guest, &view, &request).await)
        }
    });
    let connection = http().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = guest.place.taken_back() => {}
        // A client may disconnect at any time.
        _ = connection => {}
        () = guest.is_over() => {}
    }
}

/// The HTTP settings of every address: one request per connection, within bounds.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER).keep_alive(false);
    http
}

/// Serves one connection of a program that is no proxy, and ends with it: GET and HEAD of the paths for which `look`
/// finds a text. An error is the text of a fault, with status 503. `known` tells which paths exist.
pub async fn serve_texts(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: &Place,
    known: &str,
    look: impl Fn(&str) -> Option<Result<String, String>>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        place.asks();
        let path = request.uri().path();
        ready(Ok::<_, Infallible>(found(request.method(), path, look(path), known)))
    });
    let connection = http().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = place.taken_back() => {}
        // A client may disconnect at any time.
        _ = connection => {}
        () = sleep(PATIENCE) => {}
    }
}

/// The answer with a text that was found.
fn found(
    method: &Method,
    path: &str,
    text_there: Option<Result<String, String>>,
    known: &str,
) -> Response<Full<Bytes>> {
    let Some(text_there) = text_there else { return text(StatusCode::NOT_FOUND, known) };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return refused_method(path, "GET, HEAD");
    }
    match text_there {
        Ok(body) => typed(TEXT, body),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::doors::{Bounds, Evict};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::{clock::Clock, door::Door};

    /// The answer of a program with two paths to a client's bytes.
    async fn asked(sent: &str) -> String {
        let bounds = Bounds { strangers: 1, per_source: 1, known: 0, evict: Evict::Any, rates: None };
        let place = Door::new(bounds, Clock::start()).enter(UNKNOWN).expect("a place");
        let (mut client, server) = duplex(64 << 10);
        client.write_all(sent.as_bytes()).await.expect("written");
        serve_texts(server, &place, "try /works\n", |path| match path {
            "/works" => Some(Ok("1\n".to_owned())),
            "/fails" => Some(Err("why\n".to_owned())),
            _ => None,
        })
        .await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn a_text_is_told_to_get_and_head_and_other_requests_what_there_is() {
        for (request, status, end) in [
            ("GET /works", "200", "\r\n\r\n1\n"),
            ("GET /works?verbose", "200", "\r\n\r\n1\n"),
            ("HEAD /works", "200", "\r\n\r\n"),
            ("GET /fails", "503", "\r\n\r\nwhy\n"),
            ("GET /", "404", "\r\n\r\ntry /works\n"),
            ("POST /works", "405", "\r\n\r\n/works answers GET, HEAD only\n"),
        ] {
            let answer = asked(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(end), "{request}: {answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_request_is_refused_and_one_without_an_end_is_waited_for_no_longer_than_a_second() {
        assert!(asked("\0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let long = format!("GET /works HTTP/1.1\r\nA: {}", "a".repeat(BUFFER));
        assert!(asked(&long).await.starts_with("HTTP/1.1 431 "));
        let began = tokio::time::Instant::now();
        let answer = asked("GET /works HTTP/1.1\r\nHost: a\r\n").await;
        assert!(!answer.contains("200") && began.elapsed() <= HEADERS * 2, "{answer}");
    }
}

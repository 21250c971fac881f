//! Serves the page on loopback: to clients that know the token in its path, for requests that name this machine. Up to
//! four pages follow at a time.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
    http::uri::Authority,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kubectl_core::page::{Notice, Page, State};
use portlane_page::request::{are_own, below, is_of_another_page};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

/// The most connections at a time; further ones are closed. Following pages leave places for other requests.
const CONNECTIONS: usize = 16;
/// The most following pages at a time; further ones are refused.
const FOLLOWERS: usize = 4;
/// Timeout for receiving a request.
const HEADERS: Duration = Duration::from_secs(2);
/// The size of the buffers for a request, and for an answer that its client does not read.
const BUFFER: usize = 16 << 10;
/// Longest time of a connection. A page that follows reconnects, and a client that has vanished keeps no place.
const FOLLOWED: Duration = Duration::from_secs(300);
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause of a browser before it opens a stream again, in milliseconds.
const RETRY: u32 = 1_000;

/// The body of a response: whole, or a stream of events.
type Content = UnsyncBoxBody<Bytes, Infallible>;

/// The state of the server.
#[derive(Debug)]
pub(super) struct Site {
    token: String,
    shown: watch::Sender<Option<Arc<Shown>>>,
    followers: Arc<Semaphore>,
    /// Notified when a page begins to follow.
    joined: Notify,
}

/// The last state, encoded once for all.
#[derive(Debug)]
struct Shown {
    state: Bytes,
    notices: Bytes,
    /// Number of the last notice; 0 before the first.
    number: u64,
    sessions: Bytes,
}

/// A page that follows.
struct Follower {
    shown: watch::Receiver<Option<Arc<Shown>>>,
    /// Number of the last notice that the page received.
    notice: Option<u64>,
    _place: OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct Notices {
    notices: Vec<Notice>,
}

/// Generates an unguessable token of 128 bits.
pub(super) fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

impl Site {
    /// A site without a state to show yet.
    pub(super) fn new(token: String) -> Self {
        let followers = Arc::new(Semaphore::new(FOLLOWERS));
        Self { token, shown: watch::Sender::new(None), followers, joined: Notify::new() }
    }

    /// Waits until a page follows.
    pub(super) async fn is_followed(&self) {
        while self.shown.receiver_count() == 0 {
            self.joined.notified().await;
        }
    }

    /// Shows a state, with the notices and sessions of its page.
    pub(super) fn show(&self, state: &State, page: &Page) {
        let notices = page.notices();
        let number = notices.last().map_or(0, |notice| notice.number);
        self.shown.send_replace(Some(Arc::new(Shown {
            state: frame("state", state),
            notices: frame("notices", &Notices { notices }),
            number,
            // Serialization fails only for maps without text keys, and there are none.
            sessions: serde_json::to_vec(&page.sessions()).unwrap_or_default().into(),
        })));
    }

    /// Returns the stream for another page.
    fn follow(&self, place: OwnedSemaphorePermit) -> Content {
        let mut shown = self.shown.subscribe();
        // The last state, if there is one, is sent at once.
        shown.mark_changed();
        self.joined.notify_one();
        StreamBody::new(stream::unfold(Follower { shown, notice: None, _place: place }, next)).boxed_unsync()
    }
}

/// Returns the next event of a page. A page that does not read misses states.
async fn next(mut follower: Follower) -> Option<(Result<Frame<Bytes>, Infallible>, Follower)> {
    loop {
        follower.shown.changed().await.ok()?;
        let shown = follower.shown.borrow_and_update().clone();
        let Some(shown) = shown else { continue };
        let lacks = follower.notice.replace(shown.number) != Some(shown.number);
        let event: Bytes =
            if lacks { [&shown.notices[..], &shown.state[..]].concat().into() } else { shown.state.clone() };
        return Some((Ok(Frame::data(event)), follower));
    }
}

/// One event of a stream. JSON has no line breaks, which would end the data.
fn frame(event: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("retry: {RETRY}\nevent: {event}\ndata: {data}\n\n").into()
}

/// Serves until the program ends.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        if let Ok(place) = places.clone().try_acquire_owned() {
            let site = site.clone();
            tokio::spawn(async move {
                converse(stream, site).await;
                drop(place);
            });
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, site: Arc<Site>) {
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(answer(&site, &request)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client may disconnect at any time.
    let _ = timeout(FOLLOWED, connection).await;
}

fn answer(site: &Site, request: &Request<Incoming>) -> Response<Content> {
    if !names_this_machine(request) {
        return text(StatusCode::FORBIDDEN, "the request names another host: use 127.0.0.1\n");
    }
    let Some(path) = below(request.uri().path(), &site.token) else {
        return text(StatusCode::NOT_FOUND, "use the address that kubectl portlane ui has printed\n");
    };
    // The answer to HEAD has no body, and an event stream consists only of its body.
    let allowed = if path == "events" { "GET" } else { "GET, HEAD" };
    if !allowed.split(", ").any(|method| request.method() == method) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "the page is read with GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    match path {
        "events" | "conns" if is_foreign(request) => {
            text(StatusCode::FORBIDDEN, "requests from web pages of other addresses are refused\n")
        }
        "events" => match site.followers.clone().try_acquire_owned() {
            Ok(place) => typed("text/event-stream", site.follow(place)),
            Err(_) => too_many_follow(),
        },
        "conns" => {
            let sessions = site.shown.borrow().as_ref().map(|shown| shown.sessions.clone());
            typed("application/json", whole(sessions.unwrap_or_else(|| Bytes::from_static(b"[]"))))
        }
        _ => file(path),
    }
}

/// Whether every host that a request names is this machine: a web page whose name an attacker has made to resolve to
/// loopback sends the attacker's name.
fn names_this_machine(request: &Request<Incoming>) -> bool {
    let named = request.uri().authority().map(Authority::as_str);
    let headers = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    are_own(named.into_iter().chain(headers), IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether a browser sent the request for another web page.
fn is_foreign(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    is_of_another_page(headers.contains_key(ORIGIN), site)
}

fn file(path: &str) -> Response<Content> {
    let Some(file) = portlane_page::file(&format!("/{path}")) else {
        return text(StatusCode::NOT_FOUND, "the page has no such file\n");
    };
    let mut response = Response::new(whole(Bytes::from_static(file.content.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    for (name, value) in portlane_page::HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn too_many_follow() -> Response<Content> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too many pages follow: close one of them\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Content> {
    let mut response = typed("text/plain; charset=utf-8", whole(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

fn typed(content_type: &'static str, body: Content) -> Response<Content> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A browser must neither interpret texts of clients as a page, nor store them.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn whole(body: Bytes) -> Content {
    Full::new(body).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn site() -> Arc<Site> {
        Arc::new(Site::new("secret".to_owned()))
    }

    /// A client that has sent a request with these lines.
    async fn client(site: &Arc<Site>, request: &str) -> DuplexStream {
        let (mut client, theirs) = duplex(1 << 16);
        tokio::spawn(converse(theirs, site.clone()));
        client.write_all(format!("{request}\r\n\r\n").as_bytes()).await.expect("written");
        client
    }

    /// The status of the answer to a request with these lines, and all of the answer.
    async fn ask(site: &Arc<Site>, request: &str) -> (String, String) {
        let mut answer = String::new();
        client(site, request).await.read_to_string(&mut answer).await.expect("an answer");
        (answer.split(' ').nth(1).unwrap_or_default().to_owned(), answer)
    }

    /// Reads until the text has come.
    async fn until(client: &mut DuplexStream, text: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(text) {
            let mut chunk = [0; 1 << 12];
            let length = timeout(Duration::from_secs(10), client.read(&mut chunk)).await.expect("in time");
            let length = length.expect("readable");
            assert!(length > 0, "the stream ends before {text}");
            read.extend_from_slice(&chunk[..length]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    #[tokio::test]
    async fn only_those_who_know_the_token_and_name_this_machine_are_served() {
        let site = site();
        for (line, host, expected) in [
            ("GET /secret/", "127.0.0.1:1", "200"),
            ("GET /secret/page.js", "localhost", "200"),
            ("GET /secret/conns?limit=500", "localhost", "200"),
            ("GET /secret/nothing", "localhost", "404"),
            ("HEAD /secret/", "localhost", "200"),
            ("HEAD /secret/page.js", "localhost", "200"),
            ("HEAD /secret/conns", "localhost", "200"),
            ("HEAD /secret/events", "localhost", "405"),
            ("POST /secret/", "localhost", "405"),
            ("GET /", "localhost", "404"),
            ("GET /secret", "localhost", "404"),
            ("GET /secreT/", "localhost", "404"),
            ("GET /page.js", "localhost", "404"),
            ("GET /events", "localhost", "404"),
            ("GET /secret/", "evil.example", "403"),
            ("GET /secret/events", "evil.example", "403"),
        ] {
            let (status, answer) = ask(&site, &format!("{line} HTTP/1.1\r\nHost: {host}")).await;
            assert_eq!(status, expected, "{line} of {host}: {answer}");
            assert!(!line.starts_with("HEAD") || answer.ends_with("\r\n\r\n"), "{line} has a body: {answer}");
        }
        for path in ["events", "conns"] {
            let request = format!("GET /secret/{path} HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-site");
            assert_eq!(ask(&site, &request).await.0, "403", "a page of another port asks for {path}");
        }
    }

    #[tokio::test]
    async fn a_page_gets_the_last_state_at_once_and_the_next_one_when_it_comes() {
        let (site, mut page) = (site(), Page::new("here".to_owned(), Duration::from_secs(9)));
        let state = page.fail(1, "first".to_owned());
        site.show(&state, &page);
        let mut client = client(&site, "GET /secret/events HTTP/1.1\r\nHost: localhost").await;
        let first = until(&mut client, "first").await;
        assert!(first.contains("text/event-stream") && first.contains("event: notices"), "{first}");
        timeout(Duration::from_secs(10), site.is_followed()).await.expect("it follows");
        let state = page.fail(2, "second".to_owned());
        site.show(&state, &page);
        let second = until(&mut client, "second").await;
        assert!(second.contains("event: state") && !second.contains("event: notices"), "no notice is new: {second}");
    }

    #[tokio::test]
    async fn a_page_too_many_is_refused_until_another_leaves() {
        let site = site();
        let events = "GET /secret/events HTTP/1.1\r\nHost: localhost";
        let mut all = Vec::new();
        for _ in 0..FOLLOWERS {
            let mut client = client(&site, events).await;
            until(&mut client, "200 OK").await;
            all.push(client);
        }
        let (status, answer) = ask(&site, events).await;
        assert!(status == "503" && answer.contains("retry-after: 5"), "{answer}");
        all.pop();
        let freed = timeout(Duration::from_secs(10), site.followers.acquire()).await;
        drop(freed.expect("in time").expect("open"));
        let mut client = client(&site, events).await;
        until(&mut client, "200 OK").await;
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_refused_before_it_takes_memory() {
        let head = "GET /secret/ HTTP/1.1\r\nX: ";
        let (mut client, theirs) = duplex(1 << 16);
        tokio::spawn(converse(theirs, site()));
        let sent = format!("{head}{}", "x".repeat(BUFFER - head.len()));
        client.write_all(sent.as_bytes()).await.expect("written");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[test]
    fn no_token_comes_twice() {
        let (one, other) = (token().expect("random"), token().expect("random"));
        assert!(one.len() == 32 && one != other);
    }
}

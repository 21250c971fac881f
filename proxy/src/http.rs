//! The HTTP endpoints of a proxy: health (livez, readyz, metrics) and admin (a page, config, conns, drain).
//! The control thread serves both, so that a scrape takes no time from workers.

mod conns;
mod drain;
mod events;
mod health;
mod page;
mod scrape;
mod serve;

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use portlane_page::request::{are_own, is_of_another_page};
use proxy_api::Report;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::serve::{serve, serve_file, serve_stream, serve_texts};
use self::{
    events::{Content, Feed},
    scrape::Scraped,
    serve::Guest,
};
use crate::{core::control::reports::Published, listen, metrics::Metrics, process::Process, supervisor::Control};

/// Most sessions that /conns lists.
pub const SESSIONS: usize = 10_000;
/// The answer of a process that is shutting down to most requests.
pub const ENDING: &str = "the proxy is shutting down";
/// Content type of a stream of server-sent events.
const STREAM: &str = "text/event-stream";

/// Data behind the endpoints.
#[derive(Clone)]
pub struct View {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// State of the listeners.
    pub report: watch::Receiver<Published>,
    /// Queue of the control thread.
    pub control: mpsc::Sender<Control>,
    /// State behind /startupz.
    pub startup: Startup,
    /// State behind /livez.
    pub process: Process,
    scraped: Arc<Scraped>,
    feed: Arc<Feed>,
}

impl View {
    /// Creates a view of this proxy.
    #[must_use]
    pub fn new(
        process: Process,
        metrics: Arc<Metrics>,
        report: watch::Receiver<Published>,
        control: mpsc::Sender<Control>,
        startup: Startup,
    ) -> Self {
        Self { metrics, report, control, startup, process, scraped: Arc::default(), feed: Arc::default() }
    }

    /// Whether the proxy drains: its listeners are closed, and it ends with its last session.
    fn is_draining(&self) -> bool {
        self.control.is_closed()
    }

    /// The state of the listeners.
    fn listeners(&self) -> Arc<Report> {
        self.report.borrow().shown(self.is_draining())
    }
}

/// The set of endpoints an address serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For kubelet and Prometheus.
    Health,
    /// For the administrator of the host.
    Admin,
    /// Both, plus /startupz; for every client that may open the unix socket.
    Local,
}

/// How long the app of a sidecar waits for the first configuration.
#[derive(Clone, Copy, Debug)]
pub struct Startup {
    /// Start time of the proxy.
    pub since: Instant,
    /// Longest wait.
    pub patience: Duration,
    /// Whether the proxy is a sidecar, so that an app waits.
    pub beside_app: bool,
}

/// Binds an address. Done before anything else, so that a taken address is reported at start.
///
/// # Errors
/// The address cannot be bound.
pub fn open(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = listen::open(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds a unix socket; replaces the socket of a previous process, and no other file.
///
/// # Errors
/// The socket cannot be created, or another file has the path.
pub fn open_file(path: &Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn answer(guest: &Guest, view: &View, request: &Request<Incoming>) -> Response<Content> {
    let answered = match refused(guest, request) {
        Some(refusal) => refusal,
        None if is_to_follow(guest.role, request) => {
            if guest.follows(&view.process.doors) {
                return stream(view, guest);
            }
            too_many_follow()
        }
        None => respond(guest, view, request).await,
    };
    answered.map(Content::Whole)
}

/// The answer to a request that is refused because of its origin.
fn refused(guest: &Guest, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    // Every client that reaches the admin address may use it, and a browser on this machine does so for any web page.
    if guest.role == Role::Admin && !names_this_machine(request, guest.bound) {
        return Some(text(StatusCode::FORBIDDEN, "the request names another host: use localhost or 127.0.0.1\n"));
    }
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    // A web page open on this machine must not be able to end sessions, nor to take the places of followers.
    let does_something = request.method() == Method::POST || is_to_follow(guest.role, request);
    if guest.role != Role::Health && does_something && is_of_another_page(headers.contains_key(ORIGIN), site) {
        return Some(text(StatusCode::FORBIDDEN, "requests from web pages are refused\n"));
    }
    None
}

/// Whether the request asks for the stream of states.
fn is_to_follow(role: Role, request: &Request<Incoming>) -> bool {
    role == Role::Admin && request.method() == Method::GET && request.uri().path() == "/events"
}

fn stream(view: &View, guest: &Guest) -> Response<Content> {
    let mut response = Response::new(events::follow(view, guest.cut.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn too_many_follow() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too many pages follow this proxy: close one of them\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

async fn respond(guest: &Guest, view: &View, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    // The server sends no body in response to HEAD.
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let path = request.uri().path();
    let Some(served) = methods(guest.role, path) else {
        return text(StatusCode::NOT_FOUND, &format!("no endpoint {path}; {}\n", known(guest.role)));
    };
    match (method, path) {
        (&Method::GET, "/startupz") => health::started(view),
        (&Method::GET, "/livez") => health::live(view, view.process.clock.seconds()),
        (&Method::GET, "/readyz") => health::ready(view, guest.role),
        (&Method::GET, "/metrics") => metrics(guest, view),
        (&Method::GET, "/config") => config(view).await,
        (&Method::GET, "/listeners") => json(serde_json::to_string_pretty(&*view.listeners())),
        (&Method::GET, "/lag") => json(serde_json::to_string_pretty(&view.metrics.lag())),
        (&Method::GET, "/conns") => conns::list(view, request.uri().query()).await,
        // Only HEAD gets here.
        (&Method::GET, "/events") => typed(STREAM, ""),
        (&Method::POST, "/drain") => drain::begin(view, guest.role, request.uri().query()).await,
        (&Method::GET, _) => page::file(path).unwrap_or_else(|| refused_method(path, served)),
        _ => refused_method(path, served),
    }
}

/// The methods of an endpoint, if the role has it.
fn methods(role: Role, path: &str) -> Option<&'static str> {
    use Role::{Admin, Health, Local};
    match (role, path) {
        (Local, "/startupz")
        | (Health | Local, "/livez" | "/readyz" | "/metrics")
        | (Admin | Local, "/config" | "/listeners" | "/lag" | "/conns")
        | (Admin, "/" | "/page.css" | "/page.js" | "/events") => Some("GET, HEAD"),
        (Admin | Local, "/drain") => Some("POST"),
        _ => None,
    }
}

/// The answer to a method that an endpoint does not have.
fn refused_method(path: &str, served: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} answers {served} only\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(served));
    response
}

fn known(role: Role) -> &'static str {
    match role {
        Role::Health => "try GET /livez, /readyz or /metrics",
        Role::Admin => "try GET / (a page), /events, /config, /listeners, /lag or /conns, or POST /drain?seconds=N",
        Role::Local => {
            "try GET /livez, /readyz, /startupz, /metrics, /config, /listeners, /lag or /conns, or POST /drain?seconds=N"
        }
    }
}

/// Whether every host that a request names is this machine.
fn names_this_machine(request: &Request<Incoming>, bound: IpAddr) -> bool {
    let named = request.uri().authority().map(hyper::http::uri::Authority::as_str);
    let headers = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    are_own(named.into_iter().chain(headers), bound)
}

fn metrics(guest: &Guest, view: &View) -> Response<Full<Bytes>> {
    if !guest.scrapes(&view.process.doors) {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n");
    }
    match view.scraped.body(&view.metrics) {
        Ok(body) => typed("application/openmetrics-text; version=1.0.0; charset=utf-8", body),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n"),
    }
}

async fn config(view: &View) -> Response<Full<Bytes>> {
    let (reply, answer) = oneshot::channel();
    if view.control.send(Control::Current(reply)).await.is_err() {
        return ending();
    }
    match answer.await {
        Ok(configuration) => json(serde_json::to_string_pretty(&configuration)),
        Err(_) => ending(),
    }
}

/// The answer to a request that comes too late.
fn ending() -> Response<Full<Bytes>> {
    text(StatusCode::SERVICE_UNAVAILABLE, &format!("{ENDING}\n"))
}

fn json(body: Result<impl Into<Bytes>, serde_json::Error>) -> Response<Full<Bytes>> {
    match body {
        Ok(body) => typed("application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A browser must not take texts of clients for a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = typed("text/plain; charset=utf-8", body.to_owned());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{fixtures::process, settings::Settings};

    /// The view of a proxy that drains once the receiver is dropped.
    pub(super) fn view() -> (View, mpsc::Receiver<Control>) {
        let process = process(&Settings::default(), None);
        let ((control, requests), report) = (mpsc::channel(1), watch::channel(Published::default()).1);
        let startup = Startup { since: Instant::now(), patience: Duration::ZERO, beside_app: true };
        (View::new(process.clone(), Metrics::new(process), report, control, startup), requests)
    }

    /// The answer to a request without a body.
    fn ask(role: Role, request: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, theirs) = tokio::io::duplex(1024);
            let here = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
            let (view, _requests) = view();
            let serving = tokio::spawn(serve_stream(theirs, (here, here), role, view));
            let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("written");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("an answer");
            serving.await.expect("an end");
            answer
        })
    }

    #[test]
    fn a_stream_is_served_like_an_accepted_connection_and_ends_with_the_answer() {
        let answer = ask(Role::Health, "GET /livez");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    }

    #[test]
    fn a_method_that_an_endpoint_does_not_have_is_answered_with_those_it_has() {
        for (role, request, allowed) in [
            (Role::Health, "POST /livez", "allow: get, head"),
            (Role::Local, "DELETE /startupz", "allow: get, head"),
            (Role::Admin, "GET /drain", "allow: post"),
        ] {
            let answer = ask(role, request).to_ascii_lowercase();
            assert!(answer.starts_with("http/1.1 405") && answer.contains(allowed), "{request}: {answer}");
        }
        for (role, request) in [
            (Role::Health, "POST /drain"),
            (Role::Admin, "GET /livez"),
            (Role::Health, "GET /"),
            (Role::Local, "GET /events"),
        ] {
            let answer = ask(role, request);
            assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
        }
    }

    #[test]
    fn a_browser_takes_no_answer_for_a_page() {
        let answer = ask(Role::Admin, "GET /nothing").to_ascii_lowercase();
        assert!(answer.contains("content-type: text/plain") && answer.contains("options: nosniff"), "{answer}");
    }
}

//! The HTTP endpoints of a proxy: health (livez, readyz, metrics) and admin (config, conns, drain).
//!
//! The control thread serves both, so that a scrape takes no time from workers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, ORIGIN},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_api::Report;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use crate::{listen, metrics::Metrics, supervisor::Control};

/// Concurrent requests per address.
const REQUESTS: usize = 128;
/// Timeout for receiving a request.
const HEADERS: Duration = Duration::from_secs(1);
/// Timeout for a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most sessions that /conns lists.
const SESSIONS: usize = 10_000;

/// Data behind the endpoints.
#[derive(Clone)]
pub struct View {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// State of the listeners.
    pub report: watch::Receiver<Report>,
    /// Queue of the control thread.
    pub control: mpsc::Sender<Control>,
    /// State behind /startupz.
    pub startup: Startup,
}

/// The set of endpoints an address serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For kubelet and Prometheus.
    Health,
    /// For the administrator of the host.
    Admin,
    /// Both, plus /startupz; for anyone with permission to open the unix socket.
    Local,
}

/// How long the app of a sidecar waits for the first configuration.
#[derive(Clone, Copy, Debug)]
pub struct Startup {
    /// Start time of the proxy.
    pub since: Instant,
    /// Longest wait.
    pub patience: Duration,
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

/// Binds a unix socket; replaces the file of a previous process.
///
/// # Errors
/// The socket cannot be created.
pub fn open_file(path: &Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves a unix socket until the runtime ends.
pub async fn serve_file(listener: std::os::unix::net::UnixListener, view: View) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let view = view.clone();
                tokio::spawn(async move {
                    let _ = timeout(PATIENCE, connection(stream, Role::Local, view)).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Serves an address until the runtime ends.
pub async fn serve(listener: std::net::TcpListener, role: Role, view: View) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let view = view.clone();
                tokio::spawn(async move {
                    let _ = timeout(PATIENCE, connection(stream, role, view)).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, role: Role, view: View) {
    let service = service_fn(move |request| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(answer(role, &view, &request).await) }
    });
    // A client may disconnect at any time.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(role: Role, view: &View, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    use Role::{Admin, Health, Local};
    match (role, request.method(), request.uri().path()) {
        (Local, &Method::GET, "/startupz") => started(view),
        (Health | Local, &Method::GET, "/livez") => text(StatusCode::OK, "ok\n"),
        (Health | Local, &Method::GET, "/readyz") => ready(view),
        (Health | Local, &Method::GET, "/metrics") => match view.metrics.text() {
            Ok(metrics) => typed("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n"),
        },
        (Admin | Local, &Method::GET, "/config") => config(view).await,
        (Admin | Local, &Method::GET, "/listeners") => json(serde_json::to_string_pretty(&*view.report.borrow())),
        (Admin | Local, &Method::GET, "/conns") => conns(view).await,
        // A web page open on this machine must not be able to end sessions.
        (Admin | Local, &Method::POST, _) if request.headers().contains_key(ORIGIN) => {
            text(StatusCode::FORBIDDEN, "requests from web pages are refused\n")
        }
        (Admin | Local, &Method::POST, "/drain") => drain(view, request.uri().query()).await,
        (_, _, path) => text(StatusCode::NOT_FOUND, &format!("no endpoint {path}; {}\n", known(role))),
    }
}

fn known(role: Role) -> &'static str {
    match role {
        Role::Health => "try GET /livez, /readyz or /metrics",
        Role::Admin => "try GET /config, /listeners or /conns, or POST /drain?seconds=N",
        Role::Local => {
            "try GET /livez, /readyz, /startupz, /metrics, /config, /listeners or /conns, or POST /drain?seconds=N"
        }
    }
}

/// Succeeds once a configuration was applied or the startup time has passed: a probe that never passes would keep the
/// app of a sidecar from starting.
fn started(view: &View) -> Response<Full<Bytes>> {
    if view.startup.since.elapsed() >= view.startup.patience { text(StatusCode::OK, "ok\n") } else { ready(view) }
}

/// Succeeds once a configuration was applied.
fn ready(view: &View) -> Response<Full<Bytes>> {
    use std::sync::atomic::Ordering::Relaxed;
    if view.metrics.control.applied.load(Relaxed) > 0 {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "no configuration applied yet\n")
    }
}

async fn config(view: &View) -> Response<Full<Bytes>> {
    let (reply, answer) = oneshot::channel();
    if view.control.send(Control::Current(reply)).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is shutting down\n");
    }
    match answer.await {
        Ok(configuration) => json(serde_json::to_string_pretty(&configuration)),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is shutting down\n"),
    }
}

async fn conns(view: &View) -> Response<Full<Bytes>> {
    let (reply, answer) = oneshot::channel();
    if view.control.send(Control::Inspect(SESSIONS, reply)).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is shutting down\n");
    }
    json(serde_json::to_string_pretty(&answer.await.unwrap_or_default()))
}

async fn drain(view: &View, query: Option<&str>) -> Response<Full<Bytes>> {
    let seconds = query.and_then(|query| query.strip_prefix("seconds=")).map_or(Ok(300), str::parse::<u64>);
    let Ok(seconds) = seconds else {
        return text(StatusCode::BAD_REQUEST, "seconds must be a whole number: POST /drain?seconds=30\n");
    };
    if view.control.send(Control::Drain(Duration::from_secs(seconds))).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is shutting down\n");
    }
    text(StatusCode::ACCEPTED, "draining\n")
}

fn json(body: Result<String, serde_json::Error>) -> Response<Full<Bytes>> {
    match body {
        Ok(body) => typed("application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn typed(content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = status;
    response
}

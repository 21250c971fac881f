//! The HTTP server of `/livez`, `/readyz` and `/metrics`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use crate::platform::{liveness::Liveness, metrics::Metrics};

/// Concurrent requests.
const REQUESTS: usize = 64;
/// Timeout of one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state that the server reports.
#[derive(Clone)]
pub struct View {
    /// Metrics of the operator.
    pub metrics: Arc<Metrics>,
    /// Whether every cache has synced.
    pub synced: watch::Receiver<bool>,
    /// Whether API servers trust the webhook, or have been waited for long enough.
    pub trusted: watch::Receiver<bool>,
    /// Signs of life of the loops that the replica cannot do without.
    pub liveness: Liveness,
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, view: View) {
    let room = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let view = view.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&view, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(2))
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that disconnects early is not this server's error.
            let _ = timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}

fn answer(view: &View, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/readyz" if !*view.synced.borrow() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not every cache has synced yet\n".to_owned())
        }
        "/readyz" if !*view.trusted.borrow() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "API servers do not trust the webhook yet\n".to_owned())
        }
        "/livez" => match view.liveness.complaint() {
            None => text(StatusCode::OK, "ok\n".to_owned()),
            Some(complaint) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{complaint}\n")),
        },
        "/readyz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/metrics" => match view.metrics.text() {
            Ok(metrics) => text(StatusCode::OK, metrics),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n".to_owned()),
        },
        path => text(StatusCode::NOT_FOUND, format!("nothing at {path}; try GET /livez, /readyz or /metrics\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    if status == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

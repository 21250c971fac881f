//! The HTTPS server that the API server asks.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::Injector;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Longest life of a connection without a request.
const IDLE: Duration = Duration::from_secs(120);
/// Largest review; an API server takes objects of 3 MiB at most.
const MAX_REVIEW: usize = 8 << 20;

/// Serves reviews until the runtime ends.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, injector: Arc<Injector>) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, mostly: it passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, injector) = (acceptor.clone(), injector.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let service = service_fn(move |request| {
                    let injector = injector.clone();
                    async move { Ok::<_, Infallible>(answer(&injector, request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(IDLE)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that goes away in the middle is its own affair.
                let _ = connection.await;
            }
            drop(place);
        });
    }
}

async fn answer(injector: &Injector, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || request.uri().path() != "/inject" {
        return text(StatusCode::NOT_FOUND, "there is POST /inject");
    }
    let Ok(body) = timeout(HANDSHAKE, Limited::new(request.into_body(), MAX_REVIEW).collect()).await else {
        return text(StatusCode::REQUEST_TIMEOUT, "the review did not come in time");
    };
    let review: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    let answer = review.and_then(|review| injector.answer(&review));
    let Some(answer) = answer else { return text(StatusCode::BAD_REQUEST, "not an AdmissionReview") };
    let mut response = text(StatusCode::OK, &answer.to_string());
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = status;
    response
}

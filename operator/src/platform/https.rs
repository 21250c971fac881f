//! The HTTPS server that API servers call, for the webhook and for the metrics API.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{ResolvesServerCert, WebPkiClientVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Concurrent connections.
const CONNECTIONS: usize = 256;
/// Timeout of the TLS handshake, of the first request, and of the body of each request.
const PATIENCE: Duration = Duration::from_secs(3);
/// Idle timeout of a connection between requests.
const IDLE: Duration = Duration::from_secs(120);
/// Largest body, in bytes. An API server accepts objects of no more than 3 MiB.
const MAX_BODY: usize = 8 << 20;

/// The serving certificate of a server, with the client CAs and common names that the server accepts.
pub struct TlsContext {
    config: Arc<ServerConfig>,
    /// Accepted common names of clients. Empty: any name. Absent: clients need no certificate.
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

/// The answer to a request.
pub struct Answer {
    /// HTTP status code.
    pub status: StatusCode,
    /// JSON, or plain text without its final newline.
    pub body: Result<serde_json::Value, &'static str>,
}

/// A handler of requests.
pub trait Answers: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, method: Method, path: String, query: String, body: Bytes) -> impl Future<Output = Answer> + Send;
}

/// Serves until the runtime ends. While the TLS context is absent, connections are closed at once.
pub async fn serve(listener: TcpListener, tls: watch::Receiver<Option<Arc<TlsContext>>>, answers: Arc<impl Answers>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Mostly out of file descriptors, which passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(tls) = tls.borrow().clone() else { continue };
        let answers = answers.clone();
        tokio::spawn(async move {
            connection(stream, &tls, answers).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, tls: &TlsContext, answers: Arc<impl Answers>) {
    // If this fails, answers are only a little later.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(PATIENCE, TlsAcceptor::from(tls.config.clone()).accept(stream)).await else { return };
    if !tls.admits(stream.get_ref().1.peer_certificates()) {
        return;
    }
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = has_asked.clone();
    let service = service_fn(move |request| {
        asked.store(true, Relaxed);
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(response(request, &*answers).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client without a first request must not hold a connection that another client needs.
    if timeout(PATIENCE, &mut connection).await.is_err() && has_asked.load(Relaxed) {
        // A client that disconnects early is not this server's error.
        let _ = connection.await;
    }
}

async fn response(request: Request<Incoming>, answers: &impl Answers) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answer = match timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => Answer { status: StatusCode::REQUEST_TIMEOUT, body: Err("the body did not arrive in time") },
        Ok(Err(_)) => {
            Answer { status: StatusCode::PAYLOAD_TOO_LARGE, body: Err("the body is too large or incomplete") }
        }
        Ok(Ok(body)) => {
            let query = head.uri.query().unwrap_or_default().to_owned();
            answers.answer(head.method, head.uri.path().to_owned(), query, body.to_bytes()).await
        }
    };
    let (kind, body) = match answer.body {
        Ok(json) => ("application/json", json.to_string()),
        Err(text) => ("text/plain; charset=utf-8", format!("{text}\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = answer.status;
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        // A new connection may reach a replica that can answer.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

//! The HTTPS server that API servers call: the webhook's, and that of the metrics API.

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

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Longest handshake, longest wait for a first request, and longest time for a body.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest life of a connection without a request.
const IDLE: Duration = Duration::from_secs(120);
/// Largest body; an API server takes objects of 3 MiB at most.
const MAX_BODY: usize = 8 << 20;

/// Who is let in, and what they are shown.
pub struct Door {
    tls: Arc<ServerConfig>,
    /// Common names of clients; empty: any that the roots vouch for. Absent: clients have no certificate.
    names: Option<BTreeSet<String>>,
}

impl Door {
    /// For everybody.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn open(leaf: Arc<dyn ResolvesServerCert>) -> Result<Self, proxy_grpc::TlsError> {
        let mut tls = proxy_grpc::server_config(leaf)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), names: None })
    }

    /// For clients that these roots (PEM) vouch for, by one of these names.
    ///
    /// # Errors
    /// The roots cannot be used.
    pub fn guarded(
        leaf: Arc<dyn ResolvesServerCert>,
        roots: &str,
        names: BTreeSet<String>,
    ) -> Result<Self, proxy_grpc::TlsError> {
        let failed = |error: rustls::Error| proxy_grpc::TlsError::Tls(error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(proxy_grpc::roots(roots)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let verifier = verifier.map_err(|error| failed(rustls::Error::General(error.to_string())))?;
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(leaf);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), names: Some(names) })
    }

    /// Whether a client has one of the names that are let in.
    fn lets_in(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        let Some(names) = &self.names else { return true };
        let own = certificates.and_then(<[_]>::first);
        let Some(Ok((_, own))) = own.map(|own| x509_parser::parse_x509_certificate(own)) else { return false };
        let mut known = own.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.is_empty() || known.any(|name| names.contains(name))
    }
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// JSON, or a text.
    pub body: Result<serde_json::Value, &'static str>,
}

/// Whoever answers requests.
pub trait Answers: Send + Sync + 'static {
    /// The answer to a request.
    fn answer(&self, method: Method, path: String, query: String, body: Bytes) -> impl Future<Output = Answer> + Send;
}

/// Serves until the runtime ends. Without a door nobody is let in.
pub async fn serve(listener: TcpListener, door: watch::Receiver<Option<Arc<Door>>>, answers: Arc<impl Answers>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, mostly: it passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(door) = door.borrow().clone() else { continue };
        let answers = answers.clone();
        tokio::spawn(async move {
            connection(stream, &door, answers).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, door: &Door, answers: Arc<impl Answers>) {
    // Without it an answer may wait for a moment; it is an answer all the same.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(PATIENCE, TlsAcceptor::from(door.tls.clone()).accept(stream)).await else { return };
    if !door.lets_in(stream.get_ref().1.peer_certificates()) {
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
    // Whoever asks nothing takes the place of those who do.
    if timeout(PATIENCE, &mut connection).await.is_err() && has_asked.load(Relaxed) {
        // A client that goes away in the middle is its own affair.
        let _ = connection.await;
    }
}

async fn response(request: Request<Incoming>, answers: &impl Answers) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answer = match timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => Answer { status: StatusCode::REQUEST_TIMEOUT, body: Err("the request did not come in time") },
        Ok(Err(_)) => Answer { status: StatusCode::PAYLOAD_TOO_LARGE, body: Err("the request is too large, or torn") },
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
        // The next connection may reach a replica that can answer.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

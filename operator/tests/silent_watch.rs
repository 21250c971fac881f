//! A watch whose connection goes silent, as behind a load balancer that keeps connections to an API server that is gone.
//! The API server is played by a server of this test, because a real one does not go silent on demand.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use operator::{
    inputs::watch::Watches,
    platform::{client::bounded, liveness::Liveness, metrics::Metrics, tasks::Tasks},
};
use operator_core::world::{
    rights::{FleetNamespaces, Rights},
    watched::Seen,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{advance, pause, resume, timeout},
};

/// Longest wait for what the operator does next, which has a pause of up to two seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// The only path whose requests are answered.
const SERVICES: &str = "/api/v1/services";
/// The list of Services, which is empty.
const LIST: &str = r#"{"apiVersion":"v1","kind":"ServiceList","metadata":{"resourceVersion":"7"},"items":[]}"#;
/// The first event of a watch of Services.
const EVENT: &str = concat!(
    r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Service","#,
    r#""metadata":{"name":"db","namespace":"shop","uid":"u","resourceVersion":"8"},"spec":{}}}"#,
    "\n"
);

/// The body of an answer: all of it for the list of Services, and one event and then silence for their watch. Anything
/// else gets a head and then silence. `asked` hears the query of each watch of Services.
fn answer(uri: &Uri, asked: &mpsc::UnboundedSender<String>) -> UnsyncBoxBody<Bytes, Infallible> {
    let query = uri.query().unwrap_or_default();
    let is_watch = query.contains("watch=true");
    let event = match uri.path() {
        SERVICES if !is_watch => return Full::new(Bytes::from_static(LIST.as_bytes())).boxed_unsync(),
        SERVICES => {
            asked.send(query.to_owned()).expect("the test listens");
            Some(Bytes::from_static(EVENT.as_bytes()))
        }
        _ => None,
    };
    let frames = stream::iter(event.map(|event| Ok::<_, Infallible>(Frame::data(event))));
    StreamBody::new(frames.chain(stream::pending())).boxed_unsync()
}

async fn serve(listener: TcpListener, asked: mpsc::UnboundedSender<String>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let asked = asked.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let body = answer(request.uri(), &asked);
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        // A client that disconnects is not a failure.
        tokio::spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A client of such a server, with the deadlines of the operator.
async fn client(asked: mpsc::UnboundedSender<String>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, asked));
    let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
    // The certificates of this machine do not matter.
    config.root_cert = Some(Vec::new());
    Client::try_from(bounded(config)).expect("a client")
}

// C7
#[tokio::test]
async fn a_watch_that_goes_silent_is_asked_for_again_within_half_a_minute() {
    let (asked, mut watched) = mpsc::unbounded_channel();
    let (out, mut messages) = mpsc::channel(64);
    let (tasks, _) = Tasks::new();
    let rights = Rights { watched: Vec::new(), fleets: FleetNamespaces::All, claims: true, autoscaling: true };
    let together = (tasks, Liveness::default(), watch::channel(0).1);
    let (_watches, _) = Watches::start(client(asked).await, (&rights, ""), out, Arc::new(Metrics::default()), together);
    let shown = async {
        loop {
            let (_, seen) = messages.recv().await.expect("the watches run");
            if matches!(seen, Seen::Upsert(_)) {
                return;
            }
        }
    };
    timeout(PATIENCE, shown).await.expect("the event in time");
    let first = watched.try_recv().expect("a watch");
    assert!(first.contains("resourceVersion=7"), "{first}");
    assert!(watched.try_recv().is_err(), "asked again before the silence");
    // Only the clock of the client moves: the connections are real.
    pause();
    advance(Duration::from_secs(30)).await;
    resume();
    let again = timeout(PATIENCE, watched.recv()).await.expect("another watch in time").expect("the server runs");
    assert!(again.contains("resourceVersion=8"), "it continues after the event: {again}");
}

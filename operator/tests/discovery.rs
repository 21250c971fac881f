//! `ReferenceGrant`s, which a cluster may lack: what a failed, a negative and an outdated discovery mean for the cache.
//! The API server is played by a server of this test, because a real one does not fail on demand.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use operator::{
    inputs::watch::{Message, Watches},
    platform::{client::bounded, liveness::Liveness, metrics::Metrics, tasks::Tasks},
};
use operator_core::world::{
    objects::Object,
    rights::{FleetNamespaces, Rights},
    watched::{Kind, Seen, Source},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};

/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(20);
/// API group of the kind.
const GROUP: &str = "/apis/gateway.networking.k8s.io/";
/// Path at which an API server with agents serves their kind. This one does not, so each scene has an empty list of
/// them.
const AGENTS: &str = "/apis/portlane.dev/v1alpha1";

/// What the server answers about grants.
#[derive(Clone, Copy)]
enum Grants {
    /// Every request fails.
    Broken,
    /// This version serves the kind.
    In(&'static str),
    /// The first version serves the kind until the kind was listed once, and the second one after that.
    Moving(&'static str, &'static str),
}

/// A version that does not exist.
const NONE: &str = "none";

/// An API server without objects, except for a grant that is named after the version that serves it.
struct Server {
    grants: Mutex<Grants>,
    /// Number of requests about the group.
    asked: watch::Sender<usize>,
}

impl Server {
    /// The answer to a request; absent if the server never answers, as for a watch without events.
    fn answer(&self, uri: &Uri) -> Option<(StatusCode, String)> {
        let is_watch = uri.query().is_some_and(|query| query.contains("watch=true"));
        if uri.path() == AGENTS {
            return Some((StatusCode::NOT_FOUND, "404 page not found\n".to_owned()));
        }
        let Some(rest) = uri.path().strip_prefix(GROUP) else {
            return (!is_watch).then(|| (StatusCode::OK, list(&json!([]))));
        };
        self.asked.send_modify(|asked| *asked += 1);
        let mut grants = self.grants.lock().expect("not poisoned");
        let served = match *grants {
            Grants::Broken => return Some((StatusCode::INTERNAL_SERVER_ERROR, "on purpose".to_owned())),
            Grants::In(version) | Grants::Moving(version, _) => version,
        };
        match rest.split_once('/') {
            _ if rest.split('/').next() != Some(served) => {
                Some((StatusCode::NOT_FOUND, "404 page not found\n".to_owned()))
            }
            None => Some((StatusCode::OK, resources(served))),
            Some(_) if is_watch => None,
            Some(_) => {
                if let Grants::Moving(_, next) = *grants {
                    *grants = Grants::In(next);
                }
                let metadata = json!({"name": served, "namespace": "shop", "uid": served, "resourceVersion": "7"});
                let version = format!("gateway.networking.k8s.io/{served}");
                let grant = json!({"apiVersion": version, "kind": "ReferenceGrant", "metadata": metadata, "spec": {}});
                Some((StatusCode::OK, list(&json!([grant]))))
            }
        }
    }

    fn set(&self, grants: Grants) {
        *self.grants.lock().expect("not poisoned") = grants;
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let server = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = server.answer(request.uri());
                async move {
                    let Some((status, body)) = answer else { return std::future::pending().await };
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            // A client that disconnects is not a failure.
            tokio::spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

fn list(items: &serde_json::Value) -> String {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "7"}, "items": items}).to_string()
}

fn resources(version: &str) -> String {
    let resource = json!({
        "name": "referencegrants", "singularName": "referencegrant", "namespaced": true, "kind": "ReferenceGrant",
        "verbs": ["get", "list", "watch"],
    });
    json!({
        "apiVersion": "v1", "kind": "APIResourceList", "groupVersion": format!("gateway.networking.k8s.io/{version}"),
        "resources": [resource],
    })
    .to_string()
}

/// The watches of an operator against such a server.
struct Scene {
    server: Arc<Server>,
    messages: mpsc::Receiver<Message>,
    /// Number of watches.
    sources: usize,
    watches: Watches,
}

impl Scene {
    async fn start(grants: Grants) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Arc::new(Server { grants: Mutex::new(grants), asked: watch::channel(0).0 });
        tokio::spawn(server.clone().serve(listener));
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        // The certificates of this machine do not matter.
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(bounded(config)).expect("a client");
        let (out, messages) = mpsc::channel(64);
        let (tasks, _) = Tasks::new();
        let rights = Rights { watched: Vec::new(), fleets: FleetNamespaces::All, claims: true, autoscaling: true };
        let metrics = Arc::new(Metrics::default());
        let together = (tasks, Liveness::default(), watch::channel(0).1);
        let (watches, sources) = Watches::start(client, (&rights, ""), out, metrics, together);
        Self { server, messages, sources: sources.len(), watches }
    }

    /// Receives messages up to one of this watch.
    async fn until(&mut self, of: &Source, is_last: impl Fn(&Seen) -> bool) {
        loop {
            let (source, seen) = self.next().await;
            if source == *of && is_last(&seen) {
                return;
            }
        }
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.messages.recv()).await.expect("a message in time").expect("the watches run")
    }

    /// Waits until every kind but grants is listed. Grants must not be reported meanwhile.
    async fn others_are_listed(&mut self) {
        let mut listed = BTreeSet::new();
        while listed.len() < self.sources - 1 {
            let (source, seen) = self.next().await;
            assert_ne!(source.kind, Kind::Grants, "reported without an answer: {seen:?}");
            if matches!(seen, Seen::Synced) {
                listed.insert(source);
            }
        }
    }

    /// The names of grants in their next complete list.
    async fn grants(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let (source, seen) = self.next().await;
            match seen {
                _ if source.kind != Kind::Grants => {}
                Seen::Restarted => names.clear(),
                Seen::Upsert(object) => match *object {
                    Object::Grants(key, _) => names.push(key.name),
                    other => panic!("not a grant: {other:?}"),
                },
                Seen::Synced => return names,
                Seen::Gone(key) => panic!("nothing was deleted: {key}"),
            }
        }
    }
}

#[tokio::test]
async fn a_discovery_that_fails_at_the_start_is_no_absence() {
    // C1
    let mut scene = Scene::start(Grants::Broken).await;
    scene.others_are_listed().await;
    let mut asked = scene.server.asked.subscribe();
    timeout(PATIENCE, asked.wait_for(|asked| *asked > 4)).await.expect("retries").expect("the server runs");
    assert!(scene.messages.try_recv().is_err(), "grants are not reported before an answer");
    scene.server.set(Grants::In("v1"));
    assert_eq!(scene.grants().await, ["v1"]);
}

#[tokio::test]
async fn a_cluster_that_does_not_serve_the_kind_has_no_grants() {
    let mut scene = Scene::start(Grants::In(NONE)).await;
    assert!(scene.grants().await.is_empty());
}

#[tokio::test]
async fn a_version_that_is_no_longer_served_is_replaced_by_the_one_that_is() {
    let mut scene = Scene::start(Grants::Moving("v1", "v1beta1")).await;
    assert_eq!(scene.grants().await, ["v1"]);
    assert_eq!(scene.grants().await, ["v1beta1"]);
}

#[tokio::test]
async fn a_kind_that_is_removed_takes_its_grants_away() {
    let mut scene = Scene::start(Grants::Moving("v1beta1", NONE)).await;
    assert_eq!(scene.grants().await, ["v1beta1"]);
    assert!(scene.grants().await.is_empty());
}

// C14
#[tokio::test]
async fn a_watch_lists_again_when_the_driver_asks_it_to() {
    let mut scene = Scene::start(Grants::In("v1")).await;
    let services = Source { kind: Kind::Services, namespace: None };
    scene.until(&services, |seen| matches!(seen, Seen::Synced)).await;
    scene.watches.list_again(&services);
    scene.until(&services, |seen| matches!(seen, Seen::Restarted)).await;
    scene.until(&services, |seen| matches!(seen, Seen::Synced)).await;
}

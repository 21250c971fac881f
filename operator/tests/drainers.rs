//! What is read right before an empty claim is deleted. The API server is played by a server of this test, because the
//! watches of a real one are never behind on demand.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use operator::outputs::drainers;
use operator_core::{
    ObjectKey,
    schedule::drainers::{Emptied, Spare, Step},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// An API server with the fleet and perhaps a pod.
struct Server {
    generation: i64,
    has_pod: bool,
    /// The bodies of deletions.
    deleted: Mutex<Vec<Value>>,
}

impl Server {
    fn answer(&self, method: &Method, path: &str, query: &str, body: &Bytes) -> Value {
        match (method, path) {
            (&Method::GET, "/apis/apps/v1/namespaces/ns/statefulsets/edge") => json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet",
                "metadata": {"name": "edge", "namespace": "ns", "uid": "fleet", "generation": self.generation},
                "status": {"observedGeneration": self.generation, "replicas": 1},
            }),
            (&Method::GET, "/api/v1/namespaces/ns/pods") => {
                assert!(query.contains("edge-1"), "{query}");
                let metadata = json!({"name": "edge-1", "namespace": "ns"});
                let pod =
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
                let pods = if self.has_pod { vec![pod] } else { Vec::new() };
                json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": pods,
                })
            }
            (&Method::DELETE, "/api/v1/namespaces/ns/persistentvolumeclaims/messages-edge-1") => {
                let body = serde_json::from_slice(body).expect("JSON");
                self.deleted.lock().expect("not poisoned").push(body);
                json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "code": 200})
            }
            _ => panic!("nobody asks for {method} {path}"),
        }
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let server = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let server = server.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.expect("a body").to_bytes();
                    let query = head.uri.query().unwrap_or_default();
                    let answer = server.answer(&head.method, head.uri.path(), query, &body);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }
}

/// Deletes the claim of pod 1, which was empty in generation 1. Returns the bodies of the deletions.
async fn delete(generation: i64, has_pod: bool) -> Vec<Value> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = Arc::new(Server { generation, has_pod, deleted: Mutex::default() });
    tokio::spawn(server.clone().serve(listener));
    let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
    config.root_cert = Some(Vec::new());
    let client = Client::try_from(config).expect("a client");
    let key = |name: &str| ObjectKey::new("ns", name);
    let (claim, fleet, pod) = (key("messages-edge-1"), key("edge"), key("edge-1"));
    let spare = Spare { claim, fleet, fleet_uid: "fleet".to_owned(), generation: 1, pod };
    let step = Step::RemoveClaim(Emptied { uid: "uid-1".to_owned(), version: "7".to_owned(), spare });
    let answered = drainers::run(&client, &step).await.expect("an answer");
    assert_eq!(answered.answer, Ok(()));
    std::mem::take(&mut *server.deleted.lock().expect("not poisoned"))
}

#[tokio::test]
async fn an_empty_claim_is_deleted_only_as_it_was_and_not_while_its_pod_is_there() {
    let deleted = delete(1, false).await;
    let [options] = deleted.as_slice() else { panic!("{deleted:?}") };
    assert_eq!(options["preconditions"], json!({"uid": "uid-1", "resourceVersion": "7"}));
    assert!(delete(1, true).await.is_empty(), "a watch that is behind does not show the pod");
    assert!(delete(2, false).await.is_empty(), "the fleet may have the claim again");
}

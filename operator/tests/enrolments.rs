//! The Secrets of agents, and what is written before a certificate is sent. The API server is played by a server of this
//! test, because a real one does not fail on demand.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

#[path = "enrolments/unused.rs"]
mod unused;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use data_encoding::BASE64;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Api, Client, Config};
use operator::outputs::enrolments::{Enroller, TunnelRoots};
use operator_core::{
    ObjectKey,
    enrolment::{Case, Judged, Offered, Wanted},
    status::agent::Enrolment,
};
use proxy_api::{Issued, SignOutcome, SignReason};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tunnel_core::{
    identity::{AgentIdentity, AgentName, EndpointId, Fingerprint},
    join::{Address, JoinString, Token},
};

/// How the server handles the next writes of Secrets.
#[derive(Default)]
enum Writes {
    #[default]
    Taken,
    /// Another client is faster, once.
    Late,
    Refused,
}

/// An API server that keeps Secrets.
#[derive(Default)]
struct Server {
    secrets: Mutex<BTreeMap<String, Value>>,
    writes: Mutex<Writes>,
    version: Mutex<u64>,
    /// Notified when a client reads the roots.
    asked: Notify,
    /// Delays readers of the roots while it is held.
    slow: tokio::sync::Mutex<()>,
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason,
        "code": code,
    });
    (code, status)
}

impl Server {
    fn answer(&self, method: &Method, path: &str, body: &Bytes) -> (u16, Value) {
        let mut secrets = self.secrets.lock().expect("not poisoned");
        if *method == Method::GET {
            return secrets.get(path).map_or_else(|| failure(404, "NotFound"), |secret| (200, secret.clone()));
        }
        let mut secret: Value = serde_json::from_slice(body).expect("JSON");
        let name = secret["metadata"]["name"].as_str().expect("a name").to_owned();
        let path = if *method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
        let known = secrets.get(&path).map(|known| known["metadata"]["resourceVersion"].clone());
        if known.is_some_and(|known| known != secret["metadata"]["resourceVersion"]) {
            return failure(409, "Conflict");
        }
        let mut writes = self.writes.lock().expect("not poisoned");
        match *writes {
            Writes::Taken => {}
            Writes::Late => {
                *writes = Writes::Taken;
                return failure(409, "Conflict");
            }
            Writes::Refused => return failure(500, "InternalError"),
        }
        let mut version = self.version.lock().expect("not poisoned");
        *version += 1;
        secret["metadata"]["resourceVersion"] = json!(version.to_string());
        secrets.insert(path, secret.clone());
        (200, secret)
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let server = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let server = server.clone();
                async move {
                    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    if method == Method::GET && path == ROOTS {
                        server.asked.notify_one();
                        drop(server.slow.lock().await);
                    }
                    let (code, body) = server.answer(&method, &path, &body);
                    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
                    *response.status_mut() = StatusCode::from_u16(code).expect("a code");
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    fn set(&self, writes: Writes) {
        *self.writes.lock().expect("not poisoned") = writes;
    }

    /// The Secret of the agent.
    fn secret(&self) -> Value {
        let secrets = self.secrets.lock().expect("not poisoned");
        secrets.get("/api/v1/namespaces/home/secrets/pi4-enrolment").cloned().unwrap_or_default()
    }

    /// The join string in the Secret of the agent.
    fn join(&self) -> JoinString {
        let join = self.secret()["data"]["join"].as_str().map(|join| BASE64.decode(join.as_bytes()).expect("base64"));
        let join = String::from_utf8(join.expect("a join string")).expect("a text");
        JoinString::parse(&join).expect("whole")
    }

    /// The token of that join string.
    fn token(&self) -> Token {
        self.join().token().clone()
    }
}

async fn cluster() -> (Arc<Server>, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = Arc::new(Server::default());
    tokio::spawn(server.clone().serve(listener));
    let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
    config.root_cert = Some(Vec::new());
    (server, Client::try_from(config).expect("a client"))
}

async fn start() -> (Arc<Server>, Enroller) {
    let (server, client) = cluster().await;
    let roots = TunnelRoots::new(Api::namespaced(client.clone(), "portlane"), "portlane-tunnel-roots", PER_NAMESPACE);
    (server, Enroller::new(client, roots, Arc::default()))
}

fn wanted() -> Wanted {
    let agent = AgentName::new("home", "pi4").expect("names");
    Wanted {
        key: ObjectKey::new("home", "pi4"),
        gateway_namespace: "edge".to_owned(),
        gateway_uid: "uid-edge".to_owned(),
        identity: AgentIdentity::new(agent, "uid-1", 0).expect("an identity"),
        redemptions: 1,
        expire_seconds: 3600,
        addresses: Ok(vec![Address::new("tunnels.example.org", 7443).expect("an address")]),
    }
}

/// A certificate request with a new key.
fn request() -> String {
    let key = KeyPair::generate().expect("a key");
    BASE64.encode(CertificateParams::default().serialize_request(&key).expect("a request").der())
}

/// The case that the root of this gateway is to sign.
fn by(gateway_uid: &str, case: Case) -> Judged {
    Judged { gateway_namespace: "edge".to_owned(), gateway_uid: gateway_uid.to_owned(), case }
}

fn case(token: Token) -> Judged {
    by("uid-edge", Case::Token { wanted: Box::new(wanted()), token })
}

fn reason(outcome: SignOutcome) -> SignReason {
    match outcome {
        SignOutcome::Refused { refused } => refused.reason,
        SignOutcome::Issued(issued) => panic!("issued: {issued:?}"),
    }
}

fn is_issued(outcome: &SignOutcome) -> bool {
    matches!(outcome, SignOutcome::Issued(_))
}

/// The result of checking the Secret.
fn known(offered: Offered) -> Enrolment {
    offered.result.expect("the Secret was seen to").0
}

#[tokio::test]
async fn an_agent_owns_a_secret_with_its_join_string_until_that_was_redeemed() {
    let (server, enroller) = start().await;
    let first = known(enroller.offer(wanted()).await);
    assert_eq!((first.secret.as_deref(), first.left), (Some("pi4-enrolment"), 1));
    let owner = &server.secret()["metadata"]["ownerReferences"][0];
    assert_eq!((owner["kind"].as_str(), owner["uid"].as_str()), (Some("ForwardAgent"), Some("uid-1")));
    let (before, token) = (server.secret(), server.token());
    assert_eq!(known(enroller.offer(wanted()).await), first);
    assert_eq!(server.secret(), before, "one that counts stays");

    let answered = enroller.sign(&case(token.clone()), &request()).await;
    assert!(is_issued(&answered.outcome) && answered.redeemed == Some(ObjectKey::new("home", "pi4")));
    let last = known(enroller.offer(wanted()).await);
    assert_eq!((last.secret, last.enrolled), (None, 1));
    assert!(server.secret()["data"]["join"].is_null() && server.secret()["data"]["ledger.json"].is_string());
    assert_eq!(reason(enroller.sign(&case(token), &request()).await.outcome), SignReason::Token);
}

#[tokio::test]
async fn no_certificate_is_sent_for_a_token_before_it_is_written_that_it_was_redeemed() {
    let (server, enroller) = start().await;
    enroller.offer(wanted()).await;
    let (before, token, own) = (server.secret(), server.token(), request());
    server.set(Writes::Refused);
    let answered = enroller.sign(&case(token.clone()), &own).await;
    assert_eq!((reason(answered.outcome), answered.redeemed), (SignReason::Unavailable, None));
    assert_eq!(server.secret(), before);
    server.set(Writes::Late);
    assert!(is_issued(&enroller.sign(&case(token.clone()), &own).await.outcome), "it reads and writes again");
    let after = server.secret();
    assert_ne!(after, before);
    server.set(Writes::Refused);
    assert!(is_issued(&enroller.sign(&case(token), &own).await.outcome), "the same key needs no other write");
    assert_eq!(server.secret(), after);
}

#[tokio::test]
async fn a_secret_of_somebody_else_and_a_damaged_ledger_are_left_alone() {
    let (server, enroller) = start().await;
    enroller.offer(wanted()).await;
    let path = "/api/v1/namespaces/home/secrets/pi4-enrolment".to_owned();
    for (pointer, damage, words) in [
        ("/metadata/ownerReferences/0/uid", json!("uid-0"), "belongs to an earlier ForwardAgent"),
        ("/metadata/ownerReferences", json!([]), "does not belong to this ForwardAgent"),
        ("/data/ledger.json", json!(BASE64.encode(b"no tokens")), "does not hold the tokens of the agent"),
    ] {
        let whole = server.secret();
        let mut damaged = whole.clone();
        *damaged.pointer_mut(pointer).expect("a field") = damage;
        server.secrets.lock().expect("not poisoned").insert(path.clone(), damaged.clone());
        let why = enroller.offer(wanted()).await.result.expect_err("left alone");
        assert!(why.contains("Secret pi4-enrolment") && why.contains(words), "{why}");
        assert_eq!(server.secret(), damaged);
        server.secrets.lock().expect("not poisoned").insert(path.clone(), whole);
    }
}

/// The signed certificate, with the root.
async fn signed(enroller: &Enroller, gateway_uid: &str, case: Case) -> Issued {
    match enroller.sign(&by(gateway_uid, case), &request()).await.outcome {
        SignOutcome::Issued(issued) => issued,
        SignOutcome::Refused { refused } => panic!("refused: {refused:?}"),
    }
}

fn endpoint() -> Case {
    Case::Endpoint(EndpointId::new("0a1b").expect("an id"))
}

/// The maximum of roots for the gateways of one namespace.
const PER_NAMESPACE: usize = 3;

const ROOTS: &str = "/api/v1/namespaces/portlane/secrets/portlane-tunnel-roots";

#[tokio::test]
async fn one_root_signs_endpoints_and_agents_of_a_gateway_and_is_kept_in_the_secret() {
    let (server, enroller) = start().await;
    let pod = signed(&enroller, "uid-edge", endpoint()).await;
    let agent = signed(&enroller, "uid-edge", Case::Agent(wanted().identity)).await;
    let id = EndpointId::new("0a1b").expect("an id");
    let sidecar = signed(&enroller, "uid-edge", Case::Sidecar(id.clone())).await;
    assert_eq!((&pod.root, &pod.root), (&agent.root, &sidecar.root));
    assert_ne!(pod.certificate, agent.certificate);
    let says = |issued: &Issued, uri: &str| {
        let der = BASE64.decode(issued.certificate.as_bytes()).expect("base64");
        der.windows(uri.len()).any(|bytes| bytes == uri.as_bytes())
    };
    assert!(says(&sidecar, &id.sidecar_uri()) && !says(&sidecar, &id.uri()));
    assert!(says(&pod, &id.uri()) && !says(&pod, &id.sidecar_uri()));
    let kept = || server.secrets.lock().expect("not poisoned")[ROOTS]["data"].clone();
    let before = kept();
    assert!(before["edge.uid-edge.pem"].is_string());
    let refused = enroller.sign(&by("uid-edge", endpoint()), "AAAA").await.outcome;
    assert_eq!(reason(refused), SignReason::Request);
    assert_eq!(kept(), before);
}

#[tokio::test]
async fn gateways_have_roots_of_their_own_and_a_join_string_has_that_of_its_gateway() {
    let (server, enroller) = start().await;
    let edge = signed(&enroller, "uid-edge", endpoint()).await;
    let other = signed(&enroller, "uid-other", endpoint()).await;
    assert_ne!(edge.root, other.root);
    assert_eq!(signed(&enroller, "uid-edge", endpoint()).await.root, edge.root, "another one leaves the first alone");
    let kept = server.secrets.lock().expect("not poisoned")[ROOTS]["data"].clone();
    assert_eq!(kept.as_object().map(serde_json::Map::len), Some(2));

    let print = |issued: &Issued| Fingerprint::of(&BASE64.decode(issued.root.as_bytes()).expect("base64"));
    enroller.offer(wanted()).await;
    assert_eq!(server.join().root(), print(&edge));
    enroller.offer(Wanted { gateway_uid: "uid-other".to_owned(), ..wanted() }).await;
    assert_eq!(server.join().root(), print(&other), "the agent dials another gateway now");
}

#[tokio::test]
async fn a_slow_read_of_the_root_of_one_gateway_delays_no_other_one() {
    let (server, enroller) = start().await;
    let edge = signed(&enroller, "uid-edge", endpoint()).await;
    let wait = Duration::from_secs(2);
    timeout(wait, server.asked.notified()).await.expect("the root was read");
    let slow = server.slow.lock().await;
    let other = enroller.clone();
    let other = tokio::spawn(async move { signed(&other, "uid-other", endpoint()).await });
    timeout(wait, server.asked.notified()).await.expect("the other root is read");
    let again = timeout(wait, signed(&enroller, "uid-edge", endpoint())).await.expect("no delay");
    assert_eq!(again.root, edge.root);
    drop(slow);
    let other = timeout(wait, other).await.expect("in time").expect("no panic");
    assert_ne!(other.root, edge.root);
}

#[tokio::test]
async fn gateways_that_need_their_first_roots_at_once_each_get_one() {
    let (server, enroller) = start().await;
    let (one, same, other) = tokio::join!(
        signed(&enroller, "uid-edge", endpoint()),
        signed(&enroller, "uid-edge", endpoint()),
        signed(&enroller, "uid-other", endpoint()),
    );
    assert!(one.root == same.root && one.root != other.root);
    let kept = server.secrets.lock().expect("not poisoned")[ROOTS]["data"].clone();
    assert_eq!(kept.as_object().map(serde_json::Map::len), Some(2));
}

#[tokio::test]
async fn a_secret_with_as_many_roots_as_it_may_hold_gets_no_other_one() {
    let (server, enroller) = start().await;
    signed(&enroller, "uid-edge", endpoint()).await;
    {
        let mut secrets = server.secrets.lock().expect("not poisoned");
        let roots = secrets.get_mut(ROOTS).and_then(|secret| secret["data"].as_object_mut()).expect("roots");
        roots.extend((1..512).map(|at| (format!("n{at}.uid-{at}.pem"), json!(BASE64.encode(b"a root")))));
    }
    let refused = enroller.sign(&by("uid-new", endpoint()), &request()).await.outcome;
    assert_eq!(reason(refused), SignReason::Unavailable);
    let why = enroller.offer(Wanted { gateway_uid: "uid-new".to_owned(), ..wanted() }).await.result;
    let why = why.expect_err("no root");
    assert!(why.contains("portlane-tunnel-roots holds 512 roots") && why.contains("NAMESPACE.UID.pem"), "{why}");
    signed(&enroller, "uid-edge", endpoint()).await;
    let damaged = enroller
        .offer(Wanted { gateway_namespace: "n7".to_owned(), gateway_uid: "uid-7".to_owned(), ..wanted() })
        .await
        .result;
    let damaged = damaged.expect_err("no root");
    assert!(damaged.contains("n7.uid-7.pem in Secret portlane-tunnel-roots does not hold the root"), "{damaged}");
}

#[tokio::test]
async fn the_gateways_of_one_namespace_cannot_take_the_places_of_others() {
    let (server, enroller) = start().await;
    for uid in ["uid-1", "uid-2", "uid-3"] {
        signed(&enroller, uid, endpoint()).await;
    }
    let refused = enroller.sign(&by("uid-4", endpoint()), &request()).await.outcome;
    assert_eq!(reason(refused), SignReason::Unavailable);
    let why = enroller.offer(Wanted { gateway_uid: "uid-4".to_owned(), ..wanted() }).await.result;
    let why = why.expect_err("no root");
    assert!(why.contains("holds 3 roots of gateways in namespace edge") && why.contains("edge.UID.pem"), "{why}");
    let elsewhere = Judged { gateway_namespace: "other".to_owned(), ..by("uid-5", endpoint()) };
    assert!(is_issued(&enroller.sign(&elsewhere, &request()).await.outcome));
    signed(&enroller, "uid-1", endpoint()).await;
    let kept = server.secrets.lock().expect("not poisoned")[ROOTS]["data"].clone();
    assert_eq!(kept.as_object().map(serde_json::Map::len), Some(4));
}

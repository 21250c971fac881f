//! An agent enrols with the join string of its Secret. A proxy of its gateway passes on what the agent asks.

use std::time::Duration;

use crds::{ForwardAgent, ForwardGateway};
use harness::{FleetPod, Namespace, Scene, block_on, programs::KubernetesVersion, roots};
use k8s_openapi::api::core::v1::Secret;
use proxy_api::{Applicant, FromProxy, Sign};
use proxy_grpc::Connection;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tunnel_core::join::JoinString;

use super::{
    gateway,
    lying_proxies::{hello, open},
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn agent(rotation: u32) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: ForwardAgent, metadata: {{name: home}}, spec: {{gateway: {{name: \
         edge}}, targets: [{{host: 127.0.0.1, port: 5432}}], enrolment: {{rotation: {rotation}}}}}}}"
    )
}

/// The join string in a Secret.
fn join_of(secret: &Secret) -> Option<JoinString> {
    let join = secret.data.as_ref()?.get("join")?;
    JoinString::parse(std::str::from_utf8(&join.0).ok()?).ok()
}

/// Waits for the join string of the agent `home`.
fn join(namespace: &Namespace<'_>) -> JoinString {
    let secret =
        namespace.until::<Secret>("home-enrolment", "the Secret has a join string", |it| join_of(it).is_some());
    join_of(&secret).expect("a join string")
}

/// A request for a certificate with a key of its own, as base64.
fn request() -> String {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key).expect("a request");
    let pem = request.pem().expect("a text");
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}

fn by_token(join: &JoinString) -> Applicant {
    let (agent, token) = (join.agent(), join.token().to_text());
    Applicant::Token { namespace: agent.namespace().to_owned(), name: agent.name().to_owned(), token }
}

/// The operator's answer to a request.
fn asked(connection: &mut Connection<Value>, id: u64, applicant: Applicant, request: &str) -> Value {
    let sign = Sign { id, request: request.to_owned(), applicant };
    let message = FromProxy { sign: Some(sign), ..FromProxy::default() };
    let answer = async {
        connection.send(&message).await.expect("sent");
        loop {
            let message = connection.messages.message().await.expect("a stream").expect("a message");
            if message["signed"]["id"] == id {
                return message["signed"]["outcome"].clone();
            }
        }
    };
    block_on(async { tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time") })
}

#[test]
fn an_agent_enrols_once_with_the_join_string_of_its_secret_and_renews_until_it_is_revoked() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy: _proxy, .. } =
        Scene::ready_gateway(server.namespace("enrolment"));
    let tunnels = gateway("{replicas: 1, tunnels: {advertise: ['tunnels.example.org:7443']}}");
    namespace.apply(&format!("{tunnels}\n---\n{}", agent(0)));
    let first = join(&namespace);
    assert_eq!(first.addresses()[0].to_string(), "tunnels.example.org:7443");
    let home = namespace.get::<ForwardAgent>("home").expect("the agent is there");
    let uid = home.metadata.uid.clone().unwrap_or_default();

    let pod = FleetPod::of_gateway(&namespace, "edge", "tunnel-proxy");
    let token = pod.token(&namespace, "edge", "portlane-operator");
    let mut stream = block_on(open(operator.stream, &token, &roots(&namespace)));
    block_on(async { stream.send(&hello()).await.expect("sent") });
    let endpoint = asked(&mut stream, 1, Applicant::Endpoint, &request());
    assert!(endpoint["certificate"].is_string() && endpoint["root"].is_string(), "{endpoint}");
    let edge = namespace.get::<ForwardGateway>("edge").expect("the gateway is there");
    let roots = namespace.get::<Secret>("portlane-tunnel-roots").and_then(|secret| secret.data).expect("its root");
    let of_edge = [edge.metadata.namespace, edge.metadata.uid].map(Option::unwrap_or_default).join(".");
    assert!(roots.keys().eq([&format!("{of_edge}.pem")]), "{:?}", roots.keys());

    let (own, other) = (request(), request());
    let enrolled = asked(&mut stream, 2, by_token(&first), &own);
    assert!(enrolled["certificate"].is_string(), "{enrolled}");
    assert_eq!(enrolled["root"], endpoint["root"]);
    namespace.until::<Secret>("home-enrolment", "the join string that was used is gone", |it| join_of(it).is_none());
    let again = asked(&mut stream, 3, by_token(&first), &own);
    assert!(again["certificate"].is_string(), "an answer that was lost: {again}");
    let thief = asked(&mut stream, 4, by_token(&first), &other);
    assert_eq!(thief["refused"]["reason"], "Token", "{thief}");
    let words = asked(&mut stream, 5, Applicant::Endpoint, "bm8gcmVxdWVzdA==");
    assert_eq!(words["refused"]["reason"], "Request", "{words}");

    let renewal = || Applicant::Agent {
        namespace: namespace.name().to_owned(),
        name: "home".to_owned(),
        uid: uid.clone(),
        rotation: 0,
    };
    let renewed = asked(&mut stream, 6, renewal(), &own);
    assert!(renewed["certificate"].is_string(), "{renewed}");
    namespace.apply(&agent(1));
    assert_ne!(join(&namespace).token(), first.token(), "somebody may enrol again");
    let revoked = asked(&mut stream, 7, renewal(), &own);
    assert_eq!(revoked["refused"]["reason"], "Agent", "{revoked}");
    assert!(operator.metric("portlane_operator_tunnel_certificates_total{result=\"issued\"}") >= 4.0);
}

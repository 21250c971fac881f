//! Proxies that report wrongly, never, or in garbage: each harms only the state of its own pod.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use crds::PortForward;
use harness::{FleetPod, Scene, block_on, free_port, programs::KubernetesVersion, roots, until, until_within};
use proxy_api::{CONTRACT, Configuration, FromProxy, Hello, MAX_HELLO_BYTES, MAX_SOFTWARE_BYTES, ReportPart, Version};
use proxy_grpc::{Code, Connection, Endpoint};
use serde_json::Value;

use super::{condition, forward, until_ready};

#[test]
fn a_proxy_that_reports_wrongly_or_never_is_named_and_harms_no_other() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy: honest, .. } =
        Scene::ready_gateway(server.namespace("lying-proxies"));

    // A report of a version that does not exist, after a hello and before any hello.
    let token = FleetPod::of_gateway(&namespace, "edge", "lying-proxy").token(&namespace, "edge", "portlane-operator");
    let bundle = roots(&namespace);
    let open = || block_on(open(operator.stream, &token, &bundle));
    let never = FromProxy { report: Some(part("nonsense", 99)), ..FromProxy::default() };
    assert_eq!(block_on(end_of(open(), vec![hello(), never.clone()])), Code::InvalidArgument);
    assert_eq!(block_on(end_of(open(), vec![never])), Code::InvalidArgument);
    assert!(operator.metric("portlane_operator_bad_reports_total") >= 1.0);
    assert!(operator.metric("portlane_operator_streams_ended_total{reason=\"garbage\"}") >= 2.0);

    // A text beyond its bound, and a first message that is larger than a hello may be.
    assert_eq!(block_on(end_of(open(), vec![hello_of(MAX_SOFTWARE_BYTES + 1)])), Code::InvalidArgument);
    assert_eq!(block_on(end_of(open(), vec![hello_of(MAX_HELLO_BYTES)])), Code::ResourceExhausted);
    until("the large message is counted", || {
        operator.metric("portlane_operator_streams_ended_total{reason=\"too_large\"}") >= 1.0
    });

    // A proxy that accepts the configuration and never reports: after 30 s status names its pod.
    let silent = open();
    block_on(async { silent.send(&hello()).await.expect("sent") });
    namespace.apply(&forward("web", free_port(), "{service: {name: web, port: 80}}"));
    until_within(Duration::from_secs(90), "status names the silent pod", || {
        let web = namespace.get::<PortForward>("web").expect("web exists");
        let named =
            web.status.iter().flat_map(|status| &status.conditions).any(|it| it.message.contains("lying-proxy"));
        named && condition(&web, "Programmed") == ("False".to_owned(), "ReportTimeout".to_owned())
    });

    // Without that pod all is well, and the honest proxy has been connected all along.
    namespace.kubectl(&["delete", "pod", "lying-proxy", "--grace-period=0", "--force"]).ok();
    until_ready(&namespace, "web", "True", "Ready");
    assert!(honest.metric("portlane_operator_connected") > 0.0, "the honest proxy is connected");
}

/// A hello of a proxy that runs nothing.
pub(super) fn hello() -> FromProxy {
    hello_of(4)
}

/// A hello with a software version of so many bytes.
fn hello_of(bytes: usize) -> FromProxy {
    let digest = Configuration::default().digest();
    let hello = Hello { contract: CONTRACT, software: "x".repeat(bytes), digest, ..Hello::default() };
    FromProxy { hello: Some(hello), ..FromProxy::default() }
}

fn part(epoch: &str, number: u64) -> ReportPart {
    ReportPart { version: Version { epoch: epoch.to_owned(), number }, commit: true, ..ReportPart::default() }
}

/// Opens a stream with a token.
pub(super) async fn open(port: u16, token: &str, roots: &str) -> Connection<Value> {
    let tls = Arc::new(proxy_grpc::client_config(roots).expect("roots"));
    let endpoint = Endpoint { address: (Ipv4Addr::LOCALHOST, port).into(), tls, token: token.to_owned() };
    proxy_grpc::open(&endpoint).await.expect("the token is valid")
}

/// The code with which the operator ends the stream after these messages.
async fn end_of(mut connection: Connection<Value>, messages: Vec<FromProxy>) -> Code {
    for message in messages {
        connection.send(&message).await.expect("sent");
    }
    loop {
        match connection.messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

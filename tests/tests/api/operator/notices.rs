//! Notices of what needs attention are sent to a webhook, and sent again if they do not arrive.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use harness::{Operator, free_port, programs::KubernetesVersion, until};
use serde_json::Value;

use super::until_ready;

/// Port of a webhook that refuses its first request, and the bodies of all further requests.
fn webhook() -> (u16, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
    let bodies = kept.clone();
    thread::spawn(move || {
        for (at, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut reader = BufReader::new(stream);
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let status = if at == 0 { "503 Service Unavailable" } else { "200 OK" };
            if at > 0 {
                bodies.lock().expect("unpoisoned").push(serde_json::from_slice(&body).expect("JSON"));
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    (port, kept)
}

#[test]
fn a_forward_that_stops_being_ready_is_reported_to_the_webhook_which_may_fail_at_first() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("notices");
    let (port, kept) = webhook();
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("url");
    std::fs::write(&file, format!("http://127.0.0.1:{port}/secret-path\n")).expect("written");
    let operator = Operator::with(&namespace, &["--notice-url-file", &file.display().to_string()]);
    let forward = |backend: &str| {
        format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db}}, spec: {{placement: {{sidecar: \
             {{selector: {{matchLabels: {{app: shop}}}}}}}}, listeners: [{{name: tcp, protocol: TCP, port: {}, backends: \
             [{backend}]}}]}}}}",
            free_port()
        )
    };
    namespace.apply(&forward("{local: {port: 80}}"));
    until_ready(&namespace, "db", "True", "NoMatchingPods");
    namespace.apply(&forward("{service: {name: none, port: 80}}"));
    until_ready(&namespace, "db", "False", "BackendNotFound");
    until("the webhook has a notice", || !kept.lock().expect("unpoisoned").is_empty());
    let body = kept.lock().expect("unpoisoned")[0].clone();
    let notice = &body["notices"][0];
    assert_eq!((&notice["reason"], &notice["severity"]), (&"BackendNotFound".into(), &"warning".into()), "{body}");
    assert_eq!((&notice["object"]["kind"], &notice["object"]["name"]), (&"PortForward".into(), &"db".into()));
    // The refusal of a new forward is a notice too, however early.
    namespace.apply("{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {}}");
    namespace.apply(
        "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: new}, spec: {placement: {gateway: {name: edge}}, \
         listeners: [{name: tcp, protocol: TCP, port: 9180, backends: [{address: {host: 192.0.2.1, port: 1}}]}]}}",
    );
    until("the webhook has a notice of the refusal", || {
        let bodies = kept.lock().expect("unpoisoned");
        let mut notices = bodies.iter().flat_map(|body| body["notices"].as_array().into_iter().flatten());
        notices.any(|notice| notice["object"]["name"] == "new" && notice["reason"] == "PortConflict")
    });
    until("sent notices are counted", || operator.metric("portlane_operator_notices_total{result=\"sent\"}") >= 1.0);
    assert!(operator.metric("portlane_operator_notices_total{result=\"failed\"}") < 1.0);
}

//! `forward`: what it prints once its local ports are open.

use std::{
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
};

use harness::{assert_reset, binary, connect, free_port, programs::KubernetesVersion, until};
use serde_json::{Value, json};

use super::Running;

/// A Service without pods.
const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{name: http, port: 80}, {name: \
    admin, port: 81}]}}";

#[test]
fn local_ports_are_records_for_programs() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-forward-records");
    namespace.apply(SERVICE);
    let mut command = Command::new(binary("kubectl-portlane"));
    command.env("KUBECONFIG", server.kubeconfig()).args(["forward", "svc/web", ":80", ":admin", "-o", "json"]);
    command.args(["-n", namespace.name()]).stdout(Stdio::piped());
    let mut plugin = Running(command.spawn().expect("the plugin runs"));
    let lines = BufReader::new(plugin.0.stdout.take().expect("piped")).lines().take(2);
    let record = |line: io::Result<String>| -> Value {
        serde_json::from_str(&line.expect("a line")).expect("a record in a line")
    };
    let records: Vec<Value> = lines.map(record).collect();
    assert_eq!(records.len(), 2, "{records:?}");
    for (record, port) in records.iter().zip(["80", "admin"]) {
        let local = record["localPort"].as_u64().and_then(|number| u16::try_from(number).ok()).expect("a port");
        assert_eq!(record["addresses"][0], json!(format!("127.0.0.1:{local}")), "{record}");
        let told = ["target", "port", "pods", "readyPods"].map(|field| record[field].clone());
        assert_eq!(told, [json!("svc/web"), json!(port), json!(0), json!(0)], "{record}");
        connect(local).expect("it listens");
    }
}

#[test]
fn a_forward_whose_output_nobody_reads_listens_all_the_same() {
    let Some(server) = crate::server::shared(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("kubectl-forward-unread");
    namespace.apply(SERVICE);
    let port = free_port();
    let nobody = io::pipe().expect("a pipe").1;
    let mut command = Command::new(binary("kubectl-portlane"));
    command.env("KUBECONFIG", server.kubeconfig()).args(["forward", "svc/web", &format!("{port}:80"), "--wait", "1"]);
    command.args(["-n", namespace.name()]).stdout(nobody);
    let _plugin = Running(command.spawn().expect("the plugin runs"));
    until("it listens", || connect(port).is_ok());
    // The plugin looks for a pod after it has failed to write, and finds none.
    assert_reset(connect(port), b"x");
}

//! A gateway whose listener keeps its messages in a stream of a NATS server beside the node, with credentials from a
//! Secret.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
};

use crds::{PortForward, RejectedListener};
use harness::{
    Namespace, NatsAccount, NatsUser, Node,
    programs::{self, KubernetesVersion},
    send_relp, until,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    durable::{Sink, restricted},
    fleet::{proxies, wait_for},
    shared,
};

/// Address of the sink, which the server shares.
const SINK: &str = "198.51.100.32:2514";
/// Address of the server for clients.
const SERVER: &str = "198.51.100.32:4222";
/// Address of the server for its monitoring.
const MONITORING: &str = "198.51.100.32:8222";

/// A NATS server on the host of the node. It ends when dropped, and with this thread at the latest.
struct NatsServer<'a> {
    node: &'a Node,
    folder: TempDir,
    child: Option<Child>,
}

impl<'a> NatsServer<'a> {
    /// A server that trusts nobody yet. The node has its address.
    fn on(node: &'a Node) -> Self {
        Self { node, folder: tempfile::tempdir().expect("a folder"), child: None }
    }

    /// Starts the server with what the configuration says of its account, or starts it again. Streams remain.
    #[track_caller]
    fn start(&mut self, account: &str) {
        self.stop();
        let path = |name: &str| self.folder.path().join(name);
        let streams = path("streams");
        let text = format!(
            "listen: \"{SERVER}\"\nhttp: \"{MONITORING}\"\njetstream: {{store_dir: \"{}\"}}\n{account}",
            streams.display()
        );
        fs::write(path("nats.conf"), text).expect("it is written");
        let program = programs::built(KubernetesVersion::Oldest, "nats-server");
        let program = program.unwrap_or_else(|error| panic!("{error}"));
        let log = File::options().create(true).append(true).open(path("log")).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter"]);
        command.arg(format!("--net=/proc/{}/ns/net", self.node.init())).arg(program);
        command.arg("--config").arg(path("nats.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("setpriv, of util-linux, is there"));
        let server: SocketAddr = SERVER.parse().expect("an address");
        until("the server listens", || self.node.connect(server).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How many messages a stream has; `None`: there is no such stream.
    fn messages(&self, stream: &str) -> Option<u64> {
        let page: Value = serde_json::from_str(&self.page("/jsz?accounts=true&streams=true").ok()?).ok()?;
        let accounts = page["account_details"].as_array()?;
        let mut streams = accounts.iter().flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
        streams.find(|it| it["name"] == stream)?["state"]["messages"].as_u64()
    }

    /// A page of the monitoring. An answer by HTTP/1.0 is in one piece.
    fn page(&self, path: &str) -> io::Result<String> {
        let mut stream = self.node.connect(MONITORING.parse().expect("an address"))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }
}

impl Drop for NatsServer<'_> {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
            let end = log.len().saturating_sub(2000);
            eprintln!("the NATS server:\n{}", String::from_utf8_lossy(&log[end..]));
        }
    }
}

/// Puts the credentials of a user into the Secret that the gateway names.
fn put(namespace: &Namespace<'_>, user: &NatsUser) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nats"}, "stringData": {"creds": user.credentials},
    });
    namespace.apply(&secret.to_string());
}

/// A gateway with one pod and a stream, and a forward with a listener for it.
fn manifests() -> String {
    let (host, port) = SINK.split_once(':').expect("a port");
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: edge}}, spec: {{replicas: 1, \
         drainSeconds: 1, jetStream: {{url: 'nats://{SERVER}', credentialsRef: {{name: nats}}}}}}}}\n---\n\
         {{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: logs}}, spec: {{placement: {{gateway: \
         {{name: edge}}}}, listeners: [{{name: relp, protocol: TCP, bind: All, port: 80, durable: {{framing: Relp, send: \
         {{relp: {{}}}}, store: {{jetStream: {{maxBytes: 16777216}}}}}}, backends: [{{address: {{host: {host}, port: \
         {port}}}}}]}}]}}}}"
    )
}

/// Sends a message by RELP, and waits for its answer.
fn send(node: &Node, to: SocketAddr, message: &str) -> io::Result<()> {
    send_relp(node.connect(to)?, 1, 0, |number| (number == 0).then(|| message.to_owned()), |_| {})
}

fn rejected(forward: &PortForward) -> &[RejectedListener] {
    let data_plane = forward.status.as_ref().and_then(|status| status.data_plane.as_ref());
    data_plane.map_or(&[][..], |data_plane| data_plane.rejected.as_slice())
}

#[test]
fn messages_are_in_a_stream_by_a_secret_whose_refusal_is_told_and_whose_replacement_restarts_no_pod() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = restricted("stream");
    let stream = format!("portlane__{}__logs__relp", namespace.name());
    let account = NatsAccount::generate();
    let (first, second) = (account.user(&stream), account.user(&stream));
    // This gives the node the address of both.
    let mut sink = Sink::at(node, SINK);
    let mut server = NatsServer::on(node);
    server.start(&account.configuration(&[&first]));
    put(&namespace, &first);
    namespace.apply(&manifests());

    let refusal = format!("nats://{SERVER} refuses the credentials of Secret nats (");
    let is_told = |it: &PortForward| rejected(it).iter().any(|it| it.reason.contains(&refusal));
    let forward = namespace.until::<PortForward>("logs", "has the refusal in its status", is_told);
    let told = rejected(&forward);
    assert!(told.len() == 1 && told[0].reason.contains("replace them with those of a user"), "{told:?}");
    let status = json!(forward.status).to_string();
    assert!(!first.is_in(&status), "the status has a secret");

    server.start(&account.configuration(&[]));
    wait_for(&namespace, "portforward/logs");
    let pods = proxies(&namespace);
    let (_, pod) = pods[0];
    send(node, pod, "before").expect("the pod answers");
    assert_eq!(server.messages(&stream), Some(1), "what is answered is in the stream");
    sink.comes();
    until("the sink has the message", || sink.lacks(&["before".to_owned()]).is_empty());

    // The kubelet puts the replaced Secret into the pod, whose proxy connects again.
    server.start(&account.configuration(&[&first]));
    put(&namespace, &second);
    send(node, pod, "after").expect("the pod answers");
    until("the sink has the later message", || sink.lacks(&["after".to_owned()]).is_empty());
    until("the stream is empty", || server.messages(&stream) == Some(0));
    assert_eq!(proxies(&namespace), pods, "the same pod runs");
}

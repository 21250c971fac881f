//! Three NATS servers that keep each message three times, with TLS by a CA of their own, and with a user who may do no more
//! than `docs/durable.md` says.

use std::{fs, path::Path, process::Command};

use harness::{
    Listener, NatsAccount, Program, binary, forward, free_port,
    programs::{self, KubernetesVersion},
    until,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa};
use serde_json::Value;

use super::{COUNT, all, of, send, sink};
use crate::server::{Server, done, listens, open_folder};

/// Servers of the cluster.
const SERVERS: usize = 3;
/// The stream of the listener, which is its subject, too.
const STREAM: &str = "portlane__default__f__l";
/// How long the servers know messages that they have, as `docs/durable.md` says.
const DUPLICATES_NANOSECONDS: u64 = 120_000_000_000;

/// Writes a CA, and a certificate of it for this machine, as `ca.pem`, `cert.pem` and `key.pem`.
pub(super) fn certify(folder: &Path) {
    let put = |name: &str, text: String| fs::write(folder.join(name), text).expect("it is written");
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("a CA certificate");
    put("ca.pem", authority.pem());
    let mut certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    certificate.distinguished_name.push(DnType::CommonName, "nats");
    let key = rcgen::KeyPair::generate().expect("a key");
    put("cert.pem", certificate.signed_by(&key, &authority).expect("a certificate").pem());
    put("key.pem", key.serialize_pem());
}

/// The ports of a server: of clients, of the other servers, and of its monitoring.
#[derive(Clone, Copy)]
struct Ports {
    clients: u16,
    servers: u16,
    monitoring: u16,
}

impl Ports {
    fn free() -> Self {
        Self { clients: free_port(), servers: free_port(), monitoring: free_port() }
    }
}

/// Starts one of the servers. Files that they share are in `folder`, its own ones in a folder within.
fn server(folder: &Path, account: &str, ports: &[Ports; SERVERS], at: usize) -> Server {
    let own = folder.join(format!("n{at}"));
    fs::create_dir(&own).expect("a folder");
    let Ports { clients, servers, monitoring } = ports[at];
    let routes = ports.map(|ports| format!("\"nats://127.0.0.1:{}\"", ports.servers)).join(", ");
    let (shared, place) = (folder.display(), own.display());
    let text = format!(
        "server_name: n{at}\nlisten: \"127.0.0.1:{clients}\"\nhttp: \"127.0.0.1:{monitoring}\"\njetstream: {{store_dir: \
         \"{place}/streams\"}}\ncluster: {{name: c, listen: \"127.0.0.1:{servers}\", routes: [{routes}]}}\ntls: \
         {{cert_file: \"{shared}/cert.pem\", key_file: \"{shared}/key.pem\", timeout: 5}}\n{account}"
    );
    fs::write(own.join("nats.conf"), text).expect("it is written");
    let program = programs::built(KubernetesVersion::Oldest, "nats-server").unwrap_or_else(|error| panic!("{error}"));
    Server::start(&own, &format!("{} --config {place}/nats.conf", program.display()), listens(clients))
}

/// `portlane-proxy`, as a pod of a gateway runs it, with a listener whose messages these servers keep.
fn proxy(folder: &Path, port: u16, back: u16, to: u16) -> Program {
    let store = format!(
        "{{jetStream: {{url: 'tls://127.0.0.1:{back}', credentialsRef: {{name: nats}}, replicas: {SERVERS}, maxBytes: \
         16777216}}}}"
    );
    let durable = format!("durable: {{framing: Relp, send: {{relp: {{}}}}, store: {store}}}");
    let source = folder.join("forward.yaml");
    fs::write(&source, forward("f", "", &[Listener::tcp("l", port).to(to).with(&durable)])).expect("it is written");
    let translated = Command::new(binary("portlane")).args(["translate", "-f"]).arg(&source).output();
    let document = String::from_utf8(translated.expect("portlane should run").stdout).expect("text");
    let options = [("--data", "data"), ("--jetstream-credentials", "creds"), ("--jetstream-ca", "ca.pem")];
    let options = options.map(|(option, file)| (option, folder.join(file)));
    let options = options.iter().flat_map(|(option, file)| [*option, file.to_str().expect("UTF-8")]);
    let options: Vec<&str> = options.collect();
    Program::proxy(&document, free_port(), free_port(), &options)
}

/// The configuration of the stream, as a server has it.
fn stream_at(monitoring: u16) -> Value {
    let page = done(&format!(
        "curl --silent --show-error 'http://127.0.0.1:{monitoring}/jsz?accounts=true&streams=true&config=true'"
    ));
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let accounts = page["account_details"].as_array().cloned().unwrap_or_default();
    let mut streams = accounts.iter().flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    streams.find(|stream| stream["name"] == STREAM).map(|stream| stream["config"].clone()).unwrap_or_default()
}

#[test]
fn what_three_servers_acknowledged_outlives_one_of_them_with_tls_and_credentials() {
    let folder = open_folder();
    let (port, to, account) = (free_port(), free_port(), NatsAccount::generate());
    certify(folder.path());
    fs::write(folder.path().join("creds"), account.user(STREAM).credentials).expect("it is written");
    fs::create_dir(folder.path().join("data")).expect("a folder");
    let ports = [(); SERVERS].map(|()| Ports::free());
    let account = account.configuration(&[]);
    let mut servers: Vec<Server> = (0..SERVERS).map(|at| server(folder.path(), &account, &ports, at)).collect();
    let (_sink, taken) = sink(to);
    let program = proxy(folder.path(), port, ports[0].clients, to);
    program.wait("bound", "default/f/l");
    let mut crashes = 0;
    send("a", port, |kept| {
        // The rest of the window is on its way to the server that the listener names.
        if crashes == 0 && kept >= COUNT / 3 {
            crashes += 1;
            servers[0].crash();
        }
    });
    assert_eq!(crashes, 1);
    let kept = stream_at(ports[1].monitoring);
    assert_eq!(kept["num_replicas"], SERVERS, "{kept}");
    assert_eq!(kept["duplicate_window"], DUPLICATES_NANOSECONDS, "{kept}");
    assert_eq!(kept["retention"], "workqueue", "what the sink has leaves the stream: {kept}");
    let sent = all("a");
    until("the sink has the last message", || {
        sent.last().is_some_and(|last| taken.lock().expect("unpoisoned").contains(last))
    });
    // What the sink had and the servers had not heard of comes again.
    assert_eq!(of("a", &taken.lock().expect("unpoisoned")), sent);
}

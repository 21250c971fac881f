//! A server that gets a certificate of another CA, and a proxy whose file of CA certificates is replaced.

use std::{fs, path::Path};

use harness::{Listener, Program, forward, free_port, until};

use super::{all, cluster::certify, configured, of, send, sink};
use crate::server::open_folder;

/// Writes the configuration of a server with the certificate in this folder.
fn configure(folder: &Path, port: u16) {
    let place = folder.display();
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream: {{store_dir: \"{place}/streams\"}}\ntls: {{cert_file: \
         \"{place}/cert.pem\", key_file: \"{place}/key.pem\", timeout: 5}}\n"
    );
    fs::write(folder.join("nats.conf"), text).expect("it is written");
}

#[test]
fn replaced_ca_certificates_are_used_for_the_next_connection_without_a_restart() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, to) = (free_port(), free_port(), free_port());
    certify(folder.path());
    configure(folder.path(), back);
    let mut server = configured(folder.path(), back);
    let (_sink, taken) = sink(to);

    // The proxy does not see the new CA when the server gets its certificate.
    let (ca, roots) = (folder.path().join("ca.pem"), folder.path().join("roots.pem"));
    fs::copy(&ca, &roots).expect("it is written");
    let store = format!("{{jetStream: {{url: 'tls://127.0.0.1:{back}', maxBytes: 16777216}}}}");
    let durable = format!("durable: {{framing: Relp, send: {{relp: {{}}}}, store: {store}}}");
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(to).with(&durable)]);
    let (data, file) = (data.path().to_str().expect("UTF-8"), roots.to_str().expect("UTF-8"));
    let program = Program::run(&manifests, free_port(), &["--data", data, "--jetstream-ca", file]);
    program.wait("bound", "default/f/l");
    send("before", port, |_| {});

    server.crash();
    certify(folder.path());
    server.come_back();
    until("the proxy refuses the certificate of the new CA", || {
        // The server logs what the client says is wrong.
        fs::read_to_string(folder.path().join("output")).is_ok_and(|output| output.contains("remote error: tls"))
    });
    fs::copy(&ca, &roots).expect("it is written");
    send("after", port, |_| {});
    until("the sink has the last message", || {
        taken.lock().expect("unpoisoned").iter().any(|message| Some(message) == all("after").last())
    });
    for source in ["before", "after"] {
        assert_eq!(of(source, &taken.lock().expect("unpoisoned")), all(source), "{source}");
    }
}

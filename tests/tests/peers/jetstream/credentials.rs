//! A server that bans users, and a proxy whose credentials are replaced.

use std::{fs, path::Path, process::Command};

use harness::{Listener, NatsAccount, Program, binary, forward, free_port, until};
use serde_json::Value;

use super::{all, configured, of, send, sink};
use crate::server::open_folder;

/// The stream of the listener, which is its subject, too.
const STREAM: &str = "portlane__default__f__l";

/// Writes the configuration of a server that trusts this account.
fn configure(folder: &Path, port: u16, account: &str) {
    let streams = folder.join("streams");
    let text = format!("listen: \"127.0.0.1:{port}\"\njetstream: {{store_dir: \"{}\"}}\n{account}", streams.display());
    fs::write(folder.join("nats.conf"), text).expect("it is written");
}

/// The present error of the listener.
fn error(admin: &str) -> String {
    let mut command = Command::new(binary("portlane"));
    let listed = command.args(["lag", "--admin-address", admin, "-o", "json"]).output().expect("portlane lag");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    listed["listeners"][0]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn refused_credentials_are_named_with_a_remedy_and_replaced_ones_are_used_without_a_restart() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, to, admin) = (free_port(), free_port(), free_port(), format!("127.0.0.1:{}", free_port()));
    let account = NatsAccount::generate();
    let [first, second, third] = [(); 3].map(|()| account.user(STREAM));
    configure(folder.path(), back, &account.configuration(&[&first]));
    let mut server = configured(folder.path(), back);
    let (_sink, taken) = sink(to);

    let file = folder.path().join("creds");
    fs::write(&file, &first.credentials).expect("it is written");
    let store = format!(
        "{{jetStream: {{url: 'nats://127.0.0.1:{back}', credentialsRef: {{name: nats}}, maxBytes: 16777216}}}}"
    );
    let durable = format!("durable: {{framing: Relp, send: {{relp: {{}}}}, store: {store}}}");
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(to).with(&durable)]);
    let (data, creds) = (data.path().to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    let options = ["--data", data, "--jetstream-credentials", creds, "--admin-address", &admin];
    let program = Program::run(&manifests, free_port(), &options);
    let told = program.wait("failed", "default/f/l").to_string();
    let refusal = format!("nats://127.0.0.1:{back} refuses the credentials of Secret nats ({creds}): replace them");
    assert!(told.contains(&refusal), "{told}");

    fs::write(&file, &second.credentials).expect("it is written");
    program.wait("bound", "default/f/l");
    send("before", port, |_| {});

    server.crash();
    configure(folder.path(), back, &account.configuration(&[&first, &second]));
    server.come_back();
    until("the refusal is told", || error(&admin).contains(&refusal));
    // The server was away before, which is logged, too.
    let logged = || {
        let lines = program.events();
        lines.iter().filter(|line| line["event"] == "store" && line.to_string().contains(&refusal)).count()
    };
    until("the refusal is logged", || logged() > 0);
    fs::write(&file, &third.credentials).expect("it is written");
    send("after", port, |_| {});
    until("the sink has the last message", || {
        taken.lock().expect("unpoisoned").iter().any(|message| Some(message) == all("after").last())
    });
    for source in ["before", "after"] {
        assert_eq!(of(source, &taken.lock().expect("unpoisoned")), all(source), "{source}");
    }
    assert_eq!(logged(), 1, "a refusal is logged once, not for each attempt");
    let lines = program.events();
    let has_secret = |line: &Value| [&first, &second, &third].iter().any(|user| user.is_in(&line.to_string()));
    assert!(!lines.iter().any(has_secret), "the log has a secret");
}

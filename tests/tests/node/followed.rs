//! `kubectl portlane logs --follow` while the proxies of a forward are replaced.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use harness::{Namespace, Node, binary, until};
use serde_json::Value;

use crate::fleet::{greeting, proxies};

/// The plugin that follows the log of a forward, and the records that it has printed. Killed on drop.
pub(crate) struct Followed {
    plugin: Child,
    records: Arc<Mutex<Vec<Value>>>,
}

impl Followed {
    /// Follows the log from now on.
    pub(crate) fn start(namespace: &Namespace<'_>, forward: &str) -> Self {
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args(["logs", forward, "--follow", "--tail", "0"]);
        command.args(["-o", "json", "-n", namespace.name()]);
        let mut plugin = command.stdout(Stdio::piped()).spawn().expect("the plugin runs");
        let lines = BufReader::new(plugin.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let records = Arc::new(Mutex::new(Vec::new()));
        let printed = records.clone();
        thread::spawn(move || {
            for line in lines {
                let record = serde_json::from_str(&line).expect("a record in JSON");
                printed.lock().expect("no panic").push(record);
            }
        });
        Self { plugin, records }
    }

    /// Waits for the ends of these sessions of proxies that are gone, and of a session of each proxy that runs now.
    #[track_caller]
    pub(crate) fn until_it_has_all(&self, node: &Node, namespace: &Namespace<'_>, ended: &[SocketAddr]) {
        for (pod, address) in proxies(namespace) {
            let mut session = node.connect(address).expect("the proxy listens");
            greeting(&mut session).expect("a greeting");
            let client = session.local_addr().expect("an address");
            drop(session);
            until(&format!("the log has the session of the new pod {pod}"), || self.has(client, Some(pod.as_str())));
        }
        until("the log has each session of the old pods", || ended.iter().all(|client| self.has(*client, None)));
    }

    /// Whether the session of this client has ended, in this pod.
    fn has(&self, client: SocketAddr, pod: Option<&str>) -> bool {
        // A node may translate the address, and keeps the port.
        let port = format!(":{}", client.port());
        let is_its_end = |record: &Value| {
            record["event"] == "session_closed"
                && record["client"].as_str().is_some_and(|client| client.ends_with(&port))
                && pod.is_none_or(|pod| record["pod"] == pod)
        };
        self.records.lock().expect("no panic").iter().any(is_its_end)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.plugin.kill();
        let _ = self.plugin.wait();
    }
}

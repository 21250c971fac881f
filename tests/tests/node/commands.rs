//! Commands of `kubectl portlane` beside a real installation that need more than one look: `forward` to the listeners of a
//! forward, `ui`, and `drain` of a forward.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use harness::{Namespace, binary, connect, http_get, round_trip, until};
use serde_json::{Value, json};

use crate::{
    broken::plugin,
    fleet::{call, wait_for},
    port_forward::{Forwarder, open},
};

/// A listener of a forward is reached from this machine, through a proxy of the fleet.
pub(crate) fn a_listener_is_forwarded(namespace: &Namespace<'_>) {
    let forwarder = Forwarder::start(namespace.cluster().kubeconfig(), namespace, &["pf/web", ":tcp"]);
    until("a backend greets through a proxy", || open(forwarder.port).is_ok_and(|(_, greeting)| greeting == "web"));
    let (mut session, _) = open(forwarder.port).expect("a session");
    assert_eq!(round_trip(&mut session, b"bytes").expect("echo"), b"bytes");
}

/// A plugin that runs until the end of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The page is served, and its first states have the forward with a listener that proxies have bound.
pub(crate) fn the_page_follows(namespace: &Namespace<'_>) {
    let mut command = Command::new(binary("kubectl-portlane"));
    command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args(["ui", "web", "-n", namespace.name()]);
    let mut plugin = Running(command.stdout(Stdio::piped()).spawn().expect("the plugin runs"));
    let mut line = String::new();
    BufReader::new(plugin.0.stdout.take().expect("piped")).read_line(&mut line).expect("an address");
    let place = line.trim().strip_prefix("http://127.0.0.1:").and_then(|rest| rest.split_once('/'));
    let (port, path) = place.unwrap_or_else(|| panic!("{line}"));
    let port: u16 = port.parse().expect("a port");
    let (code, page) = http_get(port, &format!("/{path}")).expect("an answer");
    assert!(code == 200 && page.contains("page.js"), "{page}");

    let mut events = connect(port).expect("the plugin listens");
    write!(events, "GET /{path}events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    let lines = BufReader::new(events).lines().map(|line| line.expect("the stream continues"));
    let mut states = lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let name = json!(format!("{}/web", namespace.name()));
    let is_bound = |state: &Value| {
        let forward = &state["forwards"][0];
        forward["name"] == name && forward["listeners"][0]["state"] == "Bound"
    };
    assert!(states.any(|state| is_bound(&state)), "the stream of states ended");
}

/// A drained forward has no open port and no session, and serves again when it is resumed.
pub(crate) fn a_forward_is_drained(namespace: &Namespace<'_>) {
    let (text, code) = plugin(namespace, &["drain", "web", "--yes", "--timeout", "60s"]);
    assert!(code == Some(0) && text.contains("the ports are closed, and no session is left"), "{code:?} {text}");
    assert_eq!(call(namespace, "tcp"), "", "the port is closed");
    let resume = ["patch", "portforward", "web", "--type=merge", "-p", "{\"spec\": {\"suspend\": null}}"];
    namespace.kubectl(&resume).ok();
    until("bytes go through the Service again", || call(namespace, "tcp") == "web: hello");
    wait_for(namespace, "portforward/web");
}

//! Kubelet's probes of the operator: its own program asks over a unix socket, which no client on the network reaches.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use harness::{Program, binary, connect, free_port, http_get, until};
use serde_json::json;
use socket2::SockRef;

/// The command of an operator whose API server does not answer.
fn operator(folder: &Path, health: u16, socket: &Path) -> Command {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "clusters": [{"name": "none", "cluster": {"server": format!("http://127.0.0.1:{}", free_port())}}],
        "users": [{"name": "none", "user": {}}],
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).expect("a kubeconfig");
    let mut command = Command::new(binary("portlane-operator"));
    command.env("KUBECONFIG", path).arg("--socket").arg(socket);
    for (option, port) in
        [("--health-address", health), ("--stream-address", free_port()), ("--webhook-address", free_port())]
    {
        command.args([option, &format!("127.0.0.1:{port}")]);
    }
    command
}

/// A probe as in the chart: the variable names the socket.
fn probe(what: &str, socket: &Path) -> Output {
    let mut command = Command::new(binary("portlane-operator"));
    command.args(["probe", what]).env("PORTLANE_SOCKET", socket);
    command.output().expect("the probe should run")
}

/// A client that connects to a port as often as it can, until this value is dropped.
struct Flood {
    is_over: Arc<AtomicBool>,
    client: Option<JoinHandle<()>>,
}

impl Flood {
    fn of(port: u16) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let client = thread::spawn(move || {
            while !over.load(Relaxed) {
                if let Ok(stream) = connect(port) {
                    // A reset leaves no local port behind that could not be used for a while.
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            }
        });
        Self { is_over, client: Some(client) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
    }
}

// C3
#[test]
fn a_flood_of_the_health_port_from_the_address_of_kubelet_keeps_no_probe_out() {
    let (health, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let socket = folder.path().join("operator.sock");
    let refused = probe("live", &socket);
    assert!(!refused.status.success(), "no operator is running yet");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("operator.sock"));

    // A stale socket file of an earlier process is replaced.
    drop(UnixListener::bind(&socket).expect("a socket"));
    let _program = Program::start(operator(folder.path(), health, &socket), folder);
    until("the operator lives", || probe("live", &socket).status.success());

    let flood = Flood::of(health);
    let is_served = || http_get(health, "/livez").is_ok_and(|(status, _)| status == 200);
    until("the flood keeps a request out", || !is_served());
    for _ in 0..5 {
        let live = probe("live", &socket);
        assert!(live.status.success(), "{}", String::from_utf8_lossy(&live.stderr));
        let ready = probe("ready", &socket);
        let why = String::from_utf8_lossy(&ready.stderr).into_owned();
        assert!(!ready.status.success() && why.contains("not every cache has synced yet"), "{why}");
    }
    drop(flood);

    // Which of its bounds the flood reaches first depends on the machine: the rate of its source, or the places.
    let closed = "portlane_operator_connections_closed_total{port=\"health\",";
    until("what was closed is counted, and people are answered at the port again", || {
        let text = http_get(health, "/metrics").map(|(_, text)| text).unwrap_or_default();
        text.lines().any(|line| line.starts_with(closed)) && is_served()
    });
}

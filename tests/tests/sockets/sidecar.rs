//! Kubelet's probes of a sidecar, and conflicts with the ports of the app.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, Program, binary, connect, forward, free_port, http_get, round_trip, until,
};

/// Writes the configuration document of a forward with these listeners.
fn document(folder: &Path, listeners: &[Listener]) -> PathBuf {
    let (source, document) = (folder.join("forward.yaml"), folder.join("config.yaml"));
    std::fs::write(&source, forward("f", "", listeners)).expect("manifest");
    let output =
        Command::new(binary("portlane")).args(["translate", "-f"]).arg(&source).output().expect("portlane should run");
    std::fs::write(&document, output.stdout).expect("document");
    document
}

fn probe(what: &str, socket: &Path) -> Output {
    Command::new(binary("portlane-proxy"))
        .args(["probe", what, "--socket"])
        .arg(socket)
        .output()
        .expect("the probe should run")
}

/// The command of a proxy in a pod, without a source of configuration.
fn sidecar(folder: &Path, health: &str, admin: &str) -> Command {
    let mut command = Command::new(binary("portlane-proxy"));
    command.arg("--socket").arg(folder.join("proxy.sock")).arg("--may-lack-addresses");
    command.args(["--health-address", health, "--admin-address", admin, "--log", "json"]);
    command
}

/// The command of a proxy whose operator does not answer.
fn without_operator(folder: &Path) -> Command {
    std::fs::write(folder.join("token"), "none").expect("token");
    let mut command = sidecar(folder, "127.0.0.1:0", "127.0.0.1:0");
    command.args(["--operator", &format!("127.0.0.1:{}", free_port())]);
    command.arg("--state-dir").arg(folder).arg("--token-file").arg(folder.join("token"));
    command.env(
        "PORTLANE_ROOTS",
        rcgen::generate_simple_self_signed(vec!["example".to_owned()]).expect("a certificate").cert.pem(),
    );
    command
}

#[test]
fn an_app_waits_for_the_first_configuration_and_not_for_ever() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("proxy.sock");
    let refused = probe("startup", &socket);
    assert!(!refused.status.success(), "no proxy is running yet");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("proxy.sock"));

    let mut command = without_operator(folder.path());
    command.args(["--startup-seconds", "3"]);
    let started = Instant::now();
    let program = Program::start(command, folder);
    until("the proxy responds", || probe("live", &socket).status.success());
    let first = probe("startup", &socket);
    if started.elapsed() < Duration::from_secs(3) {
        assert!(!first.status.success(), "no configuration has arrived");
    }
    until("the app may start without a configuration", || probe("startup", &socket).status.success());
    assert!(started.elapsed() >= Duration::from_secs(3), "the startup probe waited long enough");
    assert!(!probe("ready", &socket).status.success(), "a gateway is not ready without a configuration");
    let event = program.wait("startup", "portlane-proxy");
    assert_eq!(event["level"], "warn", "{event}");
}

#[test]
fn a_proxy_that_is_upgraded_without_an_operator_serves_what_the_earlier_version_kept() {
    let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
    // The state that c7e7692 wrote, on ports of this test.
    let state = include_str!("../../../proxy-api/tests/documents/c7e7692/configuration.json");
    let mut state: serde_json::Value = serde_json::from_str(state).expect("JSON");
    let mut listener = state["listeners"]["shop/mail/smtp"].take();
    listener["socket"] = serde_json::json!({"transport": "TCP", "bind": "Loopback", "port": port});
    listener["backends"][0]["target"]["address"] = serde_json::json!({"host": "127.0.0.1", "port": backend.port});
    listener["destinations"] = serde_json::json!({"refuseLocal": false, "cidrs": []});
    state["listeners"] = serde_json::json!({"shop/mail/smtp": listener});
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("configuration.json"), state.to_string()).expect("state");
    let program = Program::start(without_operator(folder.path()), folder);
    until("the listener is bound", || connect(port).is_ok_and(|mut session| round_trip(&mut session, b"x").is_ok()));
    let closed = program.wait("session_closed", "smtp");
    let origin = ["kind", "namespace", "forward"].map(|field| closed[field].as_str().unwrap_or_default());
    assert_eq!(origin, ["PortForward", "shop", "mail"], "{closed}");
}

#[test]
fn a_probe_waits_for_a_slow_proxy_as_long_as_kubelet_does() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("proxy.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    let slow = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the probe");
        stream.set_read_timeout(Some(Duration::from_millis(1500))).expect("option");
        // The request, then nothing for a while.
        while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok\n")
    });
    let probed = probe("live", &socket);
    assert!(probed.status.success(), "{}", String::from_utf8_lossy(&probed.stderr));
    slow.join().expect("no panic").expect("the probe still waits");
}

#[test]
fn an_app_that_has_the_ports_of_the_proxy_keeps_them_and_the_proxy_forwards() {
    let app = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")].map(|one| one.expect("a port"));
    let [health, admin] = [&app[0], &app[1]].map(|one| one.local_addr().expect("an address").to_string());
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("proxy.sock");
    let path = document(folder.path(), &[Listener::tcp("l", port).to(backend.port)]);
    let mut command = sidecar(folder.path(), &health, &admin);
    command.arg("--config").arg(path);
    // A stale socket file of a previous process is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("socket"));
    let program = Program::start(command, folder);
    until("the proxy has started", || probe("startup", &socket).status.success());
    assert!(probe("ready", &socket).status.success());
    let mut session = connect(port).expect("the listener is bound");
    assert_eq!(round_trip(&mut session, b"x").expect("echo"), b"x");
    assert!(
        program.wait("address", "portlane-proxy")["message"]
            .as_str()
            .is_some_and(|text| text.contains("is not served"))
    );
}

#[test]
fn an_app_that_is_restarted_has_its_port_back() {
    let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
    let bind = || TcpListener::bind(("127.0.0.1", port));
    let app = bind().expect("a free port");
    let folder = tempfile::tempdir().expect("folder");
    let path = document(folder.path(), &[Listener::tcp("l", port).to(backend.port)]);
    let mut command = sidecar(folder.path(), "127.0.0.1:0", "127.0.0.1:0");
    command.arg("--config").arg(path).args(["--yield-seconds", "4"]);
    let program = Program::start(command, folder);
    let failed = |seen| program.wait_after(seen, "failed", "default/f/l")["message"].to_string();
    // On Linux the message names the holder, here this test.
    let held = if cfg!(target_os = "linux") {
        format!("address in use by pid {} ", std::process::id())
    } else {
        "address in use: stop its holder".to_owned()
    };
    assert!(failed(0).contains(&held), "{}", failed(0));

    // A port counts as another program's after five seconds.
    let started = Instant::now();
    until("the port was in use for a while", || started.elapsed() > Duration::from_secs(7));
    let seen = program.events().len();
    drop(app);
    assert!(failed(seen).contains("address in use by another program until a moment ago"));
    let seen = program.events().len();
    let again = bind().expect("the proxy leaves the port to the app");
    assert!(failed(seen).contains(&held), "the app has its port back");
    let freed = Instant::now();
    drop(again);

    // An app that stays away loses its port in the end.
    until("the listener is bound", || connect(port).is_ok_and(|mut session| round_trip(&mut session, b"x").is_ok()));
    assert!(freed.elapsed() >= Duration::from_secs(4), "bound after {:?}", freed.elapsed());
}

#[test]
fn the_address_of_an_ipv6_pod_comes_without_brackets() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("not tested: no IPv6 on this machine");
        return;
    };
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let folder = tempfile::tempdir().expect("folder");
    let path = document(folder.path(), &[Listener::tcp("l", free_port()).to(1)]);
    let mut command = sidecar(folder.path(), &format!("::1:{port}"), "127.0.0.1:0");
    command.arg("--config").arg(path);
    let socket = folder.path().join("proxy.sock");
    let _program = Program::start(command, folder);
    until("the proxy has started", || probe("startup", &socket).status.success());
    assert!(std::net::TcpStream::connect(("::1", port)).is_ok());
    assert!(http_get(port, "/livez").is_err(), "not served on other addresses");
}

#[test]
fn the_queries_of_the_docs_ask_for_series_that_there_are() {
    let folder = tempfile::tempdir().expect("folder");
    let backend = Backend::start(Behaviour::Echo);
    let (port, health) = (free_port(), free_port());
    let path = document(folder.path(), &[Listener::tcp("l", port).to(backend.port)]);
    let mut command = sidecar(folder.path(), &format!("127.0.0.1:{health}"), "127.0.0.1:0");
    command.arg("--config").arg(path);
    let _program = Program::start(command, folder);
    until("the listener is bound", || connect(port).is_ok());
    let (_, metrics) = http_get(health, "/metrics").expect("metrics");
    let docs = include_str!("../../../docs/autoscaling.md");
    let asks = docs.lines().filter(|line| ["uery: ", "rate("].iter().any(|sign| line.contains(sign)));
    // The adapter's rule defines the metric that autoscalers query; KEDA scales the gateway through its scale
    // subresource.
    for words in [
        "name: {as: portlane_connections}",
        "scaleTargetRef: {apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway,",
    ] {
        assert!(docs.contains(words), "{words}");
    }
    let names = asks.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let names: std::collections::BTreeSet<&str> = names.filter(|name| name.starts_with("portlane_")).collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        let is_there =
            metrics.lines().any(|line| line.starts_with(&format!("{name}{{")) && line.contains("namespace="));
        assert!(is_there, "the proxy does not expose {name}");
    }
}

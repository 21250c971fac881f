//! The examples carry traffic on this machine, and generated parts of them match their sources.
//!
//! A test replaces ports and hosts of an example, and nothing else. `rtp.yaml` has a test with calls (`peers`), the
//! sidecars have one with pods (`node`), shared gateways are validated by API servers (`api`), and those with `durable`
//! have theirs beside the others of durable listeners.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use harness::{
    Backend, Behaviour, Program, UdpEcho, binary, client_hello, connect, echoes, free_port, free_range, round_trip,
    until,
};
use serde_json::Value;

use crate::udp::{client, echo};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// `portlane run` of an example with these replacements, the backends' first, and further arguments.
pub(super) fn run(name: &str, swaps: &[(&str, String)], arguments: &[&str]) -> Program {
    let text = std::fs::read_to_string(example(name)).expect("readable");
    let text = swaps.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "{name} does not contain {old:?}");
        text.replace(old, new)
    });
    Program::run(&text, free_port(), arguments)
}

/// A backend at this port of this machine.
pub(super) fn local(port: u16) -> String {
    format!("host: 127.0.0.1, port: {port}")
}

/// A TCP echo server and a UDP one at the same port.
fn both(port: u16) -> (Backend, UdpEcho) {
    (Backend::start_on(port, Behaviour::Echo), UdpEcho::start_on(port))
}

#[test]
fn the_quickstart_carries_a_session() {
    let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
    let swaps = [("port: 7777", format!("port: {}", backend.port)), ("port: 7000", format!("port: {port}"))];
    let _program = run("quickstart.yaml", &swaps, &[]);
    assert!(echoes(port));
}

#[test]
fn examples_with_services_carry_sessions_to_where_the_user_says_that_they_are() {
    for (name, service, listened) in [("fleet.yaml", "web.default", 80), ("sidecar.yaml", "db.default", 5432)] {
        let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
        let swap = (format!("    port: {listened}\n    backends:"), format!("    port: {port}\n    backends:"));
        let resolve = format!("{service}=127.0.0.1:{}", backend.port);
        let _program = run(name, &[(swap.0.as_str(), swap.1)], &["--resolve", &resolve]);
        assert!(echoes(port), "{name}");
    }
}

#[test]
fn the_database_example_carries_sessions_to_its_service_and_its_address() {
    let [service, address] = [(); 2].map(|()| Backend::start(Behaviour::Echo));
    let port = free_port();
    let swaps = [
        ("host: db.example.com, port: 5432", local(address.port)),
        ("    port: 5432\n", format!("    port: {port}\n")),
    ];
    let resolve = format!("pg.shop=127.0.0.1:{}", service.port);
    let _program = run("database.yaml", &swaps, &["--resolve", &resolve]);
    let mut sessions: Vec<TcpStream> = (0..20).map(|_| connect(port).expect("a session")).collect();
    for session in &mut sessions {
        assert_eq!(round_trip(session, b"x").expect("echo"), b"x");
    }
    assert!(service.count() > address.count() && address.count() > 0, "{}:{}", service.count(), address.count());
}

#[test]
fn the_limits_example_carries_a_session() {
    let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
    let swaps = [
        ("local: {port: 17000}", format!("local: {{port: {}}}", backend.port)),
        ("port: 7000", format!("port: {port}")),
        ("10.0.0.0/8", "127.0.0.0/8".to_owned()),
    ];
    let _program = run("limits.yaml", &swaps, &[]);
    assert!(echoes(port));
}

#[test]
fn the_example_of_passive_ftp_carries_its_control_connection_and_one_at_each_data_port() {
    let (control, data) = (Backend::start(Behaviour::Echo), free_range(20));
    let _servers = [0, 19].map(|at| Backend::start_on(data + at, Behaviour::Echo));
    let (port, first) = (free_port(), free_range(20));
    let swaps = [
        ("host: ftp.example.com, port: 21}", local(control.port) + "}"),
        ("host: ftp.example.com, port: 30000}", local(data) + "}"),
        ("port: 2121", format!("port: {port}")),
        ("port: 30000\n    endPort: 30019", format!("port: {first}\n    endPort: {}", first + 19)),
    ];
    let _program = run("passive-ftp.yaml", &swaps, &[]);
    assert!(echoes(port) && echoes(first) && echoes(first + 19));
    assert!(!echoes(first + 1), "nobody listens at the second port of the backend");
}

#[test]
#[cfg(target_os = "linux")]
fn the_patroni_example_carries_sessions_to_the_primary_only() {
    let (database, rest, port) = (free_port(), free_port(), free_port());
    let at = |last, port| std::net::SocketAddr::from(([127, 0, 0, last], port));
    let [replica, primary] = [2, 3].map(|last| Backend::start_at(at(last, database), Behaviour::Echo));
    let _rest = [2, 3].map(|last| {
        let status = move |path: &str| if last == 3 && path == "/primary" { 200 } else { 503 };
        Backend::http(at(last, rest), status)
    });
    let swaps = [
        ("10.20.0.11, port: 5432", format!("127.0.0.2, port: {database}")),
        ("10.20.0.12, port: 5432", format!("127.0.0.3, port: {database}")),
        ("port: 8008", format!("port: {rest}")),
        ("    port: 5432\n", format!("    port: {port}\n")),
    ];
    let _program = run("patroni.yaml", &swaps, &[]);
    until("four sessions in turn reach the primary", || {
        let before = replica.count();
        (0..4).all(|_| echoes(port)) && replica.count() == before
    });
    assert!(primary.count() >= 4);
}

/// A database as far as the check sees it: it declines TLS, and echoes anything else.
fn declines_tls(mut stream: TcpStream) {
    const REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
    let mut buffer = [0; 64];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let answer = if &buffer[..read] == REQUEST { &b"N"[..] } else { &buffer[..read] };
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

#[test]
fn the_standby_example_carries_sessions_to_the_standby_while_the_primary_is_down() {
    let standby = Backend::start(Behaviour::Run(Arc::new(declines_tls)));
    let (down, port) = (free_port(), free_port());
    let swaps = [
        ("host: 10.30.0.1, port: 5432", local(down)),
        ("host: 10.31.0.1, port: 5432", local(standby.port)),
        ("port: 5433", format!("port: {port}")),
        ("intervalSeconds: 5", "intervalSeconds: 1".to_owned()),
    ];
    let _program = run("standby.yaml", &swaps, &[]);
    until("the standby serves", || echoes(port));
}

#[test]
fn the_example_of_tcp_and_udp_carries_both_on_one_port() {
    let (first, second, port) = (free_port(), free_port(), free_port());
    let _servers = [both(first), both(second)];
    let swaps = [
        ("host: 10.0.0.53, port: 53", local(first)),
        ("host: 10.0.1.53, port: 53", local(second)),
        ("port: 5353", format!("port: {port}")),
    ];
    let _program = run("tcp-and-udp.yaml", &swaps, &[]);
    assert!(echoes(port));
    assert_eq!(echo(&client(port), b"question"), b"question");
}

#[test]
fn the_door_example_carries_tcp_and_udp_to_the_app_and_to_a_backend() {
    let (server, first, second) = (free_port(), free_port(), free_port());
    let _servers = both(server);
    let swaps = [
        ("host: backend", "host: 127.0.0.1".to_owned()),
        ("port: 7777", format!("port: {server}")),
        ("port: 8000", format!("port: {first}")),
        ("port: 8001", format!("port: {second}")),
    ];
    let _program = run("door.yaml", &swaps, &[]);
    for port in [first, second] {
        assert!(echoes(port));
        assert_eq!(echo(&client(port), b"x"), b"x");
    }
}

#[test]
fn the_tls_example_carries_a_session_to_the_server_of_each_name() {
    let [orders, rest] = [(); 2].map(|()| Backend::start(Behaviour::Echo));
    let port = free_port();
    let swaps = [
        ("host: 10.20.0.11, port: 6380", local(orders.port)),
        ("host: 10.20.0.12, port: 6380", local(rest.port)),
        ("port: 8443", format!("port: {port}")),
    ];
    let _program = run("tls.yaml", &swaps, &[]);
    for (name, counts) in [("orders.redis.example.com", (1, 0)), ("a.b.redis.example.com", (1, 1))] {
        let hello = client_hello(name.as_bytes());
        assert_eq!(round_trip(&mut connect(port).expect("connect"), &hello).expect("echo"), hello, "{name}");
        assert_eq!((orders.count(), rest.count()), counts, "{name}");
    }
}

#[test]
fn the_example_of_proxy_headers_takes_one_and_sends_one() {
    /// The beginning of a header of version 2, and its length with two IPv4 addresses and ports and the id of a session.
    const V2: (&[u8], usize) = (b"\r\n\r\n\0\r\nQUIT\n", 47);
    let (backend, port) = (Backend::start(Behaviour::Echo), free_port());
    let swaps = [
        ("host: 10.40.0.25, port: 25", local(backend.port)),
        ("10.0.0.0/24", "127.0.0.0/24".to_owned()),
        ("port: 2525", format!("port: {port}")),
    ];
    let _program = run("proxy-protocol.yaml", &swaps, &[]);
    let mut session = connect(port).expect("connect");
    session.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 25\r\nEHLO").expect("sent");
    let mut answer = vec![0; V2.1 + 4];
    session.read_exact(&mut answer).expect("the header and the word");
    assert!(answer.starts_with(V2.0) && answer.ends_with(b"EHLO"), "{answer:?}");
}

#[test]
fn the_configmap_of_the_sidecar_example_is_what_translate_makes_of_its_forward() {
    let mut translate = Command::new(binary("portlane"));
    translate.args(["translate", "-f"]).arg(example("door.yaml"));
    let output = translate.output().expect("portlane should run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = String::from_utf8_lossy(&output.stdout).into_owned();

    let text = std::fs::read_to_string(example("sidecar-without-operator.yaml")).expect("readable");
    let documents = text.split("\n---\n").map(|text| serde_yaml::from_str::<Value>(text).expect("YAML"));
    let map = documents.into_iter().find(|document| document["kind"] == "ConfigMap").expect("a ConfigMap");
    let written = map["data"]["config.yaml"].as_str().expect("a document");
    assert_eq!(written, made, "regenerate: portlane translate -f examples/door.yaml, indented by four");
}

//! PROXY protocol headers, received and sent, observed from outside.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, mpsc},
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, assert_reset, connect, forward, free_port, http_get, metric,
    round_trip, until,
};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

struct Headers {
    program: Program,
    /// Everything each backend connection received until the client finished.
    received: mpsc::Receiver<Vec<u8>>,
    backend: Backend,
    port: u16,
    health: u16,
    admin: u16,
}

fn start(spec: &str, protocol: &str) -> Headers {
    let (sent, received) = mpsc::channel();
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        let mut all = Vec::new();
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.read_to_end(&mut all);
        let _ = sent.send(all);
    })));
    let (port, health, admin) = (free_port(), free_port(), free_port());
    let manifest = manifest(spec, protocol, port, backend.port);
    let program = Program::run(&manifest, health, &["--admin-address", &format!("127.0.0.1:{admin}")]);
    Headers { program, received, backend, port, health, admin }
}

fn manifest(spec: &str, protocol: &str, port: u16, to: u16) -> String {
    forward("f", spec, &[Listener::tcp("l", port).to(to).with(&format!("proxyProtocol: {protocol}"))])
}

impl Headers {
    /// What the backend receives from a client that sends `bytes` and finishes.
    fn received_of(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = connect(self.port).expect("connect");
        stream.write_all(bytes).expect("write");
        stream.shutdown(std::net::Shutdown::Write).expect("finish");
        self.received.recv_timeout(PATIENCE).expect("the backend should receive data")
    }

    #[track_caller]
    fn until_closed(&self, reason: &str, count: f64) {
        let series = format!(
            "portlane_connections_closed_total{{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\",reason=\"{reason}\"}}"
        );
        until(&format!("{count} closed by {reason}"), || {
            let (_, text) = http_get(self.health, "/metrics").expect("metrics");
            metric(&text, &series) == Some(count)
        });
    }
}

fn binary(command: u8, source: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = [V2, &[command, 0x11, 0, 12], &source, &[192, 0, 2, 9]].concat();
    header.extend(port.to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header
}

#[test]
fn a_header_of_either_version_names_the_client_and_is_taken_off() {
    let headers = start("", "{accept: Required, trustedCIDRs: [127.0.0.0/8]}");
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 443\r\n";
    let binary = binary(0x21, [192, 0, 2, 2], 2222);
    for (header, client) in [(&line[..], "192.0.2.1:1111"), (&binary[..], "192.0.2.2:2222")] {
        assert_eq!(headers.received_of(&[header, b"first words"].concat()), b"first words");
        until("the log names the client", || headers.program.events().iter().any(|event| event["client"] == client));
        // Byte by byte.
        let mut stream = connect(headers.port).expect("connect");
        for byte in header.iter().chain(b"piecemeal") {
            stream.write_all(&[*byte]).expect("write");
        }
        drop(stream);
        assert_eq!(headers.received.recv_timeout(PATIENCE).expect("received"), b"piecemeal");
    }
    for own in [&b"PROXY UNKNOWN\r\n"[..], &[V2, &[0x20, 0, 0, 0]].concat()] {
        assert_eq!(headers.received_of(&[own, b"of itself"].concat()), b"of itself");
    }
    until("the log names the peer", || {
        headers
            .program
            .events()
            .iter()
            .any(|event| event["client"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")))
    });
}

#[test]
fn wrong_headers_late_headers_and_untrusted_peers_are_refused() {
    let headers = start("timeouts: {handshakeSeconds: 1}", "{accept: Required, trustedCIDRs: [127.0.0.1/32]}");
    let lying = [V2, &[0x21, 0x11, 0, 4, 1, 2, 3, 4]].concat();
    let bad: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1 2 3 4\r\n", b"PROXY UDP4 192.0.2.1", &lying];
    for bytes in bad.iter().take(2).chain(&bad[3..]) {
        assert_reset(connect(headers.port), bytes);
    }
    headers.until_closed("BadHeader", 3.0);
    assert_reset(connect(headers.port), b"PROXY TCP4 192.0.2.1 ");
    headers.until_closed("HandshakeTimeout", 1.0);
    // A probe closes without sending a byte: not an error, and the backend sees nothing.
    drop(connect(headers.port).expect("connect"));
    headers.until_closed("Probe", 1.0);
    assert_eq!(headers.backend.count(), 0);
    let trusted_elsewhere = "{accept: Required, trustedCIDRs: [192.0.2.0/24]}";
    let edited = manifest("", trusted_elsewhere, headers.port, headers.backend.port);
    headers.program.edit_and_wait(&edited, "swapped", "f/l");
    assert_reset(connect(headers.port), b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 443\r\n");
    headers.until_closed("UntrustedPeer", 1.0);
}

#[test]
fn where_headers_are_optional_other_peers_are_not_trusted() {
    let headers = start("", "{accept: Optional, trustedCIDRs: [192.0.2.0/24]}");
    let claim = b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 443\r\nhello";
    assert_eq!(headers.received_of(claim), claim);
}

#[test]
fn access_and_limits_go_by_the_header() {
    let spec = "access: {denyCIDRs: [192.0.2.66/32]}\nlimits: {maxConnectionsPerSource: 1}";
    let headers = start(spec, "{accept: Required, trustedCIDRs: [127.0.0.1/32]}");
    assert_reset(connect(headers.port), b"PROXY TCP4 192.0.2.66 192.0.2.9 1111 443\r\n");
    headers.until_closed("AccessDenied", 1.0);
    let line = |last: u8| format!("PROXY TCP4 192.0.2.{last} 192.0.2.9 1111 443\r\n");
    let mut held = connect(headers.port).expect("connect");
    held.write_all(line(1).as_bytes()).expect("write");
    until("the session is connected", || headers.backend.count() == 1);
    assert_reset(connect(headers.port), line(1).as_bytes());
    headers.until_closed("SourceLimit", 1.0);
    assert_eq!(headers.received_of(&[line(2).as_bytes(), b"another"].concat()), b"another");
    drop(held);
}

#[test]
fn backends_learn_the_client_address_from_a_header() {
    for version in ["V1", "V2"] {
        let headers = start("", &format!("{{send: {version}}}"));
        let mut stream = connect(headers.port).expect("connect");
        let own = stream.local_addr().expect("address");
        stream.write_all(b"payload").expect("write");
        drop(stream);
        let got = headers.received.recv_timeout(PATIENCE).expect("received");
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), headers.port).into_bytes();
        let ports = [own.port().to_be_bytes(), headers.port.to_be_bytes()].concat();
        let closed = headers.program.wait("session_closed", "l");
        let id = closed["session"].as_str().expect("an id").as_bytes();
        let binary = [V2, &[0x21, 0x11, 0, 31], &[127, 0, 0, 1, 127, 0, 0, 1], &ports, &[0x05, 0, 16], id].concat();
        let expected = if version == "V1" { line } else { binary };
        assert_eq!(got, [&expected[..], b"payload"].concat(), "{version}");
    }
}

#[test]
fn a_session_has_one_id_in_the_log_in_the_list_of_the_proxy_and_in_the_header_to_the_backend() {
    let headers = start("accessLog: {mode: OpenAndClose}", "{send: V2}");
    let mut ids = BTreeSet::new();
    for turn in 1..=2 {
        let seen = headers.program.events().len();
        let mut stream = connect(headers.port).expect("connect");
        stream.write_all(b"payload").expect("write");
        let opened = headers.program.wait_after(seen, "session_opened", "l");
        let id = opened["session"].as_str().expect("an id").to_owned();
        let (_, list) = http_get(headers.admin, "/conns").expect("the live sessions");
        assert!(list.contains(&format!("\"session\":\"{id}\"")), "{id} is not in {list}");
        drop(stream);
        let got = headers.received.recv_timeout(PATIENCE).expect("received");
        assert_eq!(got.get(28..47), Some(&[&[0x05, 0, 16][..], id.as_bytes()].concat()[..]), "{got:?}");
        assert_eq!(headers.program.wait_after(seen, "session_closed", "l")["session"], id.as_str());
        ids.insert(id);
        assert_eq!(ids.len(), turn, "each session has an id of its own: {ids:?}");
    }
}

#[test]
fn two_proxies_in_a_row_pass_the_client_on() {
    let backend = Backend::start(Behaviour::Echo);
    let (front, back, health) = (free_port(), free_port(), free_port());
    let second = forward(
        "f",
        "",
        &[Listener::tcp("l", back)
            .to(backend.port)
            .with("proxyProtocol: {accept: Required, trustedCIDRs: [127.0.0.1/32]}")],
    );
    let second = Program::run(&second, health, &[]);
    let first = forward("f", "", &[Listener::tcp("l", front).to(back).with("proxyProtocol: {send: V2}")]);
    let _first = Program::run(&first, free_port(), &[]);
    let mut stream = connect(front).expect("connect");
    let own = stream.local_addr().expect("address").to_string();
    round_trip(&mut stream, b"through both").expect("served");
    drop(stream);
    until("the second proxy logs the client", || second.events().iter().any(|event| event["client"] == own.as_str()));
}

#[test]
fn a_change_of_headers_concerns_live_sessions() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let with = |protocol: &str| {
        let listener = Listener::tcp("l", port).to(backend.port).with(&format!("proxyProtocol: {protocol}"));
        forward("f", "sessions: {onUpdate: Close}", &[listener])
    };
    let program = Program::run(&with("{send: Disabled}"), free_port(), &[]);
    let mut stream = connect(port).expect("connect");
    round_trip(&mut stream, b"x").expect("served");
    program.edit_and_wait(&with("{send: V1}"), "swapped", "f/l");
    until("the old session ends", || round_trip(&mut stream, b"x").is_err());
}

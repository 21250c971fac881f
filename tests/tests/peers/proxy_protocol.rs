//! PROXY headers between Portlane and two established implementations, `HAProxy` and nginx, in both directions.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use harness::{Backend, Behaviour, Listener, Program, connect, forward, free_port, round_trip, until};
use tempfile::TempDir;

/// A running peer.
struct Peer {
    child: Child,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(program: &str, arguments: &[&str], configuration: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("peer.conf");
        fs::write(&path, configuration.replace("FOLDER", &folder.path().display().to_string())).expect("write");
        let mut command = Command::new(program);
        command.args(arguments).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the program is installed by cargo xtask setup node");
        until("the peer listens", || connect(port).is_ok());
        Self { child, _folder: folder }
    }

    fn haproxy(sections: &str, port: u16) -> Self {
        let configuration =
            format!("defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{sections}\n");
        Self::start("haproxy", &["-db", "-f"], &configuration, port)
    }

    fn nginx(servers: &str, port: u16) -> Self {
        let configuration = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid \
             FOLDER/pid;\nerror_log FOLDER/error.log;\nevents {{}}\nstream {{\n{servers}\n}}\n"
        );
        Self::start("nginx", &["-c"], &configuration, port)
    }
}

/// Portlane in front of an echo server, with this `proxyProtocol`.
fn portlane(protocol: &str, to: u16) -> (Program, u16) {
    let port = free_port();
    let listener = Listener::tcp("l", port).to(to).with(&format!("proxyProtocol: {protocol}"));
    (Program::run(&forward("f", "", &[listener]), free_port(), &[]), port)
}

const ACCEPT: &str = "{accept: Required, trustedCIDRs: [127.0.0.1/32]}";

/// A client connects through the peer and Portlane to an echo server: Portlane's log must name the client itself.
fn the_log_names_the_client(program: &Program, front: u16) {
    let mut stream = connect(front).expect("connect");
    let own = stream.local_addr().expect("address").to_string();
    assert_eq!(round_trip(&mut stream, b"through both").expect("served"), b"through both");
    drop(stream);
    until("the log names the client", || program.events().iter().any(|event| event["client"] == own.as_str()));
}

/// A client connects through Portlane to a peer that answers with the address in the header.
fn assert_peer_names_the_client(port: u16, request: &[u8]) {
    let mut stream = connect(port).expect("connect");
    let own = stream.local_addr().expect("address").to_string();
    stream.write_all(request).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with(&own), "{answer:?} does not name {own}");
}

#[test]
fn we_learn_the_client_from_haproxys_headers_of_both_versions() {
    let echo = Backend::start(Behaviour::Echo);
    for send in ["send-proxy", "send-proxy-v2"] {
        let (program, port) = portlane(ACCEPT, echo.port);
        let front = free_port();
        let section = format!("listen l\n  mode tcp\n  bind 127.0.0.1:{front}\n  server s 127.0.0.1:{port} {send}");
        let _haproxy = Peer::haproxy(&section, front);
        the_log_names_the_client(&program, front);
    }
}

#[test]
fn haproxys_checks_are_answered() {
    let echo = Backend::start(Behaviour::Echo);
    let (_program, port) = portlane(ACCEPT, echo.port);
    let front = free_port();
    let section = format!(
        "listen l\n  mode tcp\n  bind 127.0.0.1:{front}\n  server s 127.0.0.1:{port} check inter 100ms fall 1 rise 1 send-proxy-v2 check-send-proxy"
    );
    let _haproxy = Peer::haproxy(&section, front);
    // HAProxy's checks are LOCAL connections, which reach the backend.
    until("checks arrive", || echo.count() >= 5);
    let mut stream = connect(front).expect("connect");
    round_trip(&mut stream, b"up").expect("HAProxy considers the server up");
}

#[test]
fn haproxy_learns_the_client_from_our_headers_of_both_versions() {
    let back = free_port();
    let section = format!(
        "frontend f\n  mode http\n  bind 127.0.0.1:{back} accept-proxy\n  http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\""
    );
    let _haproxy = Peer::haproxy(&section, back);
    for send in ["{send: V1}", "{send: V2}"] {
        let (_program, port) = portlane(send, back);
        assert_peer_names_the_client(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
}

#[test]
fn haproxy_reads_the_id_that_the_session_has_in_our_log() {
    let back = free_port();
    let section = format!(
        "frontend f\n  mode http\n  bind 127.0.0.1:{back} accept-proxy\n  http-request return status 200 content-type text/plain lf-string \"%[fc_pp_unique_id]\""
    );
    let _haproxy = Peer::haproxy(&section, back);
    let (program, port) = portlane("{send: V2}", back);
    let mut stream = connect(port).expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    drop(stream);
    let closed = program.wait("session_closed", "l");
    let id = closed["session"].as_str().expect("an id");
    assert!(answer.ends_with(id), "{answer:?} does not name {id}");
}

#[test]
fn we_learn_the_client_from_nginxs_header() {
    let echo = Backend::start(Behaviour::Echo);
    let (program, port) = portlane(ACCEPT, echo.port);
    let front = free_port();
    let server = format!("server {{ listen 127.0.0.1:{front}; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}");
    let _nginx = Peer::nginx(&server, front);
    the_log_names_the_client(&program, front);
}

#[test]
fn nginx_learns_the_client_from_our_headers_of_both_versions() {
    let back = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{back} proxy_protocol; return \"$proxy_protocol_addr:$proxy_protocol_port\"; }}"
    );
    let _nginx = Peer::nginx(&server, back);
    for send in ["{send: V1}", "{send: V2}"] {
        let (_program, port) = portlane(send, back);
        assert_peer_names_the_client(port, b"");
    }
}

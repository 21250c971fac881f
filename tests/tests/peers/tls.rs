//! TLS by server name, with real clients and servers: openssl, curl, and a database client with direct TLS.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{Backend, Behaviour, Listener, Program, connect, forward, free_port, http_get, metric, until};
use tempfile::TempDir;

/// A TLS server with a certificate for one host.
struct Server {
    port: u16,
    certificate: PathBuf,
    child: Child,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificate(folder: &Path, host: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={host}"), "-addext", &format!("subjectAltName=DNS:{host}")]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let made = openssl.output().expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (key, certificate)
}

impl Server {
    /// `openssl s_server`, which answers HTTP with a page about itself.
    fn openssl(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let (key, certificate) = certificate(folder.path(), host);
        let port = free_port();
        let mut openssl = Command::new("openssl");
        openssl.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"]).arg(key);
        openssl.arg("-cert").arg(&certificate);
        Self::start(openssl, port, certificate, folder)
    }

    /// A Redis that speaks TLS from the first byte.
    fn redis(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let (key, certificate) = certificate(folder.path(), host);
        let port = free_port();
        let mut redis = Command::new("redis-server");
        redis.args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        redis.args(["--tls-auth-clients", "no", "--tls-key-file"]).arg(key).arg("--tls-cert-file").arg(&certificate);
        redis.arg("--tls-ca-cert-file").arg(&certificate).current_dir(folder.path());
        Self::start(redis, port, certificate, folder)
    }

    fn start(mut command: Command, port: u16, certificate: PathBuf, folder: TempDir) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().expect("the program is installed by cargo xtask setup node");
        until("the server listens", || connect(port).is_ok());
        Self { port, certificate, child, _folder: folder }
    }
}

/// Whether openssl and curl reach the server of this host, and verify its certificate, through this port.
fn reaches(host: &str, server: &Server, port: u16) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-brief", "-verify_return_error", "-servername", host, "-verify_hostname", host]);
    openssl.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&server.certificate);
    let openssl = openssl.stdin(Stdio::null()).output().expect("openssl");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--cacert"]).arg(&server.certificate);
    curl.args(["--connect-to", &format!("{host}:443:127.0.0.1:{port}"), &format!("https://{host}/")]);
    let curl = curl.output().expect("curl is installed");
    openssl.status.success() && curl.status.success() && String::from_utf8_lossy(&curl.stdout).contains("s_server")
}

fn tls(name: &str, port: u16, hostnames: &str) -> Listener {
    Listener::tls(name, port).with(&format!("tls: {{hostnames: [{hostnames}]}}"))
}

fn unrouted(health: u16, port: u16, reason: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, &format!("portlane_connections_unrouted_total{{port=\"{port}\",reason=\"{reason}\"}}"))
}

#[test]
fn names_of_several_forwards_share_a_port_and_the_most_specific_wins() {
    let (exact, wild, deep) =
        (Server::openssl("db.example.com"), Server::openssl("x.eu.example.com"), Server::openssl("a.b.eu.example.com"));
    let (port, health) = (free_port(), free_port());
    let one = forward("one", "", &[tls("l", port, "db.example.com").to(exact.port)]);
    let two = forward(
        "two",
        "",
        &[
            tls("wild", port, "'*.eu.example.com'").to(wild.port),
            tls("deep", port, "'*.b.eu.example.com'").to(deep.port),
        ],
    );
    let program = Program::run(&format!("{one}{two}"), health, &[]);
    assert!(reaches("db.example.com", &exact, port));
    assert!(reaches("x.eu.example.com", &wild, port));
    assert!(reaches("a.b.eu.example.com", &deep, port));
    assert!(!reaches("other.example.com", &exact, port), "no forward has this name");
    until("the unknown name is counted", || unrouted(health, port, "UnknownServerName") >= Some(1.0));
    let told = program.wait("unrouted", "one/l");
    assert!(told["message"].as_str().is_some_and(|text| text.contains("asked for 'other.example.com'")), "{told}");
    program.wait("session_closed", "l");
    let name = |event: &harness::Event| event["serverName"] == "db.example.com" && event["forward"] == "one";
    assert!(program.events().iter().any(name), "the log has the name");
}

#[test]
fn a_database_client_whose_tls_is_direct_is_served() {
    let (one, two) = (Server::redis("one.example"), Server::redis("two.example"));
    let port = free_port();
    let listeners = [tls("a", port, "one.example").to(one.port), tls("b", port, "two.example").to(two.port)];
    let _program = Program::run(&forward("f", "", &listeners), free_port(), &[]);
    let redis = |host: &str, server: &Server, words: &[&str]| {
        let mut redis = Command::new("redis-cli");
        redis.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--tls", "--sni", host, "--cacert"]);
        let output = redis.arg(&server.certificate).args(words).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(redis("one.example", &one, &["SET", "who", "one"]), "OK");
    assert_eq!(redis("two.example", &two, &["SET", "who", "two"]), "OK");
    assert_eq!(redis("one.example", &one, &["GET", "who"]), "one");
    assert_eq!(redis("two.example", &two, &["GET", "who"]), "two");
}

/// A `ClientHello` of openssl for this host, with its record header.
fn client_hello(host: &str) -> Vec<u8> {
    let backend = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = backend.local_addr().expect("address").to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-servername", host, "-connect", &address]);
    let mut openssl =
        openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("openssl");
    let (mut stream, _) = backend.accept().expect("openssl connects");
    let mut header = [0; 5];
    stream.read_exact(&mut header).expect("a record");
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut body).expect("the body of the record");
    let _ = openssl.kill();
    let _ = openssl.wait();
    [&header[..], &body].concat()
}

#[test]
fn the_hello_comes_through_unchanged_however_it_is_cut() {
    let hello = client_hello("db.example.com");
    let (sent, received) = std::sync::mpsc::channel();
    let backend = Backend::start(Behaviour::Run(std::sync::Arc::new(move |mut stream: std::net::TcpStream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = sent.send(all);
    })));
    let port = free_port();
    let _program =
        Program::run(&forward("f", "", &[tls("l", port, "db.example.com").to(backend.port)]), free_port(), &[]);
    let got = |pieces: &[&[u8]]| {
        let mut stream = connect(port).expect("connect");
        stream.set_nodelay(true).expect("option");
        for piece in pieces {
            stream.write_all(piece).expect("write");
        }
        stream.shutdown(Shutdown::Write).expect("finish");
        received.recv_timeout(harness::PATIENCE).expect("received")
    };
    for cut in [1, 5, 6, 9, 43, hello.len() / 2, hello.len() - 1] {
        assert_eq!(
            got(&[&hello[..cut], &hello[cut..], b"and more"]),
            [&hello[..], b"and more"].concat(),
            "cut at {cut}"
        );
    }
    let bytes: Vec<&[u8]> = hello.chunks(1).collect();
    assert_eq!(got(&bytes), hello);
    // The same message in records of a hundred bytes.
    let small: Vec<u8> = hello[5..]
        .chunks(100)
        .flat_map(|part| [&hello[..3], &u16::try_from(part.len()).expect("short").to_be_bytes(), part].concat())
        .collect();
    assert_eq!(got(&[&small]), small);
}

#[test]
fn what_belongs_to_nobody_is_reset_and_counted_by_its_reason() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "timeouts: {handshakeSeconds: 1}", &[tls("l", port, "a.example").to(backend.port)]);
    let _program = Program::run(&manifest, health, &[]);
    let refused = |bytes: &[u8], reason: &str| {
        let before = unrouted(health, port, reason).expect("a series");
        let mut stream = connect(port).expect("connect");
        stream.write_all(bytes).expect("write");
        let error = stream.read(&mut [0; 1]).expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{reason}");
        until(reason, || unrouted(health, port, reason) == Some(before + 1.0));
    };
    let hello = client_hello("a.example");
    refused(b"GET / HTTP/1.1\r\n\r\n", "NotTls");
    refused(&client_hello("b.example"), "UnknownServerName");
    refused(&hello[..hello.len() - 1], "HandshakeTimeout");
    refused(&[&[22, 3, 1, 0x40, 0, 1, 0, 0x40, 1][..], &[0; 9000]].concat(), "NotTls");
    drop(connect(port).expect("connect"));
    until("a probe is counted", || unrouted(health, port, "Probe") == Some(1.0));
    let mut half = connect(port).expect("connect");
    half.write_all(&hello[..20]).expect("write");
    drop(half);
    until("a client that left is counted", || unrouted(health, port, "ClientLeft") == Some(1.0));
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_name_moves_between_objects_while_clients_come_and_sessions_stay() {
    let (first, one, two) =
        (Backend::start(Behaviour::Echo), Server::openssl("a.example"), Server::openssl("a.example"));
    let (port, health) = (free_port(), free_port());
    let manifest = |names: [&str; 3]| {
        let ports = [first.port, one.port, two.port];
        let forwards = ["first", "one", "two"].iter().zip(names).zip(ports);
        forwards.map(|((name, names), to)| forward(name, "", &[tls("l", port, names).to(to)])).collect::<String>()
    };
    let program = Program::run(&manifest(["a.example, z.example", "b.example", "c.example"]), health, &[]);
    let mut held = connect(port).expect("connect");
    let hello = client_hello("a.example");
    assert_eq!(harness::round_trip(&mut held, &hello).expect("echoed"), hello);
    for step in 0..6 {
        let (names, server) = if step % 2 == 0 {
            (["z.example", "b.example, a.example", "c.example"], &one)
        } else {
            (["z.example", "b.example", "c.example, a.example"], &two)
        };
        program.edit_and_wait(&manifest(names), "swapped", "one/l");
        assert!(reaches("a.example", server, port), "step {step}");
        harness::round_trip(&mut held, b"still here").expect("the session stays with its backend");
    }
    assert_eq!(unrouted(health, port, "UnknownServerName"), Some(0.0));
    let failed: Vec<_> = program.events().into_iter().filter(|line| line["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

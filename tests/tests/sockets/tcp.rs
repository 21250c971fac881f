//! `portlane run` as a process with real sockets: bytes, half-closes and urgent data.
#![allow(clippy::expect_used, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use harness::{Backend, Behaviour, Listener, PATIENCE, connect, free_port, http_get, metric, round_trip, until};
use sha2::{Digest, Sha256};
use socket2::SockRef;

use crate::run;

/// Chunks that differ along the stream, so that lost or repeated parts are detected.
fn pattern(total: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut chunk: Vec<u8> = (0..CHUNK).map(|at| u8::try_from(at * 131 % 251).unwrap_or(0)).collect();
    (0..total / CHUNK).map(move |number| {
        chunk[..8].copy_from_slice(&(number as u64).to_le_bytes());
        chunk.clone()
    })
}

const CHUNK: usize = 256 * 1024;

#[test]
fn one_gib_passes_both_ways_at_once_unchanged() {
    const TOTAL: usize = 1 << 30;
    let (sent, received) = mpsc::channel();
    let server = Behaviour::Run(Arc::new(move |stream: TcpStream| {
        let (writer, hash) = (stream.try_clone().expect("clone"), sent.clone());
        let writing = thread::spawn(move || send(writer, TOTAL));
        hash.send((digest(stream), writing.join().expect("writer"))).expect("the test should be receiving");
    }));
    let backend = Backend::start(server);
    let port = free_port();
    let (_program, health) = run(&[Listener::tcp("bulk", port).to(backend.port)]);
    let client = connect(port).expect("connect");
    let writer = client.try_clone().expect("clone");
    let writing = thread::spawn(move || send(writer, TOTAL));
    let down = digest(client);
    let up = writing.join().expect("writer");
    let (server_got, server_sent) = received.recv_timeout(PATIENCE).expect("server");
    assert_eq!(up, server_got, "client to server");
    assert_eq!(server_sent, down, "server to client");
    until("every byte is counted", || {
        let (_, text) = http_get(health, "/metrics").expect("metrics");
        let bytes = |direction| {
            metric(
                &text,
                &format!(
                    "portlane_bytes_total{{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"bulk\",direction=\"{direction}\"}}"
                ),
            )
        };
        #[allow(clippy::cast_precision_loss, reason = "a power of two")]
        let total = Some(TOTAL as f64);
        bytes("up") == total && bytes("down") == total
    });
    if cfg!(target_os = "linux") {
        let (_, text) = http_get(health, "/metrics").expect("metrics");
        assert_eq!(metric(&text, "portlane_streams_spliced_total "), Some(2.0), "both directions");
    }
}

fn send(mut stream: TcpStream, total: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    for chunk in pattern(total) {
        stream.write_all(&chunk).expect("write");
        hash.update(&chunk);
    }
    stream.shutdown(Shutdown::Write).expect("finish");
    hash.finalize().to_vec()
}

fn digest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("option");
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).expect("read") {
            0 => return hash.finalize().to_vec(),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[test]
fn a_half_closed_session_continues_in_the_other_direction() {
    // Answers only after the client has finished, as with `nc -N` and some old protocols.
    let backend = Backend::start(Behaviour::Run(Arc::new(|mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("request");
        stream.write_all(format!("{} bytes", request.len()).as_bytes()).expect("answer");
    })));
    let port = free_port();
    let (program, _) = run(&[Listener::tcp("half", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    client.write_all(&[1; 100_000]).expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    assert_eq!(answer, "100000 bytes");
    let closed = program.wait("session_closed", "half");
    assert_eq!((closed["reason"].as_str(), closed["bytesUp"].as_u64()), (Some("Finished"), Some(100_000)));
    assert_eq!(closed["bytesDown"].as_u64(), Some(12));
}

#[test]
fn a_server_that_finishes_first_still_gets_the_rest_of_the_client() {
    let (sent, received) = mpsc::channel();
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        stream.write_all(b"bye").expect("write");
        stream.shutdown(Shutdown::Write).expect("finish");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("rest");
        sent.send(rest.len()).expect("the test should be receiving");
    })));
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("half", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    let mut bye = String::new();
    client.read_to_string(&mut bye).expect("bye");
    client.write_all(&[1; 500_000]).expect("write");
    drop(client);
    assert_eq!(received.recv_timeout(PATIENCE).expect("server"), 500_000);
}

// D26
#[test]
fn what_follows_urgent_data_is_not_held_back() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("urgent", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    assert_eq!(round_trip(&mut client, b"before").expect("echo"), b"before");
    SockRef::from(&client).send_out_of_band(b"!").expect("urgent");
    client.write_all(b"after").expect("write");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"after") {
        client.read_exact(&mut byte).expect("data after urgent data should arrive");
        answer.push(byte[0]);
    }
}

#[test]
fn urgent_data_in_a_stream_loses_nothing() {
    const HALF: usize = 16 << 20;
    let (sent, received) = mpsc::channel();
    let backend = Backend::start(Behaviour::Run(Arc::new(move |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("to the end");
        sent.send(all.len()).expect("the test should be receiving");
    })));
    let port = free_port();
    let (_program, _) = run(&[Listener::tcp("urgent", port).to(backend.port)]);
    let mut client = connect(port).expect("connect");
    client.write_all(&vec![1; HALF]).expect("write");
    SockRef::from(&client).send_out_of_band(b"!").expect("urgent");
    client.write_all(&vec![2; 100_000]).expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(received.recv_timeout(PATIENCE).expect("server"), HALF + 1 + 100_000);
}

//! `portlane run` is killed again and again (SIGKILL) while a client sends over RELP. An oracle at the sink knows what
//! may come: no message that the client had an answer for is missing, none comes before one that was sent earlier, what
//! the client sends again is within its window, and what the next program sends again is within that of the sink, which
//! is one request over HTTP.

use std::{
    io::{BufReader, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Instant,
};

use harness::{
    Backend, Behaviour, Listener, forward, free_port,
    kills::{BETWEEN, Client, Oracle, SINK_WINDOW, WINDOW, kills, number, serve},
    until,
};
use tempfile::tempdir;

use super::{
    http::{posted, status},
    run,
};

/// Kills in the `pure` tier, with a sink over RELP.
const KILLS: usize = 20;
/// The same with a sink over HTTP.
const KILLS_OVER_HTTP: usize = 6;

/// As [`serve`], over HTTP: each request has messages in lines.
fn serve_http(stream: TcpStream, oracle: &Mutex<Oracle>) {
    let (mut before, mut requests) = (None, BufReader::new(stream));
    while let Some(body) = posted(&mut requests) {
        for text in body.lines() {
            let number = number(text);
            oracle.lock().expect("unpoisoned").take(before, number);
            before = Some(number);
        }
        // The program is killed in the middle of it.
        if requests.get_mut().write_all(status(200, "").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn every_message_that_was_answered_arrives_in_order_however_often_the_program_is_killed() {
    survive(kills(KILLS), &format!("{{relp: {{windowMessages: {SINK_WINDOW}}}}}"), serve);
}

#[test]
fn every_message_that_was_answered_arrives_over_http_and_no_more_than_a_request_comes_again_for_each_kill() {
    let send = format!("{{http: {{format: Raw, batchMessages: {SINK_WINDOW}, lingerMillis: 0}}}}");
    survive(kills(KILLS_OVER_HTTP), &send, serve_http);
}

/// Kills the program so often. `send` says how it sends messages to its sink, and `serve` takes those of a connection.
fn survive(kills: usize, send: &str, serve: fn(TcpStream, &Mutex<Oracle>)) {
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let (oracle, turn) = (Arc::new(Mutex::new(Oracle::of_turns())), Mutex::new(()));
    let asked = oracle.clone();
    // What a program sent that was killed is taken before what the next one sends.
    let sink = move |stream: TcpStream| {
        let _turn = turn.lock().expect("unpoisoned");
        serve(stream, &asked);
    };
    let sink = Backend::start(Behaviour::Run(Arc::new(sink)));
    // A client that is quicker than the sink waits, and nothing is dropped.
    let durable = format!(
        "durable: {{framing: Relp, syncMillis: 0, whenFull: Block, store: {{disk: {{maxBytes: 16777216}}}}, \
         send: {send}}}"
    );
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(sink.port).with(&durable)]);
    let arrived = || oracle.lock().expect("unpoisoned").next;
    let started = Instant::now();
    let mut program = run(&manifests, health, data.path());
    let client = Client::start(port);
    for _ in 0..kills {
        let (answered, last) = (client.answered(), arrived());
        until("messages are answered, and others arrive", || {
            client.answered() >= answered + BETWEEN && arrived() > last
        });
        drop(program.kill());
        program = run(&manifests, health, data.path());
    }
    let answered = client.stop();
    until("every message that was answered arrives", || arrived() >= answered);
    let oracle = oracle.lock().expect("unpoisoned");
    eprintln!(
        "{kills} kills in {:?}: {answered} messages were answered, and {} arrived, of which {} came again, no more than \
         {} over one connection",
        started.elapsed(),
        oracle.taken,
        oracle.taken - oracle.next,
        oracle.again
    );
    assert!(oracle.faults.is_empty(), "{} faults: {:?}", oracle.faults.len(), oracle.faults.iter().take(8));
    let windows = SINK_WINDOW as u64 + WINDOW;
    assert!(oracle.taken - oracle.next <= kills as u64 * windows, "more than both windows for each kill");
}

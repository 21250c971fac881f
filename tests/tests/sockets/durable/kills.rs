//! `portlane run` is killed again and again (SIGKILL) while a client sends over RELP. An oracle at the sink knows what
//! may come: no message that the client had an answer for is missing, none comes before one that was sent earlier, what
//! the client sends again is within its window, and what the next program sends again is within that of the sink, which
//! is one request over HTTP.

use std::{
    io::{BufReader, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use harness::{
    Listener, forward, free_port,
    kills::{self, Client, Oracle, WINDOW, number, serve},
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
/// Messages of the program without an answer of the sink: the window of RELP, or a request of HTTP.
const SINK_WINDOW: usize = 128;

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
    survive(kills::how_many(KILLS), &format!("{{relp: {{windowMessages: {SINK_WINDOW}}}}}"), serve);
}

#[test]
fn every_message_that_was_answered_arrives_over_http_and_no_more_than_a_request_comes_again_for_each_kill() {
    let send = format!("{{http: {{format: Raw, batchMessages: {SINK_WINDOW}, lingerMillis: 0}}}}");
    survive(kills::how_many(KILLS_OVER_HTTP), &send, serve_http);
}

/// Kills the program so often. `send` says how it sends messages to its sink, and `serve` takes those of a connection.
fn survive(kills: usize, send: &str, serve: fn(TcpStream, &Mutex<Oracle>)) {
    let (port, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let oracle = Arc::new(Mutex::new(Oracle::of_turns(SINK_WINDOW)));
    let sink = kills::sink(&oracle, serve);
    // A client that is quicker than the sink waits, and nothing is dropped.
    let durable = format!(
        "durable: {{framing: Relp, syncMillis: 0, whenFull: Block, store: {{disk: {{maxBytes: 16777216}}}}, \
         send: {send}}}"
    );
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(sink.port).with(&durable)]);
    kills::survive(kills, Client::start(port), &oracle, || run(&manifests, health, data.path()));
    let (oracle, windows) = (oracle.lock().expect("unpoisoned"), SINK_WINDOW as u64 + WINDOW);
    assert!(oracle.taken - oracle.next <= kills as u64 * windows, "more than both windows for each kill");
}

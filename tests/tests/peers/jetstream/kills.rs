//! `portlane run` is killed again and again (SIGKILL) while a client sends over RELP and a NATS server keeps the
//! messages. An oracle at the sink knows what may come: no message that the client had an answer for is missing, none
//! comes before one that was sent earlier, and what the client sends again is within its window. The server learns
//! later than the program what the sink has, so more than the window of the sink may come again, but no more than the
//! program holds.

use std::sync::{Arc, Mutex};

use durable_core::stream::HELD;
use harness::{
    free_port,
    kills::{self, Client, Oracle, serve},
    until,
};

use super::{manifests, nats, run};
use crate::server::open_folder;

/// Kills in the `node` tier.
const KILLS: usize = 5;
/// The client is no further ahead of the sink, so that a quick one does not leave the sink a long backlog. It is far
/// more than the window of the client.
const AHEAD: u64 = 2000;

#[test]
fn every_message_that_jetstream_has_acknowledged_arrives_in_order_however_often_the_program_is_killed() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, health) = (free_port(), free_port(), free_port());
    let _server = nats(folder.path(), back);
    let oracle = Arc::new(Mutex::new(Oracle::of_turns(HELD)));
    let sink = kills::sink(&oracle, serve);
    let manifests = manifests(port, back, sink.port);
    let asked = oracle.clone();
    let client = Client::paced(port, move |number| {
        until("the sink is close behind", || number < asked.lock().expect("unpoisoned").next + AHEAD);
    });
    kills::survive(kills::how_many(KILLS), client, &oracle, || run(&manifests, health, data.path()));
}

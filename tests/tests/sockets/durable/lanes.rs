//! Lanes: a message that the sink does not take holds up those of its lane, and no others.

use std::{
    net::{IpAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use durable_core::lanes::lane_of;
use harness::{Listener, forward, free_port, until};
use tempfile::tempdir;

use super::{COUNT, LOCALHOST, figure, http, messages, run};

/// Sends messages from an address of this machine that has this lane of two.
fn send(port: u16, lane: usize, messages: &[String]) {
    let mut addresses = (1..=u8::MAX).map(|last| IpAddr::from([127, 0, 0, last]));
    let address = addresses.find(|address| lane_of(*address, 2) == lane).expect("both have some");
    let socket = UdpSocket::bind((address, 0)).expect("an address of this machine");
    for message in messages {
        socket.send_to(message.as_bytes(), (LOCALHOST, port)).expect("it is sent");
    }
}

#[test]
fn a_message_that_the_sink_answers_with_500_holds_up_its_lane_alone() {
    let (udp, health, data) = (free_port(), free_port(), tempdir().expect("a folder"));
    let (taken, refused, is_well) =
        (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (kept, first, healed) = (taken.clone(), refused.clone(), is_well.clone());
    let sink = http::sink(move |body| {
        if body.starts_with("stuck") && !healed.load(Relaxed) {
            first.store(true, Relaxed);
            return http::status(500, "");
        }
        kept.lock().expect("unpoisoned").push(body.to_owned());
        http::status(200, "")
    });
    let send_over = "send: {http: {format: Raw, batchMessages: 1, lingerMillis: 0}}";
    let durable = format!("durable: {{lanes: 2, syncMillis: 0, store: {{disk: {{maxBytes: 33554432}}}}, {send_over}}}");
    let listeners = [Listener::udp("u", udp).to(sink.port).with(&durable)];
    let _program = run(&forward("f", "", &listeners), health, data.path());
    let (stuck, free) = (messages("stuck"), messages("free"));
    let of = |word: &str| -> Vec<String> {
        let taken = taken.lock().expect("unpoisoned");
        taken.iter().filter(|body| body.starts_with(word)).cloned().collect()
    };
    send(udp, 0, &stuck);
    until("the sink refuses the first message", || refused.load(Relaxed));
    send(udp, 1, &free);
    until("the other lane continues", || of("free").len() >= COUNT);
    assert_eq!((of("free"), of("stuck")), (free, Vec::new()));
    let waiting = || figure(health, "backlog_messages", "u", "");
    until("the metrics have the sum of both lanes", || waiting() == Some(COUNT as u64));
    is_well.store(true, Relaxed);
    until("the sink has all messages", || of("stuck").len() >= COUNT);
    assert_eq!(of("stuck"), stuck);
}

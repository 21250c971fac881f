//! Sinks that never answer.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod sinks;

use durable_core::intake::Framing;
use durable_core::send::{Outgoing, Tcp, Udp, Verdict};
use sinks::message;

#[test]
fn a_datagram_is_delivered_when_the_system_took_it_and_is_poison_if_it_is_too_long() {
    let mut udp = Udp::default();
    let most = udp.room();
    let mut out = Vec::new();
    for number in 0..3 {
        out.clear();
        udp.push(message(number), &mut out);
        assert_eq!(out, message(number).payload);
    }
    assert_eq!(udp.room(), most - 3);
    let mut verdicts = Vec::new();
    udp.sent(&mut verdicts);
    assert_eq!(verdicts, [Verdict::Delivered { through: 0 }]);
    udp.too_long(&mut verdicts);
    udp.sent(&mut verdicts);
    udp.sent(&mut verdicts);
    let [_, Verdict::Poison { number: 1, reason }, Verdict::Delivered { through: 2 }] = verdicts.as_slice() else {
        panic!("{verdicts:?}");
    };
    assert!(reason.starts_with("44 bytes are too long for a datagram"), "{reason}");
}

#[test]
fn a_tcp_sink_is_not_sent_more_than_the_bound_until_its_kernel_acknowledges() {
    let mut tcp = Tcp::new(Framing::Length4, 0);
    let (mut out, mut verdicts) = (Vec::new(), Vec::new());
    tcp.connected(0, &mut out);
    let mut number = 0;
    while tcp.room() > 0 {
        tcp.push(Outgoing { number, payload: vec![7; 100_000] }, &mut out);
        number += 1;
    }
    assert_eq!(number, 11, "one MiB, and the message that passes it");
    tcp.acknowledged(100_003, &mut verdicts);
    assert!(verdicts.is_empty(), "the last byte of a message counts");
    tcp.acknowledged(100_004, &mut verdicts);
    assert_eq!(verdicts, [Verdict::Delivered { through: 0 }]);
    assert!(tcp.room() > 0);
    tcp.connected(1, &mut out);
    assert_eq!(tcp.room(), 8192);
}

#[test]
fn a_tcp_sink_gets_whole_messages_again_and_no_more_than_the_bytes_that_are_kept() {
    let mut tcp = Tcp::new(Framing::Newline, 100);
    let mut out = Vec::new();
    for number in 0..5 {
        tcp.push(message(number), &mut out);
    }
    let mut verdicts = Vec::new();
    tcp.acknowledged(u64::MAX, &mut verdicts);
    assert_eq!(verdicts, [Verdict::Delivered { through: 4 }]);
    out.clear();
    tcp.connected(5, &mut out);
    assert_eq!(out, [message(4).payload.as_slice(), b"\n"].concat(), "56 bytes, and 52 before them");
}

#[test]
fn a_tcp_sink_takes_messages_until_a_mebibyte_is_not_acknowledged() {
    // A length of four bytes comes before the message.
    for (bytes, room) in [((1 << 20) - 5, 8191), ((1 << 20) - 4, 0)] {
        let mut tcp = Tcp::new(Framing::Length4, 0);
        tcp.push(Outgoing { number: 0, payload: vec![7; bytes] }, &mut Vec::new());
        assert_eq!(tcp.room(), room, "{bytes}");
    }
}

#[test]
fn a_tcp_sink_gets_all_bytes_again_that_may_be_kept_without_those_from_the_cursor_on() {
    // The last two messages have 52 and 56 bytes.
    for (rewind_bytes, cursor, again) in [(108, 5, 2), (107, 5, 1), (108, 4, 1), (108, 3, 0)] {
        let mut tcp = Tcp::new(Framing::Newline, rewind_bytes);
        for number in 0..5 {
            tcp.push(message(number), &mut Vec::new());
        }
        tcp.acknowledged(u64::MAX, &mut Vec::new());
        assert_eq!(tcp.connected(cursor, &mut Vec::new()), again, "{rewind_bytes} bytes, {cursor}");
    }
}

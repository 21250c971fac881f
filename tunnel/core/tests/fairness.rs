//! Streams take turns of one frame, and datagrams have every other turn.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use tunnel_core::{Kind, Limits, MAX_PAYLOAD, Session, Side, StreamId};
use wire::{EPOCH, Frame, attached, frame, frames, give, take, tcp, udp};

const START: Duration = Duration::ZERO;
const BUSY: usize = 64;
const EACH: usize = 256 * 1024;

/// A stream with the id `id` that its peer has accepted, with much credit.
fn accepted(session: &mut Session, id: u32) -> StreamId {
    let stream = session.open(tcp(), START).expect("there is room");
    take(session, EPOCH, START);
    give(session, EPOCH, &frame(Kind::Opened, 0, id, 1024 * 1024, &[]), START);
    stream
}

/// A session with [`BUSY`] streams that have [`EACH`] bytes to send.
fn busy() -> Session {
    let mut session = attached(Side::Dialler, &Limits::default());
    let streams: Vec<StreamId> = (1..).step_by(2).take(BUSY).map(|id| accepted(&mut session, id)).collect();
    for stream in streams {
        assert_eq!(session.write(stream, &vec![7; EACH]), EACH);
    }
    session
}

/// What the session sends in one turn.
fn turn(session: &mut Session) -> Vec<Frame> {
    let mut out = Vec::new();
    session.transmit(EPOCH, &mut out, 1, START).expect("a carrier is there");
    frames(&out)
}

#[test]
fn busy_streams_move_within_one_frame_of_each_other() {
    let mut session = busy();
    let mut moved: BTreeMap<u32, usize> = (1..).step_by(2).take(BUSY).map(|id| (id, 0)).collect();
    let mut turns = 0;
    while session.has_output() {
        for frame in turn(&mut session) {
            assert!(frame.is(Kind::Data) && frame.payload.len() <= MAX_PAYLOAD);
            *moved.get_mut(&frame.stream).expect("it was opened") += frame.payload.len();
        }
        turns += 1;
        let (most, least) = (moved.values().max(), moved.values().min());
        let apart = most.zip(least).map(|(most, least)| most - least);
        assert!(apart.is_some_and(|apart| apart <= MAX_PAYLOAD), "after {turns} turns {apart:?}");
    }
    assert!(moved.values().all(|moved| *moved == EACH));
}

#[test]
fn a_stream_that_begins_beside_busy_ones_waits_for_one_turn_of_each() {
    let mut session = busy();
    for _ in 0..BUSY / 2 {
        turn(&mut session);
    }
    let new = session.open(tcp(), START).expect("there is room");
    session.write(new, b"hello");
    let turns = (1..=10 * BUSY).find(|_| turn(&mut session).iter().any(|frame| frame.is(Kind::Open)));
    assert_eq!(turns, Some(BUSY + 1));
}

#[test]
fn datagrams_and_streams_take_turns() {
    let mut session = busy();
    let flow = session.open(udp(), START).expect("there is room");
    for _ in 0..20 {
        session.send_datagram(flow, b"datagram", START);
    }
    for _ in 0..20 {
        let kinds: Vec<Kind> = turn(&mut session).iter().filter_map(what).collect();
        assert_eq!(kinds, [Kind::Datagram, Kind::Data]);
    }
    assert!(turn(&mut session).iter().all(|frame| frame.is(Kind::Data)), "no datagram is left");
}

/// Data or a datagram.
fn what(frame: &Frame) -> Option<Kind> {
    [Kind::Data, Kind::Datagram].into_iter().find(|kind| frame.is(*kind))
}

#[test]
fn questions_and_answers_come_before_bytes() {
    let mut session = busy();
    give(&mut session, EPOCH, &frame(Kind::Ping, 0, 0, 7, &[]), START);
    session.advance(Limits::default().heartbeat);
    let sent = turn(&mut session);
    assert!(sent[0].is(Kind::Ping) && sent[1].is(Kind::Pong), "{:?}", &sent[..2]);
}

#[test]
fn what_is_sent_ends_soon_after_its_limit() {
    let mut session = busy();
    for limit in [0, 1, 1000, 20_000, 100_000] {
        let mut out = Vec::new();
        session.transmit(EPOCH, &mut out, limit, START).expect("a carrier is there");
        assert!(out.len() < limit + MAX_PAYLOAD + 100, "{} bytes for {limit}", out.len());
        assert_eq!(out.is_empty(), limit == 0);
    }
}

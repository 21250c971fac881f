//! Peers that violate the protocol: each violation is reported, and nothing grows beyond its limit.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::time::Duration;

use tunnel_core::{Kind, Limits, Malformed, Reason, Session, Side, Violation};
use wire::{
    EPOCH, FINAL, TCP, ack, asked, attach, attached, entry, frame, give, notices, streams_in_each_phase, take, tcp,
};

const START: Duration = Duration::ZERO;
const ANSWERED: u8 = 1;

fn refused_by_all(bytes: &[u8]) -> Violation {
    let (mut session, _) = streams_in_each_phase(&Limits::default());
    session.receive(EPOCH, bytes, START).expect_err("the peer breaks the protocol")
}

#[test]
fn bytes_that_are_no_frame_are_malformed() {
    for kind in [0, 16, 127] {
        let mut bytes = frame(Kind::Ping, 0, 0, 0, &[]);
        bytes[0] = kind;
        assert_eq!(refused_by_all(&bytes), Violation::Malformed(Malformed::Kind(kind)));
    }
    // A length beyond the bound is refused before the payload arrives.
    let mut header = frame(Kind::Data, 0, 1, 5, &[]);
    header[2..4].copy_from_slice(&16_369u16.to_be_bytes());
    assert_eq!(refused_by_all(&header), Violation::Malformed(Malformed::Length { length: 16_369, bound: 16_368 }));
    let mut header = frame(Kind::Datagram, 0, 7, 0, &[]);
    header[2..4].copy_from_slice(&65_508u16.to_be_bytes());
    assert_eq!(refused_by_all(&header), Violation::Malformed(Malformed::Length { length: 65_508, bound: 65_507 }));
}

#[test]
fn payloads_that_cannot_be_read_are_malformed() {
    let long = [vec![7], vec![b'a'; 257]].concat();
    for (kind, stream, payload) in [
        (Kind::Open, 9, TCP[..TCP.len() - 1].to_vec()),
        (Kind::Open, 9, vec![2, 0, 80, 1, b'a', 0]),
        (Kind::Open, 9, vec![0, 0, 0, 1, b'a', 0]),
        (Kind::Open, 9, vec![0, 0, 80, 1, b'/', 0]),
        (Kind::Open, 9, vec![0, 0, 80, 255, b'a', 0]),
        (Kind::Open, 9, vec![]),
        (Kind::Refused, 2, vec![]),
        (Kind::Refused, 2, vec![1, 0xff]),
        (Kind::Refused, 2, long),
    ] {
        let bytes = frame(kind, 0, stream, 0, &payload);
        assert_eq!(refused_by_all(&bytes), Violation::Malformed(Malformed::Payload(kind)), "{payload:?}");
    }
}

#[test]
fn frames_at_the_wrong_time_are_out_of_turn() {
    for kind in [Kind::Resume, Kind::Hello, Kind::Welcome, Kind::Enrol, Kind::Certificate] {
        assert_eq!(refused_by_all(&frame(kind, FINAL, 0, 0, &[])), Violation::OutOfTurn(kind));
    }
    for kind in [Kind::Open, Kind::Data, Kind::Ack, Kind::Reset, Kind::Datagram, Kind::Ping, Kind::GoAway, Kind::Hello]
    {
        let mut session = Session::new(Side::Listener, Limits::default(), START);
        assert!(session.attach(1, START));
        assert_eq!(session.receive(1, &frame(kind, 0, 1, 0, TCP), START), Err(Violation::OutOfTurn(kind)));
    }
}

#[test]
fn kinds_of_a_later_version_are_passed_over_at_any_time() {
    let mut session = Session::new(Side::Listener, Limits::default(), START);
    assert!(session.attach(1, START));
    for kind in (128..=255).filter(|kind| *kind != Kind::Peers as u8) {
        let mut bytes = frame(Kind::Ignored, 255, 1, 7, b"later");
        bytes[0] = kind;
        give(&mut session, 1, &bytes, START);
    }
    give(&mut session, 1, &frame(Kind::Resume, FINAL, 0, 0, &[]), START);
    give(&mut session, 1, &frame(Kind::Ignored, 0, 0, 0, &[0; 1000]), START);
}

#[test]
fn a_request_needs_a_free_id_of_its_own_side() {
    for id in [0, 1, 2, 3, 5, 7, 8] {
        assert_eq!(refused_by_all(&frame(Kind::Open, 0, id, 0, TCP)), Violation::Id(id));
    }
    for id in [1, 3, 4, 5, 7] {
        let bytes = frame(Kind::Refused, 0, id, 0, &[1]);
        assert_eq!(refused_by_all(&bytes), Violation::Id(id), "it does not wait for an answer");
    }
}

#[test]
fn an_answer_needs_a_request() {
    for id in [1, 3, 4, 5, 7] {
        assert_eq!(refused_by_all(&frame(Kind::Opened, 0, id, 0, &[])), Violation::Position(id));
    }
}

#[test]
fn bytes_are_the_next_ones_and_were_granted() {
    for offset in [0, 4, 6, 16_384, u64::MAX - 1, u64::MAX] {
        assert_eq!(refused_by_all(&frame(Kind::Data, 0, 1, offset, b"!")), Violation::Position(1));
    }
    let (mut session, _) = streams_in_each_phase(&Limits::default());
    for n in 0..4 {
        give(&mut session, EPOCH, &frame(Kind::Data, 0, 1, 5 + n * 16_368, &vec![1; 16_368]), START);
    }
    let at = 5 + 4 * 16_368;
    let beyond = frame(Kind::Data, 0, 1, at, &[1; 60]);
    assert_eq!(session.receive(EPOCH, &beyond, START), Err(Violation::Position(1)), "the window has 65,536 bytes");
    give(&mut session, EPOCH, &frame(Kind::Data, FINAL, 1, at, &[1; 59]), START);
    for flags in [0, FINAL] {
        let after = frame(Kind::Data, flags, 1, at + 59, &[]);
        assert_eq!(session.receive(EPOCH, &after, START), Err(Violation::Position(1)), "the end was there");
    }
    assert_eq!(refused_by_all(&frame(Kind::Data, 0, 7, 0, b"!")), Violation::Position(7), "a flow has no bytes");
}

#[test]
fn an_acknowledgement_is_of_what_was_sent() {
    for (id, received) in [(1, 1), (2, 6), (2, u64::MAX), (4, 1), (6, 2)] {
        assert_eq!(refused_by_all(&ack(id, received, 0)), Violation::Position(id), "{received}");
    }
    assert_eq!(refused_by_all(&frame(Kind::Ack, 0, 2, 5, &[0; 7])), Violation::Position(2), "a credit has eight bytes");
}

#[test]
fn a_reset_is_at_the_end_of_the_bytes_and_comes_once() {
    for offset in [0, 4, 6, u64::MAX] {
        assert_eq!(refused_by_all(&frame(Kind::Reset, 0, 1, offset, &[])), Violation::Position(1));
    }
    let reset = frame(Kind::Reset, 0, 1, 5, &[]);
    assert_eq!(refused_by_all(&[&*reset, &*reset].concat()), Violation::Position(1));
    let after = frame(Kind::Data, 0, 1, 5, b"!");
    assert_eq!(refused_by_all(&[reset, after].concat()), Violation::Position(1));
}

#[test]
fn a_reset_at_the_wrong_place_does_not_end_the_stream() {
    let (mut session, streams) = streams_in_each_phase(&Limits::default());
    assert!(session.receive(EPOCH, &frame(Kind::Reset, 0, 1, 4, &[]), START).is_err());
    attach(&mut session, 2, &entry(1, 0, 0, 16_384), START);
    assert_eq!(session.room(streams[3]), 16_384);
}

#[test]
fn frames_of_another_carrier_are_stale() {
    let (mut session, _) = streams_in_each_phase(&Limits::default());
    let ping = frame(Kind::Ping, 0, 0, 0, &[]);
    for epoch in [0, 2, u64::MAX] {
        assert_eq!(session.receive(epoch, &ping, START), Err(Violation::Stale));
        assert_eq!(session.transmit(epoch, &mut Vec::new(), 1000, START), Err(Violation::Stale));
    }
    session.detach(EPOCH, START);
    assert_eq!(session.receive(EPOCH, &ping, START), Err(Violation::Stale), "a carrier that was lost");
}

#[test]
fn a_peer_cannot_have_more_than_was_sent_or_less_than_it_had() {
    // The peer acknowledged five bytes of 2, and now says what it has of each stream.
    let resumed = |entries: &[u8]| {
        let (mut session, _) = streams_in_each_phase(&Limits::default());
        give(&mut session, EPOCH, &ack(2, 5, 16_384), START);
        assert!(session.attach(2, START));
        session.receive(2, &frame(Kind::Resume, FINAL, 0, 0, entries), START)
    };
    for (id, received) in [(1, 1), (2, 4), (2, 6), (2, u64::MAX), (4, 1), (6, 2)] {
        assert_eq!(resumed(&entry(id, ANSWERED, received, u64::MAX)), Err(Violation::Position(id)), "{received}");
    }
    let cut = &entry(2, ANSWERED, 5, 0)[..20];
    assert_eq!(resumed(cut), Err(Violation::Malformed(Malformed::Payload(Kind::Resume))));
    let twice = [entry(2, ANSWERED, 5, 0), entry(2, 0, 5, 0)].concat();
    assert!(resumed(&twice).is_ok(), "the same again changes nothing");
}

#[test]
fn entries_of_streams_that_are_not_there_cost_nothing() {
    let (mut session, streams) = streams_in_each_phase(&Limits::default());
    assert!(session.attach(2, START));
    for n in 0..200 {
        let entries: Vec<u8> =
            (0..700).flat_map(|id| entry(1000 + n * 700 + id, ANSWERED, u64::MAX, u64::MAX)).collect();
        give(&mut session, 2, &frame(Kind::Resume, 0, 0, 0, &entries), START);
    }
    give(&mut session, 2, &frame(Kind::Resume, FINAL, 0, 0, &[]), START);
    assert!(session.len() <= streams.len());
    assert!(notices(&mut session).len() <= streams.len());
}

#[test]
fn an_acknowledgement_of_what_an_earlier_carrier_had_sent_is_wrong() {
    let mut session = attached(Side::Dialler, &Limits::default());
    let id = session.open(tcp(), START).expect("there is room");
    session.write(id, &vec![1; 10_000]);
    session.finish(id);
    take(&mut session, EPOCH, START);
    // The peer says that it has nothing, and then everything, before anything was resent.
    attach(&mut session, 2, &entry(1, ANSWERED, 0, 65_536), START);
    assert_eq!(session.receive(2, &ack(1, 10_000, 65_536), START), Err(Violation::Position(1)));
    let again = take(&mut session, 2, START);
    assert_eq!(again.iter().filter(|frame| frame.is(Kind::Data)).count(), 1, "and not empty frames without end");
}

#[test]
fn a_credit_without_end_is_used_within_memory() {
    let limits = Limits { memory: 256 * 1024, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, u64::MAX, TCP), START);
    let id = asked(&mut session)[0];
    session.accept(id);
    give(&mut session, EPOCH, &ack(1, 0, u64::MAX), START);
    assert_eq!(session.room(id), 256 * 1024);
    assert_eq!(session.write(id, &vec![1; 1024 * 1024]), 256 * 1024);
    assert_eq!(session.memory().1, limits.memory);
}

#[test]
fn a_flood_of_requests_is_bounded() {
    let limits = Limits { streams: 50, unanswered: 10, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    take(&mut session, EPOCH, START);
    for n in 0..10_000 {
        give(&mut session, EPOCH, &frame(Kind::Open, 0, 2 * n + 1, u64::MAX, TCP), START);
        give(&mut session, EPOCH, &frame(Kind::Data, 0, 2 * n + 1, 0, b"hello"), START);
        assert!(session.len() <= limits.streams + limits.unanswered);
    }
    assert_eq!(asked(&mut session).len(), 10, "the application hears of no more than may wait");
    assert_eq!(session.counters().refused_streams, 9990);
    assert!(session.memory().0 <= limits.memory);
    let refused = take(&mut session, EPOCH, START).iter().filter(|frame| frame.is(Kind::Refused)).count();
    assert_eq!(refused, 50, "as many as there was a place for");
    assert_eq!(session.len(), 10);
}

#[test]
fn each_request_beyond_a_bound_is_refused_with_the_reason_and_the_session_goes_on() {
    let limits = Limits::default();
    for (limits, taken, why) in [
        (Limits { streams: 3, ..limits.clone() }, 3, "has 3 streams"),
        (Limits { unanswered: 4, ..limits.clone() }, 4, "4 requests wait"),
        (Limits { memory: 32 * 1024, ..limits.clone() }, 2, "memory for windows"),
    ] {
        let mut session = attached(Side::Listener, &limits);
        take(&mut session, EPOCH, START);
        for n in 0..8 {
            give(&mut session, EPOCH, &frame(Kind::Open, 0, 2 * n + 1, u64::MAX, TCP), START);
        }
        let mut answers = take(&mut session, EPOCH, START);
        answers.retain(|frame| frame.is(Kind::Refused));
        assert_eq!(answers.len(), 8 - taken, "{why}");
        for answer in answers {
            let (reason, detail) = answer.payload.split_first().expect("a reason");
            let detail = String::from_utf8_lossy(detail);
            assert!(*reason == Reason::Full as u8 && detail.contains(why), "{reason}: {detail}");
        }
        assert_eq!(session.len(), taken, "{why}");
        give(&mut session, EPOCH, &frame(Kind::Ping, 0, 0, 7, &[]), START);
        assert!(take(&mut session, EPOCH, START).iter().any(|frame| frame.is(Kind::Pong)), "{why}");
    }
}

#[test]
fn a_stream_that_is_refused_for_a_bound_is_never_shown_to_the_application() {
    let limits = Limits { unanswered: 0, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, 16_384, TCP), START);
    give(&mut session, EPOCH, &frame(Kind::Data, 0, 1, 0, b"hello"), START);
    give(&mut session, EPOCH, &frame(Kind::Reset, 0, 1, 5, &[]), START);
    assert!(notices(&mut session).is_empty());
}

#[test]
fn frames_of_streams_that_are_gone_are_counted_and_cost_nothing() {
    let mut session = attached(Side::Listener, &Limits::default());
    for (kind, payload) in [
        (Kind::Opened, vec![]),
        (Kind::Data, b"late".to_vec()),
        (Kind::Ack, vec![0; 8]),
        (Kind::Reset, vec![]),
        (Kind::Refused, vec![1]),
        (Kind::Datagram, b"late".to_vec()),
    ] {
        for id in [0, 1, 2, u32::MAX] {
            give(&mut session, EPOCH, &frame(kind, 0, id, u64::MAX, &payload), START);
        }
    }
    assert_eq!(session.counters().stray_frames, 24);
    assert!(session.is_empty());
}

//! Flows of datagrams: what arrives, and what is dropped.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::time::Duration;

use tunnel_core::{Kind, Limits, MAX_DATAGRAM, Session, Side, StreamId};
use wire::{EPOCH, UDP, asked, attached, connect, exchange, frame, give, ms, pair, refusal, stream, take, tcp, udp};

const START: Duration = Duration::ZERO;
/// Empty datagrams that wait for a carrier.
const EMPTY_IN_LANE: u64 = 256 * 1024 / 64;
/// Empty datagrams that wait for the reader of one flow.
const EMPTY_IN_FLOW: u64 = 128 * 1024 / 64;

fn received(session: &mut Session, flow: StreamId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| session.take_datagram(flow)).collect()
}

/// A session whose peer requested a flow with the id 1, which was accepted.
fn asked_for_a_flow(limits: &Limits) -> (Session, StreamId) {
    let mut session = attached(Side::Listener, limits);
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, 0, UDP), START);
    let flow = asked(&mut session)[0];
    session.accept(flow);
    take(&mut session, EPOCH, START);
    (session, flow)
}

#[test]
fn datagrams_of_every_length_arrive_whole_and_in_both_directions() {
    let mut ends = pair(&Limits::default());
    let flow = stream(&mut ends, udp(), START);
    for length in [0, 1, 16_367, 16_368, 16_369, 65_506, MAX_DATAGRAM] {
        let datagram: Vec<u8> = (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect();
        for end in [0, 1] {
            ends[end].send_datagram(flow, &datagram, START);
            exchange(&mut ends, EPOCH, START);
            assert!(received(&mut ends[1 - end], flow) == [&*datagram], "{length} bytes from {end}");
        }
    }
    ends[0].send_datagram(flow, &vec![0; MAX_DATAGRAM + 1], START);
    exchange(&mut ends, EPOCH, START);
    assert!(received(&mut ends[1], flow).is_empty());
    assert_eq!(ends[0].counters().dropped_datagrams, 1);
}

#[test]
fn a_datagram_may_follow_the_request_at_once_and_never_precedes_it() {
    let mut session = attached(Side::Dialler, &Limits::default());
    take(&mut session, EPOCH, START);
    let flow = session.open(udp(), START).expect("there is room");
    session.send_datagram(flow, b"first", START);
    let sent: Vec<u8> = take(&mut session, EPOCH, START).iter().map(|frame| frame.kind).collect();
    assert_eq!(sent, [Kind::Open as u8, Kind::Datagram as u8]);
}

#[test]
fn a_datagram_waits_for_its_reader_before_the_flow_is_accepted() {
    let mut ends = pair(&Limits::default());
    let flow = ends[0].open(udp(), START).expect("there is room");
    ends[0].send_datagram(flow, b"first", START);
    exchange(&mut ends, EPOCH, START);
    ends[1].accept(flow);
    assert_eq!(received(&mut ends[1], flow), [b"first"]);
}

#[test]
fn datagrams_that_came_before_their_flow_was_refused_are_counted_as_dropped() {
    let mut session = attached(Side::Listener, &Limits::default());
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, 0, UDP), START);
    for _ in 0..2 {
        give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 1, 0, b"early"), START);
    }
    let flow = asked(&mut session)[0];
    session.refuse(flow, refusal());
    assert_eq!(session.counters().dropped_datagrams, 2);
}

#[test]
fn a_datagram_that_waited_for_longer_than_a_hundred_milliseconds_is_dropped() {
    let mut ends = pair(&Limits::default());
    let flow = stream(&mut ends, udp(), START);
    ends[0].send_datagram(flow, b"old", START);
    ends[0].send_datagram(flow, b"new", ms(1));
    exchange(&mut ends, EPOCH, ms(101));
    assert_eq!(received(&mut ends[1], flow), [b"new"]);
    assert_eq!(ends[0].counters().dropped_datagrams, 1);
}

#[test]
fn the_oldest_datagrams_give_way_while_the_carrier_is_slow() {
    let mut ends = pair(&Limits::default());
    let flow = stream(&mut ends, udp(), START);
    for number in 0..10u8 {
        ends[0].send_datagram(flow, &vec![number; 60_000], START);
    }
    assert_eq!(ends[0].counters().dropped_datagrams, 6);
    let mut out = Vec::new();
    let mut numbers = Vec::new();
    while ends[0].has_output() {
        // The reader keeps up, so the sender causes all drops.
        out.clear();
        ends[0].transmit(EPOCH, &mut out, 1, START).expect("a carrier is there");
        assert_eq!(ends[1].receive(EPOCH, &out, START), Ok(out.len()));
        numbers.extend(received(&mut ends[1], flow).iter().map(|datagram| datagram[0]));
    }
    assert_eq!(numbers, [6, 7, 8, 9]);
}

#[test]
fn the_oldest_datagrams_give_way_while_the_reader_is_slow() {
    let (mut session, flow) = asked_for_a_flow(&Limits::default());
    for number in 0..10u8 {
        give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 1, 0, &vec![number; 60_000]), START);
    }
    let numbers: Vec<u8> = received(&mut session, flow).iter().map(|datagram| datagram[0]).collect();
    assert_eq!(numbers, [8, 9]);
    assert_eq!(session.counters().dropped_datagrams, 8);
}

#[test]
fn empty_datagrams_are_bounded_too() {
    let mut session = Session::new(Side::Dialler, Limits::default(), START);
    let flow = session.open(udp(), START).expect("there is room");
    for _ in 0..10_000 {
        session.send_datagram(flow, &[], START);
    }
    assert_eq!(session.counters().dropped_datagrams, 10_000 - EMPTY_IN_LANE, "while they wait for a carrier");

    let (mut session, flow) = asked_for_a_flow(&Limits::default());
    for _ in 0..10_000 {
        give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 1, 0, &[]), START);
    }
    assert_eq!(received(&mut session, flow).len() as u64, EMPTY_IN_FLOW, "while they wait for a reader");
    assert_eq!(session.counters().dropped_datagrams, 10_000 - EMPTY_IN_FLOW);
}

#[test]
fn all_flows_together_keep_no_more_than_the_session_may() {
    let limits = Limits { datagrams: 100_000, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    for id in [1, 3, 5] {
        give(&mut session, EPOCH, &frame(Kind::Open, 0, id, 0, UDP), START);
    }
    let flows = asked(&mut session);
    for id in [1, 3, 5] {
        give(&mut session, EPOCH, &frame(Kind::Datagram, 0, id, 0, &vec![1; 45_000]), START);
    }
    // The third has no room; in the first, the newer datagram replaces the older one.
    give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 1, 0, &vec![2; 45_000]), START);
    assert_eq!(session.counters().dropped_datagrams, 2);
    let kept: Vec<Vec<u8>> = flows.iter().flat_map(|flow| received(&mut session, *flow)).collect();
    assert_eq!(kept.iter().map(|datagram| datagram[0]).collect::<Vec<_>>(), [2, 1]);
    // What was taken makes room.
    give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 5, 0, &vec![3; 65_507]), START);
    assert_eq!(received(&mut session, flows[2]).len(), 1);
}

#[test]
fn what_waits_in_a_flow_that_its_reader_gave_up_makes_room_at_once() {
    let limits = Limits { datagrams: 50_000, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    for id in [1, 3] {
        give(&mut session, EPOCH, &frame(Kind::Open, 0, id, 0, UDP), START);
    }
    let flows = asked(&mut session);
    give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 1, 0, &vec![1; 45_000]), START);
    session.reset(flows[0]);
    give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 3, 0, &vec![1; 45_000]), START);
    assert_eq!(received(&mut session, flows[1]).len(), 1);
}

#[test]
fn a_datagram_after_the_end_of_its_flow_is_dropped() {
    for (kind, flags) in [(Kind::Data, wire::FINAL), (Kind::Reset, 0)] {
        let (mut session, flow) = asked_for_a_flow(&Limits::default());
        give(&mut session, EPOCH, &frame(kind, flags, 1, 0, &[]), START);
        give(&mut session, EPOCH, &frame(Kind::Datagram, 0, 1, 0, b"late"), START);
        assert_eq!(session.take_datagram(flow), None);
        assert_eq!(session.counters().dropped_datagrams, 1);
    }
}

#[test]
fn nothing_is_sent_of_a_flow_that_was_given_up() {
    let mut ends = pair(&Limits::default());
    let flow = stream(&mut ends, udp(), START);
    ends[0].reset(flow);
    ends[0].send_datagram(flow, b"late", START);
    assert_eq!(ends[0].counters().dropped_datagrams, 1);
    assert!(take(&mut ends[0], EPOCH, START).iter().all(|frame| frame.is(Kind::Reset)));
}

#[test]
fn a_datagram_of_a_stream_or_of_nothing_is_dropped() {
    let mut ends = pair(&Limits::default());
    let id = stream(&mut ends, tcp(), START);
    ends[0].send_datagram(id, b"no flow", START);
    assert_eq!(ends[0].counters().dropped_datagrams, 1);
    give(&mut ends[1], EPOCH, &frame(Kind::Datagram, 0, 1, 0, b"no flow"), START);
    assert_eq!(ends[1].counters().dropped_datagrams, 1);
    give(&mut ends[1], EPOCH, &frame(Kind::Datagram, 0, 77, 0, b"nothing"), START);
    assert_eq!(ends[1].counters().stray_frames, 1);
}

#[test]
fn a_flow_goes_on_over_a_new_carrier() {
    let mut ends = pair(&Limits::default());
    let flow = stream(&mut ends, udp(), START);
    for end in &mut ends {
        end.detach(EPOCH, START);
    }
    ends[0].send_datagram(flow, b"too early", START);
    ends[0].send_datagram(flow, b"in time", ms(100));
    connect(&mut ends, 2, ms(150));
    assert_eq!(received(&mut ends[1], flow), [b"in time"]);
    ends[1].send_datagram(flow, b"back", ms(150));
    exchange(&mut ends, 2, ms(150));
    assert_eq!(received(&mut ends[0], flow), [b"back"]);
}

#[test]
fn a_datagram_does_not_wait_for_bytes_of_streams() {
    let mut ends = pair(&Limits::default());
    let streams: Vec<StreamId> = (0..8).map(|_| stream(&mut ends, tcp(), START)).collect();
    let flow = stream(&mut ends, udp(), START);
    for id in streams {
        let room = ends[0].room(id);
        assert_eq!(ends[0].write(id, &vec![0; room]), room);
    }
    ends[0].send_datagram(flow, b"quick", START);
    let mut out = Vec::new();
    ends[0].transmit(EPOCH, &mut out, 1, START).expect("a carrier is there");
    assert!(wire::frames(&out).iter().any(|frame| frame.is(Kind::Datagram)));
}

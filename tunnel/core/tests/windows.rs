//! Windows: what a peer may send, and what that may cost.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::time::Duration;

use tunnel_core::{Kind, Limits, NotOpened, Notice, Session, Side, StreamId};
use wire::{EPOCH, FINAL, ack, attached, exchange, frame, give, ms, notices, pair, read, stream, take, tcp, udp};

const START: Duration = Duration::ZERO;
const KIB: u64 = 1024;
/// The round trip that [`measure`] shows the session.
const ROUND_TRIP: u64 = 100;

fn fill(session: &mut Session, id: StreamId) -> usize {
    let room = session.room(id);
    assert_eq!(session.write(id, &vec![1; room]), room, "there is as much room as was reported");
    room
}

/// Shows the session a round trip of [`ROUND_TRIP`] milliseconds.
fn measure(session: &mut Session) {
    take(session, EPOCH, START);
    give(session, EPOCH, &frame(Kind::Pong, 0, 0, 0, &[]), ms(ROUND_TRIP));
    assert_eq!(session.round_trip(), ms(ROUND_TRIP));
}

/// A stream of the session that its peer has accepted.
fn accepted(session: &mut Session, id: u32) -> StreamId {
    let stream = session.open(tcp(), START).expect("there is room");
    take(session, EPOCH, START);
    give(session, EPOCH, &frame(Kind::Opened, 0, id, 64 * KIB, &[]), START);
    stream
}

/// The peer sends `count` bytes from `at` on.
fn send(session: &mut Session, id: u32, at: usize, count: usize, now: Duration) {
    let mut sent = 0;
    while sent < count {
        let length = (count - sent).min(16_000);
        give(session, EPOCH, &frame(Kind::Data, 0, id, (at + sent) as u64, &vec![2; length]), now);
        sent += length;
    }
}

/// The credit that the session last announced to its peer.
fn credit(session: &mut Session, now: Duration) -> Option<u64> {
    let mut acks = take(session, EPOCH, now).into_iter().filter(|frame| frame.is(Kind::Ack));
    acks.next_back().map(|ack| u64::from_be_bytes(ack.payload.try_into().expect("the payload is the credit")))
}

#[test]
fn bytes_of_a_slow_reader_stand_at_the_receiver_and_others_go_on() {
    let mut ends = pair(&Limits { window: 64 * KIB, ..Limits::default() });
    let slow = stream(&mut ends, tcp(), START);
    let quick = stream(&mut ends, tcp(), START);
    let stands = fill(&mut ends[0], slow);
    exchange(&mut ends, EPOCH, START);
    assert_eq!(ends[0].room(slow), 0, "a full window");
    assert_eq!(ends[0].memory().1, 0, "what has arrived is not kept by its sender");
    let mut moved = 0;
    for _ in 0..100 {
        let written = fill(&mut ends[0], quick);
        assert!(written > 0, "the other stream continues");
        exchange(&mut ends, EPOCH, START);
        moved += read(&mut ends[1], quick, usize::MAX, START);
        exchange(&mut ends, EPOCH, START);
    }
    assert!(moved > 50 * stands);
    notices(&mut ends[0]);
    assert_eq!(read(&mut ends[1], slow, usize::MAX, START), stands, "and the slow reader finds its bytes");
    exchange(&mut ends, EPOCH, START);
    assert!(ends[0].room(slow) > 0);
    assert!(notices(&mut ends[0]).contains(&Notice::Changed(slow)), "the writer learns that there is room");
}

#[test]
fn a_full_window_is_never_the_death_of_a_carrier() {
    let mut ends = pair(&Limits::default());
    let id = stream(&mut ends, tcp(), START);
    let stands = fill(&mut ends[0], id);
    exchange(&mut ends, EPOCH, START);
    let mut now = START;
    while now < Duration::from_secs(600) {
        now = ends.iter().filter_map(Session::deadline).min().expect("a carrier is there");
        for end in &mut ends {
            end.advance(now);
        }
        exchange(&mut ends, EPOCH, now);
        for end in &mut ends {
            let told = notices(end);
            assert!(!told.contains(&Notice::Suspect) && !told.contains(&Notice::CarrierLost), "at {now:?}");
        }
    }
    assert_eq!(read(&mut ends[1], id, usize::MAX, now), stands);
}

#[test]
fn a_window_doubles_where_half_of_it_was_used_within_two_round_trips() {
    let mut session = attached(Side::Dialler, &Limits::default());
    measure(&mut session);
    let id = accepted(&mut session, 1);
    send(&mut session, 1, 0, 32 * 1024, ms(2 * ROUND_TRIP - 1));
    assert_eq!(read(&mut session, id, usize::MAX, ms(2 * ROUND_TRIP - 1)), 32 * 1024);
    assert_eq!(credit(&mut session, ms(2 * ROUND_TRIP - 1)), Some(32 * KIB + 128 * KIB));
}

#[test]
fn a_window_doubles_where_half_of_it_was_used_within_a_millisecond_however_short_a_round_trip_is() {
    for (used_within, window) in [(Duration::from_micros(999), 128 * KIB), (ms(1), 64 * KIB)] {
        let mut session = attached(Side::Dialler, &Limits::default());
        take(&mut session, EPOCH, START);
        give(&mut session, EPOCH, &frame(Kind::Pong, 0, 0, 0, &[]), Duration::from_micros(20));
        let id = accepted(&mut session, 1);
        send(&mut session, 1, 0, 32 * 1024, used_within);
        read(&mut session, id, usize::MAX, used_within);
        assert_eq!(credit(&mut session, used_within), Some(32 * KIB + window));
    }
}

#[test]
fn a_window_that_was_not_used_so_quickly_stays() {
    let mut session = attached(Side::Dialler, &Limits::default());
    measure(&mut session);
    let id = accepted(&mut session, 1);
    send(&mut session, 1, 0, 32 * 1024, ms(2 * ROUND_TRIP));
    assert_eq!(read(&mut session, id, 32 * 1024 - 1, ms(2 * ROUND_TRIP)), 32 * 1024 - 1);
    assert_eq!(credit(&mut session, ms(2 * ROUND_TRIP)), Some(64 * KIB), "less than half was used");
    assert_eq!(read(&mut session, id, 1, ms(2 * ROUND_TRIP)), 1);
    assert_eq!(credit(&mut session, ms(2 * ROUND_TRIP)), Some(32 * KIB + 64 * KIB));
}

#[test]
fn a_quarter_of_a_window_is_acknowledged_at_once_and_less_of_it_is_not() {
    let mut session = attached(Side::Dialler, &Limits::default());
    accepted(&mut session, 1);
    send(&mut session, 1, 0, 16 * 1024 - 1, START);
    assert!(!session.has_output());
    send(&mut session, 1, 16 * 1024 - 1, 1, START);
    assert_eq!(credit(&mut session, START), Some(64 * KIB));
    send(&mut session, 1, 16 * 1024, 16 * 1024 - 1, START);
    assert!(!session.has_output(), "it counts from the last acknowledgement");
}

#[test]
fn a_window_does_not_grow_before_a_round_trip_is_known() {
    let mut session = attached(Side::Dialler, &Limits::default());
    let id = accepted(&mut session, 1);
    send(&mut session, 1, 0, 32 * 1024, START);
    read(&mut session, id, usize::MAX, START);
    assert_eq!(credit(&mut session, START), Some(32 * KIB + 64 * KIB));
}

#[test]
fn a_window_grows_to_its_limit_and_leaves_as_much_of_half_of_the_memory() {
    for (limits, largest) in [
        (Limits { window: 256 * KIB, ..Limits::default() }, 256 * KIB),
        (Limits { memory: 400 * KIB, ..Limits::default() }, 100 * KIB),
    ] {
        let mut session = attached(Side::Dialler, &limits);
        measure(&mut session);
        let id = accepted(&mut session, 1);
        let mut at = 0;
        for _ in 0..20 {
            send(&mut session, 1, at, 32 * 1024, ms(1));
            at += read(&mut session, id, usize::MAX, ms(1));
            assert!(session.memory().0 <= largest);
        }
        assert_eq!(session.memory().0, largest);
    }
}

#[test]
fn windows_are_small_when_memory_is_low_and_then_none_is_promised() {
    let limits = Limits { memory: 256 * KIB, ..Limits::default() };
    let mut session = attached(Side::Dialler, &limits);
    let mut promised = Vec::new();
    let refused = loop {
        match session.open(tcp(), START) {
            Ok(_) => promised.push(session.memory().0 / KIB),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, NotOpened::Memory);
    assert_eq!(promised, [64, 128, 144, 160, 176, 192, 208, 224, 240, 256]);
}

#[test]
fn what_is_promised_stays_within_memory_while_streams_are_read_in_part() {
    let limits = Limits { memory: 128 * KIB, ..Limits::default() };
    let mut session = attached(Side::Dialler, &limits);
    let mut streams = Vec::new();
    for id in (1..).step_by(2) {
        let Ok(stream) = session.open(tcp(), START) else { break };
        take(&mut session, EPOCH, START);
        send(&mut session, id, 0, 16 * 1024, START);
        assert_eq!(read(&mut session, stream, 7 * 1024, START), 7 * 1024);
        streams.push(stream);
    }
    for stream in &streams {
        read(&mut session, *stream, usize::MAX, START);
    }
    assert!(session.memory().0 <= limits.memory, "{} bytes are promised", session.memory().0);
}

#[test]
fn flows_promise_no_window() {
    let limits = Limits { memory: 16 * KIB, ..Limits::default() };
    let mut ends = pair(&limits);
    for _ in 0..100 {
        let flow = stream(&mut ends, udp(), START);
        assert_eq!(ends[0].room(flow), 0, "a flow takes datagrams only");
    }
    assert_eq!(ends.each_ref().map(Session::memory), [(0, 0); 2]);
    stream(&mut ends, tcp(), START);
}

#[test]
fn bytes_kept_for_sending_again_stay_within_memory_and_starved_streams_take_turns() {
    let limits = Limits { memory: 64 * KIB, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    let streams: Vec<StreamId> = (0..4).map(|_| session.open(tcp(), START).expect("there is room")).collect();
    take(&mut session, EPOCH, START);
    for id in [2, 4, 6, 8] {
        give(&mut session, EPOCH, &frame(Kind::Opened, 0, id, 1024 * KIB, &[]), START);
    }
    assert_eq!(fill(&mut session, streams[0]), 64 * 1024);
    notices(&mut session);
    for stream in &streams[1..] {
        assert_eq!(session.room(*stream), 0, "the memory is used");
    }
    take(&mut session, EPOCH, START);
    // Each frame that the peer has received makes room for one of another stream.
    for (acknowledged, next) in [(16_368, streams[1]), (32_736, streams[2])] {
        give(&mut session, EPOCH, &ack(2, acknowledged, 1024 * KIB), START);
        let told = notices(&mut session);
        let others: Vec<_> = told.iter().filter(|notice| **notice != Notice::Changed(streams[0])).collect();
        assert_eq!(others, [&Notice::Changed(next)]);
        assert_eq!(fill(&mut session, next), 16_368);
        assert!(session.memory().1 <= limits.memory);
    }
}

#[test]
fn all_starved_streams_are_called_once_nothing_is_kept() {
    let limits = Limits { memory: 16 * KIB, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    let mut streams = Vec::new();
    for id in [2, 4, 6, 8] {
        streams.push(session.open(tcp(), START).expect("there is room"));
        take(&mut session, EPOCH, START);
        give(&mut session, EPOCH, &frame(Kind::Opened, 0, id, 1024 * KIB, &[]), START);
        // The peer has no bytes, so that the next stream has memory for its window.
        give(&mut session, EPOCH, &frame(Kind::Data, FINAL, id, 0, &[]), START);
    }
    assert_eq!(fill(&mut session, streams[0]), 16 * 1024);
    for stream in &streams[1..] {
        assert_eq!(session.room(*stream), 0, "the memory is used");
    }
    take(&mut session, EPOCH, START);
    notices(&mut session);
    give(&mut session, EPOCH, &ack(2, 16 * KIB, 1024 * KIB), START);
    let told = notices(&mut session);
    assert!(streams[1..].iter().all(|stream| told.contains(&Notice::Changed(*stream))), "{told:?}");
}

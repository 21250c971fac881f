#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::{Loss, Notice, Session, Side, StreamId};
use crate::frame::{FINAL, Kind, MAX_PAYLOAD, put};
use crate::limits::Limits;
use crate::open::{Open, Protocol, Target};
use crate::queue::FEW;
use crate::stream::End;

const START: Duration = Duration::ZERO;

fn open() -> Open {
    Open { target: Target { protocol: Protocol::Tcp, host: "db".to_owned(), port: 5432 }, source: None }
}

fn give(session: &mut Session, kind: Kind, flags: u8, stream: u32, offset: u64) {
    let mut bytes = Vec::new();
    put(&mut bytes, kind, flags, stream, offset, &[]);
    assert_eq!(session.receive(1, &bytes, START), Ok(bytes.len()));
}

/// The peer's socket is full: nothing is sent while streams come and go.
#[test]
fn queues_do_not_grow_by_streams_that_are_gone() {
    let limits = Limits { memory: 128 * 1024, ..Limits::default() };
    let mut session = Session::new(Side::Dialler, limits, START);
    assert!(session.attach(1, START));
    give(&mut session, Kind::Resume, FINAL, 0, 0);
    let busy = session.open(open(), START).unwrap();
    give(&mut session, Kind::Opened, 0, 1, 1024 * 1024);
    let room = session.room(busy);
    assert_eq!(session.write(busy, &vec![0; room]), 128 * 1024);
    for _ in 0..1000 {
        let id = session.open(open(), START).unwrap();
        assert_eq!(session.room(id), 0);
        session.reset(id);
    }
    assert_eq!(session.len(), 1);
    let queued = [session.ready.len(), session.starved.len()];
    assert!(queued.iter().all(|ids| *ids < 100), "{queued:?}");
}

#[test]
fn a_session_with_a_sidecar_promises_little_and_has_room_for_a_pool_of_connections() {
    let limits = Limits { unanswered: usize::MAX, ..Limits::default() };
    let mut session = Session::new(Side::Listener, limits.with_sidecar(), START);
    let opened = (0..1000).take_while(|_| session.open(open(), START).is_ok()).count();
    assert_eq!(opened, 320, "64 KiB each of the first half, and 16 KiB each of the second");
    assert_eq!(session.memory().0, 8 << 20);
}

const MANY: usize = 10_000;

/// Two ends with this many streams that both know and nobody writes to, on the carrier of epoch 1.
fn busy(count: usize) -> ([Session; 2], Vec<StreamId>) {
    let limits = Limits { streams: count, unanswered: count, memory: 1 << 40, ..Limits::default() };
    let mut ends = [Side::Dialler, Side::Listener].map(|side| Session::new(side, limits.clone(), START));
    connect(&mut ends, 1);
    let ids: Vec<StreamId> = (0..count).map(|_| ends[0].open(open(), START).unwrap()).collect();
    exchange(&mut ends, 1);
    for id in &ids {
        ends[1].accept(*id);
    }
    exchange(&mut ends, 1);
    assert!(ids.iter().all(|id| ends[0].is_open(*id)));
    // The first acknowledgements look at each new stream once.
    assert_eq!(ends[0].write(ids[0], b"x"), 1);
    exchange(&mut ends, 1);
    for end in &mut ends {
        end.advance(START + crate::limits::ACK_DELAY);
    }
    exchange(&mut ends, 1);
    ends[1].consume(ids[0], 1, START);
    forget_looks(&mut ends);
    (ends, ids)
}

fn connect(ends: &mut [Session; 2], epoch: u64) {
    for end in ends.iter_mut() {
        assert!(end.attach(epoch, START));
    }
    exchange(ends, epoch);
}

/// Moves frames both ways until neither end has any.
fn exchange([a, b]: &mut [Session; 2], epoch: u64) {
    while pass(a, b, epoch) || pass(b, a, epoch) {}
}

fn pass(from: &mut Session, to: &mut Session, epoch: u64) -> bool {
    let mut out = Vec::new();
    from.transmit(epoch, &mut out, usize::MAX, START).unwrap();
    assert_eq!(to.receive(epoch, &out, START), Ok(out.len()));
    !out.is_empty()
}

fn forget_looks(ends: &mut [Session; 2]) {
    for end in ends {
        while end.poll().is_some() {}
        end.looks = 0;
    }
}

#[test]
fn a_new_carrier_looks_a_few_times_at_each_stream() {
    for count in [MANY / 10, MANY] {
        let (mut ends, ids) = busy(count);
        connect(&mut ends, 2);
        for end in &ends {
            assert_eq!(end.len(), ids.len());
            assert!(end.looks >= count && end.looks <= 8 * count, "{} looks at {count} streams", end.looks);
        }
        // Each of them is reported once.
        let told: Vec<Notice> = std::iter::from_fn(|| ends[0].poll()).collect();
        assert_eq!(told.len(), count);
    }
}

#[test]
fn a_frame_of_one_stream_looks_at_no_other() {
    let (mut ends, ids) = busy(MANY);
    let id = ids[MANY / 2];
    assert_eq!(ends[0].write(id, b"hello"), 5);
    exchange(&mut ends, 1);
    let due = START + crate::limits::ACK_DELAY;
    for end in &mut ends {
        end.advance(due);
    }
    exchange(&mut ends, 1);
    ends[1].consume(id, 5, START);
    assert_eq!(ends[0].memory().1, 0, "what was written is acknowledged");
    let looks = ends.each_ref().map(|end| end.looks);
    assert!(looks.iter().all(|looks| *looks > 0 && *looks <= 16), "{looks:?}");
    forget_looks(&mut ends);
    ends[0].reset(id);
    exchange(&mut ends, 1);
    assert_eq!(ends[1].end(id), Some(End::Reset));
    assert_eq!(ends.each_ref().map(Session::len), [MANY - 1; 2]);
    let looks = ends.each_ref().map(|end| end.looks);
    assert!(looks.iter().all(|looks| *looks > 0 && *looks <= 16), "{looks:?}");
}

#[test]
fn emptied_blocks_are_kept_until_a_heartbeat_finds_that_none_was_used() {
    let (mut ends, ids) = busy(1);
    assert_eq!(ends[0].write(ids[0], &[1; MAX_PAYLOAD]), MAX_PAYLOAD);
    exchange(&mut ends, 1);
    let count = ends[1].readable(ids[0]).len();
    ends[1].consume(ids[0], count, START);
    let heartbeat = Limits::default().heartbeat;
    for (beat, kept) in [(0, 1), (1, 1), (2, 0)] {
        ends[1].advance(START + heartbeat * beat);
        assert_eq!((ends[1].readable(ids[0]).len(), ends[1].free.len()), (0, kept), "heartbeat {beat}");
    }
}

#[test]
fn the_places_that_a_burst_of_streams_took_in_queues_are_given_up_at_a_heartbeat() {
    let (mut ends, _) = busy(1000);
    let places = |end: &Session| end.ready.capacity() + end.notices.capacity();
    for end in &mut ends {
        assert!(places(end) > 1000);
        end.advance(START + Limits::default().heartbeat);
        assert!(places(end) <= 2 * FEW, "{} places", places(end));
    }
}

#[test]
fn the_memory_of_the_frames_of_a_resumption_is_freed_once_they_are_sent() {
    let (mut ends, _) = busy(1000);
    connect(&mut ends, 2);
    for end in &ends {
        let kept = end.carrier.as_ref().map(|carrier| carrier.words.capacity());
        assert!(kept.is_some_and(|kept| kept < 1000), "{kept:?} bytes");
    }
}

#[test]
fn the_places_that_a_burst_of_datagrams_took_on_their_way_to_the_carrier_are_given_up_at_a_heartbeat() {
    let mut ends = [Side::Dialler, Side::Listener].map(|side| Session::new(side, Limits::default(), START));
    connect(&mut ends, 1);
    let target = Target { protocol: Protocol::Udp, ..open().target };
    let flow = ends[0].open(Open { target, source: None }, START).unwrap();
    exchange(&mut ends, 1);
    for _ in 0..1000 {
        ends[0].send_datagram(flow, &[], START);
    }
    exchange(&mut ends, 1);
    let sender = &mut ends[0];
    assert!(sender.lane.is_empty() && sender.lane.places() >= 1000);
    sender.advance(START + Limits::default().heartbeat);
    assert!(sender.lane.places() <= FEW, "{} places", sender.lane.places());
}

#[test]
fn a_writer_that_has_read_the_end_is_told_that_the_session_is_lost() {
    let (mut ends, ids) = busy(1);
    ends[1].finish(ids[0]);
    exchange(&mut ends, 1);
    assert_eq!(ends[0].end(ids[0]), Some(End::Finished));
    forget_looks(&mut ends);
    ends[0].lose(Loss::GraceExpired);
    let told: Vec<Notice> = std::iter::from_fn(|| ends[0].poll()).collect();
    assert_eq!(told, [Notice::Changed(ids[0]), Notice::Lost(Loss::GraceExpired)]);
    assert!(ends[0].is_reset(ids[0]));
}

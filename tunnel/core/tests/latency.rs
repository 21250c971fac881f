//! How long datagrams wait beside streams with full windows on a slow carrier, on a virtual clock.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::collections::VecDeque;
use std::time::Duration;

use tunnel_core::{HEADER, Kind, Limits, MAX_PAYLOAD, Session, StreamId};
use wire::{EPOCH, frames, pair, pass, read, stream, tcp, udp};

const START: Duration = Duration::ZERO;
/// Streams that write whatever they may.
const STREAMS: usize = 8;
/// Datagrams that are sent together.
const BURST: usize = 4;
/// How often the carrier takes a frame of a stream, after a datagram if one waits: between two bursts, and in all.
const PAUSE: usize = 8;
const TURNS: usize = 200;
/// The longest frame, and one with a datagram of this test.
const FRAME: usize = HEADER + MAX_PAYLOAD;
const DATAGRAM: usize = HEADER + size_of::<usize>();

/// The time that a carrier of a megabyte per second takes for so many bytes.
fn time_of(bytes: usize) -> Duration {
    Duration::from_micros(bytes as u64)
}

/// Writes as much as each stream may, and returns the number of bytes.
fn fill(session: &mut Session, streams: &[StreamId]) -> usize {
    let write = |id: &StreamId| {
        let room = session.room(*id);
        session.write(*id, &vec![7; room])
    };
    streams.iter().map(write).sum()
}

#[test]
fn a_datagram_waits_for_the_frame_in_transit_and_for_one_frame_with_each_datagram_before_it() {
    let mut ends = pair(&Limits::default());
    let streams: Vec<StreamId> = (0..STREAMS).map(|_| stream(&mut ends, tcp(), START)).collect();
    let flow = stream(&mut ends, udp(), START);
    let [near, far] = &mut ends;
    // The bytes of streams that have not arrived, and the datagrams with the latest time of their arrival.
    let (mut now, mut behind, mut sent, mut waiting) = (START, 0, 0_usize, VecDeque::new());
    for turn in 0..TURNS {
        behind += fill(near, &streams);
        let mut out = Vec::new();
        near.transmit(EPOCH, &mut out, 1, now).expect("a carrier is there");
        // The worst moment: the carrier has just taken a frame.
        if turn % PAUSE == 0 {
            assert!(behind > 10 * FRAME, "the windows are full: {behind} bytes");
            for place in 1..=BURST {
                near.send_datagram(flow, &sent.to_be_bytes(), now);
                waiting.push_back((sent, now + time_of(place * (FRAME + DATAGRAM))));
                sent += 1;
            }
        }
        for frame in frames(&out) {
            now += time_of(HEADER + frame.payload.len());
            if frame.is(Kind::Datagram) {
                let (number, latest) = waiting.pop_front().expect("it was sent");
                assert_eq!(frame.payload, number.to_be_bytes(), "in their order, and none is dropped");
                assert!(now <= latest, "datagram {number} arrives {:?} too late", now.saturating_sub(latest));
            } else {
                behind -= frame.payload.len();
            }
        }
        assert_eq!(far.receive(EPOCH, &out, now), Ok(out.len()));
        for id in &streams {
            read(far, *id, usize::MAX, now);
        }
        far.advance(now);
        pass(far, near, EPOCH, now);
    }
    assert!(waiting.is_empty(), "each datagram has arrived");
    assert_eq!(std::iter::from_fn(|| far.take_datagram(flow)).count(), sent);
}

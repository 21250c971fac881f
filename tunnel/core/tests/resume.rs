//! What a new carrier, and frames that cross in transit, mean for streams: none is left over.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::time::Duration;

use tunnel_core::{End, Kind, Limits, Loss, Notice, Reason, Refusal, Session, Side};
use wire::{
    EPOCH, FINAL, TCP, ack, asked, attach, attached, connect, entry, exchange, frame, give, notices, pair, pass, read,
    stream, take, tcp,
};

const START: Duration = Duration::ZERO;

fn refusal() -> Refusal {
    Refusal { reason: Reason::NotAllowed, detail: String::new() }
}

fn is_gone(session: &Session) -> bool {
    session.is_empty() && session.memory() == (0, 0)
}

#[test]
fn a_request_whose_answer_was_lost_is_made_again() {
    let mut session = attached(Side::Dialler, &Limits::default());
    let id = session.open(tcp(), START).expect("there is room");
    assert_eq!(session.write(id, b"hello"), 5);
    assert_eq!(take(&mut session, EPOCH, START).len(), 4, "entries, a ping, the request and the bytes");
    attach(&mut session, 2, &[], START);
    let again = take(&mut session, 2, START);
    assert!(again.iter().any(|frame| frame.is(Kind::Open) && frame.stream == 1));
    assert!(again.iter().any(|frame| frame.is(Kind::Data) && frame.offset == 0 && frame.payload == b"hello"));
}

#[test]
fn a_request_whose_first_bytes_are_gone_is_not_made_again() {
    let mut session = attached(Side::Dialler, &Limits::default());
    let id = session.open(tcp(), START).expect("there is room");
    session.write(id, b"hello");
    take(&mut session, EPOCH, START);
    give(&mut session, EPOCH, &ack(1, 5, 16_384), START);
    // The peer refuses, and the answer is lost with the carrier.
    attach(&mut session, 2, &[], START);
    assert!(
        take(&mut session, 2, START).iter().all(|frame| frame.stream == 0),
        "a new stream begins with its first byte"
    );
    let told = notices(&mut session);
    assert!(told.iter().any(|notice| matches!(notice, Notice::Refused(of, _) if *of == id)), "{told:?}");
    assert!(is_gone(&session));
}

#[test]
fn a_refusal_reaches_an_opener_that_gave_up_at_the_same_time() {
    let mut ends = pair(&Limits::default());
    let id = ends[0].open(tcp(), START).expect("there is room");
    exchange(&mut ends, EPOCH, START);
    ends[0].reset(id);
    let [opener, other] = &mut ends;
    pass(opener, other, EPOCH, START);
    other.refuse(id, refusal());
    exchange(&mut ends, EPOCH, START);
    assert!(ends.iter().all(is_gone));
    assert!(
        !notices(&mut ends[0]).iter().any(|notice| matches!(notice, Notice::Refused(..))),
        "its opener has forgotten it"
    );
}

#[test]
fn a_reset_that_crosses_the_last_end_leaves_no_stream() {
    for opener_resets_first in [false, true] {
        let mut ends = pair(&Limits::default());
        let id = stream(&mut ends, tcp(), START);
        ends[0].finish(id);
        exchange(&mut ends, EPOCH, START);
        assert_eq!(ends[1].end(id), Some(End::Finished));
        exchange(&mut ends, EPOCH, START);
        ends[1].finish(id);
        if opener_resets_first {
            ends[0].reset(id);
        }
        // The end arrives, and the reset with its acknowledgement or after it.
        let [opener, other] = &mut ends;
        pass(other, opener, EPOCH, START);
        if !opener_resets_first {
            pass(opener, other, EPOCH, START);
            opener.reset(id);
        }
        exchange(&mut ends, EPOCH, START);
        assert!(ends.iter().all(is_gone), "{opener_resets_first} {ends:?}");
    }
}

#[test]
fn what_is_received_before_an_answer_is_acknowledged_after_it() {
    // Memory for one window of 16 KiB, so that nothing more is granted with the answer.
    let limits = Limits { memory: 16 * 1024, ..Limits::default() };
    let mut session = attached(Side::Listener, &limits);
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, 16_384, TCP), START);
    give(&mut session, EPOCH, &frame(Kind::Data, 0, 1, 0, b"hello"), START);
    let id = asked(&mut session)[0];
    session.accept(id);
    take(&mut session, EPOCH, START);
    let due = session.deadline().expect("a carrier is there");
    session.advance(due);
    let told = take(&mut session, EPOCH, due);
    assert!(told.iter().any(|frame| frame.is(Kind::Ack) && frame.offset == 5), "{told:?}");
}

#[test]
fn an_answer_is_one_frame() {
    let mut session = attached(Side::Listener, &Limits::default());
    take(&mut session, EPOCH, START);
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, 16_384, TCP), START);
    let id = asked(&mut session)[0];
    session.accept(id);
    let sent = take(&mut session, EPOCH, START);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].is(Kind::Opened) && sent[0].offset == 65_536, "it carries the credit");
}

#[test]
fn a_refusal_that_was_not_sent_is_gone_with_the_session() {
    let mut session = attached(Side::Listener, &Limits::default());
    give(&mut session, EPOCH, &frame(Kind::Open, 0, 1, 16_384, TCP), START);
    let id = asked(&mut session)[0];
    session.refuse(id, refusal());
    session.lose(Loss::Closed);
    assert!(is_gone(&session));
}

#[test]
fn no_credit_is_sent_for_bytes_that_cannot_come() {
    let mut ends = pair(&Limits::default());
    let id = stream(&mut ends, tcp(), START);
    let room = ends[0].room(id);
    assert_eq!(ends[0].write(id, &vec![7; room]), room);
    ends[0].finish(id);
    exchange(&mut ends, EPOCH, START);
    assert_eq!(read(&mut ends[1], id, usize::MAX, START), room);
    assert!(!ends[1].has_output(), "the peer knows that all has come");
}

#[test]
fn bytes_go_on_where_the_peer_says() {
    let mut session = attached(Side::Dialler, &Limits::default());
    let id = session.open(tcp(), START).expect("there is room");
    take(&mut session, EPOCH, START);
    give(&mut session, EPOCH, &frame(Kind::Opened, 0, 1, 65_536, &[]), START);
    session.write(id, b"hello world");
    session.finish(id);
    take(&mut session, EPOCH, START);
    attach(&mut session, 2, &entry(1, 1, 6, 65_536), START);
    let again = take(&mut session, 2, START);
    let data: Vec<_> = again.iter().filter(|frame| frame.is(Kind::Data)).collect();
    assert_eq!(data.len(), 1);
    assert_eq!((data[0].offset, data[0].flags, &*data[0].payload), (6, FINAL, &b"world"[..]));
    assert_eq!(session.counters().resent_bytes, 6, "five bytes and their end");
}

#[test]
fn a_carrier_of_an_earlier_epoch_is_not_taken() {
    let mut ends = pair(&Limits::default());
    connect(&mut ends, 5, START);
    let [session, _] = &mut ends;
    assert!(!session.attach(5, START) && !session.attach(4, START));
    session.detach(4, START);
    assert!(session.is_attached(), "an earlier carrier is lost without harm");
}

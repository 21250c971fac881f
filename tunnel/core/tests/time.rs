//! What depends on time: heartbeats, silence, the grace period, and acknowledgements.

#![allow(clippy::expect_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod wire;

use std::time::Duration;

use tunnel_core::{End, Kind, Limits, Loss, NotOpened, Notice, Session, Side};
use wire::{EPOCH, Frame, attach, attached, connect, frame, give, ms, notices, pair, stream, take, tcp};

const START: Duration = Duration::ZERO;
const MOMENT: Duration = Duration::from_nanos(1);

fn limits() -> Limits {
    Limits {
        heartbeat: Duration::from_secs(5),
        dead_after: Duration::from_secs(15),
        grace: Duration::from_secs(120),
        ..Limits::default()
    }
}

fn pings(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.is(Kind::Ping)).count()
}

/// A sign of life of the peer.
fn beat(session: &mut Session, now: Duration) {
    give(session, EPOCH, &frame(Kind::Ping, 0, 0, 7, &[]), now);
}

#[test]
fn a_carrier_is_probed_at_once_and_then_at_each_heartbeat_and_never_earlier() {
    let mut session = attached(Side::Dialler, &limits());
    assert_eq!(pings(&take(&mut session, EPOCH, START)), 1);
    for beats in 1..20 {
        let due = limits().heartbeat * beats;
        beat(&mut session, due - ms(10));
        assert_eq!(session.deadline(), Some(due));
        session.advance(due - MOMENT);
        assert_eq!(pings(&take(&mut session, EPOCH, due - MOMENT)), 0, "{beats}");
        session.advance(due);
        assert_eq!(pings(&take(&mut session, EPOCH, due)), 1, "{beats}");
    }
}

#[test]
fn a_question_is_answered_with_its_own_number_and_only_the_last_one() {
    let mut session = attached(Side::Listener, &limits());
    take(&mut session, EPOCH, START);
    for number in 0..10_000 {
        give(&mut session, EPOCH, &frame(Kind::Ping, 0, 0, number, &[]), START);
    }
    let answers = take(&mut session, EPOCH, START);
    assert_eq!(answers.iter().map(|frame| (frame.is(Kind::Pong), frame.offset)).collect::<Vec<_>>(), [(true, 9999)]);
    assert!(!session.has_output());
}

#[test]
fn an_answer_that_is_too_late_or_older_than_its_question_shows_no_round_trip() {
    let (dead, micro) = (limits().dead_after, Duration::from_micros(1));
    for (asked, answered, round_trip) in [
        (START, dead, dead),
        (START, dead + micro, START),
        (ms(7), ms(10), ms(3)),
        (ms(10), ms(10), micro),
        (ms(10) + micro, ms(10), START),
    ] {
        let mut session = attached(Side::Dialler, &limits());
        let asked = u64::try_from(asked.as_micros()).expect("a short time");
        give(&mut session, EPOCH, &frame(Kind::Pong, 0, 0, asked, &[]), answered);
        assert_eq!(session.round_trip(), round_trip, "{asked}");
    }
}

#[test]
fn questions_that_cannot_be_sent_do_not_queue() {
    let mut session = attached(Side::Dialler, &limits());
    for beats in 1..100 {
        let now = limits().heartbeat * beats;
        beat(&mut session, now);
        session.advance(now);
    }
    assert_eq!(pings(&take(&mut session, EPOCH, limits().heartbeat * 100)), 1);
}

#[test]
fn a_carrier_is_suspect_after_two_silent_beats_and_told_so_once() {
    let mut session = attached(Side::Dialler, &limits());
    // The answer to a ping arrives a little after it, so silence begins between two heartbeats.
    let heard = Duration::from_secs(5) + ms(40);
    session.advance(Duration::from_secs(5));
    beat(&mut session, heard);
    session.advance(Duration::from_secs(10));
    session.advance(Duration::from_secs(15));
    assert_eq!(session.deadline(), Some(Duration::from_secs(15) + ms(40)));
    session.advance(Duration::from_secs(15) + ms(40) - MOMENT);
    assert!(notices(&mut session).is_empty());
    session.advance(Duration::from_secs(15) + ms(40));
    assert_eq!(notices(&mut session), [Notice::Suspect]);
    session.advance(Duration::from_secs(20));
    assert!(notices(&mut session).is_empty());
    // The peer speaks again, and falls silent again.
    beat(&mut session, Duration::from_secs(20));
    session.advance(Duration::from_secs(30));
    assert_eq!(notices(&mut session), [Notice::Suspect]);
}

#[test]
fn a_silent_carrier_is_lost_when_it_is_dead_and_not_before() {
    let mut session = attached(Side::Dialler, &limits());
    let heard = ms(700);
    beat(&mut session, heard);
    let dead = heard + limits().dead_after;
    session.advance(dead - MOMENT);
    assert!(session.is_attached());
    session.advance(dead);
    assert!(!session.is_attached());
    assert!(!session.is_unresumed(), "it was silent");
    assert_eq!(notices(&mut session).last(), Some(&Notice::CarrierLost));
    assert!(session.receive(EPOCH, &frame(Kind::Ping, 0, 0, 0, &[]), dead).is_err(), "late frames are not taken");
    assert_eq!(session.deadline(), Some(dead + limits().grace), "streams wait for another one from now on");
}

#[test]
fn a_carrier_on_which_the_peer_never_resumes_is_lost_although_it_is_not_silent() {
    let mut session = Session::new(Side::Listener, limits(), START);
    assert!(session.attach(EPOCH, START));
    let dead = limits().dead_after;
    // The peer says again and again that more entries follow.
    for second in 1..15 {
        let now = Duration::from_secs(second);
        give(&mut session, EPOCH, &frame(Kind::Resume, 0, 0, 0, &[]), now);
        session.advance(now);
    }
    assert_eq!(session.deadline(), Some(dead));
    session.advance(dead - MOMENT);
    assert!(session.is_attached());
    session.advance(dead);
    assert!(!session.is_attached() && session.is_unresumed());
    assert_eq!(notices(&mut session), [Notice::CarrierLost]);
    attach(&mut session, 2, &[], dead);
    session.advance(dead * 2 - MOMENT);
    assert!(session.is_attached() && !session.is_unresumed(), "a peer that resumes has its time");
}

#[test]
fn streams_without_a_carrier_are_given_up_after_the_grace_period_and_not_before() {
    let mut ends = pair(&limits());
    let id = stream(&mut ends, tcp(), START);
    let [session, _] = &mut ends;
    session.detach(EPOCH, ms(300));
    let end = ms(300) + limits().grace;
    assert_eq!(session.deadline(), Some(end));
    session.advance(end - MOMENT);
    assert_eq!((session.lost(), session.end(id)), (None, None));
    session.advance(end);
    assert_eq!((session.lost(), session.end(id)), (Some(Loss::GraceExpired), Some(End::Reset)));
    assert!(notices(session).contains(&Notice::Lost(Loss::GraceExpired)));
    assert_eq!((session.len(), session.deadline()), (0, None));
    assert!(!session.attach(2, end), "a session that is over takes no carrier");
    assert_eq!(session.open(tcp(), end), Err(NotOpened::Closed));
}

#[test]
fn a_session_that_never_had_a_carrier_is_given_up_too() {
    let mut session = Session::new(Side::Listener, limits(), ms(50));
    session.advance(ms(50) + limits().grace - MOMENT);
    assert_eq!(session.lost(), None);
    session.advance(ms(50) + limits().grace);
    assert_eq!(session.lost(), Some(Loss::GraceExpired));
}

#[test]
fn a_new_carrier_ends_the_grace_period() {
    let mut ends = pair(&limits());
    let id = stream(&mut ends, tcp(), START);
    for end in &mut ends {
        end.detach(EPOCH, START);
    }
    let now = limits().grace - MOMENT;
    connect(&mut ends, 2, now);
    let [session, _] = &mut ends;
    session.advance(limits().grace);
    assert_eq!(session.lost(), None);
    assert!(session.is_open(id));
}

#[test]
fn bytes_are_acknowledged_within_fifty_milliseconds_of_the_first() {
    let mut ends = pair(&limits());
    let id = stream(&mut ends, tcp(), START);
    let [writer, reader] = &mut ends;
    writer.write(id, b"hello");
    wire::pass(writer, reader, EPOCH, ms(100));
    assert!(!reader.has_output(), "a little later there may be more to acknowledge");
    writer.write(id, b" world");
    wire::pass(writer, reader, EPOCH, ms(130));
    assert_eq!(reader.deadline(), Some(ms(150)));
    reader.advance(ms(150) - MOMENT);
    assert!(!reader.has_output());
    reader.advance(ms(150));
    let told = take(reader, EPOCH, ms(150));
    assert_eq!(told.iter().map(|frame| (frame.is(Kind::Ack), frame.offset)).collect::<Vec<_>>(), [(true, 11)]);
}

#[test]
fn the_end_of_a_stream_is_acknowledged_at_once() {
    let mut ends = pair(&limits());
    let id = stream(&mut ends, tcp(), START);
    let [writer, reader] = &mut ends;
    writer.write(id, b"hello");
    writer.finish(id);
    wire::pass(writer, reader, EPOCH, START);
    assert!(take(reader, EPOCH, START).iter().any(|frame| frame.is(Kind::Ack) && frame.offset == 6));
}

/// Before its deadline a session has nothing to do, and at its deadline it has.
#[test]
fn advance_does_nothing_before_the_deadline() {
    let mut ends = pair(&limits());
    let id = stream(&mut ends, tcp(), START);
    let [writer, reader] = &mut ends;
    writer.write(id, b"hello");
    wire::pass(writer, reader, EPOCH, START);
    notices(reader);
    take(reader, EPOCH, START);
    // The peer sends nothing more: an acknowledgement, heartbeats, suspicion, loss, and the end of the grace period.
    let mut deadlines = Vec::new();
    while let Some(due) = reader.deadline() {
        let before = format!("{reader:?}");
        reader.advance(due - MOMENT);
        assert_eq!(format!("{reader:?}"), before, "before {due:?}");
        reader.advance(due);
        assert_ne!(format!("{reader:?}"), before, "at {due:?}");
        deadlines.push(due.as_millis());
        notices(reader);
    }
    assert_eq!(deadlines, [50, 5000, 10_000, 15_000, 135_000]);
}

#[test]
fn an_acknowledgement_that_was_due_is_not_after_the_carrier_is_gone() {
    let mut ends = pair(&limits());
    let id = stream(&mut ends, tcp(), START);
    let [writer, reader] = &mut ends;
    writer.write(id, b"hello");
    wire::pass(writer, reader, EPOCH, START);
    reader.detach(EPOCH, ms(10));
    let before = format!("{reader:?}");
    reader.advance(ms(60));
    assert_eq!(format!("{reader:?}"), before);
}

#[test]
fn a_peer_that_drains_takes_no_stream_until_there_is_a_new_carrier() {
    let mut session = attached(Side::Dialler, &limits());
    give(&mut session, EPOCH, &frame(Kind::GoAway, 0, 0, 0, &[]), START);
    give(&mut session, EPOCH, &frame(Kind::GoAway, 0, 0, 0, &[]), START);
    assert_eq!(notices(&mut session), [Notice::GoAway], "reported once");
    assert_eq!(session.open(tcp(), START), Err(NotOpened::Closed));
    attach(&mut session, 2, &[], START);
    assert!(session.open(tcp(), START).is_ok());
}

#[test]
fn an_end_that_drains_refuses_what_is_asked_and_says_so_on_each_carrier() {
    let mut ends = pair(&limits());
    ends[1].go_away();
    let id = ends[0].open(tcp(), START).expect("the peer has not heard yet");
    wire::exchange(&mut ends, EPOCH, START);
    let told = notices(&mut ends[0]);
    assert!(told.contains(&Notice::GoAway));
    assert!(told.iter().any(
        |notice| matches!(notice, Notice::Refused(of, why) if *of == id && why.reason == tunnel_core::Reason::Draining)
    ));
    assert!(ends.iter().all(Session::is_empty));
    connect(&mut ends, 2, START);
    assert_eq!(notices(&mut ends[0]), [Notice::GoAway]);
}

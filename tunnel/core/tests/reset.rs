//! Which end learns of a reset, and when.

#![allow(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use tunnel_core::{End, Limits, Notice, Open, Protocol, Session, Side, StreamId, Target};

const NOW: Duration = Duration::ZERO;

fn move_all(from: &mut Session, to: &mut Session) {
    let mut frames = Vec::new();
    from.transmit(1, &mut frames, usize::MAX, NOW).expect("attached");
    let taken = to.receive(1, &frames, NOW).expect("both keep to the protocol");
    assert_eq!(taken, frames.len());
}

/// A dialler and a listener on their first carrier.
fn ends() -> [Session; 2] {
    let [mut dialler, mut listener] =
        [Side::Dialler, Side::Listener].map(|side| Session::new(side, Limits::default(), NOW));
    assert!(dialler.attach(1, NOW) && listener.attach(1, NOW));
    move_all(&mut dialler, &mut listener);
    move_all(&mut listener, &mut dialler);
    [dialler, listener]
}

fn open(dialler: &mut Session) -> StreamId {
    let target = Target { protocol: Protocol::Tcp, host: "db".to_owned(), port: 5432 };
    dialler.open(Open { target, source: None }, NOW).expect("a stream")
}

#[test]
fn the_streams_are_given_up_once_the_peer_has_reset_each_of_them() {
    let [mut dialler, mut listener] = ends();
    assert!(listener.is_given_up(), "there is none");
    let streams = [open(&mut dialler), open(&mut dialler)];
    move_all(&mut dialler, &mut listener);
    for id in streams {
        listener.accept(id);
    }
    move_all(&mut listener, &mut dialler);
    for id in streams {
        assert!(!listener.is_given_up());
        dialler.reset(id);
        move_all(&mut dialler, &mut listener);
    }
    assert!(listener.is_given_up());
}

#[test]
fn a_writer_hears_of_a_reset_before_its_reader_has_read_all() {
    let [mut dialler, mut listener] = ends();
    let id = open(&mut dialler);
    move_all(&mut dialler, &mut listener);
    assert_eq!(listener.poll(), Some(Notice::Asked(id)));
    listener.accept(id);
    listener.write(id, b"last words");
    move_all(&mut listener, &mut dialler);
    assert!(!dialler.is_reset(id));

    listener.reset(id);
    assert!(listener.is_reset(id));
    move_all(&mut listener, &mut dialler);

    assert!(dialler.is_reset(id), "the writer can stop");
    assert_eq!(dialler.end(id), None);
    assert_eq!(dialler.readable(id), b"last words");
    dialler.consume(id, 10, NOW);
    assert_eq!(dialler.end(id), Some(End::Reset));
}

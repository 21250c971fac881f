#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::{Session, Side};
use crate::frame::{FINAL, Kind, put};
use crate::limits::Limits;
use crate::open::{Open, Protocol, Target};

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

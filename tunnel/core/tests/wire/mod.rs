//! Sessions on carriers, and the frames between them, from a peer that follows the protocol or violates it.

#![allow(dead_code, reason = "each test uses some of these functions")]

use std::time::Duration;

use tunnel_core::{HEADER, Kind, Limits, Notice, Open, Protocol, Reason, Refusal, Session, Side, StreamId, Target};

/// The epoch of the carrier that [`attached`] and [`pair`] give.
pub(crate) const EPOCH: u64 = 1;
/// The flag of the last bytes of a stream, and of the last entries that resume.
pub(crate) const FINAL: u8 = 1;
/// The request of [`tcp`] on a carrier.
pub(crate) const TCP: &[u8] = &[0, 0x15, 0x38, 2, b'd', b'b', 0];
/// The request of [`udp`] on a carrier.
pub(crate) const UDP: &[u8] = &[1, 0x15, 0x38, 2, b'd', b'b', 0];

pub(crate) fn tcp() -> Open {
    open(Protocol::Tcp)
}

pub(crate) fn udp() -> Open {
    open(Protocol::Udp)
}

fn open(protocol: Protocol) -> Open {
    Open { target: Target { protocol, host: "db".to_owned(), port: 5432 }, source: None }
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) offset: u64,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }
}

pub(crate) fn frame(kind: Kind, flags: u8, stream: u32, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("the length has two bytes");
    let mut out = vec![kind as u8, flags];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// An acknowledgement.
pub(crate) fn ack(stream: u32, received: u64, credit: u64) -> Vec<u8> {
    frame(Kind::Ack, 0, stream, received, &credit.to_be_bytes())
}

/// What a peer says about a stream on a new carrier.
pub(crate) fn entry(stream: u32, flags: u8, received: u64, credit: u64) -> Vec<u8> {
    let mut out = stream.to_be_bytes().to_vec();
    out.push(flags);
    out.extend_from_slice(&received.to_be_bytes());
    out.extend_from_slice(&credit.to_be_bytes());
    out
}

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() {
        let [kind, flags, l0, l1, s0, s1, s2, s3, offset @ ..] = *head;
        let (payload, rest) = rest.split_at(usize::from(u16::from_be_bytes([l0, l1])));
        frames.push(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            offset: u64::from_be_bytes(offset),
            payload: payload.to_vec(),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "frames are whole");
    frames
}

/// A session on its first carrier, with a peer that has no streams.
pub(crate) fn attached(side: Side, limits: &Limits) -> Session {
    let mut session = Session::new(side, limits.clone(), Duration::ZERO);
    attach(&mut session, EPOCH, &[], Duration::ZERO);
    session
}

/// A new carrier, on which the peer lists `entries`.
pub(crate) fn attach(session: &mut Session, epoch: u64, entries: &[u8], now: Duration) {
    assert!(session.attach(epoch, now), "the epoch is the next one");
    give(session, epoch, &frame(Kind::Resume, FINAL, 0, 0, entries), now);
}

/// Frames from a peer that follows the protocol.
pub(crate) fn give(session: &mut Session, epoch: u64, bytes: &[u8], now: Duration) {
    assert_eq!(session.receive(epoch, bytes, now), Ok(bytes.len()));
}

/// Everything that the session sends now.
pub(crate) fn take(session: &mut Session, epoch: u64, now: Duration) -> Vec<Frame> {
    let mut out = Vec::new();
    session.transmit(epoch, &mut out, usize::MAX, now).expect("a carrier of this epoch is there");
    frames(&out)
}

pub(crate) fn notices(session: &mut Session) -> Vec<Notice> {
    std::iter::from_fn(|| session.poll()).collect()
}

/// The streams that the peer requested since the last call; other notices are skipped.
pub(crate) fn asked(session: &mut Session) -> Vec<StreamId> {
    let asked = |notice| if let Notice::Asked(id) = notice { Some(id) } else { None };
    notices(session).into_iter().filter_map(asked).collect()
}

/// Two ends on a carrier that have both said that they have no streams.
pub(crate) fn pair(limits: &Limits) -> [Session; 2] {
    let mut ends = [Side::Dialler, Side::Listener].map(|side| Session::new(side, limits.clone(), Duration::ZERO));
    connect(&mut ends, EPOCH, Duration::ZERO);
    ends
}

/// A new carrier between both ends, and everything that follows at once.
pub(crate) fn connect(ends: &mut [Session; 2], epoch: u64, now: Duration) {
    for end in ends.iter_mut() {
        assert!(end.attach(epoch, now), "the epoch is the next one");
    }
    exchange(ends, epoch, now);
}

/// Moves frames both ways until neither end has any.
pub(crate) fn exchange([a, b]: &mut [Session; 2], epoch: u64, now: Duration) {
    while pass(a, b, epoch, now) || pass(b, a, epoch, now) {}
}

/// Moves what `from` has to send. Returns `false` if there was nothing.
pub(crate) fn pass(from: &mut Session, to: &mut Session, epoch: u64, now: Duration) -> bool {
    let mut out = Vec::new();
    from.transmit(epoch, &mut out, usize::MAX, now).expect("a carrier of this epoch is there");
    assert_eq!(to.receive(epoch, &out, now), Ok(out.len()), "both keep to the protocol");
    !out.is_empty()
}

/// A stream that the first end requested and the second accepted.
pub(crate) fn stream(ends: &mut [Session; 2], request: Open, now: Duration) -> StreamId {
    let id = ends[0].open(request, now).expect("there is room for a stream");
    exchange(ends, EPOCH, now);
    assert_eq!(asked(&mut ends[1]), [id]);
    ends[1].accept(id);
    exchange(ends, EPOCH, now);
    assert!(ends[0].is_open(id));
    notices(&mut ends[0]);
    id
}

/// Reads the available bytes, at most `most`, and returns their number.
pub(crate) fn read(session: &mut Session, id: StreamId, most: usize, now: Duration) -> usize {
    let mut count = 0;
    while count < most {
        let taken = session.readable(id).len().min(most - count);
        if taken == 0 {
            break;
        }
        session.consume(id, taken, now);
        count += taken;
    }
    count
}

pub(crate) fn refusal() -> Refusal {
    Refusal { reason: Reason::NotAllowed, detail: "not on the list".to_owned() }
}

/// A session with streams in each phase. The peer's: 1 is open and has sent five bytes, 3 is not answered, 5 is refused
/// but the refusal is not sent yet, 7 is a flow. This end's: 2 is not answered and has sent five bytes, 4 is open, 6 is
/// reset.
pub(crate) fn streams_in_each_phase(limits: &Limits) -> (Session, Vec<StreamId>) {
    let mut session = attached(Side::Listener, limits);
    let mut streams: Vec<StreamId> =
        (0..3).map(|_| session.open(tcp(), Duration::ZERO).expect("there is room")).collect();
    session.write(streams[0], b"hello");
    take(&mut session, EPOCH, Duration::ZERO);
    give(&mut session, EPOCH, &frame(Kind::Opened, 0, 4, 65_536, &[]), Duration::ZERO);
    session.reset(streams[2]);
    for (id, request) in [(1, TCP), (3, TCP), (5, TCP), (7, UDP)] {
        give(&mut session, EPOCH, &frame(Kind::Open, 0, id, 16_384, request), Duration::ZERO);
    }
    let theirs = asked(&mut session);
    session.accept(theirs[0]);
    session.accept(theirs[3]);
    give(&mut session, EPOCH, &frame(Kind::Data, 0, 1, 0, b"hello"), Duration::ZERO);
    take(&mut session, EPOCH, Duration::ZERO);
    session.refuse(theirs[2], refusal());
    streams.extend(theirs);
    (session, streams)
}

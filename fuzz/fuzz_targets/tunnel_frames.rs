//! Frames of a tunnel, into a session that has streams in each phase and small limits.
//!
//! The first byte says which end the session is, and the second in pieces of which length the rest comes: what the
//! peer sends. After each piece the application answers, reads and writes a little. After a violation there is a new
//! carrier, on which the peer says that it has no streams, or continues with what it has.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tunnel_core::{
    HEADER, Kind, Limits, Loss, MAX_DATAGRAM, Notice, Open, Protocol, Reason, Refusal, Session, Side, StreamId, Target,
};

/// Bytes of what one end says of one stream on a new carrier.
const ENTRY: usize = 21;
/// The flag of the last entries.
const FINAL: u8 = 1;
/// Bytes that one call is asked to send.
const TURN: usize = 20_000;

fuzz_target!(|bytes: &[u8]| {
    let [side, length, bytes @ ..] = bytes else { return };
    let side = if side % 2 == 0 { Side::Dialler } else { Side::Listener };
    let mut world = World::new(side);
    for piece in bytes.chunks(usize::from(*length) + 1) {
        world.piece(piece);
        world.application();
        world.check();
    }
    world.close();
});

/// A session, and what its application and its carrier know.
struct World {
    session: Session,
    limits: Limits,
    streams: Vec<StreamId>,
    /// Bytes that came and are no whole frame yet.
    pending: Vec<u8>,
    now: Duration,
}

impl World {
    fn new(side: Side) -> Self {
        let limits =
            Limits { streams: 12, unanswered: 6, memory: 512 * 1024, datagrams: 200 * 1024, ..Limits::default() };
        let mut world = Self {
            session: Session::new(side, limits.clone(), Duration::ZERO),
            limits,
            streams: Vec::new(),
            pending: Vec::new(),
            now: Duration::ZERO,
        };
        world.connect(true);
        world.phases(side);
        world
    }

    /// Of this end: a stream that is not answered, an open one, one that is reset, and a flow. Of the peer: one that
    /// is open, one that is not answered, one that is refused, and a flow.
    fn phases(&mut self, side: Side) {
        let (ours, theirs) = if side == Side::Dialler { (1, 2) } else { (2, 1) };
        for protocol in [Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Udp] {
            let target = Target { protocol, host: "db".to_owned(), port: 5432 };
            let id = self.session.open(Open { target, source: None }, self.now).expect("there is room");
            self.session.write(id, b"hello");
            self.session.send_datagram(id, b"hello", self.now);
            self.streams.push(id);
        }
        self.transmit();
        self.keep(&frame(Kind::Opened, 0, ours + 2, 65_536, &[]));
        self.session.reset(self.streams[2]);
        for (n, protocol) in [0, 0, 0, 1].into_iter().enumerate() {
            let request = [protocol, 0x15, 0x38, 2, b'd', b'b', 0];
            self.keep(&frame(Kind::Open, 0, theirs + 2 * n as u32, 16_384, &request));
        }
        let asked = self.asked();
        self.session.accept(asked[0]);
        self.session.accept(asked[3]);
        self.keep(&frame(Kind::Data, 0, theirs, 0, b"hello"));
        self.transmit();
        self.session.refuse(asked[2], refusal());
    }

    /// A frame of a peer that keeps to the protocol.
    fn keep(&mut self, bytes: &[u8]) {
        let taken = self.session.receive(self.session.epoch(), bytes, self.now);
        assert_eq!(taken, Ok(bytes.len()));
    }

    fn connect(&mut self, without_streams: bool) {
        let epoch = self.session.epoch();
        self.session.detach(epoch, self.now);
        assert!(self.session.attach(epoch + 1, self.now));
        self.pending.clear();
        if without_streams {
            self.keep(&frame(Kind::Resume, FINAL, 0, 0, &[]));
        }
    }

    fn piece(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
        let epoch = self.session.epoch();
        match self.session.receive(epoch, &self.pending, self.now) {
            Ok(used) => drop(self.pending.drain(..used)),
            Err(_) => self.connect(epoch % 2 == 0),
        }
        assert!(self.pending.len() < HEADER + MAX_DATAGRAM, "a frame has an end");
    }

    /// The streams that the peer has asked for.
    fn asked(&mut self) -> Vec<StreamId> {
        let asked: Vec<StreamId> = std::iter::from_fn(|| self.session.poll())
            .filter_map(|notice| if let Notice::Asked(id) = notice { Some(id) } else { None })
            .collect();
        self.streams.extend(&asked);
        asked
    }

    fn application(&mut self) {
        for (n, id) in self.asked().into_iter().enumerate() {
            match n % 3 {
                0 => self.session.accept(id),
                1 => self.session.refuse(id, refusal()),
                _ => {}
            }
        }
        for id in self.streams.clone() {
            let readable = self.session.readable(id).len();
            self.session.consume(id, readable.div_ceil(2), self.now);
            self.session.take_datagram(id);
            let room = self.session.room(id);
            assert_eq!(self.session.write(id, &[1; 100]), room.min(100));
        }
        self.now += Duration::from_millis(20);
        self.session.advance(self.now);
        if !self.session.is_attached() {
            assert!(self.session.is_unresumed(), "it was heard a moment ago");
            self.connect(true);
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        let sent = self.session.transmit(self.session.epoch(), &mut out, TURN, self.now);
        assert_eq!(sent, Ok(()));
        let entries = (self.limits.streams + self.limits.unanswered) * ENTRY;
        assert!(out.len() <= TURN + entries + 100_000);
    }

    fn check(&self) {
        let (promised, kept) = self.session.memory();
        assert!(promised <= self.limits.memory && kept <= self.limits.memory);
        assert!(self.session.len() <= self.limits.streams + self.limits.unanswered);
    }

    /// Nothing stays of a session that is closed and whose application reads nothing more.
    fn close(mut self) {
        self.asked();
        self.session.lose(Loss::Closed);
        for id in &self.streams {
            self.session.reset(*id);
        }
        assert_eq!((self.session.len(), self.session.memory()), (0, (0, 0)));
    }
}

fn refusal() -> Refusal {
    Refusal { reason: Reason::NotAllowed, detail: "not on the list".to_owned() }
}

fn frame(kind: Kind, flags: u8, stream: u32, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind as u8, flags];
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

//! Arbitrary frames, from a peer that knows the protocol but violates it: nothing panics, and nothing grows beyond its
//! limit.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::time::Duration;

use proptest::prelude::*;
use tunnel_core::{Kind, Limits, Loss, Session, Side, StreamId};
use wire::{EPOCH, FINAL, TCP, UDP, asked, attached, entry, frame, give, ms, refusal, streams_in_each_phase, tcp, udp};

const START: Duration = Duration::ZERO;

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Open(bool),
    Answer(bool),
    Use(usize, Use),
    Transmit(usize),
    Wait(u64),
}

/// What the application does with a stream.
#[derive(Clone, Copy, Debug)]
enum Use {
    Write(usize),
    Read(usize),
    Finish,
    Reset,
    Datagram(usize),
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![9 => 2u8..9, 2 => Just(1u8), 2 => 9u8..16, 1 => any::<u8>()];
    let id = prop_oneof![9 => 0u32..12, 1 => any::<u32>()];
    let offset = prop_oneof![
        4 => Just(0u64),
        4 => 0u64..20,
        2 => prop_oneof![Just(16_384u64), Just(16_368), Just(65_536)],
        1 => any::<u64>(),
    ];
    let payload = prop_oneof![
        2 => Just(TCP.to_vec()),
        1 => Just(UDP.to_vec()),
        2 => any::<u64>().prop_map(|credit| credit.to_be_bytes().to_vec()),
        2 => proptest::collection::vec((0u32..12, any::<u8>(), 0u64..20, any::<u64>()), 0..6).prop_map(|entries| {
            entries.into_iter().flat_map(|(id, flags, received, credit)| entry(id, flags, received, credit)).collect::<Vec<u8>>()
        }),
        2 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => (0usize..16_400).prop_map(|length| vec![0; length]),
    ];
    (kind, any::<u8>(), id, offset, payload).prop_map(|(kind, flags, id, offset, payload)| {
        let mut bytes = frame(Kind::Ignored, flags, id, offset, &payload);
        bytes[0] = kind;
        bytes
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let used = prop_oneof![
        3 => (0usize..40_000).prop_map(Use::Write),
        3 => (0usize..40_000).prop_map(Use::Read),
        1 => Just(Use::Finish),
        1 => Just(Use::Reset),
        1 => (0usize..70_000).prop_map(Use::Datagram),
    ];
    let step = prop_oneof![
        20 => frames().prop_map(Step::Bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Bytes),
        2 => any::<bool>().prop_map(Step::Open),
        3 => any::<bool>().prop_map(Step::Answer),
        9 => (0usize..10, used).prop_map(|(stream, used)| Step::Use(stream, used)),
        5 => (0usize..40_000).prop_map(Step::Transmit),
        2 => (0u64..20_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A session and what its application knows.
struct World {
    session: Session,
    limits: Limits,
    streams: Vec<StreamId>,
    asked: Vec<StreamId>,
    now: Duration,
}

impl World {
    fn new(side: Side, limits: Limits) -> Self {
        let session = attached(side, &limits);
        Self { session, limits, streams: Vec::new(), asked: Vec::new(), now: START }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Bytes(bytes) => {
                let epoch = self.session.epoch();
                if self.session.receive(epoch, &bytes, self.now).is_err() {
                    self.connect();
                }
            }
            Step::Open(flow) => {
                let request = if flow { udp() } else { tcp() };
                self.streams.extend(self.session.open(request, self.now).ok());
            }
            Step::Answer(accept) => match self.asked.pop() {
                Some(id) if accept => self.session.accept(id),
                Some(id) => self.session.refuse(id, refusal()),
                None => {}
            },
            Step::Use(n, used) => {
                if let Some(id) = self.streams.get(n % self.streams.len().max(1)).copied() {
                    self.make_use(id, used);
                }
            }
            Step::Transmit(limit) => self.transmit(limit),
            Step::Wait(millis) => {
                self.now += ms(millis);
                self.session.advance(self.now);
                if !self.session.is_attached() {
                    self.connect();
                }
            }
        }
        self.check();
    }

    fn make_use(&mut self, id: StreamId, used: Use) {
        let session = &mut self.session;
        match used {
            Use::Write(count) => {
                let room = session.room(id);
                assert_eq!(
                    session.write(id, &vec![1; count]),
                    room.min(count),
                    "there is as much room as was reported"
                );
            }
            Use::Read(count) => {
                wire::read(session, id, count, self.now);
                session.end(id);
                session.take_datagram(id);
            }
            Use::Finish => session.finish(id),
            Use::Reset => session.reset(id),
            Use::Datagram(length) => session.send_datagram(id, &vec![2; length], self.now),
        }
    }

    /// Output is bounded by the limit, the entries and one turn.
    fn transmit(&mut self, limit: usize) {
        let mut out = Vec::new();
        let epoch = self.session.epoch();
        let sent = self.session.transmit(epoch, &mut out, limit, self.now);
        assert_eq!(sent, Ok(()));
        let entries = (self.limits.streams + self.limits.unanswered) * 21;
        assert!(out.len() <= limit + entries + 100_000, "{} bytes for {limit}", out.len());
        wire::frames(&out);
    }

    /// The next carrier. On every second one, the peer has yet to list its streams; on the others it has none.
    fn connect(&mut self) {
        let epoch = self.session.epoch() + 1;
        self.session.detach(epoch - 1, self.now);
        assert!(self.session.attach(epoch, self.now));
        if epoch % 2 == 1 {
            give(&mut self.session, epoch, &frame(Kind::Resume, FINAL, 0, 0, &[]), self.now);
        }
    }

    fn check(&mut self) {
        let told = asked(&mut self.session);
        self.streams.extend(&told);
        self.asked.extend(told);
        let (promised, kept) = self.session.memory();
        assert!(promised <= self.limits.memory && kept <= self.limits.memory, "{promised} {kept}");
        assert!(self.session.len() <= self.limits.streams + self.limits.unanswered);
    }

    /// A closed session whose application reads nothing more keeps nothing.
    fn close(mut self) {
        self.session.lose(Loss::Closed);
        for id in self.streams {
            self.session.reset(id);
        }
        assert_eq!((self.session.len(), self.session.memory()), (0, (0, 0)), "{:#?}", self.session);
    }
}

fn few() -> Limits {
    Limits { streams: 8, unanswered: 4, memory: 200 * 1024, window: 100 * 1024, ..Limits::default() }
}

proptest! {
    #[test]
    fn any_frames_are_taken_or_refused_within_the_limits(steps in steps(), dialler: bool) {
        let side = if dialler { Side::Dialler } else { Side::Listener };
        let mut world = World::new(side, few());
        for step in steps {
            world.step(step);
        }
        world.close();
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes: Vec<u8>, resumed: bool) {
        let mut session = Session::new(Side::Dialler, few(), START);
        prop_assert!(session.attach(EPOCH, START));
        if resumed {
            give(&mut session, EPOCH, &frame(Kind::Resume, FINAL, 0, 0, &[]), START);
        }
        if let Ok(used) = session.receive(EPOCH, &bytes, START) {
            prop_assert!(used <= bytes.len());
        }
    }

    /// The result does not depend on how the bytes are split.
    #[test]
    fn frames_may_come_in_pieces(
        parts in proptest::collection::vec(frames(), 1..10),
        cuts in proptest::collection::vec(1usize..50, 1..50),
    ) {
        let (mut whole, _) = streams_in_each_phase(&Limits::default());
        let (mut pieces, _) = streams_in_each_phase(&Limits::default());
        let bytes = parts.concat();
        let expected = whole.receive(EPOCH, &bytes, START).map(|_| ());
        let mut buffer = Vec::new();
        let mut rest = &*bytes;
        let mut result = Ok(());
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            buffer.extend_from_slice(now);
            rest = later;
            match pieces.receive(EPOCH, &buffer, START) {
                Ok(used) => drop(buffer.drain(..used)),
                Err(violation) => result = Err(violation),
            }
            if rest.is_empty() || result.is_err() {
                break;
            }
        }
        prop_assert_eq!(result, expected);
        prop_assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
    }
}

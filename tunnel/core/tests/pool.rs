//! The sessions of a process share its memory: together they keep to it, and each of them moves.

#![allow(clippy::expect_used, reason = "tests")]

mod wire;

use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tunnel_core::{Kind, Limits, NotOpened, Notice, Pool, Session, Side, StreamId};
use wire::{EPOCH, ack, asked, attached, exchange, frame, give, ms, notices, pair, read, stream, take, tcp, udp};

const START: Duration = Duration::ZERO;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// What a session may always keep, and always grant.
const OWN: u64 = 16 * KIB;

fn fill(session: &mut Session, id: StreamId) -> usize {
    let room = session.room(id);
    assert_eq!(session.write(id, &vec![1; room]), room, "there is as much room as was reported");
    room
}

/// A session whose peer takes any number of bytes and acknowledges none, and whose client sends all that is read.
fn greedy(pool: &Rc<Pool>) -> (Session, StreamId) {
    let mut session = attached(Side::Listener, &Limits::default()).within(pool);
    let id = session.open(tcp(), START).expect("there is room");
    take(&mut session, EPOCH, START);
    give(&mut session, EPOCH, &frame(Kind::Opened, 0, 2, u64::MAX, &[]), START);
    fill(&mut session, id);
    assert_eq!(session.room(id), 0);
    notices(&mut session);
    (session, id)
}

fn all_of<'a>(sessions: impl IntoIterator<Item = &'a Session>) -> u64 {
    sessions.into_iter().map(Session::memory).map(|(promised, kept)| promised + kept).sum()
}

#[test]
fn peers_that_acknowledge_nothing_hold_no_more_than_the_memory_of_all() {
    let pool = Pool::new(16 * MIB, 100);
    let sessions: Vec<(Session, StreamId)> = (0..100).map(|_| greedy(&pool)).collect();
    let all = all_of(sessions.iter().map(|(session, _)| session));
    assert!(all <= 16 * MIB && all > 15 * MIB, "{all}");
    let kept = |n: usize| sessions[n].0.memory().1;
    assert!(kept(0) > 6 * MIB && kept(0) <= 8 * MIB, "the first one has a half: {}", kept(0));
    assert!((0..100).all(|n| kept(n) >= OWN), "each has its own");
    drop(sessions);
    assert_eq!(pool.used(), 0);
}

#[test]
fn a_session_without_shared_memory_moves_with_its_own_and_takes_one_stream() {
    let pool = Pool::new(0, 10);
    let mut ends = pair(&Limits::default()).map(|end| end.within(&pool));
    let id = stream(&mut ends, tcp(), START);
    assert_eq!(ends[0].open(tcp(), START), Err(NotOpened::Memory));
    let mut moved = 0;
    for _ in 0..100 {
        moved += fill(&mut ends[0], id);
        assert!(ends[0].memory().1 <= OWN && ends[1].memory().0 <= OWN);
        exchange(&mut ends, EPOCH, START);
        read(&mut ends[1], id, usize::MAX, START);
        exchange(&mut ends, EPOCH, START);
    }
    assert!(moved as u64 >= 100 * OWN / 4, "{moved}");
    assert_eq!(pool.used(), 0);
}

#[test]
fn who_waits_for_memory_is_called_by_the_acknowledgements_of_its_own_session() {
    let pool = Pool::new(4 * MIB, 4);
    let (mut session, id) = greedy(&pool);
    let (other, _) = greedy(&pool);
    let kept = session.memory().1;
    assert_eq!(session.room(id), 0, "another one has come");
    give(&mut session, EPOCH, &ack(2, 0, u64::MAX), START);
    notices(&mut session);
    assert_eq!(session.room(id), 0);
    take(&mut session, EPOCH, START);
    give(&mut session, EPOCH, &ack(2, kept - OWN / 2, u64::MAX), START);
    assert!(notices(&mut session).contains(&Notice::Changed(id)));
    assert!(session.room(id) > 0);
    drop(other);
}

#[test]
fn windows_shrink_while_other_sessions_have_the_memory() {
    let pool = Pool::new(8 * MIB, 8);
    let mut ends = pair(&Limits::default());
    take(&mut ends[1], EPOCH, START);
    give(&mut ends[1], EPOCH, &frame(Kind::Pong, 0, 0, 0, &[]), ms(100));
    let [near, far] = ends;
    let mut ends = [near, far.within(&pool)];
    let id = stream(&mut ends, tcp(), ms(100));
    let mut now = ms(100);
    let mut round = |ends: &mut [Session; 2]| {
        now += ms(100);
        let moved = fill(&mut ends[0], id) as u64;
        exchange(ends, EPOCH, now);
        let count = ends[1].pieces(id).map(<[u8]>::len).sum();
        ends[1].consume(id, count, now);
        exchange(ends, EPOCH, now);
        moved
    };
    let alone = (0..20).fold(0, |_, _| round(&mut ends));
    assert!((3 * MIB / 2..2 * MIB).contains(&alone), "{alone}");
    let others: Vec<(Session, StreamId)> = (0..7).map(|_| greedy(&pool)).collect();
    let beside = (0..40).fold(0, |_, _| round(&mut ends));
    assert!((OWN..MIB).contains(&beside), "{beside}");
    drop(others);
    let again = (0..20).fold(0, |_, _| round(&mut ends));
    assert!(again.abs_diff(alone) < KIB, "{again} and {alone}");
}

#[test]
fn empty_blocks_and_datagrams_count_and_blocks_are_given_up_when_memory_is_short() {
    let pool = Pool::new(16 * MIB, 4);
    let [near, far] = pair(&Limits::default());
    let mut ends = [near, far.within(&pool)];
    let id = stream(&mut ends, tcp(), START);
    let idle = pool.used();
    fill(&mut ends[0], id);
    exchange(&mut ends, EPOCH, START);
    read(&mut ends[1], id, usize::MAX, START);
    assert!(pool.used() > idle, "blocks are kept for the next bytes");
    pool.resize(0);
    exchange(&mut ends, EPOCH, START);
    fill(&mut ends[0], id);
    exchange(&mut ends, EPOCH, START);
    read(&mut ends[1], id, usize::MAX, START);
    assert!(pool.used() <= idle, "{} of {idle}", pool.used());
    pool.resize(16 * MIB);
    let flow = stream(&mut ends, udp(), START);
    let before = pool.used();
    ends[0].send_datagram(flow, &[1; 1000], START);
    exchange(&mut ends, EPOCH, START);
    assert_eq!(pool.used(), before + 1064);
    assert!(ends[1].take_datagram(flow).is_some());
    assert_eq!(pool.used(), before);
    pool.resize(0);
    ends[0].send_datagram(flow, &[1; 1000], START);
    exchange(&mut ends, EPOCH, START);
    assert_eq!((ends[1].take_datagram(flow), ends[1].counters().dropped_datagrams), (None, 1));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open(usize),
    Write(usize, usize),
    Read(usize, usize),
    Move(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0usize..8).prop_map(Step::Open),
        5 => (any::<usize>(), 1usize..2_000_000).prop_map(|(stream, count)| Step::Write(stream, count)),
        5 => (any::<usize>(), 1usize..2_000_000).prop_map(|(stream, count)| Step::Read(stream, count)),
        6 => (0usize..8).prop_map(Step::Move),
    ];
    proptest::collection::vec(step, 1..200)
}

/// Eight pairs of ends, which all share one memory.
struct World {
    pool: Rc<Pool>,
    bytes: u64,
    pairs: Vec<[Session; 2]>,
    streams: Vec<(usize, StreamId)>,
    now: Duration,
}

impl World {
    fn new(bytes: u64) -> Self {
        let pool = Pool::new(bytes, 16);
        let pairs = (0..8).map(|_| {
            let mut ends = pair(&Limits::default()).map(|end| end.within(&pool));
            for end in &mut ends {
                take(end, EPOCH, START);
                give(end, EPOCH, &frame(Kind::Pong, 0, 0, 0, &[]), ms(5));
            }
            ends
        });
        let pairs = pairs.collect();
        Self { pool, bytes, pairs, streams: Vec::new(), now: ms(5) }
    }

    fn step(&mut self, step: Step) {
        self.now += ms(1);
        let stream = |at: usize| self.streams.get(at % self.streams.len().max(1)).copied();
        match step {
            Step::Open(pair) => {
                let ends = &mut self.pairs[pair];
                let Ok(id) = ends[0].open(tcp(), self.now) else { return };
                exchange(ends, EPOCH, self.now);
                if asked(&mut ends[1]).contains(&id) {
                    ends[1].accept(id);
                    exchange(ends, EPOCH, self.now);
                    self.streams.push((pair, id));
                }
            }
            Step::Write(at, count) => {
                let Some((pair, id)) = stream(at) else { return };
                let session = &mut self.pairs[pair][0];
                let room = session.room(id).min(count);
                assert_eq!(session.write(id, &vec![1; room]), room);
            }
            Step::Read(at, count) => {
                let Some((pair, id)) = stream(at) else { return };
                read(&mut self.pairs[pair][1], id, count, self.now);
            }
            Step::Move(pair) => exchange(&mut self.pairs[pair], EPOCH, self.now),
        }
    }

    fn check(&self) {
        let all = all_of(self.pairs.iter().flatten());
        assert!(all <= self.bytes, "{all} of {}", self.bytes);
        assert!(self.pool.used() <= self.pool.most(), "{} of {}", self.pool.used(), self.pool.most());
    }

    /// Every stream moves bytes, in whatever state the others are.
    fn finish(&mut self) {
        let mut left = vec![20_000; self.streams.len()];
        for _ in 0..400 {
            self.now += ms(60);
            for ends in &mut self.pairs {
                for end in ends.iter_mut() {
                    end.advance(self.now);
                }
                exchange(ends, EPOCH, self.now);
            }
            for ((pair, id), left) in self.streams.iter().zip(&mut left) {
                let ends = &mut self.pairs[*pair];
                read(&mut ends[1], *id, usize::MAX, self.now);
                let room = ends[0].room(*id).min(*left);
                *left -= ends[0].write(*id, &vec![1; room]);
                exchange(ends, EPOCH, self.now);
            }
            self.check();
        }
        assert!(left.iter().all(|left| *left == 0), "{left:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sessions_together_keep_to_the_memory_and_each_stream_moves(steps in steps(), mebibytes in 1u64..16) {
        let mut world = World::new(mebibytes * MIB);
        for step in steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}

//! The applications of one end, which use the streams of a session.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tunnel_core::{End, Limits, Loss, Notice, Open, Protocol, Reason, Refusal, Session, Side, StreamId, Target};

use super::DIALLER;
use super::ledger::{Ledger, datagram, pattern, source};
use crate::chance::Chance;

/// The most that is written or read at a time.
const BLOCK: usize = 16 * 1024;

/// How an end uses a stream or a flow.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
struct Use {
    is_flow: bool,
    answered: bool,
    /// Whether it refuses instead of accepting.
    refuses: bool,
    /// Whether it resets the stream after its last byte, instead of finishing.
    resets: bool,
    /// Whether it reads only at its ticks.
    is_slow: bool,
    finished: bool,
    ended: bool,
    /// Total bytes or datagrams to write.
    plan: u64,
    written: u64,
    /// Bytes read, or the number after that of the last datagram.
    read: u64,
    gives_up: Option<Duration>,
    tick: Duration,
    /// What this end and the other end write.
    sources: [u64; 2],
}

impl Use {
    fn new(is_flow: bool, answered: bool, sources: [u64; 2], now: Duration, chance: &mut Chance) -> Self {
        let plan = match chance.between(0, 10) {
            _ if is_flow => chance.between(0, 60),
            0 => 0,
            1..=5 => chance.between(1, 2000),
            6..=8 => chance.between(2000, 40_000),
            _ => chance.between(40_000, 400_000),
        };
        Self {
            is_flow,
            answered,
            refuses: chance.percent(5),
            resets: chance.percent(10),
            is_slow: chance.percent(20),
            finished: false,
            ended: false,
            plan,
            written: 0,
            read: 0,
            gives_up: chance.percent(5).then(|| now + chance.millis(0, 30_000)),
            tick: chance.millis(100, 500),
            sources,
        }
    }

    fn needs_ticks(&self) -> bool {
        self.is_flow || self.is_slow || !self.answered || self.gives_up.is_some()
    }
}

/// A session with its applications.
#[derive(Debug)]
pub(crate) struct Live {
    /// The epoch of its first connection.
    pub(crate) name: u64,
    pub(crate) session: Session,
    end: usize,
    uses: BTreeMap<StreamId, Use>,
    ticks: BTreeSet<(Duration, StreamId)>,
}

impl Live {
    pub(crate) fn new(name: u64, end: usize, limits: &Limits, now: Duration) -> Self {
        let side = if end == DIALLER { Side::Dialler } else { Side::Listener };
        let session = Session::new(side, limits.clone(), now);
        Self { name, session, end, uses: BTreeMap::new(), ticks: BTreeSet::new() }
    }

    pub(crate) const fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn lose(&mut self, loss: Loss, ledger: &mut Ledger) {
        ledger.broken.insert(self.name);
        self.session.lose(loss);
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.uses.keys().copied()
    }

    /// Whether nobody uses a stream any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.uses.is_empty()
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        let tick = self.ticks.first().map(|(at, _)| *at);
        tick.into_iter().chain(self.session.deadline()).min()
    }

    /// Opens a stream or a flow, unless a bound says no.
    pub(crate) fn open(&mut self, now: Duration, ledger: &mut Ledger, chance: &mut Chance) {
        let is_flow = chance.percent(10);
        let protocol = if is_flow { Protocol::Udp } else { Protocol::Tcp };
        let target = Target { protocol, host: "db".to_owned(), port: 5432 };
        if let Ok(id) = self.session.open(Open { target, source: None }, now) {
            self.begin(id, is_flow, true, now, ledger, chance);
            self.act(id, false, now, ledger);
        }
    }

    fn begin(
        &mut self,
        id: StreamId,
        is_flow: bool,
        answered: bool,
        now: Duration,
        ledger: &mut Ledger,
        chance: &mut Chance,
    ) {
        let sources = [self.end, 1 - self.end].map(|end| source(self.name, id, end));
        let using = Use::new(is_flow, answered, sources, now, chance);
        if using.needs_ticks() {
            self.ticks.insert((now + using.tick, id));
        }
        ledger.line(self.name, id).progress = now;
        self.uses.insert(id, using);
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, now: Duration, ledger: &mut Ledger) {
        if self.session.deadline().is_some_and(|due| due <= now) {
            self.session.advance(now);
        }
        if self.session.lost().is_some() {
            ledger.broken.insert(self.name);
        }
        while let Some((_, id)) = self.ticks.first().copied().filter(|(at, _)| *at <= now) {
            self.ticks.pop_first();
            self.act(id, true, now, ledger);
            if let Some(using) = self.uses.get(&id) {
                self.ticks.insert((now + using.tick, id));
            }
        }
    }

    /// Lets the applications see what has changed, and returns what concerns the session.
    pub(crate) fn hear(&mut self, now: Duration, ledger: &mut Ledger, chance: &mut Chance) -> Vec<Notice> {
        let mut others = Vec::new();
        loop {
            // A refusal is handled before changes: its stream no longer exists.
            let mut changed = Vec::new();
            while let Some(notice) = self.session.poll() {
                match notice {
                    Notice::Asked(id) => self.asked(id, now, ledger, chance),
                    Notice::Refused(id, _) => self.refused(id, now, ledger),
                    Notice::Changed(id) => changed.push(id),
                    other => others.push(other),
                }
            }
            if changed.is_empty() {
                return others;
            }
            for id in changed {
                self.act(id, false, now, ledger);
            }
        }
    }

    fn asked(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger, chance: &mut Chance) {
        let protocol = self.session.request(id).map(|open| open.target.protocol);
        if let Some(protocol) = protocol {
            self.begin(id, protocol == Protocol::Udp, false, now, ledger, chance);
        }
    }

    fn refused(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger) {
        self.uses.remove(&id);
        let is_broken = ledger.broken.contains(&self.name);
        let line = ledger.line(self.name, id);
        assert!(!line.ends[1 - self.end].accepted || is_broken, "{id:?} was accepted: {line:?}");
        line.progress = now;
        ledger.seen.refused += 1;
    }

    /// Does what is possible on a stream.
    fn act(&mut self, id: StreamId, is_tick: bool, now: Duration, ledger: &mut Ledger) {
        let Some(using) = self.uses.get(&id) else { return };
        if !using.answered {
            if is_tick {
                self.answer(id, now, ledger);
            }
            return;
        }
        if using.gives_up.is_some_and(|at| at <= now) {
            self.reset(id, now, ledger);
            return;
        }
        let is_flow = using.is_flow;
        let is_reading = is_flow || is_tick || !using.is_slow;
        if is_flow {
            self.exchange_datagrams(id, is_tick, now, ledger);
        } else {
            self.write(id, now, ledger);
        }
        if is_reading {
            self.read(id, now, ledger);
        }
        self.part(id, now, ledger);
    }

    fn answer(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger) {
        let Some(using) = self.uses.get_mut(&id) else { return };
        let line = ledger.line(self.name, id);
        line.progress = now;
        if using.refuses || self.session.lost().is_some() {
            self.session.refuse(id, Refusal { reason: Reason::NotAllowed, detail: String::new() });
            self.uses.remove(&id);
            return;
        }
        using.answered = true;
        line.ends[self.end].accepted = true;
        self.session.accept(id);
        self.act(id, true, now, ledger);
    }

    fn reset(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger) {
        let line = ledger.line(self.name, id);
        line.ends[self.end].reset = true;
        line.progress = now;
        self.session.reset(id);
        self.uses.remove(&id);
    }

    fn write(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger) {
        let Some(using) = self.uses.get_mut(&id) else { return };
        let line = ledger.line(self.name, id);
        while using.written < using.plan && !self.session.is_reset(id) {
            let left = usize::try_from(using.plan - using.written).expect("a plan is small");
            // Called again after each write, so that a stream without memory is woken when there is some.
            let count = self.session.room(id).min(left).min(BLOCK);
            if count == 0 {
                return;
            }
            let taken = self.session.write(id, pattern(using.sources[0], using.written, count));
            assert_eq!(taken, count, "the room that was reported is there");
            using.written += taken as u64;
            line.ends[self.end].written = using.written;
            line.progress = now;
        }
    }

    fn exchange_datagrams(&mut self, id: StreamId, is_tick: bool, now: Duration, ledger: &mut Ledger) {
        let Some(using) = self.uses.get_mut(&id) else { return };
        if is_tick && using.written < using.plan {
            self.session.send_datagram(id, &datagram(using.sources[0], using.written), now);
            using.written += 1;
            ledger.line(self.name, id).progress = now;
        }
        while let Some(received) = self.session.take_datagram(id) {
            ledger.seen.datagrams += 1;
            let Some((number, _)) = received.split_first_chunk::<8>() else {
                assert!(received.is_empty(), "no datagram is so short: {received:?}");
                continue;
            };
            let number = u64::from_be_bytes(*number);
            assert!(received == datagram(using.sources[1], number), "datagram {number} of {id:?} is whole");
            assert!(number >= using.read, "datagram {number} of {id:?} comes once, and in its turn");
            using.read = number + 1;
        }
    }

    fn read(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger) {
        let Some(using) = self.uses.get_mut(&id).filter(|using| !using.ended) else { return };
        let most = if using.is_slow { BLOCK } else { usize::MAX };
        let mut left = most;
        while left > 0 {
            let readable = self.session.readable(id);
            let count = readable.len().min(left);
            if count == 0 {
                break;
            }
            let expected = pattern(using.sources[1], using.read, count);
            assert!(readable[..count] == *expected, "{id:?} of session {} at {}", self.name, using.read);
            self.session.consume(id, count, now);
            using.read += count as u64;
            left -= count;
            ledger.seen.bytes += count as u64;
            ledger.line(self.name, id).progress = now;
        }
        if left == 0 {
            return;
        }
        let Some(end) = self.session.end(id) else { return };
        using.ended = true;
        let is_broken = ledger.broken.contains(&self.name);
        let line = ledger.line(self.name, id);
        line.progress = now;
        let writer = &line.ends[1 - self.end];
        let is_all = using.is_flow || using.read == writer.written;
        match end {
            End::Finished => assert!(writer.finished && is_all, "{id:?} {using:?} {writer:?}"),
            End::Reset => assert!(is_broken || (writer.reset && is_all), "{id:?} {using:?} {writer:?}"),
        }
        match end {
            End::Finished => ledger.seen.finished += 1,
            End::Reset => ledger.seen.reset += 1,
        }
    }

    /// Ends the direction of this end after its last byte, and leaves a stream that has ended both ways.
    fn part(&mut self, id: StreamId, now: Duration, ledger: &mut Ledger) {
        let Some(using) = self.uses.get_mut(&id) else { return };
        let is_reset = self.session.is_reset(id);
        if using.written == using.plan && !using.finished && !is_reset {
            if using.resets {
                self.reset(id, now, ledger);
                return;
            }
            using.finished = true;
            self.session.finish(id);
            let line = ledger.line(self.name, id);
            line.ends[self.end].finished = true;
            line.progress = now;
        }
        if using.ended && (using.finished || is_reset) {
            self.uses.remove(&id);
        }
    }

    pub(crate) fn check_memory(&self, limits: &Limits) {
        let (promised, kept) = self.session.memory();
        assert!(promised <= limits.memory && kept <= limits.memory, "{promised} promised, {kept} kept");
        assert!(self.session.len() <= limits.streams + limits.unanswered, "{} streams", self.session.len());
    }
}

//! Two sessions, the applications at both ends, and the link between them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::Duration;

use tunnel_core::{End, Limits, Notice, Open, Protocol, Reason, Refusal, Session, Side, StreamId, Target, Violation};

/// An action of an application or the network. `true` is the end that dials.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Open(bool),
    Write(bool, usize, usize),
    Finish(bool, usize),
    Reset(bool, usize),
    Read(bool, usize, usize),
    Answer(bool),
    Refuse(bool),
    Move(bool, usize),
    Cut,
    Connect,
    /// Only one end gets a carrier: the one that the other end has, or a new one.
    Attach(bool),
    /// Only one end knows that its carrier is lost.
    Lose(bool),
    Wait(u64),
}

/// What one application knows about a stream.
#[derive(Debug, Default)]
struct Book {
    answered: bool,
    written: u64,
    read: u64,
    finished: bool,
    reset: bool,
    ended: Option<End>,
}

struct Application {
    session: Session,
    /// By the id, which is the same at both ends, with a number for each reuse.
    books: BTreeMap<StreamId, Book>,
    asked: VecDeque<StreamId>,
    refused: Vec<StreamId>,
}

pub(crate) struct Pair {
    ends: [Application; 2],
    /// What each end has sent, by carrier.
    links: [BTreeMap<u64, VecDeque<u8>>; 2],
    received: [Vec<u8>; 2],
    now: Duration,
    /// The latest carrier.
    epoch: u64,
    /// How often an end refused what came over a carrier that it had lost or replaced.
    refused: usize,
}

/// The bytes that an end writes to a stream from a position on.
fn bytes(end: bool, id: StreamId, position: u64) -> impl Iterator<Item = u8> {
    let id = format!("{id:?}").bytes().fold(0u64, |sum, byte| sum * 31 + u64::from(byte));
    (position..).map(move |at| (at.wrapping_mul(131) ^ (at >> 8) ^ id ^ u64::from(end)).to_le_bytes()[0])
}

impl Pair {
    pub(crate) fn new(limits: &Limits) -> Self {
        let end = |side| Application {
            session: Session::new(side, limits.clone(), Duration::ZERO),
            books: BTreeMap::new(),
            asked: VecDeque::new(),
            refused: Vec::new(),
        };
        Self {
            ends: [end(Side::Listener), end(Side::Dialler)],
            links: Default::default(),
            received: Default::default(),
            now: Duration::ZERO,
            epoch: 0,
            refused: 0,
        }
    }

    fn stream(&self, end: bool, index: usize) -> Option<StreamId> {
        let live = self.ends[usize::from(end)].books.iter().filter(|(_, book)| book.ended.is_none() && !book.reset);
        live.map(|(id, _)| *id).nth(index)
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Open(end) => {
                let target = Target { protocol: Protocol::Tcp, host: "db".to_owned(), port: 5432 };
                let end = &mut self.ends[usize::from(end)];
                if let Ok(id) = end.session.open(Open { target, source: None }, self.now) {
                    end.books.insert(id, Book { answered: true, ..Book::default() });
                }
            }
            Step::Write(end, index, count) => {
                if let Some(id) = self.stream(end, index) {
                    self.write(end, id, count);
                }
            }
            Step::Finish(end, index) => {
                if let Some(id) = self.stream(end, index) {
                    let end = &mut self.ends[usize::from(end)];
                    if end.books[&id].answered {
                        end.session.finish(id);
                        end.books.get_mut(&id).expect("known").finished = true;
                    }
                }
            }
            Step::Reset(end, index) => {
                if let Some(id) = self.stream(end, index) {
                    let end = &mut self.ends[usize::from(end)];
                    end.session.reset(id);
                    end.books.get_mut(&id).expect("known").reset = true;
                }
            }
            Step::Read(end, index, count) => {
                if let Some(id) = self.stream(end, index) {
                    self.read(end, id, count);
                }
            }
            Step::Answer(end) => self.answer(end, true),
            Step::Refuse(end) => self.answer(end, false),
            Step::Move(end, count) => self.carry(end, count),
            Step::Cut => self.cut(),
            Step::Connect => self.connect(),
            Step::Attach(end) => self.attach(end),
            Step::Lose(end) => self.lose(end),
            Step::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                for end in &mut self.ends {
                    end.session.advance(self.now);
                }
            }
        }
        self.notices();
    }

    fn write(&mut self, end: bool, id: StreamId, count: usize) {
        let application = &mut self.ends[usize::from(end)];
        let book = application.books.get_mut(&id).expect("known");
        if !book.answered || book.finished || book.reset {
            return;
        }
        let room = application.session.room(id).min(count);
        let bytes: Vec<u8> = bytes(end, id, book.written).take(room).collect();
        let taken = application.session.write(id, &bytes);
        assert_eq!(taken, room, "the room that was reported is there");
        book.written += taken as u64;
    }

    fn read(&mut self, end: bool, id: StreamId, count: usize) {
        let writer = &self.ends[usize::from(!end)].books.get(&id).map(|book| (book.written, book.finished));
        let written = *writer;
        let application = &mut self.ends[usize::from(end)];
        let book = application.books.get_mut(&id).expect("known");
        let mut left = count;
        while left > 0 {
            let readable = application.session.readable(id);
            if readable.is_empty() {
                break;
            }
            let taken = readable.len().min(left);
            let written = bytes(!end, id, book.read);
            assert!(readable[..taken].iter().copied().eq(written.take(taken)), "{id:?} from {}", book.read);
            application.session.consume(id, taken, self.now);
            book.read += taken as u64;
            left -= taken;
        }
        if let Some((written, _)) = written {
            assert!(book.read <= written, "nothing is read that was not written");
        }
        if left > 0
            && let Some(ended) = application.session.end(id)
        {
            book.ended = Some(ended);
            if ended == End::Finished {
                assert_eq!(written, Some((book.read, true)), "the end comes after all bytes");
            }
        }
    }

    fn answer(&mut self, end: bool, accept: bool) {
        let application = &mut self.ends[usize::from(end)];
        let Some(id) = application.asked.pop_front() else { return };
        let Some(book) = application.books.get_mut(&id) else { return };
        if book.reset || book.ended == Some(End::Reset) {
            return;
        }
        if accept {
            application.session.accept(id);
            book.answered = true;
        } else {
            let detail = "no such target".to_owned();
            application.session.refuse(id, Refusal { reason: Reason::NotAllowed, detail });
            application.books.remove(&id);
        }
    }

    /// Moves at most `count` bytes from `end` to the other end. What comes over a carrier that the other end has lost or
    /// replaced is refused, and what comes over one that it does not have yet waits.
    fn carry(&mut self, end: bool, count: usize) {
        let (from, to) = (usize::from(end), usize::from(!end));
        let writer = &mut self.ends[from].session;
        let epoch = writer.epoch();
        let link = self.links[from].entry(epoch).or_default();
        if writer.is_attached() && link.len() < count {
            let mut out = Vec::new();
            writer.transmit(epoch, &mut out, count, self.now).expect("attached");
            link.extend(out);
        }
        let reader = &mut self.ends[to].session;
        let current = reader.epoch();
        let later = self.links[from].split_off(&(current + 1));
        let mut past = mem::replace(&mut self.links[from], later);
        if reader.is_attached()
            && let Some(mut link) = past.remove(&current)
        {
            let received = &mut self.received[to];
            received.extend(link.drain(..count.min(link.len())));
            let used = reader.receive(current, received, self.now).expect("both keep to the protocol");
            received.drain(..used);
            self.links[from].insert(current, link);
        }
        for (epoch, link) in past.into_iter().filter(|(_, link)| !link.is_empty()) {
            let bytes: Vec<u8> = link.into();
            assert_eq!(reader.receive(epoch, &bytes, self.now), Err(Violation::Stale));
            self.refused += 1;
        }
    }

    /// How often an end refused what came over a carrier that it had lost or replaced.
    pub(crate) fn refused(&self) -> usize {
        self.refused
    }

    fn cut(&mut self) {
        for end in [false, true] {
            self.links[usize::from(end)].clear();
            self.lose(end);
        }
    }

    fn lose(&mut self, end: bool) {
        self.received[usize::from(end)].clear();
        let session = &mut self.ends[usize::from(end)].session;
        let epoch = session.epoch();
        session.detach(epoch, self.now);
    }

    fn attach(&mut self, end: bool) {
        let [own, other] = [end, !end].map(|end| self.ends[usize::from(end)].session.epoch());
        if other <= own {
            self.epoch += 1;
        }
        self.received[usize::from(end)].clear();
        let epoch = if other > own { other } else { self.epoch };
        assert!(self.ends[usize::from(end)].session.attach(epoch, self.now));
    }

    fn connect(&mut self) {
        self.cut();
        self.epoch += 1;
        for end in &mut self.ends {
            assert!(end.session.attach(self.epoch, self.now));
        }
    }

    fn notices(&mut self) {
        for end in &mut self.ends {
            while let Some(notice) = end.session.poll() {
                match notice {
                    Notice::Asked(id) => {
                        end.books.insert(id, Book::default());
                        end.asked.push_back(id);
                    }
                    Notice::Refused(id, _) => {
                        end.books.remove(&id);
                        end.refused.push(id);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Moves single bytes in turn until `count` have moved. Returns `false` if there were fewer.
    pub(crate) fn move_until(&mut self, count: usize) -> bool {
        let mut moved = 0;
        let mut idle = 0;
        while moved < count && idle < 100 {
            let end = (moved + idle) % 2 == 0;
            let before = self.received_in_all(!end);
            self.carry(end, 1);
            self.step(Step::Answer(!end));
            if self.received_in_all(!end) == before && self.links[usize::from(end)].values().all(VecDeque::is_empty) {
                idle += 1;
                self.step(Step::Wait(20));
            } else {
                moved += 1;
                idle = 0;
            }
        }
        moved == count
    }

    fn received_in_all(&self, end: bool) -> usize {
        self.received[usize::from(end)].len()
    }

    /// Connects, lets both applications finish and read everything, and checks that nothing is left.
    pub(crate) fn drain(&mut self) {
        self.connect();
        for _ in 0..3000 {
            for end in [true, false] {
                self.carry(end, 100_000);
                self.notices();
                while !self.ends[usize::from(end)].asked.is_empty() {
                    self.answer(end, true);
                }
                let ids: Vec<StreamId> = self.ends[usize::from(end)].books.keys().copied().collect();
                for id in ids {
                    let book = &self.ends[usize::from(end)].books[&id];
                    if !book.reset && book.ended.is_none() {
                        self.read(end, id, usize::MAX);
                    }
                    let end = &mut self.ends[usize::from(end)];
                    let book = end.books.get_mut(&id).expect("known");
                    if !book.finished && !book.reset && book.answered {
                        end.session.finish(id);
                        book.finished = true;
                    }
                }
            }
            self.step(Step::Wait(60));
            let open = self.ends.iter().any(|end| !end.session.is_empty());
            if !open {
                self.check();
                return;
            }
        }
        panic!("streams stay: {:#?}", self.ends.each_ref().map(|end| &end.session));
    }

    fn check(&self) {
        for (n, end) in self.ends.iter().enumerate() {
            assert_eq!(end.session.memory(), (0, 0), "no memory is held for streams that are gone");
            for (id, book) in &end.books {
                let Some(writer) = self.ends[1 - n].books.get(id) else { continue };
                if book.reset {
                    continue;
                }
                // A stream that its reader did not give up delivers everything that was written before its end.
                assert_eq!(book.read, writer.written, "{id:?} {book:?} {writer:?}");
                let expected = if writer.reset { End::Reset } else { End::Finished };
                // A reset after the end was taken changes nothing for this reader.
                let late = writer.finished && book.ended == Some(End::Finished);
                assert!(book.ended == Some(expected) || late, "{id:?} {book:?} {writer:?}");
            }
        }
    }
}

//! Two ends, the connections between them, and faults, on a virtual clock.

mod faults;
mod host;
pub(crate) mod ledger;
mod network;

use std::time::Duration;

use tunnel_core::{Dialler, Limits, Loss, Notice, Violation};

use crate::chance::Chance;
use host::Live;
use ledger::{Ledger, Seen};
use network::{Carrier, Packet};

const LISTENER: usize = 0;
const DIALLER: usize = 1;
/// The most that an end writes to a connection at a time.
const CHUNK: usize = 16 * 1024;
/// How long the dialler waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause of the dialler.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time for delayed packets, beside those of other streams.
const MARGIN: Duration = Duration::from_secs(10);
/// How often streams and memory are checked.
const LOOK: Duration = Duration::from_secs(1);
/// More events than any run has.
const MAX_EVENTS: usize = 20_000_000;

fn limits() -> Limits {
    Limits { streams: 64, unanswered: 32, window: 256 * 1024, memory: 1024 * 1024, ..Limits::default() }
}

/// An unanswered attempt to connect.
#[derive(Debug)]
struct Attempt {
    epoch: u64,
    until: Duration,
}

pub(crate) struct World {
    now: Duration,
    chance: Chance,
    limits: Limits,
    /// The current session of each end.
    present: [Option<Live>; 2],
    /// Lost sessions whose streams are not read to their end yet.
    old: Vec<Live>,
    ledger: Ledger,
    carriers: Vec<Carrier>,
    /// The highest epoch that the dialler has used, and the highest that the listener has received.
    epochs: [u64; 2],
    dialler: Dialler,
    dial_at: Option<Duration>,
    attempt: Option<Attempt>,
    /// Since when the dialler has its connection.
    since: Duration,
    /// No packet arrives before this time.
    outage: Duration,
    /// When the last fault was over.
    fault_at: Duration,
    next_fault: Duration,
    next_stream: Duration,
    next_look: Duration,
    /// Neither faults nor new streams happen from then on.
    end: Duration,
}

impl World {
    pub(crate) fn new(seed: u64, end: Duration) -> Self {
        Self {
            now: Duration::ZERO,
            chance: Chance::new(seed),
            limits: limits(),
            present: [None, None],
            old: Vec::new(),
            ledger: Ledger::default(),
            carriers: Vec::new(),
            epochs: [0; 2],
            dialler: Dialler::default(),
            dial_at: Some(Duration::ZERO),
            attempt: None,
            since: Duration::ZERO,
            outage: Duration::ZERO,
            fault_at: Duration::ZERO,
            next_fault: Duration::from_secs(1),
            next_stream: Duration::from_secs(1),
            next_look: LOOK,
            end,
        }
    }

    /// Runs until the end and until all streams have ended, and returns the counts.
    pub(crate) fn run(mut self) -> Seen {
        for _ in 0..MAX_EVENTS {
            self.now = self.now.max(self.next());
            self.deliver();
            self.settle();
            self.advance();
            self.dial();
            self.happen();
            self.settle();
            while self.transmit() {
                self.settle();
            }
            if self.now >= self.end && self.is_over() {
                return self.ledger.seen;
            }
        }
        panic!("the run does not end: it is {:?}", self.now);
    }

    fn next(&self) -> Duration {
        let lives = self.present.iter().flatten().chain(&self.old).filter_map(Live::next);
        let arrivals = self.carriers.iter().filter_map(Carrier::next);
        let dials = self.attempt.as_ref().map_or(self.dial_at, |attempt| Some(attempt.until));
        let free = [LISTENER, DIALLER].into_iter().filter_map(|end| {
            let live = self.present[end].as_ref().filter(|live| live.session.has_output())?;
            let current = self.carriers.iter().find(|carrier| carrier.epoch == live.session.epoch())?;
            Some(current.free(end))
        });
        let events = lives.chain(arrivals).chain(dials).chain(free).min();
        let plans = if self.now < self.end { self.next_fault.min(self.next_stream) } else { Duration::MAX };
        events.unwrap_or(Duration::MAX).min(plans).min(self.next_look)
    }

    fn deliver(&mut self) {
        for at in [LISTENER, DIALLER] {
            for index in 0..self.carriers.len() {
                while let Some(packet) = self.carriers[index].arrived(at, self.now) {
                    self.arrived(index, at, packet);
                }
            }
        }
        self.carriers.retain(|carrier| !carrier.is_gone());
    }

    fn arrived(&mut self, index: usize, at: usize, packet: Packet) {
        let is_open = self.carriers[index].open[at];
        match packet {
            Packet::Bytes(bytes) => self.bytes(index, at, &bytes),
            Packet::Hello(known) if is_open => self.welcome(index, known),
            Packet::Welcome(name) if is_open => self.welcomed(index, name),
            Packet::Close if is_open => {
                self.carriers[index].open[at] = false;
                let epoch = self.carriers[index].epoch;
                self.lost_carrier(at, epoch);
            }
            Packet::Hello(_) | Packet::Welcome(_) | Packet::Close => {}
        }
    }

    /// Bytes that arrive late are ignored.
    fn bytes(&mut self, index: usize, at: usize, bytes: &[u8]) {
        let carrier = &mut self.carriers[index];
        let Some(live) = &mut self.present[at] else { return };
        if !carrier.open[at] {
            let taken = live.session.receive(carrier.epoch, bytes, self.now);
            assert_eq!(taken, Err(Violation::Stale), "a frame of epoch {}", carrier.epoch);
            self.ledger.seen.late += 1;
            return;
        }
        let input = &mut carrier.input[at];
        input.extend_from_slice(bytes);
        let used = live.session.receive(carrier.epoch, input, self.now).expect("both ends keep to the protocol");
        input.drain(..used);
    }

    /// The listener receives a HELLO.
    fn welcome(&mut self, index: usize, known: Option<u64>) {
        let epoch = self.carriers[index].epoch;
        if epoch <= self.epochs[LISTENER] {
            self.carriers[index].close(LISTENER, self.now);
            return;
        }
        self.epochs[LISTENER] = epoch;
        let present = self.present[LISTENER].as_ref().map(|live| live.name);
        let name = present.filter(|name| known == Some(*name));
        if name.is_none() {
            self.begin(LISTENER, epoch);
        }
        self.attach(LISTENER, epoch);
        self.carriers[index].send(LISTENER, Packet::Welcome(name.unwrap_or(epoch)), self.now);
    }

    /// The dialler receives the answer.
    fn welcomed(&mut self, index: usize, name: u64) {
        let epoch = self.carriers[index].epoch;
        let is_known = self.present[DIALLER].as_ref().is_some_and(|live| live.name == name);
        if !is_known && name != epoch {
            // The dialler lost the session after it had sent HELLO.
            self.carriers[index].close(DIALLER, self.now);
            self.lost_carrier(DIALLER, epoch);
            return;
        }
        self.attempt = None;
        self.since = self.now;
        self.ledger.seen.carriers += 1;
        if is_known {
            self.ledger.seen.resumed += 1;
        } else {
            self.begin(DIALLER, name);
        }
        self.attach(DIALLER, epoch);
    }

    /// A session begins, and the previous one ends.
    fn begin(&mut self, end: usize, name: u64) {
        let live = Live::new(name, end, &self.limits, self.now);
        if let Some(mut before) = self.present[end].replace(live) {
            before.lose(Loss::PeerRestarted, &mut self.ledger);
            self.old.push(before);
        }
    }

    /// The connection of `epoch` replaces the previous one.
    fn attach(&mut self, end: usize, epoch: u64) {
        for carrier in self.carriers.iter_mut().filter(|carrier| carrier.epoch < epoch) {
            carrier.close(end, self.now);
        }
        let live = self.present[end].as_mut().expect("a session is there");
        assert!(live.session.attach(epoch, self.now), "epoch {epoch} is the next one");
    }

    /// A connection has ended for an end.
    fn lost_carrier(&mut self, end: usize, epoch: u64) {
        let live = self.present[end].as_mut();
        let was_used = live.as_ref().is_some_and(|live| live.session.epoch() == epoch);
        if let Some(live) = live {
            live.session.detach(epoch, self.now);
        }
        if end != DIALLER {
            return;
        }
        let has_failed = self.attempt.as_ref().is_some_and(|attempt| attempt.epoch == epoch);
        if has_failed {
            self.attempt = None;
        }
        if has_failed || (was_used && self.attempt.is_none() && self.dial_at.is_none()) {
            let up = (!has_failed).then(|| self.now.saturating_sub(self.since));
            self.dial_at = Some(self.now + self.dialler.pause(up, self.chance.part()));
        }
    }

    fn advance(&mut self) {
        for live in self.present.iter_mut().flatten().chain(&mut self.old) {
            live.advance(self.now, &mut self.ledger);
        }
    }

    fn dial(&mut self) {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.until <= self.now) {
            for carrier in self.carriers.iter_mut().filter(|carrier| carrier.epoch == attempt.epoch) {
                carrier.close(DIALLER, self.now);
            }
            self.dial_at = Some(self.now + self.dialler.pause(None, self.chance.part()));
        }
        if self.attempt.is_some() || self.dial_at.take_if(|at| *at <= self.now).is_none() {
            return;
        }
        self.epochs[DIALLER] += 1;
        let epoch = self.epochs[DIALLER];
        let mut carrier = Carrier::new(epoch, &mut self.chance);
        for end in [LISTENER, DIALLER] {
            carrier.freeze(end, self.outage);
        }
        carrier.send(DIALLER, Packet::Hello(self.present[DIALLER].as_ref().map(|live| live.name)), self.now);
        self.carriers.push(carrier);
        self.attempt = Some(Attempt { epoch, until: self.now + PATIENCE });
    }

    /// Lets the applications work until nothing has changed.
    fn settle(&mut self) {
        for end in [LISTENER, DIALLER] {
            let Some(live) = &mut self.present[end] else { continue };
            for notice in live.hear(self.now, &mut self.ledger, &mut self.chance) {
                self.noticed(end, &notice);
            }
        }
        self.old.retain_mut(|live| {
            live.hear(self.now, &mut self.ledger, &mut self.chance);
            if live.is_unused() {
                assert!(live.session.is_empty(), "streams stay of a session that is lost: {:#?}", live.session);
                assert_eq!(live.session.memory(), (0, 0), "and memory");
            }
            !live.is_unused()
        });
    }

    fn noticed(&mut self, end: usize, notice: &Notice) {
        match notice {
            Notice::Suspect if end == DIALLER && self.attempt.is_none() => {
                self.dial_at.get_or_insert(self.now);
            }
            Notice::CarrierLost => {
                let epoch = self.present[end].as_ref().expect("it has reported").session.epoch();
                for carrier in self.carriers.iter_mut().filter(|carrier| carrier.epoch == epoch) {
                    carrier.close(end, self.now);
                }
                self.lost_carrier(end, epoch);
            }
            Notice::Lost(_) => {
                let live = self.present[end].take().expect("it has reported");
                self.old.push(live);
            }
            _ => {}
        }
    }

    /// Gives each connection what it can take. Returns whether that was anything.
    fn transmit(&mut self) -> bool {
        let mut has_sent = false;
        for end in [LISTENER, DIALLER] {
            let Some(live) = self.present[end].as_mut().filter(|live| live.session.has_output()) else { continue };
            let epoch = live.session.epoch();
            let current = self.carriers.iter_mut().find(|carrier| carrier.epoch == epoch).expect("it is attached");
            if current.free(end) > self.now {
                continue;
            }
            let mut out = Vec::new();
            live.session.transmit(epoch, &mut out, CHUNK, self.now).expect("it is attached");
            if !out.is_empty() {
                current.send(end, Packet::Bytes(out), self.now);
                has_sent = true;
            }
        }
        has_sent
    }

    /// Whether all streams have ended, and nothing of them is left.
    fn is_over(&self) -> bool {
        let present = self.present.iter().flatten();
        let is_over = self.old.is_empty() && present.clone().all(|live| live.is_unused() && live.session.is_empty());
        if is_over {
            for live in present {
                assert_eq!(live.session.memory(), (0, 0), "no memory is held for streams that are gone");
            }
        }
        is_over
    }

    /// Checks memory, and looks for streams that stall.
    fn look(&mut self) {
        for live in self.present.iter().flatten() {
            live.check_memory(&self.limits);
        }
        let longest = self.limits.dead_after + LONGEST_PAUSE + MARGIN;
        for live in self.present.iter().flatten().chain(&self.old) {
            for id in live.streams() {
                let line = self.ledger.line(live.name, id);
                let since = line.progress.max(self.fault_at);
                let stands = self.now.saturating_sub(since);
                assert!(stands <= longest, "{id:?} of session {} stands for {stands:?}: {line:?}", live.name);
            }
        }
        let most = self.end + self.limits.grace + Duration::from_secs(600);
        assert!(self.now < most, "streams do not end: {:#?}", self.present);
    }
}

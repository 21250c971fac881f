//! Connections between the two ends: what is in transit, and when it arrives.

use std::collections::VecDeque;
use std::time::Duration;

use super::{DIALLER, LISTENER};
use crate::chance::Chance;

/// Something in transit.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The first frame of the dialler: the session that it has.
    Hello(Option<u64>),
    /// The answer: the session that the connection is for.
    Welcome(u64),
    Bytes(Vec<u8>),
    /// The connection has ended.
    Close,
}

/// One direction.
#[derive(Debug)]
struct Link {
    delay: Duration,
    /// Bytes per millisecond.
    speed: u64,
    way: VecDeque<(Duration, Packet)>,
    /// When the sender may send more.
    free: Duration,
    /// Nothing arrives before this time.
    frozen: Duration,
}

impl Link {
    fn new(chance: &mut Chance) -> Self {
        let (delay, speed) = (chance.millis(0, 121), chance.between(200, 4000));
        Self { delay, speed, way: VecDeque::new(), free: Duration::ZERO, frozen: Duration::ZERO }
    }

    fn send(&mut self, packet: Packet, now: Duration) {
        let length = if let Packet::Bytes(bytes) = &packet { bytes.len() as u64 } else { 1 };
        self.free = self.free.max(now) + Duration::from_micros(length * 1000 / self.speed);
        self.way.push_back((self.free + self.delay, packet));
    }

    fn next(&self) -> Option<Duration> {
        self.way.front().map(|(at, _)| (*at).max(self.frozen))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) epoch: u64,
    /// Which ends still use it.
    pub(crate) open: [bool; 2],
    /// Received bytes at each end that are not a whole frame yet.
    pub(crate) input: [Vec<u8>; 2],
    /// By the sending end.
    links: [Link; 2],
}

impl Carrier {
    pub(crate) fn new(epoch: u64, chance: &mut Chance) -> Self {
        let links = [LISTENER, DIALLER].map(|_| Link::new(chance));
        Self { epoch, open: [true; 2], input: Default::default(), links }
    }

    pub(crate) fn send(&mut self, from: usize, packet: Packet, now: Duration) {
        self.links[from].send(packet, now);
    }

    /// When an end may send more.
    pub(crate) fn free(&self, from: usize) -> Duration {
        self.links[from].free
    }

    /// When the next packet arrives anywhere.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.links.iter().filter_map(Link::next).min()
    }

    /// What has arrived at an end, one item at a time.
    pub(crate) fn arrived(&mut self, at: usize, now: Duration) -> Option<Packet> {
        let link = &mut self.links[1 - at];
        let is_there = link.next().is_some_and(|next| next <= now);
        if is_there { link.way.pop_front().map(|(_, packet)| packet) } else { None }
    }

    pub(crate) fn close(&mut self, end: usize, now: Duration) {
        if std::mem::take(&mut self.open[end]) {
            self.send(end, Packet::Close, now);
        }
    }

    /// Loses what is in transit, except for a part of what comes first.
    pub(crate) fn cut(&mut self, chance: &mut Chance, now: Duration) {
        for link in &mut self.links {
            link.way.truncate(1);
            if let Some((_, Packet::Bytes(bytes))) = link.way.front_mut() {
                let left = chance.between(0, bytes.len() as u64 + 1);
                bytes.truncate(usize::try_from(left).expect("no more than there was"));
            }
            link.send(Packet::Close, now);
        }
    }

    /// Delays everything that this end sends until `until`.
    pub(crate) fn freeze(&mut self, from: usize, until: Duration) {
        let link = &mut self.links[from];
        link.frozen = link.frozen.max(until);
    }

    /// Whether nothing arrives over the connection any more.
    pub(crate) fn is_gone(&self) -> bool {
        let is_still = |link: &Link| link.way.is_empty() || link.frozen == Duration::MAX;
        self.open == [false; 2] && self.links.iter().all(is_still)
    }
}

//! Admission of connections at a port: which connection gets a place, and which one is evicted for a newcomer.
//!
//! Operator and proxy open ports that any pod of a cluster can reach. Connections of clients that have not
//! authenticated, strangers, are bounded in number, per source and per second. Clients that have authenticated have
//! places of their own, which strangers cannot take.
//!
//! Pure: the caller accepts and closes connections, and passes the time since any fixed moment.

mod lanes;
mod rates;
mod shares;
mod sources;
mod stream_port;
mod turns;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

pub use self::{
    lanes::LONGEST_TURN,
    rates::{Bucket, Rate},
    shares::Shares,
    stream_port::StreamPort,
    turns::Turns,
};
use self::{lanes::Lanes, sources::Sources};

/// A source may have used no more tokens of its fair share than this part of those that are left of all.
const LEFT_PART: u64 = 8;
/// The part of the rate of all, and of its burst, that is kept for known sources: a half.
const KNOWN_PART: u32 = 2;

/// What counts as one source: an IPv4 address, or an IPv6 /64.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// Which connection is evicted if there is no place for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evict {
    /// No connection: the newcomer is refused.
    Never,
    /// A connection that waits for its peer, and none whose request is being answered.
    Silent,
    /// A connection that waits for its peer, otherwise one whose request is being answered: a newcomer always gets a
    /// place.
    Any,
}

/// How often strangers may connect.
///
/// The rate of all is shared fairly. Half of its burst is kept for sources that have not used up their fair share: the
/// part of one source in half of the rate, among the strangers that are remembered and one more. The less is left of
/// that half, the less of it goes to those that have had some. So greedy sources do not keep out one that connects now
/// and then. Half of the rate is kept for sources of which a peer has authenticated lately; they use what is left of the
/// other half, too. Every connection counts towards the rate of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// From all sources.
    pub all: Rate,
    /// From one source.
    pub source: Rate,
    /// Whether the handshakes of admitted connections begin evenly, at the rate of all: see [`Places::turn`].
    pub evenly: bool,
}

/// The bounds of a door. It never has more connections than `strangers` and `known` together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most connections of strangers.
    pub strangers: usize,
    /// Most connections of strangers from one source.
    pub per_source: usize,
    /// Most connections of peers that have authenticated; 0 at a door without authentication.
    pub known: usize,
    /// Which connection is evicted for a newcomer.
    pub evict: Evict,
    /// How often strangers may connect. Absent: without a limit.
    pub rates: Option<Rates>,
}

/// A connection's place at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId(u64);

/// Whether a connection gets a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It gets this place.
    Admit(PlaceId),
    /// It gets this place, and the connection that was `evicted` must be closed; its place is already free.
    AdmitAfterEvicting {
        /// The place of the newcomer.
        place: PlaceId,
        /// The place that was taken back.
        evicted: PlaceId,
    },
    /// It must be closed.
    Refuse(Refusal),
}

/// Why a connection is closed at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// All sources together connect too often.
    Rate,
    /// This source connects too often.
    SourceRate,
    /// All places are taken.
    Full,
    /// All places of this source are taken.
    SourceFull,
}

impl Refusal {
    /// The value of a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::SourceRate => "source_rate",
            Self::Full => "full",
            Self::SourceFull => "source_full",
        }
    }
}

/// One place.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The source of the peer.
    peer: IpAddr,
    /// The source among whose connections it counts.
    source: IpAddr,
    /// Whether a request of the peer is being answered; otherwise the door waits for the peer.
    asks: bool,
    /// Since when that is so.
    since: Duration,
    /// Time from the admission to the turn of the handshake.
    turn: Duration,
}

/// The places of one door.
#[derive(Clone, Debug)]
pub struct Places {
    bounds: Bounds,
    next: u64,
    strangers: BTreeMap<PlaceId, Place>,
    known: BTreeMap<PlaceId, Place>,
    sources: Sources,
    /// The rate of all.
    bucket: Bucket,
    /// What is kept for known sources.
    known_bucket: Bucket,
    /// The handshakes of admitted connections.
    lanes: Lanes,
}

impl Places {
    /// A door without connections.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next: 0,
            strangers: BTreeMap::new(),
            known: BTreeMap::new(),
            sources: Sources::default(),
            bucket: Bucket::default(),
            known_bucket: Bucket::default(),
            lanes: Lanes::default(),
        }
    }

    /// A new connection, of a stranger that has not sent anything yet.
    pub fn admit(&mut self, source: IpAddr, now: Duration) -> Admission {
        self.sources.sweep(now);
        let peer = source_of(source);
        let source = self.sources.counted_as(peer);
        let (evicted, turn) = match self.room(source).and_then(|it| self.charge(source, now).map(|turn| (it, turn))) {
            Ok(admitted) => admitted,
            Err(refusal) => return Admission::Refuse(refusal),
        };
        if let Some(evicted) = evicted {
            self.release(evicted, now);
        }
        let place = self.fresh();
        self.strangers.insert(place, Place { peer, source, asks: false, since: now, turn });
        self.sources.entry(source).places += 1;
        match evicted {
            Some(evicted) => Admission::AdmitAfterEvicting { place, evicted },
            None => Admission::Admit(place),
        }
    }

    /// A new connection of a peer that is known by other means than its requests. It takes no place from strangers, and
    /// none from other sources of known peers with fewer places.
    pub fn admit_known(&mut self, source: IpAddr, now: Duration) -> Admission {
        let evicted = match self.room_for_known(now) {
            Ok(evicted) => evicted,
            Err(refusal) => return Admission::Refuse(refusal),
        };
        let (place, peer) = (self.fresh(), source_of(source));
        self.known.insert(place, Place { peer, source: peer, asks: false, since: now, turn: Duration::ZERO });
        match evicted {
            Some(evicted) => Admission::AdmitAfterEvicting { place, evicted },
            None => Admission::Admit(place),
        }
    }

    /// Time from the admission of this connection to the turn of its handshake, at most [`LONGEST_TURN`]. Zero unless
    /// handshakes begin evenly. The last connection of a burst waits for as long as the rate of all needs to refill the
    /// burst.
    #[must_use]
    pub fn turn(&self, place: PlaceId) -> Duration {
        self.strangers.get(&place).map(|place| place.turn).unwrap_or_default()
    }

    /// A request of this connection is being answered.
    pub fn asks(&mut self, place: PlaceId, now: Duration) {
        self.mark(place, true, now);
    }

    /// The request is answered: the door waits for the peer again.
    pub fn waits(&mut self, place: PlaceId, now: Duration) {
        self.mark(place, false, now);
    }

    /// The peer has authenticated, so its place is no longer among those of strangers. Returns the place that was taken
    /// back for it, whose connection must be closed.
    ///
    /// # Errors
    /// There is no place for another authenticated peer: the connection must be closed. Its place is free.
    pub fn authenticate(&mut self, place: PlaceId, now: Duration) -> Result<Option<PlaceId>, Refusal> {
        let Some(moved) = self.strangers.get(&place).copied() else {
            // Evicted before, or authenticated before.
            return if self.known.contains_key(&place) { Ok(None) } else { Err(Refusal::Full) };
        };
        self.release(place, now);
        let evicted = self.room_for_known(now)?;
        self.known.insert(place, Place { source: moved.peer, ..moved });
        self.recognise(moved.peer, now);
        Ok(evicted)
    }

    /// The connection is closed. Releasing a place that was already taken back does nothing.
    pub fn release(&mut self, place: PlaceId, now: Duration) {
        if let Some(known) = self.known.remove(&place) {
            // However long it was connected: it may come back now.
            self.recognise(known.peer, now);
        } else if let Some(stranger) = self.strangers.remove(&place) {
            self.sources.leave(stranger.source, self.bounds.rates.is_some());
        }
    }

    /// Number of connections of strangers.
    #[must_use]
    pub fn strangers(&self) -> usize {
        self.strangers.len()
    }

    /// Number of connections of peers that have authenticated.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Number of sources that are remembered.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    fn mark(&mut self, place: PlaceId, asks: bool, now: Duration) {
        for places in [&mut self.strangers, &mut self.known] {
            if let Some(place) = places.get_mut(&place) {
                (place.asks, place.since) = (asks, now);
            }
        }
    }

    fn fresh(&mut self) -> PlaceId {
        let place = PlaceId(self.next);
        self.next += 1;
        place
    }

    /// Makes room for a known peer, if need be at the expense of the known source with the most places.
    fn room_for_known(&mut self, now: Duration) -> Result<Option<PlaceId>, Refusal> {
        if self.known.len() < self.bounds.known {
            return Ok(None);
        }
        let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for place in self.known.values() {
            *held.entry(place.source).or_default() += 1;
        }
        let held_by = |source: IpAddr| held.get(&source).copied().unwrap_or_default();
        let evicted = self.longest(&self.known, None, held_by).ok_or(Refusal::Full)?;
        self.release(evicted, now);
        Ok(Some(evicted))
    }

    /// Remembers the source of a peer that has authenticated.
    fn recognise(&mut self, peer: IpAddr, now: Duration) {
        if self.bounds.rates.is_some() {
            self.sources.recognise(peer, self.bounds.known, now);
        }
    }

    /// The place that a newcomer of this source gets: a free one, or one that is taken back.
    fn room(&self, source: IpAddr) -> Result<Option<PlaceId>, Refusal> {
        let held_by = |source: IpAddr| self.sources.get(source).places;
        if held_by(source) >= self.bounds.per_source {
            return self.longest(&self.strangers, Some(source), held_by).map(Some).ok_or(Refusal::SourceFull);
        }
        if self.strangers.len() >= self.bounds.strangers {
            return self.longest(&self.strangers, None, held_by).map(Some).ok_or(Refusal::Full);
        }
        Ok(None)
    }

    /// The place to take back: among those of the source with the most places, the one that has waited for its peer the
    /// longest. So the greediest source pays.
    fn longest(
        &self,
        among: &BTreeMap<PlaceId, Place>,
        of: Option<IpAddr>,
        held_by: impl Fn(IpAddr) -> usize,
    ) -> Option<PlaceId> {
        let evict = self.bounds.evict;
        let may_go = |place: &Place| evict == Evict::Any || evict == Evict::Silent && !place.asks;
        let candidates = among.iter().filter(|(_, place)| of.is_none_or(|of| of == place.source) && may_go(place));
        let rank = |(id, place): &(&PlaceId, &Place)| {
            (held_by(place.source), !place.asks, Reverse(place.since), Reverse(**id))
        };
        candidates.max_by_key(rank).map(|(id, _)| *id)
    }

    /// Takes a token of this source and one of all; a connection that is refused takes none, so a source that connects
    /// too often takes no tokens from the others. Returns the time until the turn of the handshake.
    fn charge(&mut self, source: IpAddr, now: Duration) -> Result<Duration, Refusal> {
        let Some(rates) = self.bounds.rates else { return Ok(Duration::ZERO) };
        let mut known = self.sources.get(source);
        if !known.bucket.wait(rates.source, now).is_zero() {
            return Err(Refusal::SourceRate);
        }
        let (kept, share) = (rates.all.part_of(KNOWN_PART), self.fair_share(rates.all));
        let is_kept = now < known.known_until && self.known_bucket.wait(kept, now).is_zero();
        let is_fair = is_kept
            || known.fair.wait(share, now).is_zero()
                && known.fair.used(share, now) <= self.bucket.left(rates.all, now) / LEFT_PART;
        let is_left = is_fair || self.bucket.is_over_half(rates.all, now);
        let has_token = is_kept || is_left && self.bucket.wait(rates.all, now).is_zero();
        if !has_token {
            return Err(Refusal::Rate);
        }
        let turn = if rates.evenly { self.lanes.turn(rates.all, is_fair, now) } else { Some(Duration::ZERO) };
        let turn = turn.ok_or(Refusal::Rate)?;
        // Beyond its share a source owes nothing: it has taken what was left.
        let _ = if is_kept { self.known_bucket.take(kept, now) } else { known.fair.take(share, now) };
        // Otherwise known sources and strangers together would connect twice as often as the rate allows. Known sources
        // get in without a token; the debt, no more than they are kept, is paid by all.
        self.bucket.spend(rates.all, 1, now);
        known.bucket.spend(rates.source, 1, now);
        *self.sources.entry(source) = known;
        Ok(turn)
    }

    /// The share of one source in half of a rate, among strangers. There is one for a newcomer, too.
    fn fair_share(&self, all: Rate) -> Rate {
        let sources = u32::try_from(self.sources.strangers().saturating_add(1)).unwrap_or(u32::MAX);
        all.part_of(sources.saturating_mul(2))
    }
}

//! Admission of connections at a port: which connection gets a place, and which one is evicted for a newcomer.
//!
//! Operator and proxy open ports that any pod of a cluster can reach. Connections of clients that have not
//! authenticated, strangers, are bounded in number, per source and per second. Clients that have authenticated have
//! places of their own, which strangers cannot take.
//!
//! Pure: the caller accepts and closes connections, and passes the time since any fixed moment.

mod bounds;
mod lanes;
mod leaving;
mod namespaces;
mod rates;
mod shares;
mod source;
mod sources;
mod stream_port;
mod turns;

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, time::Duration};

pub use self::{
    bounds::{Bounds, Evict, Rates},
    lanes::LONGEST_TURN,
    leaving::{leaves_room, most_leaving_room},
    rates::{Bucket, Rate},
    shares::Shares,
    source::{Network, Source, Tally, weight},
    stream_port::StreamPort,
    turns::Turns,
};
use self::{
    lanes::Lanes,
    namespaces::Namespaces,
    source::{most_of_network, rate_of_network},
    sources::Sources,
};

/// Of its fair share, a source may have used at most as many tokens as this part, an eighth, of those left of all.
const LEFT_PART: u64 = 8;
/// How many times as much a waiting connection weighs as a request that is being answered, if those are evicted last.
const WORK_LAST_TIMES: usize = 4;
/// The part of the rate of all, and of its burst, that is reserved for known sources: a half.
const KNOWN_PART: u32 = 2;

/// A connection's place at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId(u64);

/// Whether a connection gets a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// The connection gets this place.
    Admit(PlaceId),
    /// The connection gets this place. The `evicted` one must be closed; its place is already free.
    AdmitAfterEvicting {
        /// The place of the newcomer.
        place: PlaceId,
        /// The place that was taken back.
        evicted: PlaceId,
    },
    /// The connection must be closed.
    Refuse(Refusal),
}

/// Why a connection is closed at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// All sources together connect too often.
    Rate,
    /// This source, or its network, connects too often.
    SourceRate,
    /// All places are taken.
    Full,
    /// All places of this source, or of its network, are taken.
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
    peer: Source,
    /// The source that the connection counts towards.
    source: Source,
    /// Whether a request of the peer is being answered; otherwise the door waits for the peer.
    asks: bool,
    /// Since when `asks` has had its value.
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
    namespaces: Namespaces,
    sources: Sources,
    /// The bucket of all sources.
    bucket: Bucket,
    /// The tokens that are reserved for known sources.
    known_bucket: Bucket,
    /// The turns of the handshakes of admitted connections.
    lanes: Lanes,
}

impl Places {
    /// Creates a door without connections.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next: 0,
            strangers: BTreeMap::new(),
            known: BTreeMap::new(),
            namespaces: Namespaces::default(),
            sources: Sources::default(),
            bucket: Bucket::default(),
            known_bucket: Bucket::default(),
            lanes: Lanes::default(),
        }
    }

    /// Replaces the bounds. Connections keep their places; while there are more than the new bounds allow, a newcomer
    /// gets the place of another one.
    pub fn resize(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Admits a new connection, of a stranger that has not sent anything yet.
    pub fn admit(&mut self, source: IpAddr, now: Duration) -> Admission {
        self.sources.sweep(now);
        let peer = Source::of(source);
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
        self.sources.join(source);
        match evicted {
            Some(evicted) => Admission::AdmitAfterEvicting { place, evicted },
            None => Admission::Admit(place),
        }
    }

    /// Admits a new connection of a peer that is known without a request. It takes no place from strangers, and none
    /// from other sources of known peers with fewer places. With rates, its source counts as known.
    pub fn admit_known(&mut self, source: IpAddr, now: Duration) -> Admission {
        self.sources.sweep(now);
        let peer = Source::of(source);
        self.recognise(peer, now);
        let (evicted, turn) = match self.charge(peer, now).and_then(|turn| Ok((self.room_for_known(now)?, turn))) {
            Ok(admitted) => admitted,
            Err(refusal) => return Admission::Refuse(refusal),
        };
        let place = self.fresh();
        self.known.insert(place, Place { peer, source: peer, asks: false, since: now, turn });
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
        let taken = self.strangers.get(&place).or_else(|| self.known.get(&place));
        taken.map(|place| place.turn).unwrap_or_default()
    }

    /// Notes that a request of this connection is being answered.
    pub fn asks(&mut self, place: PlaceId, now: Duration) {
        self.mark(place, true, now);
    }

    /// Notes that the request is answered: the door waits for the peer again.
    pub fn waits(&mut self, place: PlaceId, now: Duration) {
        self.mark(place, false, now);
    }

    /// Notes that the peer has authenticated, so that its place no longer counts towards strangers. Returns the place
    /// that was taken back for it, whose connection must be closed.
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

    /// Frees the place of a closed connection. Releasing a place that was already taken back does nothing.
    pub fn release(&mut self, place: PlaceId, now: Duration) {
        if let Some(known) = self.known.remove(&place) {
            self.namespaces.leave(place);
            // However long the peer was connected, it may reconnect now.
            self.recognise(known.peer, now);
        } else if let Some(stranger) = self.strangers.remove(&place) {
            self.sources.leave(stranger.source, self.bounds.rates.is_some());
        }
    }

    /// Whether the peer of this connection is known.
    #[must_use]
    pub fn is_known(&self, place: PlaceId) -> bool {
        self.known.contains_key(&place)
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
            *held.entry(place.source.address).or_default() += 1;
        }
        // By source alone: an authenticated peer does not pay for others in its network.
        let of_source = |source: Source| (held.get(&source.address).copied().unwrap_or_default(), 0);
        let evicted = self.longest(&self.known, |_| true, of_source).ok_or(Refusal::Full)?;
        self.release(evicted, now);
        Ok(Some(evicted))
    }

    /// Remembers the source of a peer that has authenticated.
    fn recognise(&mut self, peer: Source, now: Duration) {
        if self.bounds.rates.is_some() {
            self.sources.recognise(peer.address, self.bounds.known, now);
        }
    }

    /// Returns the place for a newcomer of this source: a free one, or one that is taken back.
    fn room(&self, source: Source) -> Result<Option<PlaceId>, Refusal> {
        let Bounds { strangers, per_source, .. } = self.bounds;
        let (own, together) = self.sources.held(source);
        let taken_back = |may_go: &dyn Fn(&Place) -> bool, refusal| {
            self.longest(&self.strangers, may_go, |source| self.sources.held(source)).map(Some).ok_or(refusal)
        };
        if own >= per_source {
            return taken_back(&|place: &Place| place.source.address == source.address, Refusal::SourceFull);
        }
        if source.network.is_some() && together >= most_of_network(per_source, strangers) {
            return taken_back(&|place: &Place| place.source.network == source.network, Refusal::SourceFull);
        }
        if self.strangers.len() >= strangers {
            return taken_back(&|_: &Place| true, Refusal::Full);
        }
        Ok(None)
    }

    /// Selects the place to take back: within the heaviest source, the one that has waited for its peer the longest. So
    /// the greediest source pays, and in a heavy network the one with the most places. `held` returns the number of
    /// places of a source and of its network.
    fn longest(
        &self,
        among: &BTreeMap<PlaceId, Place>,
        of: impl Fn(&Place) -> bool,
        held: impl Fn(Source) -> (usize, usize),
    ) -> Option<PlaceId> {
        let evict = self.bounds.evict;
        let may_go = |place: &Place| match evict {
            Evict::Never => false,
            Evict::Silent => !place.asks,
            Evict::Any | Evict::WorkLast => true,
        };
        let candidates = among.iter().filter(|(_, place)| of(place) && may_go(place));
        let rank = |(id, place): &(&PlaceId, &Place)| {
            let (own, together) = held(place.source);
            let times = if evict == Evict::WorkLast && !place.asks { WORK_LAST_TIMES } else { 1 };
            let own = own.saturating_mul(times);
            (weight(own, together), own, !place.asks, Reverse(place.since), Reverse(**id))
        };
        candidates.max_by_key(rank).map(|(id, _)| *id)
    }

    /// Takes a token of this source, one of its network and one of all. A refused connection takes none, so a source
    /// that connects too often takes no tokens from others. Returns the time until the turn of the handshake.
    fn charge(&mut self, source: Source, now: Duration) -> Result<Duration, Refusal> {
        let Some(Rates { all, source: of_source, evenly }) = self.bounds.rates else { return Ok(Duration::ZERO) };
        let (mut own, mut group) = (self.sources.get(source.address), self.sources.group(source.network));
        if !own.bucket.wait(of_source, now).is_zero() {
            return Err(Refusal::SourceRate);
        }
        let share = self.fair_share(all);
        let own_share = share.part_of(u32::try_from(group.strangers).unwrap_or(u32::MAX));
        // The rate of its network neither bounds a known source nor is charged for it, as its neighbours are strangers.
        let network = source.network.filter(|_| now >= own.known_until).map(|_| rate_of_network(of_source, all));
        if let Some(rate) = network {
            let is_left =
                is_due(&own.fair, own_share, (&group.bucket, rate), now) || group.bucket.is_over_half(rate, now);
            if !is_left || !group.bucket.wait(rate, now).is_zero() {
                return Err(Refusal::SourceRate);
            }
        }
        let kept = all.part_of(KNOWN_PART);
        let is_kept = now < own.known_until && self.known_bucket.wait(kept, now).is_zero();
        let is_fair = is_kept
            || is_due(&own.fair, own_share, (&self.bucket, all), now)
                && (source.network.is_none() || is_due(&group.fair, share, (&self.bucket, all), now));
        let is_left = is_fair || self.bucket.is_over_half(all, now);
        let has_token = is_kept || is_left && self.bucket.wait(all, now).is_zero();
        if !has_token {
            return Err(Refusal::Rate);
        }
        let turn = if evenly { self.lanes.turn(all, is_fair, now) } else { Some(Duration::ZERO) };
        let turn = turn.ok_or(Refusal::Rate)?;
        // Beyond its share a source owes nothing, as it used spare tokens. Its network's share is not charged either.
        let _ = if is_kept {
            self.known_bucket.take(kept, now)
        } else {
            own.fair.take(own_share, now) && group.fair.take(share, now)
        };
        // Otherwise known sources and strangers together would connect twice as often as the rate allows. Known sources
        // get in without a token. Their debt, at most the reserved part, is charged to all.
        self.bucket.spend(all, 1, now);
        own.bucket.spend(of_source, 1, now);
        if let Some(rate) = network {
            group.bucket.spend(rate, 1, now);
        }
        self.sources.charge(source, own, group);
        Ok(turn)
    }

    /// The share of one source in half of a rate, among strangers. A network has one share for all its sources, and one
    /// share is counted for a newcomer.
    fn fair_share(&self, all: Rate) -> Rate {
        let sources = u32::try_from(self.sources.groups().saturating_add(1)).unwrap_or(u32::MAX);
        all.part_of(sources.saturating_mul(2))
    }
}

/// Whether a source, or a network, that has used this much of its share may take a token reserved for sources with
/// little use: the fewer are left, the less it may have used.
fn is_due(used: &Bucket, share: Rate, (left, rate): (&Bucket, Rate), now: Duration) -> bool {
    used.wait(share, now).is_zero() && used.used(share, now) <= left.left(rate, now) / LEFT_PART
}

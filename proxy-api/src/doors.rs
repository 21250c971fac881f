//! Admission of connections at a port: which connection gets a place, and which one is evicted for a newcomer.
//!
//! Operator and proxy open ports that any pod of a cluster can reach. Connections of clients that have not
//! authenticated, strangers, are bounded in number, per source and per second. Clients that have authenticated have
//! places of their own, which strangers cannot take.
//!
//! Pure: the caller accepts and closes connections, and passes the time since any fixed moment.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Number of sources below which no sweep looks for sources to forget.
const SOURCES: usize = 64;

/// What counts as one source: an IPv4 address, or an IPv6 /64.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which a bucket gains one token.
    each: Duration,
    /// Tokens of a full bucket.
    burst: u32,
}

impl Rate {
    /// One token in each such time; a full bucket has `burst` tokens, at least one.
    #[must_use]
    pub fn every(each: Duration, burst: u32) -> Self {
        Self { each, burst: burst.max(1) }
    }

    /// So many tokens a second, at least one; a full bucket has `burst` tokens.
    #[must_use]
    pub fn per_second(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1) / times.max(1), burst)
    }
}

/// A token bucket. Its whole state is the time at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes one token. Returns false, and takes nothing, if the bucket is empty.
    #[must_use]
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let has_one = self.wait(rate, now).is_zero();
        if has_one {
            self.spend(rate, 1, now);
        }
        has_one
    }

    /// Takes so many tokens, even more than the bucket has: the debt delays the next token.
    pub fn spend(&mut self, rate: Rate, tokens: u32, now: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(rate.each.saturating_mul(tokens));
    }

    /// Time until the bucket has a token.
    #[must_use]
    pub fn wait(&self, rate: Rate, now: Duration) -> Duration {
        let full = self.full_at.max(now).saturating_add(rate.each).saturating_sub(now);
        full.saturating_sub(rate.each.saturating_mul(rate.burst))
    }

    /// Whether the bucket is full, and so is equal to a new one.
    #[must_use]
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// From all sources.
    pub all: Rate,
    /// From one source.
    pub source: Rate,
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
    source: IpAddr,
    /// Whether a request of the peer is being answered; otherwise the door waits for the peer.
    asks: bool,
    /// Since when that is so.
    since: Duration,
}

/// One source of strangers.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    places: usize,
    bucket: Bucket,
}

/// The places of one door.
#[derive(Clone, Debug)]
pub struct Places {
    bounds: Bounds,
    next: u64,
    strangers: BTreeMap<PlaceId, Place>,
    known: BTreeMap<PlaceId, Place>,
    sources: BTreeMap<IpAddr, Source>,
    /// Number of sources at which the next sweep is due.
    sweep_at: usize,
    bucket: Bucket,
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
            sources: BTreeMap::new(),
            sweep_at: SOURCES,
            bucket: Bucket::default(),
        }
    }

    /// A new connection, of a stranger that has not sent anything yet.
    pub fn admit(&mut self, source: IpAddr, now: Duration) -> Admission {
        let source = source_of(source);
        let evicted = match self.room(source).and_then(|evicted| self.charge(source, now).map(|()| evicted)) {
            Ok(evicted) => evicted,
            Err(refusal) => return Admission::Refuse(refusal),
        };
        if let Some(evicted) = evicted {
            self.release(evicted);
        }
        self.sweep(now);
        let place = PlaceId(self.next);
        self.next += 1;
        self.strangers.insert(place, Place { source, asks: false, since: now });
        self.sources.entry(source).or_default().places += 1;
        match evicted {
            Some(evicted) => Admission::AdmitAfterEvicting { place, evicted },
            None => Admission::Admit(place),
        }
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
    pub fn authenticate(&mut self, place: PlaceId) -> Result<Option<PlaceId>, Refusal> {
        let Some(moved) = self.strangers.get(&place).copied() else {
            // Evicted before, or authenticated before.
            return if self.known.contains_key(&place) { Ok(None) } else { Err(Refusal::Full) };
        };
        self.release(place);
        let mut evicted = None;
        if self.known.len() >= self.bounds.known {
            evicted = Some(self.longest(&self.known, None).ok_or(Refusal::Full)?);
        }
        if let Some(evicted) = evicted {
            self.release(evicted);
        }
        self.known.insert(place, moved);
        Ok(evicted)
    }

    /// The connection is closed. Releasing a place that was already taken back does nothing.
    pub fn release(&mut self, place: PlaceId) {
        self.known.remove(&place);
        let Some(Place { source, .. }) = self.strangers.remove(&place) else { return };
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.places = entry.places.saturating_sub(1);
            if entry.places == 0 && self.bounds.rates.is_none() {
                self.sources.remove(&source);
            }
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

    fn held_by(&self, source: IpAddr) -> usize {
        self.sources.get(&source).map_or(0, |source| source.places)
    }

    /// The place that a newcomer of this source gets: a free one, or one that is taken back.
    fn room(&self, source: IpAddr) -> Result<Option<PlaceId>, Refusal> {
        if self.held_by(source) >= self.bounds.per_source {
            return self.longest(&self.strangers, Some(source)).map(Some).ok_or(Refusal::SourceFull);
        }
        if self.strangers.len() >= self.bounds.strangers {
            return self.longest(&self.strangers, None).map(Some).ok_or(Refusal::Full);
        }
        Ok(None)
    }

    /// The place to take back: among those of the source with the most places, the one that has waited for its peer the
    /// longest. So the greediest source pays.
    fn longest(&self, among: &BTreeMap<PlaceId, Place>, of: Option<IpAddr>) -> Option<PlaceId> {
        let evict = self.bounds.evict;
        let may_go = |place: &Place| evict == Evict::Any || evict == Evict::Silent && !place.asks;
        let candidates = among.iter().filter(|(_, place)| of.is_none_or(|of| of == place.source) && may_go(place));
        let rank = |(id, place): &(&PlaceId, &Place)| {
            (self.held_by(place.source), !place.asks, Reverse(place.since), Reverse(**id))
        };
        candidates.max_by_key(rank).map(|(id, _)| *id)
    }

    /// Takes a token of this source and one of all. A source that connects too often takes no tokens from the others.
    fn charge(&mut self, source: IpAddr, now: Duration) -> Result<(), Refusal> {
        let Some(rates) = self.bounds.rates else { return Ok(()) };
        let known = self.sources.get(&source).map(|source| source.bucket).unwrap_or_default();
        if !known.wait(rates.source, now).is_zero() {
            return Err(Refusal::SourceRate);
        }
        if !self.bucket.take(rates.all, now) {
            return Err(Refusal::Rate);
        }
        // There is a token, as no time has passed.
        let _ = self.sources.entry(source).or_default().bucket.take(rates.source, now);
        Ok(())
    }

    /// Forgets sources without places whose bucket is full. The number of sources doubles between two sweeps, so the
    /// amortised cost for a newcomer is small.
    fn sweep(&mut self, now: Duration) {
        if self.sources.len() < self.sweep_at {
            return;
        }
        self.sources.retain(|_, source| source.places > 0 || !source.bucket.is_full(now));
        self.sweep_at = SOURCES.max(2 * self.sources.len());
    }
}

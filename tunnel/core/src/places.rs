//! Which endpoints an agent dials, and when.
//!
//! An agent has a session with each endpoint that it knows of, up to a bound, and with each sidecar, up to another
//! bound. It dials a known endpoint by its id. It dials any endpoint while no session takes streams and the known
//! endpoints do not answer; sessions with sidecars do not count, because sidecars name no endpoints. Pure: the time
//! since any fixed start, and randomness, are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Dialler;
use crate::identity::{Dial, EndpointId};

#[cfg(test)]
mod tests;

/// The most sidecars that an agent has sessions with. Sessions that are about to end, and those with sidecars that are
/// no longer named, come on top.
pub const MAX_SIDECARS: usize = 32;

/// The state of the session with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The session has a connection.
    pub attached: bool,
    /// The connection is silent.
    pub suspect: bool,
    /// One of the ends takes no new streams.
    pub leaving: bool,
}

impl Standing {
    fn serves(self) -> bool {
        self.attached && !self.leaving
    }

    fn wants_carrier(self) -> bool {
        !self.attached || self.suspect
    }
}

/// The sessions of an agent, each by the dial that reaches its endpoint again.
pub type Standings = BTreeMap<Dial, Standing>;

#[derive(Debug, Default)]
struct Place {
    dialler: Dialler,
    not_before: Duration,
    dialling: bool,
    /// The last attempt failed.
    failed: bool,
}

/// The endpoints that an agent knows of.
#[derive(Debug)]
pub struct Places {
    max: usize,
    closed: bool,
    places: BTreeMap<Dial, Place>,
    /// The endpoints that were named last.
    peers: BTreeSet<EndpointId>,
    /// The sidecars that were named last.
    sidecars: BTreeSet<EndpointId>,
    /// The endpoint that named them.
    named_by: Option<EndpointId>,
}

impl Places {
    /// Creates the places of an agent that keeps sessions with at most `max` endpoints, besides those about to end.
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            closed: false,
            places: BTreeMap::new(),
            peers: BTreeSet::new(),
            sidecars: BTreeSet::new(),
            named_by: None,
        }
    }

    /// Keeps only existing sessions from now on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Notes that an endpoint has named all others. One that is no longer named is dialled only for its existing
    /// session, and slowly: it is probably gone, and many agents' attempts would keep out those of others. Once it is
    /// named again, it is dialled at once, as a new one is.
    pub fn told(&mut self, by: &EndpointId, peers: Vec<EndpointId>) {
        self.hurry(peers.iter().cloned().map(Dial::Endpoint));
        self.named_by = Some(by.clone());
        self.peers = peers.into_iter().collect();
    }

    /// Notes that an endpoint has named all sidecars that the agent may dial. A sidecar that is no longer named is
    /// treated like such an endpoint.
    pub fn told_sidecars(&mut self, sidecars: Vec<EndpointId>) {
        self.hurry(sidecars.iter().cloned().map(Dial::Sidecar));
        self.sidecars = sidecars.into_iter().collect();
    }

    /// Ends the pauses of those that were not named before: they were long, as success was unlikely.
    fn hurry(&mut self, named: impl Iterator<Item = Dial>) {
        for dial in named {
            if !self.is_named(&dial)
                && let Some(place) = self.places.get_mut(&dial)
            {
                place.not_before = Duration::ZERO;
            }
        }
    }

    /// Returns the attempts to begin now.
    pub fn due(&mut self, sessions: &Standings, now: Duration) -> Vec<Dial> {
        let wanted = self.wanted(sessions);
        // A place with a session keeps its count of failures.
        self.places.retain(|dial, place| {
            place.dialling || place.not_before > now || sessions.contains_key(dial) || wanted.contains(dial)
        });
        let mut due = Vec::new();
        for dial in wanted {
            let place = self.places.entry(dial.clone()).or_default();
            if !place.dialling && place.not_before <= now {
                place.dialling = true;
                due.push(dial);
            }
        }
        due
    }

    /// When the next attempts are due, if nothing changes before.
    pub fn next(&self, sessions: &Standings) -> Option<Duration> {
        let pauses = self.wanted(sessions).into_iter().filter_map(|dial| {
            let place = self.places.get(&dial);
            place.map_or(Some(Duration::ZERO), |place| (!place.dialling).then_some(place.not_before))
        });
        pauses.min()
    }

    /// Notes that an attempt has failed. Returns the pause before the next one.
    pub fn failed(&mut self, dial: &Dial, now: Duration, chance: f64) -> Duration {
        self.fail(dial, now, chance, |dialler| dialler.pause(None, chance))
    }

    /// Notes that an attempt was turned away: the server closed the connection before its handshake. Returns the pause
    /// before the next one. The server also closes a connection to a sidecar that it cannot reach, so that this is an
    /// ordinary failure.
    pub fn turned_away(&mut self, dial: &Dial, now: Duration, chance: f64) -> Duration {
        if is_sidecar(dial) {
            return self.failed(dial, now, chance);
        }
        self.fail(dial, now, chance, |dialler| dialler.pause_when_turned_away(chance))
    }

    /// Notes that an attempt has failed. `pause` is for an endpoint that exists.
    fn fail(&mut self, dial: &Dial, now: Duration, chance: f64, pause: impl Fn(&mut Dialler) -> Duration) -> Duration {
        let is_gone = !self.is_named(dial);
        let place = self.places.entry(dial.clone()).or_default();
        place.dialling = false;
        place.failed = true;
        let pause = if is_gone { place.dialler.long_pause(chance) } else { pause(&mut place.dialler) };
        place.not_before = now + pause;
        pause
    }

    /// Notes that an attempt has succeeded. `leaves`: the endpoint takes no new streams. Any endpoint is dialled for one
    /// that takes some, so such an attempt has failed, and the next one waits.
    pub fn succeeded(&mut self, dial: &Dial, leaves: bool, now: Duration, chance: f64) {
        if *dial == Dial::Any && leaves {
            self.failed(dial, now, chance);
            return;
        }
        let place = self.places.entry(dial.clone()).or_default();
        place.dialling = false;
        place.failed = false;
    }

    /// Notes that the connection to an endpoint has ended after the time `up`; `dial` reaches the endpoint again.
    /// Returns the pause before the next attempt.
    pub fn ended(&mut self, dial: &Dial, up: Duration, now: Duration, chance: f64) -> Duration {
        let place = self.places.entry(dial.clone()).or_default();
        let pause = place.dialler.pause(Some(up), chance);
        place.not_before = now + pause;
        pause
    }

    /// Whether the endpoint or sidecar was in the list that arrived last. Before the first list, every endpoint counts
    /// as named.
    pub fn is_named(&self, dial: &Dial) -> bool {
        match dial {
            Dial::Any => true,
            Dial::Endpoint(id) => self.named_by.as_ref().is_none_or(|by| by == id) || self.peers.contains(id),
            Dial::Sidecar(id) => self.sidecars.contains(id),
        }
    }

    fn wanted(&self, sessions: &Standings) -> Vec<Dial> {
        let again = sessions.iter().filter(|(_, standing)| standing.wants_carrier());
        let mut wanted: Vec<Dial> = again.map(|(dial, _)| dial.clone()).collect();
        if self.closed {
            return wanted;
        }
        let (sidecars, endpoints): (Vec<_>, Vec<_>) = sessions.iter().partition(|(dial, _)| is_sidecar(dial));
        let room = |max: usize, present: &[(&Dial, &Standing)]| {
            max.saturating_sub(present.iter().filter(|(_, standing)| !standing.leaving).count())
        };
        let is_new = |dial: &Dial| !sessions.contains_key(dial);
        let others = self.peers.iter().cloned().map(Dial::Endpoint).filter(is_new);
        wanted.extend(others.take(room(self.max, &endpoints)));
        // The pod of a sidecar that is no longer named is being deleted. Its sidecar stays silent until its app has
        // ended.
        let staying: Vec<_> = sidecars.into_iter().filter(|(dial, _)| self.is_named(dial)).collect();
        let others = self.sidecars.iter().cloned().map(Dial::Sidecar).filter(is_new);
        wanted.extend(others.take(room(MAX_SIDECARS, &staying)));
        let is_served = endpoints.iter().any(|(_, standing)| standing.serves());
        let failed = |dial: &Dial| is_sidecar(dial) || self.places.get(dial).is_some_and(|place| place.failed);
        if !is_served && wanted.iter().all(failed) {
            wanted.push(Dial::Any);
        }
        wanted
    }
}

fn is_sidecar(dial: &Dial) -> bool {
    matches!(dial, Dial::Sidecar(_))
}

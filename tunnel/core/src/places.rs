//! Which endpoints an agent dials, and when.
//!
//! An agent has a session with each endpoint that it knows of, up to a bound. It dials an endpoint again by its id,
//! and any endpoint while none takes its streams and those that it knows do not answer. Pure: the time since any fixed
//! start, and chance, are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Dialler;
use crate::identity::{Dial, EndpointId};

#[cfg(test)]
mod tests;

/// How the session with an endpoint stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// A connection is there.
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

/// The sessions of an agent, by the endpoint.
pub type Standings = BTreeMap<EndpointId, Standing>;

#[derive(Debug, Default)]
struct Place {
    dialler: Dialler,
    not_before: Duration,
    dialling: bool,
    /// The last attempt failed.
    failed: bool,
}

/// What an agent knows of the endpoints that it may dial. The key of any endpoint is `None`.
#[derive(Debug)]
pub struct Places {
    max: usize,
    closed: bool,
    places: BTreeMap<Option<EndpointId>, Place>,
    /// The endpoints that were named last.
    peers: BTreeSet<EndpointId>,
    /// The endpoint that has named them.
    named_by: Option<EndpointId>,
}

impl Places {
    /// An agent that has sessions with at most so many endpoints, beside those that are about to end.
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), closed: false, places: BTreeMap::new(), peers: BTreeSet::new(), named_by: None }
    }

    /// From now on only the sessions that are there are wanted.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// An endpoint has named all others. One that is named no more is dialled only for the session that is there, and
    /// without haste: most likely it is gone, and the attempts of many agents would keep those of others out.
    pub fn told(&mut self, by: &EndpointId, peers: Vec<EndpointId>) {
        self.named_by = Some(by.clone());
        self.peers = peers.into_iter().collect();
    }

    /// The attempts that begin now.
    pub fn due(&mut self, sessions: &Standings, now: Duration) -> Vec<Dial> {
        let wanted = self.wanted(sessions);
        // A place with a session keeps its count of failures.
        let is_present = |key: &Option<EndpointId>| key.as_ref().is_some_and(|id| sessions.contains_key(id));
        self.places
            .retain(|key, place| place.dialling || place.not_before > now || is_present(key) || wanted.contains(key));
        let mut due = Vec::new();
        for key in wanted {
            let place = self.places.entry(key.clone()).or_default();
            if !place.dialling && place.not_before <= now {
                place.dialling = true;
                due.push(key.map_or(Dial::Any, Dial::Endpoint));
            }
        }
        due
    }

    /// When more attempts are due, if nothing changes before.
    pub fn next(&self, sessions: &Standings) -> Option<Duration> {
        let pauses = self.wanted(sessions).into_iter().filter_map(|key| {
            let place = self.places.get(&key);
            place.map_or(Some(Duration::ZERO), |place| (!place.dialling).then_some(place.not_before))
        });
        pauses.min()
    }

    /// An attempt has failed. Returns the pause before the next one.
    pub fn failed(&mut self, dial: &Dial, now: Duration, chance: f64) -> Duration {
        let is_gone = matches!(dial, Dial::Endpoint(id) if !self.is_named(id));
        let place = self.places.entry(key(dial)).or_default();
        place.dialling = false;
        place.failed = true;
        let pause = if is_gone { place.dialler.long_pause(chance) } else { place.dialler.pause(None, chance) };
        place.not_before = now + pause;
        pause
    }

    /// An attempt has succeeded.
    pub fn succeeded(&mut self, dial: &Dial) {
        let place = self.places.entry(key(dial)).or_default();
        place.dialling = false;
        place.failed = false;
    }

    /// The connection to an endpoint has ended after it was `up`. Returns the pause before the next attempt.
    pub fn ended(&mut self, endpoint: &EndpointId, up: Duration, now: Duration, chance: f64) -> Duration {
        let place = self.places.entry(Some(endpoint.clone())).or_default();
        let pause = place.dialler.pause(Some(up), chance);
        place.not_before = now + pause;
        pause
    }

    /// Whether the endpoint is one of the server, by the word that came last. Before there is one, each is.
    fn is_named(&self, id: &EndpointId) -> bool {
        self.named_by.as_ref().is_none_or(|by| by == id) || self.peers.contains(id)
    }

    fn wanted(&self, sessions: &Standings) -> Vec<Option<EndpointId>> {
        let again = sessions.iter().filter(|(_, standing)| standing.wants_carrier()).map(|(id, _)| id);
        let mut wanted: Vec<Option<EndpointId>> = again.cloned().map(Some).collect();
        if self.closed {
            return wanted;
        }
        let present = sessions.values().filter(|standing| !standing.leaving).count();
        let others = self.peers.iter().filter(|id| !sessions.contains_key(*id));
        wanted.extend(others.take(self.max.saturating_sub(present)).cloned().map(Some));
        let failed = |key: &Option<EndpointId>| self.places.get(key).is_some_and(|place| place.failed);
        if !sessions.values().any(|standing| standing.serves()) && wanted.iter().all(failed) {
            wanted.push(None);
        }
        wanted
    }
}

fn key(dial: &Dial) -> Option<EndpointId> {
    match dial {
        Dial::Any => None,
        Dial::Endpoint(id) => Some(id.clone()),
    }
}

//! The sessions of all forwards of a namespace or of the cluster from one response, and the requests to send if there
//! is none.

use std::collections::{BTreeMap, HashMap};

use operator_core::ObjectKey;

use super::{Of, OfForward, Reading, Request, Session, SessionList};
use crate::access::{Fetched, Place, Unknown};

/// The next step after a request for all forwards of a namespace or of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The forwards have been read.
    Read(Vec<Reading>),
    /// The user may not see the sessions of all namespaces: each namespace is requested.
    Namespaces(Vec<(Place, Vec<ObjectKey>)>),
    /// The operator is older, or the user may only see the sessions of certain forwards: each forward is requested.
    Each(Vec<ObjectKey>),
}

/// Decides the next step after the answer about these forwards.
pub fn next(place: &Place, forwards: Vec<ObjectKey>, answer: Fetched<SessionList>) -> Next {
    match answer {
        Ok(list) => Next::Read(by_forward(forwards, list)),
        Err(Unknown::Forbidden { .. }) if *place == Place::Everywhere => Next::Namespaces(by_namespace(forwards)),
        Err(Unknown::Forbidden { .. } | Unknown::Older) => Next::Each(forwards),
        Err(why) => Next::Read(forwards.into_iter().map(|forward| (Of::Forward(forward), Err(why.clone()))).collect()),
    }
}

/// The forwards of each namespace.
pub fn by_namespace(forwards: Vec<ObjectKey>) -> Vec<(Place, Vec<ObjectKey>)> {
    let mut namespaces: BTreeMap<String, Vec<ObjectKey>> = BTreeMap::new();
    for forward in forwards {
        namespaces.entry(forward.namespace.clone()).or_default().push(forward);
    }
    namespaces.into_iter().map(|(name, of)| (Place::Namespace(name), of)).collect()
}

/// Returns the list of each forward. Figures of all forwards together (rates of pods, silent proxies) are in the first
/// list.
fn by_forward(forwards: Vec<ObjectKey>, list: SessionList) -> Vec<Reading> {
    let mut items: HashMap<String, Vec<Session>> = HashMap::new();
    for session in list.items {
        if let Some((forward, _)) = session.listener.rsplit_once('/') {
            items.entry(forward.to_owned()).or_default().push(session);
        }
    }
    let known: HashMap<&str, &OfForward> = list.forwards.iter().map(|of| (of.forward.as_str(), of)).collect();
    let read = |forward: ObjectKey| {
        let name = forward.to_string();
        let of = Of::Forward(forward);
        let Some(known) = known.get(name.as_str()) else {
            let why = match list.omitted_forwards {
                // The API server has listed the forward: the operator will see it later, or it was deleted since.
                0 => format!("the operator does not know {}", of.name()),
                _ => format!("the operator counts the sessions of {} forwards only", list.forwards.len()),
            };
            let unknown = Request::sessions(&of, 0).failed(&why);
            return (of, Err(unknown));
        };
        let sessions = SessionList {
            total: known.total,
            items: items.remove(&name).unwrap_or_default(),
            new_per_second: known.new_per_second,
            bytes_per_second: known.bytes_per_second,
            ..SessionList::default()
        };
        (of, Ok(sessions))
    };
    let mut readings: Vec<Reading> = forwards.into_iter().map(read).collect();
    if let Some(first) = readings.iter_mut().find_map(|(_, read)| read.as_mut().ok()) {
        first.unanswered = list.unanswered;
        first.rates = list.rates;
        first.uncounted = list.uncounted;
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{RatesOfPod, notes};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn session(listener: &str) -> Session {
        Session { listener: listener.to_owned(), ..Session::default() }
    }

    fn of(forward: &str, total: u64) -> OfForward {
        OfForward { forward: forward.to_owned(), total, new_per_second: Some(7), bytes_per_second: Some(8) }
    }

    /// What follows from this answer about `shop/db` and `shop/web`.
    fn follows(place: &Place, answer: Fetched<SessionList>) -> Next {
        next(place, vec![key("db"), key("web")], answer)
    }

    #[test]
    fn each_forward_has_its_sessions_and_its_numbers_and_the_place_has_its_pods_once() {
        let items = ["shop/web/http", "shop/db/pg", "shop/db/pg", "other/db/pg"].map(session).to_vec();
        let rates = vec![RatesOfPod { pod: "shop/p1".to_owned(), new_per_second: 9, bytes_per_second: 9 }];
        let forwards = vec![of("shop/db", 2), of("shop/web", 1), of("other/db", 1)];
        let unanswered = vec!["shop/p2".to_owned()];
        let list = SessionList { total: 4, items, rates, forwards, unanswered, ..SessionList::default() };
        let Next::Read(readings) = follows(&Place::Everywhere, Ok(list)) else { panic!("the forwards are read") };
        let [(_, Ok(db)), (_, Ok(web))] = readings.as_slice() else { panic!("{readings:?}") };
        assert_eq!((db.total, db.items.len(), db.new_per_second, db.rates.len()), (2, 2, Some(7), 1));
        assert_eq!((web.total, web.items.len(), web.bytes_per_second, web.rates.len()), (1, 1, Some(8), 0));
        assert_eq!(notes(&readings), ["the proxy of pod shop/p2 has not answered"]);
    }

    #[test]
    fn a_forward_that_the_operator_does_not_know_and_one_that_it_does_not_count_are_told_apart() {
        let list = |omitted_forwards| SessionList {
            total: 3,
            forwards: vec![of("shop/db", 2)],
            omitted_forwards,
            uncounted: 1,
            ..SessionList::default()
        };
        for (omitted, expected) in
            [(0, "the operator does not know PortForward shop/web"), (9, "counts the sessions of 1 forwards only")]
        {
            let answer = follows(&Place::Namespace("shop".to_owned()), Ok(list(omitted)));
            let Next::Read(readings) = answer else { panic!("the forwards are read") };
            let notes = notes(&readings);
            assert!(notes.iter().any(|note| note.contains(expected)), "{notes:?}");
            assert!(notes.iter().any(|note| note.contains("1 session not attributed to any forward")), "{notes:?}");
        }
    }

    #[test]
    fn a_right_that_is_missing_everywhere_may_be_there_in_a_namespace_or_on_a_forward() {
        let shop = || Place::Namespace("shop".to_owned());
        let refused = |place: &Place| Err(Request::all(place, 5).refused(403, "Forbidden", "no"));
        let both = vec![key("db"), key("web")];
        let namespaces = follows(&Place::Everywhere, refused(&Place::Everywhere));
        assert_eq!(namespaces, Next::Namespaces(vec![(shop(), both.clone())]));
        assert_eq!(follows(&shop(), refused(&shop())), Next::Each(both));
    }

    #[test]
    fn an_older_operator_is_asked_about_each_forward_and_one_that_does_not_lead_about_none() {
        for place in [Place::Everywhere, Place::Namespace("shop".to_owned())] {
            let request = Request::all(&place, 5);
            let older = request.refused(404, "NotFound", "PortForward shop/* does not exist");
            assert_eq!(follows(&place, Err(older)), Next::Each(vec![key("db"), key("web")]));
            let no_leader = request.refused(503, "ServiceUnavailable", "no leader");
            let Next::Read(readings) = follows(&place, Err(no_leader.clone())) else { panic!("there is no other way") };
            assert!(readings.len() == 2 && readings.iter().all(|(_, read)| *read == Err(no_leader.clone())));
        }
    }
}

//! Finds the session that belongs to the connection that `trace` opens: in the pod of a sidecar, other clients come
//! from loopback too.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use crds::PortForward;
use operator_core::ObjectKey;

use crate::{
    live::{Session, SessionList},
    logs::Record,
    placement::{gateway, key},
};

/// The result of a search for one session.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<T> {
    /// No session matches.
    Nothing,
    /// The session, or one of several that ended in the same way, so that their difference does not matter.
    One(T),
    /// This many sessions match or may match, and lead to different conclusions.
    Several(u64),
}

/// The known facts about the connection.
#[derive(Clone, Debug)]
pub struct Own {
    forward: ObjectKey,
    listener: String,
    pod: ObjectKey,
    /// Bytes that this program sends.
    sent: u64,
    /// Whether other clients connect from inside the pod too.
    is_shared: bool,
    /// Names of sessions that are older than the connection.
    before: BTreeSet<String>,
}

impl Own {
    /// A connection to a listener of a forward in the proxy of a pod, over which `sent` bytes are sent.
    pub fn new(forward: &PortForward, listener: &str, pod: ObjectKey, sent: u64) -> Self {
        // Only the proxy runs in the pod of a gateway.
        let is_shared = gateway(forward).is_none();
        Self { forward: key(forward), listener: listener.to_owned(), pod, sent, is_shared, before: BTreeSet::new() }
    }

    /// Excludes the sessions of this list, which is older than the connection.
    pub fn exclude_sessions(&mut self, list: &SessionList) {
        self.before.extend(list.items.iter().map(name_of_session));
    }

    /// Excludes these records, which are older than the connection.
    pub fn exclude_records(&mut self, records: &[Record]) {
        self.before.extend(records.iter().map(name_of_record));
    }

    /// Finds the session of the connection among live ones. Its age in seconds is one of `ages`.
    pub fn session(&self, list: &SessionList, ages: &RangeInclusive<u64>) -> Found<Box<Session>> {
        let (pod, id) = (self.pod.to_string(), format!("{}/{}", self.forward, self.listener));
        let is_own = |it: &&Session| {
            it.pod == pod
                && it.listener == id
                && it.is_from_inside()
                && ages.contains(&it.seconds)
                && self.has_sent(it.bytes_up)
                && !self.before.contains(&name_of_session(it))
        };
        let found: Vec<&Session> = list.items.iter().filter(is_own).collect();
        // One of the sessions that are not listed may be the connection's.
        let unlisted = if self.is_shared { list.total.saturating_sub(count(list.items.len())) } else { 0 };
        if !found.is_empty() && unlisted > 0 {
            return Found::Several(count(found.len()).saturating_add(unlisted));
        }
        let goal = |it: &Session| (it.backend.clone(), it.destination().map(str::to_owned));
        only(found, |a, b| goal(a) == goal(b)).map(|it| Box::new(it.clone()))
    }

    /// Finds the last record about the connection. Its session is no older than `longest`.
    pub fn record(&self, records: Vec<Record>, longest: Duration) -> Found<Record> {
        let is_own = |it: &Record| {
            it.is_from_inside(&self.listener)
                && !it.field("reason").is_empty()
                && it.seconds().is_none_or(|seconds| seconds <= longest.as_secs_f64())
                && it.bytes_up().is_none_or(|bytes| self.has_sent(bytes))
                && !self.before.contains(&name_of_record(it))
        };
        let found = records.into_iter().filter(is_own).collect();
        only(found, |a, b| ["reason", "endpoint", "cause"].iter().all(|field| a.field(field) == b.field(field)))
    }

    /// Whether a session of the connection may have this many bytes from its client. The proxy counts them late.
    fn has_sent(&self, bytes: u64) -> bool {
        bytes == 0 || bytes == self.sent
    }
}

impl<T> Found<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Nothing => Found::Nothing,
            Self::One(found) => Found::One(change(found)),
            Self::Several(number) => Found::Several(number),
        }
    }
}

/// Returns the first of these, if the others lead to the same conclusion.
fn only<T>(found: Vec<T>, is_same: impl Fn(&T, &T) -> bool) -> Found<T> {
    let number = count(found.len());
    let mut rest = found.into_iter();
    let Some(first) = rest.next() else { return Found::Nothing };
    if rest.all(|other| is_same(&first, &other)) { Found::One(first) } else { Found::Several(number) }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The id of a session; for an older proxy, the address of its client.
fn name_of_session(session: &Session) -> String {
    session.session.clone().unwrap_or_else(|| session.client.clone())
}

fn name_of_record(record: &Record) -> String {
    match record.field("session") {
        "" => record.field("client").to_owned(),
        id => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::forward;

    fn own_in(placement: &str) -> Own {
        Own::new(&forward(placement), "pg", ObjectKey::new("shop", "app-1"), 0)
    }

    fn own() -> Own {
        own_in("{sidecar: {selector: {}}}")
    }

    fn session(id: &str, seconds: u64, endpoint: Option<&str>) -> Session {
        Session {
            session: Some(id.to_owned()),
            pod: "shop/app-1".to_owned(),
            listener: "shop/db/pg".to_owned(),
            client: "127.0.0.1:5000".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            seconds,
            ..Session::default()
        }
    }

    fn list(items: &[Session]) -> SessionList {
        SessionList { total: count(items.len()), items: items.to_vec(), ..SessionList::default() }
    }

    fn record(id: &str, reason: &str, more: &str) -> Record {
        let line = format!(
            r#"{{"event":"session_closed","session":"{id}","namespace":"shop","forward":"db","listener":"pg",
                "client":"127.0.0.1:5000","reason":"{reason}"{more}}}"#
        );
        Record::parse("app-1", &line, &ObjectKey::new("shop", "db")).expect("a record")
    }

    fn ids(found: Found<Box<Session>>) -> Result<String, u64> {
        match found {
            Found::Nothing => Err(0),
            Found::One(session) => Ok(session.session.unwrap_or_default()),
            Found::Several(number) => Err(number),
        }
    }

    #[test]
    fn a_session_that_was_there_before_or_is_too_young_is_a_strangers() {
        let (old, own_one) = (session("old", 3, Some("10.1.0.9:5432")), session("own", 3, None));
        // The app connects again each second while the connection hangs.
        let young = session("young", 0, Some("10.1.0.9:5432"));
        let mut own = own();
        own.exclude_sessions(&list(std::slice::from_ref(&old)));
        assert_eq!(ids(own.session(&list(&[young.clone(), old.clone(), own_one]), &(2..=4))), Ok("own".to_owned()));
        assert_eq!(ids(own.session(&list(&[young, old]), &(2..=4))), Err(0));
    }

    #[test]
    fn a_session_of_another_place_or_with_other_bytes_is_a_strangers() {
        let own_one = session("own", 3, None);
        for stranger in [
            Session { pod: "shop/app-2".to_owned(), ..own_one.clone() },
            Session { listener: "shop/db/web".to_owned(), ..own_one.clone() },
            Session { client: "10.0.0.7:5000".to_owned(), ..own_one.clone() },
            Session { bytes_up: 9, ..own_one.clone() },
            Session { seconds: 60, ..own_one.clone() },
        ] {
            assert_eq!(ids(own().session(&list(std::slice::from_ref(&stranger)), &(2..=4))), Err(0), "{stranger:?}");
        }
        assert_eq!(ids(own().session(&list(&[own_one]), &(2..=4))), Ok("own".to_owned()));
    }

    #[test]
    fn sessions_that_cannot_be_told_apart_are_judged_only_if_they_agree() {
        let (hanging, reached) = (session("a", 3, None), session("b", 3, Some("10.1.0.9:5432")));
        let same = session("c", 3, None);
        assert_eq!(ids(own().session(&list(&[hanging.clone(), same]), &(2..=4))), Ok("a".to_owned()));
        assert_eq!(ids(own().session(&list(&[hanging.clone(), reached]), &(2..=4))), Err(2));
        // The API listed one of six.
        let cut = SessionList { total: 6, ..list(&[hanging]) };
        assert_eq!(ids(own().session(&cut, &(2..=4))), Err(6));
        assert_eq!(ids(own_in("{gateway: {name: edge}}").session(&cut, &(2..=4))), Ok("a".to_owned()));
    }

    #[test]
    fn a_record_of_another_session_explains_nothing() {
        let second = Duration::from_secs(1);
        let old = record("old", "ConnectionLimit", "");
        let mut own = own();
        own.exclude_records(std::slice::from_ref(&old));
        let long = record("long", "Finished", r#","durationSeconds":9.5,"bytesUp":0"#);
        let busy = record("busy", "Finished", r#","durationSeconds":0.1,"bytesUp":7"#);
        let opened = record("opened", "", "");
        let strangers = vec![old, long, busy, opened];
        assert_eq!(own.record(strangers.clone(), second), Found::Nothing);

        let refused = record("own", "NoBackend", r#","durationSeconds":0.1,"bytesUp":0"#);
        let all = [strangers, vec![refused.clone()]].concat();
        assert_eq!(own.record(all, second), Found::One(refused.clone()));
        let same = record("other", "NoBackend", "");
        assert_eq!(own.record(vec![refused.clone(), same], second), Found::One(refused.clone()));
        let differs = record("other", "Finished", "");
        assert_eq!(own.record(vec![refused, differs], second), Found::Several(2));
    }
}

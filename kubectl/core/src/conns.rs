//! `kubectl portlane conns`: live sessions, filtered and sorted.

use std::{cmp::Ordering, net::SocketAddr, str::FromStr};

use ipnet::IpNet;
use serde::Serialize;

use crate::live::{Reading, Session, SessionId, notes};

/// The order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Sessions with the most bytes in both directions first.
    Bytes,
    /// The oldest sessions first.
    Age,
    /// The lowest client addresses first.
    Client,
    /// By name of the listener.
    Forward,
    /// By name of the pod.
    Pod,
    /// The lowest endpoint addresses first, after the instances of agents.
    Endpoint,
}

impl Sort {
    fn order(self, a: &Session, b: &Session) -> Ordering {
        let order = match self {
            Self::Bytes => b.bytes().cmp(&a.bytes()),
            Self::Age => b.seconds.cmp(&a.seconds),
            Self::Client => address(&a.client).cmp(&address(&b.client)),
            Self::Forward => a.listener.cmp(&b.listener),
            Self::Pod => a.pod.cmp(&b.pod),
            Self::Endpoint => destination(a).cmp(&destination(b)),
        };
        let rest = |session: &Session| (session.listener.clone(), session.pod.clone(), session.client.clone());
        order.then_with(|| rest(a).cmp(&rest(b)))
    }
}

/// The destination of a session: an address compared as a number, and an instance of an agent by name.
fn destination(session: &Session) -> Option<(Option<SocketAddr>, &str)> {
    session.destination().map(|text| (address(text), text))
}

/// An address as a number, so that 10.0.0.9 is before 10.0.0.10.
fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// A network of clients. A single address is a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients(IpNet);

/// The error that a text is neither a network nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a network or an address: 10.0.0.0/8, 2001:db8::/32 or 10.0.0.7")]
pub struct ClientsError;

impl FromStr for Clients {
    type Err = ClientsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>().ok();
        network.or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into())).map(Self).ok_or(ClientsError)
    }
}

impl Clients {
    /// Whether a client with this address and port is in the network.
    pub(crate) fn has(self, client: &str) -> bool {
        address(client).is_some_and(|client| self.0.contains(&client.ip().to_canonical()))
    }
}

/// The selection of sessions to show.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The order of the sessions.
    pub sort: Sort,
    /// Only sessions of these clients.
    pub client: Option<Clients>,
    /// Only the session with this id.
    pub session: Option<SessionId>,
    /// Most sessions to show.
    pub limit: usize,
}

/// Live sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Number of live sessions of the requested object.
    pub total: u64,
    /// Number of read sessions that match the filter. Absent without a filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matching: Option<usize>,
    /// Whether more sessions were read, and match, than are shown.
    pub is_cut: bool,
    /// The sessions to show.
    pub sessions: Vec<Session>,
    /// Notes about sessions that could not be read, or not completely.
    pub notes: Vec<String>,
}

impl Query {
    fn matches(&self, session: &Session) -> bool {
        let id = || session.session.as_deref().and_then(|id| id.parse::<SessionId>().ok());
        self.client.is_none_or(|client| client.has(&session.client))
            && self.session.is_none_or(|wanted| id() == Some(wanted))
    }
}

/// Makes the report on the sessions that were read. `more` are further notes.
pub fn report(reading: &[Reading], query: Query, more: Option<String>) -> Report {
    let lists = || reading.iter().filter_map(|(_, read)| read.as_ref().ok());
    let all = lists().flat_map(|list| &list.items);
    let mut sessions: Vec<Session> = all.filter(|session| query.matches(session)).cloned().collect();
    sessions.sort_by(|a, b| query.sort.order(a, b));
    let is_filtered = query.client.is_some() || query.session.is_some();
    let matching = is_filtered.then_some(sessions.len());
    let is_cut = sessions.len() > query.limit;
    sessions.truncate(query.limit);
    let notes = notes(reading).into_iter().chain(more).collect();
    Report { total: lists().fold(0, |sum, list| sum.saturating_add(list.total)), matching, is_cut, sessions, notes }
}

#[cfg(test)]
mod tests {
    use operator_core::ObjectKey;

    use super::*;
    use crate::live::{Of, SessionList};

    fn session(client: &str, bytes_up: u64, seconds: u64) -> Session {
        let session = Some(SessionId(bytes_up).to_string());
        Session { session, client: client.to_owned(), bytes_up, seconds, ..Session::default() }
    }

    fn shown(query: Query) -> (u64, Option<usize>, Vec<String>) {
        let items = vec![
            session("10.0.0.10:1", 5, 3),
            session("10.0.0.9:1", 7, 1),
            session("[::ffff:10.1.0.1]:1", 6, 2),
            session("nonsense", 0, 0),
        ];
        let list = SessionList { total: 4, items, ..SessionList::default() };
        let of = Of::Forward(ObjectKey::new("shop", "db"));
        let report = report(&[(of, Ok(list))], query, None);
        assert_eq!(report.notes, Vec::<String>::new());
        (report.total, report.matching, report.sessions.into_iter().map(|session| session.client).collect())
    }

    #[test]
    fn sessions_are_in_the_requested_order() {
        let first = |sort| shown(Query { sort, client: None, session: None, limit: 1 }).2.join("");
        assert_eq!(first(Sort::Bytes), "10.0.0.9:1");
        assert_eq!(first(Sort::Age), "10.0.0.10:1");
        let clients = shown(Query { sort: Sort::Client, client: None, session: None, limit: 9 }).2;
        assert_eq!(clients, ["nonsense", "10.0.0.9:1", "10.0.0.10:1", "[::ffff:10.1.0.1]:1"], "by number, not by text");
    }

    #[test]
    fn sessions_without_an_endpoint_come_first_then_those_behind_agents_and_addresses_by_number() {
        let to = |endpoint: &str| Session { endpoint: Some(endpoint.to_owned()), ..Session::default() };
        let by = |instance: &str| Session { instance: Some(instance.to_owned()), ..Session::default() };
        let mut all = [to("10.0.0.10:1"), by("pi4"), to("10.0.0.9:1"), by("nas"), Session::default()];
        all.sort_by(|a, b| Sort::Endpoint.order(a, b));
        let shown = all.each_ref().map(|session| session.destination().unwrap_or_default());
        assert_eq!(shown, ["", "nas", "pi4", "10.0.0.9:1", "10.0.0.10:1"]);
    }

    #[test]
    fn a_filter_counts_what_it_matches_and_the_limit_does_not_change_the_count() {
        let client = |text: &str| Some(text.parse().expect("a network"));
        let query = |text, limit| Query { sort: Sort::Client, client: client(text), session: None, limit };
        assert_eq!(shown(query("10.0.0.0/24", 1)), (4, Some(2), vec!["10.0.0.9:1".to_owned()]));
        assert_eq!(shown(query("10.1.0.1", 9)).1, Some(1), "an IPv4 address in IPv6 counts as IPv4");
        for bad in ["", "10.0.0.0/33", "shop", "10.0.0.1:80"] {
            assert_eq!(bad.parse::<Clients>(), Err(ClientsError), "{bad}");
        }
    }

    #[test]
    fn a_session_is_found_by_its_id_among_those_of_an_operator_that_lists_all() {
        let query = |id| Query { sort: Sort::Bytes, client: None, session: Some(SessionId(id)), limit: 9 };
        assert_eq!(shown(query(6)), (4, Some(1), vec!["[::ffff:10.1.0.1]:1".to_owned()]));
        assert_eq!(shown(query(8)), (4, Some(0), Vec::new()));
    }

    #[test]
    fn a_list_is_cut_if_it_has_more_sessions_than_may_be_shown() {
        let items = vec![session("10.0.0.1:1", 1, 1), session("10.0.0.2:1", 1, 1)];
        let list = SessionList { total: 2, items, ..SessionList::default() };
        let reading = [(Of::Forward(ObjectKey::new("shop", "db")), Ok(list))];
        let is_cut =
            |limit| report(&reading, Query { sort: Sort::Bytes, client: None, session: None, limit }, None).is_cut;
        assert_eq!([1, 2, 3].map(is_cut), [true, false, false]);
    }
}

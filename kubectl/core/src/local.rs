//! A process on this machine, `portlane run` or `portlane-proxy`: makes the reports of `status`, `conns`, `top` and
//! `config` from the answers of its admin address.

mod row;

use std::collections::{BTreeMap, BTreeSet};

use operator_core::ObjectKey;
use proxy_api::{Configuration, ListenerId, ListenerState, Offer, Origin, OriginKind};

use crate::{
    check::Check,
    config::{self, ProxyConfig},
    live::{Of, Reading, Session, SessionList},
    nearest::nearest,
    rows::ForwardRow,
    status,
};

/// The answers of the admin address of a process. A document that was not requested is empty.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The admin address.
    pub address: String,
    /// `/config`: the configuration that the process should run.
    pub configuration: Configuration,
    /// `/listeners`: the state of its listeners.
    pub report: proxy_api::Report,
    /// `/conns`: live sessions.
    pub sessions: Vec<Session>,
}

/// The selection of forwards to show.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only forwards of this namespace.
    pub namespace: Option<String>,
    /// Only forwards of this name.
    pub name: Option<String>,
}

impl Scope {
    fn has(&self, forward: &ObjectKey) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == forward.namespace)
            && self.name.as_ref().is_none_or(|name| *name == forward.name)
    }

    /// Whether a listener with this id belongs to a forward in the scope.
    pub fn has_listener(&self, id: &str) -> bool {
        id.parse::<ListenerId>().is_ok_and(|id| self.has(&key(&id.origin)))
    }
}

/// Namespace and name of a forward. The name of an object of another kind begins with the kind.
fn key(origin: &Origin) -> ObjectKey {
    match &origin.kind {
        OriginKind::PortForward => ObjectKey::from(origin),
        OriginKind::Other(_) => ObjectKey::new(&*origin.namespace, format!("{}/{}", origin.kind, origin.name)),
    }
}

impl Process {
    /// The listeners of each forward, including listeners that only finish their sessions.
    fn listeners(&self) -> BTreeMap<ObjectKey, BTreeSet<&ListenerId>> {
        let mut listeners: BTreeMap<ObjectKey, BTreeSet<&ListenerId>> = BTreeMap::new();
        for id in self.configuration.listeners.keys().chain(self.report.listeners.keys()) {
            listeners.entry(key(&id.origin)).or_default().insert(id);
        }
        listeners
    }

    /// Why the forwards that the user has named are missing; `None` if they are not.
    pub fn missing(&self, scope: &Scope) -> Option<String> {
        let forwards = self.listeners();
        if forwards.keys().any(|forward| scope.has(forward)) {
            return None;
        }
        let keys = forwards.keys();
        let (what, word, guess) = match (&scope.name, &scope.namespace) {
            (Some(name), namespace) => {
                let is_there = |forward: &&ObjectKey| namespace.as_ref().is_none_or(|it| *it == forward.namespace);
                let names = keys.filter(is_there).map(|forward| forward.name.as_str());
                let place = namespace.as_ref().map(|namespace| format!(" of namespace {namespace}"));
                ("forward", format!("{name}{}", place.unwrap_or_default()), nearest(name, names))
            }
            (None, Some(namespace)) => {
                let names = keys.map(|forward| forward.namespace.as_str());
                ("forward of namespace", namespace.clone(), nearest(namespace, names))
            }
            (None, None) => return None,
        };
        let guess = guess.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        Some(format!("the process at {} runs no {what} {word}{guess}", self.address))
    }

    /// Live sessions by forward.
    pub fn sessions(&self, scope: &Scope) -> Vec<Reading> {
        let mut lists: BTreeMap<ObjectKey, SessionList> = BTreeMap::new();
        for session in &self.sessions {
            let Ok(id) = session.listener.parse::<ListenerId>() else { continue };
            let forward = key(&id.origin);
            if scope.has(&forward) {
                let list = lists.entry(forward).or_default();
                list.total += 1;
                list.items.push(session.clone());
            }
        }
        lists.into_iter().map(|(forward, list)| (Of::Forward(forward), Ok(list))).collect()
    }

    /// The forwards by namespace and name.
    pub fn forwards(&self, scope: &Scope) -> Vec<ForwardRow> {
        let sessions: BTreeMap<String, u64> = self
            .sessions(scope)
            .into_iter()
            .filter_map(|(of, list)| match (of, list) {
                (Of::Forward(forward), Ok(list)) => Some((forward.to_string(), list.total)),
                _ => None,
            })
            .collect();
        let shown = self.listeners().into_iter().filter(|(forward, _)| scope.has(forward));
        let row = |(forward, ids): (ObjectKey, BTreeSet<&ListenerId>)| {
            let live = sessions.get(&forward.to_string()).copied().unwrap_or_default();
            row::of(self, forward, &ids, live)
        };
        shown.map(row).collect()
    }

    /// The state of the process, for a program of this version. `more` are further notes.
    pub fn status(&self, program: &str, scope: &Scope, more: Option<String>) -> status::Report {
        let mut checks = vec![Check::ok("process", format!("answers at {}", self.address)), self.config().proxy];
        let forwards = self.forwards(scope);
        if forwards.is_empty() {
            checks.push(Check::warning("forwards", "the process runs none"));
        }
        let notes = more.into_iter().collect();
        let (program, gateways, agents) = (program.to_owned(), Vec::new(), Vec::new());
        status::Report { program, checks, gateways, agents, forwards, notes }
    }

    /// The configuration of the process, and how its state differs from it.
    pub fn config(&self) -> config::Report {
        let listeners: Vec<config::Listener> =
            self.configuration.listeners.iter().map(|(id, offer)| self.listener(id, offer)).collect();
        let (wanted, applied) = (&self.configuration.version, self.report.version.number);
        let endpoints = self.configuration.endpoints.iter();
        let config = ProxyConfig {
            connected: None,
            version: config::Version { epoch: wanted.epoch.clone(), number: wanted.number },
            applied: Some(applied),
            in_force: applied >= wanted.number && listeners.iter().all(|listener| listener.state == "Bound"),
            listeners,
            endpoints: endpoints
                .map(|(name, set)| (name.clone(), serde_json::to_value(set).unwrap_or_default()))
                .collect(),
        };
        // The process is not a pod: its address stands for one.
        config::Report { pod: self.address.clone(), ..config::report(&ObjectKey::default(), config) }
    }

    fn listener(&self, id: &ListenerId, offer: &Offer) -> config::Listener {
        let report = self.report.listeners.get(id).filter(|report| report.revision == *offer.revision());
        let state = match report.map(|report| report.state) {
            Some(ListenerState::Bound) => "Bound",
            Some(ListenerState::Failed) => "Failed",
            _ => "Pending",
        };
        let failure = report.and_then(|report| report.failure.as_ref());
        config::Listener {
            id: id.to_string(),
            revision: offer.revision().to_string(),
            state: state.to_owned(),
            failure: failure.map(|failure| config::Failure {
                reason: format!("{:?}", failure.reason),
                message: failure.message.clone(),
            }),
            serving: failure.and_then(|failure| failure.serving.as_ref()).map(ToString::to_string),
            delivery: report.and_then(|report| report.delivery).map(|delivery| format!("{delivery:?}")),
            spec: serde_json::to_value(offer).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{check::Outcome, conns, status::Verdict};

    /// A process with two forwards, as its documents are read: one runs, of the other a port is taken.
    fn process() -> Process {
        let listener = |port: u16| {
            json!({
                "revision": "r1", "socket": {"transport": "TCP", "bind": "Loopback", "port": port},
                "backends": [{"id": "addr/db:5432", "weight": 1, "target": {"address": {"host": "db", "port": 5432}}}],
                // A field of a newer release: what is known of the listener is shown all the same.
                "newer": true,
            })
        };
        let listeners = json!({"shop/db/pg": listener(15432), "shop/web/tcp": listener(8080)});
        let failure = json!({"reason": "AddressInUse", "message": "port 8080 is taken"});
        let report = json!({
            "contract": 1, "epoch": "laptop", "number": 3,
            "listeners": {
                "shop/db/pg": {"revision": "r1", "state": "Bound"},
                "shop/web/tcp": {"revision": "r1", "state": "Failed", "failure": failure},
            },
        });
        let session = |client: &str, listener: &str| {
            let session = json!({"listener": listener, "client": client, "bytesUp": 5, "seconds": 1});
            serde_json::from_value(session).expect("a session")
        };
        Process {
            address: "127.0.0.1:9181".to_owned(),
            configuration: serde_json::from_value(json!({"epoch": "laptop", "number": 3, "listeners": listeners}))
                .expect("a configuration"),
            report: serde_json::from_value(report).expect("a report"),
            sessions: vec![session("127.0.0.1:1", "shop/db/pg"), session("127.0.0.1:2", "shop/db/pg")],
        }
    }

    fn named(namespace: Option<&str>, name: Option<&str>) -> Scope {
        Scope { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) }
    }

    #[test]
    fn a_port_that_is_taken_fails_the_forward_and_sessions_are_counted() {
        let report = process().status("1", &Scope::default(), None);
        assert_eq!(report.verdict(), Verdict::Failed);
        let rows: Vec<(&str, Outcome, &str, Option<u64>)> = report
            .forwards
            .iter()
            .map(|row| (row.name.as_str(), row.outcome, row.reason.as_str(), row.sessions))
            .collect();
        let expected = [("db", Outcome::Ok, "Bound", Some(2)), ("web", Outcome::Failed, "AddressInUse", Some(0))];
        assert_eq!(rows, expected);
        assert_eq!(report.forwards[1].message, "listener tcp: port 8080 is taken");
        let db = process().status("1", &named(None, Some("db")), Some("a note".to_owned()));
        assert_eq!((db.forwards.len(), db.verdict()), (1, Verdict::Incomplete));
    }

    #[test]
    fn the_configuration_has_the_difference_and_the_address_of_the_process() {
        let report = process().config();
        assert_eq!((report.pod.as_str(), report.proxy.outcome), ("127.0.0.1:9181", Outcome::Warning));
        let outcomes: Vec<Outcome> = report.listeners.iter().map(|check| check.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Failed]);
        assert!(report.listeners[0].detail.starts_with("127.0.0.1:15432/TCP -> addr/db:5432"), "{report:?}");
        let mut behind = process();
        behind.configuration.version.number = 4;
        assert_eq!(behind.config().proxy.detail, "has applied version 3, and should run version 4");
    }

    #[test]
    fn sessions_are_those_of_the_forwards_in_scope() {
        let query = conns::Query { sort: conns::Sort::Client, client: None, session: None, limit: 1 };
        let listed = |scope: &Scope| conns::report(&process().sessions(scope), query, None);
        let all = listed(&Scope::default());
        assert_eq!((all.total, all.is_cut, all.sessions.len()), (2, true, 1));
        assert_eq!(all.notes, Vec::<String>::new());
        assert_eq!(listed(&named(Some("shop"), Some("web"))).total, 0);
        assert_eq!(listed(&named(Some("other"), None)).total, 0);
        let has = |scope: &Scope, id: &str| scope.has_listener(id);
        assert!(has(&Scope::default(), "shop/db/pg") && has(&named(Some("shop"), Some("db")), "shop/db/pg"));
        assert!(!has(&named(None, Some("web")), "shop/db/pg") && !has(&Scope::default(), "no id"));
    }

    #[test]
    fn a_name_that_is_not_there_is_told_with_the_nearest() {
        let missing = |namespace, name| process().missing(&named(namespace, name)).unwrap_or_default();
        assert_eq!(missing(None, Some("db")), "");
        assert_eq!(missing(None, None), "");
        let told = "the process at 127.0.0.1:9181 runs no forward dbb; did you mean db?";
        assert_eq!(missing(None, Some("dbb")), told);
        let told = "the process at 127.0.0.1:9181 runs no forward of namespace shpo; did you mean shop?";
        assert_eq!(missing(Some("shpo"), None), told);
        assert!(missing(Some("other"), Some("nosuch")).ends_with("runs no forward nosuch of namespace other"));
        assert!(missing(Some("shop"), Some("dbb")).ends_with("of namespace shop; did you mean db?"));
        assert!(missing(Some("other"), Some("dbb")).ends_with("dbb of namespace other"), "it is in another namespace");
        assert_eq!(Process::default().missing(&Scope::default()), None);
    }

    #[test]
    fn an_object_of_another_kind_is_named_with_its_kind() {
        let origin = Origin::try_from("TCPRoute/shop/db".to_owned()).expect("an origin");
        assert_eq!(key(&origin).to_string(), "shop/TCPRoute/db");
    }
}

//! The live API of the operator: requests, refusals, and the sessions of a response.

mod notes;
mod together;

use std::net::SocketAddr;

use operator_core::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::access::{Fetched, Place, Unknown};

pub use self::{
    notes::{notes, older, unanswered},
    together::{Next, by_namespace, next},
};
use operator_core::live_api::api::ALL;
pub use operator_core::live_api::{GROUP, SessionId, VERSION, api::MAX_LIMIT};

/// The forward or pod that has the requested sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// The sessions of this forward, in all proxies.
    Forward(ObjectKey),
    /// All sessions of the proxy of this pod.
    Pod(ObjectKey),
}

impl Of {
    fn plural_and_key(&self) -> (&'static str, &ObjectKey) {
        match self {
            Self::Forward(key) => ("portforwards", key),
            Self::Pod(key) => ("pods", key),
        }
    }

    /// The object, as in messages.
    pub fn name(&self) -> String {
        match self {
            Self::Forward(key) => format!("PortForward {key}"),
            Self::Pod(key) => format!("pod {key}"),
        }
    }
}

/// A request to the live API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path and query.
    pub path: String,
    resource: String,
    place: Place,
    /// Name of the object. Absent: the request is for all forwards of the namespace or cluster.
    name: Option<String>,
}

impl Request {
    /// Requests live sessions, of which `limit` are listed.
    pub fn sessions(of: &Of, limit: usize) -> Self {
        let (plural, key) = of.plural_and_key();
        let request = Self::new(plural, key, "sessions");
        Self { path: format!("{}?limit={limit}", request.path), ..request }
    }

    /// Requests live sessions of all forwards of a namespace or of the cluster, of which `limit` are listed.
    pub fn all(place: &Place, limit: usize) -> Self {
        let namespace = match place {
            Place::Namespace(name) => format!("namespaces/{}/", escaped(name)),
            Place::Cluster | Place::Everywhere => String::new(),
        };
        let path = format!("/apis/{GROUP}/{VERSION}/{namespace}portforwards/{ALL}/sessions?limit={limit}");
        Self { path, resource: resource("portforwards", "sessions"), place: place.clone(), name: None }
    }

    /// Restricts a request for sessions to the one with this id. An older operator lists the others too.
    #[must_use]
    pub fn only(self, session: SessionId) -> Self {
        Self { path: format!("{}&session={session}", self.path), ..self }
    }

    /// Turns a request for sessions into one for the lag of durable listeners. An older operator lists the sessions.
    #[must_use]
    pub fn lag(self) -> Self {
        Self { path: format!("{}&lag=true", self.path), ..self }
    }

    /// Requests the configuration of the proxy of a pod.
    pub fn config(pod: &ObjectKey) -> Self {
        Self::new("pods", pod, "config")
    }

    fn new(plural: &str, key: &ObjectKey, what: &str) -> Self {
        let (namespace, name) = (escaped(&key.namespace), escaped(&key.name));
        let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}/{name}/{what}");
        let place = Place::Namespace(key.namespace.clone());
        Self { path, resource: resource(plural, what), place, name: Some(key.name.clone()) }
    }

    /// Classifies an answer with this status code. `reason` and `message` are those of the `Status` object.
    pub fn refused(&self, code: u16, reason: &str, message: &str) -> Unknown {
        match code {
            403 => Unknown::Forbidden { verb: "get", resource: self.resource.clone(), place: self.place.clone() },
            // The operator answers with the reason NotFound. An API server without the group answers with plain text.
            404 if reason != "NotFound" => Unknown::NotInstalled,
            // An older operator takes the name that stands for all forwards for the name of one.
            404 if self.name.is_none() => Unknown::Older,
            503 => Unknown::NoLeader { message: message.to_owned() },
            _ => self.failed(message),
        }
    }

    /// The error that the request has failed for another reason.
    pub fn failed(&self, message: &str) -> Unknown {
        let of = self.name.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        let resource = format!("{}{of}", self.resource);
        Unknown::Failed { verb: "get", resource, place: self.place.clone(), message: message.to_owned() }
    }
}

/// Formats a resource of the live API as for `kubectl create role --resource`.
fn resource(plural: &str, what: &str) -> String {
    format!("{plural}.{GROUP}/{what}")
}

/// Escapes a part of a path.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let escape = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

/// Live sessions of several proxies. Fields that an older operator does not write have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionList {
    /// Number of sessions, including those that are not listed.
    pub total: u64,
    /// The listed sessions.
    pub items: Vec<Session>,
    /// Pods whose proxies have not answered, as `NAMESPACE/NAME`.
    pub unanswered: Vec<String>,
    /// New sessions per second in all proxies. Absent: a proxy has not reported its load, or the operator is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_per_second: Option<u64>,
    /// Bytes per second in all proxies, both directions together. Absent as `new_per_second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// The proxies that have reported their load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<RatesOfPod>,
    /// The forwards one by one, if all forwards of a namespace or of the cluster were requested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<OfForward>,
    /// Number of forwards that are not in `forwards`.
    #[serde(skip_serializing)]
    pub omitted_forwards: u64,
    /// Number of sessions that are counted for no forward, because a proxy has sessions of too many.
    #[serde(skip_serializing)]
    pub uncounted: u64,
}

/// The sessions of one of several forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OfForward {
    /// The forward, as `NAMESPACE/NAME`.
    pub forward: String,
    /// Number of the forward's sessions, including those that are not listed.
    pub total: u64,
    /// New sessions per second in all proxies, as in [`SessionList`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_per_second: Option<u64>,
    /// Bytes per second in all proxies, as in [`SessionList`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl SessionList {
    /// The rates of all proxies together, if they are known.
    pub fn known_rates(&self) -> Option<Rates> {
        Some(Rates { new: self.new_per_second?, bytes: self.bytes_per_second? })
    }
}

/// New sessions and bytes per second, as proxies count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// New sessions per second.
    pub new: u64,
    /// Bytes per second, both directions together.
    pub bytes: u64,
}

impl Rates {
    /// Adds the rates of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { new: self.new.saturating_add(other.new), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// The rates of the requested sessions in one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RatesOfPod {
    /// The proxy's pod, as `NAMESPACE/NAME`.
    pub pod: String,
    /// New sessions per second.
    pub new_per_second: u64,
    /// Bytes per second, both directions together.
    pub bytes_per_second: u64,
}

/// A live session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Session {
    /// Id of the session, which its records in the access log have too. Absent: the proxy is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The proxy's pod, as `NAMESPACE/NAME`.
    pub pod: String,
    /// The listener, as `NAMESPACE/FORWARD/LISTENER`.
    pub listener: String,
    /// TCP or UDP.
    pub protocol: String,
    /// Address and port of the client.
    pub client: String,
    /// Backend, once chosen.
    pub backend: Option<String>,
    /// Address and port of the endpoint, once chosen, unless it is behind an agent.
    pub endpoint: Option<String>,
    /// The instance that leads to the endpoint, once chosen, if the backend is behind an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Server name that a TLS client requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// Age in seconds.
    pub seconds: u64,
}

impl Session {
    /// Whether the client came from the proxy's own pod, as connections through the API server's port-forward do.
    pub fn is_from_inside(&self) -> bool {
        let client = self.client.parse::<SocketAddr>();
        client.is_ok_and(|client| client.ip().to_canonical().is_loopback())
    }

    /// The endpoint, once chosen: its address and port, or the instance of an agent that leads to it.
    pub fn destination(&self) -> Option<&str> {
        self.endpoint.as_deref().or(self.instance.as_deref())
    }

    /// Bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes_up.saturating_add(self.bytes_down)
    }
}

/// Sessions that were read, with the forward or pod that has them.
pub type Reading = (Of, Fetched<SessionList>);

/// Fails if the whole API cannot be used: then other requests are not reported one by one.
pub fn usable(reading: &[Reading]) -> Fetched<()> {
    let is_general = |why: &&Unknown| matches!(why, Unknown::NotInstalled | Unknown::NoLeader { .. });
    let general = reading.iter().filter_map(|(_, read)| read.as_ref().err()).find(is_general);
    general.map_or(Ok(()), |why| Err(why.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> Request {
        Request::sessions(&Of::Forward(ObjectKey::new("shop", "db")), 7)
    }

    #[test]
    fn a_request_has_the_path_of_the_api() {
        let path = "/apis/live.portlane.dev/v1alpha1/namespaces/shop/portforwards/db/sessions?limit=7";
        assert_eq!(db().path, path);
        assert_eq!(db().only(SessionId(0xab)).path, format!("{path}&session=00000000000000ab"));
        let all = |place: Place| Request::all(&place, 7).path;
        assert_eq!(all(Place::Namespace("shop".to_owned())), path.replace("/db/", "/*/"));
        assert_eq!(all(Place::Everywhere), path.replace("/db/", "/*/").replace("namespaces/shop/", ""));
        let pod = Request::config(&ObjectKey::new("shop", "../x"));
        assert_eq!(pod.path, "/apis/live.portlane.dev/v1alpha1/namespaces/shop/pods/..%2Fx/config");
    }

    #[test]
    fn a_refusal_names_the_right_the_chart_value_or_the_leader() {
        for (code, reason, message, expected) in [
            (
                403,
                "Forbidden",
                "no",
                "cannot get portforwards.live.portlane.dev/sessions in namespace shop: ask for `get` on \
                 `portforwards.live.portlane.dev/sessions`",
            ),
            (
                404,
                "Failed to parse error data",
                "404 page not found",
                "the live API is not installed: set liveApi.enabled in the chart",
            ),
            (
                404,
                "NotFound",
                "no such forward",
                "cannot get portforwards.live.portlane.dev/sessions of db in namespace shop: no such forward",
            ),
            (
                503,
                "ServiceUnavailable",
                "service unavailable",
                "no leader of the operator answers for the live API (service unavailable): kubectl portlane status \
                 shows more",
            ),
        ] {
            assert_eq!(db().refused(code, reason, message).to_string(), expected);
        }
    }

    #[test]
    fn a_client_on_loopback_of_either_family_is_inside_the_pod() {
        let is_inside = |client: &str| Session { client: client.to_owned(), ..Session::default() }.is_from_inside();
        assert!(["127.0.0.1:5", "127.9.9.9:5", "[::1]:5", "[::ffff:127.0.0.1]:5"].iter().all(|it| is_inside(it)));
        assert!(!["10.0.0.1:5", "[fd00::1]:5", "127.0.0.1", ""].iter().any(|it| is_inside(it)));
    }
}

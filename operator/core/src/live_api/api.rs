//! Paths and discovery documents of the live API.

use percent_encoding::percent_decode_str;
use proxy_api::Origin;
use serde_json::{Value, json};

use super::{GROUP, SessionId, VERSION, group_version};
use crate::{metrics_api::api::group_of, world::ObjectKey};

/// Sessions that a response lists without a `limit`.
pub const DEFAULT_LIMIT: usize = 500;
/// Most sessions that a response lists. A higher `limit` counts as this one.
pub const MAX_LIMIT: usize = 5000;

/// The name that stands for all forwards of a namespace or of the cluster, as in the API of custom metrics. No object
/// has it.
pub const ALL: &str = "*";

/// The resources, with the kind of their responses. Each has the verb `get`.
const RESOURCES: [(&str, &str); 3] =
    [("pods/config", "ProxyConfig"), ("pods/sessions", "SessionList"), ("portforwards/sessions", "SessionList")];

/// The requested resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The versions of the group.
    Group,
    /// The resources.
    Resources,
    /// Live sessions.
    Sessions {
        /// The forward or pod that has the sessions.
        of: Of,
        /// Most sessions to list.
        limit: usize,
        /// Only the session with this id.
        session: Option<SessionId>,
    },
    /// Live sessions of all forwards of a namespace or of the cluster, with their number for each forward.
    Together {
        /// Namespace of the forwards. Absent: all namespaces.
        namespace: Option<String>,
        /// Most sessions to list.
        limit: usize,
        /// Only the session with this id.
        session: Option<SessionId>,
    },
    /// The lag of durable listeners.
    Lag(Of),
    /// The lag of the durable listeners of all forwards of a namespace or of the cluster.
    LagTogether {
        /// Namespace of the forwards. Absent: all namespaces.
        namespace: Option<String>,
    },
    /// The configuration of the proxy of this pod.
    Config(ObjectKey),
    /// A path that this API does not serve.
    Nothing,
}

/// The forward or pod that has the requested sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// The sessions of this forward, in all proxies.
    Forward(Origin),
    /// All sessions of the proxy of this pod.
    Pod(ObjectKey),
}

/// Whether this API serves a path.
#[must_use]
pub fn serves(path: &str) -> bool {
    let mut parts = path.trim_matches('/').split('/');
    (parts.next(), parts.next()) == (Some("apis"), Some(GROUP))
}

/// Parses the path and query of a request.
///
/// # Errors
/// Names the part of the request that is malformed.
pub fn route(path: &str, query: &str) -> Result<Asked, String> {
    let decoded = |part| percent_decode_str(part).decode_utf8().map_err(|_| format!("'{part}' is not UTF-8"));
    let parts: Vec<_> = path.trim_matches('/').split('/').map(decoded).collect::<Result<_, _>>()?;
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let ["apis", group, rest @ ..] = parts.as_slice() else { return Ok(Asked::Nothing) };
    if *group != GROUP {
        return Ok(Asked::Nothing);
    }
    match rest {
        [] => Ok(Asked::Group),
        [version] if *version == VERSION => Ok(Asked::Resources),
        [version, "portforwards", ALL, "sessions"] if *version == VERSION => together(None, query),
        [version, "namespaces", namespace, "portforwards", ALL, "sessions"] if *version == VERSION => {
            together(Some((*namespace).to_owned()), query)
        }
        [version, "namespaces", namespace, kind, name, what] if *version == VERSION => {
            let key = ObjectKey::new(*namespace, *name);
            match (*kind, *what) {
                ("portforwards", "sessions") => {
                    sessions(Of::Forward(Origin::port_forward(key.namespace, key.name)), query)
                }
                ("pods", "sessions") => sessions(Of::Pod(key), query),
                ("pods", "config") => Ok(Asked::Config(key)),
                _ => Ok(Asked::Nothing),
            }
        }
        _ => Ok(Asked::Nothing),
    }
}

fn sessions(of: Of, query: &str) -> Result<Asked, String> {
    let Parameters { limit, session, lag } = parameters(query)?;
    Ok(if lag { Asked::Lag(of) } else { Asked::Sessions { of, limit, session } })
}

fn together(namespace: Option<String>, query: &str) -> Result<Asked, String> {
    let Parameters { limit, session, lag } = parameters(query)?;
    Ok(if lag { Asked::LagTogether { namespace } } else { Asked::Together { namespace, limit, session } })
}

/// The parameters of a request for sessions.
struct Parameters {
    limit: usize,
    session: Option<SessionId>,
    /// Whether the request is for the lag of durable listeners in place of sessions. Lag is a parameter rather than a
    /// resource: everyone who may read sessions may read lag, and existing roles would lack a new permission.
    lag: bool,
}

fn parameters(query: &str) -> Result<Parameters, String> {
    let (mut limit, mut session, mut lag) = (DEFAULT_LIMIT, None, false);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "limit" => {
                let parsed = value.parse::<usize>();
                limit = parsed.map_err(|_| format!("limit '{value:.20}' is not a number from 0 to {MAX_LIMIT}"))?;
            }
            "session" => {
                let parsed = value.parse::<SessionId>();
                session = Some(parsed.map_err(|error| format!("session '{value:.20}' {error}"))?);
            }
            "lag" => lag = value.parse().map_err(|_| format!("lag '{value:.20}' is neither true nor false"))?,
            _ => {}
        }
    }
    Ok(Parameters { limit: limit.min(MAX_LIMIT), session, lag })
}

/// The discovery document of the group, with its only version.
#[must_use]
pub fn group() -> Value {
    group_of(GROUP, VERSION)
}

/// The discovery document of the resources.
#[must_use]
pub fn resources() -> Value {
    let resource = |(name, kind): (&str, &str)| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(),
        "resources": RESOURCES.map(resource)})
}

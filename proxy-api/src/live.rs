//! Live sessions of a proxy, and the lag of its durable listeners: the operator's request, and the answer.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Delivery, ListenerId, MAX_COUNTED, Origin, SessionId, Transport};

/// A request for live sessions, or for the lag of durable listeners. A proxy that does not know such requests sends no
/// answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inquiry {
    /// Number of the request, repeated in the answer.
    #[serde(default)]
    pub id: u64,
    /// The sessions to list.
    #[serde(flatten)]
    pub selection: Selection,
}

/// Which sessions are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Only sessions of this object. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Only sessions of objects in this namespace. A proxy without support lists others, too. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Count the sessions of each object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_origin: bool,
    /// Only the session with this id. A proxy without support lists others, too. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Report the lag of durable listeners instead of sessions. A proxy that does not support this lists sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lag: bool,
    /// Most sessions to list.
    #[serde(default)]
    pub limit: usize,
}

impl Selection {
    /// Whether a session of this listener with this id is listed; `id` is absent in the answer of a proxy that does not
    /// support ids.
    #[must_use]
    pub fn has(&self, listener: &ListenerId, id: Option<SessionId>) -> bool {
        self.origin.as_ref().is_none_or(|origin| *origin == listener.origin)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == listener.origin.namespace)
            && self.session.is_none_or(|wanted| id == Some(wanted))
    }
}

/// The answer to an [`Inquiry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// Number of the request.
    #[serde(default)]
    pub id: u64,
    /// The sessions.
    #[serde(default)]
    pub live: LiveSessions,
}

/// Live sessions, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSessions {
    /// Number of selected sessions, including those not listed. With `lag`, the number of selected durable listeners.
    #[serde(default)]
    pub total: u64,
    /// Listed sessions: in an answer at most [`crate::MAX_LIVE`].
    #[serde(default, deserialize_with = "crate::bounded::sessions")]
    pub sessions: Vec<LiveSession>,
    /// Number of selected sessions by object, for at most [`MAX_COUNTED`] objects that have any. Empty if the count was
    /// not requested, and in the answer of a proxy that does not support it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::counts")]
    pub origins: BTreeMap<Origin, u64>,
    /// Selected durable listeners: at most [`crate::MAX_LAGS`]. Absent if they were not requested, and in the answer of
    /// a proxy that does not support them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::bounded::lags")]
    pub lag: Option<Vec<Lag>>,
}

impl LiveSessions {
    /// Number of listed sessions, durable listeners and reasons, and of counted objects.
    #[must_use]
    pub fn items(&self) -> usize {
        let of_listener = |lag: &Lag| 1 + lag.dropped_by_reason.len();
        self.sessions.len() + self.origins.len() + self.lag.iter().flatten().map(of_listener).sum::<usize>()
    }

    /// Counts a selected session of this object.
    pub fn count(&mut self, selection: &Selection, origin: &Origin) {
        self.total += 1;
        if selection.by_origin {
            self.count_of(origin, 1);
        }
    }

    /// Adds the sessions and durable listeners of another part of the proxy.
    pub fn add(&mut self, other: Self) {
        self.total += other.total;
        self.sessions.extend(other.sessions);
        for (origin, number) in &other.origins {
            self.count_of(origin, *number);
        }
    }

    fn count_of(&mut self, origin: &Origin, number: u64) {
        if let Some(count) = self.origins.get_mut(origin) {
            *count += number;
        } else if self.origins.len() < MAX_COUNTED {
            self.origins.insert(origin.clone(), number);
        }
    }
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSession {
    /// Identity of the session. Absent: the proxy does not support ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The listener.
    pub listener: ListenerId,
    /// TCP or UDP.
    pub protocol: Transport,
    /// Client address: the peer, or the source in its PROXY header.
    pub client: SocketAddr,
    /// Backend entry, once chosen.
    #[serde(default, deserialize_with = "crate::bounded::backend")]
    pub backend: Option<String>,
    /// Endpoint address, once chosen. Also absent if the endpoint is behind an agent.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
    /// The instance that leads to the endpoint, once chosen, if the backend is behind an agent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::bounded::instance")]
    pub instance: Option<String>,
    /// Server name from the client's `ClientHello`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::bounded::backend")]
    pub server_name: Option<String>,
    /// Bytes from the client.
    #[serde(default)]
    pub bytes_up: u64,
    /// Bytes to the client.
    #[serde(default)]
    pub bytes_down: u64,
    /// Age in seconds.
    #[serde(default)]
    pub seconds: u64,
}

impl LiveSession {
    /// Bytes of the texts of this session in JSON.
    #[must_use]
    pub fn weight(&self) -> usize {
        let names = [&self.backend, &self.instance, &self.server_name].into_iter().flatten();
        written(&self.listener.to_string()) + names.map(|name| written(name)).sum::<usize>()
    }
}

/// The backlog of a durable listener, and counts of its messages since the process started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// The listener.
    pub listener: ListenerId,
    /// How the listener delivers.
    pub delivery: Delivery,
    /// Age of the oldest message that the sink does not have, in seconds; 0 if it has all.
    #[serde(default)]
    pub oldest_seconds: u64,
    /// Messages that the sink does not have.
    #[serde(default)]
    pub backlog: u64,
    /// Bytes of the log.
    #[serde(default)]
    pub log_bytes: u64,
    /// Messages that were received.
    #[serde(default)]
    pub received: u64,
    /// Messages that the sink has taken.
    #[serde(default)]
    pub delivered: u64,
    /// Messages that were sent once more.
    #[serde(default)]
    pub resent: u64,
    /// Messages that were dropped or lost.
    #[serde(default)]
    pub dropped: u64,
    /// Messages that were dropped or lost, by reason: at most [`crate::MAX_REASONS`], and no reason without a message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::bounded::reasons")]
    pub dropped_by_reason: BTreeMap<String, u64>,
    /// Messages that became dead letters, as they cannot be delivered.
    #[serde(default)]
    pub dead_lettered: u64,
    /// Number of lanes that send.
    #[serde(default)]
    pub lanes: u64,
    /// Why the log is not safe, or why the sink has taken no message since its last one. Empty: nothing fails.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        serialize_with = "crate::bounded::cut_lag_error",
        deserialize_with = "crate::bounded::lag_error"
    )]
    pub error: String,
}

impl Lag {
    /// Bytes of the texts of this listener in JSON, and of the numbers of its reasons.
    #[must_use]
    pub fn weight(&self) -> usize {
        /// Bytes of the longest number, including its punctuation.
        const NUMBER: usize = 24;
        let reasons = self.dropped_by_reason.keys().map(|reason| written(reason) + NUMBER);
        written(&self.listener.to_string()) + written(&self.error) + reasons.sum::<usize>()
    }
}

/// Bytes of a text in JSON, where a control character takes six.
fn written(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    bytes.sum()
}

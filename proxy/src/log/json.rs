//! Records as JSON, one object per line, its keys in alphabetical order.

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    time::SystemTime,
};

use proxy_api::{IdParts, SessionId};
use serde::{Serialize, Serializer};

use super::{Event, Level, Notice, SessionRecord, Subject};
use crate::core::{backends::address::Address, sessions::end::EndReason};

/// The record of a session. Written without a tree of values: a busy proxy logs as often as it accepts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session<'a> {
    backend: Option<&'a str>,
    bytes_down: u64,
    bytes_up: u64,
    cause: Option<&'a str>,
    client: SocketAddr,
    duration_seconds: f64,
    endpoint: Option<&'a Address>,
    #[serde(serialize_with = "shown")]
    event: Phase,
    forward: &'a str,
    kind: &'a str,
    level: Level,
    listener: &'a str,
    namespace: &'a str,
    #[serde(serialize_with = "shown")]
    protocol: proxy_api::Transport,
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    session: SessionId,
    #[serde(serialize_with = "shown")]
    time: humantime::Rfc3339Timestamp,
}

/// A notice. If it is about a listener, it has the listener's labels.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(serialize_with = "shown")]
    subject: &'a Subject,
    #[serde(serialize_with = "shown")]
    time: humantime::Rfc3339Timestamp,
}

/// The event of a session's phase.
struct Phase(&'static str);

impl Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session_{}", self.0)
    }
}

fn shown<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Appends the line of a record, if it has one.
pub(super) fn write(lines: &mut Vec<u8>, time: SystemTime, event: &Event) {
    let start = lines.len();
    let written = match event {
        Event::Lines(_) => return,
        Event::Notice(notice) => serde_json::to_writer(&mut *lines, &line(time, notice)),
        Event::Session(record) => serde_json::to_writer(&mut *lines, &session(time, record)),
    };
    match written {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(start),
    }
}

fn line(time: SystemTime, notice: &Notice) -> Line<'_> {
    let listener = match &notice.subject {
        Subject::Listener(id) => Some(id),
        Subject::Other(_) => None,
    };
    let origin = listener.map(|id| &id.origin);
    Line {
        event: notice.event,
        forward: origin.map(|origin| origin.name.as_str()),
        kind: origin.map(|origin| origin.kind.as_str()),
        level: notice.level,
        listener: listener.map(|id| id.listener.as_str()),
        message: &notice.message,
        namespace: origin.map(|origin| origin.namespace.as_str()),
        subject: &notice.subject,
        time: humantime::format_rfc3339_millis(time),
    }
}

fn session(time: SystemTime, record: &SessionRecord) -> Session<'_> {
    let IdParts { origin, listener } = &*record.listener;
    Session {
        backend: record.backend.as_deref(),
        bytes_down: record.down,
        bytes_up: record.up,
        cause: record.cause.as_deref(),
        client: record.client,
        duration_seconds: record.duration.as_secs_f64(),
        endpoint: record.endpoint.as_ref(),
        event: Phase(record.phase),
        forward: &origin.name,
        kind: origin.kind.as_str(),
        level: Level::Info,
        listener,
        namespace: &origin.namespace,
        protocol: record.transport,
        reason: record.reason.map(EndReason::as_str),
        server_name: record.name.as_deref(),
        session: record.session,
        time: humantime::format_rfc3339_millis(time),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proxy_api::{ListenerId, Transport};
    use serde_json::{Value, json};

    use super::*;

    fn record(event: &Event) -> Value {
        let mut lines = b"before\n".to_vec();
        write(&mut lines, SystemTime::UNIX_EPOCH, event);
        let text = String::from_utf8(lines).expect("text");
        let line = text.strip_prefix("before\n").and_then(|rest| rest.strip_suffix('\n')).expect("a line");
        let value: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line, value.to_string(), "keys are in alphabetical order");
        value
    }

    fn opened(listener: ListenerId) -> SessionRecord {
        SessionRecord {
            session: SessionId(0xab),
            phase: "opened",
            listener,
            transport: Transport::Tcp,
            client: ([192, 0, 2, 1], 5).into(),
            backend: None,
            endpoint: None,
            name: None,
            up: 0,
            down: 0,
            duration: Duration::ZERO,
            reason: None,
            cause: None,
        }
    }

    #[test]
    fn a_session_has_every_key_and_a_server_name_if_there_is_one() {
        let id: ListenerId = "PortForward/ns/f/l".parse().expect("an id");
        let first = opened(id);
        let expected = json!({
            "time": "1970-01-01T00:00:00.000Z", "level": "info", "event": "session_opened", "session": "00000000000000ab",
            "protocol": "TCP", "client": "192.0.2.1:5", "backend": null, "endpoint": null, "bytesUp": 0, "bytesDown": 0,
            "durationSeconds": 0.0, "reason": null, "cause": null,
            "kind": "PortForward", "namespace": "ns", "forward": "f", "listener": "l",
        });
        assert_eq!(record(&Event::Session(Box::new(first.clone()))), expected);
        let last = SessionRecord {
            phase: "closed",
            backend: Some("svc/ns/db:5432".into()),
            endpoint: Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 5432)).into()),
            name: Some("db.example.com".into()),
            duration: Duration::from_millis(1500),
            reason: Some(EndReason::Finished),
            cause: Some("a \"cause\"".to_owned()),
            ..first
        };
        let last = record(&Event::Session(Box::new(last)));
        let keys = ["event", "backend", "endpoint", "serverName", "reason", "cause"].map(|key| last[key].as_str());
        let values =
            ["session_closed", "svc/ns/db:5432", "[::1]:5432", "db.example.com", "Finished", "a \"cause\""].map(Some);
        assert_eq!((keys, &last["durationSeconds"]), (values, &json!(1.5)));
    }

    #[test]
    fn records_of_sessions_and_notices_about_a_listener_name_it_by_the_same_keys() {
        let id: ListenerId = "TCPRoute/ns/f/l".parse().expect("an id");
        let notice = |subject: Subject| {
            let notice = Notice { level: Level::Warn, event: "bound", subject, message: "text".to_owned() };
            record(&Event::Notice(notice))
        };
        let about = notice(id.clone().into());
        for line in [&record(&Event::Session(Box::new(opened(id)))), &about] {
            let keys = ["kind", "namespace", "forward", "listener"].map(|key| line[key].as_str());
            assert_eq!(keys, ["TCPRoute", "ns", "f", "l"].map(Some), "{line}");
        }
        // A path may look like an id.
        let other = notice("shop/db/forward.yaml".into());
        let expected = json!({
            "time": "1970-01-01T00:00:00.000Z", "level": "warn", "event": "bound", "subject": "shop/db/forward.yaml",
            "message": "text",
        });
        assert_eq!(other, expected);
    }

    #[test]
    fn lines_for_people_are_not_in_a_log_of_json() {
        let mut lines = Vec::new();
        write(&mut lines, SystemTime::UNIX_EPOCH, &Event::Lines("a table".to_owned()));
        assert!(lines.is_empty());
    }
}

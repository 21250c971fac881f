//! `kubectl portlane logs FORWARD`: the records of one forward among the log lines of its proxies.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use operator_core::ObjectKey;
use serde_json::Value;

use crate::{
    conns::Clients,
    live::SessionId,
    placement::carries,
    printable::{printable, printable_json},
};

/// Fields of a session that its line of text shows, or that are the same in all records of a forward.
const SESSION: [&str; 16] = [
    "backend",
    "bytesDown",
    "bytesUp",
    "cause",
    "client",
    "durationSeconds",
    "endpoint",
    "event",
    "forward",
    "kind",
    "listener",
    "namespace",
    "reason",
    "serverName",
    "session",
    "time",
];
/// The same fields of other records: their subject names the listener.
const NOTICE: [&str; 8] = ["event", "forward", "kind", "listener", "message", "namespace", "subject", "time"];

/// A record of the log of a proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Name of the proxy's pod.
    pub pod: String,
    /// The record as the proxy wrote it.
    fields: Value,
}

impl Record {
    /// Parses a line. `None` if the record is not about the forward.
    pub fn parse(pod: &str, line: &str, forward: &ObjectKey) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        (is_session(&fields, forward) || is_notice(&fields, forward)).then(|| Self { pod: pod.to_owned(), fields })
    }

    /// Time of the record, RFC 3339 in UTC: texts compare as times.
    pub fn time(&self) -> &str {
        self.field("time")
    }

    /// The text of a field; empty if the field is absent or is not text.
    pub fn field(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_default()
    }

    /// Age of the session in seconds when the record was written; absent in records of other kinds.
    pub fn seconds(&self) -> Option<f64> {
        self.fields["durationSeconds"].as_f64()
    }

    /// Bytes that the client of the session had sent; absent in records of other kinds.
    pub fn bytes_up(&self) -> Option<u64> {
        self.fields["bytesUp"].as_u64()
    }

    /// Name of the listener that the record is about; empty if it is about the whole forward.
    pub fn listener(&self) -> &str {
        match self.field("listener") {
            // Events of older proxies name the listener only in their subject.
            "" => self.field("subject").split('/').nth(2).unwrap_or_default(),
            listener => listener,
        }
    }

    /// Whether the record is about a session of this listener whose client came from the proxy's own pod, as connections
    /// through the API server's port-forward do.
    pub fn is_from_inside(&self, listener: &str) -> bool {
        let client = self.field("client").parse::<SocketAddr>();
        let is_inside = client.is_ok_and(|client| client.ip().to_canonical().is_loopback());
        is_inside && self.field("listener") == listener && self.field("event").starts_with("session_")
    }

    /// The record with the name of the pod, for programs.
    pub fn document(&self) -> Value {
        let mut fields = self.fields.clone();
        if let Value::Object(fields) = &mut fields {
            fields.insert("pod".to_owned(), Value::from(self.pod.clone()));
        }
        fields
    }

    /// The record as one JSON object in one line.
    pub fn to_json(&self) -> String {
        printable_json(&self.document().to_string())
    }

    /// The record as a line for people.
    pub fn to_text(&self) -> String {
        let event = self.field("event");
        let what = match event.strip_prefix("session_") {
            Some(phase) => format!("{phase} {}", self.session()),
            None => format!("{event} {}: {}", self.field("subject"), self.field("message")),
        };
        printable(&format!("{} {} {what}", self.time(), self.pod))
    }

    /// The line for people with the other fields of the record, including those of newer proxies: `NAME=VALUE`, by
    /// name.
    pub fn to_wide_text(&self) -> String {
        let known: &[&str] = if self.field("event").starts_with("session_") { &SESSION } else { &NOTICE };
        let fields = self.fields.as_object().into_iter().flatten();
        let left_out = fields.filter(|(name, value)| !value.is_null() && !known.contains(&name.as_str()));
        let mut left_out: Vec<String> = left_out.map(|(name, value)| format!("{name}={}", word(value))).collect();
        left_out.sort_unstable();
        let mut text = self.to_text();
        for field in left_out {
            text.push(' ');
            text.push_str(&printable(&field));
        }
        text
    }

    fn session(&self) -> String {
        let mut words = vec![self.field("listener").to_owned(), self.field("client").to_owned()];
        let name = self.field("serverName");
        if !name.is_empty() {
            words.push(format!("({name})"));
        }
        match (self.field("backend"), self.field("endpoint")) {
            ("", "") => words.push("-> no backend".to_owned()),
            (backend, "") => words.push(format!("-> {backend}")),
            (backend, endpoint) => words.push(format!("-> {endpoint} ({backend})")),
        }
        let number = |field: &str| self.fields[field].as_u64().unwrap_or(0);
        words.push(format!("{} B up, {} B down", number("bytesUp"), number("bytesDown")));
        if let Some(seconds) = self.seconds() {
            words.push(format!("in {seconds:.3} s"));
        }
        for field in ["reason", "cause"] {
            let text = self.field(field);
            if !text.is_empty() {
                words.push(format!("[{text}]"));
            }
        }
        // The id is absent in the log of older proxies.
        let id = self.field("session");
        if !id.is_empty() {
            words.push(format!("session {id}"));
        }
        words.join(" ")
    }
}

/// Formats a value as one word: a text with spaces or quotes is quoted.
fn word(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains([' ', '"']) => text.to_owned(),
        _ => value.to_string(),
    }
}

/// The selection of records of a forward. A field that is `None` admits every record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only records about this listener.
    pub listener: Option<String>,
    /// Only sessions of these clients.
    pub client: Option<Clients>,
    /// Only sessions that ended for this reason, in letters of any case.
    pub reason: Option<String>,
    /// Only the session with this id.
    pub session: Option<SessionId>,
}

impl Filter {
    /// Whether the record is shown. Events of a listener have no client, reason and session.
    pub fn has(&self, record: &Record) -> bool {
        let is_listener = self.listener.as_deref().is_none_or(|listener| listener == record.listener());
        let is_client = self.client.is_none_or(|clients| clients.has(record.field("client")));
        let is_reason = self.reason.as_deref().is_none_or(|reason| reason.eq_ignore_ascii_case(record.field("reason")));
        let id = || record.field("session").parse::<SessionId>().ok();
        let is_session = self.session.is_none_or(|wanted| id() == Some(wanted));
        is_listener && is_client && is_reason && is_session
    }
}

/// One run of a proxy's container. Each run has one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    /// Name of the pod.
    pub pod: String,
    uid: String,
    /// The number of restarts of the container before this run.
    restarts: i32,
}

/// The latest run of the proxy's container in each pod that has one.
pub fn starts(pods: &[Pod], container: &str) -> impl Iterator<Item = Start> {
    pods.iter().filter(move |pod| carries(pod, container)).map(move |pod| start(pod, container))
}

/// The runs that have not ended. Containers that wait for their start have no log yet.
pub fn running(pods: &[Pod], container: &str) -> impl Iterator<Item = Start> {
    let is_running = move |pod: &&Pod| {
        let state = status(pod, container).and_then(|status| status.state.as_ref());
        state.is_some_and(|state| state.running.is_some())
    };
    pods.iter().filter(is_running).map(move |pod| start(pod, container))
}

fn start(pod: &Pod, container: &str) -> Start {
    Start {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        restarts: status(pod, container).map_or(0, |status| status.restart_count),
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.find(|status| status.name == container)
}

fn is_session(fields: &Value, forward: &ObjectKey) -> bool {
    // The kind is absent in the log of older proxies.
    let is_kind = fields["kind"].as_str().is_none_or(|kind| kind == "PortForward");
    is_kind && fields["namespace"] == *forward.namespace && fields["forward"] == *forward.name
}

/// Whether a record is about a listener of the forward: its subject is NAMESPACE/FORWARD/LISTENER.
fn is_notice(fields: &Value, forward: &ObjectKey) -> bool {
    let subject = fields["subject"].as_str().and_then(|subject| subject.strip_prefix(&forward.to_string()));
    subject.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: &str = r#"{"time":"2026-01-01T00:00:00.000Z","level":"info","event":"session_closed","kind":"PortForward",
        "namespace":"shop","forward":"db","listener":"pg","protocol":"TCP","client":"10.0.0.1:5000","backend":"svc/pg:5432",
        "endpoint":"10.0.0.9:5432","bytesUp":3,"bytesDown":7,"durationSeconds":0.25,"reason":"Closed","cause":null}"#;

    fn parse(line: &str, name: &str) -> Option<Record> {
        Record::parse("shop-1", line, &ObjectKey::new("shop", name))
    }

    #[test]
    fn records_of_other_forwards_and_other_lines_are_left_out() {
        assert!(parse(CLOSED, "db").is_some());
        assert!(parse(CLOSED, "web").is_none());
        assert!(parse(&CLOSED.replace("PortForward", "TCPRoute"), "db").is_none());
        assert!(parse("panicked at", "db").is_none());
        let notice = r#"{"time":"t","event":"failed","subject":"shop/db/pg","message":"address in use"}"#;
        assert!(parse(notice, "db").is_some() && parse(notice, "d").is_none());
    }

    #[test]
    fn a_session_through_port_forward_comes_from_inside_the_pod() {
        let inside = parse(&CLOSED.replace("10.0.0.1:5000", "127.0.0.1:5000"), "db").expect("a record");
        assert!(inside.is_from_inside("pg") && !inside.is_from_inside("web"));
        assert!(!parse(CLOSED, "db").expect("a record").is_from_inside("pg"));
        assert_eq!((inside.field("reason"), inside.field("cause")), ("Closed", ""));
    }

    #[test]
    fn a_filter_admits_the_records_that_have_all_it_names() {
        let with_id = CLOSED.replace(r#""kind""#, r#""session":"e220a8397b1dcdaf","kind""#);
        let closed = parse(&with_id, "db").expect("a record");
        let open = parse(&CLOSED.replace(r#""Closed""#, "null"), "db").expect("a record");
        let notice = r#"{"time":"t","event":"failed","subject":"shop/db/pg","message":"address in use"}"#;
        let notice = parse(notice, "db").expect("a record");
        let shown = |filter: &Filter| [&closed, &open, &notice].map(|record| filter.has(record));
        let (all, text) = (Filter::default(), |text: &str| Some(text.to_owned()));
        let client = |text: &str| text.parse::<Clients>().ok();
        let id = |text: &str| text.parse::<SessionId>().ok();
        for (filter, expected) in [
            (all.clone(), [true, true, true]),
            (Filter { listener: text("pg"), ..all.clone() }, [true, true, true]),
            (Filter { listener: text("web"), ..all.clone() }, [false, false, false]),
            (Filter { client: client("10.0.0.0/24"), ..all.clone() }, [true, true, false]),
            (Filter { client: client("10.0.0.2"), ..all.clone() }, [false, false, false]),
            (Filter { reason: text("closed"), ..all.clone() }, [true, false, false]),
            (Filter { reason: text("Idle"), ..all.clone() }, [false, false, false]),
            (Filter { session: id("e220a8397b1dcdaf"), ..all.clone() }, [true, false, false]),
            (Filter { session: id("e220a8397b1dcdae"), ..all.clone() }, [false, false, false]),
            (Filter { reason: text("Closed"), client: client("192.0.2.0/24"), ..all.clone() }, [false, false, false]),
        ] {
            assert_eq!(shown(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_container_that_starts_again_has_another_log() {
        let pod = |restarts: u32, state: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: edge-1, uid: a}}, spec: {{containers: [{{name: proxy}}]}}, \
                 status: {{containerStatuses: [{{name: proxy, image: i, imageID: i, ready: true, restartCount: {restarts}, \
                 state: {{{state}: {{}}}}}}]}}}}"
            );
            serde_yaml::from_str::<Pod>(&text).expect("a pod")
        };
        let first = |pod: &Pod| starts(std::slice::from_ref(pod), "proxy").next();
        let (before, waiting, after) = (pod(0, "running"), pod(0, "waiting"), pod(1, "running"));
        assert_eq!(first(&before), first(&waiting));
        assert_ne!(first(&before), first(&after));
        assert_eq!(running(&[waiting, after.clone()], "proxy").next(), first(&after));
        assert_eq!(starts(&[after], "portlane-proxy").count(), 0);
    }

    #[test]
    fn a_record_has_the_pod_in_each_form_and_every_field_in_the_wide_one() {
        let record = parse(CLOSED, "db").expect("a record");
        assert_eq!(
            record.to_text(),
            "2026-01-01T00:00:00.000Z shop-1 closed pg 10.0.0.1:5000 -> 10.0.0.9:5432 (svc/pg:5432) 3 B up, 7 B down \
             in 0.250 s [Closed]"
        );
        let with_id = CLOSED.replace(r#""kind""#, r#""session":"e220a8397b1dcdaf","kind""#);
        let text = parse(&with_id, "db").expect("a record").to_text();
        assert_eq!(text, format!("{} session e220a8397b1dcdaf", record.to_text()));
        let wide =
            parse(&CLOSED.replace(r#""kind""#, r#""zone":"a b","kind""#), "db").expect("a record").to_wide_text();
        assert_eq!(wide, format!("{} level=info protocol=TCP zone=\"a b\"", record.to_text()));
        let notice =
            r#"{"time":"t","level":"error","event":"failed","subject":"shop/db/pg","message":"address in use"}"#;
        let notice = parse(notice, "db").expect("a record");
        assert_eq!(notice.to_wide_text(), format!("{} level=error", notice.to_text()));
        let json: Value = serde_json::from_str(&record.to_json()).expect("JSON");
        assert_eq!(record.document(), json);
        assert_eq!((&json["pod"], &json["forward"]), (&Value::from("shop-1"), &Value::from("db")));
    }

    #[test]
    fn a_session_without_an_endpoint_shows_its_backend_or_that_it_has_none() {
        let text = |backend: &str| {
            let line = CLOSED.replace(r#""svc/pg:5432""#, backend).replace(r#""10.0.0.9:5432""#, "null");
            parse(&line, "db").expect("a record").to_text()
        };
        assert!(text(r#""svc/pg:5432""#).contains(" 10.0.0.1:5000 -> svc/pg:5432 3 B up"));
        assert!(text("null").contains(" 10.0.0.1:5000 -> no backend 3 B up"), "{}", text("null"));
        let named = CLOSED.replace(r#""kind""#, r#""serverName":"a.example","kind""#);
        assert!(parse(&named, "db").expect("a record").to_text().contains(" 10.0.0.1:5000 (a.example) -> "));
    }

    #[test]
    fn a_record_has_numbers_where_the_proxy_wrote_them() {
        let numbers = |line: &str| parse(line, "db").map(|record| (record.bytes_up(), record.seconds()));
        assert_eq!(numbers(CLOSED), Some((Some(3), Some(0.25))));
        assert_eq!(numbers(r#"{"event":"failed","subject":"shop/db/pg"}"#), Some((None, None)));
    }
}

//! The body of notices to a webhook of the user.

use serde_json::{Value, json};

use crate::names::NAME;

/// The format that the webhook accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with all fields of every notice.
    Json,
    /// A message for Slack, or for a chat that accepts Slack's format.
    Slack,
}

/// A change that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Time of the change, RFC 3339.
    pub time: String,
    /// Whether the severity is `warning`; otherwise `info`.
    pub warning: bool,
    /// The reason, one CamelCase word, as in conditions and events.
    pub reason: String,
    /// Kind of the object.
    pub kind: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the listener; absent if the change concerns the whole object.
    pub listener: Option<String>,
    /// The cause and the remedy, for a person.
    pub message: String,
}

/// The body of a request that carries these notices.
#[must_use]
pub fn body(format: Format, notices: &[Notice]) -> Value {
    match format {
        Format::Json => json!({"source": NAME, "notices": notices.iter().map(full).collect::<Vec<_>>()}),
        Format::Slack => json!({"text": notices.iter().map(line).collect::<Vec<_>>().join("\n")}),
    }
}

fn full(notice: &Notice) -> Value {
    let mut object = json!({"kind": notice.kind, "namespace": notice.namespace, "name": notice.name});
    if let Some(listener) = &notice.listener {
        object["listener"] = json!(listener);
    }
    json!({
        "time": notice.time,
        "severity": if notice.warning { "warning" } else { "info" },
        "reason": notice.reason,
        "object": object,
        "message": notice.message,
    })
}

/// One line of a chat message. Escapes `&`, `<` and `>`, which Slack reads as markup.
fn line(Notice { warning, reason, kind, namespace, name, message, .. }: &Notice) -> String {
    let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let sign = if *warning { ":warning: " } else { "" };
    format!("{sign}*{reason}* {kind} {namespace}/{name}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_sent_as_objects_or_as_lines() {
        let notice = Notice {
            time: "2026-01-01T00:00:00Z".into(),
            warning: true,
            reason: "Rejected".into(),
            kind: "PortForward".into(),
            namespace: "shop".into(),
            name: "db".into(),
            listener: None,
            message: "<bind> failed".into(),
        };
        let all = [notice.clone(), Notice { warning: false, reason: "ScaledOut".into(), ..notice }];
        assert_eq!(
            body(Format::Slack, &all),
            json!({"text": ":warning: *Rejected* PortForward shop/db: &lt;bind&gt; failed\n*ScaledOut* PortForward shop/db: &lt;bind&gt; failed"})
        );
        let full = body(Format::Json, &all);
        assert_eq!(full["notices"][0]["message"], "<bind> failed");
        assert_eq!(
            (&full["notices"][0]["severity"], &full["notices"][1]["severity"]),
            (&json!("warning"), &json!("info"))
        );
        assert_eq!(full["notices"][0]["object"], json!({"kind": "PortForward", "namespace": "shop", "name": "db"}));
        let of_listener = [Notice { listener: Some("pg".into()), ..all[0].clone() }];
        assert_eq!(body(Format::Json, &of_listener)["notices"][0]["object"]["listener"], "pg");
    }
}

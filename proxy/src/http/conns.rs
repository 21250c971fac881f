//! The list of live sessions. The page reads it every two seconds, so it is written without spaces, into a buffer that
//! need not grow.

use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes};
use proxy_api::{LiveSession, Selection};
use tokio::sync::oneshot;

use super::{SESSIONS, View, ending, json, text};
use crate::supervisor::Control;

/// Usual size of a session in the list, in bytes; one with long names takes more.
const USUAL: usize = 288;

/// The response to a request with this query.
pub(super) async fn list(view: &View, query: Option<&str>) -> Response<Full<Bytes>> {
    let limit = query.and_then(|query| query.strip_prefix("limit=")).map_or(Ok(SESSIONS), str::parse::<usize>);
    let Ok(limit) = limit.map(|limit| limit.min(SESSIONS)) else {
        return text(StatusCode::BAD_REQUEST, "limit must be a whole number: GET /conns?limit=100\n");
    };
    let (reply, answer) = oneshot::channel();
    let some = Selection { limit, ..Selection::default() };
    if view.control.send(Control::Inspect(some, reply)).await.is_err() {
        return ending();
    }
    json(lines(&answer.await.unwrap_or_default().sessions))
}

/// Writes a JSON array with one session per line, for people.
fn lines(sessions: &[LiveSession]) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(2 + sessions.len() * USUAL);
    out.push(b'[');
    for (at, session) in sessions.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\n".as_slice() } else { b",\n".as_slice() });
        serde_json::to_writer(&mut out, session)?;
    }
    if !sessions.is_empty() {
        out.push(b'\n');
    }
    out.push(b']');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proxy_api::{SessionId, Transport};

    use super::*;

    fn session(id: u64) -> LiveSession {
        LiveSession {
            session: Some(SessionId(id)),
            listener: "production/customer-database/postgres".parse().expect("an id"),
            protocol: Transport::Tcp,
            client: ([203, 0, 113, 250], 51_234).into(),
            backend: Some("svc/production/customer-database:postgres".to_owned()),
            endpoint: Some(([10, 244, 100, 200], 15_432).into()),
            instance: None,
            server_name: None,
            bytes_up: 123_456_789,
            bytes_down: 123_456_789,
            seconds: 86_400,
        }
    }

    #[test]
    fn a_list_has_one_session_a_line_and_no_spaces() {
        let all = [session(1), session(2)];
        let text = String::from_utf8(lines(&all).expect("JSON")).expect("UTF-8");
        assert_eq!(serde_json::from_str::<Vec<LiveSession>>(&text).expect("JSON"), all);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[3]), (4, "[", "]"));
        assert!(lines[1].starts_with("{\"session\":\"0000000000000001\",\"listener\":"), "{text}");
        assert!(!text.contains(' '), "{text}");
        assert_eq!(super::lines(&[]).expect("JSON"), b"[]");
    }

    #[test]
    fn a_list_of_usual_sessions_is_written_into_a_buffer_that_does_not_grow() {
        let all = vec![session(u64::MAX); 500];
        let written = lines(&all).expect("JSON");
        assert_eq!(written.capacity(), 2 + all.len() * USUAL, "{} bytes", written.len());
    }
}

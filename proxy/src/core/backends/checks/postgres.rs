//! The start of the protocol of `PostgreSQL` (chapter "Frontend/Backend Protocol" of its manual), version 3.0.
//!
//! Without a user, the check asks for GSSAPI encryption, which every supported server answers with `G` or `N`. It is
//! the only request after whose answer a client may leave without a line in the server's log: after `SSLRequest` and
//! `S`, the server logs that no TLS handshake follows. With a user, the check begins a session: the server then also
//! says whether it is starting up or shutting down.

use std::ops::RangeInclusive;

use super::{QUOTED, Step, quoted};

/// `GSSENCRequest`: its length, and its code.
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// Version 3.0 of the protocol, at the start of a startup message.
const VERSION: [u8; 4] = [0, 3, 0, 0];
/// `Terminate`.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
/// Length of a message's type and of the number that says its length.
const HEADER: usize = 5;
/// The allowed length, in bytes, of a message about authentication: 8 without data, and far below the maximum with
/// data.
const AUTHENTICATION: RangeInclusive<u32> = 8..=4096;
/// Servers up to version 11 do not know `GSSENCRequest` and answer with this text.
const UNKNOWN_REQUEST: &[u8] = b"unsupported frontend protocol 1234.5680";

#[derive(Debug)]
pub(super) struct Postgres {
    user: Option<String>,
}

impl Postgres {
    pub(super) fn new(user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned) }
    }

    pub(super) fn opening(&self) -> Vec<u8> {
        let Some(user) = &self.user else { return GSSENC_REQUEST.to_vec() };
        let mut body = VERSION.to_vec();
        for text in ["user", user.as_str(), "database", "postgres"] {
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
        let mut message = length.to_be_bytes().to_vec();
        message.extend(body);
        message
    }

    pub(super) fn next(&self, received: &[u8]) -> Step {
        let Some(kind) = received.first() else { return Step::Read };
        match (kind, &self.user) {
            // The answer is one byte, and then the server waits.
            (b'G' | b'N', None) if received.len() == 1 => Step::Passed(Vec::new()),
            (b'R', Some(_)) => authentication(received),
            (b'E', user) => refusal(received, user.is_none()),
            _ => stranger(received),
        }
    }
}

fn stranger(received: &[u8]) -> Step {
    Step::Failed(format!("is not a PostgreSQL server: it sent {}", quoted(received)))
}

/// The server lets the user in, or asks for a password. When asked, the check leaves without an answer, as psql does:
/// the server logs nothing.
fn authentication(received: &[u8]) -> Step {
    let Some((length, _)) = received.get(1..).and_then(<[u8]>::split_first_chunk::<4>) else { return Step::Read };
    if !AUTHENTICATION.contains(&u32::from_be_bytes(*length)) {
        return stranger(received);
    }
    match received.get(HEADER..HEADER + 4) {
        None => Step::Read,
        Some([0, 0, 0, 0]) => Step::Passed(TERMINATE.to_vec()),
        Some(_) => Step::Passed(Vec::new()),
    }
}

/// An error: fields, each with a type. A server that cannot start a process sends plain text instead.
fn refusal(received: &[u8], is_request: bool) -> Step {
    let rest = received.get(1..).unwrap_or_default();
    let text = match rest {
        [0, _, _, _, ..] => {
            let length = rest.iter().take(4).fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
            let Some(fields) = rest.get(4..length.max(4)) else { return Step::Read };
            let mut fields = fields.split(|byte| *byte == 0).filter_map(<[u8]>::split_first);
            fields.find(|(kind, _)| **kind == b'M').map(|(_, text)| text).unwrap_or_default()
        }
        [] | [0, ..] => return Step::Read,
        _ => match rest.iter().position(|byte| *byte == 0) {
            Some(end) => &rest[..end],
            None if rest.len() < QUOTED => return Step::Read,
            None => rest,
        },
    };
    if is_request && text.starts_with(UNKNOWN_REQUEST) {
        return Step::Passed(Vec::new());
    }
    Step::Failed(format!("PostgreSQL says {}", quoted(text)))
}

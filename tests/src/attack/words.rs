//! What clients say: honest beginnings, and lies.

use super::Speaks;
use crate::client_hello;

/// The server name of the listener that is chosen by server names.
pub(crate) const HOST: &str = "shop.example";

/// The client that a flooding client names in its PROXY header. No other client has this address.
pub(crate) const NAMED_BY_FLOOD: &str = "203.0.113.66";

/// Objects of a review that are small as text and large in memory: more than the webhook parses.
const OBJECTS: usize = 150_000;
/// Bytes of a large block.
const BLOCK: usize = 16 << 10;
/// What every client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first bytes of a PROXY header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// An honest beginning, complete.
pub(crate) fn opening(speaks: Speaks) -> Vec<u8> {
    match speaks {
        Speaks::Http2 | Speaks::Https | Speaks::ServerName => client_hello(HOST.as_bytes()),
        Speaks::Http => request("/livez"),
        Speaks::Header => b"PROXY TCP4 203.0.113.7 203.0.113.9 4000 81\r\n".to_vec(),
        Speaks::Bytes | Speaks::Datagrams => vec![b'x'; 100],
    }
}

/// Half of what is expected; nothing at a door with TLS, where the handshake is one half.
pub(super) fn half(speaks: Speaks) -> Vec<u8> {
    let mut all = match speaks {
        Speaks::Http2 | Speaks::Https => Vec::new(),
        Speaks::Http | Speaks::Header | Speaks::ServerName | Speaks::Bytes | Speaks::Datagrams => opening(speaks),
    };
    all.truncate(all.len() / 2);
    all
}

/// A beginning that does not end.
pub(super) fn oversized(speaks: Speaks) -> Vec<u8> {
    match speaks {
        // Fields of a request without its end, in frames without an end.
        Speaks::Http2 => {
            let more = frame(CONTINUATION, 0, 1, &[METHOD_GET; BLOCK]);
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0, 1, &[METHOD_GET]), &more.repeat(32)].concat()
        }
        // A review of many small objects, which is a hundred times as large in memory, and then a head without an end.
        Speaks::Https => {
            let body = format!("[{}0]", "{\"\":0},".repeat(OBJECTS));
            let head = format!("POST /inject HTTP/1.1\r\nHost: door\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body.into_bytes(), endless_head()].concat()
        }
        Speaks::Http => endless_head(),
        // A header of version 2 that says it is as long as a header can be.
        Speaks::Header => [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; BLOCK]].concat(),
        Speaks::ServerName => client_hello(&[b'a'; 15_000]),
        Speaks::Bytes | Speaks::Datagrams => vec![b'x'; 32 * BLOCK],
    }
}

/// What a flooding client says first, and again and again.
pub(super) fn flood(speaks: Speaks) -> (Vec<u8>, Vec<u8>) {
    match speaks {
        Speaks::Http2 => {
            let asks = (0..100).flat_map(|at| frame(HEADERS, END_HEADERS, 2 * at + 1, &[METHOD_GET, 0x84, 0x87]));
            let first = PREFACE.iter().copied().chain(frame(SETTINGS, 0, 0, &[])).chain(asks).collect();
            (first, [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])].concat().repeat(500))
        }
        // A body that is said to be large and comes slowly.
        Speaks::Https => {
            let head = "POST /inject HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\nContent-Length: \
                        8000000\r\n\r\n";
            (head.into(), vec![b' '; BLOCK])
        }
        Speaks::Http => (Vec::new(), request("/livez").repeat(50)),
        Speaks::Header => {
            let header = format!("PROXY TCP4 {NAMED_BY_FLOOD} 203.0.113.9 6666 81\r\n");
            (header.into_bytes(), vec![b'x'; BLOCK])
        }
        Speaks::ServerName => (client_hello(b"nowhere.example"), vec![b'x'; BLOCK]),
        Speaks::Bytes | Speaks::Datagrams => (Vec::new(), vec![b'x'; BLOCK]),
    }
}

/// What a client says whose answers nobody reads.
pub(super) fn unread(speaks: Speaks) -> (Vec<u8>, Vec<u8>) {
    match speaks {
        Speaks::Https | Speaks::Http => (Vec::new(), request("/metrics").repeat(50)),
        Speaks::ServerName => (client_hello(HOST.as_bytes()), vec![b'x'; BLOCK]),
        Speaks::Http2 | Speaks::Header | Speaks::Bytes | Speaks::Datagrams => flood(speaks),
    }
}

/// Bytes without a meaning, the same each time.
pub(super) fn garbage() -> Vec<u8> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(17), next).take(BLOCK).map(|state: u32| state.to_be_bytes()[0]).collect()
}

/// The head of a request, longer than any that a server reads.
fn endless_head() -> Vec<u8> {
    let field = format!("X-Lie: {}\r\n", "x".repeat(8 << 10));
    format!("GET /metrics HTTP/1.1\r\nHost: door\r\n{}", field.repeat(64)).into_bytes()
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: door\r\n\r\n").into_bytes()
}

/// Types of HTTP/2 frames (RFC 9113, 6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// The flag of a HEADERS frame that is complete.
const END_HEADERS: u8 = 4;
/// `:method: GET`, from the static table of HPACK.
const METHOD_GET: u8 = 0x82;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

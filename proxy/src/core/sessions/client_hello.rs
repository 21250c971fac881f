//! Reads the server name in a TLS `ClientHello` (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3) without
//! answering.

use tls_parser::{SNIType, TlsExtension, parse_tls_extension_sni_content, parse_tls_handshake_client_hello};

/// Longest accepted `ClientHello`, over all its records.
pub const LONGEST: usize = 16 * 1024;
/// Most bytes to peek. A `ClientHello` split into so many small records that it needs more is refused.
pub const LONGEST_IN_RECORDS: usize = 2 * LONGEST;

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const RECORD_OF_HANDSHAKE: u8 = 22;
const LONGEST_RECORD: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: [u8; 2] = [0, 0];

/// Result of reading the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    Incomplete,
    /// A `ClientHello` with this server name, in lower case and without a trailing dot.
    Name(String),
    /// A `ClientHello` without a valid server name.
    NoName,
    /// Not a valid `ClientHello`.
    NotTls,
}

/// Reads the server name from the start of a connection.
#[must_use]
pub fn read(bytes: &[u8]) -> Hello {
    match message(&bytes[..bytes.len().min(LONGEST_IN_RECORDS)]) {
        Ok(Some(message)) => name(&message),
        Ok(None) if bytes.len() >= LONGEST_IN_RECORDS => Hello::NotTls,
        Ok(None) => Hello::Incomplete,
        Err(NotTls) => Hello::NotTls,
    }
}

struct NotTls;

/// Assembles the message from its records, without its header; `None` if more bytes are needed.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, NotTls> {
    let mut message: Vec<u8> = Vec::new();
    loop {
        // Check the available bytes at once, so that other protocols are recognised by their first byte.
        match bytes {
            [] => return Ok(None),
            [kind, ..] if *kind != RECORD_OF_HANDSHAKE => return Err(NotTls),
            [_, major, ..] if *major != 3 => return Err(NotTls),
            _ => {}
        }
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > LONGEST_RECORD {
            return Err(NotTls);
        }
        message.extend_from_slice(&rest[..length.min(rest.len())]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NotTls);
        }
        if let [_, a, b, c, ..] = message[..] {
            let whole = MESSAGE_HEADER + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if whole > LONGEST {
                return Err(NotTls);
            }
            if message.len() >= whole {
                message.truncate(whole);
                message.drain(..MESSAGE_HEADER);
                return Ok(Some(message));
            }
        }
        if rest.len() <= length {
            return Ok(None);
        }
        bytes = &rest[length..];
    }
}

fn name(message: &[u8]) -> Hello {
    let Ok((rest, hello)) = parse_tls_handshake_client_hello(message) else { return Hello::NotTls };
    if !rest.is_empty() {
        return Hello::NotTls;
    }
    let mut found = None;
    let mut extensions = hello.ext.unwrap_or_default();
    while !extensions.is_empty() {
        let Some((kind, content, rest)) = extension(extensions) else { return Hello::NotTls };
        extensions = rest;
        if kind == SERVER_NAME && found.replace(content).is_some() {
            return Hello::NotTls;
        }
    }
    let Some(content) = found else { return Hello::NoName };
    let Ok((_, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(content) else { return Hello::NotTls };
    let mut names = names.into_iter().filter(|(kind, _)| *kind == SNIType::HostName);
    match (names.next(), names.next()) {
        (Some((_, name)), None) => host(name).map_or(Hello::NoName, Hello::Name),
        (None, _) => Hello::NoName,
        // RFC 6066: "MUST NOT contain more than one name of the same name_type".
        (Some(_), Some(_)) => Hello::NotTls,
    }
}

fn extension(bytes: &[u8]) -> Option<([u8; 2], &[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(4)?;
    let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([header[2], header[3]])))?;
    Some(([header[0], header[1]], content, rest))
}

/// Validates a DNS name; IP addresses are not names (RFC 6066).
fn host(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_name = (1..=253).contains(&name.len())
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && name.parse::<std::net::IpAddr>().is_err();
    is_name.then_some(name)
}

/// Table keys that match a server name, most specific first: the name itself, then a wildcard for each label removed.
pub fn candidates(host: &str) -> impl Iterator<Item = String> + '_ {
    let wildcards = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
    std::iter::once(host.to_owned()).chain(wildcards)
}

#[cfg(test)]
mod tests;

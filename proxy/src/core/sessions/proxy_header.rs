//! PROXY protocol headers, versions 1 and 2 (`proxy-protocol.txt` of `HAProxy`): decoding and encoding.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use proxy_api::{SendHeader, SessionId};

/// Longest line of version 1, including its end (section 2.1).
const LONGEST_LINE: usize = 107;
/// Length of a version 2 header before its addresses (section 2.2).
const FIXED: usize = 16;
/// Most bytes of addresses and extensions accepted in a version 2 header.
const LONGEST_REST: usize = 4096;
/// Longest accepted header.
pub const LONGEST: usize = FIXED + LONGEST_REST;
const LINE_BEGINS: &[u8] = b"PROXY ";
/// Type of the extension of version 2 with an id of the connection, `PP2_TYPE_UNIQUE_ID` (section 2.2.5).
const UNIQUE_ID: u8 = 0x05;
/// Bytes of an extension before its value: type and length (section 2.2).
const EXTENSION_HEAD: u16 = 3;

/// Result of decoding the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// More bytes are needed.
    Incomplete,
    /// Length of the header, and the client's and destination addresses if the header has them.
    Header(usize, Option<(SocketAddr, SocketAddr)>),
    /// Not a valid header, with the reason.
    Invalid(String),
}

/// Decodes a header at the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        return decode_binary(bytes);
    }
    if begins(bytes, LINE_BEGINS) {
        return decode_line(bytes);
    }
    Decoded::Invalid("not a PROXY header".to_owned())
}

/// Whether one is a prefix of the other.
fn begins(bytes: &[u8], like: &[u8]) -> bool {
    let common = bytes.len().min(like.len());
    bytes[..common] == like[..common]
}

fn decode_line(bytes: &[u8]) -> Decoded {
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE {
            Decoded::Incomplete
        } else {
            Decoded::Invalid(format!("no line end in the first {LONGEST_LINE} bytes"))
        };
    };
    let length = end + 1;
    match v1::Header::try_from(&bytes[..length]) {
        Ok(header) => Decoded::Header(
            length,
            match header.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(ip) => Some(pair(
                    (ip.source_address.into(), ip.source_port),
                    (ip.destination_address.into(), ip.destination_port),
                )),
                v1::Addresses::Tcp6(ip) => Some(pair(
                    (ip.source_address.into(), ip.source_port),
                    (ip.destination_address.into(), ip.destination_port),
                )),
            },
        ),
        Err(error) => Decoded::Invalid(error.to_string()),
    }
}

fn decode_binary(bytes: &[u8]) -> Decoded {
    let Some([high, low]) = bytes.get(FIXED - 2..FIXED) else { return Decoded::Incomplete };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    if rest > LONGEST_REST {
        return Decoded::Invalid(format!("{rest} bytes of addresses and extensions; the limit is {LONGEST_REST}"));
    }
    let header = match v2::Header::try_from(&bytes[..bytes.len().min(FIXED + rest)]) {
        Ok(header) => header,
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => return Decoded::Incomplete,
        Err(error) => return Decoded::Invalid(error.to_string()),
    };
    let named = match header.addresses {
        _ if header.command == v2::Command::Local => None,
        v2::Addresses::IPv4(ip) => {
            Some(pair((ip.source_address.into(), ip.source_port), (ip.destination_address.into(), ip.destination_port)))
        }
        v2::Addresses::IPv6(ip) => {
            Some(pair((ip.source_address.into(), ip.source_port), (ip.destination_address.into(), ip.destination_port)))
        }
        // The sender has no network addresses; use those of the connection.
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Decoded::Header(FIXED + rest, named)
}

fn pair(source: (IpAddr, u16), destination: (IpAddr, u16)) -> (SocketAddr, SocketAddr) {
    let plain = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    (plain(source), plain(destination))
}

/// Encodes a header with the client's and destination addresses, and in version 2 with the id of the session. Without
/// addresses, the header marks the connection as the proxy's own (`UNKNOWN`, `LOCAL`). Empty if headers are disabled.
#[must_use]
pub fn encode(version: SendHeader, addresses: Option<(SocketAddr, SocketAddr)>, session: Option<SessionId>) -> Vec<u8> {
    let addresses = addresses.map(|(source, destination)| one_family(source, destination));
    match (version, addresses) {
        (SendHeader::Disabled, _) => Vec::new(),
        (SendHeader::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (SendHeader::V1, Some((source, destination))) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port())
                .into_bytes()
        }
        (SendHeader::V2, None) => [v2::PROTOCOL_PREFIX, &[0x20, 0x00, 0, 0]].concat(),
        (SendHeader::V2, Some((source, destination))) => encode_binary(source, destination, session),
    }
}

fn encode_binary(source: SocketAddr, destination: SocketAddr, session: Option<SessionId>) -> Vec<u8> {
    let (family, addresses): (u8, u16) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    let extensions = session.map_or(0, |_| EXTENSION_HEAD + SessionId::DIGITS);
    let mut header = v2::PROTOCOL_PREFIX.to_vec();
    header.extend([0x21, family]);
    header.extend((addresses + extensions).to_be_bytes());
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => header.extend(ip.octets()),
            IpAddr::V6(ip) => header.extend(ip.octets()),
        }
    }
    header.extend(source.port().to_be_bytes());
    header.extend(destination.port().to_be_bytes());
    if let Some(session) = session {
        header.push(UNIQUE_ID);
        header.extend(SessionId::DIGITS.to_be_bytes());
        // The value is the text of the id, so that a server logs the same id as the proxy.
        header.extend(session.to_string().bytes());
    }
    header
}

/// Converts both addresses to one family, as a header has only one: IPv4 beside IPv6 becomes IPv4-mapped.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let six = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (six(source), six(destination))
}

#[cfg(test)]
mod tests;

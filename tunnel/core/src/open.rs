//! The request for a stream, and its refusal.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::frame::Reader;

/// The longest host name, as in DNS.
pub const MAX_HOST: usize = 253;
/// The longest text of a refusal.
pub const MAX_DETAIL: usize = 256;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Bytes.
    Tcp,
    /// Datagrams, which are dropped when they cannot be sent in time.
    Udp,
}

/// The target that the far end connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bytes or datagrams.
    pub protocol: Protocol,
    /// A name or an address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The request for a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The target.
    pub target: Target,
    /// The address of the client, for logs and PROXY headers at the far end.
    pub source: Option<SocketAddr>,
}

impl Open {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![match self.target.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
        }];
        out.extend_from_slice(&self.target.port.to_be_bytes());
        let host = &self.target.host.as_bytes()[..self.target.host.len().min(MAX_HOST)];
        out.push(u8::try_from(host.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(host);
        match self.source {
            None => out.push(0),
            Some(source) => {
                match source.ip() {
                    IpAddr::V4(ip) => {
                        out.push(4);
                        out.extend_from_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        out.push(6);
                        out.extend_from_slice(&ip.octets());
                    }
                }
                out.extend_from_slice(&source.port().to_be_bytes());
            }
        }
        out
    }

    /// Decodes a request. Bytes after the fields that this version knows are ignored: a later version sent them.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let protocol = match reader.u8()? {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => return None,
        };
        let port = reader.u16().filter(|port| *port != 0)?;
        let length = usize::from(reader.u8()?);
        let host = std::str::from_utf8(reader.bytes(length)?).ok()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || length > MAX_HOST || !host.chars().all(plain) {
            return None;
        }
        let ip: Option<IpAddr> = match reader.u8()? {
            0 => None,
            4 => Some(<[u8; 4]>::try_from(reader.bytes(4)?).ok()?.into()),
            6 => Some(<[u8; 16]>::try_from(reader.bytes(16)?).ok()?.into()),
            _ => return None,
        };
        let source = match ip {
            None => None,
            Some(ip) => Some(SocketAddr::new(ip, reader.u16()?)),
        };
        Some(Self { target: Target { protocol, host: host.to_owned(), port }, source })
    }
}

/// Why an end does not connect to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A list at the far end does not allow the target.
    NotAllowed = 1,
    /// The name does not resolve.
    UnknownName = 2,
    /// The connection was refused, or there is no route.
    Unreachable = 3,
    /// The target did not answer in time.
    TimedOut = 4,
    /// The far end takes no more streams.
    Full = 5,
    /// The far end is shutting down.
    Draining = 6,
    /// Any other reason, including reasons of later versions.
    Other = 7,
}

/// The answer that the far end did not connect to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of failure.
    pub reason: Reason,
    /// The message for a person; at most [`MAX_DETAIL`] bytes.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.reason as u8];
        let mut end = self.detail.len().min(MAX_DETAIL);
        while !self.detail.is_char_boundary(end) {
            end -= 1;
        }
        out.extend_from_slice(&self.detail.as_bytes()[..end]);
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (reason, detail) = payload.split_first()?;
        let detail = std::str::from_utf8(detail).ok()?;
        if detail.len() > MAX_DETAIL {
            return None;
        }
        let reason = match reason {
            1 => Reason::NotAllowed,
            2 => Reason::UnknownName,
            3 => Reason::Unreachable,
            4 => Reason::TimedOut,
            5 => Reason::Full,
            6 => Reason::Draining,
            _ => Reason::Other,
        };
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Some(Self { reason, detail: detail.chars().map(plain).collect() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_1_to_253_bytes() {
        let is_read = |length: u8| {
            let mut payload = vec![0, 0, 80, length];
            payload.extend(std::iter::repeat_n(b'a', usize::from(length)));
            payload.push(0);
            Open::decode(&payload).is_some()
        };
        assert_eq!([0, 1, 253, 254].map(is_read), [false, true, true, false]);
    }

    #[test]
    fn each_reason_is_read_as_it_was_written_and_one_of_a_later_version_is_another_one() {
        for reason in [
            Reason::NotAllowed,
            Reason::UnknownName,
            Reason::Unreachable,
            Reason::TimedOut,
            Reason::Full,
            Reason::Draining,
            Reason::Other,
        ] {
            let refusal = Refusal { reason, detail: String::new() };
            assert_eq!(Refusal::decode(&refusal.encode()), Some(refusal));
        }
        assert_eq!(Refusal::decode(&[200]).map(|refusal| refusal.reason), Some(Reason::Other));
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(host in "[a-z0-9.:-]{1,253}", port in 1u16.., udp: bool, source: Option<(IpAddr, u16)>) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let open = Open { target: Target { protocol, host, port }, source: source.map(SocketAddr::from) };
            let encoded = open.encode();
            prop_assert_eq!(Open::decode(&encoded), Some(open));
            for cut in 0..encoded.len() {
                prop_assert_eq!(Open::decode(&encoded[..cut]), None);
            }
        }

        #[test]
        fn a_refusal_is_cut_between_characters(detail in "\\PC{0,300}") {
            let refusal = Refusal { reason: Reason::TimedOut, detail: detail.clone() };
            let read = Refusal::decode(&refusal.encode()).unwrap();
            prop_assert!(detail.starts_with(&read.detail) && read.detail.len() + 4 > detail.len().min(MAX_DETAIL));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            Open::decode(&bytes);
            Refusal::decode(&bytes);
        }
    }
}

//! `[LOCAL:]PORT`: the mapping of a port of this machine to a port of the target.

use std::{fmt, str::FromStr};

/// Most bytes of the name of a port.
const NAME: usize = 63;

/// A port of this machine, and a port of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The port of this machine.
    pub local: Local,
    /// The port of the target.
    pub remote: Remote,
}

/// A port of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The same number as the port of the target.
    Same,
    /// Any free port.
    Any,
    /// This port.
    Port(u16),
}

/// A port of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// The port with this number.
    Number(u16),
    /// The port with this name.
    Name(String),
    /// The only port of the target.
    Only,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
            Self::Only => f.write_str("its only port"),
        }
    }
}

impl Remote {
    /// The name of the port; an only port has its number, if that is known.
    pub fn label(&self, number: Option<u16>) -> String {
        match (self, number) {
            (Self::Only, Some(number)) => number.to_string(),
            _ => self.to_string(),
        }
    }
}

impl Mapping {
    /// The mapping of the target's only port from the port of the same number.
    pub const ONLY: Self = Self { local: Local::Same, remote: Remote::Only };

    /// Returns the port to listen on, if the port of the target has this number. 0: any free port.
    pub fn local_port(&self, remote: Option<u16>) -> Option<u16> {
        match self.local {
            Local::Same => remote,
            Local::Any => Some(0),
            Local::Port(port) => Some(port),
        }
    }
}

impl FromStr for Mapping {
    type Err = BadMapping;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMapping::Form(text.to_owned());
        let ports = match text.rsplit_once('/') {
            None => text,
            Some((ports, "tcp" | "TCP")) => ports,
            Some((_, "udp" | "UDP")) => return Err(BadMapping::Udp),
            Some(_) => return Err(bad()),
        };
        let Some((local, remote)) = ports.split_once(':') else {
            return Ok(Self { local: Local::Same, remote: remote(ports).ok_or_else(bad)? });
        };
        let local = match local {
            "" => Local::Any,
            _ => match number(local).ok_or_else(bad)? {
                0 => Local::Any,
                port => Local::Port(port),
            },
        };
        let remote = match remote_or_only(remote) {
            // A lone ':' specifies no port.
            Some(Remote::Only) if local == Local::Any => None,
            remote => remote,
        };
        Ok(Self { local, remote: remote.ok_or_else(bad)? })
    }
}

fn remote_or_only(text: &str) -> Option<Remote> {
    if text.is_empty() { Some(Remote::Only) } else { remote(text) }
}

fn remote(text: &str) -> Option<Remote> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text).filter(|port| *port != 0).map(Remote::Number);
    }
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = text.len() <= NAME && text.bytes().all(is_inner);
    is_name.then(|| Remote::Name(text.to_owned()))
}

/// Parses a number without a sign.
fn number(text: &str) -> Option<u16> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Why a word is not a mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMapping {
    /// The word has another form.
    #[error("'{0}' is not [LOCAL:]PORT, as in 5432, 15432:5432, 15432:pg or :5432 (any free port)")]
    Form(String),
    /// The API server cannot forward datagrams.
    #[error(
        "the API server forwards TCP only: reach a UDP port through a PortForward with a gateway, or from a pod of the cluster"
    )]
    Udp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_number_or_a_name_and_perhaps_a_local_port() {
        let number = |local, number| Mapping { local, remote: Remote::Number(number) };
        let name = |local, name: &str| Mapping { local, remote: Remote::Name(name.to_owned()) };
        for (text, expected) in [
            ("5432", number(Local::Same, 5432)),
            ("5432/tcp", number(Local::Same, 5432)),
            ("15432:5432", number(Local::Port(15432), 5432)),
            (":5432", number(Local::Any, 5432)),
            ("0:5432", number(Local::Any, 5432)),
            ("pg", name(Local::Same, "pg")),
            ("15432:8-pg", name(Local::Port(15432), "8-pg")),
            ("15432:", Mapping { local: Local::Port(15432), remote: Remote::Only }),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_words_are_refused() {
        for bad in ["", ":", "0:", "0", "65536", "+1", "1:+2", "a:1", "1:2:3", "1:PG", "1/sctp", "1:0", "/tcp"] {
            assert_eq!(bad.parse::<Mapping>(), Err(BadMapping::Form(bad.to_owned())));
        }
        assert_eq!("53/udp".parse::<Mapping>(), Err(BadMapping::Udp));
    }

    #[test]
    fn the_local_port_is_that_of_the_target_unless_it_is_given() {
        let local = |text: &str, remote| text.parse::<Mapping>().expect("valid").local_port(remote);
        assert_eq!(local("pg", Some(5432)), Some(5432));
        assert_eq!(local("pg", None), None);
        assert_eq!(local("1:pg", None), Some(1));
        assert_eq!(local(":pg", None), Some(0));
    }

    #[test]
    fn an_only_port_is_called_by_its_number() {
        let label = |text: &str, number| text.parse::<Mapping>().expect("valid").remote.label(number);
        assert_eq!(label("1:", Some(5432)), "5432");
        assert_eq!(label("1:", None), "its only port");
        assert_eq!(label("1:pg", Some(5432)), "pg");
    }

    #[test]
    fn the_name_of_a_port_has_63_bytes_at_most_and_its_number_is_below_65536() {
        let is_name = |length: usize| "a".repeat(length).parse::<Mapping>().is_ok();
        assert_eq!([1, 63, 64].map(is_name), [true, true, false]);
        let is_port = |text: &str| text.parse::<Mapping>().is_ok();
        assert_eq!(["1", "65535", "65536", "65535:65535", "65536:1"].map(is_port), [true, true, false, true, false]);
    }
}

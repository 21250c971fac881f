//! Encodes a query to a name server, and judges messages about it, by the rules of glibc.
//!
//! A message counts only if it has the id and the question of the query. Then the order of glibc's `res_send` applies:
//! a server that fails or knows nothing is skipped, a truncated answer is queried again over TCP, and any other answer
//! is definite, even an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    answer::{Answer, Family},
    chain::{Data, Record, follow},
    wire::{self, Header, Reader, WireName},
};

/// The longest datagram that a query with EDNS asks for, in bytes, as in glibc.
pub const EDNS_SIZE: u16 = 1200;

/// The RD bit of a query: the server may ask others.
const RECURSION: u16 = 0x0100;
/// Class of the Internet.
const INTERNET: u16 = 1;
/// Type of an alias.
const CNAME: u16 = 5;
/// Type of the record that says that EDNS is supported.
const OPT: u16 = 41;

const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// As a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// The judgement of a message about a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The answer. No other server is queried, even if this one reports an error.
    Definite(Answer),
    /// This server fails or knows nothing. The next server is queried.
    NextServer(Answer),
    /// The datagram was truncated, or its records cannot be read. The same server is queried over TCP.
    OverTcp,
    /// The message does not answer the query. The wait continues.
    Ignored,
}

/// A query for the addresses of a full name in one family.
#[derive(Clone, Debug)]
pub struct Question {
    name: WireName,
    kind: u16,
    has_edns: bool,
}

impl Question {
    /// Creates a query for a full name; `None` if no message can hold the name.
    #[must_use]
    pub fn new(fqdn: &str, family: Family, has_edns: bool) -> Option<Self> {
        Some(Self { name: WireName::of(fqdn)?, kind: kind(family), has_edns })
    }

    /// Encodes the query as a message with this id.
    #[must_use]
    pub fn encode(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.name.as_bytes().len() + 28);
        message.extend(bytes([id, RECURSION, 1, 0, 0, self.has_edns.into()]));
        message.extend(self.name.as_bytes());
        message.push(0);
        message.extend(bytes([self.kind, INTERNET]));
        if self.has_edns {
            // The root as name, no flags, and no data.
            message.push(0);
            message.extend(bytes([OPT, EDNS_SIZE, 0, 0, 0]));
        }
        message
    }

    /// Judges a message as an answer to the query with this id.
    #[must_use]
    pub fn judge(&self, id: u16, message: &[u8], via: Via) -> Judgement {
        let mut reader = Reader::new(message);
        let Some(header) = reader.header() else { return Judgement::Ignored };
        if header.id != id || header.questions != 1 || !self.is_repeated(&mut reader) {
            return Judgement::Ignored;
        }
        if matches!(header.code, SERVFAIL | NOTIMP | REFUSED) {
            return Judgement::NextServer(error(header.code));
        }
        if is_lame(&header) {
            return Judgement::NextServer(failed(
                "the name server does not know the name and does not ask other servers".to_owned(),
            ));
        }
        if header.is_cut && via == Via::Udp {
            return Judgement::OverTcp;
        }
        match header.code {
            NXDOMAIN => return Judgement::Definite(Answer::NxDomain),
            NOERROR => {}
            code => return Judgement::Definite(error(code)),
        }
        match (self.records(reader, header.answers), via) {
            (Some(records), _) => {
                let records: Vec<_> = records.iter().map(Record::by_ref).collect();
                Judgement::Definite(follow(&self.name, &records))
            }
            (None, Via::Udp) => Judgement::OverTcp,
            (None, Via::Tcp) => {
                Judgement::Definite(Answer::Malformed { why: "the answer has records that cannot be read".to_owned() })
            }
        }
    }

    fn is_repeated(&self, reader: &mut Reader<'_>) -> bool {
        reader.question().is_some_and(|(name, kind, class)| name == self.name && (kind, class) == (self.kind, INTERNET))
    }

    /// The records of the answer section. An address of the wrong length is not an address.
    fn records(&self, mut reader: Reader<'_>, count: u16) -> Option<Vec<Record<WireName>>> {
        let mut records = Vec::new();
        for _ in 0..count {
            let wire::Record { owner, kind, ttl, data, mut at_data } = reader.record()?;
            let data = match kind {
                CNAME => Data::Alias(at_data.name()?),
                kind if kind == self.kind => address(kind, data).map_or(Data::Other, Data::Address),
                _ => Data::Other,
            };
            records.push(Record { owner, ttl, data });
        }
        Some(records)
    }
}

fn bytes<const N: usize>(words: [u16; N]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u16::to_be_bytes)
}

/// Type of the records with addresses of a family.
const fn kind(family: Family) -> u16 {
    match family {
        Family::Four => 1,
        Family::Six => 28,
    }
}

fn address(kind: u16, data: &[u8]) -> Option<IpAddr> {
    if kind == self::kind(Family::Four) {
        return <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// Whether a server refers to others, or is not authoritative for the name and says nothing about it.
fn is_lame(header: &Header) -> bool {
    let is_empty = header.answers == 0 && header.additional == 0;
    header.code == NOERROR && is_empty && !header.is_authoritative && !header.is_recursive
}

fn error(code: u8) -> Answer {
    let name = match code {
        FORMERR => "FORMERR",
        SERVFAIL => "SERVFAIL",
        NOTIMP => "NOTIMP",
        REFUSED => "REFUSED",
        _ => return failed(format!("the name server answered with error {code}")),
    };
    Answer::Failed { why: format!("the name server answered {name}"), is_servfail: code == SERVFAIL }
}

fn failed(why: String) -> Answer {
    Answer::Failed { why, is_servfail: false }
}

//! The frames of an enrolment: the request of an agent for a certificate, and the answer of the server.
//!
//! ```text
//! ENROL        proof u8 | (token [32] | namespace | name, if the proof is 1) | length u16 | request
//! CERTIFICATE  length u16 | certificate
//! REFUSED      reason u8 | detail
//! ```
//!
//! They are framed like the other first frames ([`crate::hello`]). A receiver ignores bytes after the fields that it
//! knows: a later version sent them.

use crate::frame::{HEADER, Kind, Malformed, Reader};
use crate::hello::{first, framed, plain, put_text, shortened, text};
use crate::identity::AgentName;
use crate::join::Token;
use crate::violation::Violation;

#[cfg(test)]
mod tests;

/// Most bytes of a request for a certificate.
pub const MAX_REQUEST: usize = 4 << 10;
/// Most bytes of a certificate.
pub const MAX_CERTIFICATE: usize = 8 << 10;
/// The longest text of a refusal, its reason and remedy, in bytes.
pub const MAX_REMEDY: usize = 512;

/// The proof of a client's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The certificate of the connection, which the client renews.
    Certificate,
    /// A token.
    Token {
        /// The agent for which it was issued.
        agent: AgentName,
        /// The token.
        token: Token,
    },
}

/// The first frame of a client that asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrol {
    /// The proof of the client's identity.
    pub proof: Proof,
    /// A certificate request, DER; at most [`MAX_REQUEST`] bytes are sent.
    pub request: Vec<u8>,
}

impl Enrol {
    /// Encodes the frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match &self.proof {
            Proof::Certificate => payload.push(0),
            Proof::Token { agent, token } => {
                payload.push(1);
                payload.extend_from_slice(token.secret());
                put_text(&mut payload, agent.namespace());
                put_text(&mut payload, agent.name());
            }
        }
        put_bytes(&mut payload, &self.request, MAX_REQUEST);
        framed(Kind::Enrol, &payload)
    }

    /// Reads the first frame of `bytes` and returns it with its length, or `None` while it is incomplete. Any other
    /// frame is refused before its payload arrives.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some((header, payload)) = first(bytes, &[Kind::Enrol])? else { return Ok(None) };
        let enrol = Self::decode(payload).ok_or(Malformed::Payload(Kind::Enrol))?;
        Ok(Some((enrol, HEADER + header.length)))
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let proof = match reader.u8()? {
            0 => Proof::Certificate,
            1 => {
                let token = Token::new(reader.bytes(32)?.try_into().ok()?);
                let namespace = text(&mut reader)?;
                let agent = AgentName::new(namespace, text(&mut reader)?).ok()?;
                Proof::Token { agent, token }
            }
            _ => return None,
        };
        Some(Self { proof, request: bytes_of(&mut reader, MAX_REQUEST)? })
    }
}

/// Why the server issues no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnrolReason {
    /// The token cannot be redeemed.
    Token = 1,
    /// The certificate request is not valid.
    Request = 2,
    /// The agent may not get a certificate.
    Agent = 3,
    /// The server cannot sign now.
    Unavailable = 4,
    /// Any other reason, including reasons of later versions.
    Other = 5,
}

impl EnrolReason {
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Token,
            2 => Self::Request,
            3 => Self::Agent,
            4 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

/// The server's refusal of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct EnrolRefusal {
    /// The kind of reason.
    pub reason: EnrolReason,
    /// The reason and the remedy, for the agent's owner; at most [`MAX_REMEDY`] bytes are sent.
    pub detail: String,
}

/// The server's answer to an [`Enrol`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The certificate, DER; at most [`MAX_CERTIFICATE`] bytes are sent.
    Issued(Vec<u8>),
    /// The server refuses.
    Refused(EnrolRefusal),
}

impl Outcome {
    /// Encodes the frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match self {
            Self::Issued(certificate) => {
                put_bytes(&mut payload, certificate, MAX_CERTIFICATE);
                framed(Kind::Certificate, &payload)
            }
            Self::Refused(refusal) => {
                payload.push(refusal.reason as u8);
                payload.extend_from_slice(shortened(&refusal.detail, MAX_REMEDY).as_bytes());
                framed(Kind::Refused, &payload)
            }
        }
    }

    /// Reads the first frame of `bytes` and returns it with its length, or `None` while it is incomplete. Any other
    /// frame is refused before its payload arrives.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some((header, payload)) = first(bytes, &[Kind::Certificate, Kind::Refused])? else { return Ok(None) };
        let outcome = match header.kind {
            Kind::Certificate => bytes_of(&mut Reader(payload), MAX_CERTIFICATE).map(Self::Issued),
            _ => refusal(payload).map(Self::Refused),
        };
        let outcome = outcome.ok_or(Malformed::Payload(header.kind))?;
        Ok(Some((outcome, HEADER + header.length)))
    }
}

fn refusal(payload: &[u8]) -> Option<EnrolRefusal> {
    let (reason, detail) = payload.split_first()?;
    Some(EnrolRefusal { reason: EnrolReason::of(*reason), detail: plain(detail, MAX_REMEDY)? })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let bytes = &bytes[..bytes.len().min(most)];
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn bytes_of(reader: &mut Reader<'_>, most: usize) -> Option<Vec<u8>> {
    let length = usize::from(reader.u16()?);
    if length > most {
        return None;
    }
    reader.bytes(length).map(<[u8]>::to_vec)
}

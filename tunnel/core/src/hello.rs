//! The first frames on a carrier: who dials, and whether it is admitted.
//!
//! ```text
//! HELLO    lowest u16 | highest u16 | boot [16] | epoch u64 | instance | program | count u8 | (boot [16] | epoch u64)...
//! WELCOME  version u16 | endpoint | boot [16] | resumed u8 | heartbeat u16 | named
//! named    peers | sidecars, each count u8 | id...
//! REFUSED  reason u8 | detail
//! ```
//!
//! Each is the payload of one frame of stream 0. Numbers are big-endian, and a text is preceded by its length in one
//! byte. A receiver ignores bytes after the fields that it knows: a later version sent them.

use std::{fmt, ops::RangeInclusive};

use crate::frame::{HEADER, Header, Kind, Malformed, Reader, put, split};
use crate::identity::{EndpointId, NameError, label};
use crate::open::MAX_DETAIL;
use crate::violation::Violation;

mod named;
#[cfg(test)]
mod tests;

pub use self::named::Named;

/// The versions of the protocol that this program speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;
/// The longest version string of a program.
pub const MAX_PROGRAM: usize = 64;
/// The most sessions that one agent names and has with endpoints. It may have as many with sidecars.
pub const MAX_SESSIONS: usize = 64;
/// The most other endpoints that an endpoint names.
pub const MAX_PEERS: usize = 64;

/// Identifies one run of a process; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub [u8; 16]);

/// Identifies one of the processes that share the identity of an agent: one DNS label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(String);

impl Instance {
    /// The instance of this name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        label("name of an instance", name).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies a session between an agent and an endpoint, within one run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName {
    /// The run of the endpoint.
    pub endpoint: Boot,
    /// The epoch of the first connection. It distinguishes the session from an earlier one with the same endpoint.
    pub born: u64,
}

/// The first frame of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions of the protocol that the agent speaks.
    pub versions: RangeInclusive<u16>,
    /// The run of the agent.
    pub boot: Boot,
    /// Higher than the epoch of any earlier connection of this run, to any endpoint.
    pub epoch: u64,
    /// Which of the agent's processes dials.
    pub instance: Instance,
    /// The version of the agent's program, for people; at most [`MAX_PROGRAM`] printable ASCII characters.
    pub program: String,
    /// The sessions that the agent has with endpoints, or with the sidecar that it dials; at most [`MAX_SESSIONS`].
    pub sessions: Vec<SessionName>,
}

impl Hello {
    /// Encodes the frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.extend_from_slice(&self.versions.start().to_be_bytes());
        payload.extend_from_slice(&self.versions.end().to_be_bytes());
        payload.extend_from_slice(&self.boot.0);
        payload.extend_from_slice(&self.epoch.to_be_bytes());
        put_text(&mut payload, self.instance.as_str());
        let program: String = self.program.chars().filter(char::is_ascii_graphic).take(MAX_PROGRAM).collect();
        put_text(&mut payload, &program);
        let sessions = &self.sessions[..self.sessions.len().min(MAX_SESSIONS)];
        payload.push(count(sessions.len()));
        for session in sessions {
            payload.extend_from_slice(&session.endpoint.0);
            payload.extend_from_slice(&session.born.to_be_bytes());
        }
        framed(Kind::Hello, &payload)
    }

    /// Reads the first frame of `bytes` and returns it with its length, or `None` while it is incomplete. Any other
    /// frame is refused before its payload arrives.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some((header, payload)) = first(bytes, &[Kind::Hello])? else { return Ok(None) };
        let hello = Self::decode(payload).ok_or(Malformed::Payload(Kind::Hello))?;
        Ok(Some((hello, HEADER + header.length)))
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let versions = reader.u16()?..=reader.u16()?;
        let boot = boot(&mut reader)?;
        let epoch = reader.u64()?;
        let instance = Instance::new(text(&mut reader)?).ok()?;
        let program = text(&mut reader)?;
        let is_valid = program.len() <= MAX_PROGRAM && program.bytes().all(|byte| byte.is_ascii_graphic());
        let count = usize::from(reader.u8()?);
        if versions.is_empty() || !is_valid || count > MAX_SESSIONS {
            return None;
        }
        let sessions = (0..count).map(|_| session(&mut reader)).collect::<Option<Vec<SessionName>>>()?;
        Some(Self { versions, boot, epoch, instance, program: program.to_owned(), sessions })
    }
}

/// The highest version that both ends speak.
pub fn agree(theirs: &RangeInclusive<u16>) -> Option<u16> {
    let highest = *theirs.end().min(VERSIONS.end());
    (theirs.contains(&highest) && VERSIONS.contains(&highest)).then_some(highest)
}

/// The answer to an agent that is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version of the protocol that both ends speak from here on.
    pub version: u16,
    /// The endpoint that answers.
    pub endpoint: EndpointId,
    /// The run of the endpoint.
    pub boot: Boot,
    /// Whether the session that the agent named resumes. Otherwise a new session begins, and the endpoint has no other
    /// session of this run of the agent.
    pub resumed: bool,
    /// How often the endpoint probes its carriers, in seconds.
    pub heartbeat: u16,
    /// Other endpoints and sidecars that the agent may dial.
    pub named: Named,
}

impl Welcome {
    fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.extend_from_slice(&self.version.to_be_bytes());
        put_text(&mut payload, self.endpoint.as_str());
        payload.extend_from_slice(&self.boot.0);
        payload.push(u8::from(self.resumed));
        payload.extend_from_slice(&self.heartbeat.to_be_bytes());
        self.named.put(&mut payload);
        payload
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let version = reader.u16()?;
        let endpoint = EndpointId::new(text(&mut reader)?).ok()?;
        let boot = boot(&mut reader)?;
        let resumed = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let heartbeat = reader.u16()?;
        let named = Named::read(&mut reader)?;
        Some(Self { version, endpoint, boot, resumed, heartbeat, named })
    }
}

/// Why an agent is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// The ends have no version of the protocol in common.
    Version = 1,
    /// A later connection of this run was admitted.
    Stale = 2,
    /// A later run of the same instance was admitted.
    Superseded = 3,
    /// The agent has its maximum of instances connected.
    Instances = 4,
    /// The agent is suspended.
    Suspended = 5,
    /// The agent's certificate no longer counts.
    Revoked = 6,
    /// The endpoint does not know the agent.
    Unknown = 7,
    /// The endpoint serves its maximum of instances.
    Full = 8,
    /// The endpoint is shutting down.
    Draining = 9,
    /// Any other reason, including reasons of later versions.
    Other = 10,
}

impl Denial {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Version,
        Self::Stale,
        Self::Superseded,
        Self::Instances,
        Self::Suspended,
        Self::Revoked,
        Self::Unknown,
        Self::Full,
        Self::Draining,
        Self::Other,
    ];

    /// The value of a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Stale => "stale",
            Self::Superseded => "superseded",
            Self::Instances => "instances",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Other => "other",
        }
    }

    /// Whether an endpoint that gives this reason has no session of the agent, so that the streams have ended.
    pub const fn ends_session(self) -> bool {
        !matches!(self, Self::Version | Self::Stale | Self::Other)
    }

    fn of(byte: u8) -> Self {
        Self::ALL.into_iter().find(|reason| *reason as u8 == byte).unwrap_or(Self::Other)
    }
}

/// The answer to an agent that is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Denied {
    /// The kind of reason.
    pub reason: Denial,
    /// The reason and the remedy, for the agent's owner; at most [`MAX_DETAIL`] bytes are sent.
    pub detail: String,
}

impl Denied {
    fn encode(&self) -> Vec<u8> {
        let mut payload = vec![self.reason as u8];
        payload.extend_from_slice(shortened(&self.detail, MAX_DETAIL).as_bytes());
        payload
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (reason, detail) = payload.split_first()?;
        Some(Self { reason: Denial::of(*reason), detail: plain(detail, MAX_DETAIL)? })
    }
}

/// The answer of an endpoint to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Frames of the session follow.
    Welcome(Welcome),
    /// The connection ends.
    Denied(Denied),
}

impl Answer {
    /// Encodes the frame.
    pub fn frame(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => framed(Kind::Welcome, &welcome.encode()),
            Self::Denied(denied) => framed(Kind::Refused, &denied.encode()),
        }
    }

    /// Reads the first frame of `bytes` and returns it with its length, or `None` while it is incomplete. Any other
    /// frame is refused before its payload arrives.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some((header, payload)) = first(bytes, &[Kind::Welcome, Kind::Refused])? else { return Ok(None) };
        let answer = match header.kind {
            Kind::Welcome => Welcome::decode(payload).map(Self::Welcome),
            _ => Denied::decode(payload).map(Self::Denied),
        };
        let answer = answer.ok_or(Malformed::Payload(header.kind))?;
        Ok(Some((answer, HEADER + header.length)))
    }
}

/// Takes the first frame of `bytes`. Refuses a frame of another kind by its first byte.
pub(crate) fn first<'a>(bytes: &'a [u8], expected: &[Kind]) -> Result<Option<(Header, &'a [u8])>, Violation> {
    let kind = bytes.first().map(|byte| Kind::of(*byte)).transpose()?;
    match kind.filter(|kind| !expected.contains(kind)) {
        Some(other) => Err(Violation::OutOfTurn(other)),
        None => Ok(split(bytes)?),
    }
}

pub(crate) fn framed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len());
    put(&mut out, kind, 0, 0, 0, payload);
    out
}

/// Appends a text. Texts were validated where they were made: at most 253 bytes.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(count(text.len()));
    out.extend_from_slice(text.as_bytes());
}

fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

pub(crate) fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let length = usize::from(reader.u8()?);
    std::str::from_utf8(reader.bytes(length)?).ok()
}

/// The beginning of a text, cut at a character boundary.
pub(crate) fn shortened(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A text of the other end, unless it has characters that could control a terminal.
pub(crate) fn plain(text: &[u8], most: usize) -> Option<String> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= most)?;
    Some(text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
}

fn boot(reader: &mut Reader<'_>) -> Option<Boot> {
    reader.bytes(16)?.try_into().ok().map(Boot)
}

fn session(reader: &mut Reader<'_>) -> Option<SessionName> {
    Some(SessionName { endpoint: boot(reader)?, born: reader.u64()? })
}

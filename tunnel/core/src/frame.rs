//! The frames on a carrier. A frame is a header of 16 bytes and a payload; all numbers are big-endian.
//!
//! ```text
//! kind u8 | flags u8 | length u16 | stream u32 | offset u64 | payload
//! ```

use thiserror::Error;

/// Bytes of a header.
pub const HEADER: usize = 16;
/// The longest payload of every kind but [`Kind::Datagram`]: with its header, one TLS record.
pub const MAX_PAYLOAD: usize = 16_384 - HEADER;
/// The longest datagram that UDP over IPv4 can carry.
pub const MAX_DATAGRAM: usize = 65_507;
/// The longest payload of [`Kind::Hello`], which an endpoint buffers for a peer that it does not know yet.
pub(crate) const MAX_HELLO: usize = 4096;
/// The longest payload of [`Kind::Enrol`], which a server buffers for a stranger.
pub(crate) const MAX_ENROL: usize = 5 * 1024;
/// On data: the direction ends after the payload. On [`Kind::Resume`]: no entries follow.
pub(crate) const FINAL: u8 = 1;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The positions that the sender has received in each of its streams; the first frames on a carrier.
    Resume = 1,
    /// Asks the peer to connect a new stream to a target.
    Open = 2,
    /// The target is connected; `offset` is the credit of the end that opened the stream.
    Opened = 3,
    /// The target is not connected, and the payload says why.
    Refused = 4,
    /// Bytes of a stream from `offset` on.
    Data = 5,
    /// `offset` is the number of bytes received, the payload the number that may be sent.
    Ack = 6,
    /// The stream ends at `offset` by a reset.
    Reset = 7,
    /// One datagram of a flow.
    Datagram = 8,
    /// Asks for a [`Kind::Pong`] with the same `offset`.
    Ping = 9,
    /// Answers a [`Kind::Ping`].
    Pong = 10,
    /// The sender takes no new streams on this carrier.
    GoAway = 11,
    /// The first frame of an agent.
    Hello = 12,
    /// Answers [`Kind::Hello`].
    Welcome = 13,
    /// Asks for a certificate; the first frame of a client that enrols, or of an agent that renews.
    Enrol = 14,
    /// Answers [`Kind::Enrol`].
    Certificate = 15,
    /// A kind of a later version, 128 or above, which the receiver may ignore.
    Ignored = 128,
    /// The other endpoints of the server, and the sidecars, when they have changed since [`Kind::Welcome`]. An agent
    /// may ignore it.
    Peers = 129,
}

impl Kind {
    pub(crate) fn of(byte: u8) -> Result<Self, Malformed> {
        Ok(match byte {
            1 => Self::Resume,
            2 => Self::Open,
            3 => Self::Opened,
            4 => Self::Refused,
            5 => Self::Data,
            6 => Self::Ack,
            7 => Self::Reset,
            8 => Self::Datagram,
            9 => Self::Ping,
            10 => Self::Pong,
            11 => Self::GoAway,
            12 => Self::Hello,
            13 => Self::Welcome,
            14 => Self::Enrol,
            15 => Self::Certificate,
            129 => Self::Peers,
            128 | 130.. => Self::Ignored,
            _ => return Err(Malformed::Kind(byte)),
        })
    }

    const fn bound(self) -> usize {
        match self {
            Self::Datagram => MAX_DATAGRAM,
            Self::Hello => MAX_HELLO,
            Self::Enrol => MAX_ENROL,
            _ => MAX_PAYLOAD,
        }
    }
}

/// Why bytes are not a frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The kind is unknown.
    #[error("a frame has the kind {0}, which this version does not know")]
    Kind(u8),
    /// The frame is longer than its kind allows.
    #[error("a frame of {length} bytes is longer than the {bound} that its kind allows")]
    Length {
        /// The length in the header.
        length: usize,
        /// The most that is allowed.
        bound: usize,
    },
    /// The payload does not match the kind.
    #[error("the payload of a frame of the kind {0:?} cannot be read")]
    Payload(Kind),
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The kind of the frame.
    pub kind: Kind,
    /// See [`FINAL`].
    pub flags: u8,
    /// Bytes of payload.
    pub length: usize,
    /// The stream or flow; 0 for the session.
    pub stream: u32,
    /// An absolute position, or a value defined by the kind.
    pub offset: u64,
}

/// Takes the first frame of `bytes`, or nothing while it is incomplete. A length beyond the bound is refused before the
/// payload arrives.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<(Header, &[u8])>, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, flags, l0, l1, s0, s1, s2, s3, offset @ ..] = *head;
    let kind = Kind::of(kind)?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length > kind.bound() {
        return Err(Malformed::Length { length, bound: kind.bound() });
    }
    let header = Header {
        kind,
        flags,
        length,
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
        offset: u64::from_be_bytes(offset),
    };
    Ok(rest.get(..length).map(|payload| (header, payload)))
}

/// Appends a frame. A payload beyond the bound of its kind is cut; callers never pass one.
pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, offset: u64, payload: &[u8]) {
    let payload = &payload[..payload.len().min(kind.bound())];
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    out.push(kind as u8);
    out.push(flags);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Reads numbers and strings from the front of a payload.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

//! Trains of datagrams: which datagrams cross the kernel boundary in one call, and where each of them begins.
//!
//! A train is a number of datagrams of one size, of which only the last may be shorter. The kernel joins them on
//! receipt (GRO) and splits them when they are sent (GSO), so each remains a datagram of its own.

use std::cell::Cell;

/// The most datagrams of a train that is sent: the limit of the first kernels with trains (`UDP_MAX_SEGMENTS`).
pub const MAX_DATAGRAMS: usize = 64;
/// Most bytes of a train that is sent. With its headers, a train has to fit into one IP packet of 65,535 bytes.
pub const MAX_BYTES: usize = 65_000;

/// Place of a datagram in the buffer that received it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Offset of the first byte.
    pub at: usize,
    /// Length; a datagram may be empty.
    pub len: usize,
}

/// The datagrams of a received train that begins at `at`: each of `stride` bytes, except that the last may be shorter. A
/// stride of 0 stands for one datagram.
pub fn split(at: usize, len: usize, stride: usize) -> impl Iterator<Item = Datagram> {
    let stride = if stride == 0 { len.max(1) } else { stride };
    let count = len.div_ceil(stride).max(1);
    (0..count).map(move |number| {
        let from = number * stride;
        Datagram { at: at + from, len: stride.min(len - from) }
    })
}

/// Number of datagrams, from the first on, that can be sent as one train, if no datagram may be larger than `largest`
/// bytes. 1 means that the first one is sent alone, 0 that there are no datagrams.
#[must_use]
pub fn train(datagrams: &[Datagram], largest: usize) -> usize {
    let Some(first) = datagrams.first() else { return 0 };
    if first.len > largest {
        return 1;
    }
    let (mut count, mut bytes) = (0, 0);
    for datagram in datagrams.iter().take(MAX_DATAGRAMS) {
        bytes += datagram.len;
        if datagram.len == 0 || datagram.len > first.len || bytes > MAX_BYTES {
            break;
        }
        count += 1;
        if datagram.len < first.len {
            break;
        }
    }
    count.max(1)
}

/// Size of the datagrams of a train except the last; `None` for a single datagram.
#[must_use]
pub fn segment(train: &[Datagram]) -> Option<u16> {
    let is_train = train.len() > 1;
    train.first().filter(|_| is_train).and_then(|first| u16::try_from(first.len).ok())
}

/// The bytes of a train in one piece: borrowed from `bytes`, or copied to `scratch` if they are not contiguous.
#[must_use]
pub fn join<'a>(bytes: &'a [u8], train: &[Datagram], scratch: &'a mut [u8]) -> &'a [u8] {
    let (Some(first), Some(last)) = (train.first(), train.last()) else { return &[] };
    let is_joined = train.iter().zip(train.iter().skip(1)).all(|(one, next)| one.at + one.len == next.at);
    if is_joined {
        return bytes.get(first.at..last.at + last.len).unwrap_or_default();
    }
    let mut length = 0;
    for datagram in train {
        let from = bytes.get(datagram.at..datagram.at + datagram.len).unwrap_or_default();
        let Some(to) = scratch.get_mut(length..length + from.len()) else { break };
        to.copy_from_slice(from);
        length += from.len();
    }
    scratch.get(..length).unwrap_or_default()
}

/// Which trains the kernel accepts from a flow, in one direction.
#[derive(Debug)]
pub struct Trains {
    /// Largest datagram of a train, in bytes.
    largest: Cell<usize>,
}

impl Default for Trains {
    /// Accepts all sizes, until the kernel refuses one.
    fn default() -> Self {
        Self { largest: Cell::new(usize::MAX) }
    }
}

impl Trains {
    /// Records that the kernel refused a train of datagrams of `len` bytes. Smaller datagrams may fit the path.
    fn refuse(&self, len: usize) {
        self.largest.set(self.largest.get().min(len.saturating_sub(1)));
    }
}

/// The result of sending a train, or a datagram alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent<E> {
    /// The train was sent, or dropped for good.
    Done,
    /// The kernel does not accept the datagrams as a train; nothing was sent.
    Refused,
    /// Nothing was sent, and the flow cannot send the rest either.
    Stopped(E),
}

/// Where sending stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop<E> {
    /// Number of datagrams before the first unsent one.
    pub from: usize,
    /// Number of datagrams of the train that was not sent.
    pub count: usize,
    /// The reason.
    pub why: E,
}

/// Sends datagrams in their order with `send`: those that can form a train together, unless `trains` is absent, and the
/// others alone. The datagrams of a refused train are sent alone.
///
/// # Errors
/// `send` has stopped.
pub fn pass<E>(
    datagrams: &[Datagram],
    trains: Option<&Trains>,
    mut send: impl FnMut(&[Datagram]) -> Sent<E>,
) -> Result<(), Stop<E>> {
    let mut from = 0;
    while let Some((rest, first)) = datagrams.get(from..).and_then(|rest| Some((rest, rest.first()?))) {
        let count = trains.map_or(1, |trains| train(rest, trains.largest.get()));
        match (send(rest.get(..count).unwrap_or(rest)), trains) {
            (Sent::Refused, Some(trains)) if count > 1 => trains.refuse(first.len),
            (Sent::Done | Sent::Refused, _) => from += count,
            (Sent::Stopped(why), _) => return Err(Stop { from, count, why }),
        }
    }
    Ok(())
}

//! The streams between two ends, over any carrier.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use thiserror::Error;

use crate::backlog::FreeBlocks;
use crate::frame::MAX_PAYLOAD;
use crate::hello::Named;
use crate::limits::Limits;
use crate::open::Refusal;
use crate::pool::Share;
use crate::stream::{Phase, Stream};
use crate::violation::Violation;

mod application;
mod carrier;
mod datagrams;
mod memory;
mod peers;
mod receive;
mod resume;
#[cfg(test)]
mod tests;
mod time;
mod transmit;

use carrier::Carrier;
use datagrams::Lane;

/// Identifies a stream within its session, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that dials; its streams have odd ids.
    Dialler,
    /// The end that is dialled; its streams have even ids.
    Listener,
}

/// An event for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The peer asks for a stream: [`Session::accept`] or [`Session::refuse`] it.
    Asked(StreamId),
    /// The peer refused a stream, which no longer exists.
    Refused(StreamId, Refusal),
    /// Bytes, room, datagrams, the answer or the end of a stream have arrived.
    Changed(StreamId),
    /// The carrier was silent for two heartbeats: dial another one beside it.
    Suspect,
    /// The carrier is lost: it was silent for too long, or the peer did not resume on it in time.
    CarrierLost,
    /// The peer takes no new streams on this carrier: dial another one.
    GoAway,
    /// The peer has named the other endpoints: [`Session::take_peers`].
    Peers,
    /// The session has ended, and its streams are given up.
    Lost(Loss),
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// No carrier came in time.
    #[error("no new connection was established within the grace period")]
    GraceExpired,
    /// The peer has restarted, and no longer knows the streams.
    #[error("the other end has restarted")]
    PeerRestarted,
    /// The application closed the session.
    #[error("the session was closed")]
    Closed,
}

/// Why a stream cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotOpened {
    /// The session already has [`Limits::streams`].
    #[error("the session has reached its maximum number of streams")]
    Streams,
    /// [`Limits::unanswered`] requests already wait.
    #[error("too many requests are not answered yet")]
    Unanswered,
    /// [`Limits::memory`], or the memory that the sessions of the process share, is already granted.
    #[error("the memory for windows is reserved for other streams")]
    Memory,
    /// The session has ended, or the peer takes no new streams.
    #[error("the session accepts no new streams")]
    Closed,
}

/// Counters since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Streams that the peer requested and that a bound refused.
    pub refused_streams: u64,
    /// Datagrams that were dropped because they waited for too long, were too many, or arrived before their flow was
    /// refused.
    pub dropped_datagrams: u64,
    /// Frames for streams that no longer exist.
    pub stray_frames: u64,
    /// Bytes resent on a new carrier.
    pub resent_bytes: u64,
}

/// The streams between two ends.
#[derive(Debug)]
pub struct Session {
    side: Side,
    limits: Limits,
    /// Boxed, because a map keeps up to half of its room free.
    streams: BTreeMap<u32, Box<Stream>>,
    next_id: u32,
    /// Unanswered requests: ours and theirs.
    unanswered: [usize; 2],
    /// Sums over all streams: bytes granted to the peer, bytes kept for resending, and bytes of datagrams.
    promised: u64,
    kept: u64,
    datagram_bytes: usize,
    free: FreeBlocks,
    /// The session's share of the memory of the process; `None`: only its own bounds apply.
    share: Option<Share>,
    carrier: Option<Carrier>,
    epoch: u64,
    unresumed: bool,
    paused_at: Option<Duration>,
    rtt: Duration,
    ready: VecDeque<u32>,
    untold: Vec<u32>,
    acks_due: Option<Duration>,
    starved: VecDeque<u32>,
    lane: Lane,
    notices: VecDeque<Notice>,
    draining: bool,
    peer_draining: bool,
    /// The names of other endpoints to be sent to the peer, and those received from it.
    peers_due: Option<Named>,
    peers_told: Option<Named>,
    lost: Option<Loss>,
    counters: Counters,
    /// How often a stream was visited; tests bound the cost of a frame or a carrier with it.
    #[cfg(test)]
    looks: usize,
}

impl Session {
    /// Creates a session without a carrier at `now`.
    pub fn new(side: Side, limits: Limits, now: Duration) -> Self {
        Self {
            side,
            limits,
            streams: BTreeMap::new(),
            next_id: match side {
                Side::Dialler => 1,
                Side::Listener => 2,
            },
            unanswered: [0; 2],
            promised: 0,
            kept: 0,
            datagram_bytes: 0,
            free: FreeBlocks::default(),
            share: None,
            carrier: None,
            epoch: 0,
            unresumed: false,
            paused_at: Some(now),
            rtt: Duration::ZERO,
            ready: VecDeque::new(),
            untold: Vec::new(),
            acks_due: None,
            starved: VecDeque::new(),
            lane: Lane::default(),
            notices: VecDeque::new(),
            draining: false,
            peer_draining: false,
            peers_due: None,
            peers_told: None,
            lost: None,
            counters: Counters::default(),
            #[cfg(test)]
            looks: 0,
        }
    }

    /// The next notice.
    pub fn poll(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front()?;
        if let Notice::Changed(id) = notice
            && let Some(stream) = self.streams.get_mut(&id.0)
        {
            stream.noticed = false;
        }
        Some(notice)
    }

    /// The counters.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of streams and flows that have not ended.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream or flow.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether the peer has given up every stream, so that it needs none of them again.
    pub fn is_given_up(&self) -> bool {
        self.streams.values().all(|stream| stream.receive.is_reset())
    }

    /// Bytes granted to the peer, and bytes kept for resending.
    pub const fn memory(&self) -> (u64, u64) {
        (self.promised, self.kept)
    }

    /// The round trip time of the carrier; zero before it is known.
    pub const fn round_trip(&self) -> Duration {
        self.rtt
    }

    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Dialler)
    }

    fn add(&mut self, id: u32, stream: Stream) {
        let new = sums(&stream);
        self.promised += new.promised;
        for (count, new) in self.unanswered.iter_mut().zip(new.unanswered) {
            *count += new;
        }
        self.count_memory();
        self.streams.insert(id, Box::new(stream));
    }

    /// Changes a stream and updates the sums. Then queues the stream for sending, notes an acknowledgement that is due,
    /// or forgets the stream, as the change requires.
    fn with<T>(&mut self, id: u32, change: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let stream: &mut Stream = self.streams.get_mut(&id)?;
        let before = sums(stream);
        let result = change(stream);
        let after = sums(stream);
        self.promised = self.promised + after.promised - before.promised;
        self.kept = self.kept + after.kept - before.kept;
        self.datagram_bytes = self.datagram_bytes + after.datagrams - before.datagrams;
        for (count, (after, before)) in
            self.unanswered.iter_mut().zip(after.unanswered.into_iter().zip(before.unanswered))
        {
            *count = *count + after - before;
        }
        self.count_memory();
        if after.kept < before.kept {
            self.feed_starved();
        }
        self.settle(id);
        Some(result)
    }

    /// Like [`Session::with`], for a change that fills or empties blocks.
    fn with_blocks<T>(&mut self, id: u32, change: impl FnOnce(&mut Stream, &mut FreeBlocks) -> T) -> Option<T> {
        let mut free = std::mem::take(&mut self.free);
        let result = self.with(id, |stream| change(stream, &mut free));
        self.free = free;
        self.count_memory();
        result
    }

    fn settle(&mut self, id: u32) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.is_over() {
            self.forget(id);
            return;
        }
        stream.ack_due |= stream.receive.is_urgent();
        if self.carrier.as_ref().is_none_or(|carrier| !carrier.resumed) {
            return;
        }
        if stream.has_frame() && !stream.queued {
            stream.queued = true;
            self.ready.push_back(id);
        }
        if stream.receive.is_untold() && !stream.untold {
            stream.untold = true;
            self.untold.push(id);
        }
    }

    fn forget(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let gone = sums(&stream);
        self.promised -= gone.promised;
        self.kept -= gone.kept;
        self.datagram_bytes -= gone.datagrams;
        for (count, gone) in self.unanswered.iter_mut().zip(gone.unanswered) {
            *count -= gone;
        }
        self.count_memory();
        if gone.kept > 0 {
            self.feed_starved();
        }
        self.pass_over();
    }

    /// Bounds the queues. A queue that has grown beyond twice the number of streams, and a few, loses the ids of
    /// streams that no longer exist.
    fn pass_over(&mut self) {
        let most = 2 * self.streams.len() + 64;
        let streams = &self.streams;
        if self.ready.len() > most {
            self.ready.retain(|id| streams.contains_key(id));
        }
        if self.starved.len() > most {
            self.starved.retain(|id| streams.contains_key(id));
        }
    }

    /// Wakes streams that had no memory to write: one for each frame that fits into the memory. When no byte is kept,
    /// no acknowledgement would wake the others.
    fn feed_starved(&mut self) {
        let free = self.keepable();
        let mut frames = if self.kept == 0 { u64::MAX } else { free.div_ceil(MAX_PAYLOAD as u64) };
        while frames > 0 {
            let Some(id) = self.starved.pop_front() else { return };
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.starved = false;
                self.notice(id);
                frames -= 1;
            }
        }
    }

    fn notice(&mut self, id: u32) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        // The application may never have heard of a stream that was refused.
        if !stream.noticed && stream.phase != Phase::Refusing {
            stream.noticed = true;
            self.notices.push_back(Notice::Changed(StreamId(id)));
        }
    }
}

struct Sums {
    promised: u64,
    kept: u64,
    datagrams: usize,
    unanswered: [usize; 2],
}

fn sums(stream: &Stream) -> Sums {
    Sums {
        promised: stream.receive.promised(),
        kept: stream.send.kept(),
        datagrams: stream.datagram_bytes(),
        unanswered: [stream.phase == Phase::Opening, stream.phase == Phase::Asked].map(usize::from),
    }
}

//! One stream, or one flow of datagrams.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{DATAGRAM_COST, EARLY_CREDIT, FLOW_BYTES};
use crate::open::{Open, Protocol, Refusal};
use crate::queue::shrink;

pub(crate) mod receive;
pub(crate) mod send;

use receive::ReceiveHalf;
use send::SendHalf;

/// How the bytes of a direction end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender has no more bytes; the other direction continues.
    Finished,
    /// The sender gave the stream up, in both directions.
    Reset,
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// This end asked, and the peer has not answered.
    Opening,
    /// The peer asked, and the application has not answered.
    Asked,
    /// The application has refused, and the refusal waits to be sent.
    Refusing,
    /// Connected.
    Open,
}

/// The content of a frame before a stream is connected.
#[derive(Debug)]
pub(crate) enum Word {
    /// The request, by either end.
    Request(Open),
    /// The answer that the target is not connected.
    Refusal(Refusal),
}

/// The datagrams of a flow that wait for its reader.
#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Waiting {
    fn pop(&mut self) -> Option<Vec<u8>> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= DATAGRAM_COST + datagram.len();
        Some(datagram)
    }
}

/// Most streams are connected and idle, so state that only others need is boxed.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what is due, and which queues hold the stream, are independent")]
pub(crate) struct Stream {
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
    /// The request until it is answered, or the refusal.
    pub(crate) word: Option<Box<Word>>,
    /// `None`: no datagram has come.
    waiting: Option<Box<Waiting>>,
    pub(crate) phase: Phase,
    is_flow: bool,
    /// Whether a request or an answer is due on this carrier.
    pub(crate) word_due: bool,
    /// Whether the request was sent to the peer on any carrier.
    pub(crate) asked: bool,
    /// Whether an acknowledgement is due.
    pub(crate) ack_due: bool,
    /// Whether the application has taken the end.
    pub(crate) end_taken: bool,
    /// Whether the stream is in the queue for sending.
    pub(crate) queued: bool,
    /// Whether the stream is in the list for delayed acknowledgements.
    pub(crate) untold: bool,
    /// Whether the stream is in the queue of notices.
    pub(crate) noticed: bool,
    /// Whether the stream waits for memory to write.
    pub(crate) starved: bool,
    /// Whether the peer has listed the stream on this carrier.
    pub(crate) listed: bool,
}

impl Stream {
    pub(crate) fn ours(open: Open, window: u64, now: Duration) -> Self {
        Self::new(open, Phase::Opening, window, window, now)
    }

    pub(crate) fn theirs(open: Open, window: u64, now: Duration) -> Self {
        Self::new(open, Phase::Asked, window, EARLY_CREDIT, now)
    }

    fn new(open: Open, phase: Phase, window: u64, promised: u64, now: Duration) -> Self {
        Self {
            send: SendHalf::new(EARLY_CREDIT),
            receive: ReceiveHalf::new(window, promised, now),
            is_flow: open.target.protocol == Protocol::Udp,
            word: Some(Box::new(Word::Request(open))),
            waiting: None,
            phase,
            word_due: phase == Phase::Opening,
            asked: false,
            ack_due: false,
            end_taken: false,
            queued: false,
            untold: false,
            noticed: false,
            starved: false,
            listed: false,
        }
    }

    pub(crate) const fn is_flow(&self) -> bool {
        self.is_flow
    }

    /// The request, until it is answered.
    pub(crate) fn request(&self) -> Option<&Open> {
        match self.word.as_deref() {
            Some(Word::Request(open)) => Some(open),
            Some(Word::Refusal(_)) | None => None,
        }
    }

    /// Notes that the target is connected, or that the wait for the answer has ended. The request is no longer needed.
    pub(crate) fn begin(&mut self) {
        self.phase = Phase::Open;
        self.word = None;
    }

    /// Notes that the target is not connected. The peer gets the reason.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.phase = Phase::Refusing;
        self.word = Some(Box::new(Word::Refusal(refusal)));
        self.word_due = true;
    }

    /// Whether a frame of the stream can be sent now.
    pub(crate) const fn has_frame(&self) -> bool {
        self.word_due || self.ack_due || self.send.has_piece()
    }

    /// Whether the stream can be forgotten: both ends know that it has ended, or the peer need not know.
    pub(crate) const fn is_over(&self) -> bool {
        let told = self.receive.has_end() && !self.receive.is_untold_end();
        if self.send.is_reset() {
            let unheard = matches!(self.phase, Phase::Opening) && !self.asked;
            // When both ends gave the stream up, each acknowledges the reset of the other.
            let heard = self.send.is_done() && (told || !self.receive.is_reset());
            // A peer that has both ends may forget the stream before the reset reaches it.
            let complete = told && !self.receive.is_reset() && self.send.finish_is_heard();
            return unheard || heard || complete;
        }
        let unanswered = matches!(self.phase, Phase::Asked) && self.receive.is_reset();
        told && self.end_taken && (self.send.is_done() || unanswered)
    }

    /// Whether the stream is complete although the peer does not list it on a new carrier. If so, the peer has
    /// forgotten it because all was done; otherwise the peer has lost it.
    pub(crate) const fn is_complete_without_peer(&self) -> bool {
        self.is_reset() || (self.receive.has_end() && self.send.end_sent())
    }

    /// Whether either end gave the stream up.
    pub(crate) const fn is_reset(&self) -> bool {
        self.send.is_reset() || self.receive.is_reset()
    }

    /// Keeps a datagram for the reader, as far as the session has `spare` bytes. Returns how many were dropped: older
    /// datagrams, or this one.
    pub(crate) fn keep_datagram(&mut self, datagram: &[u8], spare: usize) -> u64 {
        let waiting = self.waiting.get_or_insert_default();
        let most = FLOW_BYTES.min(waiting.bytes.saturating_add(spare));
        let cost = DATAGRAM_COST + datagram.len();
        if cost > most {
            return 1;
        }
        let mut dropped = 0;
        while waiting.bytes + cost > most && waiting.pop().is_some() {
            dropped += 1;
        }
        waiting.bytes += cost;
        waiting.datagrams.push_back(datagram.to_vec());
        dropped
    }

    pub(crate) fn take_datagram(&mut self) -> Option<Vec<u8>> {
        let waiting = self.waiting.as_mut()?;
        let datagram = waiting.pop();
        // Waiting datagrams count against the memory of the session, and their places must not outlast them.
        shrink(&mut waiting.datagrams);
        datagram
    }

    /// Drops the datagrams that wait, because nobody will read them, and returns their number.
    pub(crate) fn drop_datagrams(&mut self) -> u64 {
        self.waiting.take().map_or(0, |waiting| waiting.datagrams.len() as u64)
    }

    pub(crate) fn datagram_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{Reason, Target};
    use crate::queue::FEW;

    fn stream() -> Stream {
        let target = Target { protocol: Protocol::Tcp, host: "db".to_owned(), port: 5432 };
        Stream::theirs(Open { target, source: None }, 1, Duration::ZERO)
    }

    #[test]
    fn a_stream_fits_into_144_bytes_with_what_the_allocator_adds() {
        assert!(size_of::<Stream>() <= 144 - 4, "{} bytes", size_of::<Stream>());
    }

    #[test]
    fn the_places_of_a_burst_of_datagrams_go_with_the_last_one_and_those_of_a_few_stay() {
        let mut flow = stream();
        let mut places_after = |count: usize| {
            let dropped: u64 = (0..count).map(|_| flow.keep_datagram(&[], usize::MAX)).sum();
            let taken = std::iter::from_fn(|| flow.take_datagram()).count();
            assert_eq!((dropped, taken, flow.datagram_bytes()), (0, count, 0));
            flow.waiting.as_ref().map_or(0, |waiting| waiting.datagrams.capacity())
        };
        let few = places_after(1);
        assert!(few > 0 && few <= FEW, "a flow of single datagrams takes no memory for each: {few}");
        let many = places_after(1000);
        assert!(many <= FEW, "{many} places");
    }

    #[test]
    fn a_request_is_kept_until_it_is_answered() {
        let [mut connected, mut refused] = [stream(), stream()];
        assert_eq!(connected.request().map(|open| open.target.port), Some(5432));
        connected.begin();
        assert!(connected.word.is_none() && connected.phase == Phase::Open);
        refused.refuse(Refusal { reason: Reason::Full, detail: String::new() });
        assert!(refused.request().is_none() && refused.phase == Phase::Refusing && refused.word_due);
    }
}

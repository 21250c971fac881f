//! One direction of a relay: bytes from a source to a sink.
//!
//! An idle direction holds no buffer. Bytes are read into the worker's scratch buffer and written at once. Only bytes
//! that the sink does not accept are kept, charged to the process budget, and reading stops until they are written:
//! this is the backpressure. When the budget is exhausted, bytes are peeked, written, and then consumed exactly as far
//! as they were written, so that sessions with reading peers keep running. A direction that streams is spliced.

mod copy;
mod end;
mod splice;
mod turn;

use std::task::{Context, Poll, ready};

use socket2::SockRef;

pub use self::end::{Delay, End};
use super::throttle::Throttle;
use crate::{
    core::{limits::limiter::Bucket, workers::turns::Place},
    pipes::PooledPipe,
    worker::Worker,
};

/// Read size of a new direction, or after the sink was full.
const SMALL_READ: usize = 16 * 1024;
/// A read of fewer bytes is not streaming, nor is a splice, unless its pipe is small.
const STREAMING: usize = 32 * 1024;
/// Consecutive reads of at least [`STREAMING`] that count as streaming.
const STREAM_AFTER: u8 = 3;
/// Reads before yielding to other tasks of the worker.
const TURNS: usize = 16;
/// Bytes written before yielding to other tasks of the worker, so that no poll of a fast stream takes long.
const POLL_BYTES: usize = 256 * 1024;

/// Progress of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The source may send.
    Open,
    /// The source has finished; kept bytes are not written yet.
    Finishing,
    /// The FIN was passed to the sink.
    Finished,
    /// The source is broken; kept bytes are not written yet.
    Cut,
    /// The sink is broken; nothing can be written.
    Dead,
}

#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    at: usize,
}

/// Bytes on their way from a source to a sink. An idle session has two, so state that few have is boxed.
#[derive(Debug)]
pub struct Direction {
    /// Progress of the direction.
    pub phase: Phase,
    /// Whether the sink is full.
    pub blocked: bool,
    kept: Option<Box<Kept>>,
    /// `None` until the direction has a pipe or waits for its turn for the first time.
    streamed: Option<Box<Streamed>>,
    /// How often the size of a read was doubled.
    doublings: u8,
    streak: u8,
    streaming: bool,
    /// Whether the stream was counted as copied for lack of a pipe.
    lacked_pipe: bool,
    throttle: Throttle,
}

/// The state of a direction while it streams.
#[derive(Debug, Default)]
struct Streamed {
    /// A pipe, and the number of bytes in it.
    pipe: Option<(PooledPipe, usize)>,
    /// Place in the queue of the worker's streams.
    place: Option<Place>,
    /// Whether the direction was counted as spliced.
    spliced: bool,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            phase: Phase::Open,
            blocked: false,
            kept: None,
            streamed: None,
            doublings: 0,
            streak: 0,
            streaming: false,
            lacked_pipe: false,
            throttle: Throttle::default(),
        }
    }
}

enum Moved {
    /// This many bytes reached the sink, and more may follow.
    Bytes(usize),
    /// The phase changed.
    Phase,
}

impl Direction {
    /// Whether nothing is left to write or read.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        match self.phase {
            Phase::Open | Phase::Finishing => false,
            Phase::Finished | Phase::Dead => true,
            Phase::Cut => self.kept.is_none() && self.pipe().is_none(),
        }
    }

    /// Whether bytes wait for the sink.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.blocked || self.kept.is_some() || self.is_pipe_filled()
    }

    /// Bytes that wait here for the sink, kept or in a pipe.
    #[must_use]
    pub fn held(&self) -> u64 {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        (kept + self.pipe().map_or(0, |(_, left)| *left)) as u64
    }

    fn pipe(&self) -> Option<&(PooledPipe, usize)> {
        self.streamed.as_ref()?.pipe.as_ref()
    }

    fn pipe_mut(&mut self) -> Option<&mut (PooledPipe, usize)> {
        self.streamed.as_mut()?.pipe.as_mut()
    }

    fn is_pipe_filled(&self) -> bool {
        self.pipe().is_some_and(|(_, left)| *left > 0)
    }

    /// Whether the direction is spliced while there are pipes.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Moves the bytes that can be moved now; calls `count` with the number of bytes that reached the sink.
    ///
    /// Ready when the direction has nothing left to do, pending when a waker is registered.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limit: &Bucket,
        (from, to): (&End, &End),
        count: &dyn Fn(usize),
    ) -> Poll<()> {
        ready!(self.poll_turn(cx, worker, (from, to)));
        let mut moved = 0;
        let polled = self.poll_steps(cx, worker, limit, (from, to), &mut |bytes| {
            count(bytes);
            moved += bytes;
            moved < POLL_BYTES
        });
        if self.streaming {
            worker.turns.moved(moved);
        }
        if let Some(polled) = polled {
            return polled;
        }
        if self.poll_turn(cx, worker, (from, to)).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Moves bytes as long as `may_go_on`, which gets the number of bytes of each move. `None`: there is more to do.
    fn poll_steps(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limit: &Bucket,
        (from, to): (&End, &End),
        may_go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Poll<()>> {
        for _ in 0..TURNS {
            if self.is_drained() {
                return Some(Poll::Ready(()));
            }
            match self.poll_step(cx, worker, limit, from, to) {
                Poll::Pending => return Some(Poll::Pending),
                Poll::Ready(Moved::Bytes(0) | Moved::Phase) => {}
                Poll::Ready(Moved::Bytes(bytes)) => {
                    if !may_go_on(bytes) {
                        break;
                    }
                }
            }
        }
        None
    }

    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limit: &Bucket,
        from: &End,
        to: &End,
    ) -> Poll<Moved> {
        if self.kept.is_some() {
            return self.poll_flush(cx, worker, to);
        }
        if self.is_pipe_filled() {
            return self.poll_splice_out(cx, worker, to);
        }
        match self.phase {
            Phase::Open => {}
            Phase::Finishing => {
                self.release(worker);
                self.finish(to);
                return Poll::Ready(Moved::Phase);
            }
            Phase::Finished | Phase::Cut | Phase::Dead => {
                self.release(worker);
                return Poll::Ready(Moved::Phase);
            }
        }
        if self.streaming && self.pipe().is_none() {
            // A pipe is lent for bytes. A stream without any counts as neither spliced nor copied.
            if !from.read_anyway.get() {
                ready!(poll_source(cx, from));
            }
            self.borrow_pipe(worker);
        }
        if self.pipe().is_some() {
            return self.poll_splice_in(cx, worker, limit, from);
        }
        if self.blocked {
            ready!(self.poll_sink(cx, to));
        }
        self.poll_copy(cx, worker, limit, from, to)
    }

    /// Passes the FIN of the source on.
    fn finish(&mut self, to: &End) {
        let sent = SockRef::from(&to.stream).shutdown(std::net::Shutdown::Write).is_ok();
        to.broken.set(to.broken.get() || !sent);
        self.phase = if sent { Phase::Finished } else { Phase::Dead };
    }

    fn poll_sink(&mut self, cx: &mut Context<'_>, to: &End) -> Poll<()> {
        match to.stream.poll_write_ready(cx) {
            Poll::Ready(_) => {
                self.blocked = false;
                Poll::Ready(())
            }
            Poll::Pending => {
                to.bound_unsent();
                self.blocked = true;
                Poll::Pending
            }
        }
    }

    fn source_ended(&mut self, from: &End) -> Moved {
        if from.broken.get() || from.is_reset() {
            return self.cut(from);
        }
        self.phase = Phase::Finishing;
        Moved::Phase
    }

    fn cut(&mut self, from: &End) -> Moved {
        from.broken.set(true);
        self.phase = Phase::Cut;
        Moved::Phase
    }

    fn sink_broke(&mut self, worker: &Worker, to: &End) {
        to.broken.set(true);
        self.phase = Phase::Dead;
        self.abandon(worker);
    }

    /// Whether the direction waits for bandwidth.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.throttle.is_waiting()
    }

    /// Ends a wait for bandwidth; returns whether there was one.
    pub fn hurry(&mut self) -> bool {
        self.throttle.hurry()
    }

    /// Returns promised but unread bytes to the limit.
    pub fn leave(&mut self, limit: &Bucket) {
        self.throttle.end(limit);
    }

    /// Drops kept bytes.
    pub fn abandon(&mut self, worker: &Worker) {
        self.drop_kept(worker);
        self.release(worker);
        self.blocked = false;
    }

    fn drop_kept(&mut self, worker: &Worker) {
        if let Some(kept) = self.kept.take() {
            worker.process.budget.give(kept.bytes.len());
        }
    }
}

fn poll_source(cx: &mut Context<'_>, from: &End) -> Poll<()> {
    from.stream.poll_read_ready(cx).map(|_| ())
}

#[cfg(all(test, target_os = "linux"))]
mod tests;

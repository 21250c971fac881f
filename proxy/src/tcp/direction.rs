//! One direction of a relay: bytes from a source to a sink.
//!
//! An idle direction holds no buffer. Bytes are read into the worker's scratch buffer and written at once. Only what
//! the sink does not accept is kept, charged to the process budget, and reading stops until it is written: this is the
//! backpressure. When the budget is exhausted, bytes are peeked, written, and then consumed exactly as far as they were
//! written, so that sessions with reading peers keep running. A direction that streams is spliced.

mod splice;

use std::{
    cell::Cell,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::throttle::Throttle;
use crate::core::limiter::Bucket;
use crate::worker::{SCRATCH_BYTES, Worker, pipes::PooledPipe};

/// Read size of a new direction, or after the sink was full.
const SMALL_READ: usize = 16 * 1024;
/// A read or splice of fewer bytes is not streaming.
const STREAMING: usize = 32 * 1024;
/// Consecutive full reads that count as streaming.
const STREAM_AFTER: u8 = 3;
/// Reads before yielding to other tasks of the worker.
const TURNS: usize = 16;

/// One end of a session.
#[derive(Debug)]
pub struct End {
    /// The connection.
    pub stream: TcpStream,
    /// Whether any call has returned an error. The system reports a reset once; after that it looks like a clean end.
    pub broken: Cell<bool>,
    /// Set for one read that ignores readiness.
    pub read_anyway: Cell<bool>,
    /// Whether the connection ends by FIN; otherwise, as after a panic, it is reset.
    pub clean: Cell<bool>,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.clean.get() {
            // Fails if the connection is already gone.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl End {
    /// An open connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, broken: Cell::new(false), read_anyway: Cell::new(false), clean: Cell::new(false) }
    }
}

/// Progress of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The source may send.
    Open,
    /// The source has finished; kept bytes are still to be written.
    Finishing,
    /// The FIN was passed to the sink.
    Finished,
    /// The source is broken; kept bytes are still to be written.
    Cut,
    /// The sink is broken; nothing can be written.
    Dead,
}

#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    at: usize,
}

/// Bytes on their way from a source to a sink.
#[derive(Debug)]
pub struct Direction {
    /// Progress of the direction.
    pub phase: Phase,
    /// Whether the sink is full.
    pub blocked: bool,
    kept: Option<Kept>,
    pipe: Option<(PooledPipe, usize)>,
    read_size: usize,
    streak: u8,
    streaming: bool,
    throttle: Throttle,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            phase: Phase::Open,
            blocked: false,
            kept: None,
            pipe: None,
            read_size: SMALL_READ,
            streak: 0,
            streaming: false,
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
            Phase::Cut => self.kept.is_none() && self.pipe.is_none(),
        }
    }

    /// Whether bytes wait for the sink.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.blocked || self.kept.is_some() || self.pipe.as_ref().is_some_and(|(_, left)| *left > 0)
    }

    /// Moves what can be moved now; calls `count` with the number of bytes that reached the sink.
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
        for _ in 0..TURNS {
            if self.is_drained() {
                return Poll::Ready(());
            }
            match ready!(self.poll_step(cx, worker, limit, from, to)) {
                Moved::Bytes(0) | Moved::Phase => {}
                Moved::Bytes(bytes) => count(bytes),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
        if self.pipe.as_ref().is_some_and(|(_, left)| *left > 0) {
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
        if self.streaming && self.pipe.is_none() {
            self.pipe = worker.pipes.lend().map(|pipe| (pipe, 0));
        }
        if self.pipe.is_some() {
            return self.poll_splice_in(cx, worker, limit, from);
        }
        if self.blocked {
            ready!(self.poll_sink(cx, to));
        }
        self.poll_copy(cx, worker, limit, from, to)
    }

    /// Passes the FIN of the source on.
    fn finish(&mut self, to: &End) {
        let told = SockRef::from(&to.stream).shutdown(std::net::Shutdown::Write).is_ok();
        to.broken.set(to.broken.get() || !told);
        self.phase = if told { Phase::Finished } else { Phase::Dead };
    }

    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limit: &Bucket,
        from: &End,
        to: &End,
    ) -> Poll<Moved> {
        if !from.read_anyway.get() {
            ready!(poll_source(cx, from));
        }
        let asked = ready!(self.throttle.poll(cx, limit, &worker.process.clock, self.read_size));
        let anyway = from.read_anyway.take();
        let budget = &worker.process.budget;
        if !budget.take(asked) {
            from.read_anyway.set(anyway);
            let moved = self.copy_by_peeking(worker, from, to, asked.min(SMALL_READ));
            let used = if let Moved::Bytes(bytes) = moved { bytes } else { 0 };
            limit.give(asked.saturating_sub(used));
            return Poll::Ready(moved);
        }
        let mut scratch = worker.scratch.borrow_mut();
        let read = if anyway {
            recv(&from.stream, &mut scratch[..asked], RecvFlags::DONTWAIT).map(|read| read.1).map_err(io::Error::from)
        } else {
            from.stream.try_read(&mut scratch[..asked])
        };
        limit.give(asked - read.as_ref().map_or(0, |read| *read));
        let moved = match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Moved::Bytes(0),
            Err(_) => self.cut(from),
            Ok(0) => self.source_ended(from),
            Ok(read) => {
                if read < asked {
                    became_empty(from);
                } else if anyway {
                    // No readiness event will report the remaining bytes.
                    from.read_anyway.set(true);
                }
                Moved::Bytes(self.write(&scratch[..read], read == asked, worker, to))
            }
        };
        // Only the kept bytes stay charged to the budget.
        let kept = self.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        budget.give(asked - kept);
        Poll::Ready(moved)
    }

    /// Writes at once and keeps what the sink does not accept. Returns the number of bytes written.
    fn write(&mut self, bytes: &[u8], full_read: bool, worker: &Worker, to: &End) -> usize {
        let written = match to.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.sink_broke(worker, to);
                return 0;
            }
        };
        if written < bytes.len() {
            self.kept = Some(Kept { bytes: bytes[written..].into(), at: 0 });
            self.blocked = true;
            self.read_size = SMALL_READ;
            self.streak = 0;
        } else if full_read {
            self.streak = self.streak.saturating_add(1);
            if self.read_size >= STREAMING && self.streak >= STREAM_AFTER {
                self.streaming = true;
            }
            self.read_size = (self.read_size * 2).min(SCRATCH_BYTES);
        } else {
            self.streak = 0;
        }
        written
    }

    /// Copies without a buffer budget: peek, write, then consume what was written.
    fn copy_by_peeking(&mut self, worker: &Worker, from: &End, to: &End, most: usize) -> Moved {
        let mut scratch = worker.scratch.borrow_mut();
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = match recv(&from.stream, &mut scratch[..most], flags) {
            Ok((_, 0)) => return self.source_ended(from),
            Ok((_, seen)) => seen,
            Err(Errno::AGAIN) => {
                from.read_anyway.set(false);
                became_empty(from);
                return Moved::Bytes(0);
            }
            Err(_) => return self.cut(from),
        };
        match to.stream.try_write(&scratch[..seen]) {
            Ok(written) => {
                let mut taken = 0;
                // Urgent data may split what was peeked as one.
                while taken < written {
                    match recv(&from.stream, &mut scratch[taken..written], RecvFlags::DONTWAIT) {
                        Ok((_, read)) if read > 0 => taken += read,
                        _ => return self.cut(from),
                    }
                }
                Moved::Bytes(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Moved::Bytes(0)
            }
            Err(_) => {
                drop(scratch);
                self.sink_broke(worker, to);
                Moved::Phase
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, worker: &Worker, to: &End) -> Poll<Moved> {
        ready!(self.poll_sink(cx, to));
        let Some(kept) = &mut self.kept else { return Poll::Ready(Moved::Bytes(0)) };
        match to.stream.try_write(&kept.bytes[kept.at..]) {
            Ok(written) => {
                kept.at += written;
                if kept.at == kept.bytes.len() {
                    self.drop_kept(worker);
                }
                Poll::Ready(Moved::Bytes(written))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Poll::Ready(Moved::Bytes(0))
            }
            Err(_) => {
                self.sink_broke(worker, to);
                Poll::Ready(Moved::Phase)
            }
        }
    }

    fn poll_sink(&mut self, cx: &mut Context<'_>, to: &End) -> Poll<()> {
        match to.stream.poll_write_ready(cx) {
            Poll::Ready(_) => {
                self.blocked = false;
                Poll::Ready(())
            }
            Poll::Pending => {
                self.blocked = true;
                Poll::Pending
            }
        }
    }

    fn source_ended(&mut self, from: &End) -> Moved {
        if from.broken.get() {
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

/// Clears readiness after a short read, which has emptied the socket, without another system call. Urgent data also
/// ends a read early; the sweep rechecks for that.
fn became_empty(from: &End) {
    let _ = from.stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

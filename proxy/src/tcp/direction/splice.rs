//! Moves streams through a kernel pipe, without a copy through user space.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::io::Interest;

use super::{Direction, End, Moved, STREAM_AFTER, STREAMING, poll_source};
use crate::{core::limits::limiter::Bucket, sys, worker::Worker};

/// A splice streams if it fills this part of its pipe. Each buffer of a packet takes a place of the pipe, which has one
/// for each 4 KiB. So packets of 1.5 KB fill a pipe when it holds less than half of its size.
const STREAMING_PART: usize = 4;

impl Direction {
    /// Borrows a pipe. A stream for which there is none is copied, and counted once.
    pub(super) fn borrow_pipe(&mut self, worker: &Worker) {
        match worker.process.pipes.lend(worker.process.clock.seconds()) {
            Ok(pipe) => self.streamed.get_or_insert_default().pipe = Some((pipe, 0)),
            Err(why) => {
                if !std::mem::replace(&mut self.lacked_pipe, true) {
                    worker.process.pipes.count_copied(why);
                }
            }
        }
    }

    /// Fills the pipe. At urgent data a splice reports that the socket is empty or at its end although bytes follow, so
    /// a plain read always decides.
    pub(super) fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        limit: &Bucket,
        from: &End,
    ) -> Poll<Moved> {
        let anyway = from.read_anyway.get();
        if anyway && sys::is_at_mark(&from.stream) {
            self.stop_streaming(worker);
            return Poll::Ready(Moved::Bytes(0));
        }
        if !anyway && poll_source(cx, from).is_pending() {
            // Pipes are lent only to directions that stream now.
            self.release(worker);
            return Poll::Pending;
        }
        let size = self.pipe().map_or(0, |(pooled, _)| pooled.pipe().size);
        let Poll::Ready(most) = self.throttle.poll(cx, limit, &worker.process.clock, size) else {
            self.release(worker);
            return Poll::Pending;
        };
        let Some((pooled, left)) = self.pipe_mut() else { return Poll::Ready(Moved::Bytes(0)) };
        let splice = || sys::splice_in(&from.stream, pooled.pipe(), most);
        // A splice that ignores readiness is followed by one that does not, and whose result counts.
        let anyway = from.read_anyway.take();
        let spliced = if anyway { splice() } else { from.stream.try_io(Interest::READABLE, splice) };
        limit.give(most - spliced.as_ref().map_or(0, |moved| *moved).min(most));
        match spliced {
            Ok(0) => {
                self.read_plainly(worker, from);
                Poll::Ready(Moved::Bytes(0))
            }
            Ok(moved) => {
                *left = moved;
                self.count_spliced(worker);
                self.judge_stream(moved, STREAMING.min(size / STREAMING_PART));
                Poll::Ready(Moved::Bytes(0))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Unread bytes prove nothing: they may have arrived since.
                if from.stream.may_be_urgent() && sys::is_at_mark(&from.stream) {
                    self.read_plainly(worker, from);
                }
                Poll::Ready(Moved::Bytes(0))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.stop_streaming(worker);
                Poll::Ready(Moved::Bytes(0))
            }
            Err(_) => Poll::Ready(self.cut(from)),
        }
    }

    pub(super) fn poll_splice_out(&mut self, cx: &mut Context<'_>, worker: &Worker, to: &End) -> Poll<Moved> {
        ready!(self.poll_sink(cx, to));
        let Some((pooled, left)) = self.pipe_mut() else { return Poll::Ready(Moved::Bytes(0)) };
        match to.stream.try_io(Interest::WRITABLE, || sys::splice_out(pooled.pipe(), &to.stream, *left)) {
            Ok(moved) => {
                *left -= moved;
                if *left == 0 {
                    // The next stream of this worker fills the pipe: only directions with full sinks keep one.
                    self.release(worker);
                }
                Poll::Ready(Moved::Bytes(moved))
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

    /// Counts a direction once, however often it borrows a pipe.
    fn count_spliced(&mut self, worker: &Worker) {
        if let Some(streamed) = &mut self.streamed
            && !std::mem::replace(&mut streamed.spliced, true)
        {
            worker.process.pipes.count_spliced();
        }
    }

    /// Judges whether a stream still is one, after a move of `moved` bytes, where a stream moves at least `least`.
    pub(super) fn judge_stream(&mut self, moved: usize, least: usize) {
        self.streak = if moved < least { self.streak.saturating_sub(1) } else { STREAM_AFTER };
        self.streaming = self.streak > 0;
    }

    fn read_plainly(&mut self, worker: &Worker, from: &End) {
        self.stop_streaming(worker);
        from.read_anyway.set(true);
    }

    fn stop_streaming(&mut self, worker: &Worker) {
        self.streaming = false;
        self.lacked_pipe = false;
        self.streak = 0;
        self.release(worker);
    }

    /// Returns the pipe to the pool.
    pub(super) fn release(&mut self, worker: &Worker) {
        if let Some((pipe, left)) = self.streamed.as_mut().and_then(|streamed| streamed.pipe.take()) {
            worker.process.pipes.take_back(pipe, left);
        }
    }
}

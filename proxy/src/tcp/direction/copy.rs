//! Moves bytes through the scratch buffer of the worker, and keeps those that the sink does not accept.

use std::{
    io,
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::io::Interest;

use super::{Direction, End, Kept, Moved, SMALL_READ, STREAM_AFTER, STREAMING, poll_source};
use crate::{
    core::limits::limiter::Bucket,
    worker::{SCRATCH_BYTES, Worker},
};

impl Direction {
    pub(super) fn poll_copy(
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
        let asked = ready!(self.throttle.poll(cx, limit, &worker.process.clock, self.read_size()));
        let anyway = from.read_anyway.take();
        if !worker.reserve.take(asked) {
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
            Err(error) => {
                from.reset_by_peer.set(error.kind() == io::ErrorKind::ConnectionReset);
                self.cut(from)
            }
            Ok(0) => self.source_ended(from),
            Ok(read) => {
                if anyway && (read == asked || !became_empty(from)) {
                    // No readiness event will report the remaining bytes.
                    from.read_anyway.set(true);
                }
                Moved::Bytes(self.write(&scratch[..read], read == asked, worker, to))
            }
        };
        // Only the kept bytes stay charged to the budget.
        let kept = self.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        worker.reserve.keep(asked, kept);
        Poll::Ready(moved)
    }

    pub(super) fn read_size(&self) -> usize {
        (SMALL_READ << self.doublings).min(SCRATCH_BYTES)
    }

    /// Writes at once and keeps the bytes that the sink does not accept. Returns the number of bytes written.
    fn write(&mut self, bytes: &[u8], full_read: bool, worker: &Worker, to: &End) -> usize {
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.sink_broke(worker, to);
                return 0;
            }
        };
        if written < bytes.len() {
            self.kept = Some(Box::new(Kept { bytes: bytes[written..].into(), at: 0 }));
            self.blocked = true;
            self.doublings = 0;
            self.streak = 0;
        } else {
            if full_read {
                self.doublings += u8::from(self.read_size() < SCRATCH_BYTES);
            }
            self.judge_copy(written);
            if self.streaming {
                to.bound_unsent();
            }
        }
        written
    }

    /// Judges whether a direction streams, after a copy of `moved` bytes. Full reads are no measure: a direction that
    /// is read as soon as bytes arrive has none, however fast they come.
    fn judge_copy(&mut self, moved: usize) {
        if self.streaming {
            self.judge_stream(moved, STREAMING);
        } else {
            self.streak = if moved < STREAMING { 0 } else { self.streak.saturating_add(1) };
            self.streaming = self.streak >= STREAM_AFTER;
        }
    }

    /// Copies without a buffer budget: peeks, writes, then consumes the written bytes.
    fn copy_by_peeking(&mut self, worker: &Worker, from: &End, to: &End, most: usize) -> Moved {
        let mut scratch = worker.scratch.borrow_mut();
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = match recv(&from.stream, &mut scratch[..most], flags) {
            Ok((_, 0)) => return self.source_ended(from),
            Ok((_, seen)) => seen,
            Err(Errno::AGAIN) => {
                from.read_anyway.set(false);
                clear_readiness(from);
                return Moved::Bytes(0);
            }
            Err(_) => return self.cut(from),
        };
        match to.try_write(&scratch[..seen]) {
            Ok(written) => {
                let mut taken = 0;
                // Urgent data may split bytes that were peeked together.
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

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, worker: &Worker, to: &End) -> Poll<Moved> {
        ready!(self.poll_sink(cx, to));
        let Some(kept) = &mut self.kept else { return Poll::Ready(Moved::Bytes(0)) };
        match to.try_write(&kept.bytes[kept.at..]) {
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
}

/// After a short read that ignored readiness: clears it and returns true if the socket is empty. Urgent data ends a
/// read early although bytes follow, and no event will report those.
fn became_empty(from: &End) -> bool {
    let is_empty = rustix::io::ioctl_fionread(&from.stream).is_ok_and(|bytes| bytes == 0);
    if is_empty {
        clear_readiness(from);
    }
    is_empty
}

/// Waits for the next event before the source counts as readable.
fn clear_readiness(from: &End) {
    let _ = from.stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

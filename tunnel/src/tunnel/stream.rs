//! Bytes through a tunnel.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tunnel_core::{End, Session};

use super::handle::{Farewell, Handle};

/// The most pieces that [`Stream::peek_all`] shows: 256 KiB if all are full.
const PIECES: usize = 16;

/// The result of [`Stream::poll_readable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Bytes, for [`Stream::peek`].
    Bytes,
    /// The end, after all bytes.
    End(End),
}

/// A connection through a tunnel. Reads fail with [`io::ErrorKind::ConnectionReset`] after the bytes that arrived
/// before a reset; writes fail as soon as the far end has given the stream up.
///
/// Shutting it down ends its writing half. Dropping it before both directions have ended resets it. One task may wait
/// to read and one to write.
#[derive(Debug)]
pub struct Stream {
    handle: Handle,
}

impl Stream {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Waits for bytes or the end.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Readable> {
        if let Some(end) = self.handle.ended {
            return Poll::Ready(Readable::End(end));
        }
        if !self.peek(<[u8]>::is_empty) {
            return Poll::Ready(Readable::Bytes);
        }
        let Some(end) = self.handle.with(|session, id, _| session.end(id)) else {
            self.handle.wait_to_read(cx);
            return Poll::Pending;
        };
        self.handle.ended = Some(end);
        self.part();
        Poll::Ready(Readable::End(end))
    }

    /// Shows received bytes that were not consumed yet, without copying them. `look` must not use the tunnel or its
    /// streams.
    pub fn peek<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        self.handle.look(|session, id| look(session.readable(id)))
    }

    /// Like [`Stream::peek`], but shows all received bytes, in pieces.
    pub fn peek_all<T>(&self, look: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        self.handle.look(|session, id| {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(session.pieces(id)) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            look(&slices[..count])
        })
    }

    /// Consumes `count` of the bytes that [`Stream::peek_all`] shows.
    pub fn consume(&mut self, count: usize) {
        self.handle.with(|session, id, now| session.consume(id, count, now));
    }

    /// Waits until bytes can be written, and returns how many.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.handle.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = self.handle.with(|session, id, _| session.room(id));
        if room == 0 {
            self.handle.wait_to_write(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(room))
    }

    /// Writes as many bytes as there is room for, and returns how many.
    pub fn write_now(&mut self, bytes: &[u8]) -> usize {
        self.handle.with(|session, id, _| session.write(id, bytes))
    }

    /// Ends the writing half.
    pub fn finish(&mut self) {
        if !self.handle.finished {
            self.handle.with(|session, id, _| session.finish(id));
            self.handle.finished = true;
            self.part();
        }
    }

    /// Gives the stream up in both directions. Bytes that were written before still arrive.
    pub fn reset(self) {
        self.handle.on_drop(Farewell::Reset);
    }

    /// Whether either end gave the stream up. Received bytes may still be unread.
    pub fn is_reset(&self) -> bool {
        match self.handle.ended {
            Some(End::Reset) => true,
            // The session forgets a stream when both directions have ended.
            Some(End::Finished) if self.handle.finished => false,
            _ => self.handle.look(Session::is_reset),
        }
    }

    /// Waits until either end gives the stream up, after reading has ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_reset() {
            return Poll::Ready(());
        }
        self.handle.wait_to_read(cx);
        Poll::Pending
    }

    fn part(&self) {
        if self.handle.ended == Some(End::Reset) || (self.handle.finished && self.handle.ended.is_some()) {
            self.handle.on_drop(Farewell::Nothing);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(stream.poll_readable(cx)) {
            Readable::Bytes => {
                let taken = stream.peek(|bytes| {
                    let taken = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..taken]);
                    taken
                });
                stream.consume(taken);
                Poll::Ready(Ok(()))
            }
            Readable::End(End::Finished) => Poll::Ready(Ok(())),
            Readable::End(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(stream.poll_room(cx))?;
        Poll::Ready(Ok(stream.write_now(buf)))
    }

    /// Written bytes are sent without a flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_a_stream_is_three_words() {
        assert!(size_of::<Stream>() <= 3 * size_of::<usize>(), "{} bytes", size_of::<Stream>());
    }
}

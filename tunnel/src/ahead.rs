//! A connection that reads larger pieces than TLS asks for.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The size of a read by rustls: a full record takes five such reads.
const SMALL: usize = 4 * 1024;
/// The size of a read under load: the four records that the other end writes at a time, with the overhead of TLS.
const LARGE: usize = 68 * 1024;
/// How long the buffer is kept after the last large read.
const QUIET: Duration = Duration::from_secs(1);

/// A connection below TLS. It has no buffer while few bytes arrive, and while the peer is not authenticated.
#[derive(Debug)]
pub struct Ahead<I> {
    io: I,
    /// Whether the peer is authenticated.
    may_read_ahead: bool,
    is_reading_ahead: bool,
    bytes: Vec<u8>,
    /// How many bytes of `bytes` TLS has taken.
    taken: usize,
    busy_at: Instant,
}

impl<I> Ahead<I> {
    pub(crate) fn new(io: I) -> Self {
        Self {
            io,
            may_read_ahead: false,
            is_reading_ahead: false,
            bytes: Vec::new(),
            taken: 0,
            busy_at: Instant::now(),
        }
    }

    /// Allows the connection to have a buffer from now on.
    pub(crate) const fn begin(&mut self) {
        self.may_read_ahead = true;
    }
}

impl<I: AsyncRead + Unpin> Ahead<I> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.clear();
        self.taken = 0;
        self.bytes.reserve_exact(LARGE);
        let read = pin!(self.io.read_buf(&mut self.bytes)).poll(cx);
        match read {
            Poll::Ready(count) => {
                if count? > SMALL {
                    self.busy_at = Instant::now();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                // The heartbeats of an idle carrier reach this line.
                if self.busy_at.elapsed() >= QUIET {
                    self.bytes = Vec::new();
                    self.is_reading_ahead = false;
                }
                Poll::Pending
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Ahead<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.bytes.len() {
            if !this.is_reading_ahead {
                let asked = buf.remaining();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                // The read filled the buffer, so more bytes may be there.
                if this.may_read_ahead && asked >= SMALL && buf.remaining() == 0 {
                    this.is_reading_ahead = true;
                    this.busy_at = Instant::now();
                }
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
        let rest = &this.bytes[this.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        this.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Ahead<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::advance;

    use super::*;

    /// A source that fills every read, and counts the reads.
    #[derive(Default)]
    struct Source(usize);

    impl AsyncRead for Source {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.0 += 1;
            buf.put_slice(&vec![7; buf.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn many_small_reads_are_one_of_the_connection_once_it_is_known_who_is_there() {
        let mut ahead = Ahead::new(Source::default());
        let mut bytes = [0; SMALL];
        for _ in 0..10 {
            ahead.read_exact(&mut bytes).await.expect("bytes");
        }
        assert_eq!((ahead.io.0, ahead.bytes.capacity()), (10, 0), "a stranger gets no buffer");
        ahead.begin();
        for _ in 0..=2 * LARGE / SMALL {
            ahead.read_exact(&mut bytes).await.expect("bytes");
        }
        assert_eq!(ahead.io.0, 10 + 1 + 2, "the first read showed that much comes");
        assert_eq!(bytes, [7; SMALL]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_buffer_is_given_back_at_the_first_look_after_a_second() {
        let (mut far, near) = duplex(LARGE);
        let mut ahead = Ahead::new(near);
        ahead.begin();
        far.write_all(&[7; 3 * SMALL]).await.expect("there is room");
        let mut bytes = [0; 3 * SMALL];
        for part in bytes.chunks_mut(SMALL) {
            ahead.read_exact(part).await.expect("bytes");
        }
        assert_eq!(bytes, [7; 3 * SMALL]);
        for (pause, is_kept) in [(QUIET / 2, true), (QUIET, false)] {
            advance(pause).await;
            let mut more = [0; SMALL];
            let is_pending = poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut more);
                Poll::Ready(Pin::new(&mut ahead).poll_read(cx, &mut buf).is_pending())
            });
            assert!(is_pending.await, "nothing is there");
            assert_eq!(ahead.bytes.capacity() > 0, is_kept);
        }
    }

    #[tokio::test]
    async fn the_end_of_the_bytes_is_an_end() {
        let (mut far, near) = duplex(LARGE);
        let mut ahead = Ahead::new(near);
        ahead.begin();
        far.write_all(&[7; 2 * SMALL]).await.expect("there is room");
        drop(far);
        let mut bytes = [0; SMALL];
        ahead.read_exact(&mut bytes).await.expect("bytes");
        ahead.read_exact(&mut bytes).await.expect("bytes");
        assert_eq!(ahead.read(&mut bytes).await.expect("an end"), 0);
    }
}

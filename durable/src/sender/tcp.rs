//! Delivery to a sink over plain TCP, as framed messages.

use std::convert::Infallible;
use std::io::{self, ErrorKind};

use durable_core::send::{Asking, SendError, Tcp};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::work::Work;
use super::{Dial, SenderEvent, SessionError, connect};
use crate::Kept;

/// Bytes of a sink that are read at once. They mean nothing, as plain TCP has no answers.
const READ: usize = 1024;
/// Bytes of messages that are read at once. Each read, and each acknowledgement of what was sent meanwhile, costs two
/// switches of threads.
const BLOCK: usize = 256 * 1024;

/// Sends messages from the cursor on, over one connection.
pub(super) async fn session<D, E, F>(dial: &D, tcp: &mut Tcp, work: &mut Work<E, F>) -> Result<Infallible, SessionError>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    F: FnMut(&SenderEvent),
{
    let mut line = Line { stream: connect(dial).await?, out: Out::default(), written: 0, is_closed: false };
    let again = tcp.connected(work.cursor(), &mut line.out.bytes);
    work.resends(again);
    let (mut asking, started) = (Asking::default(), Instant::now());
    let mut verdicts = Vec::new();
    loop {
        line.write()?;
        let acknowledged = line.written.saturating_sub(dial.unacknowledged(&line.stream)?);
        tcp.acknowledged(acknowledged, &mut verdicts);
        work.settle(&mut verdicts, tcp.waits()).await?;
        if line.is_closed {
            return Err(SendError::Closed.into());
        }
        asking.hears(acknowledged, tcp.waits(), started.elapsed())?;
        let pause = asking.pause();
        select! {
            ready = line.ready() => {
                ready?;
                line.read()?;
                // Without this, a sink that sends without end would keep the thread busy.
                yield_now().await;
            }
            there = work.wait(), if tcp.room() > 0 => {
                there?;
                let messages = work.read_block(tcp.room(), BLOCK).await?;
                work.sends(&messages);
                for message in messages {
                    tcp.push(message, &mut line.out.bytes);
                }
            }
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => asking.waited(),
        }
    }
}

/// A connection.
struct Line {
    stream: TcpStream,
    out: Out,
    /// How many bytes the system has taken.
    written: u64,
    /// Whether the sink has closed its end.
    is_closed: bool,
}

impl Line {
    /// Waits until the system takes bytes, or the sink closes its end.
    async fn ready(&self) -> io::Result<()> {
        let writes = !self.out.rest().is_empty();
        let interest = if writes { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.stream.ready(interest).await.map(drop)
    }

    /// Gives the system as many bytes as it takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.out.rest().is_empty() {
            match self.stream.try_write(self.out.rest()) {
                Ok(count) => {
                    self.out.take(count);
                    self.written += count as u64;
                }
                Err(error) => return unless_for_later(error),
            }
        }
        Ok(())
    }

    /// Discards bytes from the sink, and notices its end.
    fn read(&mut self) -> io::Result<()> {
        match self.stream.try_read(&mut [0; READ]) {
            Ok(count) => {
                self.is_closed = count == 0;
                Ok(())
            }
            Err(error) => unless_for_later(error),
        }
    }
}

/// Bytes for the system.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// How many of them the system has taken.
    taken: usize,
}

impl Out {
    /// The bytes that the system has not taken.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Passes bytes that the system has taken. The rest is moved to the front once for many bytes: for a sink that takes
    /// few at a time, a move for each write would cost more than the write.
    fn take(&mut self, count: usize) {
        self.taken = self.bytes.len().min(self.taken + count);
        if self.taken == self.bytes.len() || self.taken >= BLOCK {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

fn unless_for_later(error: io::Error) -> io::Result<()> {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_the_system_has_taken_leave_once_for_many_and_with_the_last_one() {
        let all: Vec<u8> = (0..=250).cycle().take(BLOCK + 10).collect();
        let mut out = Out { bytes: all.clone(), taken: 0 };
        out.take(1);
        out.take(BLOCK - 2);
        assert_eq!((out.rest(), out.bytes.len()), (&all[BLOCK - 1..], BLOCK + 10));
        out.take(1);
        assert_eq!((out.rest(), out.bytes.len()), (&all[BLOCK..], 10));
        out.take(4);
        assert_eq!((out.rest(), out.bytes.len()), (&all[BLOCK + 4..], 10));
        out.take(6);
        assert_eq!((out.rest(), out.bytes.len(), out.taken), (&[][..], 0, 0));
    }
}

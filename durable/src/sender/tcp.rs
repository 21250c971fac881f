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

/// Sends messages from the cursor on, over one connection.
pub(super) async fn session<D, E, F>(dial: &D, tcp: &mut Tcp, work: &mut Work<E, F>) -> Result<Infallible, SessionError>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    F: FnMut(&SenderEvent),
{
    let mut line = Line { stream: connect(dial).await?, out: Vec::new(), written: 0, is_closed: false };
    let again = tcp.connected(work.cursor(), &mut line.out);
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
                let messages = work.read(tcp.room()).await?;
                work.sends(&messages);
                for message in messages {
                    tcp.push(message, &mut line.out);
                }
            }
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => asking.waited(),
        }
    }
}

/// A connection.
struct Line {
    stream: TcpStream,
    /// Bytes that the system has not taken.
    out: Vec<u8>,
    /// How many bytes the system has taken.
    written: u64,
    /// Whether the sink has closed its end.
    is_closed: bool,
}

impl Line {
    /// Waits until the system takes bytes, or the sink closes its end.
    async fn ready(&self) -> io::Result<()> {
        let writes = !self.out.is_empty();
        let interest = if writes { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.stream.ready(interest).await.map(drop)
    }

    /// Gives the system as many bytes as it takes.
    fn write(&mut self) -> io::Result<()> {
        let mut taken = 0;
        let mut failed = Ok(());
        while let Some(rest) = self.out.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.stream.try_write(rest) {
                Ok(count) => taken += count,
                Err(error) => {
                    failed = unless_for_later(error);
                    break;
                }
            }
        }
        self.out.drain(..taken);
        self.written += taken as u64;
        failed
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

fn unless_for_later(error: io::Error) -> io::Result<()> {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) { Ok(()) } else { Err(error) }
}

//! A connection for framed messages.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::time::Duration;

use durable_core::send::{ANSWER_WITHIN, SendError, Tcp};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, sleep};

use super::work::Work;
use super::{Dial, SenderEvent, SessionError, connect};
use crate::Kept;

/// No event tells of an acknowledgement, so the system is asked: soon after the last one, and then less and less often.
const ASK_FIRST: Duration = Duration::from_millis(1);
const ASK_LAST: Duration = Duration::from_millis(100);
/// Bytes that are read at once, and mean nothing.
const READ: usize = 1024;

/// Sends from the cursor on, over one connection.
pub(super) async fn session<D, E, F>(dial: &D, tcp: &mut Tcp, work: &mut Work<E, F>) -> Result<Infallible, SessionError>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    F: FnMut(&SenderEvent),
{
    let mut line = Line { stream: connect(dial).await?, out: Vec::new(), written: 0, is_closed: false };
    let again = tcp.connected(work.cursor(), &mut line.out);
    work.resends(again);
    let mut asking = Asking::default();
    let mut verdicts = Vec::new();
    loop {
        line.write()?;
        let acknowledged = line.written.saturating_sub(dial.unacknowledged(&line.stream)?);
        tcp.acknowledged(acknowledged, &mut verdicts);
        work.settle(&mut verdicts, tcp.waits()).await?;
        if line.is_closed {
            return Err(SendError::Closed.into());
        }
        asking.hears(acknowledged, tcp.waits(), Instant::now())?;
        select! {
            ready = line.ready() => {
                ready?;
                line.read()?;
            }
            there = work.wait(), if tcp.room() > 0 => {
                there?;
                let messages = work.read(tcp.room()).await?;
                work.sends(&messages);
                for message in messages {
                    tcp.push(message, &mut line.out);
                }
            }
            () = sleep(asking.pause), if tcp.waits() => asking.pause = (asking.pause * 2).min(ASK_LAST),
        }
    }
}

/// A connection.
struct Line {
    stream: TcpStream,
    /// Bytes that the system has not taken.
    out: Vec<u8>,
    /// How many it took.
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

    /// Passes over what the sink says, and sees its end.
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

/// When the system is asked next.
#[derive(Default)]
struct Asking {
    acknowledged: u64,
    /// Since when nothing more is acknowledged, while the sink owes something.
    since: Option<Instant>,
    pause: Duration,
}

impl Asking {
    /// So many bytes are acknowledged.
    fn hears(&mut self, acknowledged: u64, owes: bool, now: Instant) -> Result<(), SessionError> {
        let is_more = acknowledged > self.acknowledged;
        self.acknowledged = acknowledged;
        match self.since.filter(|_| owes && !is_more) {
            Some(since) if now.duration_since(since) >= ANSWER_WITHIN => Err(SessionError::Silent(ANSWER_WITHIN)),
            Some(_) => Ok(()),
            None => {
                self.since = owes.then_some(now);
                self.pause = ASK_FIRST;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_silent_when_it_acknowledges_nothing_more_for_a_minute_though_it_should() {
        let (mut asking, start) = (Asking::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // It owes nothing before the first message.
        asking.hears(0, false, at(0)).expect("it owes nothing");
        asking.hears(0, true, at(100)).expect("it owes from now on");
        asking.hears(5, true, at(159)).expect("it acknowledged more");
        asking.hears(5, true, at(218)).expect("that is less than a minute");
        let error = asking.hears(5, true, at(219)).expect_err("it is silent");
        assert_eq!(error.to_string(), "the sink was silent for 60 seconds");
    }
}

//! Moves the frames of a session over one connection.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use tunnel_core::{Loss, Session, Violation};

use crate::tunnel::Tunnel;
use crate::tunnel::shared::Shared;

/// The capacity that an idle carrier may keep of a buffer.
const IDLE: usize = 1024;
/// The size of one read, and of one batch of frames to write.
const BATCH: usize = 64 * 1024;
/// Reads and writes before other tasks get their turn.
const TURNS: usize = 16;
/// How long larger buffers are kept after their last use: under load, allocating them for each batch costs more than
/// filling them.
const QUIET: Duration = Duration::from_secs(1);

/// Why a carrier has ended.
#[derive(Debug, Error)]
pub enum CarryEnd {
    /// The peer closed the connection.
    #[error("the far end closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(io::Error),
    /// The peer violated the protocol.
    #[error(
        "the far end violates the protocol ({0}): compare the versions of agent and server, upgrade the older \
         one, and report this if they are the same"
    )]
    Violation(Violation),
    /// The peer was silent for too long.
    #[error("the far end was silent for too long")]
    Silent,
    /// The peer did not resume in time.
    #[error("the far end did not acknowledge in time what it has received")]
    Unresumed,
    /// A later carrier has replaced this one.
    #[error("a later connection has replaced this one")]
    Replaced,
    /// The carrier was never used: the session had a carrier of this epoch or a later one.
    #[error("the session has a connection that is no older than this one")]
    Stale,
    /// The session has ended.
    #[error("the session has ended: {0}")]
    Lost(Loss),
}

impl Tunnel {
    /// Makes `io` the carrier of `epoch` and drives it until it ends; the previous carrier ends at once. Dropping the
    /// future ends the carrier, too.
    pub async fn carry(&self, epoch: u64, io: impl AsyncRead + AsyncWrite + Unpin) -> CarryEnd {
        if !self.shared.attach(epoch) {
            return self.look(Session::lost).map_or(CarryEnd::Stale, CarryEnd::Lost);
        }
        let mut carrier = Carrier::new(&self.shared, epoch, io);
        poll_fn(|cx| carrier.poll(cx)).await
    }
}

/// Why the carrier of `epoch` has ended, or `None` while it is in use.
fn end_of(shared: &Shared, epoch: u64) -> Option<CarryEnd> {
    let session = shared.session();
    if let Some(loss) = session.lost() {
        return Some(CarryEnd::Lost(loss));
    }
    if session.epoch() != epoch {
        return Some(CarryEnd::Replaced);
    }
    let end = if session.is_unresumed() { CarryEnd::Unresumed } else { CarryEnd::Silent };
    (!session.is_attached()).then_some(end)
}

struct Carrier<'a, I> {
    shared: &'a Shared,
    epoch: u64,
    io: I,
    /// The beginning of an incomplete frame, and room to read: at most [`BATCH`] and the longest frame.
    input: Vec<u8>,
    read_size: usize,
    /// Frames to write: at most [`BATCH`] and the longest frame, or the frames of a resumption.
    output: Vec<u8>,
    /// How many bytes of `output` are written.
    written: usize,
    is_flushed: bool,
    /// Whether a buffer was larger than an idle carrier keeps, at any time since the last check.
    is_busy: bool,
    /// When the last check found a large buffer.
    busy_at: Instant,
}

impl<'a, I> Carrier<'a, I> {
    fn new(shared: &'a Shared, epoch: u64, io: I) -> Self {
        Self {
            shared,
            epoch,
            io,
            input: Vec::new(),
            read_size: IDLE,
            output: Vec::new(),
            written: 0,
            is_flushed: true,
            is_busy: false,
            busy_at: Instant::now(),
        }
    }

    /// Frees the memory of empty buffers, down to the capacity that an idle carrier may keep. No timer is needed: the
    /// heartbeats of an idle carrier lead here.
    fn relax(&mut self) {
        if self.input.capacity().max(self.output.capacity()) <= IDLE {
            return;
        }
        if std::mem::take(&mut self.is_busy) {
            self.busy_at = Instant::now();
            return;
        }
        if self.busy_at.elapsed() < QUIET {
            return;
        }
        self.read_size = IDLE;
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > IDLE {
                *buffer = Vec::new();
            }
        }
    }
}

impl<I> Drop for Carrier<'_, I> {
    fn drop(&mut self) {
        self.shared.with(|session, now| session.detach(self.epoch, now));
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Carrier<'_, I> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CarryEnd> {
        self.shared.carrier_works();
        for _ in 0..TURNS {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => {
                    self.relax();
                    self.shared.carrier_waits(cx, self.output.is_empty());
                    return Poll::Pending;
                }
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads and writes once, and returns whether any bytes moved. Neither waits for the other: two ends that only
    /// write would wait for ever.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, CarryEnd> {
        if let Some(end) = end_of(self.shared, self.epoch) {
            return Err(end);
        }
        let has_read = self.read(cx)?;
        let has_written = self.write(cx)?;
        Ok(has_read || has_written)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, CarryEnd> {
        self.input.reserve_exact(self.read_size);
        let read = pin!(self.io.read_buf(&mut self.input)).poll(cx);
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(CarryEnd::Failed(told(error))),
            Poll::Ready(Ok(0)) => Err(CarryEnd::Closed),
            Poll::Ready(Ok(_)) => {
                if self.input.len() == self.input.capacity() {
                    self.read_size = BATCH;
                }
                self.is_busy |= self.input.len() > IDLE;
                let taken = self.shared.with(|session, now| session.receive(self.epoch, &self.input, now));
                let taken = taken.map_err(CarryEnd::Violation)?;
                self.input.drain(..taken);
                Ok(true)
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, CarryEnd> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            let given = self.shared.with(|session, now| session.transmit(self.epoch, &mut self.output, BATCH, now));
            given.map_err(CarryEnd::Violation)?;
            self.is_busy |= self.output.len() > IDLE;
        }
        if self.output.is_empty() {
            return self.flush(cx);
        }
        match Pin::new(&mut self.io).poll_write(cx, &self.output[self.written..]) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(CarryEnd::Failed(error)),
            Poll::Ready(Ok(0)) => Err(CarryEnd::Failed(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => {
                self.written += count;
                self.is_flushed = false;
                Ok(true)
            }
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, CarryEnd> {
        if self.is_flushed {
            return Ok(false);
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(CarryEnd::Failed(error)),
            Poll::Ready(Ok(())) => {
                self.is_flushed = true;
                Ok(true)
            }
        }
    }
}

/// Rewords an error for the owner of the agent: for a connection that ended without a close, the text of rustls refers
/// to its manual.
fn told(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(
            error.kind(),
            "the far end, or a device on the path, closed it without a TLS close_notify",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::advance;
    use tunnel_core::{Limits, Side};

    use super::*;

    /// Lets the carrier do all pending work.
    async fn work(carrier: &mut Carrier<'_, DuplexStream>) {
        poll_fn(|cx| Poll::Ready(carrier.poll(cx).is_pending())).await.then_some(()).expect("the carrier continues");
    }

    #[tokio::test(start_paused = true)]
    async fn buffers_are_kept_while_much_moves_and_given_back_at_the_first_look_after_a_second() {
        let tunnel = Tunnel::new(Side::Dialler, Limits::default());
        assert!(tunnel.shared.attach(1));
        let (mut far, io) = duplex(BATCH);
        let mut carrier = Carrier::new(&tunnel.shared, 1, io);
        // A frame of a kind that receivers ignore.
        let mut frame = vec![0; 16 + 16_000];
        frame[0] = 128;
        frame[2..4].copy_from_slice(&16_000_u16.to_be_bytes());
        far.write_all(&frame).await.expect("there is room");
        work(&mut carrier).await;
        assert!(carrier.input.is_empty() && carrier.input.capacity() >= BATCH, "{}", carrier.input.capacity());
        advance(QUIET / 2).await;
        work(&mut carrier).await;
        assert!(carrier.input.capacity() >= BATCH, "a pause of half a second is none");
        advance(QUIET).await;
        work(&mut carrier).await;
        assert!(carrier.input.capacity() <= IDLE && carrier.output.capacity() <= IDLE);
    }

    #[test]
    fn a_violation_says_what_to_do() {
        let told = CarryEnd::Violation(Violation::Position(5)).to_string();
        for part in ["the positions of stream 5 are wrong", "compare the versions of agent and server", "report this"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn an_end_without_a_close_names_no_page_of_a_library() {
        let of_rustls = io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed: https://docs.rs/rustls");
        let expected =
            "the connection failed: the far end, or a device on the path, closed it without a TLS close_notify";
        assert_eq!(CarryEnd::Failed(told(of_rustls)).to_string(), expected);
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        assert_eq!(told(reset).kind(), io::ErrorKind::ConnectionReset);
    }
}

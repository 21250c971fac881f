//! What gives the messages of a store to its sink.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use durable_core::send::{ANSWER_WITHIN, Backoff, Outgoing, Progress, Relp, SendError, Verdict};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::select;
use tokio::time::{sleep, timeout};

use crate::{Kept, ReadBound, Store, StoreError};

/// Bytes of messages that are read at once, and of answers.
const READ: usize = 64 * 1024;
/// A connection that is not there by then is given up.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Opens connections to a sink.
pub trait Dial {
    /// A connection.
    type Io: AsyncRead + AsyncWrite;

    /// Opens one.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Io>>;
}

/// Why a connection to a sink ends.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It cannot be opened, or broke.
    #[error("cannot reach the sink: {0}")]
    Io(#[from] io::Error),
    /// The sink owes an answer.
    #[error("the sink was silent for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// What the sink says.
    #[error(transparent)]
    Sink(#[from] SendError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Gives the messages of a store to a sink that speaks RELP, over one connection after another, and acknowledges those
/// that the sink has. Ends with the store, or when it is dropped.
#[derive(Debug)]
pub struct RelpSender<D, E, C> {
    /// Opens connections.
    pub dial: D,
    /// The bytes of a message for the sink.
    pub enrich: E,
    /// From 0 up to, but not including, 1.
    pub chance: C,
    /// Messages without an answer.
    pub window: usize,
    /// The messages.
    pub store: Store,
}

impl<D: Dial, E: FnMut(Kept) -> Vec<u8>, C: FnMut() -> f64> RelpSender<D, E, C> {
    /// Sends until the store is closed. `ended` hears why each connection ended, and of the pause after it.
    pub async fn run(mut self, mut ended: impl FnMut(&SessionError, Duration)) {
        let mut backoff = Backoff::default();
        let mut progress = Progress::new(self.store.figures().cursor);
        // Without a message there is no need of a connection.
        while self.store.wait_for(progress.cursor()).await.is_ok() {
            let before = progress.cursor();
            let Err(error) = self.session(&mut progress).await;
            if matches!(error, SessionError::Store(StoreError::Stopped)) {
                return;
            }
            progress.broke();
            if progress.cursor() > before {
                backoff.reset();
            }
            let pause = backoff.pause((self.chance)());
            ended(&error, pause);
            sleep(pause).await;
        }
    }

    /// One connection, from the cursor on.
    async fn session(&mut self, progress: &mut Progress) -> Result<Infallible, SessionError> {
        let dialled = timeout(DIAL_WITHIN, self.dial.dial()).await;
        let io = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (mut answers, mut sink) = split(Box::pin(io));
        let mut out = Vec::new();
        let mut relp = Relp::open(self.window, &mut out);
        let mut next = progress.cursor();
        let mut buffer = vec![0; READ];
        let mut verdicts = Vec::new();
        loop {
            let write = async {
                sink.write_all(&out).await?;
                sink.flush().await
            };
            let written = timeout(ANSWER_WITHIN, write).await;
            written.map_err(|_| SessionError::Silent(ANSWER_WITHIN))??;
            out.clear();
            let waits = relp.waits();
            select! {
                read = answers.read(&mut buffer) => {
                    let count = read?;
                    if count == 0 {
                        return Err(SendError::Closed.into());
                    }
                    let received = relp.received(buffer.get(..count).unwrap_or_default(), &mut verdicts);
                    self.settle(progress, &mut verdicts).await?;
                    received?;
                }
                there = self.store.wait_for(next), if relp.room() > 0 => {
                    there?;
                    let bound = ReadBound { messages: relp.room(), bytes: READ };
                    let read = self.store.read(next, bound).await?;
                    next = read.next;
                    for kept in read.messages {
                        let number = kept.number;
                        relp.push(Outgoing { number, payload: (self.enrich)(kept) }, &mut out);
                    }
                    if !relp.waits() && next > progress.cursor() {
                        // The last messages were lost: there is nothing that the sink could answer.
                        verdicts.push(Verdict::Delivered { through: next - 1 });
                        self.settle(progress, &mut verdicts).await?;
                    }
                }
                () = sleep(ANSWER_WITHIN), if waits => return Err(SessionError::Silent(ANSWER_WITHIN)),
            }
        }
    }

    /// Moves the cursor by what the sink said.
    async fn settle(&self, progress: &mut Progress, verdicts: &mut Vec<Verdict>) -> Result<(), StoreError> {
        let before = progress.cursor();
        progress.take(verdicts);
        while let Some((number, reason)) = progress.poison() {
            self.store.dead(number, reason.to_owned()).await?;
            progress.put_aside();
        }
        if progress.cursor() > before {
            self.store.acknowledge(progress.cursor()).await?;
        }
        Ok(())
    }
}

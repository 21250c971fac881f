//! Delivery to a sink over RELP.

use std::convert::Infallible;

use durable_core::send::{Relp, SendError, Silence};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, sleep_until};

use super::work::Work;
use super::{Dial, SenderEvent, SessionError, connect};
use crate::{Kept, StoreError};

/// Bytes of answers that are read at once.
const READ: usize = 16 * 1024;

/// Sends messages from the cursor on, over one connection. A message that cannot be read ends the session, once the sink
/// has answered those before it.
pub(super) async fn session<D, E, F>(dial: &D, window: usize, work: &mut Work<E, F>) -> Result<Infallible, SessionError>
where
    D: Dial,
    E: FnMut(Kept) -> Vec<u8>,
    F: FnMut(&SenderEvent),
{
    let mut stream = connect(dial).await?;
    let (mut answers, mut sink) = stream.split();
    let mut out = Vec::new();
    let mut relp = Relp::open(window, &mut out);
    let mut buffer = vec![0; READ];
    let mut verdicts = Vec::new();
    let mut failure: Option<StoreError> = None;
    // A slow sink takes bytes before it answers, which counts as progress. The bytes of a window are bounded, so it has
    // to answer at last.
    let (mut written, mut silence, started) = (0, Silence::default(), Instant::now());
    loop {
        let owes = relp.waits();
        silence.hears(relp.answers() + written, owes, started.elapsed())?;
        if let Some(error) = failure.take_if(|_| !owes) {
            return Err(error.into());
        }
        let due = silence.due().map(|due| started + due);
        select! {
            read = answers.read(&mut buffer) => {
                let count = read?;
                if count == 0 {
                    return Err(SendError::Closed.into());
                }
                let received = relp.received(buffer.get(..count).unwrap_or_default(), &mut verdicts);
                // Verdicts before malformed data count, too.
                work.settle(&mut verdicts, relp.waits()).await?;
                received?;
            }
            taken = sink.write(&out), if !out.is_empty() => {
                let count = taken?;
                out.drain(..count);
                written += count as u64;
            }
            there = work.wait(), if out.is_empty() && failure.is_none() && relp.room() > 0 => {
                there?;
                match work.read(relp.room()).await {
                    Ok(messages) => {
                        work.sends(&messages);
                        for message in messages {
                            relp.push(message, &mut out);
                        }
                        work.settle(&mut verdicts, relp.waits()).await?;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

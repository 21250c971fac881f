//! A session over RELP.

use std::convert::Infallible;

use durable_core::send::{ANSWER_WITHIN, Relp, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::time::{sleep, timeout};

use super::work::Work;
use super::{Dial, SenderEvent, SessionError, connect};
use crate::Kept;

/// Bytes of answers that are read at once.
const READ: usize = 16 * 1024;

/// Sends from the cursor on, over one connection.
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
    loop {
        let written = timeout(ANSWER_WITHIN, sink.write_all(&out)).await;
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
                // Verdicts count also if the rest is no RELP.
                work.settle(&mut verdicts, relp.waits()).await?;
                received?;
            }
            there = work.wait(), if relp.room() > 0 => {
                there?;
                let messages = work.read(relp.room()).await?;
                work.sends(&messages);
                for message in messages {
                    relp.push(message, &mut out);
                }
                work.settle(&mut verdicts, relp.waits()).await?;
            }
            () = sleep(ANSWER_WITHIN), if waits => return Err(SessionError::Silent(ANSWER_WITHIN)),
        }
    }
}

//! Messages over UDP: a datagram is a message.

use std::io::{self, ErrorKind};

use tokio::net::UdpSocket;

use super::{Intake, Limits, Oversize, incoming, source};
use crate::{Incoming, Store, StoreError};

/// More than the longest datagram.
const DATAGRAM: usize = 64 * 1024;
/// Datagrams that are appended with one call.
const BATCH: usize = 64;

/// Appends the datagrams of this socket, until this future is dropped or the socket fails. What the store has no room
/// for is dropped, and counted there. The bound of `limits` is that of the store.
///
/// `dropped` says how many datagrams the system has dropped at the socket so far, modulo 2^32, if it knows.
pub async fn receive(
    socket: &UdpSocket,
    store: &Store,
    limits: Limits,
    intake: &Intake,
    dropped: impl Fn(&UdpSocket) -> Option<u32>,
) -> io::Error {
    let mut buffer = vec![0; DATAGRAM];
    let mut before = dropped(socket).unwrap_or(0);
    loop {
        if let Err(error) = socket.readable().await {
            return error;
        }
        let (messages, failed) = batch(socket, &mut buffer, limits, intake);
        if let Some(now) = dropped(socket) {
            let more = u64::from(now.wrapping_sub(before));
            before = now;
            intake.count(|figures| figures.kernel_drops += more);
        }
        if let Err(StoreError::Stopped) = append(store, messages, intake) {
            return io::Error::other(StoreError::Stopped);
        }
        if let Some(error) = failed {
            return error;
        }
    }
}

fn append(store: &Store, messages: Vec<Incoming>, intake: &Intake) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    let count = messages.len() as u64;
    // Nobody waits for the sync.
    drop(store.try_append(messages)?);
    intake.count(|figures| figures.messages += count);
    Ok(())
}

/// Datagrams that are there, and the error after them.
fn batch(socket: &UdpSocket, buffer: &mut [u8], limits: Limits, intake: &Intake) -> (Vec<Incoming>, Option<io::Error>) {
    let mut messages = Vec::new();
    let mut denied = 0;
    while messages.len() + denied < BATCH {
        match socket.try_recv_from(buffer) {
            Ok((_, peer)) if !intake.admits(peer.ip()) => denied += 1,
            Ok((count, peer)) => {
                let datagram = buffer.get(..count).unwrap_or_default();
                messages.extend(bounded(datagram, limits, intake).map(|payload| incoming(&source(peer), payload)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

/// The message of a datagram.
fn bounded(datagram: &[u8], limits: Limits, intake: &Intake) -> Option<Vec<u8>> {
    match (datagram.get(..limits.max_message_bytes), limits.oversize) {
        (Some(start), Oversize::Truncate) if start.len() < datagram.len() => {
            intake.count(|figures| figures.truncated += 1);
            Some(start.to_vec())
        }
        (Some(start), Oversize::Drop) if start.len() < datagram.len() => {
            intake.count(|figures| figures.too_long += 1);
            None
        }
        _ => Some(datagram.to_vec()),
    }
}

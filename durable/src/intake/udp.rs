//! Messages over UDP: a datagram is a message.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};

use proxy_api::partials::Partial;
use tokio::net::UdpSocket;
use tokio::task::yield_now;

use super::{Intake, Limits, Oversize, incoming, source};
use crate::{Incoming, Store, StoreError};

/// More than the longest datagram.
const DATAGRAM: usize = 64 * 1024;
/// Datagrams, and bytes of them, that are read before others have their turn.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// Appends the datagrams of this socket, until this future is dropped or the socket fails. What the store, or the share of
/// [`Intake::within`], has no room for is dropped, and counted there. The bound of `limits` is that of the store. A datagram without a byte is no
/// message, as an empty line is none.
///
/// `dropped` says how many datagrams the system has dropped at the socket so far, modulo 2^32, if it knows; `counted`
/// has how many of them are counted, which the caller keeps for the next call.
pub async fn receive(
    socket: &UdpSocket,
    store: &Store,
    limits: Limits,
    intake: &Intake,
    dropped: impl Fn(&UdpSocket) -> Option<u32>,
    counted: &Cell<u32>,
) -> io::Error {
    let mut buffer = vec![0; DATAGRAM];
    // Anybody may write any source into a datagram: all of them are one.
    let memory = intake.share.partial(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    loop {
        if let Err(error) = socket.readable().await {
            return error;
        }
        if !store.takes() {
            // The socket keeps its datagrams for the store that is opened next.
            return io::Error::other(StoreError::Stopped);
        }
        let (messages, ended) = batch(socket, &mut buffer, limits, intake);
        if let Some(now) = dropped(socket) {
            let more = u64::from(now.wrapping_sub(counted.replace(now)));
            intake.count(|figures| figures.kernel_drops += more);
        }
        if let Err(StoreError::Stopped) = append(store, messages, &memory, intake) {
            return io::Error::other(StoreError::Stopped);
        }
        match ended {
            // There may be more. The socket stays readable, so nothing else here would wait.
            None => yield_now().await,
            Some(error) if error.kind() == ErrorKind::WouldBlock => {}
            Some(error) => return error,
        }
    }
}

fn append(store: &Store, messages: Vec<Incoming>, memory: &Partial, intake: &Intake) -> Result<(), StoreError> {
    for batch in store.batches(messages) {
        let count = batch.len() as u64;
        match store.try_append_within(batch, Some(memory.waiting())) {
            Ok(receipt) => {
                // Nobody waits for the sync.
                drop(receipt);
                intake.count(|figures| figures.messages += count);
            }
            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
            // The store counts it.
            Err(_) => {}
        }
    }
    Ok(())
}

/// Datagrams that are there, and the error after them if there are no more for now.
fn batch(socket: &UdpSocket, buffer: &mut [u8], limits: Limits, intake: &Intake) -> (Vec<Incoming>, Option<io::Error>) {
    let mut messages = Vec::new();
    let mut bytes = 0;
    // Those that are dropped count, too.
    for _ in 0..BATCH {
        if bytes >= BATCH_BYTES {
            break;
        }
        match socket.try_recv_from(buffer) {
            Ok((_, peer)) if !intake.admits(peer.ip()) => {}
            Ok((0, _)) => intake.count(|figures| figures.empty += 1),
            Ok((count, peer)) => {
                bytes += count;
                let datagram = buffer.get(..count).unwrap_or_default();
                messages.extend(bounded(datagram, limits, intake).map(|payload| incoming(&source(peer), payload)));
            }
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

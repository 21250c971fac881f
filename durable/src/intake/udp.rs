//! Messages over UDP: a datagram is a message.

use std::array;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proxy_api::partials::Partial;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::net::{AddressFamily, SocketType};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{Intake, Limits, Oversize, source};
use crate::clock::unix_millis;
use crate::{Incoming, Lanes, Store, StoreError};

/// Bytes of the buffer for each datagram of a call: more than the longest one.
const SLOT: usize = 64 * 1024;
/// Datagrams, and bytes of them, that are read before others have their turn.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 64 * 1024;
/// Room for a turn: its bytes, the longest datagram beyond them, and as much for what messages count beside their bytes.
const ROOM: usize = BATCH_BYTES + 2 * SLOT;
/// How long datagrams stay in the socket while there is no such room.
const CATCH_UP: Duration = Duration::from_millis(10);
/// Whether a call that reads fewer datagrams than it may has found the socket empty. Other systems return one at a time.
const SHORT_IS_LAST: bool = cfg!(target_os = "linux");
thread_local! {
    /// The buffer for one call, used by one socket of the thread at a time: nothing waits between a call and its last
    /// message. It is 2 MiB of addresses. A page of it has memory once a datagram was written there, and keeps it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends the datagrams of this socket, each to the store of its lane, until this future is dropped or the socket
/// fails. While the only store is full, they wait in the socket. Datagrams for which their store, or the share of
/// [`Intake::within`], has no room are dropped, and counted by the store. The bound of `limits` is that of the stores.
/// A datagram without a byte is no message, as an empty line is none. The system must not coalesce datagrams of this
/// socket (GRO), as several would become one message.
///
/// `dropped` says how many datagrams the system has dropped at the socket so far, modulo 2^32, if it knows; `counted`
/// has how many of them are counted, which the caller keeps for the next call.
pub async fn receive(
    socket: &UdpSocket,
    lanes: impl Into<Lanes>,
    limits: Limits,
    intake: &Intake,
    dropped: impl Fn(&UdpSocket) -> Option<u32>,
    counted: &Cell<u32>,
) -> io::Error {
    let lanes = lanes.into();
    let mut reader = match Reader::new(socket) {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    // Anybody may forge the source of a datagram, so all sources are treated as one.
    let memory = intake.share.partial(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    loop {
        if let Err(error) = socket.readable().await {
            return error;
        }
        let mut held = catch_up(&lanes).await;
        if !lanes.takes() {
            // The socket keeps its datagrams for the store that is opened next.
            return io::Error::other(StoreError::Stopped);
        }
        let mut unkept = Unkept { intake, datagrams: 0 };
        let (messages, ended) = batch(socket, &mut reader, lanes.limits(limits), &lanes, &mut unkept);
        if let Some(now) = dropped(socket) {
            let more = u64::from(now.wrapping_sub(counted.replace(now)));
            intake.count(|figures| figures.kernel_drops += more);
        }
        for (store, messages) in lanes.stores().zip(messages) {
            if let Err(StoreError::Stopped) = append(store, messages, &memory, &mut unkept, &mut held) {
                return io::Error::other(StoreError::Stopped);
            }
        }
        drop(held);
        match ended {
            // There may be more datagrams. The socket stays readable, so nothing else here would wait.
            None => yield_now().await,
            Some(error) if error.kind() == ErrorKind::WouldBlock => {}
            Some(error) => return error,
        }
    }
}

/// Waits while the log has no room for a turn, as the socket has room: reading datagrams only to drop them would take
/// time that the log needs. Of several lanes, one that has no room holds up no other. The room is held for the turn:
/// other sockets of the listener may wait for it, too, and would have it before the turn takes it.
async fn catch_up(lanes: &Lanes) -> Option<OwnedSemaphorePermit> {
    let store = lanes.only().filter(|store| !store.has_room(ROOM))?;
    // Datagrams that find no room after that are dropped and counted, so that people see why.
    timeout(CATCH_UP, store.until_room(ROOM)).await.ok()?.ok()
}

/// The reader of a socket's datagrams.
struct Reader {
    state: UdpSocketState,
    /// Bytes of the longest datagram of the last call.
    longest: usize,
    /// The last source, in words, too: the next datagram often has the same.
    source: Option<(SocketAddr, Arc<[u8]>)>,
}

impl Reader {
    fn new(socket: &UdpSocket) -> io::Result<Self> {
        // `quinn-udp` sets options, of which one costs every packet of the node until the socket is closed (ADR 0011), and
        // one joins datagrams. A read needs none of them, so they go to a socket that is closed at once.
        let family = if socket.local_addr()?.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let other = rustix::net::socket(family, SocketType::DGRAM, None)?;
        Ok(Self { state: UdpSocketState::new(UdpSockRef::from(&other))?, longest: 0, source: None })
    }

    /// Reads at most `most` datagrams with one call, each into a slot of its own. Returns their number, and the error
    /// after them if there are no more for now.
    fn read(
        &mut self,
        socket: &UdpSocket,
        buffer: &mut Vec<u8>,
        metas: &mut [RecvMeta; BATCH_SIZE],
        most: usize,
    ) -> (usize, Option<io::Error>) {
        if buffer.is_empty() {
            // Resizing the buffer would write to all its pages.
            *buffer = vec![0; SLOT * BATCH_SIZE];
        }
        let mut slots = buffer.chunks_mut(SLOT);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let slices = slices.get_mut(..most).unwrap_or_default();
        let mut count = 0;
        let read = socket.try_io(Interest::READABLE, || {
            count = self.state.recv(UdpSockRef::from(socket), slices, &mut metas[..])?;
            // The runtime learns from this error that it has to wait for the next datagram, without a call that finds none.
            if SHORT_IS_LAST && count < most { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if count > 0 {
            self.longest = metas.iter().take(count).map(|meta| meta.len).max().unwrap_or(0);
        }
        (count, read.err())
    }

    fn source(&mut self, peer: SocketAddr) -> Arc<[u8]> {
        match &self.source {
            Some((last, words)) if *last == peer => words.clone(),
            _ => self.source.insert((peer, source(peer))).1.clone(),
        }
    }
}

/// How many datagrams the next call may read if a turn has `datagrams` and `bytes` left: as many as it would read one
/// by one if none was longer than the longest one of the last call. Only longer datagrams exceed the turn.
fn at_once(datagrams: usize, bytes: usize, longest: usize) -> usize {
    bytes.div_ceil(longest.max(1)).min(datagrams).min(BATCH_SIZE)
}

/// Datagrams of a batch that were read, and that are neither given to the store nor counted yet. Those that remain at
/// the end, as after a panic, are lost, and counted then.
struct Unkept<'a> {
    intake: &'a Intake,
    datagrams: u64,
}

impl Drop for Unkept<'_> {
    fn drop(&mut self) {
        if self.datagrams > 0 {
            self.intake.count(|figures| figures.lost += self.datagrams);
        }
    }
}

fn append(
    store: &Store,
    messages: Vec<Incoming>,
    memory: &Partial,
    unkept: &mut Unkept<'_>,
    held: &mut Option<OwnedSemaphorePermit>,
) -> Result<(), StoreError> {
    for batch in store.batches(messages) {
        let count = batch.len() as u64;
        match store.try_append_within(batch, Some(memory.waiting()), held.as_mut()) {
            Ok(receipt) => {
                // Nobody waits for the sync.
                drop(receipt);
                unkept.intake.count(|figures| figures.messages += count);
            }
            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
            // The store counts the refusal.
            Err(_) => {}
        }
        unkept.datagrams -= count;
    }
    Ok(())
}

/// Datagrams that are there, by lane, and the error after them if there are no more for now.
fn batch(
    socket: &UdpSocket,
    reader: &mut Reader,
    limits: Limits,
    lanes: &Lanes,
    unkept: &mut Unkept<'_>,
) -> (Vec<Vec<Incoming>>, Option<io::Error>) {
    let mut messages = vec![Vec::new(); lanes.count()];
    let (mut datagrams, mut bytes) = (0, 0);
    let ended = BUFFER.with_borrow_mut(|buffer| {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        // Dropped datagrams count towards the bounds, too.
        while datagrams < BATCH && bytes < BATCH_BYTES {
            let most = at_once(BATCH - datagrams, BATCH_BYTES - bytes, reader.longest);
            let (count, ended) = reader.read(socket, buffer, &mut metas, most);
            unkept.datagrams += count as u64;
            datagrams += count;
            // Those of one call came at the same time, as far as anybody can tell.
            let received_millis = unix_millis();
            for (meta, slot) in metas.iter().zip(buffer.chunks(SLOT)).take(count) {
                bytes += meta.len;
                let datagram = slot.get(..meta.len).unwrap_or_default();
                let payload = payload((datagram, meta.addr), limits, unkept.intake);
                match (payload, messages.get_mut(lanes.of(meta.addr.ip()))) {
                    (Some(payload), Some(lane)) => {
                        lane.push(Incoming { source: reader.source(meta.addr), received_millis, payload });
                    }
                    // The reason is counted already.
                    _ => unkept.datagrams -= 1,
                }
            }
            if ended.is_some() {
                return ended;
            }
        }
        None
    });
    (messages, ended)
}

/// The message of a datagram. `None`: its source is not admitted, or it is empty or too long, which is counted.
fn payload((datagram, peer): (&[u8], SocketAddr), limits: Limits, intake: &Intake) -> Option<Vec<u8>> {
    if !intake.admits(peer.ip()) {
        return None;
    }
    if datagram.is_empty() {
        intake.count(|figures| figures.empty += 1);
        return None;
    }
    bounded(datagram, limits, intake)
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_what_is_left_of_a_turn_if_datagrams_stay_as_long_as_they_are() {
        for ((datagrams, bytes, longest), expected) in [
            ((128, BATCH_BYTES, 0), 32),
            ((128, BATCH_BYTES, 512), 32),
            ((20, BATCH_BYTES, 512), 20),
            ((128, BATCH_BYTES, 4096), 16),
            // The last one begins within the turn.
            ((128, BATCH_BYTES, 65_507), 2),
            ((127, 29, 65_507), 1),
            ((128, 1, 0), 1),
        ] {
            assert_eq!(at_once(datagrams, bytes, longest), expected, "{datagrams} {bytes} {longest}");
        }
    }

    #[tokio::test]
    async fn one_call_reads_several_datagrams_and_no_more_than_it_may() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let sender = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("it is bound");
        for id in 0..40_usize {
            sender.send_to(&vec![b'm'; id], address).await.expect("it is sent");
        }
        socket.readable().await.expect("it is open");
        let mut reader = Reader::new(&socket).expect("a state");
        let (mut buffer, mut metas, mut next) = (Vec::new(), [RecvMeta::default(); BATCH_SIZE], 0);
        for (most, expected) in [(BATCH_SIZE, 32), (3, 3), (BATCH_SIZE, 5)] {
            let (count, ended) = reader.read(&socket, &mut buffer, &mut metas, most);
            // A call that could have read more has found that there are none.
            let is_last = ended.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
            assert_eq!((count, is_last), (expected, most > expected));
            for (meta, slot) in metas.iter().zip(buffer.chunks(SLOT)).take(expected) {
                assert_eq!((meta.len, meta.stride, meta.addr), (next, next, sender.local_addr().expect("it is bound")));
                assert!(slot.iter().take(next).all(|byte| *byte == b'm'), "datagram {next}");
                next += 1;
            }
            assert_eq!(reader.longest, next - 1);
        }
        // The next one is not missed.
        sender.send_to(b"more", address).await.expect("it is sent");
        let more = timeout(Duration::from_secs(20), socket.readable()).await;
        more.expect("it comes").expect("it is open");
        assert_eq!(reader.read(&socket, &mut buffer, &mut metas, 1).0, 1);
    }
}

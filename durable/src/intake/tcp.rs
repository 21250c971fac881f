//! Messages over TCP.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_api::doors::{Admission, Bounds, Evict, PlaceId, Places, Refusal};
use proxy_api::partials::Partial;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::MutexGuard;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::room::Room;
use super::wire::{Protocol, Taken, Wire};
use super::{Asked, Hold, Intake, Limits, source};
use crate::clock::unix_millis;
use crate::{Incoming, Lanes, Store, StoreError};

/// Bytes that are read at once, or fewer where memory has no room for the messages that may be in them.
const READS: [usize; 3] = [64 * 1024, 16 * 1024, 4 * 1024];
/// Bytes that are read although there is no memory, over all lanes, each of which reads its part if none of its messages
/// waits for the log. So a listener keeps reading while those of others have all memory.
const LEAST_READ: usize = 2 * 1024;
thread_local! {
    /// The buffer for a read, used by one connection of the thread at a time, as reading waits for nothing. The memory
    /// is kept: allocating it for each read would cost more than the read.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The pause after an error of the listening socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// How messages are taken over TCP. The memory of a socket is what [`Intake::within`] says, what one connection reads
/// beyond it, and for each RELP connection the answers to one read: some 100 KiB.
#[derive(Clone, Copy, Debug)]
pub struct TcpSettings {
    /// The protocol of the senders.
    pub protocol: Protocol,
    /// The bounds on messages: no more than the store takes.
    pub limits: Limits,
    /// Most connections.
    pub connections: usize,
    /// Most connections of one source, which is an address; those of an IPv6 /64 have three times as many. `None`: what it
    /// may have follows what is free ([`Places::admit_leaving_room`]).
    pub connections_per_source: Option<usize>,
    /// A connection is closed when nothing comes for this long, or an answer is not taken.
    pub idle: Duration,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The sender ended the connection, or the socket failed.
    Sender,
    Idle,
    Violation,
    /// Incomplete messages take too much memory.
    Crowded,
    /// The store has no room for messages whose sender waits for an answer.
    Full,
    /// The store takes no messages, or did not sync them.
    Store,
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Self::Full } else { Self::Store }
    }
}

/// Appends what connections of this socket bring, until this future is dropped, and the connections with it. Each has the
/// lane of its source. While the store of a lane has no room nothing is read from its connections.
pub async fn serve(listener: &TcpListener, lanes: impl Into<Lanes>, settings: TcpSettings, intake: &Intake) {
    let (started, lanes) = (Instant::now(), lanes.into());
    let mut places = Places::new(Bounds {
        strangers: settings.connections,
        per_source: settings.connections_per_source.unwrap_or(settings.connections),
        known: 0,
        evict: Evict::Never,
        rates: None,
    });
    // A connection that waits for the store of its lane holds up only those of the same lane.
    let least_read = least_read(lanes.count());
    let with_room = |store: &Store| (store.clone(), Arc::new(Room::new(intake.share.clone(), least_read)));
    let stores: Vec<(Store, Arc<Room>)> = lanes.stores().map(with_room).collect();
    let mut open = Open { intake, connections: 0 };
    let (mut connections, mut taken, mut waiting) = (JoinSet::new(), HashMap::new(), None);
    loop {
        select! {
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok(accepted) => waiting = admit(&mut places, accepted, started.elapsed(), (&settings, intake)),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            },
            held = Waiting::held(&mut waiting), if waiting.is_some() => {
                if let Some(Waiting { stream, peer, place, .. }) = waiting.take() {
                    if let Some(held) = held && let Some((store, room)) = stores.get(lanes.of(peer.ip())) {
                        open.add();
                        let connection = Connection::new(peer, store.clone(), settings, intake.clone(), room.clone());
                        taken.insert(connections.spawn(connection.run(stream, held)).id(), place);
                    } else {
                        intake.count(|figures| figures.refused_room += 1);
                        places.release(place, started.elapsed());
                    }
                }
            },
            Some(ended) = connections.join_next_with_id(), if !connections.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    // A connection that panics gives its place back, too.
                    Err(error) => {
                        intake.count(|figures| figures.panics += 1);
                        error.id()
                    }
                };
                if let Some(place) = taken.remove(&id) {
                    places.release(place, started.elapsed());
                }
                open.remove();
            }
        }
    }
}

/// A connection that has its place, and waits for its resource of the process. It is the only one of its socket: others
/// wait in the queue of the system.
struct Waiting {
    stream: TcpStream,
    peer: SocketAddr,
    place: PlaceId,
    asked: Asked,
}

impl Waiting {
    /// Waits for the resource of the connection; for ever if there is no connection. Another call continues one that
    /// was dropped.
    async fn held(waiting: &mut Option<Self>) -> Option<Hold> {
        match waiting {
            Some(waiting) => waiting.asked.as_mut().await,
            None => pending().await,
        }
    }
}

fn admit(
    places: &mut Places,
    (stream, peer): (TcpStream, SocketAddr),
    now: Duration,
    (settings, intake): (&TcpSettings, &Intake),
) -> Option<Waiting> {
    if !intake.admits(peer.ip()) {
        return None;
    }
    let admission = match settings.connections_per_source {
        Some(_) => places.admit(peer.ip(), now),
        None => places.admit_leaving_room(peer.ip(), now),
    };
    match admission {
        // Room is asked for last: making room for a connection may cost others theirs.
        Admission::Admit(place) | Admission::AdmitAfterEvicting { place, .. } => {
            Some(Waiting { stream, peer, place, asked: intake.hold(peer.ip()) })
        }
        Admission::Refuse(refusal) => {
            intake.count(|figures| match refusal {
                Refusal::SourceFull | Refusal::SourceRate => figures.refused_source += 1,
                Refusal::Full | Refusal::Rate => figures.refused_full += 1,
            });
            None
        }
    }
}

/// The open connections, which end when this is dropped.
struct Open<'a> {
    intake: &'a Intake,
    connections: u64,
}

impl Open<'_> {
    fn add(&mut self) {
        self.connections += 1;
        self.intake.count(|figures| figures.connections += 1);
    }

    fn remove(&mut self) {
        self.connections -= 1;
        self.intake.count(|figures| figures.connections -= 1);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.intake.count(|figures| figures.connections -= self.connections);
    }
}

/// One connection.
struct Connection {
    peer: SocketAddr,
    source: Arc<[u8]>,
    store: Store,
    idle: Duration,
    intake: Intake,
    wire: Wire,
    room: Arc<Room>,
    partial: Partial,
}

impl Connection {
    fn new(peer: SocketAddr, store: Store, settings: TcpSettings, intake: Intake, room: Arc<Room>) -> Self {
        let wire = Wire::new(settings.protocol, store.limits(settings.limits));
        let partial = room.partial(peer.ip());
        Self { peer, source: source(peer), store, idle: settings.idle, intake, wire, room, partial }
    }

    async fn run(mut self, mut stream: TcpStream, _held: Hold) {
        match self.carry(&mut stream).await {
            End::Sender | End::Violation => {}
            End::Idle => self.intake.count(|figures| figures.idle += 1),
            End::Crowded => self.intake.count(|figures| figures.crowded += 1),
            End::Full => self.intake.count(|figures| figures.log_full += 1),
            End::Store => self.intake.count(|figures| figures.not_kept += 1),
        }
    }

    async fn carry(&mut self, stream: &mut TcpStream) -> End {
        let room = self.room.clone();
        loop {
            match timeout(self.idle, stream.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Sender,
                Err(_) => return self.end_idle(&room).await,
            }
            let turn = room.turn().await;
            if !self.store.takes() {
                // The client of a connection that is closed before its bytes are read sees a reset.
                return End::Store;
            }
            let Some(bytes) = self.room_to_read().await else { return End::Store };
            let mut taken = Taken::default();
            let before = self.wire.counts();
            let end = self.read(stream, bytes, &mut taken);
            self.intake.count_long(before, self.wire.counts());
            let has_room = self.partial.holds(self.wire.held());
            if let Err(end) = self.keep(&mut taken, turn).await {
                return end;
            }
            if !taken.out.is_empty() {
                match timeout(self.idle, stream.write_all(&taken.out)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return End::Sender,
                    Err(_) => return End::Idle,
                }
            }
            if let Some(end) = end {
                return end;
            }
            if self.wire.is_closed() {
                return End::Sender;
            }
            if !has_room {
                return End::Crowded;
            }
        }
    }

    /// Ends an idle connection. An incomplete line is a message then, as at the end of the stream.
    async fn end_idle(&mut self, room: &Room) -> End {
        let turn = room.turn().await;
        let mut taken = Taken::default();
        let before = self.wire.counts();
        // An incomplete message with a length is no message.
        let _ = self.wire.end(&mut taken);
        self.intake.count_long(before, self.wire.counts());
        self.keep(&mut taken, turn).await.err().unwrap_or(End::Idle)
    }

    /// How many bytes may be read. Without memory for the messages in even a few bytes, this waits until the log has
    /// all messages of this lane, and for no other lane. `None`: the store is closed.
    async fn room_to_read(&self) -> Option<usize> {
        let [full, ..] = READS;
        let room = self.memory_to_read();
        if room != Some(full) {
            self.intake.count(|figures| figures.short_reads += 1);
        }
        if room.is_some() {
            return room;
        }
        drop(self.store.until_room(usize::MAX).await.ok()?);
        Some(self.memory_to_read().unwrap_or(self.room.least_read))
    }

    /// How many bytes may be read if the messages in them take as much memory as they can.
    fn memory_to_read(&self) -> Option<usize> {
        let mut memory = self.partial.waiting();
        READS.into_iter().find(|bytes| memory.takes(Incoming::most_cost(*bytes, &self.source)))
    }

    /// Reads once.
    fn read(&mut self, stream: &TcpStream, bytes: usize, taken: &mut Taken) -> Option<End> {
        let read = BUFFER.with_borrow_mut(|buffer| {
            let [full, ..] = READS;
            buffer.resize(full, 0);
            let count = stream.try_read(buffer.get_mut(..bytes).unwrap_or_default())?;
            let bytes = buffer.get(..count).unwrap_or_default();
            Ok((if count == 0 { self.wire.end(taken) } else { self.wire.feed(bytes, taken) }, count == 0))
        });
        let (fed, ends) = match read {
            Ok(read) => read,
            Err(error) if is_for_later(&error) => return None,
            Err(_) => return Some(End::Sender),
        };
        if let Err(error) = fed {
            self.intake.violates(self.peer, &error);
            return Some(End::Violation);
        }
        ends.then_some(End::Sender)
    }

    /// Gives the taken messages to the store, once it has room, and waits for the sync if the sender does.
    async fn keep(&mut self, taken: &mut Taken, turn: MutexGuard<'_, ()>) -> Result<(), End> {
        // They came with one read.
        let received_millis = unix_millis();
        let incoming = |payload| Incoming { source: self.source.clone(), received_millis, payload };
        let messages: Vec<_> = take(&mut taken.messages).into_iter().map(incoming).collect();
        let mut memory = self.partial.waiting();
        // The messages had room before they were read, or while they were incomplete.
        let _ = memory.holds(messages.iter().map(Incoming::cost).sum());
        let (mut memory, mut receipts) = (Some(memory), Vec::new());
        let mut batches = self.store.batches(messages).into_iter().peekable();
        while let Some(batch) = batches.next() {
            let count = batch.len() as u64;
            // The last batch holds the memory, as the log takes batches in their order.
            let memory = memory.take_if(|_| batches.peek().is_none());
            let receipt = self.store.append_with(batch, self.wire.answers(), memory).await?;
            if self.wire.answers() {
                receipts.push(receipt);
            }
            self.intake.count(|figures| figures.messages += count);
        }
        drop(turn);
        for receipt in receipts {
            receipt.synced().await?;
        }
        self.wire.synced(taken);
        Ok(())
    }
}

/// Bytes that each of `lanes` lanes reads although there is no memory. A lane waits for no other one, so all of them
/// may have read at the same time.
fn least_read(lanes: usize) -> usize {
    (LEAST_READ / lanes.max(1)).max(1)
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use durable_core::lanes::MAX_LANES;

    use super::*;

    #[test]
    fn lanes_without_memory_read_no_more_together_than_one_does() {
        let source = [b's'; 45];
        let most = Incoming::most_cost(LEAST_READ, &source);
        for lanes in 1..=MAX_LANES {
            let of_one = least_read(lanes);
            assert!(of_one >= LEAST_READ / MAX_LANES, "{of_one} bytes of {lanes} lanes");
            // A part may begin and end within a message.
            let slack = lanes * Incoming::most_cost(1, &source);
            assert!(lanes * Incoming::most_cost(of_one, &source) <= most + slack, "{lanes} lanes");
        }
    }
}

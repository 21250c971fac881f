//! Messages over TCP.

use std::collections::HashMap;
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
use super::{Hold, Intake, Limits, incoming, source};
use crate::{Incoming, Store};

/// Bytes that are read at once, or fewer where memory has no room for the messages that may be in them.
const READS: [usize; 3] = [64 * 1024, 16 * 1024, 4 * 1024];
/// Bytes that are read although there is no memory, if no message of the listener waits for its log. So a listener goes on
/// while those of others have all memory.
const LEAST_READ: usize = 2 * 1024;
/// After an error of the listening socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// How messages are taken over TCP. The memory of a socket is what [`Intake::within`] says, what one connection reads
/// beyond it, and for each RELP connection the answers to one read: some 100 KiB.
#[derive(Clone, Copy, Debug)]
pub struct TcpSettings {
    /// What senders speak.
    pub protocol: Protocol,
    /// The bounds on messages: no more than the store takes.
    pub limits: Limits,
    /// Most connections.
    pub connections: usize,
    /// Most connections of one source: of an IPv4 address, or of an IPv6 /64.
    pub connections_per_source: usize,
    /// A connection is closed when nothing comes for so long, or an answer is not taken.
    pub idle: Duration,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By its sender, or by an error of the socket.
    Sender,
    Idle,
    Violation,
    /// Too much is held of messages that have not ended.
    Crowded,
    /// The store takes no messages, or did not sync them.
    Store,
}

/// Appends what connections of this socket bring, until this future is dropped, and the connections with it. While the
/// store has no room nothing is read from them.
pub async fn serve(listener: &TcpListener, store: &Store, settings: TcpSettings, intake: &Intake) {
    let started = Instant::now();
    let mut places = Places::new(Bounds {
        strangers: settings.connections,
        per_source: settings.connections_per_source,
        known: 0,
        evict: Evict::Never,
        rates: None,
    });
    let room = Arc::new(Room::new(intake.share.clone()));
    let mut open = Open { intake, connections: 0 };
    let (mut connections, mut taken) = (JoinSet::new(), HashMap::new());
    loop {
        select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some((place, held)) = admit(&mut places, peer, started.elapsed(), intake) {
                        open.add();
                        let connection = Connection::new(peer, store.clone(), settings, intake.clone(), room.clone());
                        taken.insert(connections.spawn(connection.run(stream, held)).id(), place);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
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

fn admit(places: &mut Places, peer: SocketAddr, now: Duration, intake: &Intake) -> Option<(PlaceId, Hold)> {
    if !intake.admits(peer.ip()) {
        return None;
    }
    match places.admit(peer.ip(), now) {
        Admission::Admit(place) | Admission::AdmitAfterEvicting { place, .. } => {
            // Asked last: to make room for a connection costs others theirs.
            let held = intake.hold(peer.ip());
            if held.is_none() {
                places.release(place, now);
            }
            held.map(|held| (place, held))
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

/// The connections that are open, which end with this.
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
        let wire = Wire::new(settings.protocol, settings.limits);
        let partial = room.partial(peer.ip());
        Self { peer, source: source(peer), store, idle: settings.idle, intake, wire, room, partial }
    }

    async fn run(mut self, mut stream: TcpStream, _held: Hold) {
        match self.carry(&mut stream).await {
            End::Sender | End::Violation => {}
            End::Idle => self.intake.count(|figures| figures.idle += 1),
            End::Crowded => self.intake.count(|figures| figures.crowded += 1),
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
                // The client of a connection that is closed before its bytes are read hears of a reset.
                return End::Store;
            }
            let Some(bytes) = self.room_to_read().await else { return End::Store };
            let mut taken = Taken::default();
            let before = self.wire.counts();
            let end = self.read(stream, bytes, &mut taken);
            self.intake.count_long(before, self.wire.counts());
            let has_room = self.partial.holds(self.wire.held());
            if self.keep(&mut taken, turn).await.is_none() {
                return End::Store;
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

    /// Nothing comes any more. The beginning of a line is a message then, as at the end of the stream.
    async fn end_idle(&mut self, room: &Room) -> End {
        let turn = room.turn().await;
        let mut taken = Taken::default();
        let before = self.wire.counts();
        // What has a length and is not whole is none.
        let _ = self.wire.end(&mut taken);
        self.intake.count_long(before, self.wire.counts());
        if self.keep(&mut taken, turn).await.is_some() { End::Idle } else { End::Store }
    }

    /// How many bytes may be read. Without memory for the messages in a few of them, that waits until the log has all
    /// messages of this listener; it waits for no other one. `None`: the store is closed.
    async fn room_to_read(&self) -> Option<usize> {
        let [full, ..] = READS;
        let room = self.memory_to_read();
        if room != Some(full) {
            self.intake.count(|figures| figures.short_reads += 1);
        }
        if room.is_some() {
            return room;
        }
        self.store.until_empty_queue().await.ok()?;
        Some(self.memory_to_read().unwrap_or(LEAST_READ))
    }

    /// How many bytes memory has room for, as messages at their worst.
    fn memory_to_read(&self) -> Option<usize> {
        let mut memory = self.partial.waiting();
        READS.into_iter().find(|bytes| memory.takes(Incoming::most_cost(*bytes, &self.source)))
    }

    /// Reads once. The buffer is there only meanwhile, as most connections are silent most of the time.
    fn read(&mut self, stream: &TcpStream, bytes: usize, taken: &mut Taken) -> Option<End> {
        let mut buffer = vec![0; bytes];
        let (fed, ends) = match stream.try_read(&mut buffer) {
            Ok(0) => (self.wire.end(taken), true),
            Ok(count) => (self.wire.feed(buffer.get(..count).unwrap_or_default(), taken), false),
            Err(error) if is_for_later(&error) => return None,
            Err(_) => return Some(End::Sender),
        };
        if let Err(error) = fed {
            self.intake.violates(self.peer, &error);
            return Some(End::Violation);
        }
        ends.then_some(End::Sender)
    }

    /// Gives what was taken to the store, once it has room, and waits for the sync if the sender does.
    async fn keep(&mut self, taken: &mut Taken, turn: MutexGuard<'_, ()>) -> Option<()> {
        let messages: Vec<_> =
            take(&mut taken.messages).into_iter().map(|payload| incoming(&self.source, payload)).collect();
        let mut memory = self.partial.waiting();
        // There was room for them before they were read, or they had it when they had not ended.
        let _ = memory.holds(messages.iter().map(Incoming::cost).sum());
        let (mut memory, mut receipts) = (Some(memory), Vec::new());
        let mut batches = self.store.batches(messages).into_iter().peekable();
        while let Some(batch) = batches.next() {
            let count = batch.len() as u64;
            // The last one has it: the log takes them in their order.
            let memory = memory.take_if(|_| batches.peek().is_none());
            let receipt = self.store.append_with(batch, self.wire.answers(), memory).await.ok()?;
            if self.wire.answers() {
                receipts.push(receipt);
            }
            self.intake.count(|figures| figures.messages += count);
        }
        drop(turn);
        for receipt in receipts {
            receipt.synced().await.ok()?;
        }
        self.wire.synced(taken);
        Some(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

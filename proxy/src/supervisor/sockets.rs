//! The open sockets: the only place that opens, switches and closes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use proxy_api::{Bind, ListenerId, SocketKey, Transport};
use tokio::time::{sleep, timeout};

use super::{
    foreign_ports::ForeignPorts,
    holders::{Errors, Holders},
    listeners::ById,
    notices,
    open_socket::{OpenSocket, SocketIds},
};
use crate::{
    core::{
        changes::{
            diff::{Plan, Settled},
            lacking::{Lacking, Refused},
        },
        limits::{capacity, open_files::most_sockets},
        logging::unrouted::Unrouted,
        workers::walk::Walk,
    },
    files::{Files, Permit},
    log::{Level, Notice},
    net::{self, BindError, OsSocket},
    process::Process,
    route::Served,
    shared::Shared,
    threads::Workers,
};

/// Longest wait for workers to drop their handles of closed sockets.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Pause between two checks for remaining handles.
const CLOSE_LOOK: Duration = Duration::from_millis(1);

/// New sockets of one key, which no worker has yet.
pub(super) struct NewSockets {
    sockets: Vec<OsSocket>,
    /// Their places among the files.
    files: Permit,
}

type Opened = BTreeMap<SocketKey, NewSockets>;

/// The result of [`Sockets::bind`].
pub(super) struct Bound {
    /// The sockets of each listener, given the sockets that could not be opened.
    pub(super) settled: Settled,
    /// New sockets, which no worker has yet.
    pub(super) opened: Opened,
    /// Why the other sockets could not be opened.
    pub(super) errors: Errors,
}

/// Owns the open sockets.
pub(super) struct Sockets {
    open: BTreeMap<SocketKey, OpenSocket>,
    ids: SocketIds,
    next_worker: usize,
    foreign: ForeignPorts,
    /// Sockets that could not be opened.
    lacking: Lacking,
    /// The known programs that hold them.
    holders: Holders,
    /// Sockets for which too few files were free.
    refused: Refused,
    /// Notices about sockets that should have shards and have none.
    unsharded: Vec<Notice>,
}

impl Sockets {
    /// Creates an owner without sockets, which knows the ports that other programs had in use.
    pub(super) fn new(foreign: ForeignPorts) -> Self {
        let (lacking, refused, holders) = (Lacking::default(), Refused::default(), Holders::default());
        let (open, ids, unsharded) = (BTreeMap::new(), SocketIds::default(), Vec::new());
        Self { open, ids, next_worker: 0, foreign, lacking, refused, holders, unsharded }
    }

    /// Whether no socket is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Unrouted connections of each socket that listeners share by server name, by port.
    pub(super) fn unrouted(&self) -> Vec<(u16, Arc<Unrouted>)> {
        let by_name = self.open.iter().filter(|(_, open)| open.is_by_name());
        by_name.map(|(key, open)| (key.port, open.unrouted())).collect()
    }

    /// Opens the sockets of a plan, then settles the plan by the sockets that could not be opened. Sockets that serve
    /// already stay as they are.
    pub(super) fn bind(&mut self, plan: &Plan<'_>, process: &Process) -> Bound {
        let (opened, mut errors) = self.open(plan, process);
        loop {
            let settled = plan.settle(&errors.keys().copied().collect());
            let failed = self.listen(plan, &settled, &opened);
            if failed.is_empty() {
                let is_served = |key: &&SocketKey| settled.next.sockets.contains_key(key);
                self.foreign.settled(opened.keys().filter(is_served).copied());
                let unserved = opened.keys().filter(|key| !is_served(key));
                self.refused.given_back(unserved.map(|key| most_sockets(*key)).sum());
                let tried = errors.iter().filter(|(key, _)| !self.refused.has(key));
                self.lacking = tried.map(|(key, error)| (*key, (error.reason, error.to_string()))).collect();
                // Only now: a retry, which compares the messages, does not look up holders.
                self.holders.name(&mut errors, |new| BindError::name_holders(new.into_iter()));
                return Bound { settled, opened, errors };
            }
            errors.extend(failed);
        }
    }

    /// Whether a socket could not be opened.
    pub(super) fn is_lacking(&self) -> bool {
        !self.lacking.is_empty() || !self.refused.is_empty()
    }

    /// How many sockets were refused so far because too few files were free; each counts once while it is lacking.
    pub(super) fn refused(&self) -> u64 {
        self.refused.total()
    }

    /// Whether the file of ports of other programs is up to date, and is not being written.
    pub(super) fn has_written_ports(&self) -> bool {
        self.foreign.are_written()
    }

    /// Checks whether the file of foreign ports is written, and writes it if it lacks any. Returns the notice to log.
    pub(super) fn write_ports(&mut self) -> Option<Notice> {
        self.foreign.written()
    }

    /// Retries only the sockets that could not be opened; those that lacked files wait until more are free. Returns
    /// whether to apply the configuration again, which opens those that can be.
    pub(super) fn have_news(&mut self, process: &Process) -> bool {
        let may_fit = self.refused.may_fit(process.free_files_for_listeners());
        if self.lacking.is_empty() {
            return may_fit;
        }
        let lacking = std::mem::take(&mut self.lacking);
        let news = lacking.has_news(|key| {
            let beside = self.beside(key, &Opened::new());
            // No connection is accepted: sockets that are opened here are closed at once.
            let reserve = |key| net::reserve(key, &beside);
            let failed = self.foreign.bind(key, reserve, reserve).err();
            failed.map(|error| (error.reason, error.to_string()))
        });
        self.lacking = lacking;
        self.foreign.settled(std::iter::empty());
        news || may_fit
    }

    /// Opens the sockets that can be opened. Ports of ranges are only reserved: an incomplete range accepts nothing.
    fn open(&mut self, plan: &Plan<'_>, process: &Process) -> (Opened, Errors) {
        let (mut opened, mut errors) = (Opened::new(), Errors::new());
        let of_ranges = plan.of_ranges();
        self.foreign.wanted(&plan.bind);
        self.refused.begin();
        // Ranges come last: one that does not fit leaves the files to the sockets that do.
        for key in plan.bind.difference(&of_ranges).chain(&of_ranges) {
            let (most, free) = (most_sockets(*key), process.free_files_for_listeners());
            if most > free {
                self.refused.add(*key, free);
                errors.insert(*key, BindError::no_files(*key, process.files.usage().1));
                continue;
            }
            // Sessions that begin meanwhile take none of the reserve, so listeners take no more of it than they may.
            let places = process.files.take_anyway(most);
            let open = if of_ranges.contains(key) { net::reserve } else { net::open };
            let beside = self.beside(*key, &opened);
            match self.foreign.bind(*key, |key| open(key, &beside), |key| net::reserve(key, &beside)) {
                Ok(sockets) => {
                    opened.insert(*key, NewSockets { sockets, files: places });
                }
                Err(error) => {
                    errors.insert(*key, error);
                }
            }
        }
        (opened, errors)
    }

    /// Accepts connections on the reserved ports that will be served; returns the sockets on which that fails.
    fn listen(&self, plan: &Plan<'_>, settled: &Settled, opened: &Opened) -> Errors {
        let served = plan.of_ranges().into_iter().filter(|key| settled.next.sockets.contains_key(key));
        let listen = |key: SocketKey| {
            let failed = net::listen(key, &opened.get(&key)?.sockets, &self.beside(key, opened)).err();
            failed.map(|error| (key, error))
        };
        served.filter_map(listen).collect()
    }

    /// The proxy's own sockets on other addresses of the same port.
    fn beside(&self, key: SocketKey, opened: &Opened) -> Vec<OsSocket> {
        let others = [Bind::Loopback, Bind::All].map(|bind| SocketKey { bind, ..key }).into_iter();
        let of = |other: SocketKey| {
            let ours = self.open.get(&other).into_iter().flat_map(OpenSocket::sockets);
            ours.chain(opened.get(&other).into_iter().flat_map(|new| &new.sockets)).cloned()
        };
        others.filter(|other| *other != key).flat_map(of).collect()
    }

    /// Makes every socket of `next` serve its listeners. A new socket is taken from `opened` and starts on one worker, or
    /// with a shard on each; sockets of `opened` that are not in `next` are closed.
    pub(super) async fn switch(
        &mut self,
        next: &BTreeMap<SocketKey, BTreeSet<ListenerId>>,
        live: &ById,
        mut opened: Opened,
        workers: &Workers,
        files: &Arc<Files>,
    ) {
        for (key, ids) in next {
            let listeners: Vec<_> = ids.iter().filter_map(|id| live.get(id)).cloned().collect();
            let unrouted = self.open.get(key).map(OpenSocket::unrouted).unwrap_or_default();
            let Some(served) = Served::of(&listeners, &unrouted) else { continue };
            // The thread of durable listeners comes after the workers.
            let (is_durable, count) = (served.is_durable(), workers.handles.len());
            if let Some(open) = self.open.get_mut(key) {
                if open.is_durable() == is_durable {
                    open.switch(served);
                } else {
                    let to = if is_durable { count } else { self.next_worker % count };
                    open.hand_over(served, to, &mut self.ids, workers).await;
                }
            } else if let Some(NewSockets { sockets, files: places }) = opened.remove(key) {
                let parts = if is_durable {
                    sockets.into_iter().map(|socket| (count, socket)).collect()
                } else {
                    self.spread(*key, sockets, served.first(), count, files)
                };
                let mut open = OpenSocket::new(served, unrouted, files.take_anyway(parts.len()));
                drop(places);
                for (worker, socket) in parts {
                    open.add(self.ids.fresh(), socket, worker, workers).await;
                }
                self.open.insert(*key, open);
            }
            if let (Some(open), Some(first)) = (self.open.get_mut(key), listeners.first()) {
                open.set_keepalive(first.spec.load().timeouts.keepalive_seconds);
            }
        }
    }

    /// Chooses the workers of a new socket. Both addresses of a listener start on the same worker, and listeners are
    /// spread over workers. A UDP socket also gets a shard for each other worker, given many workers and spare files.
    fn spread(
        &mut self,
        key: SocketKey,
        sockets: Vec<OsSocket>,
        listener: &Shared,
        workers: usize,
        files: &Files,
    ) -> Vec<(usize, OsSocket)> {
        let own = self.next_worker % workers;
        self.next_worker += 1;
        // The ports of a range are already spread over workers.
        let is_sharded = cfg!(target_os = "linux")
            && key.transport == Transport::Udp
            && listener.spec.load().end_port.is_none()
            && capacity::shards_datagrams(workers, files.usage());
        let mut parts = Vec::new();
        for socket in sockets {
            let others = (0..workers).filter(|worker| is_sharded && *worker != own);
            let shard = |worker| net::open_shard(&socket).map(|shard| (worker, shard));
            let shards: io::Result<Vec<_>> = others.map(shard).collect();
            match shards {
                Ok(shards) => parts.extend(shards),
                Err(error) => {
                    // The shards before the failed one are closed, so the proxy binds no other socket beside this one.
                    net::share(&socket, false);
                    let message = format!("a single worker receives the datagrams of {key}: {error}");
                    self.unsharded.push(notices::notice(Level::Warn, "unsharded", &listener.id, message));
                }
            }
            parts.push((own, socket));
        }
        parts
    }

    /// Closes these sockets; their workers first take the connections that are queued on them. When this returns, the
    /// ports are free for the next configuration, unless a worker takes longer than [`CLOSE_WITHIN`].
    pub(super) async fn close(&mut self, keys: &BTreeSet<SocketKey>, workers: &Workers) {
        let mut closing = Vec::new();
        for key in keys {
            if let Some(open) = self.open.remove(key) {
                closing.extend(open.close(workers).await);
            }
        }
        let dropped_elsewhere = async {
            while !closing.iter().all(OsSocket::is_last) {
                sleep(CLOSE_LOOK).await;
            }
        };
        // A port that is not free by then is retried every second, like any other that is in use.
        let _ = timeout(CLOSE_WITHIN, dropped_elsewhere).await;
    }

    /// Checks the next `most` sockets, each once a second: those that have become hot get a shard on every worker.
    /// Returns notices about that, and about connections that belong to no listener and are in no line of the log yet.
    pub(super) async fn look(
        &mut self,
        walk: &mut Walk<SocketKey>,
        most: usize,
        now: u64,
        workers: &Workers,
        files: &Arc<Files>,
    ) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.unsharded);
        let may_shard = may_shard(workers);
        let keys: Vec<SocketKey> = walk.step(&self.open, most).into_iter().map(|(key, _)| *key).collect();
        for key in keys {
            let Some(open) = self.open.get_mut(&key) else { continue };
            notices.extend(open.unrouted_rest(now));
            if may_shard && open.turns_hot() {
                let Some(_room) = open.room_for_shards(workers, files) else { continue };
                let result = open.add_shards(&mut self.ids, workers, files).await;
                notices.push(sharded(key, &open.first(), workers.handles.len(), result));
            }
        }
        notices
    }
}

/// Whether shards help: there is more than one worker, and the system spreads connections over sockets.
fn may_shard(workers: &Workers) -> bool {
    cfg!(target_os = "linux") && workers.handles.len() > 1
}

fn sharded(key: SocketKey, listener: &ListenerId, workers: usize, result: io::Result<()>) -> Notice {
    match result {
        Ok(()) => {
            let message = format!("{key} is hot: {workers} workers now accept its connections");
            notices::notice(Level::Info, "sharded", listener, message)
        }
        Err(error) => {
            let message = format!("{key} is hot, but not every worker accepts its connections: {error}");
            notices::notice(Level::Warn, "unsharded", listener, message)
        }
    }
}

#[cfg(test)]
mod tests;

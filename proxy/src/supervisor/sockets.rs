//! The open sockets: the only place that opens, switches and closes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use proxy_api::{Bind, ListenerId, SocketKey};

use super::{
    foreign_ports::ForeignPorts,
    listeners::ById,
    notices,
    open_socket::{OpenSocket, SocketIds},
};
use crate::{
    core::{
        diff::{Plan, Settled},
        lacking::Lacking,
    },
    files::Files,
    log::{Level, Notice},
    net::{self, BindError, OsSocket},
    route::{Served, Unrouted},
    threads::Workers,
};

/// Sockets that could not be opened.
pub(super) type Errors = BTreeMap<SocketKey, BindError>;
type Opened = BTreeMap<SocketKey, Vec<OsSocket>>;

/// The result of [`Sockets::bind`].
pub(super) struct Bound {
    /// Which listeners serve which sockets, given the sockets that could not be opened.
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
}

impl Sockets {
    /// No sockets, beside ports that other programs had in use.
    pub(super) fn new(foreign: ForeignPorts) -> Self {
        let lacking = Lacking::default();
        Self { open: BTreeMap::new(), ids: SocketIds::default(), next_worker: 0, foreign, lacking }
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
    pub(super) fn bind(&mut self, plan: &Plan<'_>) -> Bound {
        let (opened, mut errors) = self.open(plan);
        loop {
            let settled = plan.settle(&errors.keys().copied().collect());
            let failed = self.listen(plan, &settled, &opened);
            if failed.is_empty() {
                self.foreign.settled(opened.keys().filter(|key| settled.next.sockets.contains_key(key)).copied());
                self.lacking = errors.iter().map(|(key, error)| (*key, (error.reason, error.to_string()))).collect();
                // Only now: a retry, which compares the messages, does not look for holders.
                BindError::name_holders(errors.values_mut());
                return Bound { settled, opened, errors };
            }
            errors.extend(failed);
        }
    }

    /// Whether a socket could not be opened.
    pub(super) fn is_lacking(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Tries the sockets that could not be opened, and no others. Returns whether the configuration should be applied
    /// again, which opens what can be opened.
    pub(super) fn have_news(&mut self) -> bool {
        if self.lacking.is_empty() {
            return false;
        }
        let lacking = std::mem::take(&mut self.lacking);
        let news = lacking.has_news(|key| {
            let beside = self.beside(key, &Opened::new());
            // No connection is accepted: what is opened here is closed at once.
            let reserve = |key| net::reserve(key, &beside);
            let failed = self.foreign.bind(key, reserve, reserve).err();
            failed.map(|error| (error.reason, error.to_string()))
        });
        self.lacking = lacking;
        self.foreign.settled(std::iter::empty());
        news
    }

    /// Opens what can be opened. Ports of ranges are only reserved: a range that lacks a port accepts nothing.
    fn open(&mut self, plan: &Plan<'_>) -> (Opened, Errors) {
        let (mut opened, mut errors) = (Opened::new(), Errors::new());
        let of_ranges = plan.of_ranges();
        self.foreign.wanted(&plan.bind);
        for key in &plan.bind {
            let open = if of_ranges.contains(key) { net::reserve } else { net::open };
            let beside = self.beside(*key, &opened);
            match self.foreign.bind(*key, |key| open(key, &beside), |key| net::reserve(key, &beside)) {
                Ok(sockets) => {
                    opened.insert(*key, sockets);
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
            let failed = net::listen(key, opened.get(&key)?, &self.beside(key, opened)).err();
            failed.map(|error| (key, error))
        };
        served.filter_map(listen).collect()
    }

    /// The proxy's own sockets on other addresses of the same port.
    fn beside(&self, key: SocketKey, opened: &Opened) -> Vec<OsSocket> {
        let others = [Bind::Loopback, Bind::All].map(|bind| SocketKey { bind, ..key }).into_iter();
        let of = |other: SocketKey| {
            let ours = self.open.get(&other).into_iter().flat_map(OpenSocket::sockets);
            ours.chain(opened.get(&other).into_iter().flatten()).cloned()
        };
        others.filter(|other| *other != key).flat_map(of).collect()
    }

    /// Makes every socket of `next` serve its listeners. A new socket is taken from `opened` and starts on one worker;
    /// sockets of `opened` that are not in `next` are closed.
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
            if let Some(open) = self.open.get(key) {
                open.switch(served);
            } else if let Some(sockets) = opened.remove(key) {
                let empty = OpenSocket::new(served, unrouted, files.take_anyway(sockets.len()));
                let open = self.start(empty, sockets, workers).await;
                self.open.insert(*key, open);
            }
            if let (Some(open), Some(first)) = (self.open.get_mut(key), listeners.first()) {
                open.set_keepalive(first.spec.load().timeouts.keepalive_seconds);
            }
        }
    }

    /// Both addresses of a listener start on the same worker; listeners are spread over workers.
    async fn start(&mut self, mut open: OpenSocket, sockets: Vec<OsSocket>, workers: &Workers) -> OpenSocket {
        let worker = self.next_worker % workers.handles.len();
        self.next_worker += 1;
        for socket in sockets {
            open.add(self.ids.fresh(), socket, worker, workers).await;
        }
        open
    }

    /// Closes these sockets; their workers first take the connections that are queued on them.
    pub(super) async fn close(&mut self, keys: &BTreeSet<SocketKey>, workers: &Workers) {
        for key in keys {
            if let Some(open) = self.open.remove(key) {
                open.close(workers).await;
            }
        }
    }

    /// Called once a second: gives sockets that have become hot a shard on every worker. Returns one notice for each.
    pub(super) async fn shard(&mut self, workers: &Workers, files: &Arc<Files>) -> Vec<Notice> {
        let mut notices = Vec::new();
        if !may_shard(workers) {
            return notices;
        }
        for (key, open) in &mut self.open {
            if open.turns_hot() {
                let result = open.add_shards(&mut self.ids, workers, files).await;
                notices.push(sharded(*key, &open.first(), workers.handles.len(), result));
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
            let message = format!("{key} is hot, but a single worker keeps accepting its connections: {error}");
            notices::notice(Level::Warn, "unsharded", listener, message)
        }
    }
}

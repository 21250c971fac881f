//! Hot listeners are accepted by every worker, each from a queue of its own.
//!
//! One socket for all workers would wake all of them for every connection; one socket on one worker makes that worker
//! accept for the others. So a listener starts with one socket and is given one per worker once connections come fast.

use std::sync::Arc;

use proxy_api::SocketKey;

use super::{OpenSocket, Part, Supervisor};
use crate::{
    log::Level,
    net::{self, OsSocket},
    threads::Command,
    udp::SocketId,
};

/// New connections in a second that make a listener hot.
const HOT: u64 = 1000;

impl Supervisor {
    /// Whether there is anything to be watched: more than one worker, and a system that spreads connections.
    fn may_shard(&self) -> bool {
        cfg!(target_os = "linux") && self.workers.handles.len() > 1
    }

    /// Called once a second: gives listeners that have become hot a socket for every worker.
    pub(super) async fn shard(&mut self) {
        if !self.may_shard() {
            return;
        }
        let hot: Vec<SocketKey> =
            self.sockets.iter_mut().filter_map(|(key, open)| is_hot(open).then_some(*key)).collect();
        for key in hot {
            let Some(mut open) = self.sockets.remove(&key) else { continue };
            let id = open.route.load().first().id.clone();
            match self.add_shards(&mut open).await {
                Ok(()) => {
                    let message = format!("{key} is hot: {} workers accept on it now", self.workers.handles.len());
                    self.process.log.notice(Level::Info, "sharded", id, message);
                }
                Err(error) => {
                    let message = format!("{key} is hot, and one worker goes on accepting for all: {error}");
                    self.process.log.notice(Level::Warn, "unsharded", id, message);
                }
            }
            self.sockets.insert(key, open);
        }
    }

    async fn add_shards(&mut self, open: &mut OpenSocket) -> std::io::Result<()> {
        let sockets: Vec<_> = open.parts.iter().map(|part| (part.worker, part.socket.clone())).collect();
        for worker in 0..self.workers.handles.len() {
            for (_, socket) in sockets.iter().filter(|(owner, _)| *owner != worker) {
                let OsSocket::Tcp(listener) = socket else { continue };
                let socket = net::open_shard(listener)?;
                let id = SocketId(self.next_socket);
                self.next_socket += 1;
                let command = Command::Listen { id, socket: socket.clone(), route: open.route.clone() };
                self.workers.handles[worker].tell(command).await;
                open.parts.push(Part { id, socket, worker });
            }
        }
        // Set on the new ones with the next change of the spec at the latest; until then by what follows.
        open.keepalive = 0;
        super::apply::set_keepalive(open, &open.route.load().first().spec.load_full());
        open.files = self.process.files.take_anyway(open.parts.len());
        Ok(())
    }
}

/// Whether a TCP socket that has no shards yet was given many connections since the last call.
fn is_hot(open: &mut OpenSocket) -> bool {
    let served = open.route.load_full();
    // A listener counts its sessions over all ports: a range would be given shards on ports that nobody uses.
    if served.first().spec.load().end_port.is_some() {
        return false;
    }
    let opened = served.opened();
    let (known, before) = std::mem::replace(&mut open.seen, (Arc::downgrade(&served), opened));
    let same = known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, &served));
    let hot = same && !open.sharded && matches!(open.parts.first().map(|part| &part.socket), Some(OsSocket::Tcp(_)));
    let is_hot = hot && opened.saturating_sub(before) >= HOT;
    open.sharded |= is_hot;
    is_hot
}

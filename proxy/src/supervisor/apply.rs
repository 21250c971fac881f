//! Carrying a plan out: bind, switch, close, and end the sessions that the change concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use proxy_api::{Bind, Listener, ListenerId, OnUpdate, SocketKey};
use socket2::SockRef;

use super::{OpenSocket, Part, Supervisor};
use crate::{
    core::{
        diff::{self, Concern, Plan, Settled},
        end::EndReason,
        limiter::Limiter,
    },
    net::{self, BindError, OsSocket},
    route::{Served, Unrouted},
    shared::Shared,
    threads::Command,
    udp::SocketId,
    worker::Ending,
};

type Opened = BTreeMap<SocketKey, Vec<OsSocket>>;

impl Supervisor {
    /// Runs the configuration that is set, as far as it can be run.
    pub(super) async fn apply(&mut self) {
        let desired = diff::desired(&self.configuration);
        let plan = diff::diff(&self.running, &desired);
        let (mut opened, mut errors) = self.open(&plan);
        let settled = loop {
            let settled = plan.settle(&errors.keys().copied().collect());
            let failed = self.listen(&plan, &settled, &opened);
            if failed.is_empty() {
                break settled;
            }
            errors.extend(failed);
        };
        let before = self.listeners.clone();
        self.place_listeners(&settled);
        self.running = settled.next.clone();
        self.refresh_targets();
        self.switch_routes(&settled, &mut opened).await;
        self.close(&settled.close).await;
        self.end_concerned(&settled.concerned, &before).await;
        self.retire(&before);
        self.note(&settled, &errors, &before);
        self.publish();
    }

    /// Opens what can be opened. The ports of ranges are only reserved: who has not all of them lets nobody in.
    fn open(&self, plan: &Plan<'_>) -> (Opened, BTreeMap<SocketKey, BindError>) {
        let (mut opened, mut errors) = (Opened::new(), BTreeMap::new());
        let of_ranges = plan.of_ranges();
        for key in &plan.bind {
            let open = if of_ranges.contains(key) { net::reserve } else { net::open };
            match open(*key, &self.beside(*key, &opened)) {
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

    /// Lets connections in on the reserved ports that are to be served; gives those on which it cannot be done.
    fn listen(&self, plan: &Plan<'_>, settled: &Settled, opened: &Opened) -> BTreeMap<SocketKey, BindError> {
        let served = plan.of_ranges().into_iter().filter(|key| settled.next.sockets.contains_key(key));
        let listen = |key: SocketKey| {
            let failed = net::listen(key, opened.get(&key)?, &self.beside(key, opened)).err();
            failed.map(|error| (key, error))
        };
        served.filter_map(listen).collect()
    }

    /// Our other sockets on the port of this one.
    fn beside(&self, key: SocketKey, opened: &Opened) -> Vec<OsSocket> {
        let others = [Bind::Loopback, Bind::All].map(|bind| SocketKey { bind, ..key }).into_iter();
        let of = |other: SocketKey| {
            let ours = self.sockets.get(&other).into_iter().flat_map(|open| &open.parts).map(|part| &part.socket);
            ours.chain(opened.get(&other).into_iter().flatten()).cloned()
        };
        others.filter(|other| *other != key).flat_map(of).collect()
    }

    /// Brings the shared listeners up to date. One that moves to another socket is made anew, with the old counts, so
    /// that its old sessions can be told from its new ones.
    fn place_listeners(&mut self, settled: &Settled) {
        self.listeners.retain(|id, _| settled.next.listeners.contains_key(id));
        self.limiters.retain(|_, limiter| limiter.strong_count() > 0);
        for shared in &self.moved {
            // Limits and policies of old sessions are those of now.
            if let Some(spec) = settled.next.listeners.get(&*shared.id) {
                shared.spec.store(spec.clone());
            }
        }
        for (id, spec) in &settled.next.listeners {
            let limiter = self.limiter(id);
            let known = self.listeners.get(id);
            match known {
                Some(shared) if shared.spec.load().socket == spec.socket => {
                    if shared.spec.load().revision != spec.revision {
                        limiter.set(spec.limits.as_deref());
                        shared.spec.store(spec.clone());
                    }
                }
                _ => {
                    let before = known.or_else(|| self.retired.iter().find(|shared| *shared.id == *id)).cloned();
                    let counters = before.as_ref().map(|shared| shared.counters.clone()).unwrap_or_default();
                    self.moved.extend(before);
                    limiter.set(spec.limits.as_deref());
                    self.listeners.insert(id.clone(), Shared::new(id.clone(), spec.clone(), counters, limiter));
                }
            }
        }
    }

    /// The limits of a listener's forward, which all its listeners share. They live as long as its listeners and its
    /// sessions do: a forward that is made anew meanwhile counts those too.
    fn limiter(&mut self, id: &ListenerId) -> Arc<Limiter> {
        let forward = (id.namespace.clone(), id.forward.clone());
        if let Some(limiter) = self.limiters.get(&forward).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::default());
        self.limiters.insert(forward, Arc::downgrade(&limiter));
        limiter
    }

    async fn switch_routes(&mut self, settled: &Settled, opened: &mut Opened) {
        for (key, ids) in &settled.next.sockets {
            let listeners: Vec<Arc<Shared>> = ids.iter().filter_map(|id| self.listeners.get(id)).cloned().collect();
            let unrouted = self.sockets.get(key).map(|open| open.unrouted.clone()).unwrap_or_default();
            let Some(served) = Served::of(&listeners, &unrouted) else { continue };
            if let Some(open) = self.sockets.get(key) {
                if !open.route.load().is_same(&served) {
                    open.route.store(Arc::new(served));
                }
            } else if let Some(sockets) = opened.remove(key) {
                let open = self.serve(sockets, served, unrouted).await;
                self.sockets.insert(*key, open);
            }
            if let (Some(open), Some(first)) = (self.sockets.get_mut(key), listeners.first()) {
                set_keepalive(open, &first.spec.load());
            }
        }
    }

    async fn serve(&mut self, sockets: Vec<OsSocket>, served: Served, unrouted: Arc<Unrouted>) -> OpenSocket {
        let route = Arc::new(ArcSwap::new(Arc::new(served)));
        let mut parts = Vec::with_capacity(sockets.len());
        // Both addresses of a listener on one worker; listeners spread over workers.
        let worker = self.next_worker % self.workers.handles.len();
        self.next_worker += 1;
        for socket in sockets {
            let id = SocketId(self.next_socket);
            self.next_socket += 1;
            let command = Command::Listen { id, socket: socket.clone(), route: route.clone() };
            self.workers.handles[worker].tell(command).await;
            parts.push(Part { id, socket, worker });
        }
        let files = self.process.files.take_anyway(parts.len());
        OpenSocket { route, parts, keepalive: 0, sharded: false, seen: (Weak::new(), 0), unrouted, files }
    }

    async fn close(&mut self, keys: &BTreeSet<SocketKey>) {
        for key in keys {
            for part in self.sockets.remove(key).map(|open| open.parts).unwrap_or_default() {
                self.workers.handles[part.worker].tell(Command::Close(part.id)).await;
            }
        }
    }

    async fn end_concerned(&self, concerned: &[Concern], before: &BTreeMap<ListenerId, Arc<Shared>>) {
        for concern in concerned {
            let over_millis = match concern.policy.sessions.on_update {
                OnUpdate::Keep => continue,
                OnUpdate::Drain => u64::from(concern.policy.sessions.drain_seconds) * 1000,
                OnUpdate::Close => 0,
            };
            let moved = self.moved.iter().filter(|shared| *shared.id == concern.listener);
            for listener in before.get(&concern.listener).into_iter().chain(moved) {
                for worker in &self.workers.handles {
                    let ending = Ending {
                        listener: listener.clone(),
                        which: concern.which.clone(),
                        reason: EndReason::Updated,
                        over_millis,
                    };
                    worker.tell(Command::End(ending)).await;
                }
            }
        }
    }

    /// Keeps listeners that are gone in sight while they have sessions.
    fn retire(&mut self, before: &BTreeMap<ListenerId, Arc<Shared>>) {
        let gone = before.iter().filter(|(id, _)| !self.listeners.contains_key(*id)).map(|(_, shared)| shared.clone());
        self.retired.extend(gone);
        self.retired.retain(|shared| shared.counters.active() > 0 && !self.listeners.contains_key(&*shared.id));
        self.told.retain(|(id, _)| self.listeners.contains_key(id));
    }
}

/// Accepted connections inherit this from the socket they come from.
pub(super) fn set_keepalive(open: &mut OpenSocket, spec: &Listener) {
    let seconds = spec.timeouts.keepalive_seconds;
    if std::mem::replace(&mut open.keepalive, seconds) == seconds {
        return;
    }
    for part in &open.parts {
        if let OsSocket::Tcp(socket) = &part.socket {
            net::set_keepalive(&SockRef::from(&**socket), seconds);
        }
    }
}

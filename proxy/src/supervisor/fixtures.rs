//! A supervisor and listeners, for the tests of its parts.

use std::{collections::BTreeMap, sync::Arc};

use proxy_api::{Backend, Bind, Listener, ListenerId, Origin, SocketKey, Target, Transport};
use tokio::sync::{mpsc, watch};

use super::Supervisor;
use crate::{
    agents::ForTunnels,
    core::control::reports::Published,
    fixtures::{process, template},
    metrics::Metrics,
    settings::Settings,
    threads::Workers,
};

/// A supervisor without workers and listeners, and what its tunnels get.
pub(super) fn supervisor() -> (Supervisor, watch::Receiver<Arc<ForTunnels>>) {
    let process = process(&Settings::default(), None);
    let workers = Workers { handles: Vec::new(), durable: None, threads: Vec::new() };
    let (metrics, (answers, _)) = (Metrics::new(process.clone()), mpsc::channel(1));
    let ((report, _), (agents, told)) = (watch::channel(Published::default()), watch::channel(Arc::default()));
    (Supervisor::new(process, workers, metrics, answers, report, agents, &Settings::default()), told)
}

/// `ns/f/NAME`.
pub(crate) fn id(name: &str) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", "f"), name)
}

/// TCP on loopback.
pub(super) fn socket(port: u16) -> SocketKey {
    SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port }
}

/// A TCP listener on loopback with one backend, the endpoint set of that name.
pub(crate) fn listener(port: u16, backend: &str) -> Arc<Listener> {
    let target = Target::Endpoints(backend.to_owned());
    let backends = vec![Backend { id: backend.to_owned(), weight: 1, priority: 0, check_port: None, target }];
    Arc::new(Listener { socket: socket(port), backends, ..template() }.sealed())
}

/// Listeners by name.
pub(super) fn listeners<const N: usize>(all: [(&str, Arc<Listener>); N]) -> BTreeMap<ListenerId, Arc<Listener>> {
    all.into_iter().map(|(name, listener)| (id(name), listener)).collect()
}

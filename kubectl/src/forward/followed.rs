//! A followed target, and the local ports that lead to its pods.

use std::{collections::BTreeSet, net::SocketAddr, rc::Rc, time::Duration};

use kubectl_core::forward::{
    endpoints::Unresolved,
    mapping::{Mapping, Remote},
    open_port::OpenPort,
};
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Interval, interval},
};

use super::{
    port::{Listeners, Port, Shared},
    source::Source,
};
use crate::{cluster::Cluster, error::Error};

/// Interval between two reads of pods that have sessions and are no longer endpoints.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A followed target. Its sessions and its local ports are tasks of the local set.
pub(super) struct Followed {
    cluster: Cluster,
    source: Source,
    shared: Rc<Shared>,
    ports: Vec<Opened>,
    look: Interval,
}

/// A local port.
pub(super) struct Opened {
    port: Rc<Port>,
    /// The name of the target's port.
    label: String,
    addresses: Vec<SocketAddr>,
    local: u16,
    /// The task that owns the sockets; absent once the port is closed, when only its sessions are left.
    accepting: Option<JoinHandle<()>>,
}

impl Opened {
    /// The record to print.
    pub(super) fn record(&self) -> OpenPort {
        let (ready_pods, pods) = self.port.counts();
        OpenPort {
            target: self.port.shared.label.clone(),
            port: self.label.clone(),
            local_port: self.local,
            addresses: self.addresses.clone(),
            pods,
            ready_pods,
        }
    }
}

impl Followed {
    /// A target without local ports.
    pub(super) fn new(cluster: &Cluster, source: Source, shared: Rc<Shared>) -> Self {
        Self { cluster: cluster.clone(), source, shared, ports: Vec::new(), look: interval(LOOK_EVERY) }
    }

    /// The ports that are forwarded if none is named.
    pub(super) fn usual(&self) -> Vec<Mapping> {
        self.source.usual()
    }

    /// Opens a local port, and returns its number.
    pub(super) fn open(&mut self, mapping: &Mapping) -> Result<u16, Error> {
        let source = &self.source;
        let number = source.number(&mapping.remote)?;
        let local = mapping.local_port(number).ok_or_else(|| self.no_local_port(&mapping.remote))?;
        let listeners = Rc::new(Listeners::bind(local)?);
        let remote = source.followed(&mapping.remote);
        let label = remote.label(number);
        let port = Rc::new(Port::new(self.shared.clone(), remote, source.pods_api()));
        update(source, &port);
        let (local, addresses) = (listeners.number(), listeners.addresses());
        let accepting = Some(spawn_local(port.clone().accept(listeners)));
        self.ports.push(Opened { port, label, addresses, local, accepting });
        Ok(local)
    }

    fn no_local_port(&self, remote: &Remote) -> Error {
        Error::NoLocalPort { target: self.shared.label.clone(), port: remote.to_string() }
    }

    /// The local ports, in the order in which they were opened.
    pub(super) fn opened(&self) -> &[Opened] {
        &self.ports
    }

    /// The number of the local port that leads to a port of the target, if that is open.
    pub(super) fn local(&self, remote: &Remote) -> Option<u16> {
        let is_it = |opened: &&Opened| opened.accepting.is_some() && opened.port.remote == *remote;
        self.ports.iter().find(is_it).map(|opened| opened.local)
    }

    /// Closes the local ports that lead to other ports of the target. Their sessions continue.
    pub(super) fn keep_only(&mut self, wanted: &BTreeSet<u16>) {
        for opened in &mut self.ports {
            let is_wanted = matches!(opened.port.remote, Remote::Number(number) if wanted.contains(&number));
            if !is_wanted && let Some(task) = opened.accepting.take() {
                task.abort();
            }
        }
    }

    /// Whether neither a local port nor a session is left.
    pub(super) fn is_idle(&self) -> bool {
        self.ports.is_empty()
    }

    /// Waits for a change of the pods, or for the next read of them, and processes it. Dropping the future early loses
    /// nothing.
    pub(super) async fn step(&mut self) {
        tokio::select! {
            problem = self.source.changed(&self.cluster) => {
                if let Some(problem) = problem {
                    self.shared.note(&format!("the list of pods may be out of date: {problem}"));
                }
                for opened in &self.ports {
                    update(&self.source, &opened.port);
                }
            }
            _ = self.look.tick() => {
                for Opened { port, .. } in &self.ports {
                    for pod in port.suspects() {
                        let namespace = self.source.namespace().to_owned();
                        spawn_local(port.clone().look_at(self.cluster.clone(), namespace, pod));
                    }
                }
                // A session holds a reference to its port.
                self.ports.retain(|opened| opened.accepting.is_some() || Rc::strong_count(&opened.port) > 1);
            }
        }
    }
}

/// Gives a port its newest endpoints.
fn update(source: &Source, port: &Port) {
    let found = source.endpoints(&port.remote);
    let problem: Option<Unresolved> = found.as_ref().err().cloned();
    port.set(found.unwrap_or_default(), source.pods_api(), problem);
}

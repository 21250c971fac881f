//! The proxy: the program of the image, which follows a document in a file.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use proxy_api::{Configuration, Listener, ListenerId, Origin};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    backends::{DATAGRAMS, FAILING, FIRST, SECOND},
    listener, ports,
    process::Process,
};

/// Idle time of the sessions of the load.
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// Idle time of UDP flows.
pub(crate) const UDP_IDLE: Duration = Duration::from_secs(5);
/// Ports of the listener that moves, and of the listeners that come and go.
const MOVES: u16 = 4;
const FLEETING: u16 = 12;
/// Ports of all listeners, and of the endpoints of the proxy.
const PORTS: u16 = 5 + MOVES + FLEETING;
/// Name of the document, and of the one that is to replace it.
const DOCUMENT: &str = "config.json";
const NEXT: &str = "next";
/// Pause between two signals: a changed file counts when two looks have seen the same state of it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Ports of the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// Endpoints of the proxy.
    pub(crate) health: u16,
    /// A listener that never changes.
    pub(crate) steady: u16,
    /// A listener whose backend is replaced.
    pub(crate) replaced: u16,
    /// A listener whose backend is down again and again.
    pub(crate) failing: u16,
    /// UDP.
    pub(crate) datagrams: u16,
    first_move: u16,
    first_fleeting: u16,
}

impl Ports {
    fn fresh() -> Self {
        let health = ports::fresh(PORTS);
        let [steady, replaced, failing, datagrams, first_move] = [1, 2, 3, 4, 5].map(|offset| health + offset);
        Self { health, steady, replaced, failing, datagrams, first_move, first_fleeting: first_move + MOVES }
    }

    /// Where the listener that moves may be.
    pub(crate) fn moves(self) -> Vec<u16> {
        (self.first_move..self.first_move + MOVES).collect()
    }

    /// Where listeners come and go.
    pub(crate) fn fleeting(self) -> Vec<u16> {
        (self.first_fleeting..self.first_fleeting + FLEETING).collect()
    }
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    /// The port of the listener that moves.
    pub(crate) moved_to: u16,
    /// Whether the second backend has replaced the first one.
    pub(crate) is_second: bool,
    /// Ports of the listeners that come and go.
    pub(crate) fleeting: BTreeSet<u16>,
}

impl World {
    pub(crate) fn new(ports: Ports) -> Self {
        Self { moved_to: ports.first_move, is_second: false, fleeting: BTreeSet::new() }
    }

    /// Name of the backend of the listener whose backend is replaced.
    pub(crate) fn name(&self) -> u8 {
        self.backend().1
    }

    fn backend(&self) -> (u16, u8) {
        if self.is_second { SECOND } else { FIRST }
    }
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) ports: Ports,
    process: Process,
    folder: TempDir,
}

impl Proxy {
    /// Starts the proxy; it may not be ready yet.
    pub(crate) fn start(program: &Path, workers: u16) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", program.display());
        let (folder, ports) = (tempfile::tempdir().map_err(failed)?, Ports::fresh());
        let document = folder.path().join(DOCUMENT);
        fs::write(&document, text(&World::new(ports), ports)).map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(document).arg("--health-address").arg(format!("127.0.0.1:{}", ports.health));
        command.args(["--admin-address", "none", "--workers", &workers.to_string()]);
        let process = Process::start(&mut command).map_err(failed)?;
        Ok(Self { ports, process, folder })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Replaces the document.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) async fn apply(&self, world: &World) -> std::io::Result<()> {
        let next = self.folder.path().join(NEXT);
        fs::write(&next, text(world, self.ports))?;
        fs::rename(next, self.folder.path().join(DOCUMENT))?;
        self.process.signal(Signal::HUP);
        tokio::time::sleep(BETWEEN_LOOKS).await;
        self.process.signal(Signal::HUP);
        Ok(())
    }
}

/// The document, as an operator compiles it.
fn text(world: &World, ports: Ports) -> String {
    let mut configuration = Configuration::default();
    configuration.version.number = 1;
    let mut add = |name: &str, document: Value| {
        let listener: Listener = serde_json::from_value(document).expect("a listener");
        let id = ListenerId::new(Origin::port_forward("default", "soak"), name);
        configuration.listeners.insert(id, listener.sealed().into());
    };
    add("steady", of_load("TCP", "Loopback", ports.steady, FIRST.0));
    // One socket for both IP families, as in a gateway.
    add("replaced", of_load("TCP", "All", ports.replaced, world.backend().0));
    add("failing", of_load("TCP", "Loopback", ports.failing, FAILING.0));
    add("datagrams", of_load("UDP", "Loopback", ports.datagrams, DATAGRAMS));
    add("moving", compiled("TCP", "Loopback", world.moved_to, FIRST.0));
    for port in &world.fleeting {
        let mut document = compiled("TCP", "Loopback", *port, FIRST.0);
        document["sessions"]["onUpdate"] = json!("Close");
        add(&format!("fleeting-{port}"), document);
    }
    serde_json::to_string(&configuration).expect("a document")
}

/// A listener with a record of each session.
fn compiled(transport: &str, bind: &str, port: u16, to: u16) -> Value {
    let mut document = listener::document(&json!({"transport": transport, "bind": bind, "port": port}), to);
    document["accessLog"]["mode"] = json!("Close");
    document
}

/// A listener of the load, with times that pass many times in a run.
fn of_load(transport: &str, bind: &str, port: u16, to: u16) -> Value {
    let mut document = compiled(transport, bind, port, to);
    // A session that the load keeps half closed moves bytes more often.
    document["timeouts"]["halfCloseSeconds"] = json!(10);
    document["timeouts"]["idleSeconds"] = json!(IDLE.as_secs());
    document["timeouts"]["udpIdleSeconds"] = json!(UDP_IDLE.as_secs());
    document["timeouts"]["keepaliveSeconds"] = json!(10);
    // The failing backend is there again after seconds.
    document["outlier"]["ejectSeconds"] = json!(1);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_reads_the_document_of_every_world() {
        let ports = Ports::fresh();
        let first = World::new(ports);
        let fleeting = ports.fleeting().into_iter().collect();
        let other = World { moved_to: ports.first_move + 1, is_second: true, fleeting };
        let listeners = |world: &World| {
            let text = text(world, ports);
            Configuration::decode(text.as_bytes()).expect("a document").listeners.len()
        };
        assert_eq!(listeners(&first), 5);
        assert_eq!(listeners(&other), 5 + usize::from(FLEETING));
        assert_ne!(text(&first, ports), text(&other, ports));
    }

    #[test]
    fn no_two_listeners_have_a_port() {
        let ports = Ports::fresh();
        let mut all = vec![ports.health, ports.steady, ports.replaced, ports.failing, ports.datagrams];
        all.extend(ports.moves());
        all.extend(ports.fleeting());
        let count = all.len();
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), count);
        assert_eq!(count, usize::from(PORTS));
    }
}

//! Portlane: the program of the image, on a document as an operator compiles it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use images::{Checkout, Image};
use proxy_api::{Access, Configuration, Listener, ListenerId, Offer, Origin};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Ports, Variant, port, write};
use crate::{image, listener, operator::Operator};

/// Port of the first further listener.
const FURTHER: u16 = 10_000;
/// A limit that no load reaches: of sessions, and of new sessions per second.
const MANY: u32 = 1_000_000;
/// The highest limit of bytes per second.
const MANY_BYTES: u64 = 1_000_000_000_000;
/// Name of the document in the forwarder's folder.
const DOCUMENT: &str = "config.json";

/// The programs of Portlane that are measured.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The static program of the image.
    pub(crate) shipped: PathBuf,
    /// The program that is linked with this machine's libc.
    pub(crate) glibc: Option<PathBuf>,
}

impl Programs {
    /// Builds what images contain with the function that builds images, and the other program if it is asked for.
    pub(crate) fn build(glibc: bool) -> Result<Self, String> {
        let shipped = image::proxy()?;
        if !glibc {
            return Ok(Self { shipped, glibc: None });
        }
        let (checkout, package) = (Checkout::here(), Image::Proxy.package());
        eprintln!("building {package} for the libc of this machine");
        let mut cargo = images::cargo();
        cargo.args(["build", "--locked", "--quiet", "--release", "--package", package]);
        cargo.current_dir(&checkout.root).env("CARGO_TARGET_DIR", &checkout.target);
        match cargo.status() {
            Ok(status) if status.success() => {
                Ok(Self { shipped, glibc: Some(checkout.target.join("release").join(package)) })
            }
            Ok(_) => Err(format!("{package} does not build; see the messages of the compiler above")),
            Err(error) => Err(format!("cannot run cargo: {error}")),
        }
    }
}

/// Path of the document that Portlane follows.
pub(super) fn path(folder: &TempDir) -> PathBuf {
    folder.path().join(DOCUMENT)
}

/// The command of a proxy that follows an operator, or else a document.
pub(super) fn command(
    program: &Path,
    variant: Variant,
    ports: Ports,
    folder: &TempDir,
    operator: Option<&Operator>,
) -> Command {
    let workers = if let Variant::Workers(workers) = variant { workers } else { 1 };
    let mut command = Command::new(program);
    match operator {
        Some(operator) => command.args(operator.options(folder.path())),
        None => command.arg("--config").arg(write(folder, DOCUMENT, &Documents::new(variant, ports).here)),
    };
    command.arg("--health-address").arg(format!("127.0.0.1:{}", ports.health));
    command.args(["--admin-address", "none", "--workers", &workers.to_string()]);
    command
}

/// Two documents that differ in the server of one listener.
pub(crate) struct Documents {
    /// The listener `flip` leads to the echo server.
    pub(crate) here: String,
    /// The listener `flip` leads to the server that answers with the next byte.
    pub(crate) there: String,
}

impl Documents {
    pub(crate) fn new(variant: Variant, ports: Ports) -> Self {
        let mut configuration = configuration(variant, ports);
        configuration.version.number = 1;
        let mut text = |to: u16| {
            let (id, offer) = flip(variant, ports, to);
            configuration.listeners.insert(id, offer);
            serde_json::to_string(&configuration).expect("a document")
        };
        Self { here: text(port::ECHO), there: text(port::NEXT) }
    }
}

/// What Portlane runs. The listener `flip` leads to the echo server.
pub(super) fn configuration(variant: Variant, ports: Ports) -> Configuration {
    let mut configuration = Configuration::default();
    let mut add = |name: &str, socket: Value, to: u16| {
        configuration.listeners.insert(id(name), compiled(&socket, to, variant).into());
    };
    add("echo", loopback("TCP", ports.echo), port::ECHO);
    add("sink", loopback("TCP", ports.sink), port::SINK);
    add("both", loopback("TCP", ports.both), port::BOTH);
    add("udp", loopback("UDP", ports.udp), ports.udp_server);
    if let Variant::Listeners(further) = variant {
        for at in FURTHER..FURTHER.saturating_add(further) {
            // As in a gateway: one socket for both IP families.
            add(&format!("l{at}"), json!({"transport": "TCP", "bind": "All", "port": at}), port::ECHO);
        }
    }
    configuration.listeners.extend([denied(variant, ports), flip(variant, ports, port::ECHO)]);
    configuration
}

/// The listener that changes, when it leads to the server at this port.
pub(crate) fn flip(variant: Variant, ports: Ports, to: u16) -> (ListenerId, Offer) {
    (id("flip"), compiled(&loopback("TCP", ports.flip), to, variant).into())
}

/// The listener that refuses every client.
fn denied(variant: Variant, ports: Ports) -> (ListenerId, Offer) {
    let mut listener = compiled(&loopback("TCP", ports.denied), port::ECHO, variant);
    let deny = vec!["127.0.0.0/8".parse().expect("a network")];
    listener.access = Some(Box::new(Access { allow: Vec::new(), deny }));
    (id("denied"), listener.sealed().into())
}

fn id(name: &str) -> ListenerId {
    ListenerId::new(Origin::port_forward("default", "bench"), name)
}

fn loopback(transport: &str, port: u16) -> Value {
    json!({"transport": transport, "bind": "Loopback", "port": port})
}

/// A listener with the defaults of a `PortForward`, and what the variant adds.
fn compiled(socket: &Value, to: u16, variant: Variant) -> Listener {
    let mut document = listener::document(socket, to);
    match variant {
        Variant::AccessLog => document["accessLog"]["mode"] = json!("Close"),
        Variant::Rates => {
            document["limits"] = json!({"newConnectionsPerSecond": MANY, "bytesPerSecond": MANY_BYTES});
        }
        Variant::MaxConnections => document["limits"] = json!({"maxConnections": MANY}),
        Variant::Plain | Variant::Workers(_) | Variant::Listeners(_) => {}
    }
    let listener: Listener = serde_json::from_value(document).expect("a listener");
    listener.sealed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_forwarded_to_the_server_that_the_row_names() {
        for server in [port::ECHO, port::TRAINS] {
            let configuration = configuration(Variant::Plain, Ports::fresh(server));
            let offer = serde_json::to_value(configuration.listeners.get(&id("udp"))).expect("a listener");
            assert!(offer.to_string().contains(&format!("127.0.0.1:{server}")), "{offer}");
        }
    }
}

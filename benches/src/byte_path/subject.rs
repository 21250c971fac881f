//! The forwarders that are measured, all configured alike: one worker, no log, from ports to servers on loopback.

mod haproxy;
mod nginx;
mod portlane;
mod rinetd;
mod socat;

use std::{net::UdpSocket, path::PathBuf, process::Command, time::Duration};

use harness::{connect, round_trip, until};
use tempfile::TempDir;

pub(crate) use self::portlane::{Documents, Programs, flip};
use crate::{
    measure::Processes,
    namespace::Cpus,
    operator::Operator,
    ports,
    process::{Preferred, Process, prefer_this_thread},
    roles::{Model, Role, TcpPorts},
    servers::port,
};

/// Ports of one forwarder.
const PORTS: u16 = 8;
/// Name of a configuration before it replaces the present one.
const NEXT_CONFIGURATION: &str = "next";
/// Longest wait for one answer to a datagram.
const DATAGRAM: Duration = Duration::from_millis(100);

/// A forwarder, or a configuration of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The program of the image.
    Portlane(Variant),
    /// The same sources built for the libc of this machine.
    PortlaneGlibc,
    HaProxy,
    /// `HAProxy` with splice forced, which it otherwise rarely uses.
    HaProxySplice,
    Nginx,
    Rinetd,
    Socat,
    Tokio,
    /// A forwarder of the bench by one model of I/O.
    Model(Model),
    /// No forwarder: the client connects to the server.
    Direct,
}

/// A configuration of Portlane. All but the first are compared with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// As the peers: one worker, no log, no limits, the listeners of the bench.
    Plain,
    /// This number of workers, on both CPUs.
    Workers(u16),
    /// A record of each session when it closes.
    AccessLog,
    /// A limit of new sessions per second, and one of bytes, out of reach.
    Rates,
    /// A limit of sessions, out of reach.
    MaxConnections,
    /// This number of further listeners.
    Listeners(u16),
}

/// Where Portlane has its configuration from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    File,
    /// An operator of the bench, by its stream.
    Operator,
}

impl Kind {
    pub(crate) const PLAIN: Self = Self::Portlane(Variant::Plain);

    /// The forwarders that are compared; Portlane first.
    pub(crate) fn compared(glibc: bool) -> Vec<Self> {
        let mut kinds = vec![Self::PLAIN];
        kinds.extend(glibc.then_some(Self::PortlaneGlibc));
        kinds.extend([Self::HaProxy, Self::HaProxySplice, Self::Nginx, Self::Rinetd, Self::Socat]);
        kinds.extend([Self::Tokio, Self::Direct]);
        kinds
    }

    /// Models of I/O side by side; Portlane first.
    pub(crate) fn models() -> Vec<Self> {
        let mut kinds = vec![Self::PLAIN, Self::HaProxy, Self::HaProxySplice, Self::Nginx, Self::Rinetd, Self::Socat];
        kinds.extend(Model::ALL.map(Self::Model));
        kinds
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Portlane(Variant::Plain) => "Portlane".to_owned(),
            Self::Portlane(Variant::Workers(1)) => "1 worker".to_owned(),
            Self::Portlane(Variant::Workers(workers)) => format!("{workers} workers"),
            Self::Portlane(Variant::AccessLog) => "access log".to_owned(),
            Self::Portlane(Variant::Rates) => "limits of rates".to_owned(),
            Self::Portlane(Variant::MaxConnections) => "limit of connections".to_owned(),
            Self::Portlane(Variant::Listeners(further)) => format!("{further} further listeners"),
            Self::PortlaneGlibc => "Portlane, glibc".to_owned(),
            Self::HaProxy => "HAProxy".to_owned(),
            Self::HaProxySplice => "HAProxy, splice forced".to_owned(),
            Self::Nginx => "nginx".to_owned(),
            Self::Rinetd => "rinetd".to_owned(),
            Self::Socat => "socat".to_owned(),
            Self::Tokio => "tokio".to_owned(),
            Self::Model(model) => model.name(),
            Self::Direct => "no forwarder".to_owned(),
        }
    }

    /// The program of the distribution, and how it prints its version.
    pub(crate) fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::HaProxy | Self::HaProxySplice => Some(("haproxy", "-v")),
            Self::Nginx => Some(("nginx", "-v")),
            Self::Rinetd => Some(("rinetd", "-v")),
            Self::Socat => Some(("socat", "-V")),
            Self::Portlane(_) | Self::PortlaneGlibc | Self::Tokio | Self::Model(_) | Self::Direct => None,
        }
    }

    pub(crate) fn is_portlane(self) -> bool {
        matches!(self, Self::Portlane(_) | Self::PortlaneGlibc)
    }

    /// The configuration of Portlane; of the others there is one.
    pub(crate) fn variant(self) -> Variant {
        if let Self::Portlane(variant) = self { variant } else { Variant::Plain }
    }

    /// Whether the forwarder is measured with datagrams. socat forks a process for each flow that never ends, and
    /// rinetd's answers do not arrive.
    pub(crate) fn has_udp(self) -> bool {
        self.is_portlane() || matches!(self, Self::Nginx | Self::Tokio | Self::Direct)
    }

    /// Whether the forwarder has a port that refuses every client by address, before it connects to a server.
    pub(crate) fn refuses(self) -> bool {
        self.is_portlane() || matches!(self, Self::HaProxy | Self::HaProxySplice | Self::Nginx | Self::Rinetd)
    }

    /// Whether the forwarder forks a process for each connection.
    pub(crate) fn forks(self) -> bool {
        self == Self::Socat
    }

    fn uses_both_cpus(self) -> bool {
        matches!(self, Self::Portlane(Variant::Workers(_)))
    }
}

/// Ports that clients connect to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) echo: u16,
    pub(crate) sink: u16,
    pub(crate) both: u16,
    pub(crate) udp: u16,
    /// The server behind the UDP port.
    udp_server: u16,
    /// Where the server changes; to the echo server at first. Portlane only.
    pub(crate) flip: u16,
    /// Where every client is refused, by forwarders that can.
    pub(crate) denied: u16,
    /// Endpoints of Portlane.
    health: u16,
}

impl Ports {
    /// Ports that no forwarder has had: connections of an earlier one may be in `TIME_WAIT`.
    fn fresh(udp_server: u16) -> Self {
        let first = ports::fresh(PORTS);
        let [echo, sink, both, udp, flip, denied, health] = [0, 1, 2, 3, 4, 5, 6].map(|offset| first + offset);
        Self { echo, sink, both, udp, udp_server, flip, denied, health }
    }

    /// TCP ports, and the servers behind them.
    fn tcp(self) -> [(u16, u16); 3] {
        [(self.echo, port::ECHO), (self.sink, port::SINK), (self.both, port::BOTH)]
    }
}

/// The servers behind every forwarder.
pub(crate) struct Servers {
    echo: Process,
    sink: Process,
}

impl Servers {
    /// Starts them on this thread's CPU.
    pub(crate) fn start() -> Self {
        let servers = Self { echo: Role::Echo.start(), sink: Role::Sink.start() };
        for port in [port::ECHO, port::NEXT, port::SINK, port::BOTH] {
            until("the servers listen", || connect(port).is_ok());
        }
        servers
    }

    /// Gives echoes priority over bulk, which is on the same CPU.
    pub(crate) fn prefer_echoes(&self) -> Preferred {
        self.echo.prefer()
    }
}

/// A running forwarder.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) ports: Ports,
    pub(crate) processes: Processes,
    running: Vec<Process>,
    operator: Option<Operator>,
    folder: TempDir,
}

impl Subject {
    /// Starts the forwarder, whose UDP port leads to a server at `udp_server`, and waits until it forwards.
    ///
    /// # Panics
    /// The program is not installed, or does not forward in time.
    pub(crate) fn start(
        kind: Kind,
        source: Source,
        udp_server: u16,
        programs: &Programs,
        servers: &Servers,
        cpus: Cpus,
    ) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut ports = Ports::fresh(udp_server);
        // Its thread is on the CPU of the load, and prompt: the wait in the proxy is what is measured.
        let operator = (source == Source::Operator)
            .then(|| Operator::start(portlane::configuration(kind.variant(), ports), prefer_this_thread));
        let commands = match kind {
            Kind::Portlane(variant) => {
                vec![portlane::command(&programs.shipped, variant, ports, &folder, operator.as_ref())]
            }
            Kind::PortlaneGlibc => {
                let program = programs.glibc.as_ref().expect("built with --glibc");
                vec![portlane::command(program, Variant::Plain, ports, &folder, operator.as_ref())]
            }
            Kind::HaProxy => vec![haproxy::command(ports, &folder, false)],
            Kind::HaProxySplice => vec![haproxy::command(ports, &folder, true)],
            Kind::Nginx => vec![nginx::command(ports, &folder)],
            Kind::Rinetd => vec![rinetd::command(ports, &folder)],
            Kind::Socat => socat::commands(ports).into(),
            Kind::Tokio | Kind::Model(_) | Kind::Direct => Vec::new(),
        };
        let mut running = cpus.spawn(kind.uses_both_cpus(), || {
            let start = |mut command: Command| Process::start(&mut command).expect("the program starts");
            commands.into_iter().map(start).collect::<Vec<_>>()
        });
        running.extend(role(kind, ports).map(|role| cpus.spawn(false, || role.start())));
        if kind == Kind::Direct {
            ports = Ports { echo: port::ECHO, sink: port::SINK, both: port::BOTH, udp: udp_server, ..ports };
        }
        until_forwarding(kind, ports, &mut running);
        if let Some(operator) = &operator {
            until("the first report", || operator.is_applied());
        }
        let forwarder = running.iter().map(Process::id).collect();
        let processes = Processes { forwarder, servers: vec![servers.echo.id(), servers.sink.id()] };
        Self { kind, ports, processes, running, operator, folder }
    }

    /// The operator that Portlane follows, if it does.
    pub(crate) fn operator(&self) -> Option<&Operator> {
        self.operator.as_ref()
    }

    /// Ids of the forwarder's own processes.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.processes.forwarder.iter().copied()
    }

    /// Writes the next configuration of Portlane beside the present one.
    pub(crate) fn write_configuration(&self, document: &str) {
        write(&self.folder, NEXT_CONFIGURATION, document);
    }

    /// Replaces the configuration by the written one.
    pub(crate) fn replace_configuration(&self) {
        let written = self.folder.path().join(NEXT_CONFIGURATION);
        std::fs::rename(written, portlane::path(&self.folder)).expect("rename");
    }

    pub(crate) fn hang_up(&self) {
        self.running.iter().for_each(|process| process.signal(rustix::process::Signal::HUP));
    }
}

/// What this program is as this forwarder, if it is one.
fn role(kind: Kind, ports: Ports) -> Option<Role> {
    let tcp = TcpPorts { echo: ports.echo, sink: ports.sink, both: ports.both };
    match kind {
        Kind::Tokio => Some(Role::Tokio { ports: tcp, udp: ports.udp, udp_server: ports.udp_server }),
        Kind::Model(model) => Some(Role::Model { model, ports: tcp }),
        _ => None,
    }
}

fn until_forwarding(kind: Kind, ports: Ports, running: &mut [Process]) {
    if kind.is_portlane() {
        until("Portlane is ready", || {
            harness::http_get(ports.health, "/readyz").is_ok_and(|(status, _)| status == 200)
        });
    }
    until(&kind.name(), || {
        assert!(running.iter_mut().all(Process::is_running), "{} has ended", kind.name());
        connect(ports.echo).and_then(|mut it| round_trip(&mut it, b"x")).is_ok()
    });
    if kind.has_udp() {
        let client = udp_client(ports.udp);
        client.set_read_timeout(Some(DATAGRAM)).expect("option");
        until("datagrams", || client.send(b"x").and_then(|_| client.recv(&mut [0; 8])).is_ok());
    }
}

/// A socket of a client that sends datagrams to this port.
pub(crate) fn udp_client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.connect(("127.0.0.1", port)).map(|()| it));
    client.expect("a socket")
}

/// Writes a configuration file and returns its path.
fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("configuration");
    file
}

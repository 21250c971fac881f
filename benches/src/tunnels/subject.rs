//! The tunnels that are measured, all configured alike: an agent and a server on loopback, one worker where that can be
//! said, no log, and three ports that lead to the servers of the bench.

mod frp;
mod portlane;
mod rathole;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use harness::{connect, http_get, metric, round_trip, until};
use tempfile::TempDir;

use crate::{
    kind::Kind, measure::Processes, namespace::Cpus, peers::Programs, ports, process::Process, role::Servers,
    servers::port, sockets::listening,
};

/// Ports of one tunnel.
const PORTS: u16 = 8;
/// Port of the first further agent, where a peer needs one for each.
const FURTHER: u16 = 10_000;
/// Agents that start at once. Servers let only so many strangers of one address in at a time.
const AT_ONCE: u16 = 8;
/// Variables by which people lead connections elsewhere, or give an agent a join string.
const FOREIGN: [&str; 7] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "PORTLANE_JOIN"];

/// Ports of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) echo: u16,
    pub(crate) sink: u16,
    pub(crate) both: u16,
    /// Where agents connect.
    carrier: u16,
    /// Endpoints of Portlane's server, and of its first agent.
    health: u16,
    agent_health: u16,
}

impl Ports {
    /// Ports that no tunnel has had: connections of an earlier one may be in `TIME_WAIT`.
    fn fresh() -> Self {
        let first = ports::fresh(PORTS);
        let [echo, sink, both, carrier, health, agent_health] = [0, 1, 2, 3, 4, 5].map(|offset| first + offset);
        Self { echo, sink, both, carrier, health, agent_health }
    }

    /// Ports that clients connect to, the servers behind them, and a name for each.
    fn forwarded(self) -> [(&'static str, u16, u16); 3] {
        [("echo", self.echo, port::ECHO), ("sink", self.sink, port::SINK), ("both", self.both, port::BOTH)]
    }
}

/// What the commands of a tunnel are made from.
struct Place {
    programs: Programs,
    ports: Ports,
    folder: TempDir,
    /// Agents that may come after the first one.
    further: u16,
}

impl Place {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder().join(name);
        fs::write(&file, text).expect("a file");
        file
    }
}

/// The files of an agent that runs within the bench.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// The file with its join string.
    pub(crate) join: PathBuf,
    /// The folder for its key and its certificate.
    pub(crate) folder: PathBuf,
}

/// A running tunnel: a server and its agents.
pub(crate) struct Subject {
    kind: Kind,
    pub(crate) ports: Ports,
    pub(crate) processes: Processes,
    cpus: Cpus,
    server: Option<Process>,
    agents: Vec<Process>,
    /// After the processes, which write into its folder until they are dropped.
    place: Place,
}

impl Subject {
    /// Starts a server and one agent, and waits until they forward.
    ///
    /// # Panics
    /// A program is not installed, or does not forward in time.
    pub(crate) fn start(kind: Kind, programs: &Programs, servers: &Servers, cpus: Cpus, further: u16) -> Self {
        let mut subject = Self::serve(kind, programs, servers, cpus, further);
        if kind == Kind::NoTunnel {
            return subject;
        }
        subject.add_agent(0);
        subject.until("the agent is connected", Self::has_agent);
        subject.until("the tunnel forwards", |it| {
            connect(it.ports.echo).and_then(|mut stream| round_trip(&mut stream, b"x")).is_ok()
        });
        subject.processes.forwarder = subject.server.iter().chain(&subject.agents).map(Process::id).collect();
        subject
    }

    /// Starts a server without agents, and waits until they can connect.
    ///
    /// # Panics
    /// A program is not installed, or does not listen in time.
    pub(crate) fn serve(kind: Kind, programs: &Programs, servers: &Servers, cpus: Cpus, further: u16) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let ports = Ports::fresh();
        let place = Place { programs: programs.clone(), ports, folder, further };
        let processes = Processes { forwarder: Vec::new(), servers: servers.ids() };
        let mut subject = Self { kind, ports, processes, cpus, server: None, agents: Vec::new(), place };
        if kind == Kind::NoTunnel {
            subject.ports = Ports { echo: port::ECHO, sink: port::SINK, both: port::BOTH, ..ports };
            return subject;
        }
        subject.start_server();
        subject.until("the server listens", Self::takes_agents);
        subject
    }

    /// Starts the server, for the first time or again, with the same ports and files.
    pub(crate) fn start_server(&mut self) {
        self.server = Some(self.spawn(self.server_command()));
    }

    /// Kills the server. Its sockets are closed once this returns.
    pub(crate) fn kill_server(&mut self) {
        self.server = None;
    }

    /// The files of an agent of Portlane that runs within the bench.
    pub(crate) fn home(&self, at: u16) -> Home {
        let folder = self.place.folder();
        Home { join: portlane::join(folder, at), folder: portlane::data(folder, at) }
    }

    /// Starts a process on the CPU of agent and server.
    fn spawn(&self, mut command: Command) -> Process {
        self.cpus.spawn(false, || Process::start(&mut command).expect("the program starts"))
    }

    fn server_command(&self) -> Command {
        match self.kind {
            Kind::Portlane => portlane::server(&self.place),
            Kind::Rathole(carrier) => rathole::server(&self.place, carrier),
            Kind::Frp(_) => frp::server(&self.place),
            Kind::NoTunnel => panic!("a tunnel has a server"),
        }
    }

    fn add_agent(&mut self, at: u16) {
        let command = match self.kind {
            Kind::Portlane => portlane::agent(&self.place, at),
            Kind::Rathole(carrier) => rathole::agent(&self.place, carrier, at),
            Kind::Frp(carrier) => frp::agent(&self.place, carrier, at),
            Kind::NoTunnel => panic!("a tunnel has an agent"),
        };
        let agent = self.spawn(command);
        self.agents.push(agent);
    }

    /// Waits until this holds, while all processes run.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let name = self.kind.name();
        until(&format!("{name}: {what}"), || {
            let mut processes = self.server.iter_mut().chain(&mut self.agents);
            assert!(processes.all(Process::is_running), "{name}: a process has ended");
            holds(self)
        });
    }

    /// Whether an agent can be started.
    fn takes_agents(&self) -> bool {
        listening().contains(&self.ports.carrier) && (self.kind != Kind::Portlane || portlane::can_join(&self.place))
    }

    /// Whether the first agent is connected, so that all ports are open.
    fn has_agent(&self) -> bool {
        let open = listening();
        let is_ready = || http_get(self.ports.agent_health, "/readyz").is_ok_and(|(status, _)| status == 200);
        self.ports.forwarded().iter().all(|(_, from, _)| open.contains(from))
            && (self.kind != Kind::Portlane || is_ready())
    }

    /// Starts the further agents, and waits until all of them are connected.
    pub(crate) fn add_further(&mut self) {
        for first in (1..=self.place.further).step_by(AT_ONCE.into()) {
            let last = (first + AT_ONCE - 1).min(self.place.further);
            (first..=last).for_each(|at| self.add_agent(at));
            self.until("further agents are connected", |it| it.further_connected() >= f64::from(last));
        }
    }

    /// Further agents that are connected.
    fn further_connected(&self) -> f64 {
        if self.kind == Kind::Portlane {
            let text = http_get(self.ports.health, "/metrics").map(|(_, text)| text).unwrap_or_default();
            return metric(&text, "portlane_tunnel_agents ").unwrap_or_default() - 1.0;
        }
        let ports = FURTHER + 1..=FURTHER + self.place.further;
        listening().into_iter().filter(|port| ports.contains(port)).count() as f64
    }

    /// Id of the server's process.
    ///
    /// # Panics
    /// There is no tunnel.
    pub(crate) fn server_id(&self) -> u32 {
        self.server.as_ref().expect("a tunnel").id()
    }

    /// Id of the first agent's process.
    ///
    /// # Panics
    /// There is no tunnel.
    pub(crate) fn agent_id(&self) -> u32 {
        self.agents.first().expect("a tunnel").id()
    }
}

/// A program without the variables that lead it elsewhere.
fn plain(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in FOREIGN {
        command.env_remove(name);
    }
    command
}

/// A port on loopback.
fn local(port: u16) -> String {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()
}

//! The forwarders that are measured, all configured alike: one worker, no log, from a port to a server on loopback.

use std::{
    fs,
    io::Read,
    net::{TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use harness::{Backend, Behaviour, Listener, Program, UdpEcho, binary, connect, forward, free_port, round_trip, until};
use tempfile::TempDir;

/// The servers behind every subject.
pub(crate) struct Servers {
    echo: Backend,
    sink: Backend,
    udp: UdpEcho,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let sink = Behaviour::Run(Arc::new(|mut stream: TcpStream| {
            let mut buffer = vec![0; 256 * 1024];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            let _ = std::io::Write::write_all(&mut stream, b"!");
        }));
        Self { echo: Backend::start(Behaviour::Echo), sink: Backend::start(sink), udp: UdpEcho::start() }
    }
}

/// A forwarder, or a configuration of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portlane,
    HaProxy,
    /// `HAProxy` with splice forced, which it otherwise rarely uses.
    HaProxySplice,
    Nginx,
    Socat,
}

pub(crate) const KINDS: [Kind; 5] = [Kind::Portlane, Kind::HaProxy, Kind::HaProxySplice, Kind::Nginx, Kind::Socat];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portlane => "Portlane",
            Self::HaProxy => "HAProxy",
            Self::HaProxySplice => "HAProxy, splice forced",
            Self::Nginx => "nginx",
            Self::Socat => "socat",
        }
    }

    /// Whether the forwarder forks a process for each connection.
    pub(crate) fn forks(self) -> bool {
        self == Self::Socat
    }
}

/// Ports that a subject listens on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) echo: u16,
    pub(crate) sink: u16,
    pub(crate) udp: Option<u16>,
}

/// A running forwarder.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) ports: Ports,
    processes: Vec<Process>,
    _folder: TempDir,
}

enum Process {
    Ours(Program),
    Theirs(Child),
}

impl Process {
    fn id(&self) -> u32 {
        match self {
            Self::Ours(program) => program.id(),
            Self::Theirs(child) => child.id(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Theirs(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Subject {
    /// Starts the forwarder; `None` if the program is not installed.
    pub(crate) fn start(kind: Kind, servers: &Servers) -> Option<Self> {
        let folder = tempfile::tempdir().expect("folder");
        let has_udp = !matches!(kind, Kind::HaProxy | Kind::HaProxySplice);
        let ports = Ports { echo: free_port(), sink: free_port(), udp: has_udp.then(free_port) };
        let processes = match kind {
            Kind::Portlane => vec![portlane(ports, servers)],
            Kind::HaProxy => vec![haproxy(ports, servers, &folder, "")?],
            Kind::HaProxySplice => {
                let splice = "  option splice-request\n  option splice-response\n";
                vec![haproxy(ports, servers, &folder, splice)?]
            }
            Kind::Nginx => vec![nginx(ports, servers, &folder)?],
            Kind::Socat => socat(ports, servers)?,
        };
        until(kind.name(), || connect(ports.echo).and_then(|mut it| round_trip(&mut it, b"x")).is_ok());
        if let Some(port) = ports.udp {
            let client = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.connect(("127.0.0.1", port)).map(|()| it));
            let client = client.expect("a socket");
            client.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
            until("datagrams", || client.send(b"x").and_then(|_| client.recv(&mut [0; 8])).is_ok());
        }
        Some(Self { kind, ports, processes, _folder: folder })
    }

    /// Process ids of the forwarder.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(Process::id)
    }
}

fn portlane(ports: Ports, servers: &Servers) -> Process {
    let listeners = [
        Listener::tcp("echo", ports.echo).to(servers.echo.port),
        Listener::tcp("sink", ports.sink).to(servers.sink.port),
        Listener::udp("udp", ports.udp.expect("a UDP port")).to(servers.udp.port),
    ];
    let folder = tempfile::tempdir().expect("folder");
    let manifest = folder.path().join("forwards.yaml");
    fs::write(&manifest, forward("f", "accessLog: {mode: Disabled}", &listeners)).expect("manifest");
    let translated = Command::new(binary("portlane")).arg("translate").arg("-f").arg(manifest).output();
    let document = String::from_utf8(translated.expect("portlane runs").stdout).expect("text");
    Process::Ours(Program::proxy(&document, free_port(), free_port(), &["--workers", "1"]))
}

fn haproxy(ports: Ports, servers: &Servers, folder: &TempDir, options: &str) -> Option<Process> {
    let (Ports { echo, sink, .. }, to_echo, to_sink) = (ports, servers.echo.port, servers.sink.port);
    let text = format!(
        "global\n  maxconn 6000\n  maxpipes 200\n  nbthread 1\n  tune.pipesize 1048576\n\
         defaults\n  mode tcp\n{options}  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen echo\n  bind 127.0.0.1:{echo}\n  server s 127.0.0.1:{to_echo}\n\
         listen sink\n  bind 127.0.0.1:{sink}\n  server s 127.0.0.1:{to_sink}\n"
    );
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, text).expect("configuration");
    spawn(Command::new("haproxy").args(["-db", "-f"]).arg(file))
}

fn nginx(ports: Ports, servers: &Servers, folder: &TempDir) -> Option<Process> {
    let (Ports { echo, sink, udp }, folder) = (ports, folder.path().display());
    let (to_echo, to_sink, to_udp) = (servers.echo.port, servers.sink.port, servers.udp.port);
    let udp = udp.expect("a UDP port");
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n\
         error_log {folder}/error.log;\nevents {{ worker_connections 8000; }}\nstream {{\n\
         proxy_half_close on;\n\
         server {{ listen 127.0.0.1:{echo}; proxy_pass 127.0.0.1:{to_echo}; proxy_timeout 1h; }}\n\
         server {{ listen 127.0.0.1:{sink}; proxy_pass 127.0.0.1:{to_sink}; proxy_timeout 1h; }}\n\
         server {{ listen 127.0.0.1:{udp} udp; proxy_pass 127.0.0.1:{to_udp}; proxy_timeout 1m; }}\n}}\n"
    );
    let file = std::path::Path::new(&folder.to_string()).join("nginx.conf");
    fs::write(&file, text).expect("configuration");
    spawn(Command::new("nginx").arg("-c").arg(file))
}

fn socat(ports: Ports, servers: &Servers) -> Option<Vec<Process>> {
    let tcp = |from: u16, to: u16| {
        let listen = format!("TCP-LISTEN:{from},bind=127.0.0.1,fork,reuseaddr,backlog=1024");
        // By default socat gives the other side half a second after one side has finished.
        spawn(Command::new("socat").args(["-t", "60"]).arg(listen).arg(format!("TCP:127.0.0.1:{to}")))
    };
    let udp = ports.udp.expect("a UDP port");
    let datagrams = spawn(
        Command::new("socat")
            .arg(format!("UDP4-LISTEN:{udp},bind=127.0.0.1,fork"))
            .arg(format!("UDP4:127.0.0.1:{}", servers.udp.port)),
    );
    Some(vec![tcp(ports.echo, servers.echo.port)?, tcp(ports.sink, servers.sink.port)?, datagrams?])
}

fn spawn(command: &mut Command) -> Option<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Process::Theirs)
}

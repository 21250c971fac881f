//! A whole node, on which Pods run.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use images::{Image, Platform, Profile};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    cluster::Cluster,
    held::{Held, folder},
    output::CommandOutput,
};
use crate::{
    PATIENCE,
    cluster::{Family, Folder, Request},
    netns,
    programs::{self, KubernetesVersion},
};

/// Images of every node. No Pod runs without the first one.
const IMAGES: [Image; 4] = [Image::Pause, Image::Proxy, Image::Operator, Image::Echo];

/// Builds the images of every node.
///
/// # Panics
/// An image does not build; the panic's message has those of the compiler.
fn archives(profile: Profile) -> Vec<PathBuf> {
    let archive = |image| images::build(image, Platform::here(), profile).unwrap_or_else(|error| panic!("{error}"));
    IMAGES.into_iter().map(|image| archive(image).path).collect()
}

/// A control plane with a node in namespaces of its own, without a way out of the machine.
#[derive(Debug)]
pub struct Node {
    cluster: Cluster,
    family: Family,
    /// First process of its namespaces.
    init: u32,
}

impl Node {
    /// Starts a node with the images of this checkout loaded.
    ///
    /// # Panics
    /// The node did not start; the message has the reason and the remedy.
    pub fn start() -> Self {
        Self::start_with(Family::Four)
    }

    /// As [`Self::start`], with addresses of this family.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(family: Family) -> Self {
        Self::start_of(family, &archives(Profile::Test))
    }

    /// As [`Self::start`], with the images that users get, for benches.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_released() -> Self {
        Self::start_of(Family::Four, &archives(Profile::Release))
    }

    /// Starts a node with these archives of images loaded.
    fn start_of(family: Family, images: &[PathBuf]) -> Self {
        match programs::missing_packages() {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
                panic!("a node needs {}, not found here; run `cargo xtask setup`", names.join(", "));
            }
            Err(error) => panic!("{error}"),
        }
        let folder = folder("node");
        let request = Request::Node { folder: folder.clone(), family, images: images.to_vec() };
        let (held, init) = Held::start(&request);
        let init = init.expect("a node has namespaces");
        let kubectl = programs::built(KubernetesVersion::Oldest, "kubectl");
        Self { cluster: Cluster::own(held, Folder::at(folder), kubectl), family, init }
    }

    /// First process of the node's namespaces, by its process id outside.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Address of the node in its network.
    pub(super) fn address(&self) -> IpAddr {
        self.family.addresses().api().ip()
    }

    /// The kubeconfig of an administrator, for use on the host of the node.
    ///
    /// # Panics
    /// The kubeconfig for use outside cannot be read.
    pub fn kubeconfig_within(&self) -> String {
        let outside = fs::read_to_string(self.cluster.kubeconfig()).expect("its kubeconfig");
        let server = |line: &str| match line.split_once("server: '") {
            Some((before, rest)) => {
                let after = rest.split_once('\'').map_or("", |(_, after)| after);
                format!("{before}server: 'https://{}'{after}\n", self.family.addresses().api())
            }
            None => format!("{line}\n"),
        };
        outside.lines().map(server).collect()
    }

    /// References of the images of this checkout.
    pub fn images(&self) -> Vec<String> {
        IMAGES.into_iter().map(Image::reference).collect()
    }

    /// Runs `work` in the node's network, like a program on the host.
    ///
    /// # Errors
    /// Those of `work`, or the node is gone.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        netns::within(self.init, work)
    }

    /// A connection from the host of the node.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.within(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A UDP socket on the host of the node, for one peer. Reads end after a second, because datagrams may be lost.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn udp(&self, peer: SocketAddr) -> io::Result<UdpSocket> {
        self.within(|| {
            let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(peer)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        })
    }

    /// The answer to a datagram with `hello` from the host of the node.
    ///
    /// # Errors
    /// None came within a second.
    pub fn ask(&self, peer: SocketAddr) -> io::Result<String> {
        let socket = self.udp(peer)?;
        socket.send(b"hello")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// A command inside the node: in its network, with its files and processes.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--net", "--mount", "--pid", "--ipc", "--uts", "--"]);
        command.arg(program);
        command
    }

    /// The processes of the node that run this program, by their process ids outside.
    pub fn processes(&self, program: &str) -> Vec<u32> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let runs = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            Path::new(&*String::from_utf8_lossy(first)).file_name().is_some_and(|name| name == program)
        };
        numbers.filter(runs).filter(|pid| self.is_ancestor_of(*pid)).collect()
    }

    fn is_ancestor_of(&self, mut pid: u32) -> bool {
        while pid > 1 && pid != self.init {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            pid = parent.and_then(|parent| parent.trim().parse().ok()).unwrap_or(0);
        }
        pid == self.init
    }

    /// Kills a process of the node.
    #[track_caller]
    pub fn kill(&self, pid: u32) {
        assert!(self.is_ancestor_of(pid), "process {pid} does not belong to this node");
        signal(pid, Signal::KILL);
    }

    /// Pauses a component of the node (SIGSTOP) until the returned guard is dropped.
    #[track_caller]
    pub fn pause(&self, component: &str) -> Paused {
        let pids = self.processes(component);
        assert!(!pids.is_empty(), "no process of the node runs {component}");
        for pid in &pids {
            signal(*pid, Signal::STOP);
        }
        Paused(pids)
    }

    /// Loads one more archive of an image.
    #[track_caller]
    pub fn load(&self, archive: &Path) {
        let mut command = self.command("ctr");
        command.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
        CommandOutput::of(&mut command, "").ok();
    }
}

/// Paused processes. They continue when the guard is dropped.
#[derive(Debug)]
pub struct Paused(Vec<u32>);

impl Drop for Paused {
    fn drop(&mut self) {
        for pid in &self.0 {
            signal(*pid, Signal::CONT);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

impl Deref for Node {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

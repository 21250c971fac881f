//! The keeper: a process that lives, with its cluster, as long as its standard input is open.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    ClusterError, Folder, cgroups,
    children::Children,
    components::{self, ApiServer},
    configuration, inside, pki,
};
use crate::{
    netns,
    programs::{self, KubernetesVersion},
    sockets::free_port,
};

/// Longest start of an API server.
pub(super) const START: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Most starts of an API server whose port another process takes first.
const TRIES: usize = 3;

/// The cluster that a keeper keeps: its only argument, as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Ask {
    /// etcd and an API server on loopback.
    ControlPlane {
        /// Folder of the cluster's files.
        folder: PathBuf,
        /// Whether to run the newest Kubernetes, or the oldest.
        newest: bool,
        /// Whether Deployments, autoscalers and garbage collection should work.
        controller_manager: bool,
    },
    /// A whole node in namespaces of its own.
    Node {
        /// Folder of the node's files.
        folder: PathBuf,
        /// Archives of images.
        images: Vec<PathBuf>,
    },
    /// The first process of a node's namespaces.
    Init(Inside),
    /// The process that sets a node up inside its namespaces.
    Inside(Inside),
}

/// Arguments of the processes inside a node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Inside {
    pub(super) folder: PathBuf,
    pub(super) images: Vec<PathBuf>,
    pub(super) cgroup: String,
}

/// Reports of a keeper, one line of JSON each.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Answer {
    /// The cluster is usable.
    Ready {
        /// First process of the node's namespaces.
        init: Option<u32>,
    },
    /// The cluster did not start, or has ended.
    Failed(String),
}

/// The keeper's program.
pub fn main() -> ExitCode {
    let ask = std::env::args().nth(1).and_then(|ask| serde_json::from_str(&ask).ok());
    let Some(ask) = ask else {
        eprintln!("this program is started by the tests; to play with a cluster, run `cargo xtask node`");
        return ExitCode::FAILURE;
    };
    if let Ask::Init(inside) = ask {
        return inside::init(inside);
    }
    let holder = Holder::watch();
    let result = match ask {
        Ask::ControlPlane { folder, newest, controller_manager } => {
            let version = if newest { KubernetesVersion::Newest } else { KubernetesVersion::Oldest };
            control_plane(&folder, version, controller_manager, &holder)
        }
        Ask::Node { folder, images } => node(&folder, images, &holder),
        Ask::Init(inside) | Ask::Inside(inside) => inside::keep(&inside, &holder),
    };
    match result {
        Ok(()) | Err(ClusterError::Abandoned) => ExitCode::SUCCESS,
        Err(error) => {
            answer(&Answer::Failed(crate::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Orders of a holder to the keeper of a control plane, one line each.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Order {
    /// Back up the store.
    Save,
    /// Restore the store from the backup.
    Restore,
}

/// The process at the other end of standard input.
#[derive(Debug)]
pub(super) struct Holder(Receiver<Order>);

impl Holder {
    fn watch() -> Self {
        let (sender, gone) = mpsc::channel();
        thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if let Ok(order) = serde_json::from_str(&line) {
                    let _ = sender.send(order);
                }
            }
            // The end of standard input is the signal.
            drop(sender);
        });
        Self(gone)
    }

    /// Waits no longer than `limit` for an order, and fails if the holder is gone.
    pub(super) fn wait(&self, limit: Duration) -> Result<Option<Order>, ClusterError> {
        match self.0.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Ok(order) => Ok(Some(order)),
            Err(RecvTimeoutError::Disconnected) => Err(ClusterError::Abandoned),
        }
    }

    /// Waits until `done`. Fails if a component ends.
    pub(super) fn until(
        &self,
        what: &'static str,
        children: &mut Children,
        folder: &Folder,
        mut done: impl FnMut() -> bool,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now() + START;
        while !done() {
            children.all_run()?;
            if Instant::now() > deadline {
                let logs = folder.logs().display().to_string();
                return Err(ClusterError::Late { what, seconds: START.as_secs(), logs });
            }
            self.wait(LOOK)?;
        }
        Ok(())
    }

    /// Waits until the holder is gone or a component ends.
    pub(super) fn keep(&self, children: &mut Children) -> Result<(), ClusterError> {
        loop {
            self.order(children)?;
        }
    }

    /// Waits for an order. Fails if the holder is gone or a component ends.
    fn order(&self, children: &mut Children) -> Result<Order, ClusterError> {
        loop {
            children.all_run()?;
            if let Some(order) = self.wait(LOOK)? {
                return Ok(order);
            }
        }
    }
}

pub(super) fn answer(answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default();
    // The holder may be gone.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Whether the API server is ready. kubectl runs only once the port is open: its processes would slow down the start.
pub(super) fn is_ready(api: &ApiServer, kubectl: &Path, kubeconfig: &Path) -> bool {
    TcpStream::connect((api.address, api.port)).is_ok()
        && kubectl_says(kubectl, kubeconfig, &["get", "--raw=/readyz"]).is_some()
}

/// Standard output of a kubectl that succeeded.
pub(super) fn kubectl_says(kubectl: &Path, kubeconfig: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--request-timeout=5s"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn control_plane(
    root: &Path,
    version: KubernetesVersion,
    controller_manager: bool,
    holder: &Holder,
) -> Result<(), ClusterError> {
    Folder::sweep();
    let (folder, lock) = Folder::create(root)?;
    let mut tries = 0;
    let started = loop {
        tries += 1;
        let api = ApiServer::on_loopback(version, free_port());
        match start_control_plane(&folder, &api, controller_manager, holder) {
            Err(ClusterError::Ended { tail, .. }) if tries < TRIES && tail.contains("address already in use") => {
                let _ = fs::remove_dir_all(folder.data().join("etcd"));
            }
            result => break result.map(|children| (api, children)),
        }
    };
    let result = started.and_then(|(api, mut children)| {
        loop {
            answer(&Answer::Ready { init: None });
            let order = holder.order(&mut children)?;
            // The store is copied while no process writes to it.
            drop(children);
            follow(&folder, order)?;
            children = start_control_plane(&folder, &api, controller_manager, holder)?;
        }
    });
    let _ = fs::remove_dir_all(folder.data());
    drop(lock);
    result
}

/// Backs up the store, or restores it.
fn follow(folder: &Folder, order: Order) -> Result<(), ClusterError> {
    let (store, saved) = (folder.data().join("etcd"), folder.data().join("saved"));
    let (from, to) = match order {
        Order::Save => (store, saved),
        Order::Restore => (saved, store),
    };
    let _ = fs::remove_dir_all(&to);
    let mut command = Command::new("cp");
    let output = command.arg("-a").arg(&from).arg(&to).output().map_err(ClusterError::io("cannot run cp"))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ClusterError::Command { command: format!("cp -a {} {}", from.display(), to.display()), output })
}

fn start_control_plane(
    folder: &Folder,
    api: &ApiServer,
    controller_manager: bool,
    holder: &Holder,
) -> Result<Children, ClusterError> {
    if !folder.kubeconfig().exists() {
        pki::write(&folder.pki(), &configuration::identities(api.address))?;
    }
    let kubeconfig = folder.kubeconfig();
    fs::write(&kubeconfig, configuration::kubeconfig(folder, &api.url(), "admin"))
        .map_err(ClusterError::io(format!("cannot write {}", kubeconfig.display())))?;
    let kubectl = programs::find(api.version, "kubectl")?;
    let mut children = Children::of(folder);
    children.start(&components::etcd(folder, programs::find)?)?;
    children.start(&components::api_server(folder, api, programs::find)?)?;
    holder.until("readiness of the API server", &mut children, folder, || is_ready(api, &kubectl, &kubeconfig))?;
    if controller_manager {
        let own = configuration::kubeconfig(folder, &api.url(), "controller-manager");
        configuration::write(folder, "controller-manager.kubeconfig", &own)?;
        children.start(&components::controller_manager(folder, programs::find, 1)?)?;
    }
    Ok(children)
}

fn node(root: &Path, images: Vec<PathBuf>, holder: &Holder) -> Result<(), ClusterError> {
    Folder::sweep();
    cgroups::sweep();
    let (folder, lock) = Folder::create(root)?;
    let cgroup = cgroups::name(std::process::id());
    let result = keep_node(&folder, images, &cgroup, holder);
    cgroups::remove_all(&cgroup);
    let _ = fs::remove_dir_all(folder.data());
    drop(lock);
    result
}

fn keep_node(folder: &Folder, images: Vec<PathBuf>, cgroup: &str, holder: &Holder) -> Result<(), ClusterError> {
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ClusterError::io("cannot listen on loopback"))?;
    let port = relay.local_addr().map_err(ClusterError::io("cannot listen on loopback"))?.port();
    let mut identities = configuration::identities(super::NODE_ADDRESS);
    identities.extend(configuration::node_identities(inside::NAME, super::NODE_ADDRESS));
    pki::write(&folder.pki(), &identities)?;
    let kubeconfig = configuration::kubeconfig(folder, &format!("https://127.0.0.1:{port}"), "admin");
    fs::write(folder.kubeconfig(), kubeconfig).map_err(ClusterError::io("cannot write the kubeconfig"))?;
    let ask = Ask::Init(Inside { folder: folder.root().to_owned(), images, cgroup: cgroup.to_owned() });
    let mut namespaces = Namespaces::start(&ask)?;
    let (sender, answers) = mpsc::channel();
    let lines = BufReader::new(namespaces.output()?).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    loop {
        let ended = namespaces.still_there();
        // The last report of the namespaces says more than their end.
        let limit = if ended.is_err() { LOOK } else { Duration::ZERO };
        if let Ok(line) = answers.recv_timeout(limit) {
            match serde_json::from_str(&line) {
                Ok(Answer::Ready { .. }) => {
                    let init = namespaces.init()?;
                    netns::relay(relay.try_clone().map_err(ClusterError::io("cannot relay"))?, init, api_address());
                    answer(&Answer::Ready { init: Some(init) });
                }
                Ok(failed @ Answer::Failed(_)) => {
                    answer(&failed);
                    return Err(ClusterError::Abandoned);
                }
                Err(_) => eprintln!("{line}"),
            }
            continue;
        }
        ended?;
        holder.wait(LOOK)?;
    }
}

fn api_address() -> std::net::SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), super::API_PORT).into()
}

/// The process that created the namespaces. When it ends, the kernel kills everything in them.
#[derive(Debug)]
struct Namespaces {
    unshare: Child,
    /// Tells the inside to stop when it closes, also if this process is killed.
    held: Option<ChildStdin>,
}

impl Namespaces {
    fn start(ask: &Ask) -> Result<Self, ClusterError> {
        let failed = || ClusterError::io("cannot start unshare");
        let own = std::env::current_exe().map_err(failed())?;
        let ask = serde_json::to_string(ask).unwrap_or_default();
        let mut unshare = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--ipc",
                "--uts",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ])
            .arg(own)
            .arg(ask)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        let held = unshare.stdin.take();
        Ok(Self { unshare, held })
    }

    fn output(&mut self) -> Result<impl Read + Send + use<>, ClusterError> {
        let taken = || ClusterError::io("cannot read")(io::ErrorKind::BrokenPipe.into());
        self.unshare.stdout.take().ok_or_else(taken)
    }

    /// The first process inside, by its process id outside.
    fn init(&self) -> Result<u32, ClusterError> {
        let unshare = self.unshare.id();
        let path = format!("/proc/{unshare}/task/{unshare}/children");
        let children = fs::read_to_string(&path).map_err(ClusterError::io(format!("cannot read {path}")))?;
        let first = children.split_whitespace().next().and_then(|child| child.parse().ok());
        first.ok_or_else(|| ClusterError::io("the namespaces have no process")(io::ErrorKind::NotFound.into()))
    }

    fn still_there(&mut self) -> Result<(), ClusterError> {
        match self.unshare.try_wait() {
            Ok(Some(status)) => Err(ClusterError::Command {
                command: "unshare".to_owned(),
                output: format!("the namespaces ended ({status})"),
            }),
            _ => Ok(()),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        drop(self.held.take());
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

//! The keeper of a node, from outside of the namespaces of the node.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{Holder, Inside, POLL_INTERVAL, Report, Request, inside, report};
use crate::{
    cluster::{ClusterError, Family, Folder, cgroups, configuration, pki},
    netns,
};

/// Runs a node as long as there is a holder.
pub(super) fn keep(root: &Path, family: Family, images: Vec<PathBuf>, holder: &Holder) -> Result<(), ClusterError> {
    Folder::sweep();
    cgroups::sweep();
    let (folder, lock) = Folder::create(root)?;
    let cgroup = cgroups::name(std::process::id());
    let inside = Inside { folder: folder.root().to_owned(), family, images, cgroup: cgroup.clone() };
    let result = keep_namespaces(&folder, inside, holder);
    cgroups::remove_all(&cgroup);
    let _ = fs::remove_dir_all(folder.data());
    drop(lock);
    result
}

fn keep_namespaces(folder: &Folder, inside: Inside, holder: &Holder) -> Result<(), ClusterError> {
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ClusterError::io("cannot listen on loopback"))?;
    let port = relay.local_addr().map_err(ClusterError::io("cannot listen on loopback"))?.port();
    let addresses = inside.family.addresses();
    let mut identities = configuration::identities(addresses.node, addresses);
    identities.extend(configuration::node_identities(inside::NAME, addresses.node));
    pki::write(&folder.pki(), &identities)?;
    let kubeconfig = configuration::kubeconfig(folder, &format!("https://127.0.0.1:{port}"), "admin");
    fs::write(folder.kubeconfig(), kubeconfig).map_err(ClusterError::io("cannot write the kubeconfig"))?;
    let mut namespaces = Namespaces::start(&Request::Init(inside))?;
    let (sender, reports) = mpsc::channel();
    let lines = BufReader::new(namespaces.output()?).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    loop {
        let ended = namespaces.check_running();
        // The last report of the namespaces says more than their end.
        let limit = if ended.is_err() { POLL_INTERVAL } else { Duration::ZERO };
        if let Ok(line) = reports.recv_timeout(limit) {
            match serde_json::from_str(&line) {
                Ok(Report::Ready { .. }) => {
                    let init = namespaces.init()?;
                    netns::relay(relay.try_clone().map_err(ClusterError::io("cannot relay"))?, init, addresses.api());
                    report(&Report::Ready { init: Some(init) });
                }
                Ok(failed @ Report::Failed(_)) => {
                    report(&failed);
                    return Err(ClusterError::Abandoned);
                }
                Err(_) => eprintln!("{line}"),
            }
            continue;
        }
        ended?;
        holder.wait(POLL_INTERVAL)?;
    }
}

/// The process that created the namespaces. When it ends, the kernel kills everything in them.
#[derive(Debug)]
struct Namespaces {
    unshare: Child,
    /// Tells the inside to stop when it closes, also if this process is killed.
    held: Option<ChildStdin>,
}

impl Namespaces {
    fn start(request: &Request) -> Result<Self, ClusterError> {
        let failed = || ClusterError::io("cannot start unshare");
        let own = std::env::current_exe().map_err(failed())?;
        let request = serde_json::to_string(request).unwrap_or_default();
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
            .arg(request)
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

    fn check_running(&mut self) -> Result<(), ClusterError> {
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

//! The keeper: a process that lives, with its cluster, as long as its standard input is open.

mod control_plane;
mod inside;
mod node;

use std::{
    io::{self, BufRead, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{ClusterError, Family, Folder, children::Children, components::ApiServer};
use crate::programs::KubernetesVersion;

/// Longest start of an API server.
pub(super) const START: Duration = Duration::from_secs(180);
/// Pause between two looks at a condition.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The cluster that a keeper keeps: its only argument, as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Request {
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
        /// Family of all addresses.
        family: Family,
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
    pub(super) family: Family,
    pub(super) images: Vec<PathBuf>,
    pub(super) cgroup: String,
}

/// Reports of a keeper, one line of JSON each.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Report {
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
    let request = std::env::args().nth(1).and_then(|request| serde_json::from_str(&request).ok());
    let Some(request) = request else {
        eprintln!("this program is started by the tests; to play with a cluster, run `cargo xtask node`");
        return ExitCode::FAILURE;
    };
    if let Request::Init(inside) = request {
        return inside::init(inside);
    }
    let holder = Holder::watch();
    let result = match request {
        Request::ControlPlane { folder, newest, controller_manager } => {
            let version = if newest { KubernetesVersion::Newest } else { KubernetesVersion::Oldest };
            control_plane::keep(&folder, version, controller_manager, &holder)
        }
        Request::Node { folder, family, images } => node::keep(&folder, family, images, &holder),
        Request::Init(inside) | Request::Inside(inside) => inside::keep(&inside, &holder),
    };
    match result {
        Ok(()) | Err(ClusterError::Abandoned) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Report::Failed(crate::chain(&error)));
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
            self.wait(POLL_INTERVAL)?;
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
            if let Some(order) = self.wait(POLL_INTERVAL)? {
                return Ok(order);
            }
        }
    }
}

pub(super) fn report(report: &Report) {
    let line = serde_json::to_string(report).unwrap_or_default();
    // The holder may be gone.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Whether the API server is ready. kubectl runs only once the port is open: its processes would slow down the start.
pub(super) fn is_ready(api: &ApiServer, kubectl: &Path, kubeconfig: &Path) -> bool {
    TcpStream::connect(api.address).is_ok() && kubectl_stdout(kubectl, kubeconfig, &["get", "--raw=/readyz"]).is_some()
}

/// Standard output of a kubectl that succeeded.
pub(super) fn kubectl_stdout(kubectl: &Path, kubeconfig: &Path, arguments: &[&str]) -> Option<String> {
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

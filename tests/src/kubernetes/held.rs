//! A cluster that ends with this process, or when it is dropped.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    binary,
    cluster::{Folder, Order, Report, Request},
};

/// Longest start of a cluster.
const START: Duration = Duration::from_secs(300);

/// Longest end of a cluster: a node's last processes, and its control groups.
const END: Duration = Duration::from_secs(20);

/// Variables of the person who runs the tests that would misdirect the components of a cluster.
const FOREIGN: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "CONTAINERD_ADDRESS", "KUBECONFIG", "KUBERC"];

/// A running keeper.
#[derive(Debug)]
pub(super) struct Held {
    keeper: Child,
    /// The keeper ends when this pipe closes.
    pipe: Option<ChildStdin>,
    /// A message each time that the cluster has become usable.
    ready: Mutex<Receiver<Option<u32>>>,
    /// Why the cluster ended by itself.
    failure: Arc<Mutex<Option<String>>>,
}

/// A fresh name for a cluster's folder.
pub(super) fn folder(purpose: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    Folder::all().join(format!("{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)))
}

/// The number of processes with a cluster's folder in their command line.
pub fn processes_of(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&folder)).count()
}

impl Held {
    /// Starts a keeper and waits until the cluster is usable; gives the first process of its namespaces, if it has
    /// namespaces.
    ///
    /// # Panics
    /// The cluster did not start; the message has the reason.
    pub(super) fn start(request: &Request) -> (Self, Option<u32>) {
        let request = serde_json::to_string(request).expect("a request is JSON");
        let mut command = Command::new(binary("portlane-test-cluster"));
        for name in FOREIGN {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        let mut keeper = command
            .arg(request)
            // A Ctrl-C in the terminal must not reach the keeper, which has to clean up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the keeper starts");
        let pipe = keeper.stdin.take();
        let lines = BufReader::new(keeper.stdout.take().expect("piped")).lines();
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let (sender, ready) = mpsc::channel();
        let kept = failure.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Report::Ready { init }) => drop(sender.send(init)),
                    Ok(Report::Failed(message)) => *kept.lock().expect("unpoisoned") = Some(message),
                    Err(_) => eprintln!("{line}"),
                }
            }
        });
        let held = Self { keeper, pipe, ready: Mutex::new(ready), failure };
        let init = held.until_ready();
        (held, init)
    }

    fn until_ready(&self) -> Option<u32> {
        match self.ready.lock().expect("unpoisoned").recv_timeout(START) {
            Ok(init) => init,
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the cluster did not start: {}", self.failure().unwrap_or_else(|| "its keeper ended".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => panic!("the cluster did not start within {START:?}"),
        }
    }

    /// Sends an order to the keeper and waits until the cluster is usable again.
    ///
    /// # Panics
    /// The cluster does not become usable; the message has the reason.
    pub(super) fn order(&self, order: Order) {
        let line = serde_json::to_string(&order).expect("an order is JSON");
        let mut pipe = self.pipe.as_ref().expect("held");
        writeln!(pipe, "{line}").expect("the keeper reads");
        self.until_ready();
    }

    /// Process id of the keeper.
    pub(super) fn keeper(&self) -> u32 {
        self.keeper.id()
    }

    /// Why the cluster ended by itself, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().expect("unpoisoned").clone()
    }

    /// As [`Self::failure`], with a second for the keeper to report.
    #[allow(clippy::disallowed_methods, reason = "polls")]
    pub(super) fn failure_soon(&self) -> Option<String> {
        for _ in 0..20 {
            if let Some(failure) = self.failure() {
                return Some(failure);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let deadline = Instant::now() + END;
        while let Ok(None) = self.keeper.try_wait() {
            if Instant::now() > deadline {
                // The keeper's children end with it, and the next keeper sweeps what it left.
                let _ = self.keeper.kill();
            }
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

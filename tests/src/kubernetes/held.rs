//! A cluster that ends when this process does, or when nobody holds it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crate::{
    binary,
    cluster::{Answer, Ask, Folder},
};

/// Longest start of a cluster.
const START: Duration = Duration::from_secs(180);

/// A running keeper.
#[derive(Debug)]
pub(super) struct Held {
    keeper: Child,
    /// The keeper ends when this closes.
    pipe: Option<ChildStdin>,
    /// Why the cluster went away by itself.
    failure: Arc<Mutex<Option<String>>>,
}

/// A fresh name for a cluster's folder.
pub(super) fn folder(purpose: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    Folder::all().join(format!("{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)))
}

/// How many processes have a cluster's folder in their command line.
pub fn processes_of(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&folder)).count()
}

impl Held {
    /// Starts a keeper and waits until the cluster can be used; gives the first process of its namespaces, if it has any.
    ///
    /// # Panics
    /// It did not start; the message says why.
    pub(super) fn start(ask: &Ask) -> (Self, Option<u32>) {
        let ask = serde_json::to_string(ask).expect("an ask is JSON");
        let mut keeper = Command::new(binary("portlane-test-cluster"))
            .arg(ask)
            // A Ctrl-C in the terminal is for the test: the keeper has cleaning to do.
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
                    Ok(Answer::Ready { init }) => drop(sender.send(init)),
                    Ok(Answer::Failed(message)) => *kept.lock().expect("unpoisoned") = Some(message),
                    Err(_) => eprintln!("{line}"),
                }
            }
        });
        let held = Self { keeper, pipe, failure };
        match ready.recv_timeout(START) {
            Ok(init) => (held, init),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the cluster did not start: {}", held.failure().unwrap_or_else(|| "its keeper ended".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => panic!("the cluster did not start within {START:?}"),
        }
    }

    /// Why the cluster is not what it was.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().expect("unpoisoned").clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.keeper.wait();
    }
}

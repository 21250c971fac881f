//! The built programs as a person starts them: arguments in, lines of JSON out.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{PATIENCE, until_within};

/// One line that a program wrote.
pub type Event = Value;

/// Builds the programs once, and gives the path of one.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let mut cargo = images::cargo();
        cargo.args([
            "build",
            "--quiet",
            "-p",
            "portlane",
            "-p",
            "portlane-proxy",
            "-p",
            "portlane-operator",
            "-p",
            "portlane-echo",
            "-p",
            "portlane-tests",
            "--bins",
        ]);
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the programs do not build");
        // target/debug/deps/test-123 or target/debug/xtask -> target/debug
        let own = std::env::current_exe().expect("own path");
        let folder = own.parent().expect("a folder");
        if folder.ends_with("deps") { folder.parent().expect("target folder").to_owned() } else { folder.to_owned() }
    });
    folder.join(name)
}

/// A running program with the folder that its files are in. It ends with the test.
pub struct Program {
    child: Child,
    folder: TempDir,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Program {
    /// `portlane run` on one manifest file, with a health address on `health`.
    #[must_use]
    pub fn run(manifest: &str, health: u16, arguments: &[&str]) -> Self {
        Self::run_limited(manifest, health, arguments, None)
    }

    /// The same with a limit on its open files.
    #[must_use]
    pub fn run_limited(manifest: &str, health: u16, arguments: &[&str], files: Option<usize>) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("forwards.yaml");
        fs::write(&path, manifest).expect("manifest");
        let limit = files.map_or_else(String::new, |files| format!("ulimit -n {files}; "));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limit}exec \"$0\" \"$@\"")).arg(binary("portlane"));
        command.args(["run", "--log", "json", "-f"]).arg(&path);
        command.args(["--health-address", &format!("127.0.0.1:{health}")]).args(arguments);
        let program = Self::start(command, folder);
        until_ready(health);
        program
    }

    /// `portlane run` with a hosts file of its own (Linux); `None` where the system gives nobody a mount namespace.
    #[must_use]
    pub fn run_with_hosts(manifest: &str, health: u16, hosts: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("folder");
        let (path, own) = (folder.path().join("forwards.yaml"), folder.path().join("hosts"));
        fs::write(&path, manifest).expect("manifest");
        fs::write(&own, hosts).expect("hosts");
        let with_hosts = || {
            let mut command = Command::new("unshare");
            if !rustix::process::geteuid().is_root() {
                command.arg("--map-root-user");
            }
            command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&own);
            command
        };
        if !with_hosts().arg("true").status().is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = with_hosts();
        command.arg(binary("portlane")).args(["run", "--log", "json", "-f"]).arg(&path);
        command.args(["--health-address", &format!("127.0.0.1:{health}")]);
        let program = Self::start(command, folder);
        until_ready(health);
        Some(program)
    }

    /// `portlane-proxy` on one document.
    #[must_use]
    pub fn proxy(document: &str, health: u16, admin: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.yaml");
        fs::write(&path, document).expect("document");
        let mut command = Command::new(binary("portlane-proxy"));
        command.arg("--config").arg(&path).args(["--health-address", &format!("127.0.0.1:{health}")]);
        command.args(["--admin-address", &format!("127.0.0.1:{admin}")]).args(arguments);
        let program = Self::start(command, folder);
        until_ready(health);
        program
    }

    /// A command with the folder that its files are in.
    #[must_use]
    pub fn start(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (lines, kept) = (BufReader::new(child.stdout.take().expect("piped")).lines(), events.clone());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| Value::from(line));
                kept.lock().expect("unpoisoned").push(event);
            }
        });
        Self { child, folder, events }
    }

    /// A file of the program.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the manifest by renaming a new one over it.
    pub fn edit(&self, manifest: &str) {
        self.replace("forwards.yaml", manifest);
    }

    /// Replaces a file by renaming a new one over it.
    pub fn replace(&self, name: &str, content: &str) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let fresh = self.path(&format!(".new-{}", NEXT.fetch_add(1, Relaxed)));
        fs::write(&fresh, content).expect("write");
        fs::rename(fresh, self.path(name)).expect("rename");
    }

    /// Replaces the manifest and waits until a line says what became of it.
    #[track_caller]
    pub fn edit_and_wait(&self, manifest: &str, event: &str, subject: &str) -> Event {
        let seen = self.events().len();
        self.edit(manifest);
        self.wait_after(seen, event, subject)
    }

    /// Every line so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("unpoisoned").clone()
    }

    /// Waits for a line with this event whose subject contains `subject`, at any time.
    #[track_caller]
    pub fn wait(&self, event: &str, subject: &str) -> Event {
        self.wait_after(0, event, subject)
    }

    /// Waits for such a line after the first `seen` ones.
    #[track_caller]
    pub fn wait_after(&self, seen: usize, event: &str, subject: &str) -> Event {
        let mut found = None;
        until_within(PATIENCE, &format!("event {event} of {subject}; there is {:#?}", LastEvents(self)), || {
            found = self.events().into_iter().skip(seen).find(|line| is(line, event, subject));
            found.is_some()
        });
        found.expect("just found")
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and gives its folder.
    #[must_use]
    pub fn kill(mut self) -> TempDir {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let elsewhere = tempfile::tempdir().expect("folder");
        std::mem::replace(&mut self.folder, elsewhere)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the program runs");
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        until_within(limit, "the program ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("just seen")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Resident memory in bytes (Linux).
    #[must_use]
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    }
}

fn until_ready(health: u16) {
    until_within(PATIENCE, "the program is ready", || {
        crate::http_get(health, "/readyz").is_ok_and(|(status, _)| status == 200)
    });
}

struct LastEvents<'a>(&'a Program);

impl std::fmt::Debug for LastEvents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let events = self.0.events();
        f.debug_list().entries(events.iter().rev().take(8).map(ToString::to_string)).finish()
    }
}

fn is(line: &Event, event: &str, subject: &str) -> bool {
    let of_session = || line["listener"].as_str().is_some_and(|listener| listener.contains(subject));
    line["event"] == event && (line["subject"].as_str().is_some_and(|text| text.contains(subject)) || of_session())
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            // What it said is the best clue.
            let mut out = std::io::stderr().lock();
            for event in self.events().iter().rev().take(30).rev() {
                let _ = writeln!(out, "  {event}");
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

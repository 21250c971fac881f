//! Runs the built programs as users do: arguments in, lines of JSON out.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::binary::binary;
use crate::{PATIENCE, until_within};

/// One line of a program's output.
pub type Event = Value;

/// A running program and the directory with its files. Killed on drop.
pub struct Program {
    child: Child,
    folder: TempDir,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Program {
    /// Starts `portlane run` on one manifest file and waits until it is ready at its health port.
    #[must_use]
    pub fn run(manifest: &str, health: u16, arguments: &[&str]) -> Self {
        Self::run_limited(manifest, health, arguments, None)
    }

    /// As [`Program::run`], with a limit on open files.
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

    /// As [`Program::run`], with a private hosts file (Linux); `None` if mount namespaces are not permitted.
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

    /// Starts `portlane-proxy` on one document and waits until it is ready.
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

    /// Starts a command; `folder` holds its files.
    #[must_use]
    pub fn start(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program should start");
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

    /// Path of a file in the program's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the manifest by rename-over.
    pub fn edit(&self, manifest: &str) {
        self.replace("forwards.yaml", manifest);
    }

    /// Replaces a file by rename-over.
    pub fn replace(&self, name: &str, content: &str) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let fresh = self.path(&format!(".new-{}", NEXT.fetch_add(1, Relaxed)));
        fs::write(&fresh, content).expect("write");
        fs::rename(fresh, self.path(name)).expect("rename");
    }

    /// Replaces the manifest and waits for the resulting event.
    #[track_caller]
    pub fn edit_and_wait(&self, manifest: &str, event: &str, subject: &str) -> Event {
        let seen = self.events().len();
        self.edit(manifest);
        self.wait_after(seen, event, subject)
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("unpoisoned").clone()
    }

    /// Waits for an event of this kind with a subject that contains `subject`; earlier events count.
    #[track_caller]
    pub fn wait(&self, event: &str, subject: &str) -> Event {
        self.wait_after(0, event, subject)
    }

    /// As [`Program::wait`], ignoring the first `seen` events.
    #[track_caller]
    pub fn wait_after(&self, seen: usize, event: &str, subject: &str) -> Event {
        let mut found = None;
        until_within(PATIENCE, &format!("event {event} of {subject}; latest events: {:#?}", LastEvents(self)), || {
            found = self.events().into_iter().skip(seen).find(|line| is(line, event, subject));
            found.is_some()
        });
        found.expect("just found")
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the program (SIGKILL) and returns its directory.
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
        kill_process(pid, signal).expect("the program should be running");
    }

    /// Waits for the program to end.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        until_within(limit, "the program ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("just seen")
    }

    /// Whether the program is still running.
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
            // The program's output is the best clue.
            let mut out = std::io::stderr().lock();
            for event in self.events().iter().rev().take(30).rev() {
                let _ = writeln!(out, "  {event}");
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

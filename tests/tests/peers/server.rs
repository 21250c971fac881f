//! Servers of the distribution, their usual clients, and what both must live through behind a forward: changes under
//! load, a crash, a return.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    fs::{self, File, Permissions},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

use harness::{Listener, Program, connect, forward, free_port, until};
use tempfile::TempDir;

/// Changes of a listener while its clients work. Even, so that the last change restores the first manifest.
const CHANGES: usize = 4;
/// Starts of a server before its test gives up: files of a crashed server may be locked for a moment.
const STARTS: usize = 50;
/// Seconds after which a client has failed.
const CLIENT_SECONDS: &str = "30";
/// A backend without sessions: it has no weight.
const SPARE: &str = "address: {host: 198.51.100.99, port: 20000}, weight: 0";

/// A folder that servers which give up their rights may enter.
pub(super) fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("permissions");
    folder
}

/// Runs a line of shell, as a person types it. The error is what it printed.
pub(super) fn run(line: &str) -> Result<String, String> {
    let mut command = Command::new("timeout");
    let output = command.args([CLIENT_SECONDS, "sh", "-c", line]).stdin(Stdio::null()).output().expect("timeout");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed.trim().to_owned());
    }
    Err(format!("{line}: {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// As [`run`], for a line that must succeed.
#[track_caller]
pub(super) fn done(line: &str) -> String {
    run(line).unwrap_or_else(|error| panic!("{error}"))
}

/// A certificate for this host and its key, in PEM: `FOLDER/cert.pem` and `FOLDER/key.pem`.
pub(super) fn certify(folder: &Path, host: &str) {
    done(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={host} -addext \
         subjectAltName=DNS:{host} -keyout {folder}/key.pem -out {folder}/cert.pem",
        folder = folder.display()
    ));
}

/// Whether a TCP server is at this port.
pub(super) fn listens(port: u16) -> impl Fn() -> bool {
    move || connect(port).is_ok()
}

/// Whether a UDP socket has this port, on 127.0.0.1 or on all addresses.
pub(super) fn receives(port: u16) -> impl Fn() -> bool {
    move || ["127.0.0.1", "0.0.0.0"].into_iter().any(|ip| is_bound(ip, port))
}

/// Whether a UDP socket has this address. A test by `bind` could take the address from a server that is about to bind
/// it.
pub(super) fn is_bound(ip: &str, port: u16) -> bool {
    let bytes = ip.parse::<Ipv4Addr>().expect("an address").octets();
    // In the byte order of the machine (proc(5)).
    let address = format!("{:08X}:{port:04X}", u32::from_ne_bytes(bytes));
    let table = fs::read_to_string("/proc/net/udp").expect("the table of sockets");
    table.lines().filter_map(|line| line.split_whitespace().nth(1)).any(|local| local == address)
}

/// A running server. Its processes, however many, end on drop.
pub(super) struct Server {
    line: String,
    log: PathBuf,
    is_ready: Box<dyn Fn() -> bool>,
    child: Child,
}

impl Server {
    /// Starts a server in the foreground by a line of shell, and waits until it is ready. `folder` gets its output.
    pub(super) fn start(folder: &Path, line: &str, is_ready: impl Fn() -> bool + 'static) -> Self {
        let log = folder.join("output");
        let child = spawn(line, &log);
        let mut server = Self { line: line.to_owned(), log, is_ready: Box::new(is_ready), child };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        let mut starts = 1;
        until("the server is ready", || {
            if self.child.try_wait().expect("wait").is_some() {
                starts += 1;
                assert!(starts <= STARTS, "the server ends at once: is it installed (cargo xtask setup node)?");
                self.child = spawn(&self.line, &self.log);
            }
            (self.is_ready)()
        });
    }

    /// Kills all processes of the server at once (SIGKILL).
    pub(super) fn crash(&mut self) {
        self.child.kill().expect("the server is running");
        self.child.wait().expect("wait");
        until("the server is gone", || !(self.is_ready)());
    }

    /// Starts the crashed server again.
    pub(super) fn come_back(&mut self) {
        self.child = spawn(&self.line, &self.log);
        self.wait_until_ready();
    }
}

/// In a process namespace of its own, whose first process takes all others with it. That process is a shell, because
/// not every server can be the first one.
fn spawn(line: &str, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("log");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &format!("{line}\nexit")]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
    command.spawn().expect("unshare")
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read(&self.log).unwrap_or_default();
            let end = log.len().saturating_sub(2000);
            eprintln!("{}\n{}", self.line, String::from_utf8_lossy(&log[end..]));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that work through a forward.
pub(super) struct Trial<'a> {
    /// Listeners of the forward.
    pub(super) listeners: &'a [Listener],
    /// A short client, as a line of shell. It fails if it is not served.
    pub(super) client: &'a str,
    /// Clients that work for a while.
    pub(super) load: &'a str,
}

impl Trial<'_> {
    /// The client is served, no client of the load fails while the listeners change, and clients are served again
    /// after a crash.
    pub(super) fn run(&self, server: &mut Server) {
        let plain = forward("f", "", self.listeners);
        let listeners: Vec<Listener> = self.listeners.iter().map(|listener| listener.clone().backend(SPARE)).collect();
        let program = Program::run(&plain, free_port(), &[]);
        done(self.client);
        self.change_under_load(&program, [&plain, &forward("f", "", &listeners)]);
        server.crash();
        assert!(run(self.client).is_err(), "a client was served without a server");
        server.come_back();
        until("clients are served again", || run(self.client).is_ok());
    }

    /// The load runs again and again until all changes are made. Sessions live through changes (`onUpdate: Keep`).
    fn change_under_load(&self, program: &Program, manifests: [&str; 2]) {
        let (ends, runs) = (AtomicBool::new(false), AtomicUsize::new(0));
        let failure = thread::scope(|scope| {
            // Also if a change fails: the scope waits for the load.
            let _end = SetOnDrop(&ends);
            let load = scope.spawn(|| {
                while !ends.load(Relaxed) {
                    if let Err(error) = run(self.load) {
                        return Some(error);
                    }
                    runs.fetch_add(1, Relaxed);
                }
                None
            });
            for change in 1..=CHANGES {
                let seen = program.events().len();
                program.edit(manifests[change % 2]);
                // The next change would otherwise be within this one, if a listener has not followed yet.
                for listener in self.listeners {
                    program.wait_after(seen, "swapped", &format!("f/{}", listener.name()));
                }
            }
            ends.store(true, Relaxed);
            load.join().expect("the load does not panic")
        });
        assert_eq!(failure, None, "a client failed while its listener changed, after {} good runs", runs.load(Relaxed));
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

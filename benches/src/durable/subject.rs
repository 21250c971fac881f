//! The forwarders that are measured, all configured alike: messages from one port, a log in a folder without a bound
//! that is reached, a sink on loopback, and the defaults otherwise.

mod portlane;
mod rsyslog;
mod syslog_ng;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{until, until_within};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    namespace::Cpus,
    peers::Programs,
    ports,
    process::Process,
    rows::{Kind, Row},
    sockets::{listening, takes_datagrams},
};

/// Bytes of a log that no backlog reaches.
const LOG: u64 = 256 << 30;
/// Longest time that a forwarder may take to end.
const END: Duration = Duration::from_secs(60);
/// The folder of logs, in the forwarder's folder.
const LOGS: &str = "log";

/// What the commands of a forwarder are made from.
struct Place {
    row: Row,
    /// Where messages come from.
    input: u16,
    /// Where they go to.
    sink: u16,
    folder: TempDir,
}

impl Place {
    /// The folder of logs.
    fn logs(&self) -> PathBuf {
        self.folder.path().join(LOGS)
    }

    /// Another file or folder of the forwarder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a configuration and returns its path.
    fn write(&self, text: &str) -> PathBuf {
        let file = self.path("configuration");
        fs::write(&file, text).expect("configuration");
        file
    }
}

/// A forwarder that can be started and ended.
pub(crate) struct Subject {
    kind: Kind,
    programs: Programs,
    cpus: Cpus,
    running: Option<Process>,
    /// After the process, which writes into its folder until it is dropped.
    place: Place,
}

impl Subject {
    /// A forwarder with an empty log below this folder, which does not run yet.
    ///
    /// # Panics
    /// The folder cannot be written to.
    pub(crate) fn new(kind: Kind, row: Row, programs: &Programs, cpus: Cpus, folder: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("portlane-durable-").tempdir_in(folder).expect("folder");
        let input = ports::fresh(2);
        let place = Place { row, input, sink: input + 1, folder };
        fs::create_dir(place.logs()).expect("folder");
        Self { kind, programs: programs.clone(), cpus, running: None, place }
    }

    /// Where messages come from.
    pub(crate) fn input(&self) -> u16 {
        self.place.input
    }

    /// Where they go to.
    pub(crate) fn sink(&self) -> u16 {
        self.place.sink
    }

    /// Starts the process, on its CPU.
    ///
    /// # Panics
    /// It cannot be started.
    pub(crate) fn start(&mut self) {
        let mut command = self.command();
        let process = self.cpus.spawn(false, || Process::start(&mut command).expect("the program starts"));
        self.running = Some(process);
    }

    fn command(&self) -> Command {
        match self.kind {
            Kind::Portlane(syncs) => portlane::command(&self.place, &self.programs.portlane, syncs),
            Kind::Rsyslog(syncs) => rsyslog::command(&self.place, syncs),
            Kind::SyslogNg => syslog_ng::command(&self.place, self.programs.syslog_ng()),
        }
    }

    /// Waits until messages can be sent.
    ///
    /// # Panics
    /// The process ends before.
    pub(crate) fn until_ready(&mut self) {
        let (port, is_udp) = (self.input(), self.place.row.is_udp());
        until(&format!("{} listens", self.kind.name()), || {
            self.check();
            if is_udp { takes_datagrams(port) } else { listening().contains(&port) }
        });
    }

    /// Fails if the process has ended.
    ///
    /// # Panics
    /// It has.
    pub(crate) fn check(&mut self) {
        let is_running = self.running.as_mut().is_some_and(Process::is_running);
        assert!(is_running, "{} has ended", self.kind.name());
    }

    /// Ends the process as people do, so that it keeps what it has.
    ///
    /// # Panics
    /// It does not end in time.
    pub(crate) fn end(&mut self) {
        let Some(mut process) = self.running.take() else { return };
        process.signal(Signal::TERM);
        until_within(END, &format!("{} ends", self.kind.name()), || !process.is_running());
    }

    /// Id of the process.
    ///
    /// # Panics
    /// It does not run.
    pub(crate) fn id(&self) -> u32 {
        self.running.as_ref().expect("a forwarder that runs").id()
    }

    /// Bytes of all files of the log.
    pub(crate) fn log_bytes(&self) -> u64 {
        bytes(&self.place.logs())
    }
}

/// Bytes of all files below a folder, some of which may be removed meanwhile.
fn bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(it) if it.is_dir() => bytes(&entry.path()),
        Ok(it) => it.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_log_are_those_of_all_its_files() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("a")).expect("folder");
        fs::write(folder.path().join("a/b"), [0; 7]).expect("file");
        fs::write(folder.path().join("c"), [0; 5]).expect("file");
        assert_eq!(bytes(folder.path()), 12);
    }
}

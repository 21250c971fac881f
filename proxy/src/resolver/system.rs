//! The system's settings: `/etc/hosts` and `/etc/resolv.conf`, read again when they change.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{News, exchange::NameServer};
use crate::{
    core::dns::{
        hosts::Hosts,
        resolv_conf::ResolvConf,
        tries::{self, Try},
    },
    follow::Stamp,
};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How often the files are looked at. With the time to ask again, an edit counts within 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most bytes of a file that count.
const MOST_BYTES: u64 = 16 << 20;

/// One state of the settings.
pub(super) struct System {
    pub(super) hosts: Hosts,
    pub(super) conf: ResolvConf,
    servers: Vec<NameServer>,
    /// Parts that could not be read.
    problems: Vec<String>,
    /// Whether a whole file could not be read, so that its last content is in force.
    is_stale: bool,
    /// Questions so far, for `rotate`.
    questions: AtomicUsize,
    stamps: [Option<Stamp>; 2],
}

impl System {
    /// Reads the settings. What `last` knows of a file stays in force while it cannot be read.
    fn read(last: Option<&Self>) -> Self {
        // Before the content, so that a change while it is read is seen at the next look.
        let stamps = stamps();
        let mut problems = Vec::new();
        let mut read = |path: &str| match content(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                problems.push(format!("{path}: {error}"));
                None
            }
        };
        let (hosts, conf) = (read(HOSTS), read(RESOLV_CONF));
        let is_stale = hosts.is_none() || conf.is_none();
        let hosts = match (hosts, last) {
            (None, Some(last)) => last.hosts.clone(),
            (bytes, _) => Hosts::parse(&bytes.unwrap_or_default()),
        };
        let conf = match (conf, last) {
            (None, Some(last)) => last.conf.clone(),
            (bytes, _) => ResolvConf::parse(&bytes.unwrap_or_default(), &hostname()),
        };
        problems.extend(conf.problems.iter().map(|problem| format!("{RESOLV_CONF}: {problem}")));
        let servers = conf.servers.iter().map(|server| NameServer::new(server, &conf)).collect();
        Self { hosts, conf, servers, problems, is_stale, questions: AtomicUsize::new(0), stamps }
    }

    /// The tries of the next question, each with its server. Without `may_overlap`, one server is asked at a time.
    pub(super) fn tries(&self, may_overlap: bool) -> impl Iterator<Item = (Try, NameServer)> {
        let turn = self.questions.fetch_add(1, Relaxed);
        let tries = tries::tries(&self.conf, turn, may_overlap).into_iter();
        tries.filter_map(move |one| Some((one, *self.servers.get(one.server)?)))
    }
}

/// The name of this host, as far as it can be known; a domain in it is the search domain if no line names one.
fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn stamps() -> [Option<Stamp>; 2] {
    [HOSTS, RESOLV_CONF].map(|path| Stamp::of(Path::new(path)).ok())
}

/// The content of a file, as far as it counts. A file that does not exist is empty.
fn content(path: &str) -> io::Result<Vec<u8>> {
    // A pipe without a writer would hold up the thread, and with it all names.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let kind = file.metadata()?.file_type();
    // Some mount /dev/null over a file.
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The settings, read again at a use after a change.
#[derive(Default)]
pub(super) struct Latest(Option<Arc<System>>);

impl Latest {
    /// The settings of now.
    pub(super) fn system(&mut self) -> Arc<System> {
        let system = match self.0.take() {
            Some(system) if !system.is_stale && system.stamps == stamps() => system,
            last => Arc::new(System::read(last.as_deref())),
        };
        self.0.insert(system).clone()
    }
}

/// Follows the settings until the last receiver is gone. Sends what could not be read, once for each change of it.
pub(super) fn follow(answers: mpsc::Sender<News>) -> watch::Receiver<Arc<System>> {
    let (sender, receiver) = watch::channel(Arc::new(System::read(None)));
    tokio::spawn(look(sender, answers));
    receiver
}

async fn look(systems: watch::Sender<Arc<System>>, answers: mpsc::Sender<News>) {
    let mut told = Vec::new();
    loop {
        let system = systems.borrow().clone();
        if system.problems != told {
            told.clone_from(&system.problems);
            if !told.is_empty() && answers.send(News::Unreadable(told.clone())).await.is_err() {
                return;
            }
        }
        sleep(LOOK_EVERY).await;
        if systems.is_closed() {
            return;
        }
        let is_changed = system.stamps != stamps();
        if is_changed || system.is_stale {
            let fresh = System::read(Some(&system));
            // Each new state makes all names be asked for again.
            if is_changed || !fresh.is_stale {
                systems.send_replace(Arc::new(fresh));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_empty_and_a_directory_or_a_pipe_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let missing = folder.path().join("missing");
        assert_eq!(content(missing.to_str().expect("a path")).expect("as if it were empty"), b"");
        assert_eq!(content("/dev/null").expect("as if it were empty"), b"");
        assert!(content(folder.path().to_str().expect("a path")).is_err());
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there");
        assert!(made.success());
        assert!(content(pipe.to_str().expect("a path")).is_err());
    }

    #[tokio::test]
    async fn each_try_has_a_server_and_settings_that_stay_are_not_read_again() {
        let mut latest = Latest::default();
        let system = latest.system();
        assert!(Arc::ptr_eq(&system, &latest.system()));
        assert_eq!(system.tries(true).count(), tries::tries(&system.conf, 0, true).len());
    }
}

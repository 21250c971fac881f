//! Ports of other programs in the pod: carries out and persists the decisions of the core.

use std::{collections::BTreeSet, io, path::PathBuf, time::Instant};

use proxy_api::{FailureReason, SocketKey};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::notices;
use crate::{
    core::{
        control::writes::{self, Writes},
        logging::fault::Fault,
        ports::foreign_ports,
    },
    log::{Level, Notice},
    net::{BindError, OsSocket},
    persisted,
    settings::Settings,
};

/// Longest file of ports, in bytes: 1,024 of them need less.
const MAX_BYTES: u64 = 128 << 10;

/// Remembers ports of other programs, for the life of the pod.
pub(super) struct ForeignPorts {
    ports: foreign_ports::ForeignPorts,
    started: Instant,
    file: Option<PathBuf>,
    writes: Writes<BTreeSet<SocketKey>>,
    /// The result of the write under way, when it ends.
    writing: Option<oneshot::Receiver<io::Result<()>>>,
    fault: Fault,
    /// Counts a write that failed.
    failed: Box<dyn Fn() + Send + Sync>,
}

impl ForeignPorts {
    /// Begins with the ports that an earlier run of the proxy in this pod has found. A damaged file counts as none.
    pub(super) fn new(settings: &Settings, failed: impl Fn() + Send + Sync + 'static) -> Self {
        let file = settings.foreign_ports_file.clone().filter(|_| !settings.yield_for.is_zero());
        let bytes = file.as_ref().and_then(|file| persisted::read(file, MAX_BYTES).ok());
        let known: Vec<SocketKey> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let started = Instant::now();
        let ports = foreign_ports::ForeignPorts::new(settings.yield_for).known(known, started.elapsed());
        let (writes, failed) = (Writes::new(ports.all().collect()), Box::new(failed));
        Self { ports, started, file, writes, writing: None, fault: Fault::default(), failed }
    }

    /// Sets the sockets to open now.
    pub(super) fn wanted(&mut self, sockets: &BTreeSet<SocketKey>) {
        self.ports.wanted(sockets);
    }

    /// Opens a socket with `open`, unless its port belongs to another program: then `reserve` only checks whether the
    /// port is free, and its socket is closed at once.
    pub(super) fn bind(
        &mut self,
        key: SocketKey,
        open: impl Fn(SocketKey) -> Result<Vec<OsSocket>, BindError>,
        reserve: impl Fn(SocketKey) -> Result<Vec<OsSocket>, BindError>,
    ) -> Result<Vec<OsSocket>, BindError> {
        let now = self.started.elapsed();
        let may_bind = self.ports.may_bind(key, now);
        let result = if may_bind { open(key) } else { reserve(key) };
        match &result {
            Err(error) if error.reason == FailureReason::AddressInUse => self.ports.in_use(key, now),
            Err(_) => {}
            Ok(_) => self.ports.free(key, now),
        }
        result.and_then(|sockets| if may_bind { Ok(sockets) } else { Err(BindError::yielded(key)) })
    }

    /// Notes that the proxy serves these sockets. Writes the foreign ports if they changed, see [`Self::written`].
    pub(super) fn settled(&mut self, served: impl Iterator<Item = SocketKey>) {
        served.for_each(|key| self.ports.served(key));
        self.begin();
    }

    /// Whether the file has the ports of others, and no write is under way.
    pub(super) fn are_written(&self) -> bool {
        self.file.is_none() || self.writes.are_done(&self.ports.all().collect())
    }

    /// Takes the result of the write under way, if it has ended, and writes the ports of others if the file lacks any.
    /// Returns the notice to log.
    pub(super) fn written(&mut self) -> Option<Notice> {
        let ended = self.end();
        self.begin();
        ended
    }

    fn begin(&mut self) {
        let Some(file) = self.file.clone() else { return };
        let Some(ports) = self.writes.begin(self.ports.all().collect(), self.started.elapsed()) else { return };
        let bytes = serde_json::to_vec(ports).unwrap_or_default();
        let (done, writing) = oneshot::channel();
        self.writing = Some(writing);
        tokio::task::spawn_blocking(move || done.send(persisted::write(&file, &bytes)));
    }

    /// Takes the result of a write. A failure does not stop the proxy: the ports are known until the process ends.
    fn end(&mut self) -> Option<Notice> {
        let result = match self.writing.as_mut()?.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Closed) => Err(io::Error::other("its thread has died")),
            Ok(result) => result,
        };
        self.writing = None;
        self.writes.end(result.is_ok(), self.started.elapsed());
        let name = self.file.as_deref()?.display();
        let (level, message) = match result {
            Ok(()) if self.fault.works() => (Level::Info, format!("{name} is written again")),
            Ok(()) => return None,
            Err(error) => {
                (self.failed)();
                let message = format!(
                    "cannot write {name}: {error}; will retry every {} s; until then, a proxy that restarts \
                     knows only the ports of other programs that the file has",
                    writes::LONGEST.as_secs()
                );
                if !self.fault.fails(&message) {
                    return None;
                }
                (Level::Error, message)
            }
        };
        Some(notices::notice(level, "state", "persisted state", message))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot continue panics")]
mod tests {
    use std::{
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::Duration,
    };

    use proxy_api::{Bind, Transport};

    use super::*;
    use crate::net;

    /// The memory of a sidecar with this file; a foreign port is left alone for `yield_for`.
    fn remembered(file: &Path, yield_for: Duration) -> ForeignPorts {
        let settings = Settings { yield_for, foreign_ports_file: Some(file.to_owned()), ..Settings::default() };
        ForeignPorts::new(&settings, || {})
    }

    const KEY: SocketKey = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 80 };

    /// Waits for the end of the write under way. Returns the notice that is then logged.
    async fn end_of_write(ports: &mut ForeignPorts) -> Option<Notice> {
        let result = ports.writing.take().expect("a write is under way").await.expect("it ends");
        let (done, writing) = oneshot::channel();
        assert!(done.send(result).is_ok());
        ports.writing = Some(writing);
        ports.written()
    }

    #[tokio::test]
    async fn a_file_that_could_not_be_written_is_tried_again_and_the_fault_is_told_once() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("later");
        let file = folder.join("foreign-ports.json");
        let failures = Arc::new(AtomicUsize::new(0));
        let counter = failures.clone();
        let yield_for = Duration::from_secs(60);
        let settings = Settings { yield_for, foreign_ports_file: Some(file.clone()), ..Settings::default() };
        let mut ports = ForeignPorts::new(&settings, move || {
            counter.fetch_add(1, Relaxed);
        });
        assert!(ports.are_written());
        ports.ports.in_use(KEY, Duration::ZERO);
        ports.ports.in_use(KEY, Duration::from_secs(10));
        ports.settled(std::iter::empty());
        let told = end_of_write(&mut ports).await.expect("the fault is logged").message;
        assert!(told.starts_with(&format!("cannot write {}: ", file.display())), "{told}");
        ports.settled(std::iter::empty());
        assert!(ports.writing.is_none() && !ports.are_written(), "it is not tried again at once");

        let pause = Duration::from_secs(30);
        ports.started = ports.started.checked_sub(pause).expect("a machine that is up for longer");
        assert!(ports.written().is_none() && end_of_write(&mut ports).await.is_none(), "the same fault is logged once");
        assert_eq!(failures.load(Relaxed), 2);
        std::fs::create_dir(&folder).expect("folder");
        ports.started = ports.started.checked_sub(pause).expect("a machine that is up for longer");
        assert!(ports.written().is_none());
        let told = end_of_write(&mut ports).await.expect("the end of the fault is logged").message;
        assert_eq!(told, format!("{} is written again", file.display()));
        assert!(ports.are_written() && ports.writing.is_none());
        let kept = std::fs::read(&file).expect("file");
        assert_eq!(kept, serde_json::to_vec(&[KEY]).expect("JSON"));
        assert_eq!(failures.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn what_changes_while_the_file_is_written_is_written_when_that_ends() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("foreign-ports.json");
        let mut ports = remembered(&file, Duration::from_secs(60));
        ports.ports.in_use(KEY, Duration::ZERO);
        ports.ports.in_use(KEY, Duration::from_secs(10));
        ports.settled(std::iter::empty());
        ports.settled([KEY].into_iter());
        assert!(!ports.are_written());
        assert!(end_of_write(&mut ports).await.is_none());
        assert!(end_of_write(&mut ports).await.is_none());
        assert_eq!(std::fs::read(&file).expect("file"), b"[]");
        assert!(ports.are_written() && ports.writing.is_none());
    }

    #[tokio::test]
    async fn ports_of_others_survive_the_process_until_they_are_served() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("foreign-ports.json");
        std::fs::write(&file, serde_json::to_vec(&[KEY]).expect("JSON")).expect("file");

        let mut ports = remembered(&file, Duration::from_secs(60));
        let none = |_: SocketKey| Ok(Vec::new());
        let error = ports.bind(KEY, |_| unreachable_socket(), none).expect_err("left to the app");
        assert_eq!(error.reason, FailureReason::AddressInUse);
        ports.settled([KEY].into_iter());
        assert!(end_of_write(&mut ports).await.is_none());
        assert_eq!(std::fs::read(&file).expect("file"), b"[]");

        std::fs::write(&file, b"no JSON").expect("file");
        let mut damaged = remembered(&file, Duration::from_secs(60));
        assert!(damaged.bind(KEY, none, |_| unreachable_socket()).is_ok(), "a damaged file counts as none");
        let mut laptop = remembered(&file, Duration::ZERO);
        laptop.settled(std::iter::empty());
        assert!(laptop.writing.is_none() && laptop.file.is_none());
    }

    /// Fails the test if it is called.
    fn unreachable_socket() -> Result<Vec<OsSocket>, BindError> {
        Err(BindError::yielded(SocketKey { transport: Transport::Udp, bind: Bind::All, port: 0 }))
    }

    #[test]
    fn the_address_of_the_error_is_that_of_the_socket() {
        let error = net::BindError::yielded(SocketKey { transport: Transport::Udp, bind: Bind::All, port: 53 });
        assert!(error.to_string().starts_with("bind 0.0.0.0:53/UDP: address in use by another program"), "{error}");
    }
}

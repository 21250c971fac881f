//! Ports of other programs in the pod: what the core decides about them, carried out and persisted.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use proxy_api::{FailureReason, SocketKey};
use tokio::task::JoinHandle;

use crate::{
    core::foreign_ports,
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
    persisted: BTreeSet<SocketKey>,
    /// A write of the file that is under way.
    writing: Option<JoinHandle<()>>,
    /// Counts a file that cannot be written.
    failed: Failed,
}

type Failed = Arc<dyn Fn() + Send + Sync>;

impl ForeignPorts {
    /// With the ports that an earlier run of the proxy in this pod has found. A damaged file counts as none.
    pub(super) fn new(settings: &Settings, failed: impl Fn() + Send + Sync + 'static) -> Self {
        let file = settings.foreign_ports_file.clone().filter(|_| !settings.yield_for.is_zero());
        let bytes = file.as_ref().and_then(|file| persisted::read(file, MAX_BYTES).ok());
        let known: Vec<SocketKey> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let started = Instant::now();
        let ports = foreign_ports::ForeignPorts::new(settings.yield_for).known(known, started.elapsed());
        Self { persisted: ports.all().collect(), ports, started, file, writing: None, failed: Arc::new(failed) }
    }

    /// These are the sockets to open now.
    pub(super) fn wanted(&mut self, sockets: &BTreeSet<SocketKey>) {
        self.ports.wanted(sockets);
    }

    /// Opens a socket with `open`, unless its port belongs to another program: then `reserve` only looks whether the port is
    /// free, and what it opens is closed at once.
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

    /// The proxy serves these sockets now. Writes the ports of others if they changed.
    pub(super) fn settled(&mut self, served: impl Iterator<Item = SocketKey>) {
        served.for_each(|key| self.ports.served(key));
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let Some(file) = self.file.clone() else { return };
        let ports: BTreeSet<SocketKey> = self.ports.all().collect();
        if ports == self.persisted {
            return;
        }
        let failed = self.failed.clone();
        let bytes = serde_json::to_vec(&ports).unwrap_or_default();
        self.persisted = ports;
        // A failure is counted and no reason to stop: the ports are known until the process ends.
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if persisted::write(&file, &bytes).is_err() {
                failed();
            }
        }));
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot continue panics")]
mod tests {
    use std::{path::Path, time::Duration};

    use proxy_api::{Bind, Transport};

    use super::*;
    use crate::net;

    /// What a sidecar with this file remembers; a port that is foreign is left alone for as long as `yield_for`.
    fn remembered(file: &Path, yield_for: Duration) -> ForeignPorts {
        let settings = Settings { yield_for, foreign_ports_file: Some(file.to_owned()), ..Settings::default() };
        ForeignPorts::new(&settings, || {})
    }

    #[tokio::test]
    async fn ports_of_others_survive_the_process_until_they_are_served() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("foreign-ports.json");
        let key = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 80 };
        std::fs::write(&file, serde_json::to_vec(&[key]).expect("JSON")).expect("file");

        let mut ports = remembered(&file, Duration::from_secs(60));
        let none = |_: SocketKey| Ok(Vec::new());
        let error = ports.bind(key, |_| unreachable_socket(), none).expect_err("left to the app");
        assert_eq!(error.reason, FailureReason::AddressInUse);
        ports.settled([key].into_iter());
        ports.writing.take().expect("the file is written").await.expect("written");
        assert_eq!(std::fs::read(&file).expect("file"), b"[]");

        std::fs::write(&file, b"no JSON").expect("file");
        let mut damaged = remembered(&file, Duration::from_secs(60));
        assert!(damaged.bind(key, none, |_| unreachable_socket()).is_ok(), "a damaged file counts as none");
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

//! Ports of other programs in the pod: what the core decides about them, carried out and persisted.

use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use proxy_api::{FailureReason, SocketKey};

use crate::{
    core::foreign_ports::{self, Port},
    net::{BindError, OsSocket},
    persisted,
    settings::Settings,
};

/// Longest file of ports, in bytes: 1,024 of them need a third.
const MAX_BYTES: u64 = 64 << 10;

/// Remembers ports of other programs, for the life of the pod.
pub(super) struct ForeignPorts {
    ports: foreign_ports::ForeignPorts,
    started: Instant,
    file: Option<PathBuf>,
    persisted: BTreeSet<Port>,
}

impl ForeignPorts {
    /// With the ports that an earlier run of the proxy in this pod has found. A damaged file counts as none.
    pub(super) fn new(settings: &Settings) -> Self {
        let file = settings.foreign_ports_file.clone().filter(|_| !settings.yield_for.is_zero());
        let bytes = file.as_ref().and_then(|file| persisted::read(file, MAX_BYTES).ok());
        let known: Vec<Port> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let started = Instant::now();
        let ports = foreign_ports::ForeignPorts::new(settings.yield_for).known(known, started.elapsed());
        Self { persisted: ports.all().collect(), ports, started, file }
    }

    /// Opens a socket with `open`, unless its port belongs to another program: then `reserve` only looks whether the port is
    /// free, and what it opens is closed at once.
    pub(super) fn bind(
        &mut self,
        key: SocketKey,
        open: impl Fn(SocketKey) -> Result<Vec<OsSocket>, BindError>,
        reserve: impl Fn(SocketKey) -> Result<Vec<OsSocket>, BindError>,
    ) -> Result<Vec<OsSocket>, BindError> {
        let (port, now) = ((key.transport, key.port), self.started.elapsed());
        let may_bind = self.ports.may_bind(port, now);
        let result = if may_bind { open(key) } else { reserve(key) };
        match &result {
            Err(error) if error.reason == FailureReason::AddressInUse => self.ports.in_use(port, now),
            Err(_) => {}
            Ok(_) => self.ports.free(port, now),
        }
        result.and_then(|sockets| if may_bind { Ok(sockets) } else { Err(BindError::yielded(key)) })
    }

    /// Writes the ports, if they changed. A failure is no reason to stop: the ports are known until the process ends.
    pub(super) fn persist(&mut self) {
        let Some(file) = &self.file else { return };
        let ports: BTreeSet<Port> = self.ports.all().collect();
        if ports != self.persisted
            && let Ok(bytes) = serde_json::to_vec(&ports)
            && persisted::write(file, &bytes).is_ok()
        {
            self.persisted = ports;
        }
    }
}

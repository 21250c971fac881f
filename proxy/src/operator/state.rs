//! Persisted state: the last good configuration, and CA certificates received over the stream.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{Configuration, MAX_DOCUMENT_BYTES};
use tokio::time::Instant;

use crate::{core::writes, handle::Proxy, log::Level, persisted};

/// Largest CA bundle, in bytes.
const MAX_ROOTS: u64 = 1 << 20;

/// The state directory, and the configuration still to be written.
///
/// What waits to be written is lost in a crash: the proxy then starts with a configuration that is up to a pause old (see
/// [`writes::pause`]), and the operator sends what has changed since, as after any loss of the stream.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    unwritten: Option<Arc<Configuration>>,
    due: Instant,
}

impl State {
    pub(super) fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), unwritten: None, due: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The persisted configuration. A damaged or foreign file is ignored.
    pub(super) fn configuration(&self, proxy: &Proxy) -> Option<Configuration> {
        let path = self.path("configuration.json");
        let read = persisted::read(&path, MAX_DOCUMENT_BYTES as u64);
        let decoded = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(bytes) => Configuration::decode(&bytes).map_err(|error| error.to_string()),
        };
        decoded
            .map_err(|why| {
                let message = format!("ignoring {}: {why}; waiting for the operator", path.display());
                failed(proxy, message);
            })
            .ok()
    }

    /// The CAs to trust for this attempt. CAs from the stream are newer than `given`. If they do not lead to an
    /// operator, for example after a reinstall, every other attempt uses `given`.
    pub(super) fn roots(&self, given: &str, tries: u64) -> String {
        let kept =
            persisted::read(&self.path("roots.pem"), MAX_ROOTS).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        kept.filter(|roots| tries % 2 == 1 && proxy_grpc::roots(roots).is_ok()).unwrap_or_else(|| given.to_owned())
    }

    /// Persists new CAs if they are valid.
    pub(super) fn keep_roots(&self, roots: &str, proxy: &Proxy) {
        let path = self.path("roots.pem");
        if fs::read_to_string(&path).is_ok_and(|kept| kept == roots) {
            return;
        }
        let kept = proxy_grpc::roots(roots).map_err(|error| error.to_string()).and_then(|_| {
            persisted::write(&path, roots.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))
        });
        if let Err(why) = kept {
            failed(proxy, format!("cannot persist new CA certificates: {why}"));
        }
    }

    /// Schedules a configuration to be written.
    pub(super) fn keep(&mut self, configuration: &Arc<Configuration>) {
        self.unwritten = Some(configuration.clone());
    }

    /// When the next write is due, if any.
    pub(super) fn due(&self) -> Option<Instant> {
        self.unwritten.as_ref().map(|_| self.due)
    }

    /// Writes the scheduled configuration, if any.
    pub(super) async fn flush(&mut self, proxy: &Proxy) {
        let Some(configuration) = self.unwritten.take() else { return };
        let began = Instant::now();
        let path = self.path("configuration.json");
        let name = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = configuration.encode().map_err(io::Error::other)?;
            persisted::write(&path, &bytes)
        })
        .await;
        self.due = Instant::now() + writes::pause(began.elapsed());
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        failed(proxy, format!("cannot write {name}: {error}; after a restart this proxy has to wait for the operator"));
    }
}

fn failed(proxy: &Proxy, message: String) {
    if proxy.metrics().control.state_failures.fetch_add(1, Relaxed) < 10 {
        proxy.log().notice(Level::Error, "state", "persisted state", message);
    }
}

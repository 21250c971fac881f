//! What is kept beside the proxy: the last good configuration, and the roots that came over the stream.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use proxy_api::{Configuration, MAX_DOCUMENT_BYTES};
use tokio::time::Instant;

use crate::{handle::Proxy, log::Level};

/// Shortest time between two writes of the configuration.
const WRITES: Duration = Duration::from_secs(1);
/// Most bytes of roots.
const MAX_ROOTS: u64 = 1 << 20;

/// The folder, and what has to be written to it.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    unwritten: Option<Configuration>,
    due: Instant,
}

impl State {
    pub(super) fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), unwritten: None, due: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The configuration that was kept. A torn or foreign file counts as none.
    pub(super) fn configuration(&self, proxy: &Proxy) -> Option<Configuration> {
        let path = self.path("configuration.json");
        let read = read(&path, MAX_DOCUMENT_BYTES as u64);
        let decoded = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(bytes) => Configuration::decode(&bytes).map_err(|error| error.to_string()),
        };
        decoded
            .map_err(|why| {
                let message = format!("{} is not used: {why}; the operator is waited for", path.display());
                failed(proxy, message);
            })
            .ok()
    }

    /// The roots to trust at this try. Those that came over the stream are newer than those that were given; should they
    /// not lead to an operator (one that was installed anew), the given ones have every other turn.
    pub(super) fn roots(&self, given: &str, tries: u64) -> String {
        let kept = read(&self.path("roots.pem"), MAX_ROOTS).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        kept.filter(|roots| tries % 2 == 1 && proxy_grpc::roots(roots).is_ok()).unwrap_or_else(|| given.to_owned())
    }

    /// Keeps new roots, if they are any.
    pub(super) fn keep_roots(&self, roots: &str, proxy: &Proxy) {
        let path = self.path("roots.pem");
        if fs::read_to_string(&path).is_ok_and(|kept| kept == roots) {
            return;
        }
        let kept = proxy_grpc::roots(roots)
            .map_err(|error| error.to_string())
            .and_then(|_| write(&path, roots.as_bytes()).map_err(|error| format!("{}: {error}", path.display())));
        if let Err(why) = kept {
            failed(proxy, format!("new roots are not kept: {why}"));
        }
    }

    /// Has this configuration written soon.
    pub(super) fn keep(&mut self, configuration: &Configuration) {
        self.unwritten = Some(configuration.clone());
    }

    /// When something has to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.unwritten.as_ref().map(|_| self.due)
    }

    /// Writes what has to be written.
    pub(super) async fn flush(&mut self, proxy: &Proxy) {
        let Some(configuration) = self.unwritten.take() else { return };
        self.due = Instant::now() + WRITES;
        let path = self.path("configuration.json");
        let name = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = configuration.encode().map_err(io::Error::other)?;
            write(&path, &bytes)
        })
        .await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        failed(proxy, format!("{name} cannot be written: {error}; after a restart this proxy waits for the operator"));
    }
}

fn failed(proxy: &Proxy, message: String) {
    if proxy.metrics().control.state_failures.fetch_add(1, Relaxed) < 10 {
        proxy.log().notice(Level::Error, "state", "kept state", message);
    }
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes")));
    }
    fs::read(path)
}

/// Writes beside the file and renames, so that it is whole or the old one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

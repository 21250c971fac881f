//! Persisted state: the last good configuration, and CA certificates received over the stream.

use std::{
    fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::{Configuration, MAX_DOCUMENT_BYTES};
use tokio::{task::JoinHandle, time::Instant};

use super::stretches;
use crate::{
    core::{control::writes, logging::fault::Fault},
    handle::Proxy,
    log::Level,
    persisted,
};

/// File of the configuration.
const CONFIGURATION: &str = "configuration.json";
/// Largest CA bundle, in bytes.
const MAX_ROOTS: u64 = 1 << 20;

/// The state directory, and the configuration still to be written.
///
/// A crash loses a configuration that waits to be written: the proxy then starts with one that is up to a pause old
/// (see [`writes::pause`]), and the operator sends the changes since, as after any loss of the stream.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    unwritten: Option<Arc<Configuration>>,
    /// The end of the pause after the last write.
    due: Instant,
    writing: Option<Write>,
    fault: Fault,
}

/// A write under way.
#[derive(Debug)]
struct Write {
    began: Instant,
    configuration: Arc<Configuration>,
    task: JoinHandle<io::Result<()>>,
}

impl State {
    pub(super) fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), unwritten: None, due: Instant::now(), writing: None, fault: Fault::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The persisted configuration. A damaged or foreign file is ignored.
    pub(super) fn configuration(&self, proxy: &Proxy) -> Option<Configuration> {
        let path = self.path(CONFIGURATION);
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

    /// When the next write is due, if any, and if none is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.unwritten.as_ref().filter(|_| self.writing.is_none()).map(|_| self.due)
    }

    /// Begins to write the scheduled configuration, if any, unless a write is under way. Changes do not wait for it.
    pub(super) fn begin(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let Some(configuration) = self.unwritten.take() else { return };
        let (path, encoded) = (self.path(CONFIGURATION), configuration.clone());
        let task = tokio::task::spawn_blocking(move || {
            persisted::replace(&path, |file| {
                stretches::write(file, |to| encoded.encode_to(to).map_err(io::Error::from))
            })
        });
        self.writing = Some(Write { began: Instant::now(), configuration, task });
    }

    /// Waits for the end of the write under way; without one, forever. A configuration that could not be written, and
    /// is still the last one, is scheduled again. Returns whether it was written.
    pub(super) async fn written(&mut self, proxy: &Proxy) -> bool {
        let Some(Write { began, task, .. }) = &mut self.writing else { return pending().await };
        let written = task.await.map_err(io::Error::other).flatten();
        let pause = writes::pause(began.elapsed(), written.is_ok());
        self.due = Instant::now() + pause;
        let ended = self.writing.take();
        let name = self.path(CONFIGURATION).display().to_string();
        let Err(error) = written else {
            if self.fault.works() {
                proxy.log().notice(Level::Info, "state", "persisted state", format!("{name} is written again"));
            }
            return true;
        };
        self.unwritten = self.unwritten.take().or(ended.map(|write| write.configuration));
        proxy.metrics().control.state_failures.fetch_add(1, Relaxed);
        let message = format!(
            "cannot write {name}: {error}; will retry every {} s; until then a restart uses the last version written",
            pause.as_secs()
        );
        if self.fault.fails(&message) {
            proxy.log().notice(Level::Error, "state", "persisted state", message);
        }
        false
    }

    /// Writes the scheduled configuration, if any, and waits until it is written, or has failed once.
    pub(super) async fn flush(&mut self, proxy: &Proxy) {
        loop {
            self.begin();
            if self.writing.is_none() || !self.written(proxy).await {
                return;
            }
        }
    }
}

fn failed(proxy: &Proxy, message: String) {
    if proxy.metrics().control.state_failures.fetch_add(1, Relaxed) < 10 {
        proxy.log().notice(Level::Error, "state", "persisted state", message);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use proxy_api::Version;

    use super::*;
    use crate::settings::Settings;

    /// A log that is read afterwards.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn numbered(number: u64) -> Arc<Configuration> {
        let version = Version { epoch: "e".to_owned(), number };
        Arc::new(Configuration { version, ..Configuration::default() })
    }

    #[test]
    fn one_write_at_a_time_after_a_pause_and_the_last_configuration_is_kept() {
        let proxy = Proxy::start(&Settings::default(), Box::new(io::sink())).expect("no address is needed");
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut state, start) = (State::open(folder.path()), Instant::now());
            let kept = |state: &State| state.configuration(&proxy).map(|kept| kept.version.number);
            assert_eq!((state.due(), kept(&state)), (None, None));
            state.keep(&numbered(1));
            assert!(state.due().is_some_and(|due| due <= Instant::now()), "the first one does not wait");
            state.begin();
            state.keep(&numbered(2));
            state.begin();
            assert_eq!(state.due(), None, "a write is under way");
            state.written(&proxy).await;
            assert_eq!(kept(&state), Some(1));
            assert!(state.due().is_some_and(|due| due >= start + writes::pause(Duration::ZERO, true)));
            state.keep(&numbered(3));
            state.flush(&proxy).await;
            assert_eq!((state.due(), kept(&state)), (None, Some(3)));
        });
        proxy.finish().expect("no thread has died");
    }

    #[test]
    fn what_could_not_be_written_is_written_once_that_is_possible_and_the_fault_is_told_once() {
        let log = Lines::default();
        let proxy = Proxy::start(&Settings::default(), Box::new(log.clone())).expect("no address is needed");
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("later");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut state = State::open(&folder);
            state.keep(&numbered(1));
            state.flush(&proxy).await;
            state.flush(&proxy).await;
            assert!(state.due().is_some_and(|due| due > Instant::now() + Duration::from_secs(20)), "it is tried again");
            fs::create_dir(&folder).expect("a folder");
            state.flush(&proxy).await;
            assert_eq!(state.due(), None);
            assert_eq!(state.configuration(&proxy).map(|kept| kept.version.number), Some(1));
        });
        assert_eq!(proxy.metrics().control.state_failures.load(Relaxed), 2);
        proxy.finish().expect("no thread has died");
        let told = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!((told.matches("cannot write").count(), told.matches("is written again").count()), (1, 1), "{told}");
    }
}

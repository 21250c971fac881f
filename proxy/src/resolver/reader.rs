//! Reads a file of the system on a thread of its own: a file system that does not answer, such as a dead mount, blocks
//! neither names nor the control thread, nor the end of the process.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{deadline::within, follow::Stamp};

/// Longest wait for a file system.
const LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of a file that are used.
const MOST_BYTES: u64 = 16 << 20;

/// One state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no such file, which counts as an empty one.
    Missing,
    /// The file is there.
    Present(Stamp),
}

/// The result of checking a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The file is in the known state.
    Same,
    /// The file is in this state, with this content.
    New(State, Vec<u8>),
    /// The file could not be read, for this reason.
    Failed(String),
}

/// A file of the system.
pub(super) struct Reader {
    path: PathBuf,
    /// A check that has not ended. No other one begins meanwhile, as threads would accumulate.
    pending: Option<oneshot::Receiver<Look>>,
}

impl Reader {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), pending: None }
    }

    /// Reads the file, if its state is not `known`. A check that has not ended in time is not waited for again.
    pub(super) async fn look(&mut self, known: Option<State>) -> Look {
        let path = self.path.clone();
        self.run(LIMIT, move || look_at(&path, known)).await
    }

    async fn run(&mut self, limit: Duration, look: impl FnOnce() -> Look + Send + 'static) -> Look {
        let limit = if self.pending.is_some() { Duration::ZERO } else { limit };
        let pending = self.pending.get_or_insert_with(|| begin(look));
        let Some(ended) = within(limit, Pin::new(pending)).await else {
            let seconds = LIMIT.as_secs();
            return Look::Failed(format!("its file system has not answered for {seconds} s; look for a dead mount"));
        };
        self.pending = None;
        ended.unwrap_or_else(|_| Look::Failed("there is no thread to read it".to_owned()))
    }
}

/// Begins a check. A thread of the runtime would have to return before the process could end.
fn begin(look: impl FnOnce() -> Look + Send + 'static) -> oneshot::Receiver<Look> {
    let (sender, receiver) = oneshot::channel();
    // Without a thread the sender is dropped, which the receiver notices.
    let _ = thread::Builder::new().name("resolver-files".to_owned()).spawn(move || drop(sender.send(look())));
    receiver
}

fn look_at(path: &Path, known: Option<State>) -> Look {
    // Before the content, so that a change while it is read is found at the next check.
    let state = match Stamp::of(path) {
        Ok(stamp) => State::Present(stamp),
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::Missing,
        Err(error) => return Look::Failed(error.to_string()),
    };
    if known == Some(state) {
        return Look::Same;
    }
    content(path).map_or_else(|error| Look::Failed(error.to_string()), |bytes| Look::New(state, bytes))
}

/// The used part of a file's content. A file that does not exist is empty.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe without a writer would block the thread.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let kind = file.metadata()?.file_type();
    // Some users mount /dev/null over a file.
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, sync::mpsc};

    use super::*;

    #[test]
    fn a_missing_file_is_empty_and_a_directory_or_a_pipe_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let missing = folder.path().join("missing");
        assert_eq!(content(&missing).expect("as if it were empty"), b"");
        assert_eq!(content(Path::new("/dev/null")).expect("as if it were empty"), b"");
        assert!(content(folder.path()).is_err());
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there");
        assert!(made.success());
        assert!(content(&pipe).is_err());
    }

    #[tokio::test]
    async fn a_file_is_read_again_only_in_another_state() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("hosts");
        let mut reader = Reader::new(path.clone());
        assert_eq!(reader.look(None).await, Look::New(State::Missing, Vec::new()));
        assert_eq!(reader.look(Some(State::Missing)).await, Look::Same);
        fs::write(&path, b"127.0.0.1 db\n").expect("write");
        let Look::New(state, bytes) = reader.look(Some(State::Missing)).await else { panic!("it is there now") };
        assert_eq!(bytes, b"127.0.0.1 db\n");
        assert_eq!(reader.look(Some(state)).await, Look::Same);
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_bounded_and_no_other_one_begins_until_it_ends() {
        let mut reader = Reader::new("hosts");
        let (answer, file_system) = mpsc::channel();
        let hang = move || {
            let _ = file_system.recv();
            Look::Same
        };
        let stuck = reader.run(Duration::from_millis(1), hang).await;
        assert!(matches!(&stuck, Look::Failed(why) if why.contains("dead mount")), "{stuck:?}");
        let second = || -> Look { panic!("a second look") };
        assert_eq!(reader.run(Duration::from_secs(60), second).await, stuck);
        answer.send(()).expect("the thread waits");
        while reader.run(Duration::from_secs(60), second).await == stuck {}
        assert_eq!(
            reader.run(Duration::from_secs(60), || Look::Failed("next".to_owned())).await,
            Look::Failed("next".to_owned())
        );
    }
}

//! The dead letters of durable listeners, for people and programs. Their folders are only read, so that the proxy that
//! uses them keeps running.

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use durable::{FolderError, FolderView, Letters};
use durable_core::Error;
use proxy_api::ListenerId;
use serde::Serialize;
use serde_json::Serializer;

use crate::{
    core::durable::log_files::{LETTERS, PREFIX},
    log::PrintableJson,
    messages::{self, ALL_LOGS, LeftError},
};

/// Why not all dead letters are printed.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// The folder for messages does not exist.
    #[error("the folder {} does not exist: name the folder of the process with --data", .0.display())]
    NoFolder(PathBuf),
    /// A listener has no log in the folder.
    #[error("{} has no log of a durable listener {listener}: name it as `portlane lag` does", .folder.display())]
    NoLog {
        /// The listener.
        listener: ListenerId,
        /// The folder of all logs.
        folder: PathBuf,
    },
    /// The folder of all logs cannot be searched.
    #[error(transparent)]
    Search(#[from] LeftError),
    /// The folder of a log cannot be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The dead letters in a folder cannot be read.
    #[error("cannot read the dead letters in {}", .folder.display())]
    Log {
        /// The folder.
        folder: PathBuf,
        /// The error.
        #[source]
        source: Error,
    },
    /// Some dead letters cannot be read; all others are printed.
    #[error("could not read {}, damaged or replaced by newer ones meanwhile", proxy_api::count(*.0, "dead letter"))]
    Unread(u64),
    /// The output cannot be written.
    #[error("cannot write the dead letters")]
    Write(#[from] io::Error),
}

/// Prints the dead letters of these listeners, or of all, whose messages are in the folder `data`: one object of JSON on
/// each line, those of a listener in the order in which its logs were begun, and those of a log the oldest first. A reader
/// that has closed the pipe is no error.
///
/// # Errors
/// See [`LettersError`].
pub fn print(data: &Path, listeners: &[ListenerId], out: impl Write) -> Result<(), LettersError> {
    match print_all(data, listeners, &mut BufWriter::new(out)) {
        Err(LettersError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn print_all(data: &Path, listeners: &[ListenerId], out: &mut impl Write) -> Result<(), LettersError> {
    if !data.is_dir() {
        return Err(LettersError::NoFolder(data.to_owned()));
    }
    let folder = data.join(ALL_LOGS);
    let mut logs = messages::with_letters(&folder)?;
    if let Some(listener) = listeners.iter().find(|id| !logs.contains_key(*id)) {
        return Err(LettersError::NoLog { listener: listener.clone(), folder });
    }
    logs.retain(|id, _| listeners.is_empty() || listeners.contains(id));
    let mut unread: u64 = 0;
    for (id, (folder, generations)) in logs {
        for prefix in generations.into_iter().flat_map(|generation| generation.prefixes(PREFIX)) {
            let of_log = print_log(&id.to_string(), &folder, &format!("{prefix}{LETTERS}"), out)?;
            unread = unread.saturating_add(of_log);
        }
    }
    out.flush()?;
    if unread > 0 { Err(LettersError::Unread(unread)) } else { Ok(()) }
}

/// Prints the dead letters of one log, and returns how many cannot be read.
fn print_log(listener: &str, folder: &Path, prefix: &str, out: &mut impl Write) -> Result<u64, LettersError> {
    let failed = |source| LettersError::Log { folder: folder.to_owned(), source };
    let mut letters = Letters::open(FolderView::open(folder)?, prefix).map_err(failed)?;
    while let Some(letter) = letters.read().map_err(failed)? {
        let mut json = Serializer::with_formatter(&mut *out, PrintableJson);
        letter.line(listener).serialize(&mut json).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(letters.unread())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use durable::Folder;
    use durable_core::{DeadLetters, Message, Now, Outside, Record};
    use serde_json::Value;
    use tempfile::tempdir;

    use super::*;

    /// Sets a message aside as a dead letter of the log with this prefix in the folder of a listener.
    fn put(data: &Path, listener: &str, prefix: &str, message: &str) {
        let mut files = Folder::open(&data.join(ALL_LOGS).join(listener)).expect("a folder");
        let (now, mut reported) = (Now { steady: Duration::ZERO, unix_millis: 0 }, Vec::new());
        let mut outside = Outside { files: &mut files, now, reported: &mut reported };
        let prefix = format!("{prefix}{LETTERS}");
        let mut letters = DeadLetters::open(&mut outside, &prefix, 1 << 20, 4096).expect("a log");
        let message = Message { source: b"192.0.2.1:5", received_millis: 0, payload: message.as_bytes() };
        letters.put(&mut outside, &Record { number: 7, message }, "no").expect("room");
    }

    fn text(data: &Path, listeners: &[&str]) -> Result<String, LettersError> {
        let listeners: Vec<ListenerId> = listeners.iter().map(|id| id.parse().expect("an id")).collect();
        let mut out = Vec::new();
        print(data, &listeners, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    /// The messages that are printed, with their listeners.
    fn printed(data: &Path, listeners: &[&str]) -> Vec<(String, String)> {
        let text = text(data, listeners).expect("all are read");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let words = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        lines.map(|line| (words(&line, "listener"), words(&line, "message"))).collect()
    }

    #[test]
    fn letters_of_all_lanes_that_a_listener_has_had_are_printed_in_order() {
        let data = tempdir().expect("a folder");
        let (one, other) = ("shop/logs/l", "infra/logs/l");
        for (listener, prefix, message) in [
            (one, "log-10-1-0-", "e"),
            (one, "log-2-2-1-", "d"),
            (one, "log-2-2-0-", "c"),
            (one, "log-", "a"),
            (one, "log-", "b"),
            (other, "log-", "x"),
        ] {
            put(data.path(), listener, prefix, message);
        }
        let expected: Vec<(String, String)> =
            ["a", "b", "c", "d", "e"].map(|message| (one.to_owned(), message.to_owned())).into();
        assert_eq!(printed(data.path(), &[one]), expected);
        let all = printed(data.path(), &[]);
        assert_eq!((&all[0], &all[1..]), (&(other.to_owned(), "x".to_owned()), &expected[..]));
    }

    #[test]
    fn what_is_not_there_is_named_and_a_folder_without_messages_has_no_letters() {
        let data = tempdir().expect("a folder");
        assert_eq!(text(data.path(), &[]).expect("a folder"), "");
        let no_log = text(data.path(), &["shop/logs/l"]).expect_err("no such log").to_string();
        assert!(no_log.contains("no log of a durable listener shop/logs/l"), "{no_log}");
        let no_folder = text(&data.path().join("nosuch"), &[]).expect_err("no folder").to_string();
        assert!(no_folder.contains("nosuch") && no_folder.contains("--data"), "{no_folder}");
    }

    #[test]
    fn a_message_sends_the_terminal_no_command_and_is_read_as_it_was() {
        let (data, message) = (tempdir().expect("a folder"), "\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{e0041} größe\n");
        put(data.path(), "shop/logs/l", "log-", message);
        let text = text(data.path(), &[]).expect("all are read");
        assert!(text.contains(r"\u009b2J\u007f\u202e\udb40\udc41 größe\n"), "{text}");
        assert_eq!(printed(data.path(), &[]), [("shop/logs/l".to_owned(), message.to_owned())]);
    }

    /// An output that fails with this error.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_disk_without_space_is_one() {
        let data = tempdir().expect("a folder");
        put(data.path(), "shop/logs/l", "log-", "m");
        print(data.path(), &[], Failing(ErrorKind::BrokenPipe)).expect("nobody reads it");
        let error = print(data.path(), &[], Failing(ErrorKind::StorageFull)).expect_err("no space");
        assert!(matches!(error, LettersError::Write(_)), "{error}");
    }
}

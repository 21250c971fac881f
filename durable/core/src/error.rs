//! Errors of a log, and the reports that come with a result.

use std::ops::Range;

/// Why a call to [`Files`](crate::Files) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// `ENOSPC` and `EDQUOT`.
    #[error("the disk or its quota is full")]
    NoSpace,
    /// `ENOENT`.
    #[error("the file is not there")]
    Missing,
    /// Any other error, as the system words it.
    #[error("{0}")]
    Other(String),
}

impl FileError {
    /// What helps, for people.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::NoSpace => "free space there, or lower the bound of the log",
            Self::Missing | Self::Other(_) => "check the disk",
        }
    }
}

/// Why a call to a log failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bounds contradict each other.
    #[error(
        "a log of {max} bytes has no room for messages of {message} bytes: messages have at most 16777215 bytes, and \
         the log needs {least}"
    )]
    Settings {
        /// The longest message.
        message: usize,
        /// The bytes of the log.
        max: u64,
        /// The bytes that such messages need.
        least: u64,
    },
    /// A later version wrote the log.
    #[error(
        "{file} has version {found} of the log, and this program reads {known}: run the newer program, or give this one \
         another folder"
    )]
    Newer {
        /// The segment.
        file: String,
        /// The version of the segment.
        found: u32,
        /// The latest version that this program knows.
        known: u32,
    },
    /// The log has all the bytes that it may have.
    #[error("the log is full with {held} of {max} bytes: raise its bound, or find out why the sink accepts nothing")]
    Full {
        /// The bytes of the log's files.
        held: u64,
        /// The bound of the log.
        max: u64,
    },
    /// A message, or its source, is over the bound.
    #[error("a message of {bytes} bytes from a source of {source_bytes} is too long: at most {max} and 255")]
    TooLong {
        /// The length of the message.
        bytes: usize,
        /// The length of the message's source.
        source_bytes: usize,
        /// The bound of the log.
        max: usize,
    },
    /// A batch does not fit into one segment.
    #[error("a batch of {bytes} bytes is longer than a segment of {max}: append fewer messages at once")]
    Batch {
        /// The bytes of the batch with its headers.
        bytes: u64,
        /// The room in an empty segment.
        max: u64,
    },
    /// The folder failed.
    #[error("cannot {doing} {file}: {why}; {}", .why.remedy())]
    File {
        /// The operation that failed.
        doing: &'static str,
        /// The file, or the folder.
        file: String,
        /// Why the operation failed.
        why: FileError,
    },
}

impl Error {
    /// Whether the disk has no space.
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::File { why: FileError::NoSpace, .. })
    }
}

/// A report to the caller, beside the result of its call. Messages are identified by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// These messages are on the disk. Their senders may get an answer.
    Synced {
        /// The messages.
        messages: Range<u64>,
    },
    /// These messages may never get to the disk: do not acknowledge them. They are delivered as long
    /// as they can be read.
    SyncFailed {
        /// The messages.
        messages: Range<u64>,
        /// The error of the system.
        why: FileError,
    },
    /// These messages gave way to a bound before they were acknowledged.
    Dropped {
        /// The messages.
        messages: Range<u64>,
        /// The bound.
        why: Why,
    },
    /// These messages cannot be read: damaged, or gone with their file. They are skipped, and reported
    /// again if they are read again.
    Lost {
        /// The messages.
        messages: Range<u64>,
    },
    /// The end of the newest segment is not a message: cut off by a crash before it was synced, or damaged since.
    /// Damage with messages behind it is reported as [`Reported::Lost`] instead, when the log is read.
    Cut {
        /// The segment.
        file: String,
        /// The bytes that are not read.
        bytes: u64,
    },
    /// A damaged segment is kept under this name until the next one, or until its space is needed.
    Quarantined {
        /// The file.
        file: String,
    },
    /// The cursor is damaged, or there is none though earlier messages are gone. Delivery starts at
    /// the oldest message that is left, so messages may come twice.
    CursorLost,
}

/// The bound that messages gave way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The bytes of the log.
    Full,
    /// The disk, which is full though the log is not.
    NoSpace,
    /// The age of messages.
    Age,
    /// The sink will never take them, and no dead letters are kept, or none of this length, or the disk is full.
    Dead,
}

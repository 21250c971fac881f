//! Errors of a store.

use durable_core::Error;
use durable_core::keeper::{NotKept, NotSynced};

/// Why a call to the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store was closed.
    #[error("the store is closed: open it again")]
    Stopped,
    /// The log refused or failed.
    #[error(transparent)]
    Log(#[from] Error),
    /// Messages may never get to the disk.
    #[error(transparent)]
    NotSynced(#[from] NotSynced),
    /// Too many messages wait for the log.
    #[error("messages arrive faster than the log is written: use a faster disk, or send fewer")]
    QueueFull,
    /// The server that keeps the messages has no room for more.
    #[error("{0}")]
    Full(String),
    /// The server that keeps the messages refused or failed.
    #[error("{0}")]
    Server(String),
    /// There is no thread for the store.
    #[error("cannot start the thread of a store: {0}; raise the limit of threads")]
    Thread(String),
}

impl StoreError {
    /// Whether the log or its server has no room, and nothing else is wrong. A full disk fails: its log has room.
    pub(crate) const fn is_full(&self) -> bool {
        matches!(self, Self::Log(Error::Full { .. }) | Self::QueueFull | Self::Full(_))
    }
}

impl From<NotKept> for StoreError {
    fn from(why: NotKept) -> Self {
        match why {
            NotKept::Refused(error) => Self::Log(error),
            NotKept::NotSynced(error) => Self::NotSynced(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use durable_core::FileError;

    use super::*;

    #[test]
    fn a_store_without_room_is_full_and_one_that_fails_is_not() {
        let file = |why| StoreError::Log(Error::File { doing: "append to", file: "f".to_owned(), why });
        let full = StoreError::Log(Error::Full { held: 1, max: 1 });
        for error in [full, StoreError::Full("no room".to_owned()), StoreError::QueueFull] {
            assert!(error.is_full(), "{error}");
        }
        let not_synced = StoreError::NotSynced(NotSynced(FileError::NoSpace));
        let (missing, no_space) = (file(FileError::Missing), file(FileError::NoSpace));
        let gone = StoreError::Server("gone".to_owned());
        for error in [StoreError::Stopped, missing, no_space, gone, not_synced] {
            assert!(!error.is_full(), "{error}");
        }
    }
}

//! The lock of a folder, which one process uses at a time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;

use super::home::Home;
use super::{FolderError, failed};

/// The file that is locked. It stays, as its removal would let two processes lock two files.
const NAME: &str = "LOCK";

/// The right to use a folder, until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub(super) struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Takes the right to use the folder.
    pub(super) fn take(directory: &OwnedFd, path: &Path) -> Result<Self, FolderError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("lock", path)(io::Error::from(error)))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(Errno::WOULDBLOCK) => Err(FolderError::Locked(path.to_owned())),
            Err(error) => Err(failed("lock", path)(io::Error::from(error))),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread starts at this moment has a copy of the descriptor
        // until it runs its program, and a lock lasts as long as its last copy.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Tells whether a folder was removed or moved while it is in use. This does not keep the folder from others.
#[derive(Debug)]
pub struct Presence {
    /// The lock's file, opened once more: a copy of the lock's descriptor would hold the lock, too.
    file: OwnedFd,
    home: Arc<Home>,
}

impl Presence {
    pub(super) fn of(directory: &OwnedFd, home: Arc<Home>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { file: openat(directory, NAME, flags, Mode::empty())?, home })
    }

    /// Whether somebody has removed the folder, or the file that is locked, or has moved or replaced the folder.
    pub fn is_removed(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0) || self.home.is_left()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::open;

    use super::*;

    #[test]
    fn a_folder_is_free_at_once_though_a_process_that_starts_has_a_copy_of_the_lock() {
        let home = tempfile::tempdir().expect("a folder");
        let directory = open(home.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there");
        let lock = Lock::take(&directory, home.path()).expect("nobody has it");
        assert!(matches!(Lock::take(&directory, home.path()), Err(FolderError::Locked(_))));
        let _copy = lock.file.try_clone().expect("a descriptor");
        drop(lock);
        Lock::take(&directory, home.path()).expect("it is free");
    }
}

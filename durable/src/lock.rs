//! One process uses a folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;

use crate::folder::{FolderError, failed};

/// The file that is locked. It stays, as its removal would let two processes lock two files.
const NAME: &str = "LOCK";

/// The right to use a folder, until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Takes the right, or says who cannot have it.
    pub(crate) fn take(directory: &OwnedFd, path: &Path) -> Result<Self, FolderError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("lock", path)(io::Error::from(error)))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(FolderError::Locked(path.to_owned())),
            Err(error) => Err(failed("lock", path)(io::Error::from(error))),
        }
    }
}

/// Tells whether a folder was removed while it is in use. It does not keep the folder from others.
#[derive(Debug)]
pub struct Presence {
    /// Opened once more: what is opened with the lock has it, too.
    file: OwnedFd,
}

impl Presence {
    pub(crate) fn of(directory: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { file: openat(directory, NAME, flags, Mode::empty())? })
    }

    /// Whether somebody has removed the folder, or the file that is locked. A folder that was moved is still there.
    pub fn is_removed(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }
}

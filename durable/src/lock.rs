//! One process uses a folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
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

//! Where a folder is that is in use.

use std::fs::{File, Metadata, metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path of a folder, and the identity of the folder that was opened there.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// The device and the inode. No other folder has both while this one is open.
    identity: (u64, u64),
}

impl Home {
    pub(super) fn of(directory: &OwnedFd, path: &Path) -> io::Result<Self> {
        let opened = File::from(directory.try_clone()?).metadata()?;
        Ok(Self { path: path.to_owned(), identity: identity(&opened) })
    }

    /// Whether the path leads to another folder by now, or to none. Errors that leave this open do not count.
    pub(super) fn is_left(&self) -> bool {
        match metadata(&self.path) {
            Ok(found) => identity(&found) != self.identity,
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }
}

fn identity(folder: &Metadata) -> (u64, u64) {
    (folder.dev(), folder.ino())
}

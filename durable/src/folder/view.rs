//! A read-only view of a folder that another process may use meanwhile.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use durable_core::{FileError, Files};
use rustix::fs::{Mode, OFlags, openat};

use super::{FolderError, file_error, list, open_directory};

/// One folder that is only read: it is not locked, so another process may use it meanwhile. A log can be opened in it,
/// as calls that would change the folder succeed and have no effect. A file that is removed meanwhile is read as one
/// that has no more bytes.
#[derive(Debug)]
pub struct FolderView {
    directory: OwnedFd,
    /// The file that was read last.
    open: Option<(String, File)>,
}

impl FolderView {
    /// Opens a folder, which is not made if it is not there.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Ok(Self { directory: open_directory(path)?, open: None })
    }

    /// The file of this name, opened now if it is another one than the last.
    fn file(&mut self, name: &str) -> Result<&File, FileError> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&self.directory, name, flags, Mode::empty()).map_err(file_error)?;
            self.open = Some((name.to_owned(), File::from(file)));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or(FileError::Missing)
    }
}

impl Files for FolderView {
    fn create(&mut self, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn append(&mut self, _: &str, _: &[u8]) -> Result<(), FileError> {
        Ok(())
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        match self.file(name) {
            Ok(file) => file.read_at(into, offset).map_err(file_error),
            Err(FileError::Missing) => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn sync(&mut self, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn sync_folder(&mut self) -> Result<(), FileError> {
        Ok(())
    }

    fn rename(&mut self, _: &str, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn remove(&mut self, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        list(&self.directory)
    }
}

//! Follows a file: rename-over, in-place writes, and the symlink swap of a mounted `ConfigMap`.
//!
//! The file is polled ten times a second. Watch events would be a fraction of a second faster, but miss changes on
//! network and some container file systems.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Polling interval.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Identifies one state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Device, inode and ctime; ctime also changes with permissions.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Stamp {
    /// Reads the state of a file; follows symlinks.
    ///
    /// # Errors
    /// See `stat(2)`.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::and_kind(path)?.0)
    }

    /// Reads the state of a file, and whether it is a regular file.
    fn and_kind(path: &Path) -> io::Result<(Self, bool)> {
        let metadata = fs::metadata(path)?;
        let stamp = Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt;
                (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
            },
        };
        Ok((stamp, metadata.is_file()))
    }
}

/// A file and the state in which it was last read.
#[derive(Debug)]
pub struct Followed {
    path: PathBuf,
    /// State when last read.
    seen: Option<Stamp>,
    /// State at the last poll.
    last: Option<Stamp>,
    /// Whether the content counts as changed, whatever the state.
    is_asked: bool,
}

impl Followed {
    /// Follows a file that has not been read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None, last: None, is_asked: false }
    }

    /// Makes the content count as changed, so that it is read again, once it is complete, as after any change.
    pub fn read_again(&mut self) {
        self.is_asked = self.seen.is_some();
    }

    /// Returns the content, if it changed since it was last read. After the first read, a change counts only once two
    /// polls see the same state, so that a half-written file is never taken for a complete one.
    ///
    /// # Errors
    /// `NotFound` while the file is missing; other errors if it exists but cannot be read.
    pub fn changed(&mut self, most_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let (stamp, is_file) = Stamp::and_kind(&self.path)?;
        if self.seen == Some(stamp) && !self.is_asked {
            return Ok(None);
        }
        if !is_file {
            // Opening a pipe would block until a writer opens it.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let settled = self.last.replace(stamp) == Some(stamp);
        if self.seen.is_some() && !settled {
            return Ok(None);
        }
        if stamp.length > most_bytes as u64 {
            (self.seen, self.is_asked) = (Some(stamp), false);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most_bytes} bytes")));
        }
        // One byte more, so that the end is found without growing the buffer.
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.length).unwrap_or(0).saturating_add(1));
        fs::File::open(&self.path)?.take(most_bytes as u64 + 1).read_to_end(&mut bytes)?;
        (self.seen, self.is_asked) = (Some(stamp), false);
        if bytes.len() > most_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most_bytes} bytes")));
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_a_write_a_rename_over_and_a_symlink_swap_once_each() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("one"), "1").expect("write");
        std::os::unix::fs::symlink("one", path("link")).expect("link");
        let mut followed = Followed::new(path("link"));
        let mut changed = || followed.changed(100).expect("readable");
        assert_eq!((changed(), changed()), (Some(b"1".to_vec()), None), "first read is immediate");
        let mut settled = || (changed(), changed(), changed());
        fs::write(path("one"), "22").expect("write");
        assert_eq!(settled(), (None, Some(b"22".to_vec()), None), "later reads wait until the file is stable");
        fs::write(path("new"), "33").expect("write");
        fs::rename(path("new"), path("one")).expect("rename");
        assert_eq!(settled(), (None, Some(b"33".to_vec()), None));
        fs::write(path("two"), "44").expect("write");
        std::os::unix::fs::symlink("two", path("next")).expect("link");
        fs::rename(path("next"), path("link")).expect("swap");
        assert_eq!(settled(), (None, Some(b"44".to_vec()), None));
        fs::remove_file(path("link")).expect("remove");
        std::os::unix::fs::symlink("/dev/null", path("link")).expect("link");
        let error = followed.changed(100).expect_err("a device");
        assert_eq!(error.to_string(), "not a regular file", "what else to do, only the program knows");
        fs::remove_file(path("link")).expect("remove");
        assert_eq!(followed.changed(100).expect_err("missing").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_is_to_be_read_again_while_it_is_written_is_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("one");
        fs::write(&path, "1").expect("write");
        let mut followed = Followed::new(path.clone());
        followed.read_again();
        assert_eq!(followed.changed(100).expect("readable"), Some(b"1".to_vec()), "the first read is immediate");
        fs::write(&path, "hal").expect("write");
        followed.read_again();
        assert_eq!(followed.changed(100).expect("readable"), None, "half");
        fs::write(&path, "whole").expect("write");
        let mut settled = || [(); 3].map(|()| followed.changed(100).expect("readable"));
        assert_eq!(settled(), [None, Some(b"whole".to_vec()), None]);
        followed.read_again();
        assert_eq!(followed.changed(100).expect("readable"), Some(b"whole".to_vec()), "it has not changed since");
        assert_eq!(followed.changed(100).expect("readable"), None, "once");
    }
}

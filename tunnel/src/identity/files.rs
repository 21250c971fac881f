//! Files that other users can neither read nor replace. A file is written whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The largest file of keys and certificates, in bytes.
pub(super) const PEM: u64 = 64 << 10;

/// Why a file or a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// An error of the system.
    #[error("cannot {action} {}: check that the path is right and that this user owns it", .path.display())]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The disk is full.
    #[error("cannot write {}, as the disk is full: free space there, and nothing is lost", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The folder was removed while the program used it.
    #[error(
        "the folder {} is gone: restore it, or start this program again, which makes a new one with another identity",
        .0.display()
    )]
    Gone(PathBuf),
    /// Other users may read a file, or replace the files of a folder.
    #[error(
        "other users can access {}, where secrets are kept: run chmod {mode} {}",
        .path.display(),
        .path.display()
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// The mode that it should have.
        mode: &'static str,
    },
    /// The file is larger than this program writes.
    #[error("{} is larger than {} KiB, which no file of a tunnel is: check the path", .path.display(), .most / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes that it may have.
        most: u64,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { action, path: path.to_owned(), source }
}

/// Why a file in an existing folder was not written.
fn unwritten(path: &Path, parent: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FileError::Full { path: path.to_owned(), source },
        ErrorKind::NotFound => FileError::Gone(parent.to_owned()),
        _ => failed("write", path)(source),
    }
}

/// Creates a folder with mode 0700, or checks that nobody else may write into an existing one.
pub(super) fn folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
    let mode = fs::metadata(path).map_err(failed("read", path))?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode: "700" });
    }
    Ok(())
}

/// Opens a file of a folder that is only there to be locked, and returns it with its path.
pub(super) fn open_to_lock(folder: &Path, name: &str) -> Result<(File, PathBuf), FileError> {
    let path = folder.join(name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    Ok((file.map_err(failed("lock", &path))?, path))
}

/// The error of a file that cannot be locked.
pub(super) fn not_locked(path: &Path, error: io::Error) -> FileError {
    failed("lock", path)(error)
}

/// Reads a file of at most this many bytes that nobody else may read. Absent if it does not exist.
pub(super) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    if file.metadata().map_err(failed("read", path))?.permissions().mode() & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode: "600" });
    }
    let mut bytes = Vec::new();
    let length = file.take(most + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if u64::try_from(length).is_ok_and(|length| length <= most) {
        Ok(Some(bytes))
    } else {
        Err(FileError::TooLarge { path: path.to_owned(), most })
    }
}

/// Writes a file with mode 0600 beside `path`, and renames it. After an error, the old file is unchanged.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = written(&beside, bytes) {
        // The partial file would keep a full disk full. Only the first error is reported.
        let _ = fs::remove_file(&beside);
        return Err(unwritten(&beside, parent)(error));
    }
    fs::rename(&beside, path).map_err(unwritten(path, parent))?;
    // After a power failure, a certificate must not remain without its key.
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("write", parent))
}

fn written(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover file may have another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn folders_and_files_are_private_and_replaced_whole() {
        let temporary = tempfile::tempdir().expect("a folder");
        let path = temporary.path().join("state");
        folder(&path).expect("made");
        folder(&path).expect("used again");
        assert_eq!(mode(&path), 0o700);
        let file = path.join("key.pem");
        assert!(read(&file, PEM).expect("readable").is_none());
        fs::write(path.join("key.pem.new"), "left behind").expect("written");
        set_mode(&path.join("key.pem.new"), 0o644);
        write(&file, b"one").expect("written");
        write(&file, b"two").expect("written");
        assert_eq!((read(&file, PEM).expect("readable").expect("there"), mode(&file)), (b"two".to_vec(), 0o600));
        assert_eq!(fs::read_dir(&path).expect("entries").count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_others_can_access_is_refused_and_the_error_says_chmod() {
        let temporary = tempfile::tempdir().expect("a folder");
        let path = temporary.path().join("state");
        folder(&path).expect("made");
        let file = path.join("key.pem");
        write(&file, b"key").expect("written");
        for exposed in [0o640, 0o604, 0o620] {
            set_mode(&file, exposed);
            let error = read(&file, PEM).expect_err("exposed").to_string();
            assert!(error.contains("chmod 600") && error.contains("key.pem"), "{error}");
        }
        set_mode(&path, 0o770);
        let error = folder(&path).expect_err("exposed").to_string();
        assert!(error.contains("chmod 700"), "{error}");
        set_mode(&path, 0o755);
        folder(&path).expect("others may list the folder");
    }

    #[test]
    fn a_full_disk_and_a_folder_that_is_gone_have_remedies_of_their_own() {
        let temporary = tempfile::tempdir().expect("a folder");
        let path = temporary.path().join("state");
        let file = path.join("key.pem");
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = unwritten(&file, &path)(kind.into()).to_string();
            assert!(error.contains("key.pem, as the disk is full: free space there"), "{error}");
        }
        let error = write(&file, b"key").expect_err("no folder").to_string();
        assert!(error.contains("state is gone: restore it, or start this program again"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_and_nothing_is_left_beside_it() {
        let temporary = tempfile::tempdir().expect("a folder");
        let file = temporary.path().join("key.pem");
        write(&file, b"one").expect("written");
        fs::create_dir(temporary.path().join("key.pem.new")).expect("made");
        write(&file, b"two").expect_err("a folder is in the way");
        assert_eq!(fs::read(&file).expect("there"), b"one");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let temporary = tempfile::tempdir().expect("a folder");
        let file = temporary.path().join("key.pem");
        write(&file, &[0; 1025]).expect("written");
        let error = read(&file, 1024).expect_err("too large").to_string();
        assert!(error.contains("key.pem is larger than 1 KiB"), "{error}");
        assert!(read(&file, 1025).is_ok());
    }
}

//! The folder of a log on the file system.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable_core::{FileError, Files};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, fsync, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use self::home::Home;
use self::lock::Lock;
pub use self::lock::Presence;
pub use self::view::FolderView;

mod home;
mod lock;
mod view;

/// The most files that stay open between two calls: those that are written, and one for each reader.
const OPEN: usize = 8;
/// Bytes of a file after which the system begins to write them.
const WRITE_BACK_BYTES: u64 = 256 * 1024;
/// Bytes of the system's smallest page.
const PAGE: u64 = 4096;

/// Has the system begin to write the first bytes of a file to the disk, as many as the number says, without waiting for
/// them. After an error bytes may be lost, as after that of a sync.
pub type WriteBack = fn(&File, u64) -> io::Result<()>;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// An error of the system.
    #[error("cannot {doing} the folder {}: check that the path is right and that this user owns it", .path.display())]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The folder.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error("another process keeps messages in {}: stop it, or give this one another folder", .0.display())]
    Locked(PathBuf),
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { doing, path: path.to_owned(), source }
}

/// One folder, which no other process uses meanwhile. Files are named within the folder that was opened,
/// wherever it is moved; a link in it is never followed.
#[derive(Debug)]
pub struct Folder {
    directory: OwnedFd,
    home: Arc<Home>,
    /// Open files, in order of their last use.
    open: Vec<Open>,
    lock: Arc<Lock>,
    write_back: Option<WriteBack>,
}

/// An open file.
#[derive(Debug)]
struct Open {
    name: String,
    file: File,
    /// Whether bytes were written that no sync was called for.
    is_unsynced: bool,
    /// Bytes since the system began to write, or a sync.
    unwritten: u64,
    /// Why the system could not write bytes that no sync was called for.
    failed: Option<FileError>,
}

impl Open {
    /// Has the system begin to write the file. Returns whether the system can.
    fn begin_write_back(&mut self, begin: WriteBack) -> bool {
        self.unwritten = 0;
        // The last page gets more bytes, and would be written twice.
        let result = self.file.stream_position().and_then(|end| begin(&self.file, end - end % PAGE));
        match result {
            Ok(()) => true,
            Err(error) if is_missing_call(&error) => false,
            Err(error) => {
                self.failed.get_or_insert_with(|| file_error(error));
                true
            }
        }
    }
}

impl Folder {
    /// Opens a folder, which is made with mode 0700 if it is not there, and locks it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        make(path).map_err(failed("create", path))?;
        let directory = open_directory(path)?;
        let home = Home::of(&directory, path).map_err(failed("open", path))?;
        let lock = Lock::take(&directory, path)?;
        Ok(Self { directory, home: Arc::new(home), open: Vec::new(), lock: Arc::new(lock), write_back: None })
    }

    /// Has the system write the bytes of a file while more are appended, so that a sync waits for fewer.
    #[must_use]
    pub fn writing_back(self, begin: WriteBack) -> Self {
        Self { write_back: Some(begin), ..self }
    }

    /// The same folder for another log of this process. Others may have it once all of them are dropped.
    pub fn again(&self) -> io::Result<Self> {
        let (directory, home, lock) = (self.directory.try_clone()?, self.home.clone(), self.lock.clone());
        Ok(Self { directory, home, open: Vec::new(), lock, write_back: self.write_back })
    }

    /// A handle that tells whether the folder was removed or moved, also once this one is in other hands.
    pub fn presence(&self) -> io::Result<Presence> {
        Presence::of(&self.directory, self.home.clone())
    }

    /// The open file of this name, opened now if need be.
    fn file(&mut self, name: &str) -> Result<&mut Open, FileError> {
        if let Some(at) = self.open.iter().position(|open| open.name == name) {
            let open = self.open.remove(at);
            self.open.push(open);
        } else {
            let file = self.open_file(name, OFlags::empty())?;
            self.keep(name, file);
        }
        self.open.last_mut().ok_or(FileError::Missing)
    }

    fn open_file(&self, name: &str, more: OFlags) -> Result<File, FileError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR).map(File::from).map_err(file_error)
    }

    fn keep(&mut self, name: &str, file: File) {
        if self.open.len() >= OPEN {
            // A file that waits for its sync stays open: the system reports a failed write to those who had the file
            // open.
            let at = self.open.iter().position(|open| !open.is_unsynced).unwrap_or(0);
            self.open.remove(at);
        }
        self.open.push(Open { name: name.to_owned(), file, is_unsynced: false, unwritten: 0, failed: None });
    }

    /// Closes a file, whose name will not be its own.
    fn close(&mut self, name: &str) {
        self.open.retain(|open| open.name != name);
    }
}

impl Files for Folder {
    fn create(&mut self, name: &str) -> Result<(), FileError> {
        let file = self.open_file(name, OFlags::CREATE | OFlags::EXCL)?;
        self.close(name);
        self.keep(name, file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let write_back = self.write_back;
        let open = self.file(name)?;
        open.is_unsynced = true;
        open.file.write_all(bytes).map_err(file_error)?;
        open.unwritten += bytes.len() as u64;
        if open.unwritten >= WRITE_BACK_BYTES
            && let Some(begin) = write_back
            && !open.begin_write_back(begin)
        {
            self.write_back = None;
        }
        Ok(())
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        self.file(name)?.file.read_at(into, offset).map_err(file_error)
    }

    fn sync(&mut self, name: &str) -> Result<(), FileError> {
        let open = self.file(name)?;
        (open.is_unsynced, open.unwritten) = (false, 0);
        let failed = open.failed.take();
        // The length is synced with the bytes; times are not.
        open.file.sync_data().map_err(file_error)?;
        if let Some(why) = failed {
            return Err(why);
        }
        let links = fstat(&open.file).map_err(file_error)?.st_nlink;
        // A file without a name is gone with this process, and one in a folder that was moved is not found by the next.
        if links == 0 || self.home.is_left() { Err(FileError::Missing) } else { Ok(()) }
    }

    fn sync_folder(&mut self) -> Result<(), FileError> {
        fsync(&self.directory).map_err(file_error)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        self.close(from);
        self.close(to);
        renameat(&self.directory, from, &self.directory, to).map_err(file_error)
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        // The file is closed before its removal, as an open file keeps its space.
        self.close(name);
        unlinkat(&self.directory, name, AtFlags::empty()).map_err(file_error)
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        list(&self.directory)
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, FolderError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|error| failed("open", path)(io::Error::from(error)))
}

/// Names and lengths of the files in a folder.
fn list(directory: &OwnedFd) -> Result<Vec<(String, u64)>, FileError> {
    let mut files = Vec::new();
    for entry in Dir::read_from(directory).map_err(file_error)? {
        let entry = entry.map_err(file_error)?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(file_error(error)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            files.push((name.to_owned(), u64::try_from(stat.st_size).unwrap_or(0)));
        }
    }
    Ok(files)
}

/// Creates the folder, and those above it that are missing, and syncs their names.
fn make(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    match builder.create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // A process that was killed may have created the folder and not synced its name. A folder that is mounted
            // here may be below one that this user cannot open.
            let _ = File::open(above).and_then(|above| above.sync_all());
            return Ok(());
        }
        Err(error) if error.kind() == ErrorKind::NotFound && above != path => {
            make(above)?;
            match builder.create(path) {
                // Another log has created the folder meanwhile.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        Err(error) => return Err(error),
    }
    File::open(above)?.sync_all()
}

/// Whether a system, its file system or a rule of its administrator has no such call.
fn is_missing_call(error: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, NotSeekable, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | NotSeekable | PermissionDenied | Unsupported)
}

fn file_error(error: impl Into<io::Error>) -> FileError {
    let error = error.into();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FileError::NoSpace,
        ErrorKind::NotFound => FileError::Missing,
        _ => FileError::Other(error.to_string()),
    }
}

//! The memory limit of the process, and the use of its memory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::core::limits::{cgroup, memory_use::MemoryUse};

/// The file that tells what the process has allocated.
const STATUS: &str = "/proc/self/status";
/// Most bytes of a file that are read. What the process needs comes before.
const MOST_BYTES: usize = 8 << 10;

/// The memory limit of the process's control groups in bytes; `None` without a limit. It may change while the process
/// runs: Kubernetes resizes pods in place.
///
/// # Errors
/// The limit cannot be read, as on systems without control groups.
pub(crate) fn limit() -> io::Result<Option<u64>> {
    Ok(cgroup::lowest(limits()?.iter().map(|(_, content)| content.as_str())))
}

/// The control group whose memory limits the process; `None` without a limit, and with version 1.
///
/// # Errors
/// See [`limit`].
pub(crate) fn group() -> io::Result<Option<Group>> {
    let limits = limits()?;
    let tightest = cgroup::tightest(limits.iter().map(|(file, content)| (file.as_str(), content.as_str())));
    tightest.map(|(folder, limit)| Group::open(Path::new(folder), Path::new(STATUS), limit)).transpose()
}

/// The files that hold a memory limit of the process, and their contents.
fn limits() -> io::Result<Vec<(String, String)>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let limits = contents(cgroup::memory_files(&groups))?;
    if limits.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(limits) }
}

/// Those of the files that the process may read, and their contents. One that cannot be read now, as while files are
/// used up, may hold the lowest limit, so it is not skipped.
fn contents(files: Vec<String>) -> io::Result<Vec<(String, String)>> {
    let read = |file: String| match fs::read_to_string(&file) {
        Ok(content) => Some(Ok((file, content))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => None,
        Err(error) => Some(Err(error)),
    };
    files.into_iter().filter_map(read).collect()
}

/// A control group of version 2 with a memory limit. Its files stay open, so that they can be read even when files are
/// used up.
#[derive(Debug)]
pub(crate) struct Group {
    limit: u64,
    current: File,
    stat: File,
    /// `/proc/self/status`.
    status: File,
}

impl Group {
    /// Opens the group in `folder`, which has this limit in bytes. `status`: the file that tells what the process has
    /// allocated.
    ///
    /// # Errors
    /// A file is missing or cannot be opened.
    pub(crate) fn open(folder: &Path, status: &Path, limit: u64) -> io::Result<Self> {
        let open = |name| File::open(folder.join(name));
        let (current, stat) = (open("memory.current")?, open("memory.stat")?);
        Ok(Self { limit, current, stat, status: File::open(status)? })
    }

    /// The memory in use, with the buffers of sockets. What the system takes back does not count, and what other
    /// programs have allocated is neither in use nor part of the limit. Both are looked at only if memory may not be
    /// enough: each only lowers the part of the limit that is in use.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn memory(&self) -> io::Result<MemoryUse> {
        let current = text(&self.current)?.trim().parse::<u64>();
        let used = current.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let all = MemoryUse { used, limit: self.limit };
        if all.is_enough() {
            return Ok(all);
        }
        let stat = text(&self.stat)?;
        let others = cgroup::allocated_by_others(&stat, &text(&self.status)?);
        let uncounted = cgroup::reclaimable(&stat).saturating_add(others);
        Ok(MemoryUse { used: used.saturating_sub(uncounted), limit: self.limit.saturating_sub(others) })
    }
}

/// The text of a file from its beginning. The system makes it anew for each such read.
fn text(file: &File) -> io::Result<String> {
    let mut bytes = [0; MOST_BYTES];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_look_at_a_group_reads_what_is_in_use_now() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
        write("memory.current", format!("{}\n", 100 * MIB));
        write("memory.stat", format!("anon {}\n", 100 * MIB));
        write("status", format!("RssAnon:\t{} kB\n", 100 << 10));
        let group = Group::open(folder.path(), &folder.path().join("status"), 100 * MIB).expect("a group");
        let used = || group.memory().map(|memory| memory.used / MIB);
        assert_eq!(used().expect("read"), 100);
        let files = format!("active_file {}\ninactive_file {}\n", 10 * MIB, 15 * MIB);
        write("memory.stat", format!("sock {}\n{files}slab_reclaimable {}\n", 70 * MIB, 5 * MIB));
        assert_eq!(used().expect("read"), 70, "what the system takes back does not count");
        write("memory.current", format!("{}\n", 75 * MIB));
        assert_eq!(used().expect("read"), 75, "enough, with all of it");
        write("memory.current", "nonsense".to_owned());
        used().expect_err("not a number");
    }

    #[test]
    fn what_other_programs_have_allocated_is_neither_in_use_nor_part_of_the_limit() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
        write("memory.current", format!("{}\n", 95 * MIB));
        write("memory.stat", format!("anon {}\nsock {}\nactive_file {MIB}\n", 65 * MIB, 29 * MIB));
        write("status", format!("RssAnon:\t{:8} kB\n", 5 << 10));
        let group = Group::open(folder.path(), &folder.path().join("status"), 100 * MIB).expect("a group");
        assert_eq!(group.memory().expect("read"), MemoryUse { used: 34 * MIB, limit: 40 * MIB });
        write("status", format!("RssAnon:\t{:8} kB\n", 65 << 10));
        assert_eq!(group.memory().expect("read"), MemoryUse { used: 94 * MIB, limit: 100 * MIB }, "all of it is own");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_status_of_a_process_tells_what_it_has_allocated() {
        let status = fs::read_to_string(STATUS).expect("a status");
        let all = cgroup::allocated_by_others("anon 18446744073709551615\n", &status);
        assert!(all > 0 && all < u64::MAX, "{status}");
    }

    #[test]
    fn a_folder_without_the_files_is_no_group() {
        let folder = tempfile::tempdir().expect("folder");
        let status = folder.path().join("status");
        fs::write(&status, "").expect("a file");
        Group::open(folder.path(), &status, MIB).expect_err("no files");
    }

    #[test]
    fn a_limit_that_is_missing_is_skipped_and_one_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("memory.max"), "7\n").expect("a file");
        let read = contents(vec![path("missing"), path("memory.max")]).expect("the one that exists");
        assert_eq!(read, [(path("memory.max"), "7\n".to_owned())]);
        // A folder can be opened, but not read as a file.
        contents(vec![path("memory.max"), path("")]).expect_err("it exists");
    }
}

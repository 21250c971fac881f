//! The memory limit of the process, and the use of its memory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::core::limits::{cgroup, memory_use::MemoryUse};

/// Most bytes of a file that are read. The system writes no more than a page.
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
    tightest.map(|(folder, limit)| Group::open(Path::new(folder), limit)).transpose()
}

/// The files that hold a memory limit of the process, and their contents.
fn limits() -> io::Result<Vec<(String, String)>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let read = |file: String| fs::read_to_string(&file).ok().map(|content| (file, content));
    let limits: Vec<_> = cgroup::memory_files(&groups).into_iter().filter_map(read).collect();
    if limits.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(limits) }
}

/// A control group of version 2 with a memory limit. Its files stay open, so that they can be read even when files are
/// used up.
#[derive(Debug)]
pub(crate) struct Group {
    limit: u64,
    current: File,
    stat: File,
}

impl Group {
    /// Opens the group in `folder`, which has this limit in bytes.
    ///
    /// # Errors
    /// A file is missing or cannot be opened.
    pub(crate) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let open = |name| File::open(folder.join(name));
        Ok(Self { limit, current: open("memory.current")?, stat: open("memory.stat")? })
    }

    /// The memory in use, with the buffers of sockets. Page cache does not count, but is looked at only if the rest may
    /// not be enough.
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
        Ok(MemoryUse { used: used.saturating_sub(cgroup::page_cache(&text(&self.stat)?)), ..all })
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
        let group = Group::open(folder.path(), 100 * MIB).expect("a group");
        let used = || group.memory().map(|memory| memory.used / MIB);
        assert_eq!(used().expect("read"), 100);
        write("memory.stat", format!("sock {}\nactive_file {}\ninactive_file {}\n", 70 * MIB, 10 * MIB, 20 * MIB));
        assert_eq!(used().expect("read"), 70, "page cache does not count");
        write("memory.current", format!("{}\n", 75 * MIB));
        assert_eq!(used().expect("read"), 75, "enough, with page cache");
        write("memory.current", "nonsense".to_owned());
        used().expect_err("not a number");
    }

    #[test]
    fn a_folder_without_the_files_is_no_group() {
        let folder = tempfile::tempdir().expect("folder");
        Group::open(folder.path(), MIB).expect_err("no files");
    }
}

//! The memory limit of a control group, version 1 or 2.

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Limits from here on mean no limit: version 1 writes the largest number of pages.
const UNLIMITED: u64 = 1 << 60;

/// The files that may hold a memory limit of the process, given the text of `/proc/self/cgroup`. The limits of all
/// ancestor groups apply, too. In a container, the process may see only its own group, at the mount point, whatever the
/// path is, so files of the list may be missing.
#[must_use]
pub fn memory_files(groups: &str) -> Vec<String> {
    groups.lines().filter_map(files_of).flatten().collect()
}

fn files_of(line: &str) -> Option<Vec<String>> {
    let mut parts = line.splitn(3, ':');
    let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (mount, file) = if id == "0" && controllers.is_empty() {
        (MOUNT.to_owned(), "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (format!("{MOUNT}/memory"), "memory.limit_in_bytes")
    } else {
        return None;
    };
    let mut files = vec![format!("{mount}/{file}")];
    let mut group = mount;
    // The path of a group outside of the process's namespace leads out of the mount point.
    let names = path.split('/').filter(|name| !name.is_empty()).take_while(|name| *name != "..");
    for name in names {
        group = format!("{group}/{name}");
        files.push(format!("{group}/{file}"));
    }
    Some(files)
}

/// The lowest limit in these files, in bytes; `None` without a limit.
#[must_use]
pub fn lowest<'a>(contents: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    let limits = contents.into_iter().filter_map(|content| content.trim().parse::<u64>().ok());
    limits.filter(|limit| *limit < UNLIMITED).min()
}

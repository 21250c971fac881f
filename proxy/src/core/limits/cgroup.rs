//! The memory limit of a control group, version 1 or 2, and the use of that memory in version 2.

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Limits from here on mean no limit: version 1 writes the largest number of pages.
const UNLIMITED: u64 = 1 << 60;
/// The file with the limit of a group of version 2.
const LIMIT: &str = "memory.max";
/// The fields of `memory.stat` with memory that the system takes back before it ends a process: page cache, and what
/// the kernel remembers of files. The memory of `tmpfs` is in none of them.
const RECLAIMED: [&str; 3] = ["inactive_file", "active_file", "slab_reclaimable"];
/// The field of `memory.stat` with the memory that programs have allocated.
const ANONYMOUS: &str = "anon";

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
        (MOUNT.to_owned(), LIMIT)
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
    contents.into_iter().filter_map(limit).min()
}

/// The folder of the group of version 2 with the lowest limit, and that limit in bytes, given files and their contents;
/// of several such groups, the first one. `None` without a limit. Version 1 counts the buffers of sockets apart from
/// the memory that it limits.
#[must_use]
pub fn tightest<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<(&'a str, u64)> {
    let group = |(file, content): (&'a str, &'a str)| {
        let folder = file.strip_suffix(LIMIT)?.strip_suffix('/')?;
        Some((folder, limit(content)?))
    };
    files.into_iter().filter_map(group).min_by_key(|(_, limit)| *limit)
}

/// Bytes that the system takes back before it ends a process, given the text of `memory.stat`.
#[must_use]
pub fn reclaimable(stat: &str) -> u64 {
    RECLAIMED.iter().filter_map(|name| field(stat, name)).fold(0, u64::saturating_add)
}

/// Bytes that other programs of the group have allocated, given the texts of its `memory.stat` and of the process's
/// `/proc/self/status`. If a text lacks its number, none are known.
#[must_use]
pub fn allocated_by_others(stat: &str, status: &str) -> u64 {
    match (field(stat, ANONYMOUS), status.lines().find_map(allocated)) {
        (Some(all), Some(own)) => all.saturating_sub(own),
        _ => 0,
    }
}

/// The value of a field of `memory.stat`.
fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Bytes that the process has allocated, if this line of `/proc/self/status` tells them.
fn allocated(line: &str) -> Option<u64> {
    let kilobytes = line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?;
    kilobytes.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

fn limit(content: &str) -> Option<u64> {
    content.trim().parse::<u64>().ok().filter(|limit| *limit < UNLIMITED)
}

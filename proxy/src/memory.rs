//! The memory limit of the process.

use std::fs;

use crate::core::cgroup;

/// The memory limit of the process's control groups in bytes; `None` without a limit, and on systems without control
/// groups.
pub(crate) fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let files = cgroup::memory_files(&groups);
    let contents: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    cgroup::lowest(contents.iter().map(String::as_str))
}

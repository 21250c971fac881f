//! The memory limit of the process.

use std::{fs, io};

use crate::core::limits::cgroup;

/// The memory limit of the process's control groups in bytes; `None` without a limit. It may change while the process
/// runs: Kubernetes resizes pods in place.
///
/// # Errors
/// The limit cannot be read, as on systems without control groups.
pub(crate) fn limit() -> io::Result<Option<u64>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let files = cgroup::memory_files(&groups);
    let contents: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    if contents.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(cgroup::lowest(contents.iter().map(String::as_str)))
}

//! The control groups of a node's Pods, the only part of a node that outlives its namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::ClusterError;

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "portlane-test-";
/// Longest death of the processes of a node.
const LAST_DEATH: Duration = Duration::from_secs(10);

/// Name of a keeper's group.
pub(super) fn name(keeper: u32) -> String {
    format!("{PREFIX}{keeper}")
}

/// Creates the group in every hierarchy (cgroup v1) or in the single one (cgroup v2).
pub(super) fn create(name: &str) -> Result<(), ClusterError> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).map_err(ClusterError::io(format!("cannot create {}", group.display())))?;
        // A cpuset without processors and memory admits no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(hierarchy.join(file)) {
                let _ = fs::write(group.join(file), all);
            }
        }
    }
    if is_v2() {
        for controller in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"] {
            // A controller that the machine lacks is refused, which does no harm.
            let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}"));
            let _ = fs::write(Path::new(ROOT).join(name).join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// Removes the groups of keepers that are gone.
pub(super) fn sweep() {
    for hierarchy in hierarchies() {
        for group in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            let name = group.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(PREFIX).is_some_and(|keeper| !is_keeper(keeper)) {
                remove(&group.path());
            }
        }
    }
}

/// Removes a group once its last process is dead: the kernel still kills processes after their namespaces have ended.
#[allow(clippy::disallowed_methods, reason = "polls")]
pub(super) fn remove_all(name: &str) {
    let deadline = Instant::now() + LAST_DEATH;
    while Instant::now() < deadline {
        let groups: Vec<PathBuf> = hierarchies().iter().map(|hierarchy| hierarchy.join(name)).collect();
        for group in &groups {
            remove(group);
        }
        if !groups.iter().any(|group| group.exists()) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_keeper(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.contains("portlane-test-cluster"))
}

fn remove(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        if below.path().is_dir() {
            remove(&below.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![PathBuf::from(ROOT)];
    }
    let folders = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    // A symbolic link is another name of a hierarchy.
    folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

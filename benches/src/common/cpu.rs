//! The CPU time of a process, from `/proc`.

use std::fs;

/// CPU seconds of a process, its threads and its children. Children that have ended are counted in clock ticks.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let nanoseconds: u64 = threads.flatten().filter_map(|thread| run_time(&thread.path().join("schedstat"))).sum();
    let living: f64 = children(pid).map(cpu_seconds).sum();
    nanoseconds as f64 / 1e9 + living + ended_children(pid)
}

fn children(pid: u32) -> impl Iterator<Item = u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>().into_iter()
}

/// The first number of `schedstat`: nanoseconds on a CPU.
pub(crate) fn run_time(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
}

fn ended_children(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may contain spaces: fields 16 and 17 of proc(5), counted from 3.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

//! The CPU time of a process, from `/proc`.

use std::{fs, ops::Range};

/// Fields of `/proc/PID/stat`: user and system time of the children that have ended.
const ENDED_CHILDREN: Range<usize> = 16..18;

/// CPU seconds of a process, its threads and its children. Children that have ended are counted in clock ticks.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let nanoseconds: u64 = threads.flatten().filter_map(|thread| run_time(&thread.path().join("schedstat"))).sum();
    let living: f64 = children(pid).map(cpu_seconds).sum();
    nanoseconds as f64 / 1e9 + living + ticked_seconds(pid, ENDED_CHILDREN)
}

/// The children that the first thread of a process has now.
pub(crate) fn children(pid: u32) -> impl Iterator<Item = u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>().into_iter()
}

/// The first number of `schedstat`: nanoseconds on a CPU.
pub(crate) fn run_time(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
}

/// The sum of fields of `/proc/PID/stat` that count in clock ticks, in seconds. Fields have the numbers of proc(5).
pub(crate) fn ticked_seconds(pid: u32, fields: Range<usize>) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat, fields) as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn ticks(stat: &str, fields: Range<usize>) -> u64 {
    // After the name, which may contain spaces, the first field has number 3.
    let all = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    all.skip(fields.start - 3).take(fields.len()).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_state_whatever_the_name_is() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 40 1 0 21 4 300 5 20 0 3 0 88 1000 200";
        assert_eq!([14..16, 16..18, 14..18].map(|fields| ticks(stat, fields)), [25, 305, 330]);
        assert_eq!(ticks("", 14..18), 0);
    }
}

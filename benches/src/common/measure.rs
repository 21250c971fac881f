//! What processes use: CPU, memory and files, from `/proc`.

use std::{
    fs,
    ops::Range,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::cpu::{cpu_seconds, ticked_seconds};

/// Fields of `/proc/PID/stat`: user and system time of the process with all threads that it has had, and of the
/// children that have ended.
const ALL: Range<usize> = 14..18;

/// CPU seconds of this process, with threads that have ended.
fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A field of `/proc/PID/status` such as `RssAnon`, in bytes. Only the process itself, not its children.
pub(crate) fn status_bytes(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kibibytes.expect("a field with a size") * 1024.0
}

/// Open files of a process.
pub(crate) fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The processes that take part: the forwarder's and the servers'. The client is this process.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    pub(crate) forwarder: Vec<u32>,
    pub(crate) servers: Vec<u32>,
}

/// CPU and time that a stretch of load took, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    pub(crate) forwarder: f64,
    /// Client, forwarder and servers.
    pub(crate) sum: f64,
}

/// Reads the usage of a stretch of load.
pub(crate) struct Meter<'a> {
    processes: &'a Processes,
    began: Instant,
    forwarder: f64,
    sum: f64,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(processes: &'a Processes) -> Self {
        let (forwarder, sum) = spent(processes);
        Self { processes, began: Instant::now(), forwarder, sum }
    }

    pub(crate) fn stop(self) -> Usage {
        let seconds = self.began.elapsed().as_secs_f64();
        let (forwarder, sum) = spent(self.processes);
        Usage { seconds, forwarder: forwarder - self.forwarder, sum: sum - self.sum }
    }
}

/// CPU seconds so far: of the forwarder, and of all.
fn spent(processes: &Processes) -> (f64, f64) {
    // What is exact lacks the threads that have ended. Ticks have them, and are less than it without such threads.
    let used = |pid: u32| cpu_seconds(pid).max(ticked_seconds(pid, ALL));
    let of = |pids: &[u32]| pids.iter().copied().map(used).sum::<f64>();
    let forwarder = of(&processes.forwarder);
    (forwarder, forwarder + of(&processes.servers) + own_cpu_seconds())
}

/// The value that this share of all values, in thousandths, does not exceed. Zero without values.
pub(crate) fn percentile(values: &mut [Duration], thousandths: usize) -> Duration {
    values.sort_unstable();
    let at = (values.len() * thousandths).div_ceil(1000);
    values.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_have_ended_count() {
        let processes = Processes { forwarder: vec![std::process::id()], servers: Vec::new() };
        let (before, _) = spent(&processes);
        let work = || while clock_gettime(ClockId::ThreadCPUTime).tv_nsec < 100_000_000 {};
        std::thread::spawn(work).join().expect("the thread ends");
        // User and system time are each rounded down to ticks of 10 ms.
        assert!(spent(&processes).0 - before > 0.07);
    }
}

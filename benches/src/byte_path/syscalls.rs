//! The system calls of a forwarder, counted by strace.

use std::{collections::BTreeMap, fs, process::Command};

use harness::until;
use rustix::process::Signal;

use crate::{load::Done, process::Process, subject::Subject};

/// Calls of each name, for one operation.
pub(crate) type Calls = BTreeMap<String, f64>;

/// Runs a load, and counts the forwarder's calls by name meanwhile. The forwarder is several times slower under strace,
/// so nothing else is measured.
///
/// # Panics
/// strace cannot be started or attached.
pub(crate) fn count(subject: &Subject, load: impl FnOnce() -> Done) -> (Done, BTreeMap<String, u64>) {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("calls");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-qq", "-o"]).arg(&output);
    for pid in subject.ids() {
        command.arg("-p").arg(pid.to_string());
    }
    let mut strace = Process::start(&mut command).expect("strace starts");
    until("strace is attached", || subject.ids().all(is_traced));
    let done = load();
    strace.signal(Signal::INT);
    strace.wait();
    (done, parse(&fs::read_to_string(output).expect("the summary of strace")))
}

/// Whether all threads of a process are traced.
fn is_traced(pid: u32) -> bool {
    let Ok(mut threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.all(|thread| {
        let status = thread.and_then(|thread| fs::read_to_string(thread.path().join("status")));
        status.is_ok_and(|text| text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
    })
}

/// Reads the table of `strace -c`: % time, seconds, usecs/call, calls, errors (if any), name.
fn parse(table: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.first()?.parse::<f64>().ok()?;
        let (calls, name) = (fields.get(3)?.parse().ok()?, *fields.last()?);
        (name != "total").then(|| (name.to_owned(), calls))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read_with_and_without_errors() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     60.00    0.000600           3       200           epoll_wait\n \
                     40.00    0.000400           4       100        50 recvfrom\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.001000           3       300        50 total\n";
        let expected = [("epoll_wait", 200), ("recvfrom", 100)].map(|(name, calls)| (name.to_owned(), calls));
        assert_eq!(parse(table), BTreeMap::from(expected));
    }
}

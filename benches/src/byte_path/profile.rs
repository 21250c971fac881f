//! Where the CPU time of a forwarder goes, as `perf` samples it.

use std::{collections::BTreeMap, process::Command};

use rustix::process::Signal;

use crate::{process::Process, subject::Subject};

/// Samples per second: no multiple of a timer's rate.
const RATE: &str = "1999";
/// The kernel's names of the functions of a system call begin with one of these. The compiler may leave either out.
const CALL: [&str; 2] = ["__x64_sys_", "__sys_"];
/// Functions that do the work of a call, into which the compiler merges the function with its name.
const MERGED: [(&str, &str); 3] = [("do_readv", "readv"), ("do_sendfile", "sendfile64"), ("do_writev", "writev")];
/// The function of the kernel that processes packets that have arrived. On loopback, that is in the middle of the call
/// that sends them.
const PACKETS: &str = "handle_softirqs";

/// Parts of the CPU time of a forwarder, from 0 to 1.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Shares {
    /// In the program itself.
    pub(crate) program: f64,
    /// For packets that have arrived; also in the calls that sent them.
    pub(crate) packets: f64,
    /// In each system call, by its name.
    pub(crate) calls: BTreeMap<String, f64>,
}

/// Runs a load, and samples the forwarder meanwhile.
///
/// # Panics
/// perf cannot be started, or has no samples.
pub(crate) fn sample(subject: &Subject, load: impl FnOnce()) -> Shares {
    let folder = tempfile::tempdir().expect("folder");
    let samples = folder.path().join("samples");
    let ids = subject.ids().map(|pid| pid.to_string()).collect::<Vec<_>>().join(",");
    let mut command = Command::new("perf");
    command.args(["record", "--quiet", "-g", "-F", RATE, "-p", &ids, "-o"]).arg(&samples);
    let mut perf = Process::start(&mut command).expect("perf starts");
    load();
    perf.signal(Signal::INT);
    perf.wait();
    let mut command = Command::new("perf");
    command.args(["report", "--stdio", "--children", "-g", "none", "--sort", "sym", "--percent-limit", "0", "-i"]);
    let report = command.arg(&samples).output().expect("perf reports");
    let shares = parse(&String::from_utf8_lossy(&report.stdout));
    assert!(!shares.calls.is_empty(), "perf has no samples of system calls");
    shares
}

/// Reads the table of `perf report`: the share with what a function calls, its own share, where it is (`.` for the
/// program, `k` for the kernel), and its name.
fn parse(report: &str) -> Shares {
    let mut shares = Shares::default();
    for line in report.lines() {
        let mut fields = line.split_whitespace();
        let mut share = || fields.next()?.strip_suffix('%')?.parse::<f64>().ok().map(|percent| percent / 100.0);
        let (Some(all), Some(own)) = (share(), share()) else { continue };
        let (Some(place), Some(name)) = (fields.next(), fields.next()) else { continue };
        if place == "[.]" {
            shares.program += own;
        } else if name == PACKETS {
            shares.packets = all;
        } else if let Some(call) = called(name) {
            let of_call = shares.calls.entry(call.to_owned()).or_default();
            *of_call = of_call.max(all);
        }
    }
    shares
}

/// The system call to which a function of the kernel belongs.
fn called(function: &str) -> Option<&str> {
    let merged = MERGED.iter().find(|(name, _)| *name == function).map(|(_, call)| *call);
    merged.or_else(|| CALL.iter().find_map(|prefix| function.strip_prefix(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_calls_with_what_they_call_and_of_the_program_alone() {
        let report = "# Children      Self  Symbol\n\
                      # ........  ........  ......\n\n    \
                      99.00%     0.50%  [k] do_syscall_64\n    \
                      60.00%     0.00%  [k] __x64_sys_sendto\n    \
                      59.00%     0.10%  [k] __sys_sendto\n    \
                      40.00%     1.00%  [k] handle_softirqs\n    \
                      20.00%     0.00%  [k] __sys_connect\n    \
                      12.00%     6.00%  [.] 0x0000000000012345\n     \
                      4.00%     4.00%  [.] memcpy\n";
        let calls = [("connect", 0.2), ("sendto", 0.6)].map(|(name, share)| (name.to_owned(), share));
        let expected = Shares { program: 0.1, packets: 0.4, calls: BTreeMap::from(calls) };
        assert_eq!(parse(report), expected);
    }

    #[test]
    fn a_call_counts_once_whichever_of_its_functions_the_compiler_has_left() {
        let report = "    30.00%     0.00%  [k] do_writev\n    \
                      25.00%     0.00%  [k] __x64_sys_sendfile64\n    \
                      24.00%     0.00%  [k] do_sendfile\n    \
                      20.00%     0.00%  [k] do_iter_readv_writev\n";
        let calls = [("sendfile64", 0.25), ("writev", 0.3)].map(|(name, share)| (name.to_owned(), share));
        assert_eq!(parse(report).calls, BTreeMap::from(calls));
    }
}

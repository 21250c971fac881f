//! A network namespace of the bench's own, and the CPUs of its processes.
//!
//! The bench runs itself again under `unshare --net`, so that everything it starts is inside.

use std::{env, fs, os::unix::process::CommandExt, path::Path, process::Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Settings of the namespace. The default congestion control of a host may pace, which on loopback hides what a
/// forwarder costs; fixed ports lie below the range for clients.
const SETTINGS: [(&str, &str); 3] = [
    ("net/ipv4/tcp_congestion_control", "reno"),
    ("net/ipv4/ip_local_port_range", "20000 65500"),
    ("net/ipv4/tcp_tw_reuse", "1"),
];

/// Replaces this process by one in a namespace of its own, with further arguments. Returns only on failure: the reason.
pub(crate) fn reenter(further: &[(&str, &Path)]) -> String {
    let own = match env::current_exe() {
        Ok(own) => own,
        Err(error) => return format!("the path of this program is unknown: {error}"),
    };
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(own).args(env::args_os().skip(1));
    for (option, value) in further {
        command.arg(option).arg(value);
    }
    format!("cannot run unshare (package util-linux): {}", command.exec())
}

/// Prepares the namespace that this process is in.
pub(crate) fn prepare() -> Result<(), String> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.is_ok_and(|status| status.success()) {
        return Err("`ip link set lo up` failed (package iproute2)".to_owned());
    }
    for (name, value) in SETTINGS {
        set(name, value)?;
    }
    harness::raise_file_limit();
    Ok(())
}

/// Changes a setting of the namespace.
pub(crate) fn set(name: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).map_err(|error| format!("cannot write {value} to {path}: {error}"))
}

/// The CPUs of the forwarder, and of client and servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpus {
    pub(crate) forwarder: usize,
    pub(crate) load: usize,
}

impl std::str::FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: Option<(usize, usize)> =
            text.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        let (forwarder, load) = parsed.ok_or_else(|| "expected two CPUs such as 0,1".to_owned())?;
        if forwarder.max(load) >= CpuSet::MAX_CPU {
            return Err(format!("no CPU has a number above {}", CpuSet::MAX_CPU - 1));
        }
        Ok(Self { forwarder, load })
    }
}

impl Cpus {
    /// Whether this process may run on both CPUs.
    pub(crate) fn check(self) -> Result<(), String> {
        let allowed =
            sched_getaffinity(None).map_err(|error| format!("the CPUs of this process are unknown: {error}"))?;
        match [self.forwarder, self.load].into_iter().find(|cpu| !allowed.is_set(*cpu)) {
            Some(cpu) => Err(format!("this process may not run on CPU {cpu}; see --cpus")),
            None => Ok(()),
        }
    }

    /// Pins this thread, and what it starts from now on, to the CPU of client and servers.
    pub(crate) fn pin_load(self) {
        pin(&[self.load]);
    }

    /// Starts a forwarder: on its CPU, or on both.
    pub(crate) fn spawn<T>(self, both: bool, spawn: impl FnOnce() -> T) -> T {
        let mut cpus = vec![self.forwarder];
        if both {
            cpus.push(self.load);
        }
        pin(&cpus);
        let spawned = spawn();
        self.pin_load();
        spawned
    }
}

fn pin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).expect("CPUs of this machine: see --cpus");
}

//! What the machine leaves to the tests: CPU time and memory. A test that was late may have been so on a machine that was
//! busy with something else.

use std::{
    fmt, fs,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(20);

/// Looks at the machine until it is asked for what it saw.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Sender<()>,
    looks: JoinHandle<Option<Seen>>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn start() -> Self {
        let (stop, stopped) = channel();
        let looks = thread::spawn(move || {
            let started = Instant::now();
            let mut seen = Seen::begin(&Look::take()?);
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                seen.add(&Look::take()?, started.elapsed());
            }
            Some(seen)
        });
        Self { stop, looks }
    }

    /// What was seen. `None` where the system does not tell.
    pub(crate) fn stop(self) -> Option<Seen> {
        drop(self.stop);
        self.looks.join().ok().flatten()
    }
}

/// One look.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// CPU time so far, and the part that the host gave to other machines; in ticks.
    time: u64,
    stolen: u64,
    /// Memory that programs can still get, bytes.
    available: u64,
}

impl Look {
    fn take() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/meminfo").ok()?)
    }

    /// Reads both files of proc(5).
    fn parse(stat: &str, memory: &str) -> Option<Self> {
        let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
        let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kibibytes: u64 = available.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Self { time: ticks.iter().sum(), stolen: *ticks.get(7)?, available: kibibytes << 10 })
    }

    /// Percent of the time since an earlier look that the host gave to other machines.
    fn stolen_since(&self, before: &Self) -> u64 {
        let time = self.time.saturating_sub(before.time);
        (self.stolen.saturating_sub(before.stolen) * 100).checked_div(time).unwrap_or_default()
    }
}

/// What was seen of the machine.
#[derive(Debug)]
pub(crate) struct Seen {
    first: Look,
    last: Look,
    /// Most percent of stolen time between two looks, and when.
    worst: (u64, Duration),
    least_available: u64,
}

impl Seen {
    fn begin(look: &Look) -> Self {
        Self { first: *look, last: *look, worst: (0, Duration::ZERO), least_available: look.available }
    }

    fn add(&mut self, look: &Look, at: Duration) {
        let stolen = look.stolen_since(&self.last);
        if stolen > self.worst.0 {
            self.worst = (stolen, at);
        }
        self.least_available = self.least_available.min(look.available);
        self.last = *look;
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stolen, (worst, at)) = (self.last.stolen_since(&self.first), self.worst);
        write!(
            f,
            "\nother machines had {stolen} % of the CPU time, at most {worst} % of 20 s, {} s after the start\n",
            at.as_secs()
        )?;
        writeln!(f, "at least {} MiB of memory were available", self.least_available >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(idle: u64, stolen: u64, mebibytes: u64) -> Look {
        let stat = format!("cpu  100 0 50 {idle} 0 0 0 {stolen} 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        let memory = format!("MemTotal: 1 kB\nMemAvailable:   {} kB\n", mebibytes << 10);
        Look::parse(&stat, &memory).expect("both files")
    }

    #[test]
    fn the_worst_time_and_the_least_memory_are_told() {
        let mut seen = Seen::begin(&look(0, 0, 900));
        seen.add(&look(50, 50, 300), Duration::from_secs(20));
        seen.add(&look(150, 50, 800), Duration::from_secs(40));
        let text = seen.to_string();
        assert!(text.contains("had 25 % of the CPU time, at most 50 % of 20 s, 20 s after the start"), "{text}");
        assert!(text.contains("300 MiB"), "{text}");
    }

    #[test]
    fn a_system_that_does_not_tell_is_no_error() {
        assert!(Look::parse("", "").is_none() && Look::parse("cpu 1 2", "MemAvailable: 1 kB").is_none());
    }
}

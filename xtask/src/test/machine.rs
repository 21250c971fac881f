//! Records the CPU time and memory that the machine leaves to the tests: a test may be late because the machine was
//! busy otherwise.

use std::{
    fmt, fs,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Interval between two samples.
const EVERY: Duration = Duration::from_secs(20);

/// Samples the machine until it is stopped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Sender<()>,
    looks: JoinHandle<Option<Seen>>,
}

impl Watch {
    /// Starts sampling.
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

    /// Stops sampling, and returns the observations. `None` where the system does not provide them.
    pub(crate) fn stop(self) -> Option<Seen> {
        drop(self.stop);
        self.looks.join().ok().flatten()
    }
}

/// One sample.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// CPU time so far, and the part of it that the host gave to other machines; in ticks.
    time: u64,
    stolen: u64,
    /// Memory that is still available to programs, bytes.
    available: u64,
}

impl Look {
    fn take() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/meminfo").ok()?)
    }

    /// Reads both files of proc(5).
    fn parse(stat: &str, memory: &str) -> Option<Self> {
        let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace();
        // The fields are user, nice, system, idle, iowait, irq, softirq and steal.
        let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
        let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kibibytes: u64 = available.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Self { time: ticks.iter().sum(), stolen: *ticks.get(7)?, available: kibibytes << 10 })
    }

    /// Percentage of the time since an earlier sample that the host gave to other machines.
    fn stolen_since(&self, before: &Self) -> u64 {
        let time = self.time.saturating_sub(before.time);
        (self.stolen.saturating_sub(before.stolen) * 100).checked_div(time).unwrap_or_default()
    }
}

/// The observations of the machine.
#[derive(Debug)]
pub(crate) struct Seen {
    first: Look,
    last: Look,
    /// The highest percentage of stolen time between two samples, with its time.
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

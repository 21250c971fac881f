//! The CPU time of a proxy, with that of its control thread apart: it answers followers, and moves no bytes of sessions.

use std::{fs, path::PathBuf};

use crate::cpu::{cpu_seconds, run_time};

/// Name of the control thread.
const CONTROL: &str = "control";

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Those of the control thread.
    pub(crate) control: f64,
    /// Those of all other threads.
    pub(crate) others: f64,
}

impl Used {
    /// Those of a proxy since its start.
    pub(crate) fn of(pid: u32) -> Self {
        let (all, control) = (cpu_seconds(pid), control_seconds(pid));
        Self { control, others: all - control }
    }

    /// Those since `before`, per second of so many.
    pub(crate) fn since(self, before: Self, seconds: f64) -> Self {
        let per_second = |now: f64, before: f64| (now - before) / seconds;
        Self { control: per_second(self.control, before.control), others: per_second(self.others, before.others) }
    }

    /// Those of all threads.
    pub(crate) fn all(self) -> f64 {
        self.control + self.others
    }
}

fn control_seconds(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let is_control = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| name.trim_end() == CONTROL)
    };
    let thread = threads.flatten().map(|thread| thread.path()).find(is_control).expect("a control thread");
    run_time(&thread.join("schedstat")).expect("a time") as f64 / 1e9
}

/// The CPU seconds per second of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Nobody follows.
    pub(crate) alone: Used,
    /// One page follows.
    pub(crate) followed: Used,
    /// One page follows that reads the sessions so many times as often.
    pub(crate) read_often: Used,
    /// How many times.
    pub(crate) times: u32,
}

impl Round {
    /// CPU of a followed proxy, relative to that of one that is alone.
    pub(crate) fn ratio(&self) -> f64 {
        self.followed.all() / self.alone.all()
    }

    /// What a follower takes of the control thread, which does little else.
    pub(crate) fn of_control(&self) -> f64 {
        self.followed.control - self.alone.control
    }

    /// What a follower takes of the other threads. From one round to the next they differ by many times as much, so this is
    /// a part of what many reads take.
    pub(crate) fn of_others(&self) -> f64 {
        (self.read_often.others - self.alone.others) / f64::from(self.times)
    }

    /// What a follower takes, relative to the CPU of the proxy alone.
    pub(crate) fn share(&self) -> f64 {
        (self.of_control() + self.of_others()) / self.alone.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_does_not_depend_on_how_the_load_of_the_other_threads_differs() {
        let used = |control, others| Used { control, others };
        let round = Round {
            alone: used(0.002, 0.098),
            // The load took a tenth more by chance.
            followed: used(0.0025, 0.108),
            read_often: used(0.012, 0.1),
            times: 20,
        };
        assert!((round.ratio() - 1.105).abs() < 1e-9, "{}", round.ratio());
        assert!((round.share() - 0.006).abs() < 1e-9, "{}", round.share());
    }
}

//! The CPU time of a proxy, with that of the threads apart that serve a follower and move no bytes of sessions.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::cpu::{cpu_seconds, run_time};

/// Name of the control thread.
const CONTROL: &str = "control";

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Those of the threads that serve a follower: the control thread, and the main one if it has the stream.
    pub(crate) control: f64,
    /// Those of all other threads.
    pub(crate) others: f64,
}

impl Used {
    /// Those of a proxy since its start; `serving` are the threads apart.
    pub(crate) fn of(pid: u32, serving: &[PathBuf]) -> Self {
        let (all, control) = (cpu_seconds(pid), serving.iter().map(|thread| seconds(thread)).sum::<f64>());
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

/// The control thread of a proxy, with its main thread if that serves the follower, too.
pub(crate) fn serving(pid: u32, with_main: bool) -> Vec<PathBuf> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let threads: Vec<PathBuf> = threads.flatten().map(|thread| thread.path()).collect();
    let is_control = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| name.trim_end() == CONTROL)
    };
    let is_main = |thread: &PathBuf| thread.ends_with(pid.to_string());
    assert!(threads.iter().any(is_control), "no control thread");
    threads.into_iter().filter(|thread| is_control(thread) || (with_main && is_main(thread))).collect()
}

fn seconds(thread: &Path) -> f64 {
    run_time(&thread.join("schedstat")).expect("a time") as f64 / 1e9
}

/// The CPU seconds per second of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Nobody follows.
    pub(crate) alone: Used,
    /// One client follows.
    pub(crate) followed: Used,
    /// One client follows that reads the sessions so many times as often.
    pub(crate) read_often: Used,
    /// How many times.
    pub(crate) times: u32,
}

impl Round {
    /// CPU of a followed proxy, relative to that of one that is alone.
    pub(crate) fn ratio(&self) -> f64 {
        self.followed.all() / self.alone.all()
    }

    /// What a follower takes of the threads that serve it, which do little else.
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
    use std::{process, sync::mpsc, thread};

    use super::*;

    #[test]
    fn the_main_thread_counts_only_where_it_serves_the_follower() {
        let (end, ended) = mpsc::channel::<()>();
        let control = thread::Builder::new().name(CONTROL.to_owned()).spawn(move || ended.recv()).expect("a thread");
        // A thread has its name some time after it was spawned.
        harness::until("a thread with a name", || {
            fs::read_dir("/proc/self/task").expect("a process").flatten().any(|thread| {
                fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == CONTROL)
            })
        });
        let pid = process::id();
        assert_eq!([serving(pid, false).len(), serving(pid, true).len()], [1, 2]);
        let used = Used::of(pid, &serving(pid, true));
        assert!(used.control > 0.0, "the main thread has run: {used:?}");
        drop(end);
        let _ = control.join();
    }

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
